"""Level 1 of a codec becomes the voice: a code for each of the voices that it learnt, and one for all others.

Behind a level 0 that does not know who speaks, further levels hold voice and sound in one, and an acoustic model that
fills them in does not keep to the voice of its prompt. Here who speaks gets directions of the latents of its own that
level 0 does not read: a convolution over what the encoder's LSTM has heard tells voices apart frame by frame. Level 1
is what is nearest there, and holds the vector from which the decoder has learnt to speak words in that voice.
"""

import logging

import torch
import torch.nn.functional as F

from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel, run_layers
from solami_hf.training.speech.speech_codec_trainer import fill_levels

from .parallel_speech import HEAD_LAYERS, ParallelSpeech, latents_of_voices, run_head
from .speech_units import directions_kept
from .voice_exchange_start import left_by_level_0, read_through, set_weight

logger = logging.getLogger(__name__)

_RIDGE = 1e-8  # of the moments; only so that silent channels do no harm


@torch.no_grad()
def make_level_1_the_voice(
    codec: SolamiSpeechCodecModel,
    speech: ParallelSpeech,
    voices: torch.Tensor,
    others: list[torch.Tensor],
    vectors_per_step: int,
    seed: int,
) -> None:
    """Edits a codec of `voice_exchange` in place: level 0 and what the decoder makes of it stay, levels from 2 on are
    filled anew.

    Args:
        voices: (voices, size), what the decoder was given beside level 0 to speak in each voice of `speech`.
        others: features of speech by no known voice, perhaps none.
        vectors_per_step: how many vectors move the codebooks at once in training.

    Raises:
        ValueError: see `check_room`.
    """
    levels = codec.quantizer.levels
    classes = [*speech.features, others] if others else list(speech.features)
    check_room(codec, len(classes))
    latents = torch.cat([clip for clips in latents_of_voices(codec, speech.features) for clip in clips])
    owned = _own_directions(levels[0].codebook, latents, len(classes))
    loud = _loudness(latents, voices) * owned
    rest = torch.eye(owned.shape[1]) - owned.T @ owned
    _let_latents_say_who_speaks(codec, classes, loud, rest)
    own, exchanged, _ = left_by_level_0(codec, speech, seed)
    unknown = [_behind_level_0(codec, clip) for clip in others]
    if others:
        voices = torch.cat([voices, torch.cat(unknown).mean(0)[None]])
    codes = loud + voices @ rest
    uses = torch.arange(codec.config.codebook_size) % len(codes)  # what is too many repeats
    levels[1].set_codes(codes[uses], torch.full((len(uses),), vectors_per_step / len(uses)))
    residual = torch.cat([own, exchanged, *unknown])
    residual = (residual - levels[1].decode(levels[1].encode(residual))) @ rest
    fill_levels(levels[2:], residual, vectors_per_step / len(residual), seed)
    _log_voices(codec, speech)


def check_room(codec: SolamiSpeechCodecModel, voices: int) -> None:
    """
    Raises:
        ValueError: the codec has fewer than three levels, or no room for so many voices.
    """
    levels, size = codec.config.num_quantizers, codec.config.hidden_size
    room = min(size - directions_kept(size), codec.config.codebook_size)
    if levels < 3 or voices > room:
        raise ValueError(
            f"the codec has {levels} levels and room for {room} voices, expected 3 levels, and {voices} voices"
        )


def _let_latents_say_who_speaks(
    codec: SolamiSpeechCodecModel, classes: list[list[torch.Tensor]], loud: torch.Tensor, rest: torch.Tensor
) -> None:
    """In the directions of `loud` (voices, size), and nothing else there; `rest` (size, size) projects to all others,
    which are what level 0 and the decoder read."""
    last, first = codec.encoder.layers[-1], codec.quantizer.levels[0]
    weight, bias = tell_voices_apart(codec, classes)
    set_weight(last, torch.einsum("ij,jck->ick", rest, last.weight) + torch.einsum("vi,vck->ick", loud, weight))
    last.bias.copy_(rest @ last.bias + loud.T @ bias)
    first.set_codes(first.codebook @ rest, first.code_counts)
    read_through(codec, rest, torch.zeros(len(rest)))


def _own_directions(codebook: torch.Tensor, latents: torch.Tensor, count: int) -> torch.Tensor:
    """Unit vectors (count, size) in which level 0 does not vary, and of these the ones where latents (n, size) vary
    least."""
    centred = codebook - codebook.mean(0)
    free = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, : -directions_kept(centred.shape[1])]
    spread = torch.cov((latents @ free).T)
    return (free @ torch.linalg.eigh(spread).eigenvectors[:, :count]).T


def _loudness(latents: torch.Tensor, voices: torch.Tensor) -> float:
    """How far who speaks moves a latent, so that level 1 hears it above what else differs from voice to voice."""
    deviation = float(latents.var(0).sum().sqrt())
    return max(0.8 * deviation, (3 * deviation * float(torch.pdist(voices).max())) ** 0.5)


def tell_voices_apart(
    codec: SolamiSpeechCodecModel, classes: list[list[torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least squares from what the encoder's last convolution reads to who speaks, each class as heavy as another.

    Args:
        classes: of each voice the clips' features (frames, channels).

    Returns:
        Weight (voices, channels, kernel) and bias (voices,) of a convolution that is 1 for the voice that speaks.
    """
    before, kernel = codec.encoder.layers[-HEAD_LAYERS:-1], codec.config.last_kernel_size
    moments = products = 0.0
    for index, clips in enumerate(classes):
        share = 1 / sum(map(len, clips))
        wanted = F.one_hot(torch.tensor(index), len(classes)).double()
        for clip in clips:
            heard = run_layers(before, clip.float().t()[None], None)[0]
            heard = F.pad(heard, (kernel // 2, (kernel - 1) // 2)).unfold(1, kernel, 1).transpose(0, 1).flatten(1)
            heard = F.pad(heard, (0, 1), value=1.0)
            moments = moments + share * (heard.t() @ heard).double()
            products = products + share * heard.sum(0).double()[:, None] * wanted
    ridge = _RIDGE * moments.diagonal().mean() * torch.eye(len(moments), dtype=torch.float64)
    solution = torch.linalg.solve(moments + ridge, products).float()
    return solution[:-1].T.unflatten(1, (-1, kernel)), solution[-1]


def _behind_level_0(codec: SolamiSpeechCodecModel, features: torch.Tensor) -> torch.Tensor:
    latents, first = run_head(codec, features.float()[None])[0], codec.quantizer.levels[0]
    return latents - first.decode(first.encode(latents))


def _log_voices(codec: SolamiSpeechCodecModel, speech: ParallelSpeech) -> None:
    level = codec.quantizer.levels[1]
    for index, (name, clips) in enumerate(zip(speech.names, speech.features, strict=True)):
        codes = torch.cat([level.encode(_behind_level_0(codec, clip)) for clip in clips])
        right = 100 * float((codes == index).float().mean())
        logger.info("level 1 takes %.1f %% of the frames of %s for its own", right, name)
