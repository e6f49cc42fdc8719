"""Gathers the demo's held-out material, measures everything, and says what each figure means."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import torch
import yaml
from transformers import set_seed

from ..generation.pipeline import SolamiPipeline
from ..metrics import folder_of
from ..processing.datasets.manifests import read_manifest
from ..processing.datasets.token_dataset import load_tokens
from ..processing.motion.body import joint_positions
from ..processing.motion.features import canonicalize
from ..processing.motion.motion_io import read_motion
from ..processing.motion.smplx_motion import SmplxMotion
from .corpus.dialogues import all_lines, load_dialogues
from .demo_evaluation import ActionRecognizer, Material, measure_chat, measure_tasks

FIGURES = yaml.safe_load(Path(__file__).with_name("figures.yaml").read_text(encoding="utf-8"))


def measure(pretrained: Path, checkpoint: Path, corpus: Path, data: Path, seed: int) -> dict:
    """All figures of `FIGURES` on the held-out split, with the numbers of items they stand on.

    Args:
        pretrained: the folder of stage 2, which the six tasks are measured on, as in the original.
        checkpoint: the folder of stage 3, which the conversations are measured on.
        corpus: the folder with the `motion`, `speech` and `chat` manifests.
        data: the token datasets.

    Returns:
        `{"figures": {name: number}, "intervals": {name: [low, high]}, "counts": {...}}`; intervals at 95 %, of shares
        and points.
    """
    from ..metrics.asr import Transcriber

    set_seed(seed)
    pipeline = SolamiPipeline.from_pretrained(pretrained, dtype=torch.float32, max_new_tokens=192)
    material = gather(pipeline, corpus, data)
    figures, motions = measure_tasks(pipeline, material)
    counts, intervals = figures.pop("counts"), figures.pop("intervals")
    references = [read_motion(corpus / "motion" / r["motion"]) for r in _test_rows(corpus, material)]
    figures.update(measure_motion(pipeline, material, references, motions, seed))
    pipeline = SolamiPipeline.from_pretrained(checkpoint, dtype=torch.float32, max_new_tokens=192)
    chat = measure_chat(pipeline, material, Transcriber(), seed)
    counts.update(chat.pop("counts"))
    intervals.update(chat.pop("intervals"))
    return {
        "figures": {k: round(v, 2) for k, v in {**figures, **chat}.items() if v == v},
        "intervals": {k: [round(bound, 2) for bound in bounds] for k, bounds in intervals.items()},
        "counts": counts,
    }


def _test_rows(corpus: Path, material: Material) -> list[dict]:
    manifest = {row["id"]: row for row in read_manifest(corpus / "motion")}
    return [manifest[row["id"]] for row in material.motion]


def gather(pipeline: SolamiPipeline, corpus: Path, data: Path) -> Material:
    """Held-out rows, the recogniser on the training clips, and what is needed for the baselines."""
    clips = read_manifest(corpus / "motion")
    chat = read_manifest(corpus / "chat")
    answers: dict[str, Counter] = defaultdict(Counter)
    for row in (row for row in chat if row["split"] == "train"):
        answers[row["character"]][row["turns"][2]["text"]] += 1
    return Material(
        motion=load_tokens(data, "motion", "test", pipeline.processor).to_list(),
        actions={row["id"]: row["action"] for row in clips},
        speech=load_tokens(data, "speech", "test", pipeline.processor).to_list(),
        chat=load_tokens(data, "chat", "test", pipeline.processor).to_list(),
        manifest={row["id"]: row for row in chat if row["split"] == "test"},
        recognizer=ActionRecognizer.from_corpus(corpus / "motion"),
        lines=list(all_lines(load_dialogues()).character),
        answers=answers,
    )


def measure_motion(
    pipeline: SolamiPipeline, material: Material, references: list[SmplxMotion], motions: list, seed: int
) -> dict:
    """Codec reconstruction, FID and diversity, by the package's `evaluate` modules on joints."""
    import evaluate

    processor = pipeline.processor
    rebuilt = [processor.decode_motion(codes) for codes in processor.encode_motion(references)]
    targets = [_facing_z(motion, len(other.transl)) for motion, other in zip(references, rebuilt, strict=True)]
    load = {name: evaluate.load(folder_of(name)) for name in ("motion_mpjpe", "motion_fid", "motion_diversity")}
    error = load["motion_mpjpe"].compute(
        predictions=[joint_positions(m) for m in rebuilt], references=[joint_positions(m) for m in targets]
    )
    real = [joint_positions(m) for m in references]
    made = [joint_positions(m) if m else None for m in motions]
    kept = [m for m in made if m is not None]
    set_seed(seed)
    result = {"codec_mpjpe": error["mpjpe"], "codec_pa_mpjpe": error["pa_mpjpe"]}
    pairs = len(real) // 2 * 2
    if len(kept) < 2:  # a run that was far too short
        return result
    # By the real clips' scale for both: by its own, motion that hardly moves would be as diverse as any.
    diversity = load["motion_diversity"].compute(predictions=made, references=real)
    return {
        **result,
        "t2m_fid": load["motion_fid"].compute(predictions=made, references=real)["fid"],
        "real_fid": load["motion_fid"].compute(predictions=real[:pairs:2], references=real[1:pairs:2])["fid"],
        "t2m_diversity": diversity["diversity"],
        "real_diversity": diversity["reference_diversity"],
    }


def _facing_z(motion: SmplxMotion, frames: int) -> SmplxMotion:
    """The first `frames` frames, turned as the codec sees them: from the origin, facing +Z."""
    params = canonicalize(torch.from_numpy(motion.to_params()))
    return SmplxMotion.from_params(params[:frames], fps=motion.fps)


def target_met(name: str, value: float) -> bool | None:
    """True if a figure reaches its target; None where there is none."""
    figure = FIGURES[name]
    if "at_least" in figure:
        return value >= figure["at_least"]
    return value <= figure["at_most"] if "at_most" in figure else None
