"""Trains the lips, speech codes or sound to visemes: `solami train-lips --config recipe.yaml --output_dir DIR`.

    solami train-lips --config lips_small.yaml --processor checkpoint/ --output_dir lips/

Offline voices speak sentences (flite's tell when each phone ends, of others that is found, see `lips_data`), and the
processor's codec encodes them. With `--data` recordings with words take part. The recipe is `recipes/lips_small.yaml`
(0.4M weights, minutes on one CPU core).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments, set_seed

from ...command_line import option
from ...modeling.face.configuration_lips import VISEMES, SolamiLipsConfig
from ...modeling.face.modeling_lips import SolamiLipsModel
from ...modeling.speech_codec.codec_interface import codec_fingerprint
from ...processing.audio.packaged_speech import packaged_speech
from ...processing.files.folder_or_hub import with_sources
from ...processing.processing_solami import SolamiProcessor
from ..held_out import evaluating
from ..trainer import ResumableTrainer, run_training
from .lips_data import LipsWindows, SpokenFrames, lips_data


@dataclass
class LipsArguments:
    """Training data, and the sizes of the model; everything else is `transformers.TrainingArguments`."""

    processor: str | None = option(None, "Folder or hub id whose speech codec is read; by default the packaged one.")
    voices: list[str] = option(["heart", "slt", "rms", "awb"], "Who speaks: any of heart, slt, rms, awb, kal16.")
    sentences: int = option(250, "Of each voice.")
    held_out: int = option(30, "Further sentences of each voice to measure by.")
    data: str | None = option(None, "Folder of recordings with words (manifest.jsonl), to hear beside the voices.")
    alignment_steps: int = option(400, "Of learning when phones end, for voices that do not tell.")
    window_frames: int = option(200, "Frames of codes in a window.")
    hidden_size: int = option(96, "Width.")
    num_layers: int = option(4, "Causal convolutions, each of twice the dilation before.")
    lookahead: int = option(5, "Frames that are heard before a shape is told.")
    closure_weight: float = option(1.0, "Of frames of m, b, p in the loss; others have 1.")
    averaging_decay: float = option(0.0, "Decay of running averages of the weights, which are kept; 0 for none.")
    half: bool = option(False, "Write the weights as fp16; they load as float32.")


class LipsTrainer(ResumableTrainer):
    """Half of a batch is read off codes, half off sound. `held_out`: clips to measure by, or None; `closure_weight`:
    of m, b, p in the loss, as a mouth that stays open is seen more than one that closes."""

    def __init__(self, *args, held_out: SpokenFrames | None, closure_weight: float = 1.0, **kwargs):
        self.held_out, self.weights = held_out, torch.ones(len(VISEMES))
        self.weights[VISEMES.index("bilabial")] = closure_weight
        super().__init__(*args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The mean of both losses."""
        half = -(-len(inputs["codes"]) // 2)
        outputs = [model(codes=inputs["codes"][:half], labels=inputs["labels"][:half])]
        if half < len(inputs["codes"]):
            outputs.append(model(mels=inputs["mels"][half:], labels=inputs["labels"][half:]))
        for name, output in zip(("codes", "sound"), outputs, strict=False):
            self.parts[f"accuracy_{name}"].append(output.accuracy.detach())
        told, weights = inputs["labels"].split(half), self.weights.to(inputs["labels"].device)
        losses = [cross_entropy(output.logits.flatten(0, 1), labels.flatten(), weights)
                  for output, labels in zip(outputs, told, strict=True)]  # fmt: skip
        loss = sum(losses) / len(losses)
        return (loss, outputs[0]) if return_outputs else loss

    def measure(self) -> dict[str, float]:
        """See `evaluate_lips`."""
        return evaluate_lips(self.model, self.held_out) if self.held_out is not None else {}


def evaluate_lips(model: SolamiLipsModel, clips: SpokenFrames) -> dict[str, float]:
    """`loss` in nats and `accuracy` of held-out clips' frames, off codes and off sound."""
    figures = dict.fromkeys(("loss_codes", "loss_sound", "accuracy_codes", "accuracy_sound"), 0.0)
    for index in range(len(clips.ends)):
        place, device = clips.clip(index), model.device
        labels = torch.from_numpy(clips.visemes[place].astype("int64"))[None].to(device)
        codes, mels = torch.from_numpy(clips.codes[place].astype("int64")), torch.from_numpy(clips.mels[place])
        given = {"codes": {"codes": codes[None].to(device)}, "sound": {"mels": mels[None].float().to(device)}}
        for name, inputs in given.items():
            with evaluating(model):
                output = model(**inputs, labels=labels)
            for what in ("loss", "accuracy"):
                figures[f"{what}_{name}"] += float(output[what]) * labels.shape[1] / len(clips.codes)
    return figures | {"loss": (figures["loss_codes"] + figures["loss_sound"]) / 2}


def train_lips(args: LipsArguments, training_args: TrainingArguments) -> dict[str, float]:
    """Speaks, encodes, trains, evaluates and saves the lips; returns the final evaluation (`evaluate_lips`), empty
    where nothing is held out. `training_args.output_dir` gets `config.json`, `model.safetensors` (loads with
    `AutoModel`), `history.json`, the clips as `lips_train.npz` and `lips_held_out.npz`, and checkpoints, from which a
    second call goes on. Raises FileNotFoundError, ValueError: see `lips_data`; a processor without a speech codec."""
    set_seed(training_args.seed)
    args = with_sources(args, "processor", "data")
    processor = SolamiProcessor.from_pretrained(args.processor) if args.processor else None
    codec = packaged_speech()["speech_codec"] if processor is None else processor.speech_codec
    codec.to(training_args.device)
    config = SolamiLipsConfig(
        hidden_size=args.hidden_size, num_layers=args.num_layers, lookahead=args.lookahead,
        codebook_size=codec.config.codebook_size, frame_rate=float(codec.config.frame_rate),
        sampling_rate=codec.config.sampling_rate, codec_fingerprint=codec_fingerprint(codec),
    )  # fmt: skip
    cache = Path(training_args.output_dir)
    cache.mkdir(parents=True, exist_ok=True)
    with training_args.main_process_first(desc="speaking"):
        train, held_out = lips_data(codec, config, args.voices, args.sentences, args.held_out, args.data,
                                    args.alignment_steps, cache, training_args.seed)  # fmt: skip
    size = training_args.train_batch_size * training_args.world_size
    windows = max(size, len(train.codes) // args.window_frames)
    trainer = LipsTrainer(
        model=SolamiLipsModel(config), args=training_args, averaging_decay=args.averaging_decay,
        train_dataset=LipsWindows(train, args.window_frames, windows, config.codebook_size, training_args.seed),
        held_out=held_out if len(held_out.codes) else None, closure_weight=args.closure_weight, eval_dataset=[],
    )  # fmt: skip
    trainer.train_or_resume()
    return trainer.finish(args, training_args.output_dir, half=args.half)


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command."""
    run_training(train_lips, [LipsArguments, TrainingArguments], argv, "solami train-lips")
