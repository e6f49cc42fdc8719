"""`solami doctor FOLDER_OR_REPOSITORY`: whether it is complete and coherent, and how to mend what is not.

    solami doctor runs/sft
    solami doctor org/solami --revision v1 --json

Checkpoints, codecs, adapters, evaluators, data sets and metrics are told apart by what lies in them. The exit code is
1 when there is a problem; notes are no problems. Code from the folder runs only where it is this version's own, or is
trusted.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from safetensors import SafetensorError

from ..command_line import option, parse_arguments
from ..modeling.remote_code import remote_modules
from ..processing.files.folder_or_hub import check_source, hub_id
from ..processing.hub_upload import Finding, files_of, refusals
from . import doctor_checks
from .eval_entries import check_eval_entries
from .repository_files import KINDS, kind_of, missing, read_json

logger = logging.getLogger(__name__)

_LEFT_BY_TRAINING = ("checkpoint-*/*", "adapter/*", "training_args.*", "history.json", "runs/*")
# What a damaged file raises when somebody reads it: that is a finding, not the end of the examination.
_FAULTS = (ValueError, KeyError, TypeError, AttributeError, OSError, RuntimeError, ImportError, SafetensorError)


@dataclass(frozen=True)
class Examination:
    """Result of an examination: kind of the repository, and findings by the name of the check."""

    source: str
    kind: str
    checks: dict[str, list[Finding]]

    @property
    def problems(self) -> list[Finding]:
        """All findings that are no notes."""
        return [finding for found in self.checks.values() for finding in found if not finding.is_note]


def examine(
    source: str | Path, revision: str | None = None, trust_remote_code: bool = False, examine_code: bool = True
) -> Examination:
    """Examines a folder, or a repository on the Hub (`owner/name`, at a revision), which is downloaded.

    `trust_remote_code` runs code in it that is not this version's own, to see whether it loads; `examine_code` loads
    it in a process of its own, as somebody without solami_hf does, which takes some seconds. Raises FileNotFoundError:
    no such folder; ValueError: it is no repository of ours; RepositoryNotFoundError, RevisionNotFoundError: no such
    repository, for this user.
    """
    repo = hub_id(source)
    check_source("local", source)
    folder = Path(source) if repo is None else _download(repo, revision)
    kind = kind_of(folder)
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "files": partial(missing, folder, kind),
        "fit to be shared": partial(_unfit, folder),
        **{name: partial(check, folder) for name, check in doctor_checks.CHECKS[kind].items()},
    }
    if kind in ("checkpoint", "codec", "evaluator") and examine_code:
        checks["remote code"] = partial(_check_code, folder, trust_remote_code)
    if KINDS[kind] == "model":
        checks["results"] = partial(check_eval_entries, folder)
    checks["card"] = partial(doctor_checks.check_card, folder, kind, repo)
    return Examination(str(source), kind, {name: _careful(check) for name, check in checks.items()})


def _unfit(folder: Path) -> Iterator[Finding]:
    """Findings about files that must not be pushed, and notes on training files that stay here."""
    names = files_of(folder)
    left = [name for name in names if any(fnmatch(name, pattern) for pattern in _LEFT_BY_TRAINING)]
    yield from refusals(folder, sorted(set(names) - set(left)))
    if left:
        told = f"{len(left)} files of the training, such as {left[0]}"
        yield Finding(".", told, "`solami export` and `solami push` leave them out", is_note=True)


def _careful(check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except _FAULTS as error:
        told = " ".join(str(error).split()) or type(error).__name__
        return [Finding("all of it", f"cannot be checked: {told}", "mend that first, and examine it again")]


def _download(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    for repo_type in ("model", "dataset", "space"):
        try:
            return Path(snapshot_download(repo_id, repo_type=repo_type, revision=revision))
        except RepositoryNotFoundError as error:
            if isinstance(error, GatedRepoError) or repo_type == "space":
                raise


@dataclass
class DoctorArguments:
    """Arguments of `solami doctor`."""

    source: str = option(..., "Folder, or OWNER/NAME on the Hub (also accepted as the first word).")
    revision: str | None = option(None, "Branch, tag or commit of a repository.")
    json: bool = option(False, "Write the findings as one JSON object.")
    trust_remote_code: bool = option(False, "Run code of the repository that is not this version's own.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; the exit code is 1 when there is a problem."""
    (args,) = parse_arguments([DoctorArguments], argv, "solami doctor", words=["source"])
    done = examine(args.source, args.revision, args.trust_remote_code)
    if args.json:
        checks = {name: [asdict(finding) for finding in found] for name, found in done.checks.items()}
        answer = {"source": done.source, "kind": done.kind, "problems": len(done.problems), "checks": checks}
        sys.stdout.write(json.dumps(answer, indent=1, ensure_ascii=False) + "\n")
    else:
        for name, found in done.checks.items():
            wrong = [finding for finding in found if not finding.is_note]
            logger.info("%-7s %s", "PROBLEM" if wrong else "ok", name)
            for finding in found:
                logger.info("        %s%s", "note: " if finding.is_note else "", finding)
        logger.info("%s: %s with %d problems", done.source, done.kind, len(done.problems))
    return 1 if done.problems else 0


_SECONDS = 300
# Modules of the classes that are saved with their code.
_OURS = ("processing.processing_solami", "modeling.solami.modeling_solami", "modeling.motion_vq.modeling_motion_vq",
         "modeling.speech_codec.modeling_speech_codec", "modeling.soundstorm.modeling_soundstorm",
         "modeling.talker.modeling_talker", "modeling.face.modeling_lips",
         "modeling.motion_evaluator.modeling_motion_evaluator")  # fmt: skip
# In a process of its own, which behaves as if solami_hf were not there.
_LOAD = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "solami_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor
folder, is_checkpoint = sys.argv[1], sys.argv[2] == "checkpoint"
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
with torch.device("meta"):
    for auto in (AutoModel, AutoModelForCausalLM) if is_checkpoint else (AutoModel,):
        auto.from_config(config, trust_remote_code=True)
if is_checkpoint:
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    processor.motion_codec, processor.speech_codec
"""


def _check_code(folder: Path, trust_remote_code: bool) -> Iterator[Finding]:
    """Compares the modules in a folder with this version's, and loads the folder by them alone. Code that differs is
    not run unless it is trusted: whose it is, is for the user to judge."""
    ours, foreign = {}, False
    for name in _OURS:
        ours |= remote_modules(find_spec(f"solami_hf.{name}").origin)
    for path in sorted(folder.rglob("*.py")):
        if path.read_text(encoding="utf-8") != ours.get(path.name):
            foreign = True
            told = "differs from this version's" if path.name in ours else "is no code of solami_hf"
            remedy = "read it before you trust it; saving the processor again writes this version's code"
            yield Finding(str(path.relative_to(folder)), told, remedy, is_note=True)
    is_checkpoint = (folder / "processor_config.json").is_file()
    if not list(folder.glob("*.py")) or not (is_checkpoint or read_json(folder / "config.json").get("auto_map")):
        return  # told among the files
    if foreign and not trust_remote_code:
        remedy = "examine it with --trust_remote_code once you have read it"
        yield Finding("*.py", "the code was not run", remedy, is_note=True)
        return
    with tempfile.TemporaryDirectory() as cache:
        offline = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": cache, "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", _LOAD, str(folder.resolve()), "checkpoint" if is_checkpoint else "codec"]
        try:
            settings = {"env": os.environ | offline, "cwd": cache, "timeout": _SECONDS}
            done = subprocess.run(command, capture_output=True, text=True, **settings)
        except subprocess.TimeoutExpired:
            yield Finding("*.py", f"loading took more than {_SECONDS} s", "try it again on an idle machine")
            return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        remedy = "save model and processor again with this version of solami_hf, which writes its code anew"
        yield Finding("*.py", f"it does not load with trust_remote_code: {last}", remedy)
