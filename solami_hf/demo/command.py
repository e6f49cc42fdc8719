"""`solami demo`: the whole road on small real data, from mocap and speech to a character that answers, and its report.

Every stage is an ordinary command or function of the package on ordinary folders, so any of them can be repeated by
hand on other data. A finished stage is noted in `OUT/stages.json`; the demo continues after the last one when run
again.
"""

import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..command_line import option, parse_arguments
from ..processing.files.output_folder import writing_to
from ..processing.files.text_files import read_json, write_json
from ..report.page import duration_in_words

logger = logging.getLogger(__name__)

RECIPES = Path(__file__).parents[1] / "training" / "recipes"
MOTION_STEPS, PRETRAIN_STEPS, SFT_STEPS = 600, 1350, 600  # at 15 minutes
TRAIN_CONVERSATIONS = 2400
# Seconds of each stage at 15 minutes, measured once; how a machine keeps to them tells how long it will still need.
USUAL = {
    "motion_corpus": 28, "first_talk": 60, "motion_codec": 175, "speech_corpus": 50, "chat_corpus": 5,
    "base_model": 1, "prepare": 60, "pretrain": 1000, "sft": 540, "chat": 45, "evaluate": 150, "report": 1,
}  # fmt: skip
TRAINING = ("motion_codec", "pretrain", "sft")


@dataclass
class DemoArguments:
    """Arguments of `solami demo`."""

    out: str = option("runs/demo", "Folder of the run; run again, it continues there.")
    seed: int = option(0, "Seed of everything random.")
    minutes: float = option(15.0, "Time to aim at on two cores; training steps scale with it.")


class Demo:
    """Folders and settings of a run, and its stages."""

    def __init__(self, args: DemoArguments):
        if not args.minutes > 0:
            raise ValueError(f"minutes must be above 0, got {args.minutes}")
        self.args, self.out, self.seed = args, Path(args.out), args.seed
        self.corpus, self.data = self.out / "corpus", self.out / "data"
        self.base, self.checkpoint = self.out / "base", self.out / "checkpoint"

    def steps(self, at_15_minutes: int) -> int:
        """Training steps of a stage for the time that is allowed."""
        return max(2, round(at_15_minutes * self.args.minutes / 15))

    def stages(self) -> dict[str, tuple[str, Callable[[], None]]]:
        """Name -> (what it does, function), in order."""
        functions = {name: getattr(self, name) for name in USUAL}
        return {name: (function.__doc__.rstrip("."), function) for name, function in functions.items()}

    def motion_corpus(self):
        """Author gestures, retarget mocap."""
        from .corpus.build_corpus import write_motion_corpus

        write_motion_corpus(self.corpus / "motion", seed=self.seed)

    def first_talk(self):
        """Talk to the packaged character."""
        from .first_talk import first_talk

        if page := first_talk(self.out / "first_talk", self.corpus / "motion", self.seed):
            logger.info("  its page: %s (open it in a browser)", page)

    def motion_codec(self):
        """Stage 1: train the motion tokenizers."""
        from ..training.motion_vq.train_motion_vq import main

        folders = ["--data", str(self.corpus / "motion"), "--output_dir", str(self.out / "motion_codec")]
        main(self._recipe("motion_vq_tiny", MOTION_STEPS) + folders)

    def speech_corpus(self):
        """Speak all lines of the dialogues, at several rates."""
        from .corpus.demo_speech import write_speech_corpus
        from .corpus.dialogues import load_dialogues

        write_speech_corpus(self.corpus / "speech", load_dialogues(), self.seed)

    def chat_corpus(self):
        """Stage the conversations: a recording and a clip for every turn."""
        from .corpus.conversations import write_chat_corpus
        from .corpus.dialogues import load_dialogues

        folder = self.corpus / "chat"
        write_chat_corpus(folder, self.corpus / "motion", load_dialogues(), TRAIN_CONVERSATIONS, self.seed)

    def base_model(self):
        """Train the text tokenizer, make a small Llama."""
        from ..modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
        from .corpus.dialogues import load_dialogues
        from .tiny_model import write_base

        motion = SolamiMotionVQModel.from_pretrained(self.out / "motion_codec")
        write_base(self.base, self.corpus, motion.eval(), load_dialogues(), self.seed)

    def prepare(self):
        """`solami prepare` for motion, speech and chat."""
        from ..processing.prepare import prepare
        from ..processing.processing_solami import SolamiProcessor

        processor, known = SolamiProcessor.from_pretrained(self.base), {}
        for kind in ("motion", "speech", "chat"):
            logger.info("%s: %s", kind, prepare(kind, self.corpus / kind, processor, self.data, known=known))

    def pretrain(self):
        """Stage 2: the six tasks."""
        from ..training.pretrain import main

        folders = ["--model", str(self.base), "--data", str(self.data), "--output_dir", str(self.out / "pretrained")]
        main(self._recipe("pretrain_tiny", PRETRAIN_STEPS) + folders)

    def sft(self):
        """Stage 3: multi-turn chat."""
        from ..training.sft import main

        folders = ["--model", str(self.out / "pretrained"), "--data", str(self.data)]
        main(self._recipe("sft_tiny", SFT_STEPS) + folders + ["--output_dir", str(self.checkpoint)])

    def _recipe(self, name: str, steps: int) -> list[str]:
        steps = ["--max_steps", str(self.steps(steps)), "--seed", str(self.seed)]
        return ["--config", str(RECIPES / f"{name}.yaml"), *steps]

    def chat(self):
        """Talk, on held-out recordings and motions."""
        from .presentation import play_conversations

        play_conversations(self.checkpoint, self.corpus / "chat", self.corpus / "motion", self.out / "chat")

    def evaluate(self):
        """Measure on held-out material, with controls."""
        from .demo_evaluation import measure

        folders = self.out / "pretrained", self.checkpoint, self.corpus, self.data, self.out / "answers"
        write_json(self.out / "metrics.json", measure(*folders, self.seed))

    def report(self):
        """Write the page."""
        from .presentation import write_demo_report

        write_demo_report(self.out, self.checkpoint, read_json(self.out / "stages.json"))


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    (args,) = parse_arguments([DemoArguments], argv, "solami demo")
    demo = Demo(args)
    with writing_to(demo.out):
        run(demo)
    return 0


def run(demo: Demo) -> None:
    """Runs the stages that are not finished yet, and says at the end what there is and what to try next. Raises
    ValueError: the folder holds a run with another seed or length."""
    demo.out.mkdir(parents=True, exist_ok=True)
    state_path = demo.out / "stages.json"
    settings = {"seed": demo.seed, "minutes": demo.args.minutes}
    state = read_json(state_path) if state_path.exists() else {"settings": settings, "stages": {}}
    if state["settings"] != settings:
        raise ValueError(f"{demo.out} holds a run with {state['settings']}, asked for {settings}; take another --out")
    stages = demo.stages()
    for number, (name, (what, function)) in enumerate(stages.items(), 1):
        if name in state["stages"]:
            logger.info("[%d/%d] %s: done before", number, len(stages), what)
            continue
        expected = expected_seconds(state["stages"], [key for key in stages if key not in state["stages"]], demo)
        here, left = (duration_in_words(seconds) for seconds in (expected[name], sum(expected.values())))
        logger.info("[%d/%d] %s: about %s, %s to the end", number, len(stages), what, here, left)
        start = time.monotonic()
        function()
        state["stages"][name] = {
            "seconds": round(time.monotonic() - start, 1),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }
        write_json(state_path, state)
    total = sum(stage["seconds"] for stage in state["stages"].values())
    logger.info(
        "\nDone: %.1f minutes of work in all.\n"
        "  page        %s  (open it in a browser)\n"
        "  figures     %s\n"
        "  checkpoint  %s  (AutoModelForCausalLM, AutoProcessor)\n"
        "Try next:\n"
        "  solami chat --checkpoint %s --character ada --output runs/chat --turns you.wav,you.npz\n"
        "  solami prepare motion YOUR_FOLDER --processor %s --output YOUR_TOKENS",
        *(total / 60, demo.out / "report.html", demo.out / "report.json", *[demo.checkpoint] * 3),
    )


def expected_seconds(done: dict[str, dict], waiting: list[str], demo: Demo) -> dict[str, float]:
    """Seconds that each of the waiting stages will take, by how long those before took here and usually. Training is
    compared with training where some is done: machines differ there by other factors than elsewhere."""

    def usual(name):
        return USUAL.get(name, 1) * (demo.args.minutes / 15 if name in TRAINING else 1)

    def pace(name):
        alike = [other for other in done if (other in TRAINING) == (name in TRAINING)] or list(done)
        return sum(done[other]["seconds"] for other in alike) / sum(map(usual, alike)) if alike else 1.0

    return {name: usual(name) * pace(name) for name in waiting}
