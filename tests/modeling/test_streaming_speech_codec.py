"""Speech decoded in chunks: what the decoder gives for all codes at once, as late as the configuration says."""

import pytest
import torch

from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.modeling.speech_codec.streaming_speech_codec import SpeechCodecDecoderStream

TINY = {
    "num_filters": 2, "hidden_size": 8, "semantic_size": 4, "codebook_size": 16, "num_quantizers": 3,
    "num_lstm_layers": 2,
}  # fmt: skip


def codec(**change):
    return SolamiSpeechCodecModel(SolamiSpeechCodecConfig(**TINY | change)).eval()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_residual_layers": 3, "dilation_base": 3},
        {"kernel_size": 3, "last_kernel_size": 5, "residual_kernel_size": 1},
        {"strides": [5, 3]},
    ],
)
@pytest.mark.parametrize("sizes", [[12], [1] * 12, [4, 1, 7], [1, 11], [2], [3], [1, 1, 1, 1]])
def test_chunks_equal_the_whole(change, sizes):
    model = codec(**change)
    codes = torch.randint(0, 16, (2, 3, sum(sizes)))
    with torch.no_grad():
        whole = model.decode(codes).audio_values
    stream, chunks, frames = SpeechCodecDecoderStream(model), [], 0
    for chunk in codes.split(sizes, -1):
        chunks.append(stream.decode(chunk))
        frames += chunk.shape[-1]
        heard = sum(sound.shape[-1] for sound in chunks)
        assert heard == max(0, model.config.hop_length * frames - model.config.decoder_lookahead)
    chunks.append(stream.finish())
    # Rounding: products of other shapes take other kernels, 4e-6 apart on a CPU with AVX2, 2e-6 with AVX-512
    torch.testing.assert_close(torch.cat(chunks, -1), whole, atol=1e-5, rtol=0)


def test_look_ahead_of_the_original_sizes():
    # 3 frames for the first convolution, then what each stage and the last convolution see ahead.
    assert (
        SolamiSpeechCodecConfig().decoder_lookahead == 3 * 320 + (4 + 1) * 40 + (3 + 1) * 8 + (2 + 1) * 2 + 1 + 1 + 3
    )


def test_later_levels_and_other_weights_types():
    model = codec().to(torch.bfloat16)
    codes = torch.randint(0, 16, (1, 2, 9))
    stream = SpeechCodecDecoderStream(model, first_quantizer=1)
    chunks = [stream.decode(codes[..., :5]), stream.decode(codes[..., 5:]), stream.finish()]
    with torch.no_grad():
        whole = model.decode(codes, first_quantizer=1).audio_values
    assert chunks[0].dtype == torch.bfloat16
    torch.testing.assert_close(torch.cat(chunks, -1), whole, atol=0.05, rtol=0)


def test_misuse_is_told():
    with pytest.raises(ValueError, match="only SolamiSpeechCodecModel is decoded in chunks, got Linear"):
        SpeechCodecDecoderStream(torch.nn.Linear(1, 1))
    stream = SpeechCodecDecoderStream(codec())
    with pytest.raises(ValueError, match="got no codes"):
        stream.finish()
    with pytest.raises(ValueError, match="expected 0 to 15"):
        stream.decode(torch.full((1, 1, 4), 16))
    stream.decode(torch.zeros(1, 1, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="has 2 streams, expected 1"):
        stream.decode(torch.zeros(2, 1, 4, dtype=torch.long))
    stream.finish()
    with pytest.raises(ValueError, match="has ended"):
        stream.finish()
    with pytest.raises(ValueError, match="is finished"):
        stream.decode(torch.zeros(1, 1, 4, dtype=torch.long))
