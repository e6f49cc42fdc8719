"""`--job` prints a line that the installed `hf` takes, with what is on this machine mounted."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from solami_hf import cli

HF = Path(sys.executable).with_name("hf")
JOB = ["--job", "a10g-small", "--job_bucket", "org/runs"]


def line_of(words, capsys) -> list[str]:
    assert cli.main(words) == 0
    return shlex.split(capsys.readouterr().out)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tokens", "results"):
        Path(name).mkdir()
    Path("recipe.yaml").write_text("max_steps: 5\n")
    return tmp_path


def test_training_and_evaluation(here, capsys):
    sft = ["sft", "--config", "recipe.yaml", "--model", "org/model", "--data", "tokens", "--output_dir", "runs/mine"]
    line = line_of([*sft, *JOB, "--job_timeout=2h"], capsys)
    assert line[:9] == ["hf", "jobs", "run", "--flavor", "a10g-small", "--timeout", "2h", "--secrets", "HF_TOKEN"]
    mounts = [line[i + 1] for i, word in enumerate(line) if word == "-v"]
    assert mounts == [f"{here}:/inputs/0:ro", f"{here}/tokens:/inputs/1:ro", "hf://buckets/org/runs:/outputs:rw"]
    assert line[-4:-1] == ["python:3.11", "bash", "-c"]
    assert line[-1] == (
        "pip install solami_hf && solami sft --config /inputs/0/recipe.yaml --model org/model --data /inputs/1 "
        "--output_dir /outputs/mine"
    )
    line = line_of(["evaluate", "chat", "results", "--seed", "3", *JOB], capsys)
    assert line[-1] == (
        "pip install 'solami_hf[eval]' && solami evaluate chat /inputs/0 --seed 3 --output /outputs/evaluate"
    )
    pretrain = [
        "pretrain",
        "--model",
        "org/model",
        "--data",
        "org/tokens",
        "--max_steps=5",
        "--output_dir=out/b",
        *JOB,
    ]
    assert line_of(pretrain, capsys)[-1].endswith("--data org/tokens --max_steps=5 --output_dir /outputs/b")


def test_the_installed_hf_takes_the_line(here, capsys):
    line = line_of(["evaluate", "chat", "results", *JOB], capsys)
    settings = {**os.environ, "HF_TOKEN": "hf_none", "HF_HOME": str(here / "home"), "NO_COLOR": "1"}
    line.insert(3, "--dry-run")
    told = [
        subprocess.run([HF, *words], capture_output=True, text=True, env=settings, timeout=120, check=True).stdout
        for words in (line[1:], ["jobs", "run", "--help"])
    ]
    plan, manual = (" ".join(re.sub(r"\x1b\[\d+m", "", text).split()) for text in told)
    # An option that it does not know would be taken for the image.
    assert "image python:3.11 command bash -c" in plan and "flavor a10g-small timeout 6h" in plan
    assert "hf://buckets/org/runs:/outputs:rw" in plan and "not submitted" in plan
    for option in ("--flavor", "--timeout", "--secrets", "--volume", "a10g-small"):
        assert option in manual


def test_what_a_job_cannot_do_without(here, capsys):
    assert cli.main(["evaluate", "chat", "results", "--job", "a10g-small"]) == 2
    assert "`job_bucket` is missing: a job's disk is gone when it ends" in capsys.readouterr().err
    assert cli.main(["sft", "--model", "m", "--data", "d", "--output_dir", "o", "--jobs_bucket", "x", *JOB]) == 2
    assert "--jobs_bucket" in capsys.readouterr().err  # the rest of the line is looked at too


@pytest.mark.parametrize("name", ["sft", "pretrain", "evaluate"])
def test_the_installed_hf_takes_the_examples(here, name):
    script = Path(__file__).parents[2] / "examples" / f"{name}.py"
    written = re.search(r"hf jobs uv run (.+?examples/\w+\.py)", script.read_text().replace("\\\n", " "))
    words = shlex.split(written[1])[:-1] if written else ["--flavor", "a10g-small"]
    settings = {**os.environ, "HF_TOKEN": "hf_none", "HF_HOME": str(here / "home"), "NO_COLOR": "1"}
    command = [HF, "jobs", "uv", "run", "--dry-run", *words, script, "--model", "org/model"]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "not submitted" in done.stdout and f"{name}.py" in done.stdout and "--model org/model" in done.stdout


def test_hf_solami(here):
    """As `hf extensions install OWNER/hf-solami` leaves it: a manifest that names the package's script."""
    setup = (Path(__file__).parents[2] / "setup.py").read_text()
    module, function = re.search(r'"hf-solami = ([\w.]+):(\w+)"', setup).groups()
    place = here / ".local/share/hf/extensions/hf-solami"
    place.mkdir(parents=True)
    code = f"import sys; from {module} import {function}; sys.exit({function}())"
    (place / "hf-solami").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    (place / "hf-solami").chmod(0o755)
    manifest = {
        "owner": "org", "repo": "hf-solami", "repo_id": "org/hf-solami", "short_name": "solami", "type": "python",
        "executable_path": str(place / "hf-solami"), "installed_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    (place / "manifest.json").write_text(json.dumps(manifest))
    settings = {**os.environ, "HOME": str(here), "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    run = [HF, "solami", "doctor", "./nowhere"]
    done = subprocess.run(run, capture_output=True, text=True, env=settings, timeout=120)
    assert done.returncode == 2 and "no such local folder: ./nowhere" in done.stderr
