"""Do listeners react to their partner? The duplex recipe from end to end on authored sessions (`duplex_sessions`).

    python -m benchmarks.duplex_listening --out runs/duplex

Sessions, a motion codec for them, a model of 1M parameters trained by `solami sft`, and on held-out sessions:

- nats: how much likelier the listener's true body codes are beside the true partner than beside a shuffled one, in all
  ticks of listening and in those of each kind of authored reaction;
- moves: of listeners that the model writes, how they move in the ticks in which the authored one nodded, turned or
  mirrored, beside the true and beside a shuffled partner: speed of the head's pitch, turn of the head to the right
  side, speed of the arms; last, the authored listener through the codec: what is not in its codes cannot be learnt.

All with 95 % bootstrap intervals over sessions. It says what such a model learns of rules that were authored, and
nothing about people. Run again, what is there is kept.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from benchmarks.duplex_sessions import write_sessions
from solami_hf.command_line import option, parse_arguments, run_command
from solami_hf.demo.tiny_model import train_tokenizer
from solami_hf.generation.duplex.duplex_generation import generate_character
from solami_hf.metrics.evaluation.intervals import Ratio, difference, summarize
from solami_hf.metrics.evaluation.listening import listening, listening_ticks
from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.modeling.solami.modeling_solami import SolamiForCausalLM
from solami_hf.processing.audio.packaged_speech import packaged_speech
from solami_hf.processing.datasets.duplex import DuplexRenderer
from solami_hf.processing.datasets.manifests import read_manifest
from solami_hf.processing.datasets.token_dataset import load_tokens
from solami_hf.processing.files.text_files import write_json
from solami_hf.processing.prepare import prepare
from solami_hf.processing.processing_solami import SolamiProcessor

RECIPES = Path(__file__).parents[1] / "solami_hf/training/recipes"
SIZES = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 3, "num_attention_heads": 4}
CODECS = {
    "ema": ("motion_vq_tiny.yaml", "--width 96 --hand_width 32"),
    "linear": (
        "motion_vq_levels_tiny.yaml",
        "--num_levels 1 --residual_hand false --candidates 1 --window 64 --face_joints 15",
    ),
}
CODEC = "--code_num 512 --per_device_train_batch_size 16 --bf16 false --save_steps 100 --eval_strategy no"
BEGUN = 3  # ticks of the true listener that a generated one begins with


@dataclass
class Arguments:
    """Arguments of the run."""

    out: str = option("runs/duplex", "Folder of the run; run again, it continues there.")
    sessions: int = option(160, "To train on; a quarter as many are held out.")
    codec: str = option("ema", "Motion codec: linear (principal components) or ema (the demo's).")
    codec_steps: int = option(500, "Of the motion codec.")
    steps: int = option(800, "Of the language model.")
    generated: int = option(40, "Held-out sessions for which listeners are generated.")
    seed: int = option(0, "Of everything.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    (args,) = parse_arguments([Arguments], argv, "benchmarks.duplex_listening", __doc__)
    out = Path(args.out)
    if not (out / "sessions/manifest.jsonl").is_file():
        write_sessions(out / "sessions", args.sessions, max(2, args.sessions // 4), args.seed)
    train(args, out)
    report = measure(args, out)
    write_json(out / "listening.json", report)
    for kind, row in {**report["nats"], **report["moves"]}.items():
        cells = [
            f"{row[p]['mean']:8.3f} [{row[p]['low']:.3f}, {row[p]['high']:.3f}]"
            for p in ("true", "shuffled", "difference", "authored")
            if p in row
        ]
        sys.stdout.write(f"{kind:<16} {'  '.join(cells)}  {row.get('rows_better', '')} of {row['rows']}\n")
    sys.stdout.write(json.dumps({k: row["difference"]["mean"] for k, row in report["nats"].items()}) + "\n")
    return 0


def train(args: Arguments, out: Path) -> None:
    """The codec, the token dataset and the model, each where it is not there yet."""
    from solami_hf.training.motion_vq.train_motion_vq import main as train_codec
    from solami_hf.training.sft import main as sft

    if not (out / "codec/config.json").is_file():
        recipe, sizes = CODECS[args.codec]
        options = [*CODEC.split(), *sizes.split(), "--max_steps", str(args.codec_steps)]
        folders = ["--data", str(out / "sessions/motions"), "--output_dir", str(out / "codec")]
        train_codec(["--config", str(RECIPES / recipe), *folders, *options, "--seed", str(args.seed)])
    if not (out / "base/config.json").is_file():
        write_base(out / "base", out / "codec", args.seed)
    if not (out / "data/README.md").is_file():
        prepare("duplex", out / "sessions", SolamiProcessor.from_pretrained(out / "base"), out / "data")
    folders = ["--model", str(out / "base"), "--data", str(out / "data"), "--output_dir", str(out / "model")]
    options = ["--max_steps", str(args.steps), "--seed", str(args.seed)]
    sft(["--config", str(RECIPES / "sft_duplex_tiny.yaml"), *folders, *options])


def write_base(folder: Path, codec: Path, seed: int) -> None:
    """A random model of 1M parameters with its processor; there are no words to read."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer(["two people on one clock"], vocab_size=280)
    motion_codec = SolamiMotionVQModel.from_pretrained(codec).eval()
    processor = SolamiProcessor(tokenizer, motion_codec=motion_codec, **packaged_speech())
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, tie_word_embeddings=True, **SIZES)
    sizes = {name: span["size"] for name, span in processor.modalities.items()}
    model = SolamiForCausalLM.from_backbone(
        LlamaForCausalLM(config), tokenizer, sizes=sizes, speech_codec=processor.speech_codec
    )
    processor.save_pretrained(folder)
    model.save_pretrained(folder)


def measure(args: Arguments, out: Path) -> dict:
    """`{"nats": ..., "moves": ...}` of the held-out sessions."""
    model, processor = (
        SolamiForCausalLM.from_pretrained(out / "model").eval(),
        SolamiProcessor.from_pretrained(out / "model"),
    )
    rows = list(load_tokens(out / "data", "duplex", "test", processor))
    reactions = {row["id"]: row["reactions"] for row in read_manifest(out / "sessions") if row["split"] == "test"}
    tick, masks = model.config.duplex["seconds"], {}
    for row in rows:
        for reaction in reactions[row["id"]]:
            mask = np.zeros(1000, dtype=bool)
            mask[int(reaction["start"] / tick) : int(np.ceil(reaction["end"] / tick))] = True
            masks.setdefault(reaction["kind"], {})[row["id"], reaction["person"]] = mask
    everyone = [(row, person) for row in rows for person in (0, 1)]
    masks["listening"] = {
        (row["id"], person): listening_ticks(row, person, len(row["people"][0]["body"]) // 3, tick)
        for row, person in everyone
    }
    nats = listening(model, rows, masks, args.seed)
    return {"nats": nats, "moves": moves(model, processor, rows[: args.generated], reactions, args.seed)}


def moves(model, processor, rows: list[dict], reactions: dict, seed: int) -> dict:
    """Kind of reaction -> how generated listeners move where the authored one reacted, beside both partners."""
    renderer, rng = DuplexRenderer(model.config), torch.Generator().manual_seed(seed)
    found: dict[str, list] = {}
    for person in (0, 1):
        streams = [renderer.streams(row, person) for row in rows]
        longest, made = max(len(own) for own, _ in streams), {}
        begun = [own[:BEGUN] for own, _ in streams]
        for name, shift in (("true", 0), ("shuffled", 1)):
            partners = [streams[(i + shift) % len(rows)][1] for i in range(len(rows))]
            partners = [partner[np.arange(longest) % len(partner)] for partner in partners]
            window = model.config.duplex["max_ticks"]
            made[name] = generate_character(model, renderer, begun, partners, window, generator=rng)
        made["authored"] = [own for own, _ in streams]
        for i, row in enumerate(rows):
            turns = {}
            for name, ticks in made.items():
                body = ticks[i][: len(streams[i][0]), 1 : 1 + renderer.format.sizes["body"]].reshape(-1)
                body = body - processor.modalities["body"]["first_id"]
                hand = np.resize(row["people"][person]["hand"], len(body))
                turns[name] = _head_and_wrists(processor.decode_motion({"body": body, "hand": hand}))
            for reaction in (r for r in reactions[row["id"]] if r["person"] == person):
                frames = slice(round(reaction["start"] * 30), round(reaction["end"] * 30))
                told = {name: _amount(reaction, turns[name], frames, turns["authored"]) for name in made}
                found.setdefault(reaction["kind"], []).append((row["id"], told))
    report = {}
    for kind, told in found.items():
        names = [name for name, _ in told]
        ratios = {side: Ratio(names, [t[side] for _, t in told]) for side in ("true", "shuffled", "authored")}
        row = {side: summarize([ratio], seed) for side, ratio in ratios.items()}
        row |= {"difference": difference([ratios["true"]], [ratios["shuffled"]], seed), "rows": len(set(names))}
        report[f"{kind} (moves)"] = row
    return report


def _head_and_wrists(motion) -> dict[str, np.ndarray]:
    """Pitch and turn of the head against the chest in degrees (T,), speed of the wrists (T,)."""
    head = Rotation.from_rotvec(motion.poses[:, 12]) * Rotation.from_rotvec(motion.poses[:, 15])
    pitch, turn, _ = np.degrees(head.as_rotvec()).T
    arms = motion.poses[:, 16:20].reshape(motion.num_frames, -1)
    return {"pitch": pitch, "turn": turn, "arms": np.degrees(np.abs(np.diff(arms, axis=0, prepend=arms[:1])).mean(1))}


def _amount(reaction: dict, moved: dict, frames: slice, authored: dict) -> float:
    if reaction["kind"] == "nod":
        return 30 * float(np.abs(np.diff(moved["pitch"][frames])).mean())
    if reaction["kind"] == "turn":
        rest = np.median(moved["turn"])
        side = np.sign((authored["turn"][frames] - np.median(authored["turn"])).mean())
        return float(side * (moved["turn"][frames] - rest).mean())
    return 30 * float(moved["arms"][frames].mean())


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.duplex_listening", main))
