"""Forward paths on a GPU that is not there: fake tensors on `cuda` raise where devices are mixed or the host reads.

What has to read the host is not tried here, and named instead: padded clips for a speech codec that reads both ways
(its LSTM packs them by their lengths), the cells that SoundStorm fills in each call of `generate`, the labelled
positions of a training step, the steps that move codebooks, and the ends of answers.
"""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from solami_hf import (
    SolamiMotionVQConfig,
    SolamiMotionVQModel,
    SolamiSoundStormConfig,
    SolamiSoundStormModel,
    SolamiSpeechCodecConfig,
    SolamiSpeechCodecModel,
)
from solami_hf.generation.grammar import AnswerGrammar
from solami_hf.modeling.motion_vq.streaming_motion_vq import MotionVQDecoderStream
from solami_hf.modeling.solami.vocabulary import MARKERS
from solami_hf.modeling.speech_codec.streaming_speech_codec import SpeechCodecDecoderStream
from solami_hf.processing.answers import FORMATS

WIDTH = 16
SPANS = {"speech": (300, 32), "body": (332, 16), "hand": (348, 16), "trans": (364, 8)}


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """Everything in a test is fake; cuDNN would look for a driver."""
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)
    with FakeTensorMode(), torch.no_grad():
        yield


def on_gpu(make):
    with torch.device("cuda"):
        return make().eval()


def motion_codec(**changes):
    sizes = {"body_width": WIDTH, "hand_width": WIDTH, "body_code_dim": WIDTH, "hand_code_dim": WIDTH}
    return on_gpu(lambda: SolamiMotionVQModel(SolamiMotionVQConfig(**sizes, **changes)))


def speech_codec():
    config = SolamiSpeechCodecConfig(num_filters=4, hidden_size=WIDTH, semantic_size=WIDTH, bidirectional=False)
    return on_gpu(lambda: SolamiSpeechCodecModel(config))


def codes(*shape):
    return torch.zeros(shape, dtype=torch.long, device="cuda")


def mask(*shape):
    return torch.ones(shape, dtype=torch.bool, device="cuda")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("changes", [{}, {"bound": True}, {"quantizer": "fsq"}, {"representation": "joints"}])
def test_motion_codec(changes, masked):
    model = motion_codec(**changes)
    out = model.encode(torch.randn(2, 32, 315, device="cuda"), mask(2, 32) if masked else None)
    hand = None if changes.get("bound") else codes(2, 8)
    motion = model.decode(codes(2, 8), hand, mask(2, 8) if masked else None).motion_values
    assert (out.body_codes.device.type, motion.device.type, motion.shape) == ("cuda", "cuda", (2, 32, 315))
    assert model.decode_transform(model.encode_transform(torch.randn(2, 5, device="cuda"))).shape == (2, 5)


@pytest.mark.parametrize("masked", [False, True])
def test_speech_codec(masked):
    model = speech_codec()
    out = model.encode(torch.randn(2, 1, 3200, device="cuda"), mask(2, 3200) if masked else None)
    sound = model.decode(codes(2, 8, 10), mask(2, 10) if masked else None).audio_values
    assert (out.audio_codes.shape, sound.shape, sound.device.type) == ((2, 8, 10), (2, 1, 3200), "cuda")


@pytest.mark.parametrize("masked", [False, True])
def test_a_call_of_the_acoustic_model(masked):
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "conv_channels": WIDTH, "head_dim": 8}
    config = SolamiSoundStormConfig(num_hidden_layers=2, num_attention_heads=2, **sizes)
    model = on_gpu(lambda: SolamiSoundStormModel(config))
    assert model(codes(2, 8, 20), code_mask=mask(2, 20) if masked else None).logits.device.type == "cuda"


def test_streaming_decoders():
    voice = SpeechCodecDecoderStream(speech_codec())
    assert voice.decode(codes(1, 8, 20)).device.type == voice.finish().device.type == "cuda"
    body = MotionVQDecoderStream(motion_codec())
    assert body.decode(codes(1, 20), codes(1, 20)).device.type == body.finish().device.type == "cuda"


def layout():
    modalities = {name: {"first_id": first, "size": size} for name, (first, size) in SPANS.items()}
    markers = {name: 372 + number for number, name in enumerate(MARKERS)}
    rates = {"speech": 50.0, "body": 7.5, "hand": 7.5}
    return SimpleNamespace(
        modalities=modalities, markers=markers, answer_format="motion_speech", interleaved=False, frame_rates=rates,
        speech_levels=1,
    )  # fmt: skip


def decode(grammar, steps: int = 3):
    """Some steps of a decoding loop: forward, grammar, choice."""
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = on_gpu(lambda: LlamaForCausalLM(config))
    ids, cache = torch.zeros(2, 8, dtype=torch.long, device="cuda"), DynamicCache(config=config)
    step = ids
    for _ in range(steps):
        logits = model(input_ids=step, past_key_values=cache, use_cache=True).logits[:, -1]
        step = grammar(ids, logits).argmax(-1, keepdim=True)
        ids = torch.cat([ids, step], dim=1)
    return ids


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("answer_format", FORMATS)
def test_decoding_steps_with_the_grammar(answer_format, interleaved):
    grammar = AnswerGrammar(layout(), answer_format, interleaved, min_seconds=0, max_new_tokens=60)
    assert decode(grammar).shape == (2, 11)


class Reading(AnswerGrammar):
    """A grammar that reads one number of the step."""

    def __call__(self, input_ids, scores):
        input_ids[0, -1].item()
        return super().__call__(input_ids, scores)


def test_a_read_in_the_loop_is_found():
    with pytest.raises(Exception, match="_local_scalar_dense"):
        decode(Reading(layout(), max_new_tokens=60))


def test_a_codec_that_stayed_on_the_cpu_is_found():
    model = SolamiMotionVQModel(SolamiMotionVQConfig(body_width=WIDTH, hand_width=WIDTH))
    with pytest.raises(Exception, match="device"):
        model.encode(torch.randn(2, 32, 315, device="cuda"))
