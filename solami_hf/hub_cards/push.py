"""`solami push KIND PATH OWNER/NAME`: a checkpoint, adapter, data set, metric or Space to the Hub, in one commit.

    solami push checkpoint runs/sft org/solami --dry_run
    solami push adapter runs/lora org/solami-lora --base org/solami --tag v1
    solami push dataset data/tokens org/tokens --public --preview runs/sft
    solami push metric motion_fid org/motion_fid
    solami push space org/solami org/talk --public                    # `solami serve` on it; its PATH is a Hub id
    solami push space org/talk --package solami_hf-0.1.0-py3-none-any.whl        # with the packaged character

New repositories are private unless `--public`. What is there already is not sent again, so a push that broke off is
simply repeated, and one that changes nothing makes no commit. Before anything is sent the files are looked through for
what must not leave this machine, see `repository_files.py`.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from ..command_line import parse_arguments
from ..processing.files.folder_or_hub import hub_id, push_target, require_login
from ..processing.files.output_folder import writing_to
from ..processing.files.processes import is_first_process
from .eval_entries import write_eval_entries
from .export import MAX_SHARD_SIZE, export_adapter, export_checkpoint
from .repository_files import KINDS, Finding, files_of, kind_of, missing, refusals
from .space_folder import PACKAGED, write_space

logger = logging.getLogger(__name__)

# What an earlier push may have left beside the files of this one, and would be loaded with them.
_PARTS = (".safetensors", ".safetensors.index.json", ".parquet")
_STAGED = "solami-push-"
_PATIENCE = (2, 10)  # seconds before each further try
# By name, as cli.py names commands: metrics stand above this package.
_METRICS = "solami_hf.metrics"


@dataclass
class PushArguments:
    """Arguments of `solami push`."""

    kind: str = field(metadata={"help": "checkpoint, adapter, dataset, metric or space (also the first word)."})
    path: str = field(
        metadata={
            "help": "Its folder, the name of a metric, or the Hub id of a Space's checkpoint, of which the packaged "
            "character may be left out or called packaged (also the second word)."
        }
    )
    repo_id: str | None = field(default=None, metadata={"help": "OWNER/NAME on the Hub (also the last word)."})
    public: bool = field(default=False, metadata={"help": "A repository that is made is public; else private."})
    revision: str = field(default="main", metadata={"help": "Branch to commit to; made when missing."})
    tag: str | None = field(default=None, metadata={"help": "Name of the commit, such as v1."})
    message: str | None = field(default=None, metadata={"help": "The commit's message."})
    dry_run: bool = field(default=False, metadata={"help": "Only list files, sizes, and what is missing or wrong."})
    base: str | None = field(default=None, metadata={"help": "Hub id of an adapter's base, where it names a folder."})
    max_shard_size: str = field(default=MAX_SHARD_SIZE, metadata={"help": "Largest file of a checkpoint's weights."})
    dtype: str = field(default="auto", metadata={"help": "Of a checkpoint's weights; auto: as they are."})
    package: str | None = field(
        default=None,
        metadata={"help": "Wheel of solami_hf to put into a Space, or its address; by default pip looks for it."},
    )
    results_dataset: str | None = field(
        default=None, metadata={"help": "Hub id of what the card's figures were measured on, where it names a folder."}
    )
    preview: str | None = field(
        default=None,
        metadata={"help": "Checkpoint with a data set's codecs: adds ten rows to listen to and look at, `preview/`."},
    )

    def __post_init__(self):
        if self.repo_id is None and self.kind == "space":
            self.path, self.repo_id = PACKAGED, self.path


@dataclass(frozen=True)
class Pushed:
    """Result of a push: the commit that the branch is at, its address, and whether this push made it."""

    commit: str
    url: str
    changed: bool


def main(argv: list[str] | None = None) -> int:
    """Entry point of `solami push`; returns the exit code."""
    (args,) = parse_arguments([PushArguments], argv, "solami push", words=["kind", "path", "repo_id"])
    args.repo_id = push_target("repo_id", args.repo_id or "")
    with _staged(args) as folder:
        wrong = _look_through(folder, args.repo_id)
        if args.dry_run:
            logger.info("dry run: nothing was sent to %s", args.repo_id)
            return 1 if wrong else 0
        if wrong:
            more = f" (and {len(wrong) - 1} more, see above)" if len(wrong) > 1 else ""
            raise ValueError(f"{args.path} is not pushed. {wrong[0]}{more}")
        if args.kind == "space" and args.path != PACKAGED:
            _require_checkpoint(args.path)
        done = push_folder(
            folder,
            args.repo_id,
            KINDS[args.kind],
            private=not args.public,
            revision=args.revision,
            tag=args.tag,
            message=args.message or f"Push {args.kind}",
        )
    logger.info("%s %s", done.url, "" if done.changed else "had all of it already")
    return 0


@contextmanager
def _staged(args: PushArguments) -> Iterator[Path]:
    """The folder to push: of a data set its own, of the others a clean one that is gone afterwards."""
    kinds = ("checkpoint", "adapter", "dataset", "metric", "space")
    if args.kind not in kinds:
        raise ValueError(f"`kind` is {args.kind!r}, expected one of: {', '.join(kinds)}")
    path = Path(args.path)
    _remove_left()
    with tempfile.TemporaryDirectory(prefix=_STAGED) as temporary, writing_to(temporary):
        staged = Path(temporary) / args.repo_id.split("/")[1]
        if args.kind == "dataset":
            if kind_of(path) != "dataset":
                raise ValueError(f"{path} is a {kind_of(path)}, no data set of `solami prepare`")
            if args.preview:
                from .dataset_preview import write_preview

                write_preview(path, args.preview)
            staged = path
        elif args.kind == "adapter":
            export_adapter(path, staged, args.base, args.repo_id)
        elif args.kind == "metric":
            _stage_metric(args.path, staged)
        elif args.kind == "space":
            write_space(args.path, staged, args.repo_id, args.package)
        else:
            if kind_of(path) not in ("checkpoint", "codec"):
                raise ValueError(f"{path} is a {kind_of(path)}; push it as one")
            export_checkpoint(path, staged, args.repo_id, args.max_shard_size, args.dtype)
        if args.kind in ("checkpoint", "adapter"):
            write_eval_entries(staged, args.results_dataset)
        yield staged


def _remove_left() -> None:
    """Removes what pushes that were killed have left of their copies; those that are under way hold a lock."""
    if not is_first_process():  # it would hold no lock
        return
    for left in Path(tempfile.gettempdir()).glob(f"{_STAGED}*"):
        with suppress(OSError), writing_to(left):
            shutil.rmtree(left, ignore_errors=True)


def _stage_metric(path: str, staged: Path) -> None:
    """A metric by name or folder; `evaluate` finds its module by the repository's name."""
    name = Path(path).name
    if name != staged.name:
        raise ValueError(
            f"metric {name} cannot be pushed to a repository named {staged.name}: evaluate.load looks for "
            f"{staged.name}.py in it; push it to OWNER/{name}"
        )
    if name in import_module(_METRICS).NAMES:
        import_module(f"{_METRICS}.metric_export").self_contained(name, staged)
    elif Path(path).is_dir():
        shutil.copytree(path, staged, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        raise FileNotFoundError(f"{path} is neither a metric of solami_hf nor a folder of one")


def _require_checkpoint(name: str) -> None:
    """ValueError where a Space would find nothing to run."""
    from huggingface_hub import HfApi

    found = HfApi().model_info(hub_id(name)).siblings or []
    if not {"config.json", "adapter_config.json"} & {sibling.rfilename for sibling in found}:
        raise ValueError(f"{name} holds neither a checkpoint (config.json) nor an adapter (adapter_config.json)")


def _look_through(folder: Path, repo_id: str) -> list[Finding]:
    """Lists the files, and what is missing or must not be pushed; gives the faults among that."""
    names = files_of(folder)
    sizes = {name: (folder / name).stat().st_size for name in names}
    for name, size in sizes.items():
        logger.info("%10s  %s", tqdm.format_sizeof(size, "B"), name)
    logger.info("%10s  %d files for %s", tqdm.format_sizeof(sum(sizes.values()), "B"), len(names), repo_id)
    found = missing(folder, kind_of(folder)) + refusals(folder, names)
    for finding in found:
        logger.log(logging.INFO if finding.is_note else logging.WARNING, "%s", finding)
    return [finding for finding in found if not finding.is_note]


def push_folder(
    folder: str | Path,
    repo_id: str,
    repo_type: str = "model",
    private: bool = True,
    revision: str = "main",
    tag: str | None = None,
    message: str = "Push",
) -> Pushed:
    """Makes a repository hold the files of a folder, in one commit, or none when it does already.

    Large files are sent first and stay on the Hub when a push breaks off, so the next one goes on from there.

    Args:
        folder: what to push; all of it (see `repository_files.files_of`), without looking through it. Weights and rows
            that an earlier push left in the same folders are removed, other files on the Hub stay.
        repo_id: `owner/name`, made when missing.
        repo_type: `model`, `dataset` or `space`.
        private: for a repository that is made.
        revision: branch to commit to, made when missing.
        tag: name that the commit gets.
        message: of the commit.

    Raises:
        ValueError: nobody is logged in, or the tag is that of another commit.
        HfHubHTTPError: the Hub refuses. ConnectionError: it is out of order for longer than we try.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api, folder = HfApi(), Path(folder)
    require_login(api, repo_id)
    sdk = None if repo_type != "space" else "docker" if (folder / "Dockerfile").is_file() else "gradio"
    api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=sdk)
    if revision != "main":
        api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
    before = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
    _check_tag(api, repo_id, repo_type, tag, before.sha)
    names = files_of(folder)
    folders = {Path(name).parent for name in names}
    there = [sibling.rfilename for sibling in before.siblings or [] if sibling.rfilename.endswith(_PARTS)]
    stale = [name for name in there if name not in names and Path(name).parent in folders]
    for name in stale:
        logger.info("removing %s, which is not among the files any more", name)

    def commit():
        added = [CommitOperationAdd(name, str(folder / name)) for name in names]
        removed = [CommitOperationDelete(name) for name in stale]
        return api.create_commit(
            repo_id, [*added, *removed], commit_message=message, repo_type=repo_type, revision=revision
        )

    done = _with_patience(commit, repo_id)
    if tag is not None:
        api.create_tag(repo_id, tag=tag, revision=done.oid, repo_type=repo_type, exist_ok=True)
        _check_tag(api, repo_id, repo_type, tag, done.oid)
    return Pushed(done.oid, str(done.commit_url), done.oid != before.sha)


def _with_patience(commit: Callable, repo_id: str):
    """Makes a commit, again when the Hub is out of order: its client asks again for files, but not for the commit.

    What has arrived is compared before each try, so one that came through unheard is not made twice.
    """
    from huggingface_hub.errors import HTTPError  # the HTTP library's, and the Hub's own are of it

    for seconds in (*_PATIENCE, None):
        try:
            return commit()
        except HTTPError as error:
            status = getattr(getattr(error, "response", None), "status_code", 500)
            if status < 500:
                raise
            if seconds is None:
                raise ConnectionError(
                    f"the Hub did not take the commit to {repo_id} ({error}); push again later: nothing of it is "
                    "visible yet, and the large files that have arrived are not sent again"
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
