"""Trains a small speech recognizer whose hidden states can teach level 0 of a speech codec what is said.

    python -m solami_hf.training.speech.semantic_teacher --data tts --output_dir runs/teacher
    solami train-speech-codec --data tts --semantic_teacher runs/teacher --output_dir runs/codec

For those who are offline: any audio encoder of transformers teaches as well, such as HuBERT in SpeechTokenizer
(`--semantic_teacher facebook/hubert-base-ls960`). This one is the conformer of w2v-BERT (arXiv 2108.06209) at
a small width, trained from scratch by CTC on characters.
"""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import SeamlessM4TFeatureExtractor, TrainingArguments, Wav2Vec2BertConfig, Wav2Vec2BertForCTC

from ...command_line import option, parse_arguments, run_command
from ...processing.batching import pad_right
from ...processing.files.atomic_write import atomic_model
from ...processing.files.output_folder import writing_to
from ..checkpoints import last_checkpoint, written_or_nothing
from ..held_out import evaluating
from ..speech_recordings import Recordings, speech_data
from ..trainer import SafeTrainer, avoid_slow_bf16

logger = logging.getLogger(__name__)
PROGRAM = "python -m solami_hf.training.speech.semantic_teacher"

CHARACTERS = " 'abcdefghijklmnopqrstuvwxyz"  # ids from 1 on; 0 is CTC's blank
SAMPLING_RATE = 16000


@dataclass
class TeacherArguments:
    """Training data and size of the teacher."""

    data: list[str] = option(["tts"], "As `train-speech-codec`.")
    voices: list[str] = option(["heart"], "Voices of 'tts'.")
    sentences: int = option(2200, "Sentences that each voice speaks.")
    held_out: int = option(120, "Further sentences for measuring.")
    hidden_size: int = option(160, "Width of the encoder.")
    num_layers: int = option(4, "Conformer blocks.")


@dataclass
class TeacherTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults that worked."""

    max_steps: int = 1400
    per_device_train_batch_size: int = 24
    learning_rate: float = 1e-3
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 100
    weight_decay: float = 0.01
    adam_beta2: float = 0.98
    logging_steps: float = 50
    save_steps: float = 700
    save_total_limit: int | None = 1
    remove_unused_columns: bool | None = False
    report_to: None | str | list[str] = "none"


def to_ids(text: str) -> list[int]:
    """Characters as labels; others are left out."""
    return [CHARACTERS.index(character) + 1 for character in text.lower() if character in CHARACTERS]


def to_text(ids: torch.Tensor) -> str:
    """The most probable labels (frames,) of CTC as text: repetitions and blanks are removed."""
    return "".join(CHARACTERS[i - 1] for i in torch.unique_consecutive(ids).tolist() if i)


class Transcribed(Dataset):
    """Clips with the features and labels of CTC."""

    def __init__(self, recordings: Recordings, extractor: SeamlessM4TFeatureExtractor):
        self.recordings, self.extractor, self.features = recordings, extractor, {}

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> dict:
        """`input_features` (frames, 160) and `labels` (characters,)."""
        if index not in self.features:
            features = self.extractor(self.recordings[index], sampling_rate=SAMPLING_RATE, return_tensors="np")
            self.features[index] = features["input_features"][0].astype(np.float16)
        return {"input_features": self.features[index], "labels": to_ids(self.recordings.texts[index])}


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    """Pads features by zeros, with their mask, and labels by -100."""
    features = [torch.from_numpy(row["input_features"]).float() for row in rows]
    labels = [torch.tensor(row["labels"]) for row in rows]
    padded, mask = pad_right(features)
    labels = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    return {"input_features": padded, "attention_mask": mask.long(), "labels": labels}


def make_teacher(args: TeacherArguments) -> Wav2Vec2BertForCTC:
    """A new model of the given size."""
    config = Wav2Vec2BertConfig(
        vocab_size=len(CHARACTERS) + 1, hidden_size=args.hidden_size, num_hidden_layers=args.num_layers,
        num_attention_heads=4, intermediate_size=4 * args.hidden_size, conv_depthwise_kernel_size=15,
        position_embeddings_type="rotary", mask_time_prob=0.05, mask_time_min_masks=0, mask_feature_prob=0.0,
        layerdrop=0.0, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0,
        final_dropout=0.0, conformer_conv_dropout=0.0, add_adapter=False, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, ctc_loss_reduction="mean", ctc_zero_infinity=True,
    )  # fmt: skip
    return Wav2Vec2BertForCTC(config)


def character_errors(model: Wav2Vec2BertForCTC, data: Transcribed) -> float:
    """Share of wrong characters over a data set."""
    import jiwer

    said = []
    with evaluating(model):
        for inputs in DataLoader(data, 16, collate_fn=collate):
            mask = inputs["attention_mask"]
            labels = model(inputs["input_features"], attention_mask=mask).logits.argmax(-1)
            said += [to_text(ids[:end]) for ids, end in zip(labels, mask.sum(1).tolist(), strict=True)]
    wanted = ["".join(c for c in text.lower() if c in CHARACTERS) for text in data.recordings.texts]
    return jiwer.cer(wanted, said)


def train_teacher(args: TeacherArguments, training_args: TrainingArguments) -> float:
    """Trains and writes model and feature extractor; returns the share of wrong characters on held-out sentences."""
    avoid_slow_bf16(training_args)
    folder = Path(training_args.output_dir)
    options = args.sentences, args.held_out, args.voices, training_args.seed
    train, held_out = speech_data(args.data, folder, SAMPLING_RATE, *options, shift=True)
    torch.manual_seed(training_args.seed)
    extractor = SeamlessM4TFeatureExtractor()
    model = make_teacher(args)
    trainer = SafeTrainer(
        model=model, args=training_args, train_dataset=Transcribed(train, extractor), data_collator=collate
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    with written_or_nothing(folder), atomic_model(folder) as staging:
        model.float().save_pretrained(staging)
        extractor.save_pretrained(staging)
    return character_errors(model, Transcribed(held_out, extractor))


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    args, training_args = parse_arguments([TeacherArguments, TeacherTrainingArguments], argv, PROGRAM)
    with writing_to(training_args.output_dir):
        logger.warning("%.1f %% of the held-out characters are wrong", 100 * train_teacher(args, training_args))


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, main))
