import pytest
import torch

from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.modeling_motion_vq import MotionVQCache, SolamiMotionVQModel, SolamiMotionVQOutput


def tiny_model(**overrides) -> SolamiMotionVQModel:
    torch.manual_seed(0)
    sizes = {f"{part}_{name}": size for part in ("body", "hand") for name, size in TINY.items()}
    model = SolamiMotionVQModel(SolamiMotionVQConfig(**sizes | {"transform_code_num": 8} | overrides))
    model.set_statistics(torch.randn(315), 0.5 + torch.rand(315), torch.randn(5), 0.5 + torch.rand(5))
    return model.eval()


TINY = {"width": 32, "code_dim": 8, "code_num": 16, "depth": 2}
LENGTHS = [21, 4, 13, 8, 19]


def padded(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random clips padded with NaN, which no real frame may ever see."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), max(lengths), 315).masked_fill(~mask[..., None], float("nan")), mask


@pytest.mark.parametrize("norm", [None, "group"])
@torch.no_grad()
def test_a_padded_batch_gives_what_each_clip_gives_alone(norm):
    model = tiny_model(body_norm=norm, hand_activation="silu")
    values, mask = padded(LENGTHS)
    codes = model.encode(values, mask)
    decoded = model.decode(codes.body_codes, codes.hand_codes, codes.code_mask)
    for i, length in enumerate(LENGTHS):
        alone, steps = model.encode(values[i : i + 1, :length]), length // 4
        assert torch.equal(codes.body_codes[i, :steps], alone.body_codes[0])
        assert torch.equal(codes.hand_codes[i, :steps], alone.hand_codes[0])
        assert (codes.body_codes[i, steps:] == -1).all() and codes.code_mask[i].sum() == steps
        motion = model.decode(alone.body_codes, alone.hand_codes).motion_values[0]
        torch.testing.assert_close(decoded.motion_values[i, : 4 * steps], motion, atol=1e-4, rtol=1e-5)
        assert not decoded.motion_values[i, 4 * steps :].any()
        assert decoded.padding_mask[i].sum() == 4 * steps


@torch.no_grad()
def test_padding_does_not_count_in_the_loss():
    model = tiny_model()
    values, mask = padded([16, 8])
    alone = [model(values[i : i + 1, :length]) for i, length in enumerate((16, 8))]
    both = model(values, mask)
    for name in ("feature_loss", "velocity_loss"):
        expected = (2 * alone[0][name] + alone[1][name]) / 3
        torch.testing.assert_close(both[name], expected, atol=1e-5, rtol=1e-5)
    assert both.code_mask.tolist() == [[True] * 4, [True] * 2 + [False] * 2]


@torch.no_grad()
def test_statistics_scale_what_goes_in_and_comes_out():
    model = tiny_model()
    values = torch.randn(1, 8, 315)
    raw = values * model.std + model.mean
    codes = model.encode(raw)
    plain = tiny_model()
    plain.set_statistics(0.0, 1.0)
    assert torch.equal(plain.encode(values).body_codes, codes.body_codes)
    out = plain.decode(codes.body_codes, codes.hand_codes).motion_values * model.std + model.mean
    torch.testing.assert_close(model.decode(codes.body_codes, codes.hand_codes).motion_values, out)


@torch.no_grad()
def test_zero_deviation_does_not_explode():
    model = tiny_model()
    model.set_statistics(1.0, 0.0)
    out = model(torch.ones(1, 8, 315))
    assert out.loss.isfinite() and (out.motion_values - 1).abs().max() < 0.01


@torch.no_grad()
def test_transform_round_trip_is_its_code():
    model = tiny_model()
    codes = torch.arange(8)
    transform = model.decode_transform(codes)
    assert transform.shape == (8, 5)
    assert model.encode_transform(transform).shape == (8,)


@pytest.mark.parametrize(("mode", "expected"), [("corrected", 1.117624), ("upstream", 1.133624)])
def test_total_loss_of_the_golden_parts(mode, expected):
    # parts of golden/vqvae/vaeloss.npz, whose total is 1.13362: commitment of body and hand twice, transform's never
    parts = {
        "feature_loss": 0.291264415,
        "velocity_loss": 0.295858115,
        "commitment_loss": 0.37,
        "transform_loss": 0.176643163,
        "transform_commitment_loss": 0.21,
    }
    out = SolamiMotionVQOutput(**{name: torch.tensor(value) for name, value in parts.items()})
    assert tiny_model(loss_mode=mode)._total_loss(out).item() == pytest.approx(expected, abs=1e-5)


def test_training_moves_weights_codebooks_and_all_losses():
    model = tiny_model().train()
    values, transform = torch.randn(4, 32, 315), torch.randn(4, 5)
    out = model(values, transform=transform)
    out.loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
    assert all(quantizer.initialised for quantizer in model.quantizers.values())
    assert out.body_codes.shape == (4, 8) and out.transform.shape == (4, 5)
    assert 1 <= out.body_perplexity <= 16 and 0 < out.hand_usage <= 1
    without = model(values)
    assert without.transform_loss is None and without.transform is None


def test_save_and_load_are_exact(tmp_path):
    model = tiny_model(loss_mode="upstream")
    model.train()(torch.randn(2, 8, 315), transform=torch.randn(2, 5))
    model.save_pretrained(tmp_path)
    loaded = SolamiMotionVQModel.from_pretrained(tmp_path)
    state = loaded.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert loaded.config.loss_mode == "upstream" and loaded.body.quantizer.initialised


def test_rates():
    config = SolamiMotionVQConfig()
    assert (config.frames_per_code, config.frame_rate, config.hand_features_size) == (4, 7.5, 180)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode(torch.full((1, 8, 315), float("nan"))), "NaN or infinite values in a real frame"),
        (lambda m: m.encode(torch.zeros(1, 0, 315)), "has 0 frames, expected at least 4"),
        (lambda m: m.encode(torch.zeros(1, 3, 315)), "has 3 frames, expected at least 4"),
        (lambda m: m.encode(torch.zeros(0, 8, 315)), "0 frames"),
        (lambda m: m.encode(torch.zeros(1, 8, 135)), r"shape \(1, 8, 135\), expected \(B, T, 315\)"),
        (lambda m: m.encode(torch.zeros(8, 315)), r"expected \(B, T, 315\)"),
        (lambda m: m.encode(torch.zeros(1, 8, 315, dtype=torch.long)), "expected a floating-point"),
        (lambda m: m.encode(torch.zeros(1, 8, 315), torch.ones(1, 8)), "`padding_mask` is torch.float32"),
        (lambda m: m.encode(torch.zeros(1, 8, 315), torch.ones(1, 7).bool()), r"expected bool of \(1, 8\)"),
        (lambda m: m.encode(torch.zeros(1, 8, 315), torch.tensor([[False] + [True] * 7])), "has gaps"),
        (lambda m: m.encode(torch.zeros(2, 8, 315), torch.arange(8) < torch.tensor([[8], [3]])), "has 3 frames"),
        (lambda m: m.decode(torch.tensor([[16]]), torch.tensor([[0]])), "`body_codes` runs from 16 to 16, expected"),
        (lambda m: m.decode(torch.tensor([[0]]), torch.tensor([[-1]])), "`hand_codes` runs from -1"),
        (lambda m: m.decode(torch.tensor([[0, 1]]), torch.tensor([[0]])), "expected the same"),
        (lambda m: m.decode(torch.zeros(1, 0).long(), torch.zeros(1, 0).long()), "`body_codes` is torch.int64"),
        (lambda m: m.decode(torch.zeros(1, 2), torch.zeros(1, 2)), "`body_codes` is torch.float32"),
        (lambda m: m.encode_transform(torch.zeros(5)), r"`transform` is torch.float32 of shape \(5,\)"),
        (lambda m: m.encode_transform(torch.full((1, 5), float("inf"))), "`transform` holds NaN"),
        (lambda m: m.decode_transform(torch.tensor([8])), "`transform_codes` runs from 8 to 8"),
        (lambda m: m.set_statistics(torch.zeros(4), 1), r"`mean` has shape \(4,\)"),
        (lambda m: m.set_statistics(0, -1.0), "`std` holds NaN, infinite or negative"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_model())


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"body_width": 0}, "`body_width` is 0"),
        ({"hand_activation": "tanh"}, "`hand_activation` is 'tanh'"),
        ({"body_norm": "batch"}, "`body_norm` is 'batch'"),
        ({"hand_norm": "group", "hand_width": 48}, "`hand_width` is 48, expected a multiple of 32"),
        ({"loss_mode": "old"}, "`loss_mode` is 'old'"),
        ({"body_features_size": 315}, "the hand reads the rest"),
        ({"codebook_decay": 1.0}, "`codebook_decay` is 1.0"),
        ({"transform_hidden_sizes": [48]}, "expected two sizes"),
        ({"fps": 0}, "`fps` is 0"),
    ],
)
def test_bad_configuration_is_named(field, message):
    with pytest.raises(ValueError, match=message):
        SolamiMotionVQConfig(**field)


@pytest.mark.parametrize("quantizer", ["ema", "fsq"])
@pytest.mark.parametrize("sizes", [[4] * 10, [8, 4, 16, 12], [40]])
@torch.no_grad()
def test_a_stream_equals_the_whole_clip(quantizer, sizes):
    model = tiny_model(causal=True, quantizer=quantizer, body_activation="gelu")
    values = torch.randn(2, 40, 315)
    whole = model.encode(values)
    decoded = model.decode(whole.body_codes, whole.hand_codes).motion_values
    encoding, decoding, codes, motions = MotionVQCache(), MotionVQCache(), [], []
    for chunk in values.split(sizes, dim=1):
        codes.append(model.encode(chunk, cache=encoding))
        motions.append(model.decode(codes[-1].body_codes, codes[-1].hand_codes, cache=decoding).motion_values)
    assert torch.equal(torch.cat([chunk.body_codes for chunk in codes], dim=1), whole.body_codes)
    assert torch.equal(torch.cat([chunk.hand_codes for chunk in codes], dim=1), whole.hand_codes)
    torch.testing.assert_close(torch.cat(motions, dim=1), decoded, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_causal_tokenizer_never_looks_ahead():
    model = tiny_model(causal=True)
    values = torch.randn(1, 40, 315)
    other = values.clone()
    other[:, 20:] += 1
    before, after = model.encode(values), model.encode(other)
    assert torch.equal(before.body_codes[:, :5], after.body_codes[:, :5])
    assert not torch.equal(before.body_codes, after.body_codes)
    codes = torch.arange(10)[None] % 16
    changed = codes.clone()
    changed[:, 5:] = 3
    left, right = (model.decode(c, c).motion_values for c in (codes, changed))
    torch.testing.assert_close(left[:, :20], right[:, :20], atol=1e-5, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_many_and_few_steps_are_convolved_alike(causal, monkeypatch):
    model = tiny_model(causal=causal)
    values = torch.randn(3, 36, 315)
    results = []
    for limit in (0, 10**6):
        monkeypatch.setattr("solami_hf.modeling.motion_vq.modeling_motion_vq._FEW_STEPS", limit)
        codes = model.encode(values)
        results.append((codes, model.decode(codes.body_codes, codes.hand_codes).motion_values))
    assert torch.equal(results[0][0].body_codes, results[1][0].body_codes)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("causal", "frames", "mask", "message"),
    [
        (False, 8, None, "`config.causal` is False"),
        (True, 6, None, "has 6 frames, expected a multiple of 4"),
        (True, 8, [True] * 4 + [False] * 4, "`padding_mask` marks padding"),
    ],
)
def test_a_cache_that_does_not_fit_is_named(causal, frames, mask, message):
    mask = None if mask is None else torch.tensor([mask, [True] * 8])
    with pytest.raises(ValueError, match=message):
        tiny_model(causal=causal).encode(torch.randn(2, frames, 315), mask, cache=MotionVQCache())


def test_a_stream_keeps_its_number_of_clips():
    model, cache = tiny_model(causal=True), MotionVQCache()
    model.encode(torch.randn(2, 8, 315), cache=cache)
    with pytest.raises(ValueError, match="The chunk has 1 clips, expected 2"):
        model.encode(torch.randn(1, 8, 315), cache=cache)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"quantizer": "lfq"}, "`quantizer` is 'lfq'"),
        ({"quantizer": "fsq", "body_code_num": 17}, r"`body_fsq_levels` is \[\], expected whole numbers"),
        ({"quantizer": "fsq", "hand_fsq_levels": [8, 8]}, r"`hand_fsq_levels` is \[8, 8\]"),
        ({"causal": True, "hand_norm": "group"}, "`hand_norm` looks at the whole clip"),
    ],
)
def test_options_that_do_not_fit_are_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        SolamiMotionVQConfig(**overrides)


@pytest.mark.parametrize("quantizer", ["ema", "fsq"])
def test_options_survive_saving_and_half_precision(quantizer, tmp_path):
    model = tiny_model(causal=True, quantizer=quantizer)
    model.save_pretrained(tmp_path)
    values = torch.randn(2, 16, 315)
    loaded = SolamiMotionVQModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode(values).body_codes, model.encode(values).body_codes)
    half = SolamiMotionVQModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and torch.equal(half.mean, model.mean)
    assert torch.equal(half.transform.quantizer.codebook, model.transform.quantizer.codebook)
    codes = half.encode(values)
    assert half.decode(codes.body_codes, codes.hand_codes).motion_values.dtype == torch.float32


@pytest.mark.parametrize(("frames", "lengths"), [(16, [16, 11]), (18, [18, 11]), (18, [18, 18])])
def test_training_decodes_what_decode_does(frames, lengths):
    model = tiny_model()
    mask = torch.arange(frames) < torch.tensor(lengths)[:, None]
    values = torch.randn(2, frames, 315)
    out = model(values, mask)
    expected = model.decode(out.body_codes, out.hand_codes, out.code_mask)
    assert torch.equal(out.padding_mask, expected.padding_mask)
    torch.testing.assert_close(out.motion_values, expected.motion_values, atol=1e-5, rtol=1e-5)
    out.loss.backward()
