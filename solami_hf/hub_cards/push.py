"""`solami push KIND PATH OWNER/NAME`: a checkpoint, adapter, evaluator, data set, metric or Space to the Hub.

    solami push checkpoint runs/sft org/solami --dry_run
    solami push adapter runs/lora org/solami-lora --base org/solami --tag v1
    solami push dataset data/tokens org/tokens --public --preview runs/sft
    solami push evaluator runs/evaluator org/motion-evaluator         # of `solami train-evaluator`
    solami push metric motion_fid org/motion_fid
    solami push space org/solami org/talk --public                    # `solami serve` on it; its PATH is a Hub id
    solami push space org/talk --package solami_hf-0.1.0-py3-none-any.whl        # with the packaged character

New repositories are private unless `--public`. What is there already is not sent again, so a push that broke off is
simply repeated, and one that changes nothing makes no commit. Before anything is sent the files are looked through for
what must not leave this machine, see `processing/hub_upload.py`.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from ..command_line import option, parse_arguments
from ..processing.files.folder_or_hub import hub_id, push_target
from ..processing.hub_upload import Finding, files_of, push_folder, refusals, staging
from .croissant import write_croissant
from .eval_entries import write_eval_entries
from .export import MAX_SHARD_SIZE, export_adapter, export_checkpoint
from .repository_files import KINDS, kind_of, missing
from .space_folder import PACKAGED, write_space

logger = logging.getLogger(__name__)

# What may be pushed as what.
_PUSHED_AS = {"checkpoint": ("checkpoint", "codec"), "evaluator": ("evaluator",), "dataset": ("dataset",)}
# By name, as cli.py names commands: metrics stand above this package.
_METRICS = "solami_hf.metrics"


@dataclass
class PushArguments:
    """Arguments of `solami push`."""

    kind: str = option(..., "checkpoint, adapter, evaluator, dataset, metric or space (first word).")
    path: str = option(
        ...,
        "Its folder, the name of a metric, or the Hub id of a Space's checkpoint, of which the packaged "
        "character may be left out or called packaged (also the second word).",
    )
    repo_id: str | None = option(None, "OWNER/NAME on the Hub (also the last word).")
    public: bool = option(False, "A repository that is made is public; else private.")
    revision: str = option("main", "Branch to commit to; made when missing.")
    tag: str | None = option(None, "Name of the commit, such as v1.")
    message: str | None = option(None, "The commit's message.")
    dry_run: bool = option(False, "Only list files, sizes, and what is missing or wrong.")
    base: str | None = option(None, "Hub id of an adapter's base, where it names a folder.")
    max_shard_size: str = option(MAX_SHARD_SIZE, "Largest file of a checkpoint's weights.")
    dtype: str = option("auto", "Of a checkpoint's weights; auto: as they are.")
    package: str | None = option(None, "Wheel of solami_hf for a Space, or its address; by default pip looks for it.")
    results_dataset: str | None = option(None, "Hub id of the data of the card's figures, where it names a folder.")
    preview: str | None = option(None, "Checkpoint with a data set's codecs: adds ten rows to see and hear.")

    def __post_init__(self):
        if self.repo_id is None and self.kind == "space":
            self.path, self.repo_id = PACKAGED, self.path


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
    path, kinds = Path(args.path), [kind for kind in KINDS if kind != "codec"]
    if args.kind not in kinds:
        raise ValueError(f"`kind` is {args.kind!r}, expected one of: {', '.join(kinds)}")
    if args.kind in _PUSHED_AS and (found := kind_of(path)) not in _PUSHED_AS[args.kind]:
        raise ValueError(f"{path} is a {found}, no {args.kind}; push it as one, or name another folder")
    with staging() as temporary:
        staged = temporary / args.repo_id.split("/")[1]
        if args.kind == "dataset":
            if args.preview:
                from .dataset_preview import write_preview

                write_preview(path, args.preview)
            write_croissant(path, args.repo_id)
            staged = path
        elif args.kind == "adapter":
            export_adapter(path, staged, args.base, args.repo_id)
        elif args.kind == "metric":
            _stage_metric(args.path, staged)
        elif args.kind == "space":
            write_space(args.path, staged, args.repo_id, args.package)
        else:
            export_checkpoint(path, staged, args.repo_id, args.max_shard_size, args.dtype)
        if KINDS[args.kind] == "model":
            write_eval_entries(staged, args.results_dataset)
        yield staged


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
