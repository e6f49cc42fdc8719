"""The talker: from the text of an answer to level 0 of the speech codec's codes, all frames at once.

Built as FastSpeech (https://arxiv.org/abs/1905.09263): an encoder over characters, of ModernBERT's layers
(https://arxiv.org/abs/2412.13663), predicts how many frames each lasts, its outputs are repeated so many times, and a
decoder over frames chooses the codes. The decoder is convolutions alone: with the encoder's context it needs no more,
and on a CPU it trains twice as fast as layers with attention. With it, a language model that writes text can speak.

    talker = SolamiTalkerModel.from_pretrained(folder)
    spoken = talker.generate(**talker.encode_text(["Nice to meet you!"]))
    speech = processor.decode_speech(spoken.codes[0][spoken.code_mask[0]], voice="heart")
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import ModernBertConfig, ModernBertModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from ..remote_code import CarriesItsCode
from .configuration_talker import SolamiTalkerConfig
from .spoken_text import spoken_sentences, spoken_text

_SHORTEST = -2.3  # log of the least frames of a character that are predicted, a tenth of one
_LONGEST = 5.0  # and of the most, 148


@dataclass
class SolamiTalkerOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`): `code_loss + duration_loss`; None without labels.
        code_loss (`torch.FloatTensor`): mean cross-entropy over labelled frames, in nats; None without labels.
        duration_loss (`torch.FloatTensor`): mean Poisson loss of the characters' frames; None without durations.
        accuracy (`torch.FloatTensor`): share of labelled frames whose most probable code is right.
        logits (`torch.FloatTensor` of shape `(batch, frames, codebook_size)`): float32 scores of the codes.
        code_mask (`torch.BoolTensor` of shape `(batch, frames)`): True = a frame of the speech.
        log_durations (`torch.FloatTensor` of shape `(batch, characters)`): log of the frames of each character.
    """

    loss: torch.FloatTensor | None = None
    code_loss: torch.FloatTensor | None = None
    duration_loss: torch.FloatTensor | None = None
    accuracy: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    code_mask: torch.BoolTensor | None = None
    log_durations: torch.FloatTensor | None = None


@dataclass
class SolamiTalkerSpeech(ModelOutput):
    """`codes` (batch, frames) int64, level 0, 0 where there is no speech; `code_mask` (batch, frames) boolean, True =
    a frame of the speech, padding behind; `durations` (batch, characters) int64, frames of each character, 0 for
    padding."""

    codes: torch.LongTensor | None = None
    code_mask: torch.BoolTensor | None = None
    durations: torch.LongTensor | None = None


class TalkerConvolution(nn.Module):
    """Norm, a convolution over `kernel_size` (odd) frames from `size` to more `channels`, ReLU, and back:
    FastSpeech's feed-forward part."""

    def __init__(self, size: int, channels: int, kernel_size: int, dropout: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(size, bias=False)
        self.up = nn.Conv1d(size, channels, kernel_size, padding=kernel_size // 2)
        self.down = nn.Conv1d(channels, size, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch, frames, size) to the same shape; what is behind a text's end by the mask (batch, frames) does not
        reach into it."""
        inner = self.norm(hidden).masked_fill(~mask[..., None], 0).transpose(1, 2)
        return hidden + self.dropout(self.down(F.relu(self.up(inner)))).transpose(1, 2)


class SolamiTalkerModel(CarriesItsCode, PreTrainedModel):
    """Says text in level 0 of a speech codec's codes, which has words and no voice."""

    code_file = __file__
    config_class = SolamiTalkerConfig
    base_model_prefix = "talker"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["ModernBertEncoderLayer"]

    def __init__(self, config: SolamiTalkerConfig):
        super().__init__(config)
        size = config.hidden_size
        self.character_embedding = nn.Embedding(len(config.alphabet) + 1, size)
        self.encoder = ModernBertModel(_encoder_config(config))
        self.duration_head = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, 1))
        self.start_embedding = nn.Embedding(config.num_places, size)
        self.end_embedding = nn.Embedding(config.num_places, size)
        self.decoder = nn.ModuleList(
            TalkerConvolution(size, config.conv_channels, config.conv_kernel_size, config.dropout)
            for _ in range(config.num_decoder_layers)
        )
        self.code_norm = nn.LayerNorm(size, bias=False)
        self.code_head = nn.Linear(size, config.codebook_size)
        self.encoder.embeddings.tok_embeddings = None  # fed with embeddings; a table of its own would lie idle
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Conv1d):
            init.normal_(module.weight, std=(module.in_channels * module.kernel_size[0]) ** -0.5)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, std=std)
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)

    def encode_text(self, texts: str | Sequence[str]) -> dict[str, torch.Tensor]:
        """Texts as they are written to `input_ids` and `attention_mask` (batch, characters), on the model's device.
        Numbers, symbols and abbreviations become words, and what cannot be spoken is left out, see `spoken_text`.
        Raises ImportError: a text has digits, and num2words is not installed."""
        texts = [texts] if isinstance(texts, str) else texts
        ids = [character_ids(spoken_text(text), self.config.alphabet) for text in texts]
        length = max([1, *map(len, ids)])
        rows = torch.tensor([row + [0] * (length - len(row)) for row in ids], dtype=torch.long, device=self.device)
        rows = rows.reshape(len(ids), length)
        return {"input_ids": rows, "attention_mask": rows > 0}

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.BoolTensor | None = None,
        durations: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
    ) -> SolamiTalkerOutput:
        """Scores of the codes of each frame.

        `input_ids` (batch, characters): see `encode_text`; padding comes behind. `attention_mask` (batch, characters)
        is boolean, True = real; without it, ids above 0 are. `durations` (batch, characters) are frames of each
        character, predicted ones if None; `labels` (batch, frames) codes, -100 for frames that do not count; frames
        are the most that a text's durations sum to. Raises ValueError: wrong shapes, ids or codes out of range, labels
        without durations or of other length, more frames than `config.max_frames`.
        """
        mask = self._check_text(input_ids, attention_mask)
        hidden = self.encoder(inputs_embeds=self.character_embedding(input_ids), attention_mask=mask)[0]
        log_durations = self.duration_head(hidden)[..., 0].float().clamp(_SHORTEST, _LONGEST)
        log_durations = log_durations.masked_fill(~mask, _SHORTEST)
        given = durations
        if given is None:
            durations = whole_frames(log_durations.exp(), mask)
        elif given.shape != input_ids.shape:
            raise ValueError(f"durations are {tuple(given.shape)}, expected {tuple(input_ids.shape)} as input_ids")
        durations = durations.masked_fill(~mask, 0)
        logits, code_mask = self._decode(hidden, durations)
        output = SolamiTalkerOutput(logits=logits, code_mask=code_mask, log_durations=log_durations)
        if given is not None:
            losses = F.poisson_nll_loss(log_durations, durations.float(), log_input=True, reduction="none")
            output.duration_loss = losses[mask].mean()
        if labels is not None:
            self._add_loss(output, labels, given)
        return output

    @torch.no_grad()
    def generate(
        self, input_ids: torch.LongTensor, attention_mask: torch.BoolTensor | None = None, speed: float = 1.0
    ) -> SolamiTalkerSpeech:
        """The most probable code of each frame, of ids as in `forward`, `speed` (above 0) times as fast as the voice
        that it was trained on. Texts of a batch do not touch, and nothing is random. Raises ValueError: as `forward`;
        another speed."""
        if not speed > 0:
            raise ValueError(f"speed is {speed}, expected more than 0")
        mask = self._check_text(input_ids, attention_mask)
        hidden = self.encoder(inputs_embeds=self.character_embedding(input_ids), attention_mask=mask)[0]
        frames = self.duration_head(hidden)[..., 0].float().clamp(_SHORTEST, _LONGEST).exp() / speed
        durations = whole_frames(frames, mask)
        logits, code_mask = self._decode(hidden, durations)
        return SolamiTalkerSpeech(logits.argmax(-1).masked_fill(~code_mask, 0), code_mask, durations)

    def say(self, text: str) -> torch.LongTensor:
        """Codes (frames,) of a text, its sentences (`spoken_sentences`) one after another. Raises ImportError: the
        text has digits, and num2words is not installed; ValueError: a sentence takes more than `config.max_frames`."""
        said = [self.generate(**self.encode_text(sentence)) for sentence in spoken_sentences(text) or [""]]
        return torch.cat([sentence.codes[0][sentence.code_mask[0]] for sentence in said])

    def _decode(self, hidden: torch.Tensor, durations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (batch, frames, codes) and mask (batch, frames) of encoded characters (batch, characters, size)."""
        character, start, end, mask = frame_places(durations)
        if mask.shape[1] > self.config.max_frames:
            raise ValueError(
                f"the text takes {mask.shape[1]} frames, expected at most {self.config.max_frames}, `max_frames` of "
                "the configuration: say it in parts"
            )
        last = self.config.num_places - 1
        frames = hidden.gather(1, character[..., None].expand(-1, -1, hidden.shape[-1]))
        frames = frames + self.start_embedding(start.clamp(0, last)) + self.end_embedding(end.clamp(0, last))
        for layer in self.decoder:
            frames = layer(frames, mask)
        return self.code_head(self.code_norm(frames)).float(), mask

    def _check_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        if input_ids.ndim != 2 or not input_ids.shape[1] or input_ids.is_floating_point():
            raise ValueError(f"input_ids are {input_ids.dtype} {tuple(input_ids.shape)}, expected integers (B, L)")
        least, most, last = int(input_ids.min()), int(input_ids.max()), len(self.config.alphabet)
        if least < 0 or most > last:
            raise ValueError(f"input_ids has ids from {least} to {most}, expected 0 to {last}, of the alphabet")
        if attention_mask is None:
            return input_ids > 0
        if attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask is {tuple(attention_mask.shape)}, expected {tuple(input_ids.shape)} as input_ids"
            )
        return attention_mask.bool()

    def _add_loss(self, output: SolamiTalkerOutput, labels: torch.Tensor, durations: torch.Tensor | None) -> None:
        if durations is None:
            raise ValueError("labels need durations: the frames of each character that the codes were aligned to")
        if labels.shape != output.code_mask.shape:
            raise ValueError(
                f"labels are {tuple(labels.shape)}, expected {tuple(output.code_mask.shape)}, the sums of durations"
            )
        labels = labels.masked_fill(~output.code_mask, -100)
        real = labels != -100
        scores, wanted = output.logits[real], labels[real]
        output.code_loss = F.cross_entropy(scores, wanted)
        output.accuracy = (scores.argmax(-1) == wanted).float().mean()
        output.loss = output.code_loss + output.duration_loss


def character_ids(text: str, alphabet: str) -> list[int]:
    """Ids of the characters of `text` that the alphabet has; the others are left out."""
    places = {character: place for place, character in enumerate(alphabet, 1)}
    return [places[character] for character in text if character in places]


def whole_frames(frames: torch.Tensor, mask: torch.Tensor) -> torch.LongTensor:
    """Fractions of frames (batch, characters) rounded so that each text lasts as long as before, and 0 for padding.
    Rounded one by one, characters of 1.4 frames would all be too short."""
    ends = frames.double().masked_fill(~mask, 0).cumsum(1).round().long()
    return ends.diff(dim=1, prepend=ends.new_zeros(len(ends), 1))


def frame_places(durations: torch.LongTensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The length regulator: durations (batch, characters) to the frames that they sum to, at least one. Returns
    character, start, end: (batch, frames) integers: which character a frame is of, and how many frames lie between it
    and the first and the last of that character. mask: (batch, frames) boolean, True = a frame of the text; padding is
    behind."""
    ends = durations.cumsum(1)
    totals = ends[:, -1:]
    frames = torch.arange(max(1, int(totals.max())), device=durations.device).expand(len(ends), -1).contiguous()
    mask = frames < totals
    character = torch.searchsorted(ends, frames, right=True).clamp(max=durations.shape[1] - 1)
    end = ends.gather(1, character)
    start = frames - (end - durations.gather(1, character))
    return character, start, end - 1 - frames, mask


def word_frames(text: str, durations: Sequence[int]) -> list[tuple[str, int, int]]:
    """The words of a text (as the talker read it: `spoken_text` of it, as far as its alphabet has it) with their
    first frame and the one behind their last, from the frames of each character. Raises ValueError: other than one
    duration for each character."""
    if len(text) != len(durations):
        raise ValueError(f"durations are of {len(durations)} characters, expected {len(text)} as the text has")
    words, word, frame = [], "", 0
    start = 0
    for character, length in zip([*text, " "], [*map(int, durations), 0], strict=True):
        if character == " ":
            if word:
                words.append((word, start, frame))
            word = ""
        else:
            start = start if word else frame
            word += character
        frame += length
    return words


def _encoder_config(config: SolamiTalkerConfig) -> ModernBertConfig:
    """ModernBERT's configuration of the encoder."""
    return ModernBertConfig(
        vocab_size=1,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_encoder_layers,
        num_attention_heads=config.num_attention_heads,
        local_attention=config.local_attention,
        max_position_embeddings=config.max_frames,
        attention_dropout=config.dropout,
        mlp_dropout=config.dropout,
        embedding_dropout=config.dropout,
        initializer_range=config.initializer_range,
        pad_token_id=0,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    )
