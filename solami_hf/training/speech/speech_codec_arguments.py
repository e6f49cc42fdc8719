"""Arguments of `solami train-speech-codec`."""

from dataclasses import dataclass

from transformers import TrainingArguments

from ...command_line import option
from ...modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig


@dataclass
class SpeechCodecArguments:
    """Training data and size; learning rate, steps and folders are `TrainingArguments`."""

    data: list[str] = option(["tts"], "Folders of recordings, files that list them, or 'tts' to synthesize them.")
    voices: list[str] = option(["heart"], "Voices of 'tts'.")
    sentences: int = option(2200, "Sentences that each voice speaks for training.")
    held_out: int = option(120, "Further sentences (or recordings) kept for measuring.")
    eval_clips: int = option(16, "Held-out clips measured with each checkpoint; 0 for none.")
    start_from: str | None = option(None, "Trained codec to go on from, by hub id or folder: its sizes and codebooks.")
    window_seconds: float = option(0.9, "Length of the windows trained on, in seconds.")
    num_filters: int = option(16, "Channels after the first convolution.")
    hidden_size: int = option(128, "Width of the quantized latent.")
    num_lstm_layers: int = option(1, "LSTM layers of encoder and decoder.")
    bidirectional: bool = option(False, "Whether the encoder's LSTM reads both ways.")
    num_quantizers: int = option(8, "Levels of the residual quantizer.")
    codebook_size: int = option(1024, "Codes of each level.")
    semantic_teacher: str | None = option(None, "Audio encoder that teaches level 0 words, by hub id or folder.")
    semantic_layer: int | None = option(None, "Its hidden states to learn from, -1 the last; else their mean.")
    semantic_weight: float = option(1.0, "Weight of the distillation loss.")
    unquantized_steps: int = option(200, "Steps before the codebooks are filled.")
    kmeans_windows: int = option(384, "Windows whose latents fill the codebooks.")
    first_level_share: float = option(0.1, "Share of windows decoded from level 0 alone.")
    all_levels_share: float = option(0.8, "Share of windows decoded from all levels.")
    decoder_only: bool = option(
        False,
        "Tune only the decoder of `start_from`: encoder and codebooks stay, and with them all codes, "
        "token data sets and voices.",
    )
    acoustic_model: str | None = option(None, "With decoder_only: what it fills in behind level 0 is decoded, too.")
    filled_share: float = option(0.6, "Share of windows with the levels that the acoustic model fills in.")
    averaging_decay: float = option(0.998, "Decay of the running averages of the weights; 0 for none.")
    mel_weight: float = option(1.0, "Weight of the multi-scale log-mel loss.")
    stft_weight: float = option(0.0, "Weight of the multi-resolution magnitude loss.")
    adversarial_weight: float = option(0.0, "Weight of the discriminator's verdict; 0 trains without one.")
    feature_matching_weight: float = option(1.0, "Weight of the differences of the discriminator's features.")
    adversarial_start: int = option(1000, "Steps before the discriminator begins.")
    adversarial_every: int = option(2, "The discriminator learns once in so many steps.")
    adversarial_learning_rate: float = option(3e-4, "Of the discriminator's AdamW.")
    max_minutes: float | None = option(None, "Stop training after this many minutes.")

    def __post_init__(self):
        for name in ("data", "voices"):  # a recipe may name one only
            if isinstance(getattr(self, name), str):
                setattr(self, name, [getattr(self, name)])
        for name, other in ("first_level_share", self.all_levels_share), ("all_levels_share", self.first_level_share):
            if not 0 <= getattr(self, name) <= max(0, 1 - other):
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 0 and both at most 1 together")
        for name, other in (("decoder_only", "start_from"), ("acoustic_model", "decoder_only")):
            if getattr(self, name) and not getattr(self, other):
                raise ValueError(f"{name} is for tuning the decoder of a trained codec: give {other}, too")
        if self.decoder_only and self.semantic_teacher:
            raise ValueError("semantic_teacher teaches level 0, which stays with decoder_only: leave one of them out")
        if self.start_from:
            self.unquantized_steps = 0  # its codebooks are filled
        if not 0 <= self.filled_share <= 1:
            raise ValueError(f"filled_share is {self.filled_share}, expected 0 to 1")
        if self.window_seconds < 0.2:
            raise ValueError(f"window_seconds is {self.window_seconds}, expected at least 0.2 (the mel windows)")
        if not 0 <= self.averaging_decay < 1:
            raise ValueError(f"averaging_decay is {self.averaging_decay}, expected at least 0 and below 1")
        weights = [name for name in self.__dataclass_fields__ if name.endswith("_weight")]
        for name in (*weights, "unquantized_steps", "adversarial_start", "eval_clips"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 0")
        for name in ("kmeans_windows", "adversarial_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")

    def to_config(self, semantic_size: int = 16) -> SolamiSpeechCodecConfig:
        """The codec's configuration; `semantic_size` is the width of the teacher's hidden states."""
        names = "num_filters hidden_size num_lstm_layers bidirectional num_quantizers codebook_size".split()
        return SolamiSpeechCodecConfig(**{name: getattr(self, name) for name in names}, semantic_size=semantic_size)


@dataclass
class SpeechCodecTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults that worked for small codecs."""

    max_steps: int = 3200
    per_device_train_batch_size: int = 8
    learning_rate: float = 5e-4
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 50
    optim: str = "adamw_torch"
    adam_beta2: float = 0.99
    max_grad_norm: float = 3.0
    logging_steps: float = 50
    save_steps: float = 400
    save_total_limit: int | None = 1
    remove_unused_columns: bool | None = False
    report_to: None | str | list[str] = "none"
