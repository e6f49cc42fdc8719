"""`solami prepare motion|speech|chat|duplex SRC --processor DIR --output FOLDER`: captures, recordings and dialogues
become token Parquet.

SRC is a folder of a known layout, or a file that lists what is beside it:

- manifest.jsonl (or .csv, .tsv), paths relative to it; `split` is `train`, `validation` or `test`:
  - motion: `{"id", "motion", "text": [str], "partner_id"?, "split"?, "source"?, "start"?, "end"?}` (seconds)
  - speech: `{"id", "turns": [{"text", "audio", "speaker"}], "split"?, "source"?}`
  - chat: `{"id", "topic", "character", "turns": [{"role", "text", "audio"?, "motion"?, "motion_text"?}], "split"?}`,
    `start` and `end` (seconds) of a turn say which piece of its files it is,
    `"motion_id"` in place of `"motion"` for a motion that was prepared before
  - duplex: `{"id", "people": [{"person", "motion", "audio", "talks"?}, {...}], "start"?, "end"?, "split"?}`, two
    people whose files share one clock; `talks` are [start, end] when one is heard, from the row's `start` on
- motion, speech, chat, duplex: Seamless Interaction; motion, chat, duplex: Embody 3D
- motion, speech: BEAT2, SuSuInterActs
- motion: HumanML3D, Inter-X, InterHuman, BONES-SEED, or a folder of .bvh or .npz files, captions in a .txt beside each
- speech: Common Voice, LJSpeech, or AnyInstruct-style metadata.jsonl

Every distinct file of a shard is read and encoded once, in batches. A row that cannot be used is left out and written
to `OUTPUT/<config>/rejected.jsonl` with the reason, a row without its partner to `orphans.jsonl`; `report.json` has
counts and hours. Run again after an interruption, finished shards are not encoded again. Several processes or machines
that share OUTPUT: `accelerate launch -m solami_hf.processing.prepare motion SRC ...`; the files are the same.

`solami prepare chat --synthesize MOTIONS --output FOLDER` has a language model write dialogues for captured motions,
as a folder for `solami prepare chat`; see its `--help`. `solami prepare messages` makes prepared dialogues fit for
`trl sft`, see `messages_data`.

With `--output hf://owner/name` the data is prepared in `runs/prepare/owner--name` and pushed to that repository at the
end; any other OUTPUT is a folder.
"""

import logging
import os
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from ..command_line import option, parse_arguments, run_command, take_kind
from .datasets.layouts.find_layout import LAYOUTS, find_layout, read_rows, root_of
from .datasets.layouts.motion_folders import left_out
from .datasets.prepare_rows import Media
from .datasets.prepare_shards import Plan, ShardWriter
from .datasets.token_dataset import begin_repo, check_codecs, codec_sources, fingerprints
from .files.folder_or_hub import model_source, output_hub_id
from .files.output_folder import writing_to
from .files.processes import is_first_process, processes
from .hub_upload import files_of, push_folder

logger = logging.getLogger(__name__)
KINDS = ("motion", "speech", "chat", "duplex")


@dataclass
class PrepareArguments:
    """Arguments of `solami prepare`."""

    source: str = option(..., "Folder or manifest file (also accepted as the word after the kind).")
    processor: str = option(..., "Folder or hub id of a SolamiProcessor, whose codecs make the codes.")
    output: str = option(..., "Dataset folder, whose other configs are kept; or hf://OWNER/NAME.")
    layout: str = option("auto", f"auto, {', '.join(LAYOUTS)}.")
    shard_rows: int = option(5000, "Rows of the source in a shard.")
    batch_size: int = option(32, "Files encoded together.")
    split_by: str = option("given", "given: as the source says; source: by a hash of its id, with partners.")
    test_share: float = option(0.05, "Share of the test split, for split_by source.")
    validation_share: float = option(0.0, "Share of the validation split, likewise.")
    motion_tokens: str | None = option(None, "Token dataset with the motions of motion_id; by default the output.")
    license: str | None = option(None, "Licence for the card, e.g. cc-by-4.0.")
    private: bool = option(True, "Whether a repository that is made on the Hub is private.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    kind, argv = take_kind(argv)
    if "--synthesize" in argv:
        if kind != "chat":
            raise ValueError(f"--synthesize makes chat data; write `solami prepare chat --synthesize`, got {kind!r}")
        from .synthesize import main as synthesize

        argv.remove("--synthesize")
        return synthesize(argv)
    if kind == "messages":
        from .datasets.messages_data import main as messages

        return messages(argv)
    if kind not in KINDS and not {"-h", "--help"} & set(argv):
        raise ValueError(f"say what to prepare: {', '.join(KINDS)}; got {kind!r}")
    program = "solami prepare {motion,speech,chat,duplex} SRC"
    (args,) = parse_arguments([PrepareArguments], argv, program, __doc__, words=["source"])
    place = model_source("processor", args.processor)
    find_layout(args.source, kind, args.layout)  # a wrong path is told before models are loaded
    repo = output_hub_id(args.output)
    output = Path(args.output).expanduser() if repo is None else Path("runs/prepare") / repo.replace("/", "--")
    with writing_to(output):
        if repo is not None and is_first_process():
            begin_repo(repo, output)
        not_options = ("source", "processor", "output", "private")
        options = {name: value for name, value in vars(args).items() if name not in not_options}
        report = prepare(kind, args.source, _load_processor(place, kind), output, **options)
        if is_first_process():
            logger.info("wrote %s to %s", ", ".join(f"{n} {k}" for k, n in report.items()), output / kind)
            if repo is not None:
                names = [name for name in files_of(output) if name.startswith(("README.md", f"{kind}/"))]
                done = push_folder(output, repo, "dataset", args.private, message=f"Prepare {kind}", names=names)
                logger.info("pushed to %s", done.url)
    return 0


def _load_processor(place: str, kind: str):
    """The processor with its speech codec on this process's GPU, where there is one; motion is quick on a CPU."""
    import torch

    from .processing_solami import SolamiProcessor

    processor = SolamiProcessor.from_pretrained(place)
    if kind != "motion" and torch.cuda.is_available():
        processor.speech_codec.to(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return processor


def prepare(
    kind: str,
    source: str | Path,
    processor,
    output: str | Path,
    batch_size: int = 32,
    known: dict | None = None,
    *,
    layout: str = "auto",
    shard_rows: int = 5000,
    split_by: str = "given",
    test_share: float = 0.05,
    validation_share: float = 0.0,
    motion_tokens: str | Path | None = None,
    license: str | None = None,
) -> dict[str, int]:
    """Encodes a source, a folder of a known layout or a manifest file, and writes its token dataset; under `accelerate
    launch`, this process's share of it.

    `kind` is one of `KINDS`, and the processor has the codecs that it needs; `output` is the dataset folder.
    `batch_size` files are encoded together; `known` are codes of files that another call with the same processor has
    encoded, and new ones are added to it. `layout` is one of `find_layout.LAYOUTS`, or `auto`; `shard_rows` are rows
    of the source in a shard; `split_by`, `test_share`, `validation_share`: see `prepare_shards.Plan`. `motion_tokens`
    is the token dataset whose motions the turns of dialogues name by `motion_id`, by default `output`; `license` is
    for the card.

    Returns row counts per split, and `rejected`; of the whole source. Raises FileNotFoundError: no source, or none
    that holds this kind; ValueError: wrong options, codes of other codecs in `output`, or no usable row at all.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    layout = find_layout(source, kind, layout)
    media = Media(root_of(source), processor, batch_size, dict(known or {}), motion_tokens or output)
    prints = fingerprints(processor, kind)
    check_codecs(Path(output), prints)
    rank, world, wait = processes()
    rows = tqdm(read_rows(source, kind, layout), desc="plan", unit="row", disable=True if rank else None)
    plan = Plan(rows, split_by, test_share, validation_share, shard_rows)
    shards = plan.shards()
    writer = ShardWriter(kind, plan, media, Path(output), prints, known)
    with tqdm(desc=f"encode {kind}", unit="file", disable=True if rank else None) as bar:
        writer.write(shards[rank::world], bar)
    wait()
    if rank:
        return {}
    facts = {"source": Path(source).resolve().name, "layout": layout, "split_by": split_by, "license": license}
    if layout == "bvh":
        facts["left_out"] = left_out(Path(source))
    if LAYOUTS[layout].licence:
        facts["terms"] = LAYOUTS[layout].licence
    facts |= {"test_share": test_share, "validation_share": validation_share}
    report = writer.finish(shards, facts | {"codec_sources": codec_sources(processor, kind)})
    _warn(report, Path(output) / kind)
    return {**{split: counts["rows"] for split, counts in report["splits"].items()}, "rejected": report["rejected"]}


def _warn(report: dict, folder: Path) -> None:
    if report["rejected"]:
        logger.warning("%d rows were left out, see %s", report["rejected"], folder / "rejected.jsonl")
        with open(folder / "rejected.jsonl", encoding="utf-8") as file:
            for line in islice(file, 5):
                logger.warning("  %s", line.strip())
    for split in ("validation", "test"):
        share = report[f"{split}_share"]
        if report["split_by"] == "source" and share and split not in report["splits"]:
            told = "no source fell into the %s split: %g of few sources may be none; raise %s_share"
            logger.warning(told, split, share, split)
    if report["orphans"]:
        logger.warning("%d rows lack their partner, see %s", report["orphans"], folder / "orphans.jsonl")
    if count := report["partners_in_two_splits"]:
        logger.warning("%d rows have their partner in another split; split_by source keeps partners together", count)


if __name__ == "__main__":
    sys.exit(run_command("solami prepare", main))
