"""`solami chat`: files in, files out. Each turn is a recording and a motion; each answer a wav and an npz.

    solami chat --checkpoint runs/demo/checkpoint --character ada --output runs/chat \
        --turns hello.wav,wave.npz next.wav,nod.npz
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass
class ChatArguments:
    """Who talks, and what is said to them."""

    checkpoint: str = field(metadata={"help": "Folder or hub id of a trained checkpoint with its codecs."})
    turns: list[str] = field(
        metadata={
            "help": "One word per round: files joined by commas, e.g. hello.wav,wave.npz; either may be missing."
        }
    )
    output: str = field(metadata={"help": "Folder for the answers: turn1.wav, turn1.npz, ..., chat.json."})
    character: str | None = field(default=None, metadata={"help": "One of the checkpoint's characters."})
    system: str | None = field(default=None, metadata={"help": "A system prompt of your own instead."})
    temperature: float = field(default=0.0, metadata={"help": "0 answers greedily."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus, when the temperature is above 0."})
    max_new_tokens: int = field(default=600, metadata={"help": "Longest answer in tokens."})
    seed: int = field(default=0, metadata={"help": "For sampling."})


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    from trl import TrlParser

    (args,) = TrlParser(dataclass_types=[ChatArguments], prog="solami chat").parse_args_and_config(
        sys.argv[1:] if argv is None else argv
    )
    from transformers import set_seed

    from .pipeline import SolamiPipeline

    users = [user_message(word) for word in args.turns]
    if not Path(args.checkpoint).is_dir() and args.checkpoint.startswith(("/", ".")):
        raise FileNotFoundError(f"no such checkpoint folder: {args.checkpoint}")
    pipeline = SolamiPipeline.from_pretrained(args.checkpoint, max_new_tokens=args.max_new_tokens)
    system = args.system or (pipeline.processor.character_system(args.character) if args.character else None)
    set_seed(args.seed)
    sampling = dict(do_sample=True, temperature=args.temperature, top_p=args.top_p) if args.temperature > 0 else {}
    rounds = chat(pipeline, users, args.output, system, **sampling)
    logger.info("%d answers in %s", len(rounds), args.output)
    return 0


def user_message(word: str) -> dict:
    """A user message of comma-separated files; sound by suffix (.wav, .flac, .ogg, .mp3), the rest motion.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: no file at all.
    """
    content = []
    for name in filter(None, word.split(",")):
        if not Path(name).is_file():
            raise FileNotFoundError(f"no such file: {name}")
        kind = "audio" if Path(name).suffix.lower() in (".wav", ".flac", ".ogg", ".mp3") else "motion"
        content.append({"type": kind, kind: name})
    if not content:
        raise ValueError(f"a turn needs a sound file or a motion file, got {word!r}")
    return {"role": "user", "content": content}


def chat(pipeline, users: list[dict], output: str | Path, system: str | None = None, **generate_kwargs) -> list[dict]:
    """Plays a conversation and writes each answer as it comes.

    A malformed answer stays out of the history, so that it cannot spoil the rounds that follow; see `DialogueSession`.

    Args:
        pipeline: a `SolamiPipeline`.
        users: the user's messages, one per round.
        output: folder for `turn{n}.wav`, `turn{n}.npz` and `chat.json`.
        system: the system prompt.

    Returns:
        one `{"text", "valid", "audio", "motion"}` per round; paths are None where the answer was malformed.
    """
    from ..processing.audio import write_audio
    from ..processing.motion_files import write_motion
    from ..processing.whole_file import whole_file
    from .session import DialogueSession

    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    session, rounds = DialogueSession(pipeline, system=system), []
    for number, user in enumerate(users, 1):
        reply = session.answer(user, **generate_kwargs)
        paths = {"audio": None, "motion": None}
        if reply.valid:
            paths = {"audio": str(output / f"turn{number}.wav"), "motion": str(output / f"turn{number}.npz")}
            write_audio(paths["audio"], reply.audio, reply.sampling_rate)
            write_motion(paths["motion"], reply.motion)
        else:
            logger.warning("round %d: malformed answer (%s)", number, reply.answer.reason)
        rounds.append({"text": reply.text, "valid": reply.valid, **paths})
    with whole_file(output / "chat.json") as temporary:
        temporary.write_text(json.dumps(rounds, indent=1), encoding="utf-8")
    return rounds
