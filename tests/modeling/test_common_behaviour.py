"""What every model of ours does as models of transformers do: saving, dtypes, initialisation, outputs, gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import initialization

from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.modeling.solami.configuration_solami import SolamiConfig
from solami_hf.modeling.solami.modeling_solami import SolamiForCausalLM, SolamiModel
from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel

LLAMA = dict(
    vocab_size=60,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    modalities={"speech": {"first_id": 20, "size": 16}},
    markers={"pad": 10},
)
MOTION = {f"{part}_{key}": 8 for part in ("body", "hand") for key in ("code_num", "code_dim", "width")}
STORM = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, head_dim=8, intermediate_size=16, conv_channels=16,
    conv_kernel_size=3, num_quantizers=3, codebook_size=16, num_semantic_codes=16,
)  # fmt: skip
CONFIGS = {
    SolamiModel: (SolamiConfig, LLAMA),
    SolamiForCausalLM: (SolamiConfig, LLAMA),
    SolamiMotionVQModel: (SolamiMotionVQConfig, {**MOTION, "body_depth": 1, "hand_depth": 1}),
    SolamiSpeechCodecModel: (
        SolamiSpeechCodecConfig,
        dict(num_filters=2, strides=[4, 2], hidden_size=8, semantic_size=4, num_quantizers=2, codebook_size=16),
    ),
    SolamiSoundStormModel: (SolamiSoundStormConfig, STORM),
}
CODECS = (SolamiMotionVQModel, SolamiSpeechCodecModel)
DECODERS = (SolamiModel, SolamiForCausalLM)
every_class = pytest.mark.parametrize("model_class", CONFIGS, ids=lambda c: c.__name__)


def config_of(model_class, **overrides):
    config_class, sizes = CONFIGS[model_class]
    return config_class(**{**sizes, **overrides})


def build(model_class, **overrides):
    torch.manual_seed(0)
    return model_class(config_of(model_class, **overrides)).eval()


def inputs_of(model_class, labels=False) -> dict:
    draw = torch.Generator().manual_seed(1)
    if model_class in DECODERS:
        ids = torch.randint(0, 60, (2, 7), generator=draw)
        return {"input_ids": ids, **({"labels": ids} if labels and model_class is SolamiForCausalLM else {})}
    if model_class is SolamiMotionVQModel:
        motions, transforms = torch.randn(2, 16, 315, generator=draw), torch.randn(2, 5, generator=draw)
        return {"motion_values": motions, "transform": transforms}
    if model_class is SolamiSpeechCodecModel:
        return {"input_values": torch.randn(2, 1, 96, generator=draw) * 0.1}
    codes = torch.randint(0, 16, (2, 3, 7), generator=draw)
    return {"audio_codes": codes, **({"labels": codes[:, 1:]} if labels else {})}


def loss_of(model) -> torch.Tensor:
    out = model(**inputs_of(type(model), labels=True))
    return out.last_hidden_state.square().mean() if isinstance(model, SolamiModel) else out.loss


def equal(one, other) -> bool:
    """Whether two outputs, or tuples of them, hold the same numbers."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other)


@every_class
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_saved_and_loaded_in_every_dtype(model_class, dtype, tmp_path):
    model = build(model_class).to(dtype)
    model.save_pretrained(tmp_path)
    loaded, report = model_class.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert not any(report.values()), report
    assert loaded.dtype == dtype and loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == value.dtype and torch.equal(loaded.state_dict()[name], value), name
    buffers = {buffer.dtype for buffer in loaded.buffers()} if model_class in CODECS else set()
    assert buffers <= {torch.float32, torch.bool}  # codebooks and statistics keep their digits
    loaded.save_pretrained(tmp_path / "again")
    again = model_class.from_pretrained(tmp_path / "again", dtype="auto")
    assert again.dtype == dtype and again.config.to_diff_dict() == loaded.config.to_diff_dict()
    if dtype == torch.float32:
        assert equal(model(**inputs_of(model_class)), loaded.eval()(**inputs_of(model_class)))


@every_class
def test_sharded_weights(model_class, tmp_path):
    model = build(model_class)
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert equal(dict(model.state_dict()), dict(model_class.from_pretrained(tmp_path).state_dict()))


@every_class
def test_weights_that_a_file_lacks_are_as_fresh_ones(model_class, monkeypatch):
    # one seed for each tensor, so that the order of initialisation does not matter
    def seeded(function):
        def fill(tensor, *args, **kwargs):
            torch.manual_seed(tensor.numel())
            return function(tensor, *args, **kwargs)

        return fill

    for name, function in initialization.TORCH_INIT_FUNCTIONS.items():
        monkeypatch.setitem(initialization.TORCH_INIT_FUNCTIONS, name, seeded(function))
    fresh = model_class(config_of(model_class)).state_dict()
    filled = model_class.from_pretrained(None, config=config_of(model_class), state_dict={}).state_dict()
    for name, value in fresh.items():
        assert filled[name].device.type == "cpu" and torch.equal(filled[name], value), name


@every_class
def test_buffers_are_rebuilt_where_a_model_starts_without_memory(model_class):
    with torch.device("meta"):
        model = model_class(config_of(model_class))
    assert {value.device.type for value in model.state_dict().values()} == {"meta"}
    model.to_empty(device="cpu").init_weights()
    with initialization.no_init_weights():
        untouched = dict(model_class(config_of(model_class)).named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, untouched[name]), name


@pytest.mark.parametrize("model_class", CODECS, ids=lambda c: c.__name__)
def test_codecs_give_the_hidden_states_of_their_encoder(model_class):
    model, inputs = build(model_class), inputs_of(model_class)
    assert model(**inputs).hidden_states is None
    states = model(**inputs, output_hidden_states=True).hidden_states
    by_hand = []
    layers = model.body.encoder["stages"] if model_class is SolamiMotionVQModel else model.encoder.layers
    hooks = [layer.register_forward_hook(lambda _, args, output: by_hand.append(output)) for layer in layers]
    out = model(**inputs, output_hidden_states=True, return_dict=False)
    for hook in hooks:
        hook.remove()
    assert all(any(torch.equal(state, known) for known in by_hand) for state in states[1:]) and len(states) == 3
    assert equal(out[-1], states) and states[0].shape[0] == 2
    model.config.output_hidden_states = True
    out = model(**inputs)
    out.hidden_states[0].retain_grad()
    out.loss.backward()
    assert out.hidden_states[0].grad.abs().sum() > 0


@every_class
def test_equal_calls_give_equal_numbers_as_tuple_and_by_name(model_class):
    model = build(model_class)
    with torch.no_grad():
        first = model(**inputs_of(model_class, labels=True))
        again = model(**inputs_of(model_class, labels=True), return_dict=False)
        assert isinstance(again, tuple) and equal(first.to_tuple(), again)
        if model_class is not SolamiForCausalLM:  # Llama's head cannot do it
            model.config.return_dict = False
            assert equal(model(**inputs_of(model_class, labels=True)), again)
    if "loss" in first:
        assert torch.equal(first[0], first.loss)


@every_class
def test_clips_of_a_batch_do_not_see_each_other(model_class):
    model = build(model_class)
    inputs = inputs_of(model_class)
    name = {SolamiModel: "last_hidden_state", SolamiMotionVQModel: "motion_values"}.get(model_class, "logits")
    name = "audio_values" if model_class is SolamiSpeechCodecModel else name
    with torch.no_grad():
        both = model(**inputs)[name]
        alone = model(**{k: v[1:] for k, v in inputs.items()})[name]
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


@every_class
def test_training_reaches_every_weight_and_lowers_the_loss(model_class):
    model = build(model_class).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        loss = loss_of(model)
        loss.backward()
        losses.append(float(loss.detach()))
        unused = [name for name, weight in model.named_parameters() if weight.grad is None]
        # level 0 is projected for the distillation, which is a loss of the trainer
        assert all(name.startswith("semantic_projection") for name in unused), unused
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("model_class", [c for c in CONFIGS if c not in CODECS], ids=lambda c: c.__name__)
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_no_gradient(model_class, use_reentrant):
    model = build(model_class).train()
    loss_of(model).backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()  # as PEFT does, for reentrant checkpointing over frozen embeddings
    assert model.is_gradient_checkpointing
    loss_of(model).backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], atol=1e-6, rtol=1e-5, msg=name)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


@pytest.mark.parametrize("model_class", [c for c in CONFIGS if c not in CODECS], ids=lambda c: c.__name__)
class TestAttention:
    def test_eager_and_fused_agree_beside_padding(self, model_class):
        inputs = inputs_of(model_class)
        mask = torch.ones(2, 7, dtype=torch.bool)
        mask[1, 4:] = False
        inputs["attention_mask" if model_class in DECODERS else "code_mask"] = mask
        model = build(model_class)
        assert model.config._attn_implementation == "sdpa"
        with torch.no_grad():
            fused = model(**inputs)[0]
            model.set_attn_implementation("eager")
            eager = model(**inputs)[0]
        real = mask if model_class in DECODERS else mask[:, None].expand(-1, fused.shape[1], -1)
        torch.testing.assert_close(eager[real], fused[real], atol=1e-5, rtol=1e-4)

    def test_hidden_states_and_attentions(self, model_class):
        model = build(model_class)
        plain = model(**inputs_of(model_class))
        assert "hidden_states" not in plain and "attentions" not in plain
        model.set_attn_implementation("eager")
        out = model(**inputs_of(model_class), output_hidden_states=True, output_attentions=True)
        assert [tuple(h.shape) for h in out.hidden_states] == [(2, 7, 16)] * 3
        assert [tuple(a.shape) for a in out.attentions] == [(2, 2, 7, 7)] * 2
        for weights in out.attentions:
            torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 7))
        kept = (out.hidden_states[0], out.attentions[0])
        for values in kept:
            values.retain_grad()
        out[0].flatten()[0].backward()
        assert all(values.grad is not None for values in kept)

    def test_the_config_may_ask_for_them(self, model_class):
        config = config_of(model_class, output_hidden_states=True)
        assert len(model_class(config)(**inputs_of(model_class)).hidden_states) == 3


def test_soundstorm_attends_in_both_directions_and_drops_in_training_only():
    model = build(SolamiSoundStormModel, dropout=0.5)
    model.set_attn_implementation("eager")
    inputs = inputs_of(SolamiSoundStormModel)
    weights = model(**inputs, output_attentions=True).attentions[0]
    assert (weights > 0).all()
    assert not torch.equal(model.train()(**inputs).logits, model.eval()(**inputs).logits)


@pytest.mark.parametrize("tied", [True, False])
class TestEmbeddings:
    def test_tied_heads_stay_tied_and_untied_ones_apart(self, tied, tmp_path):
        model = build(SolamiForCausalLM, tie_word_embeddings=tied)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        assert (head.weight is embedding.weight) == tied
        model.save_pretrained(tmp_path)
        loaded = SolamiForCausalLM.from_pretrained(tmp_path).eval()
        assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
        assert equal(model(**inputs_of(SolamiForCausalLM)), loaded(**inputs_of(SolamiForCausalLM)))

    @pytest.mark.parametrize("rows", [75, 40])
    def test_resizing(self, tied, rows, tmp_path):
        config = config_of(SolamiForCausalLM, tie_word_embeddings=tied, modalities=None)
        model = SolamiForCausalLM(config).eval()
        before = copy.deepcopy(model.state_dict())
        model.resize_token_embeddings(rows)
        kept = min(rows, 60)
        layers = {"model.embed_tokens.weight": model.model.embed_tokens, "lm_head.weight": model.lm_head}
        for name, layer in layers.items():
            assert layer.weight.shape[0] == rows and torch.equal(layer.weight[:kept], before[name][:kept])
        assert model.config.vocab_size == rows and (model.lm_head.weight is model.model.embed_tokens.weight) == tied
        ids = torch.arange(kept)[None]
        model.save_pretrained(tmp_path)
        loaded = SolamiForCausalLM.from_pretrained(tmp_path).eval()
        assert torch.equal(loaded(ids).logits, model(ids).logits) and model(ids).logits.shape[-1] == rows

    def test_ids_and_their_embeddings_are_the_same_input(self, tied):
        model = build(SolamiForCausalLM, tie_word_embeddings=tied)
        ids = inputs_of(SolamiForCausalLM)["input_ids"]
        assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(ids)).logits, model(ids).logits)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_no_score(side):
    model = build(SolamiForCausalLM)
    ids = inputs_of(SolamiForCausalLM)["input_ids"][:1]
    amount = (3, 0) if side == "left" else (0, 3)
    padded, mask = F.pad(ids, amount, value=10), F.pad(torch.ones_like(ids), amount)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad():
        scores = model(padded, attention_mask=mask, position_ids=positions).logits[mask.bool()]
        torch.testing.assert_close(scores, model(ids).logits[0], atol=1e-5, rtol=1e-4)


def test_a_headless_folder_loads_under_a_head_and_the_other_way(tmp_path):
    whole = build(SolamiForCausalLM, tie_word_embeddings=True)
    whole.save_pretrained(tmp_path / "whole")
    whole.model.save_pretrained(tmp_path / "headless")
    ids = inputs_of(SolamiForCausalLM)["input_ids"]
    for folder in ("whole", "headless"):
        assert torch.equal(
            SolamiModel.from_pretrained(tmp_path / folder).eval()(ids).last_hidden_state,
            whole.model(ids).last_hidden_state,
        )
        loaded = SolamiForCausalLM.from_pretrained(tmp_path / folder, tie_word_embeddings=True).eval()
        assert torch.equal(loaded(ids).logits, whole(ids).logits)


@pytest.mark.parametrize("model_class", CODECS, ids=lambda c: c.__name__)
def test_masks_come_out_where_they_go_in(model_class):
    model = build(model_class)
    inputs = inputs_of(model_class)
    assert not [value for value in model(**inputs).values() if value.dtype == torch.bool]
    if model_class is SolamiMotionVQModel:
        out = model(**inputs, padding_mask=torch.ones(2, 16, dtype=torch.bool))
        assert out.code_mask.all() and out.padding_mask.shape == (2, 16)


@every_class
def test_under_autocast(model_class):
    """Mixed precision that someone has put around a call costs digits, nothing else."""
    model = build(model_class)
    expected, inputs = loss_of(model), inputs_of(model_class)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(model)
        loss.backward()
        with torch.no_grad():
            if model_class is SolamiMotionVQModel:
                codes = model.encode(inputs["motion_values"], torch.arange(16) < torch.tensor([[16], [8]]))
                assert model.decode(codes.body_codes, codes.hand_codes, codes.code_mask).motion_values.shape[1] == 16
                assert model.decode_transform(model.encode_transform(inputs["transform"])).shape == (2, 5)
            elif model_class is SolamiSpeechCodecModel:
                codes = model.encode(inputs["input_values"], torch.arange(96) < torch.tensor([[96], [40]]))
                assert model.decode(codes.audio_codes, codes.code_mask).audio_values.shape == (2, 1, 96)
            elif model_class is SolamiSoundStormModel:
                prompt = inputs["audio_codes"]
                assert model.generate(prompt[:, 0], prompt).shape == (2, 3, 7)
    assert torch.allclose(loss.float(), expected, rtol=0.1)
