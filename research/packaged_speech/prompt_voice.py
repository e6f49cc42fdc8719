"""Makes level 1 of an acoustic model's answers the prompt's voice, whoever spoke the words.

Exchanged clips (`voice_exchange`) have level 0 of another voice in the time of the voice wanted, and from the timing
an acoustic model guesses level 1 instead of reading it from its prompt: 75 % of pairs followed the prompt before this
stage, 99.8 % after it (`solami_hf/processing/audio/speech/README.md`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import TrainingArguments, set_seed

from solami_hf.command_line import option, parse_arguments
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from solami_hf.modeling.soundstorm.soundstorm_masking import mask_cells
from solami_hf.processing.files.output_folder import writing_to
from solami_hf.training.soundstorm.soundstorm_data import CodeWindows, SpeechCodes
from solami_hf.training.soundstorm.train_soundstorm import SoundStormTrainer
from solami_hf.training.trainer import avoid_slow_bf16, save_run


@dataclass
class PromptVoiceArguments:
    """The acoustic model to go on from, and the codes of the voices."""

    start_from: str = option(..., "Folder of the acoustic model.")
    data: list[str] = option(..., "codes_VOICE.npz of each voice, of `voice_exchange`.")
    window: int = option(250, "Frames of a window, prompt and speech.")
    half: bool = option(True, "Write the weights as fp16.")


@dataclass
class PromptVoiceTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the values that made the packaged model."""

    max_steps: int = 340
    per_device_train_batch_size: int = 24
    learning_rate: float = 6e-4
    lr_scheduler_type: str = "cosine"
    logging_steps: float = 20
    save_steps: float = 100
    save_total_limit: int | None = 1
    report_to: None | str | list[str] = "none"


class PromptVoiceWindows(Dataset):
    """Windows of a prompt of one voice and of words by any: level 0 of any clip, the further levels of the prompt's.

    Three of four have masked cells of level 1 alone; the fourth is an ordinary window, so that the levels behind are
    not forgotten. An item is that of its number alone.
    """

    def __init__(self, voices: list[SpeechCodes], window: int, mask_code: int, count: int, seed: int):
        self.voices, self.window, self.mask_code, self.count, self.seed = voices, window, mask_code, count, seed
        self.ordinary = [CodeWindows(codes, window, mask_code, seed) for codes in voices]
        self.codec = voices[0].codec

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """`audio_codes` (levels, window) with masks, and `labels` (levels - 1, window)."""
        generator = np.random.default_rng([self.seed, number])
        voice, speaker = map(int, generator.integers(len(self.voices), size=2))
        if number % 4 == 3:
            return self.ordinary[voice][number]
        begin = int(generator.integers(self.window // 4, self.window // 2 + 1))
        codes = np.concatenate(
            [self._some(voice, begin, generator), self._some(voice, self.window - begin, generator)], 1
        )
        codes[0, begin:] = self._some(speaker, self.window - begin, generator)[0]
        behind = torch.arange(self.window) >= begin
        share = np.cos(generator.random() * np.pi / 2)
        cells = behind & torch.from_numpy(generator.random(self.window) < share)
        cells[begin + int(generator.integers(self.window - begin))] = True
        level = torch.zeros(1, dtype=torch.long)
        masked, labels = mask_cells(torch.from_numpy(codes)[None], behind[None], level, cells[None], self.mask_code)
        return {"audio_codes": masked[0], "labels": labels[0]}

    def _some(self, voice: int, frames: int, generator: np.random.Generator) -> np.ndarray:
        """So many frames (levels, frames) of a voice from a random place on."""
        codes = self.voices[voice].codes
        start = int(generator.integers(max(1, codes.shape[1] - frames + 1)))
        return np.resize(codes[:, start : start + frames].T, (frames, len(codes))).T.astype(np.int64)


def train_prompt_voice(args: PromptVoiceArguments, training_args: TrainingArguments) -> SolamiSoundStormModel:
    """Trains and writes the model to `training_args.output_dir`; a second call goes on from a checkpoint.

    Raises:
        ValueError: the codes are of several codecs, or of other levels than the model's.
    """
    set_seed(training_args.seed)
    avoid_slow_bf16(training_args)
    voices = [SpeechCodes.load(path) for path in args.data]
    model = SolamiSoundStormModel.from_pretrained(args.start_from, dtype=torch.float32)
    if len({codes.codec for codes in voices}) > 1 or {len(c.codes) for c in voices} != {model.config.num_quantizers}:
        raise ValueError(
            f"{', '.join(args.data)} are not codes of one codec with {model.config.num_quantizers} levels"
        )
    count = training_args.max_steps * training_args.train_batch_size * training_args.gradient_accumulation_steps
    windows = PromptVoiceWindows(voices, args.window, model.config.mask_code, count, training_args.seed)
    trainer = SoundStormTrainer(
        model=model, args=training_args, train_dataset=windows, eval_dataset=[], averaging_decay=0.0, windows=None
    )
    trainer.train_or_resume()
    save_run(model, {"codec": windows.codec, "log": trainer.history()}, Path(training_args.output_dir), half=args.half)
    return model.eval()


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    types = [PromptVoiceArguments, PromptVoiceTrainingArguments]
    args, training_args = parse_arguments(types, argv, "prompt_voice")
    with writing_to(training_args.output_dir):
        train_prompt_voice(args, training_args)
