"""The way to the Hub: files are looked through for what must not leave this machine, then sent by `upload_folder`.

Refused are secrets, pickles, paths of this machine and licensed body models. Nothing is unpickled.
"""

import glob
import json
import logging
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError  # the HTTP library's, and the Hub's own are of it
from safetensors import SafetensorError, safe_open

from .files.folder_or_hub import require_login
from .files.output_folder import writing_to
from .files.processes import is_first_process
from .files.text_files import text_of
from .media_files import files_below

logger = logging.getLogger(__name__)

_STAGED = "solami-push-"
_PATIENCE = (2, 10)  # seconds before each further try
# What an earlier push may have left beside the files of this one, and would be loaded with them.
_PARTS = (".safetensors", ".safetensors.index.json", ".parquet")
_SKIPPED_FOLDERS = ("__pycache__", ".shards", ".cache", ".git", ".ipynb_checkpoints")


@dataclass(frozen=True)
class Finding:
    """A fault, its file, and what to do about it; a note is worth knowing, but no fault."""

    where: str
    what: str
    remedy: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


@dataclass(frozen=True)
class Pushed:
    """Result of a push: the commit that the branch is at, its address, and whether this push made it."""

    commit: str
    url: str
    changed: bool


def files_of(folder: Path) -> list[str]:
    """The files below a folder that belong to a repository, relative and sorted; no caches, half files or locks."""
    names = []
    for path in files_below(folder, hidden=True):
        parts = path.relative_to(folder).parts
        half = parts[-1].startswith(".") and parts[-1].endswith((".tmp", ".lock"))
        if not half and not set(parts) & set(_SKIPPED_FOLDERS):
            names.append("/".join(parts))
    return sorted(names)


@contextmanager
def staging() -> Iterator[Path]:
    """A folder to lay files out in, gone after the block, as is what killed processes have left of theirs."""
    if is_first_process():  # others hold no lock, by which those under way are told
        for left in Path(tempfile.gettempdir()).glob(f"{_STAGED}*"):
            with suppress(OSError), writing_to(left):
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_STAGED) as temporary, writing_to(temporary):
        yield Path(temporary)


def push_folder(
    folder: str | Path,
    repo_id: str,
    repo_type: str = "model",
    private: bool = True,
    revision: str = "main",
    tag: str | None = None,
    message: str = "Push",
    names: Sequence[str] | None = None,
) -> Pushed:
    """Makes a repository hold the files of a folder, by one commit, or by none when it does already.

    Some hundred files and more come in several commits. What has arrived stays on the Hub when a push breaks off, so
    the same push goes on from there. `repo_id` is `owner/name`, made when missing, then `private`; `repo_type` is
    `model`, `dataset` or `space`; `revision` the branch to commit to, made when missing; `tag` a name that the last
    commit gets; `message` the commit's. `names` of the files are relative to the folder, by default all, see
    `files_of`; weights and rows that an earlier push left beside such are removed, other files on the Hub stay. Raises
    ValueError: a file must not be pushed, see `refusals`; nobody is logged in; or the tag is another commit's;
    HfHubHTTPError: the Hub refuses; ConnectionError: it is out of order for longer than we try.
    """
    api, folder = HfApi(), Path(folder)
    names = files_of(folder) if names is None else list(names)
    if wrong := refusals(folder, names):
        raise ValueError(f"{folder} is not pushed. {wrong[0]}{f' (and {len(wrong) - 1} more)' if wrong[1:] else ''}")
    require_login(api, repo_id)
    sdk = None if repo_type != "space" else "docker" if (folder / "Dockerfile").is_file() else "gradio"
    api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=sdk)
    if revision != "main":
        api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
    before = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
    _check_tag(api, repo_id, repo_type, tag, before.sha)
    beside = {Path(name).parent for name in names if name.endswith(_PARTS)}
    there = (sibling.rfilename for sibling in before.siblings or [])
    stale = [n for n in there if n.endswith(_PARTS) and n not in names and Path(n).parent in beside]
    for name in stale:
        logger.info("removing %s, which is not among the files any more", name)
    with staging() as temporary:
        # Links: what was looked through is what is sent, and nothing beside it.
        for name in names:
            link = temporary / "files" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / name).resolve())
        options = {"repo_id": repo_id, "repo_type": repo_type, "revision": revision, "commit_message": message}
        options["delete_patterns"] = [glob.escape(name) for name in stale] or None
        done = _with_patience(lambda: api.upload_folder(folder_path=temporary / "files", **options), repo_id)
    if tag is not None:
        api.create_tag(repo_id, tag=tag, revision=done.oid, repo_type=repo_type, exist_ok=True)
        _check_tag(api, repo_id, repo_type, tag, done.oid)
    return Pushed(done.oid, str(done.commit_url), done.oid != before.sha)


def _with_patience(upload: Callable, repo_id: str):
    """Uploads, again when the Hub is out of order; where there is no hf_xet, the client does not ask twice to commit.
    What has arrived is compared before each try, so a commit that came through unheard is not made twice."""
    for seconds in (*_PATIENCE, None):
        try:
            return upload()
        except HTTPError as error:
            if getattr(getattr(error, "response", None), "status_code", 500) < 500:
                raise
            if seconds is None:
                raise ConnectionError(
                    f"the Hub did not take the commit to {repo_id} ({error}); push again later: it goes on from "
                    "there, and what has arrived is not sent again"
                ) from error
            logger.warning("the Hub did not take the commit (%s), asking again in %d s", error, seconds)
            time.sleep(seconds)


def _check_tag(api, repo_id: str, repo_type: str, tag: str | None, commit: str) -> None:
    """ValueError when a tag is that of another commit: whoever pinned it would load something else."""
    if tag is None:
        return
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id, repo_type=repo_type).tags}
    if tags.get(tag, commit) != commit:
        raise ValueError(
            f"tag {tag} of {repo_id} is at {tags[tag][:8]}, not at {commit[:8]}; choose another name, or delete it"
        )


_MAX_TEXT_BYTES = 64 << 20
_TEXT = (".json", ".jsonl", ".yaml", ".yml", ".md", ".txt", ".py", ".jinja", ".html", ".js", ".css", ".csv", ".toml",
         ".cfg", ".ini", ".sh", ".env", "")  # fmt: skip
_SETTINGS = (".json", ".jsonl", ".yaml", ".yml")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill")
_SECRET_FILES = (".env", ".netrc", ".git-credentials", "id_rsa", "id_ed25519", "stored_tokens")
_SECRETS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "an OpenAI or Anthropic key": r"\bsk-[A-Za-z0-9_-]{20,}",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}",
    "an AWS key": r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a Slack token": r"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a password": r"(?i)[\"']?(?:password|passwd|api_?key|secret_?key|access_?token|hf_token)[\"']?\s*[:=]\s*"
    r"[\"'](?=[^\"']*\d)[^\"'\s{}<>$]{12,}[\"']",
}
# A path is told by where it begins, since "/" also begins parts of a vocabulary and of addresses.
_ROOTS = "home|Users|root|tmp|mnt|data|var|opt|srv|work|workspace|scratch|media|private|content|kaggle|nfs|gpfs|lustre"
_PATH_IN_TEXT = re.compile(
    rf"(?<![\w/.:>*-])(?:/(?:{_ROOTS})/[\w.@+-]+[\w./@+-]*|[A-Z]:\\\\?[\w.]+\\[\w.\\]+|file://\S+)"
)
_WHOLE_PATH = re.compile(r"(?:/[\w.@+-]+){2,}/?|~/\S+|[A-Za-z]:[\\/]\S+|file://\S+")
# Their text is words, not settings.
_NOT_SEARCHED_FOR_PATHS = ("tokenizer.json", "vocab.json", "merges.txt")
_BODY_NAME = re.compile(
    r"(?:basic_?model|(?:smpl[xh]?|mano|flame|smil|star|skel)[_-](?:neutral|male|female|left|right|generic))"
    r".*\.(?:npz|npy|pkl|safetensors)",
    re.IGNORECASE,
)
_BODY_ARRAYS = {"v_template", "shapedirs"}


def refusals(folder: Path, names: Iterable[str]) -> list[Finding]:
    """Findings about files that must not be pushed."""
    return [finding for name in names for check in _CHECKS for finding in check(folder / name, name)]


def _secrets(path: Path, name: str) -> Iterator[Finding]:
    if path.name in _SECRET_FILES:
        yield Finding(name, "a file of secrets", "leave it out, and change what it holds if it was ever public")
        return
    text = _text_of(path)
    for what, pattern in _SECRETS.items():
        if match := re.search(pattern, text):
            line = text.count("\n", 0, match.start()) + 1
            yield Finding(name, f"{what} in line {line}", "take it out, and have a new one issued")


def _pickles(path: Path, name: str) -> Iterator[Finding]:
    if path.suffix.lower() in _PICKLES or _is_pickle(path):
        remedy = "save weights as safetensors and arrays without objects; a pickle runs code when it is opened"
        yield Finding(name, "a pickle", remedy)


def _is_pickle(path: Path) -> bool:
    """By content: a pickle under another name, torch's archive of one, or numpy's arrays of objects."""
    with path.open("rb") as file:
        head = file.read(512)
    if re.match(rb"\x80[\x02-\x05]", head):
        return True
    if head[:6] == b"\x93NUMPY":
        return _holds_objects(head)
    if head[:4] != b"PK\x03\x04" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        arrays = [member for member in archive.namelist() if member.endswith(".npy")]
        return any(member.endswith((".pkl", ".pickle")) for member in archive.namelist()) or any(
            _holds_objects(archive.open(member).read(512)) for member in arrays
        )


def _holds_objects(npy_head: bytes) -> bool:
    return b"'descr': '|O'" in npy_head or b"('|O'" in npy_head or b", '|O')" in npy_head


def _paths(path: Path, name: str) -> Iterator[Finding]:
    if path.name in _NOT_SEARCHED_FOR_PATHS or path.suffix not in (*_SETTINGS, ".md", ".txt", ".html"):
        return
    text, found = _text_of(path), None
    if path.suffix in _SETTINGS:
        found = next((value for value in _strings(_parsed(path, text)) if _WHOLE_PATH.fullmatch(value)), None)
    if found is None and (match := _PATH_IN_TEXT.search(text)):
        found = match[0]
    if found is not None:
        remedy = "write a Hub id or a relative path, or leave it out"
        yield Finding(name, f"{found!r} is a path of this machine", remedy)


def _parsed(path: Path, text: str):
    """Contents of a settings file; of one that is damaged its text, which is searched as it is."""
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text) if path.suffix == ".json" else list(yaml.safe_load_all(text))
    except (ValueError, yaml.YAMLError):
        return text


def _strings(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _strings(entry)


def _body_models(path: Path, name: str) -> Iterator[Finding]:
    if _BODY_NAME.fullmatch(path.name) or _BODY_ARRAYS <= _array_names(path):
        remedy = "leave it out: its licence forbids to pass it on; name in the card where others get it"
        yield Finding(name, "a licensed body model (SMPL-X or a relative)", remedy)


def _array_names(path: Path) -> set[str]:
    if path.suffix == ".npz" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return {member.removesuffix(".npy") for member in archive.namelist()}
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="numpy") as file:
                return set(file.keys())
        except SafetensorError:
            return set()
    return set()


def _text_of(path: Path) -> str:
    """A text file's text; nothing of one that is binary or huge."""
    if path.suffix.lower() not in _TEXT or path.stat().st_size > _MAX_TEXT_BYTES:
        return ""
    data = path.read_bytes()
    try:
        return text_of(data, path, "replace")
    except ValueError:  # zero bytes
        return "" if b"\0" in data[:4096] else data.decode("utf-8", errors="replace")


_CHECKS: tuple[Callable[[Path, str], Iterator[Finding]], ...] = (_secrets, _pickles, _paths, _body_models)
