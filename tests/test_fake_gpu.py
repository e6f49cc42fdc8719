"""Forward paths on a GPU that is not there: fake tensors on `cuda` raise where devices are mixed or the host reads.

What has to read the host is not tried here, and named instead:
- padded clips for a speech codec that reads both ways (its LSTM packs them by their lengths), and for SoundStorm's
  `generate` (their lengths are read once, before its first call);
- SoundStorm's upstream mode, which is there for comparison;
- the talker: how many frames there are is what it predicts;
- the labelled positions of a training step, once a step; what comes before and behind them is tried;
- the steps that move codebooks;
- the ends of answers, and what becomes of finished codes: motions and waveforms are the caller's, on the CPU.
Fake tensors can run no Triton kernel, so the loss of a plain head is tried as that of any other head, and no backward
pass, whose engine asks the driver for the device.
"""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
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
from solami_hf.processing.motion.body import joint_positions
from solami_hf.processing.motion.features import features_to_joints, features_to_smplx, motion_to_features
from solami_hf.training.language_model.adapters import add_adapters
from solami_hf.training.language_model.chunked_loss import ChunkedLossOutput, token_scores
from solami_hf.training.language_model.language_model_training import LanguageModelArguments
from solami_hf.training.language_model.loss_by_modality import LossByModality
from solami_hf.training.language_model.packed_mixture import PackedRowsCollator

WIDTH = 16
SPANS = {"speech": (300, 32), "body": (332, 16), "hand": (348, 16), "trans": (364, 8)}
SPANS_OF_LAYOUT = {name: {"first_id": first, "size": size} for name, (first, size) in SPANS.items()}


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


def speech_codec(bidirectional=False):
    sizes = {"num_filters": 4, "hidden_size": WIDTH, "semantic_size": WIDTH}
    return on_gpu(lambda: SolamiSpeechCodecModel(SolamiSpeechCodecConfig(bidirectional=bidirectional, **sizes)))


def acoustic_model():
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "conv_channels": WIDTH, "head_dim": 8}
    config = SolamiSoundStormConfig(num_hidden_layers=2, num_attention_heads=2, **sizes)
    return on_gpu(lambda: SolamiSoundStormModel(config))


def language_model(attention="sdpa", device="cuda"):
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        attn_implementation=attention,
    )  # fmt: skip
    with torch.device(device):
        model = LlamaForCausalLM(config).eval()
    for name, value in vars(layout()).items():
        setattr(model.config, name, value)
    return model


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


@pytest.mark.parametrize(("bidirectional", "masked"), [(False, False), (False, True), (True, False)])
def test_speech_codec(bidirectional, masked):
    model = speech_codec(bidirectional)
    out = model.encode(torch.randn(2, 1, 3200, device="cuda"), mask(2, 3200) if masked else None)
    sound = model.decode(codes(2, 8, 10), mask(2, 10) if masked else None).audio_values
    assert (out.audio_codes.shape, sound.shape, sound.device.type) == ((2, 8, 10), (2, 1, 3200), "cuda")


@pytest.mark.parametrize("masked", [False, True])
def test_a_call_of_the_acoustic_model(masked):
    model = acoustic_model()
    assert model(codes(2, 8, 20), code_mask=mask(2, 20) if masked else None).logits.device.type == "cuda"


def draw(shape):
    return torch.rand(shape, device="cuda")


@pytest.mark.parametrize(("prompt", "draws"), [(None, None), ((1, 8, 6), draw), ((2, 8, 6), None)])
def test_all_levels_for_level_0(prompt, draws):
    model, prompt = acoustic_model(), None if prompt is None else codes(*prompt)
    filled = model.generate(codes(2, 20), prompt, steps=[4, 2, 1, 1, 1, 1, 1], generator=draws, greedy=draws is None)
    assert (filled.shape, filled.device.type) == ((2, 8, 20), "cuda")


def test_features_and_joints():
    params = torch.randn(2, 9, 159, device="cuda")
    features = motion_to_features(params)
    assert (features.shape, features_to_smplx(features).shape) == ((2, 8, 315), (2, 8, 159))
    joints = features_to_joints(features)
    assert (joints.shape, joints.device.type, joint_positions(params).device.type) == ((2, 8, 55, 3), "cuda", "cuda")


def test_streaming_decoders():
    voice = SpeechCodecDecoderStream(speech_codec())
    assert voice.decode(codes(1, 8, 20)).device.type == voice.finish().device.type == "cuda"
    body = MotionVQDecoderStream(motion_codec())
    assert body.decode(codes(1, 20), codes(1, 20)).device.type == body.finish().device.type == "cuda"


def layout():
    modalities = SPANS_OF_LAYOUT
    markers = {name: 372 + number for number, name in enumerate(MARKERS)}
    rates = {"speech": 50.0, "body": 7.5, "hand": 7.5}
    return SimpleNamespace(
        modalities=modalities, markers=markers, answer_format="motion_speech", interleaved=False, frame_rates=rates,
        speech_levels=1,
    )  # fmt: skip


def decode(grammar, steps: int = 3):
    """Some steps of a decoding loop: forward, grammar, choice."""
    model = language_model()
    ids, cache = torch.zeros(2, 8, dtype=torch.long, device="cuda"), DynamicCache(config=model.config)
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


def training_step(model):
    """A step on two packed rows up to the moved weights, its labelled positions counted before it."""
    rows = [
        {"input_ids": [*range(300, 308)], "labels": [*range(300, 308)], "seq_lengths": [5, 3]},
        {"input_ids": [*range(6)], "labels": [*range(6)], "seq_lengths": [6]},
    ]
    batch = PackedRowsCollator(0)(rows)
    batch |= {name: value.cuda() for name, value in batch.items() if name != "use_cache"}
    targets = batch.pop("labels")[:, 1:].flatten()
    hidden = model.base_model(**batch).last_hidden_state[:, :-1].flatten(0, 1)
    log_probs, is_top1 = token_scores(hidden, torch.nn.Sequential(model.get_output_embeddings()), targets)
    loss = -log_probs.sum() / len(targets)
    split = LossByModality(SPANS_OF_LAYOUT, layout().markers, 400)
    split.add(ChunkedLossOutput(loss, log_probs, is_top1, targets))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    for weight in model.parameters():  # in place of a backward pass, whose engine asks the driver
        weight.grad = torch.randn_like(weight) if weight.requires_grad else None
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return {loss.device.type, norm.device.type, split.sums.device.type}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_step_with_the_chunked_loss(attention):
    with torch.enable_grad():
        assert training_step(language_model(attention)) == {"cuda"}


@pytest.mark.parametrize("beside", ["embeddings", "new_tokens", "none"])
def test_a_packed_step_with_adapters(beside):
    args = LanguageModelArguments(model="", data="", use_peft=True, lora_modules_to_save=[beside])
    with unset_fake_temporarily():  # PEFT moves modules, which fake tensors cannot
        adapted = add_adapters(language_model("sdpa", "cpu"), args)
    for module in list(adapted.modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            fake = torch.zeros(weight.shape, device="cuda")
            setattr(module, name, torch.nn.Parameter(fake, weight.requires_grad))
        for name, values in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, torch.zeros(values.shape, device="cuda"))
    with torch.enable_grad():
        assert training_step(adapted.get_base_model()) == {"cuda"}


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
