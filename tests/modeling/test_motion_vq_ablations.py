"""Bound tokenizers (one codebook for body and hand), and networks that see another representation."""

import json

import pytest
import torch

from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.modeling_motion_vq import MotionVQCache, SolamiMotionVQModel
from solami_hf.modeling.motion_vq.streaming_motion_vq import MotionVQDecoderStream
from solami_hf.modeling.speech_codec.codec_interface import codec_fingerprint
from solami_hf.processing.motion.features import smplx_to_features

TINY = {
    f"{part}_{name}": size
    for part in ("body", "hand")
    for name, size in {"width": 32, "code_dim": 8, "code_num": 16, "depth": 2}.items()
}
KINDS = ["local_rotation", "global_rotation", "joints"]


def tiny(**options) -> SolamiMotionVQModel:
    torch.manual_seed(0)
    return SolamiMotionVQModel(SolamiMotionVQConfig(**TINY | {"transform_code_num": 8} | options)).eval()


def clips(batch: int = 2, frames: int = 21) -> torch.Tensor:
    """Raw features (batch, frames, 315) of random poses."""
    way, poses = torch.randn(batch, frames + 1, 3), 0.4 * torch.randn(batch, frames + 1, 156)
    return smplx_to_features(torch.cat([way, poses], dim=-1))


@torch.no_grad()
def test_a_bound_tokenizer_has_body_codes_alone():
    model, values = tiny(bound=True), clips()
    assert model.hand is None and set(model.quantizers) == {"body", "transform"}
    assert not [name for name in model.state_dict() if name.startswith("hand")]
    assert model.body.encoder["conv_in"].in_channels == 315
    out = model.encode(values)
    assert out.body_codes.shape == (2, 5) and out.hand_codes is None
    assert model.decode(out.body_codes).motion_values.shape == (2, 20, 315)
    changed = values.clone()
    changed[..., 200:] += 3.0  # hands count
    assert not torch.equal(model.encode(changed).body_codes, out.body_codes)


@torch.no_grad()
def test_codes_that_do_not_fit_are_named():
    codes = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="takes body codes alone"):
        tiny(bound=True).decode(codes, codes)
    with pytest.raises(ValueError, match="needs hand codes too"):
        tiny().decode(codes)
    with pytest.raises(ValueError, match=r"body_codes has shape \(1, 3\), expected \(batch, n\) for body and hand"):
        MotionVQDecoderStream(tiny()).decode(codes)
    with pytest.raises(ValueError, match=r"hand_codes has shape \(1, 3\), expected \(batch, n\) for body$"):
        MotionVQDecoderStream(tiny(bound=True)).decode(codes, codes)


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("representation", KINDS)
@torch.no_grad()
def test_a_padded_batch_gives_what_each_clip_gives_alone(representation, bound):
    model, values = tiny(representation=representation, bound=bound), clips(3)
    mask = torch.arange(21) < torch.tensor([21, 9, 14])[:, None]
    padded = model.encode(values.masked_fill(~mask[..., None], float("nan")), mask)
    codes = [c for c in (padded.body_codes, padded.hand_codes) if c is not None]
    decoded = model.decode(*codes, code_mask=padded.code_mask).motion_values
    for i, length in enumerate((21, 9, 14)):
        alone = model.encode(values[i : i + 1, :length])
        assert torch.equal(padded.body_codes[i, : length // 4], alone.body_codes[0])
        own = [c for c in (alone.body_codes, alone.hand_codes) if c is not None]
        whole = length // 4 * 4
        torch.testing.assert_close(decoded[i, :whole], model.decode(*own).motion_values[0], atol=1e-4, rtol=1e-4)
        assert not decoded[i, whole:].any()


@pytest.mark.parametrize("representation", KINDS)
@torch.no_grad()
def test_the_networks_see_the_representation(representation):
    """With statistics of the representation, the loss is over it, and what comes out is raw."""
    model, values = tiny(representation=representation), clips()
    seen = model.represent(values)
    model.set_statistics(seen.mean((0, 1)), seen.std((0, 1)))
    normalised, _ = model.normalise(values, None)
    torch.testing.assert_close(normalised.mean((0, 1)), torch.zeros(seen.shape[-1]), atol=1e-3, rtol=0)
    out = model(values)
    assert out.motion_values.shape == (2, 20, 315)
    scale = model.std.clamp_min(model.config.std_floor)
    if representation != "local_rotation":  # what the network says is made into rotations
        columns = out.motion_values[..., 9:].unflatten(-1, (51, 6))
        torch.testing.assert_close(columns[..., :3].norm(dim=-1), torch.ones(2, 20, 51), atol=1e-4, rtol=0)
        return
    error = torch.nn.functional.smooth_l1_loss(out.motion_values / scale, values[:, :20] / scale)
    torch.testing.assert_close(out.feature_loss, error, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("representation", "bound"), [("global_rotation", False), ("joints", True), ("local_rotation", True)]
)
def test_a_few_steps_lower_the_loss(representation, bound):
    model, values = tiny(representation=representation, bound=bound).train(), clips(8, 16)
    seen = model.represent(values)
    model.set_statistics(seen.mean((0, 1)), seen.std((0, 1)).clamp_min(0.02))
    for quantizer in model.quantizers.values():
        quantizer.bypass = True
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = model(values, transform=torch.randn(8, 5)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_bound_streams_are_the_whole_clip(causal):
    model = tiny(bound=True, causal=causal, representation="global_rotation")
    codes = torch.randint(16, (1, 9))
    stream = MotionVQDecoderStream(model, lookahead=40)
    pieces = [stream.decode(codes[:, i : i + 2]) for i in range(0, 9, 2)] + [stream.finish()]
    torch.testing.assert_close(torch.cat(pieces, 1), model.decode(codes).motion_values, atol=1e-4, rtol=1e-4)
    if causal:
        cache, values = MotionVQCache(), clips(1, 16)
        parts = [model.encode(values[:, i : i + 8], cache=cache).body_codes for i in (0, 8)]
        assert torch.equal(torch.cat(parts, 1), model.encode(values).body_codes)


def test_saved_and_loaded(tmp_path):
    model, values = tiny(bound=True, representation="joints", quantizer="fsq"), clips()
    model.save_pretrained(tmp_path)
    again = SolamiMotionVQModel.from_pretrained(tmp_path)
    assert again.config.bound and again.config.representation == "joints" and again.hand is None
    assert torch.equal(again.encode(values).body_codes, model.encode(values).body_codes)
    assert codec_fingerprint(again) == codec_fingerprint(model)


def test_the_same_weights_seen_differently_are_another_codec():
    prints = {kind: codec_fingerprint(tiny(representation=kind)) for kind in KINDS[:2]}
    assert prints["local_rotation"] != prints["global_rotation"]


def test_a_config_from_before_is_separate_and_local(tmp_path):
    model, values = tiny(), clips()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["bound"], config["representation"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = SolamiMotionVQModel.from_pretrained(tmp_path)
    assert again.config.parts == ("body", "hand") and again.config.representation == "local_rotation"
    ours, theirs = again.encode(values), model.encode(values)
    assert torch.equal(ours.body_codes, theirs.body_codes) and torch.equal(ours.hand_codes, theirs.hand_codes)
    assert again.config.modality_sizes == {"body": 16, "hand": 16, "trans": 8}
