"""Trains a SoundStorm: the acoustic model of speech, or the filler of a motion codec with several levels.

    solami train-soundstorm --config recipe.yaml --data voice1/ voice2/ --speech_codec codec/ --output_dir out
    solami train-soundstorm --config recipe.yaml --data codes.npz --output_dir out
    solami train-soundstorm --config recipe.yaml --data corpus/ --motion_codec codec/ --output_dir out

Recipes beside this file: `recipes/soundstorm_small.yaml` (3.4M weights, two CPU cores) and
`recipes/soundstorm_paper.yaml` (the original's sizes), and with `modality: motion` `recipes/motion_filler_tiny.yaml`
(the demo's corpus). Speech is encoded once, into `OUTPUT_DIR/codes.npz`.
"""

import itertools
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import TrainingArguments, set_seed

from ...command_line import option, run_command
from ...modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from ...modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from ...modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from ...modeling.soundstorm.soundstorm_masking import mask_cells
from ...modeling.speech_codec.speech_codec_adapter import load_speech_codec
from ...processing.datasets.manifests import read_manifest
from ...processing.files.folder_or_hub import with_sources
from ..held_out import evaluating, evaluation_split
from ..motion_vq.motion_vq_data import MotionClip, cut_anywhere, read_clips
from ..motion_vq.motion_vq_evaluation import evaluate_motion_vq
from ..speech_recordings import splits_of
from ..trackers import TrackedMedia
from ..trainer import ResumableTrainer, avoid_slow_bf16, run_training
from .soundstorm_data import CodeWindows, SpeechCodes, encode_motions, read_sources
from .soundstorm_report import write_soundstorm_report

logger = logging.getLogger(__name__)

MASKED_SHARES = (1.0, 0.5, 0.2)  # of the cells behind the prompt, in evaluation
PROMPT_SHARE = 0.4  # of a window, in evaluation: 2 of 5 seconds


@dataclass
class SoundStormArguments:
    """Training data, and the sizes of the model; everything else is `transformers.TrainingArguments`."""

    data: list[str] = option(
        [],
        "Sources, best one a voice: folders of recordings, text files that list them, .npz of speech, or "
        "codes of all levels as .npz (codes, ends) or .parquet (codes, speaker).",
    )
    modality: str = option("speech", "speech, or motion: `data` with manifest.jsonl of clips.")
    motion_codec: str | None = option(None, "Folder or hub id of the motion codec whose levels above 0 are learnt.")
    held_out_data: list[str] = option([], "Held-out sources; by default `data`'s validation, else its last clips.")
    held_out: int = option(20, "Clips of each source kept for that, at most half of them.")
    speech_codec: str | None = option(None, "Codec (folder or hub id) that encodes speech; with codes, to hear them.")
    start_from: str | None = option(None, "Folder or hub id of an acoustic model to go on from, with its sizes.")
    frame_rate: float = option(50.0, "Frames of codes a second, if no codec says so.")
    codebook_size: int | None = option(None, "Codes of each level; the codec's, or 1024, if not given.")
    window_seconds: float = option(5.0, "Length of a training window: prompt and speech.")
    hidden_size: int = option(1024, "Width of the conformer.")
    num_hidden_layers: int = option(12, "Conformer blocks.")
    num_attention_heads: int = option(8, "Attention heads of a block.")
    head_dim: int = option(128, "Width of a head.")
    intermediate_size: int = option(4096, "Width inside the feed-forward parts.")
    conv_channels: int = option(2048, "Channels of the depthwise convolutions.")
    conv_kernel_size: int = option(31, "Frames that these see; odd.")
    max_frames: int = option(6000, "Longest prompt and speech together, in frames.")
    dropout: float = option(0.0, "In feed-forward parts, attention and convolution.")
    spoken_levels: int | None = option(None, "Levels, level 0 included, to decode of what it fills in, or all.")
    sums: bool = option(False, "Of motion: learn what all levels add up to, in one call, not each code.")
    averaging_decay: float = option(0.0, "Decay of running averages of the weights, which are kept; 0 for none.")
    eval_windows: int = option(32, "Held-out windows that are measured.")
    half: bool = option(False, "Write the weights as fp16; they load as float32.")

    def __post_init__(self) -> None:
        for name in ("data", "held_out_data"):  # a recipe may name one only
            if isinstance(getattr(self, name), str):
                setattr(self, name, [getattr(self, name)])
        if self.modality not in ("speech", "motion") or (self.modality == "motion") == (self.motion_codec is None):
            given = f"`modality` is {self.modality!r} and `motion_codec` {self.motion_codec!r}"
            raise ValueError(f"{given}, expected speech, or motion with the codec that makes its codes.")
        for name in ("frame_rate", "window_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}, expected more than 0.")
        if self.sums and self.modality != "motion":
            raise ValueError("`sums` is of motion, whose code vectors it adds up, but `modality` is 'speech'.")
        if not 0 <= self.averaging_decay < 1:
            raise ValueError(f"`averaging_decay` is {self.averaging_decay}, expected at least 0 and below 1.")
        for name, least in (("held_out", 0), ("eval_windows", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` is {getattr(self, name)}, expected at least {least}.")

    def to_config(
        self, num_quantizers: int, codebook_size: int, given: int = 1, width: int = 0
    ) -> SolamiSoundStormConfig:
        """The model's configuration for codes of so many levels, and of `width` with `sums`."""
        same = (
            "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim", "intermediate_size",
            "conv_channels", "conv_kernel_size", "max_frames", "dropout", "spoken_levels",
        )  # fmt: skip
        codes = {"codebook_size": codebook_size, "num_semantic_codes": codebook_size, "vector_size": width}
        sizes = {name: getattr(self, name) for name in same}
        codes |= {"num_quantizers": num_quantizers, "num_given_levels": given, "modality": self.modality}
        return SolamiSoundStormConfig(**sizes, **codes)


class SoundStormTrainer(ResumableTrainer):
    """Logs the accuracy, and evaluates each level at fixed shares of masked cells: of `windows` (n, num_quantizers,
    frames), held-out codes. The page lets one hear `held_out` clips through `codec`; `motions`, held-out ones and
    their codec, are reconstructed and measured."""

    def __init__(self, *args, windows, held_out: SpeechCodes | None = None, codec=None, motions=None, **kwargs):
        self.windows, self.held_out, self.codec, self.motions = windows, held_out, codec, motions
        super().__init__(*args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The model's own loss, or with `label_smoothing_factor` a smoothed one, for which all cells are computed."""
        if self.args.label_smoothing_factor == 0:
            outputs = model(**inputs)
        else:
            outputs, cells = model(inputs["audio_codes"]), inputs["labels"] != -100
            logits, wanted = outputs.logits[cells], inputs["labels"][cells]
            outputs.loss = F.cross_entropy(logits, wanted, label_smoothing=self.args.label_smoothing_factor)
            outputs.accuracy = (logits.argmax(-1) == wanted).float().mean()
        self.parts["accuracy"].append(outputs.accuracy.detach().float())
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def measure(self) -> dict[str, float]:
        """Held-out windows, see `evaluate_soundstorm`; and `evaluate_filled` of motion."""
        if self.windows is None:
            return {}
        with self.compute_loss_context_manager():
            measured = {"windows": len(self.windows)}
            if not self.model.config.vector_size:
                measured = evaluate_soundstorm(self.model, self.windows, self.args.per_device_eval_batch_size)
        return measured | evaluate_filled(self.model, *self.motions) if self.motions else measured

    def write_page(self, media: TrackedMedia | None = None) -> None:
        """See `write_soundstorm_report`."""
        write_soundstorm_report(self.args.output_dir, self.model, self.history(), self.held_out, self.codec, media)


def evaluate_filled(model: SolamiSoundStormModel, clips: list[MotionClip], codec) -> dict[str, float]:
    """Joint errors (`evaluate_motion_vq`) of clips from level 0 alone, with filled levels, and with the true ones."""
    ways, errors = {"level0": {"levels": 1}, "filled": {"filler": model}, "true": {}}, {}
    with evaluating(model):
        for name, options in ways.items():
            found = evaluate_motion_vq(codec.to(model.device), clips, **options)
            errors |= {f"{figure}_{name}": found[figure] for figure in ("mpjpe", "root_mpjpe", "accel")}
    return errors


def evaluate_soundstorm(model: SolamiSoundStormModel, windows: torch.Tensor, batch_size: int) -> dict[str, float]:
    """Loss (nats) and accuracy of each level, given the levels below, with fixed shares of its cells masked, in
    windows (n, num_quantizers, frames) of codes. The first 40 % of a window are a prompt. Which cells behind it are
    masked is always the same. Returns `loss` and `accuracy`, means over all below; `loss_level1_100` for level 1 with
    100 % masked, and so on; and `windows`, their number."""
    (count, _, frames), given = windows.shape, model.config.num_given_levels
    behind = torch.arange(frames) >= int(PROMPT_SHARE * frames)
    order = torch.rand(count, frames, generator=torch.Generator().manual_seed(0))
    ranks = order.masked_fill(~behind, 2.0).argsort(1).argsort(1)
    results: dict[str, float] = {}
    for level, share in itertools.product(range(model.config.num_acoustic_levels), MASKED_SHARES):
        cells = behind & (ranks < max(1, int(share * int(behind.sum()))))
        sums = torch.zeros(2)
        for rows in torch.arange(count).split(batch_size):
            chosen, places = torch.full((len(rows),), level), behind.expand(len(rows), -1)
            inputs = mask_cells(windows[rows], places, chosen, cells[rows], model.config.mask_code, given)
            codes, labels = (part.to(model.device) for part in inputs)
            with evaluating(model):
                output = model(codes, labels=labels)
            sums += len(rows) * torch.stack([output.loss, output.accuracy]).float().cpu()
        for name, value in zip(("loss", "accuracy"), (sums / count).tolist(), strict=True):
            results[f"{name}_level{level + 1}_{100 * share:.0f}"] = value
    for name in ("loss", "accuracy"):
        parts = [value for key, value in results.items() if key.startswith(f"{name}_")]
        results[name] = sum(parts) / len(parts)
    return results | {"windows": count}


def train_soundstorm(args: SoundStormArguments, training_args: TrainingArguments) -> dict[str, float]:
    """Trains, evaluates and saves the acoustic model. Returns the final evaluation, see `evaluate_soundstorm`; empty
    where nothing is held out.

    `training_args.output_dir` gets `config.json`, `model.safetensors` (loads with `AutoModel`), `history.json` (the
    log and the final evaluation), `report.html` (the run's page), `codes.npz` where speech was encoded, and
    checkpoints, from which a second call goes on: on one process to the same weights and log, bit for bit. Raises
    FileNotFoundError, ValueError: missing or unusable data, see `read_sources`; fewer than two levels; codes out of
    range.
    """
    set_seed(training_args.seed)
    avoid_slow_bf16(training_args)
    trainer = make_trainer(args, training_args)
    trainer.train_or_resume()
    return trainer.finish(args, training_args.output_dir, half=args.half, codec=trainer.train_dataset.codec)


def make_trainer(args: SoundStormArguments, training_args: TrainingArguments) -> SoundStormTrainer:
    """A trainer with a new model on the data of `args`; raises as `train_soundstorm`."""
    args = with_sources(args, "speech_codec", "start_from", "motion_codec")
    codec = load_speech_codec(args.speech_codec) if args.speech_codec else None
    motions, given, vectors = None, 1, None
    if args.modality == "motion":
        codec = SolamiMotionVQModel.from_pretrained(args.motion_codec, dtype=torch.float32).eval()
        codes, held_out, motions = _read_motions(args, training_args, codec)
        size, given = codec.config.body_code_num, len(codec.config.parts)
        vectors = code_vectors(codec) if args.sums else None
        codec, frame_rate = None, codec.config.frame_rate
    else:
        codes, held_out = _read_data(args, training_args, codec)
        frame_rate = codec.config.frame_rate if codec is not None else args.frame_rate
        size = args.codebook_size or (codec.config.codebook_size if codec is not None else 1024)
    for part in (codes, held_out):
        if part is not None:
            _check_codes(part, len(codes.codes), size)
    if codec is not None and len(codes.codes) > codec.config.num_quantizers:
        raise ValueError(
            f"the codes have {len(codes.codes)} levels, but `speech_codec` has {codec.config.num_quantizers}"
        )
    model = _start(args, len(codes.codes), size, given, vectors)
    window = max(1, round(args.window_seconds * frame_rate))
    batch = training_args.train_batch_size * training_args.gradient_accumulation_steps * training_args.world_size
    mask_code, seed = model.config.mask_code, training_args.seed
    train = CodeWindows(codes, window, mask_code, seed, batch, given, motions is not None, args.sums)
    windows = None
    if held_out is not None:
        if motions:
            window = min(window, int(np.median(np.diff(held_out.ends, prepend=0))))
        windows = CodeWindows(held_out, window, mask_code).fixed(args.eval_windows)
    minutes = codes.codes.shape[1] / frame_rate / 60
    logger.info("training %d weights on %.1f minutes of codes", model.num_parameters(), minutes)
    return SoundStormTrainer(
        model=model,
        args=training_args,
        train_dataset=train,
        eval_dataset=[] if windows is None else windows,  # never iterated: `evaluate` masks them itself
        averaging_decay=args.averaging_decay,
        windows=windows,
        held_out=held_out,
        codec=codec,
        motions=motions,
    )


def _start(
    args: SoundStormArguments, num_quantizers: int, codebook_size: int, given: int = 1, vectors=None
) -> SolamiSoundStormModel:
    """A new model, or the one that `start_from` names, for codes of so many levels."""
    if args.start_from is None:
        width = 0 if vectors is None else vectors.shape[-1]
        model = SolamiSoundStormModel(args.to_config(num_quantizers, codebook_size, given, width))
        if vectors is not None:
            model.vectors.copy_(vectors)
        return model
    given = {} if args.spoken_levels is None else {"spoken_levels": args.spoken_levels}
    model = SolamiSoundStormModel.from_pretrained(args.start_from, dtype=torch.float32, **given)
    found = (model.config.num_quantizers, model.config.codebook_size)
    if found != (num_quantizers, codebook_size):
        raise ValueError(
            "`start_from` has {} levels of {} codes, but the data have {} of {}: start without it, or from a model of "
            "the same codec".format(*found, num_quantizers, codebook_size)
        )
    return model


def _read_data(
    args: SoundStormArguments, training_args: TrainingArguments, codec
) -> tuple[SpeechCodes, SpeechCodes | None]:
    """Codes to train on and codes held out; the first process encodes, while the others wait."""
    folder, device = Path(training_args.output_dir), training_args.device
    with training_args.main_process_first(desc="encoding speech"):
        codes = read_sources(args.data, codec, folder / "codes.npz", device)
        if sources := args.held_out_data or [path for path in args.data if "validation" in splits_of(path)]:
            return codes, read_sources(sources, codec, folder / "codes_held_out.npz", device, held_out=True)
    codes, held_out = codes.split(args.held_out)
    if held_out is None:
        logger.warning("nothing is held out of %s: nothing will be evaluated", ", ".join(args.data))
    return codes, held_out


def _read_motions(args: SoundStormArguments, training_args: TrainingArguments, codec):
    """Codes of motions to train on, of those held out (or None), and these clips with the codec (or None)."""
    if len(args.data) != 1:
        raise ValueError(f"`data` is {args.data}, expected one folder with a manifest.jsonl of motions")
    folder, config = args.data[0], codec.config
    split = evaluation_split({row["split"] for row in read_manifest(folder)}, training_args, folder)
    splits = [
        read_clips(folder, name, config.fps, config.frames_per_code) if name else [] for name in ("train", split)
    ]
    if args.sums:
        splits[0] = cut_anywhere(splits[0], config.frames_per_code)
    codes, held_out = (encode_motions(clips, codec.to(training_args.device)) for clips in splits)
    if codes is None:
        raise ValueError(f"The manifest in {folder} has no motion of the split train.")
    return codes, held_out, (splits[1], codec) if splits[1] else None


@torch.no_grad()
def code_vectors(codec) -> torch.Tensor:
    """Vectors (rows, codes, width) of the levels to fill, body, hand, body, ...; ValueError where widths differ."""
    if len({getattr(codec.config, f"{part}_code_dim") for part in codec.config.parts}) > 1:
        raise ValueError("`motion_codec` has codes of other widths for body and hand, but `sums` needs the same")
    codes = torch.arange(codec.config.body_code_num, device=codec.device)
    levels = zip(*(part.levels[1:] for part in codec.parts.values()), strict=True)
    return torch.stack([level.decode(codes) for both in levels for level in both])


def _check_codes(codes: SpeechCodes, levels: int, size: int) -> None:
    found, least, most = len(codes.codes), codes.codes.min(), codes.codes.max()
    if found < 2:
        raise ValueError("the codes have one level only, expected at least 2: level 0 is given, the others are learnt")
    if found != levels:
        raise ValueError(f"`held_out_data` has codes of {found} levels, but `data` of {levels}")
    if least < 0 or most >= size:
        raise ValueError(
            f"the codes go from {least} to {most}, expected 0 to {size - 1}; `codebook_size` says how many"
        )


def main(argv: list[str] | None = None) -> None:
    """Entry point of the command."""
    run_training(train_soundstorm, [SoundStormArguments, TrainingArguments], argv, "solami train-soundstorm")


if __name__ == "__main__":
    sys.exit(run_command("solami train-soundstorm", main))
