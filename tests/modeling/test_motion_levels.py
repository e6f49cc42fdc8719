"""Motion tokenizers of several levels, and the SoundStorm that fills them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.generation.streaming_media import MotionPieces
from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.modeling.motion_vq.quantizers import (
    EmaQuantizer,
    FiniteScalarQuantizer,
    nearest_sums,
    quantize_residual,
)
from solami_hf.modeling.motion_vq.streaming_motion_vq import MotionVQDecoderStream
from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from solami_hf.modeling.soundstorm.soundstorm_masking import hide_codes
from solami_hf.processing.motion.features import features_to_joints
from solami_hf.processing.processing_solami import SolamiProcessor
from solami_hf.training.motion_vq.motion_vq_data import COUNTED_JOINTS

sys.path.append(str(Path(__file__).parent))
from test_motion_vq_ablations import clips, tiny  # noqa: E402


def filler(rows=8, given=2, **options):
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8, "intermediate_size": 32,
        "conv_channels": 16, "conv_kernel_size": 3, "codebook_size": 16, "num_semantic_codes": 16,
    }  # fmt: skip
    config = SolamiSoundStormConfig(**sizes | options, num_quantizers=rows, num_given_levels=given, modality="motion")
    return SolamiSoundStormModel(config).eval()


@torch.no_grad()
def test_levels_are_added_to_a_checkpoint_and_its_codes_stay(tmp_path):
    one, values = tiny(), clips()
    one.save_pretrained(tmp_path)
    several = SolamiMotionVQModel.from_pretrained(tmp_path, num_levels=3)
    before, after = one.encode(values), several.encode(values)
    assert torch.equal(before.body_codes, after.body_codes) and torch.equal(before.hand_codes, after.hand_codes)
    assert before.body_levels is None and "body.residual.0.codebook" not in one.state_dict()
    assert after.body_levels.shape == after.hand_levels.shape == (2, 3, 5)
    assert torch.equal(after.body_levels[:, 0], after.body_codes)
    alone = several.decode(after.body_codes, after.hand_codes).motion_values
    assert torch.equal(alone, one.decode(before.body_codes, before.hand_codes).motion_values)
    assert torch.equal(alone, several.decode(after.body_levels[:, :1], after.hand_levels[:, :1]).motion_values)
    assert not torch.allclose(alone, several.decode(after.body_levels, after.hand_levels).motion_values)


@pytest.mark.parametrize("options", [{}, {"quantizer": "fsq"}, {"shared_levels": True}, {"bound": True}])
def test_every_level_codes_what_is_left_and_learns(options):
    model, values = tiny(num_levels=4, **options).train(), clips(4)
    model.config.level_dropout = 0.0
    assert len(model.body.residual) == (1 if "shared_levels" in options else 3) and len(model.body.levels) == 4
    model(values).loss.backward()
    weights = [name for name, weight in model.body.residual.named_parameters() if weight.grad is None]
    assert not weights and model.body.encoder["conv_in"].weight.grad.abs().sum() > 0
    if options.get("quantizer") != "fsq":
        assert all(level.initialised for level in model.body.levels)
        latents = model.eval().latents(*model.normalise(values, None))[0].flatten(0, 1).detach()
        left = [latents]
        for level in model.body.levels:
            left.append(left[-1] - level.decode(level.encode(left[-1])))
        errors = [float(part.square().mean()) for part in left]
        assert errors[1] < errors[0] and (options or errors[4] < errors[2] < errors[1])


def test_one_gradient_of_the_sum_and_only_kept_levels():
    torch.manual_seed(0)
    levels, vectors = [EmaQuantizer(4, 2).eval() for _ in range(3)], torch.randn(5, 2, requires_grad=True)
    for index, level in enumerate(levels):
        level.codebook.normal_().mul_(0.5**index)
    total, first, commitment, codes = quantize_residual(levels, vectors, torch.tensor([1, 2, 3, 3, 3]))
    total.sum().backward(retain_graph=True)
    assert torch.equal(vectors.grad, torch.ones(5, 2)) and codes.shape == (3, 5)
    torch.testing.assert_close(total[0], levels[0].decode(codes[0, 0]))
    torch.testing.assert_close(first, levels[0].decode(codes[0]))
    torch.testing.assert_close(total[2:], sum(level.decode(code) for level, code in zip(levels, codes[:, 2:])))  # noqa: B905
    vectors.grad = None
    commitment.backward()
    assert (vectors.grad != 0).any()
    steps = [FiniteScalarQuantizer((2, 3), 2), FiniteScalarQuantizer((2, 3), 2)]
    quantize_residual(steps, vectors, torch.full((5,), 2))[0].sum().backward()
    assert steps[1].project_in.weight.grad is not None


def test_training_drops_levels_of_some_clips_and_evaluation_of_none():
    model, mask = tiny(num_levels=4, level_dropout=1.0).train(), torch.ones(400, 3, dtype=torch.bool)
    kept = model._kept_levels(mask)
    assert kept.unique().tolist() == [1, 2, 3, 4] and (kept == kept[:, :1]).all()
    assert model.eval()._kept_levels(mask).unique().tolist() == [4]


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {"causal": True}, {}, {"bound": True}, {"network": "linear"},
        {"network": "linear", "causal": True}, {"network": "linear", "causal": True, "residual_hand": True},
    ],
)  # fmt: skip
def test_a_stream_of_levels_is_the_whole(options):
    model, values = tiny(num_levels=3, **options), clips(1, 44)
    out = model.encode(values)
    given = [out[f"{part}_levels"] for part in model.config.parts]
    stream = MotionVQDecoderStream(model, lookahead=11)
    pieces = [stream.decode(*(codes[..., i : i + 2] for codes in given)) for i in range(0, 11, 2)]
    whole = model.decode(*given).motion_values
    torch.testing.assert_close(torch.cat([*pieces, stream.finish()], dim=1), whole, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{}, {"network": "linear"}, {"network": "linear", "residual_hand": True, "candidates": 4}]
)
def test_a_padded_clip_of_several_levels_gives_what_it_gives_alone(options):
    model, values = tiny(num_levels=3, **options), clips(2, 24)
    mask = torch.arange(24) < torch.tensor([[24], [13]])
    out, alone = model.encode(values, mask), model.encode(values[1:, :13])
    assert torch.equal(out.body_levels[1, :, :3], alone.body_levels[0]) and (out.body_levels[1, :, 3:] == -1).all()
    decoded = model.decode(out.body_levels, out.hand_levels, out.code_mask).motion_values
    torch.testing.assert_close(decoded[1:, :12], model.decode(alone.body_levels, alone.hand_levels).motion_values)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"network": "linear", "residual_hand": True}, {"bound": True}])
def test_a_search_takes_the_codes_that_are_decoded_best(options):
    model, values = tiny(num_levels=2, **options), clips(3, 40)
    for part in model.parts.values():
        part.quantizer.codebook.mul_(0.3)
    target, off = features_to_joints(values)[:, :, COUNTED_JOINTS], {}
    for model.config.candidates in (1, 5):
        out = model.encode(values)
        given = [out[f"{part}_codes"] for part in model.config.parts]
        made = features_to_joints(model.decode(*given).motion_values)[:, :, COUNTED_JOINTS]
        off[model.config.candidates] = float((made - target).norm(dim=-1).mean())
        latents = dict(zip(model.chains, model.latents(*model.normalise(values, None)), strict=True))
        for name, levels in model.chains.items():
            given = [out[f"{part}_levels"].transpose(0, 1).flatten(1) for part in model.parts]
            codes = torch.stack(given, 1).flatten(0, 1) if model.config.residual_hand else given[name == "hand"]
            left, first = latents[name].flatten(0, 1), len(levels) // 2  # codes of level 0
            near, sums = nearest_sums(levels[:first], left, model.config.candidates)
            chosen = (near == codes[:first].T[:, None]).all(-1)
            assert chosen.any(-1).all()
            for level, code in zip(levels[first:], codes[first:], strict=True):
                left = left - (sums[chosen] if level is levels[first] else levels[first].decode(codes[first]))
                assert torch.equal(level.encode(left), code)
    assert off[5] < 0.95 * off[1]
    with pytest.raises(ValueError, match="a search looks ahead"):
        tiny(candidates=2, causal=True)


@torch.no_grad()
def test_a_residual_hand_codes_what_the_body_leaves_of_all():
    model, values = tiny(network="linear", residual_hand=True, num_levels=2), clips()
    assert not model.hand.encoder and not model.hand.decoder and model.config.input_sizes == {"body": 315}
    out, left = model.encode(values), model.latents(*model.normalise(values, None))[0].flatten(0, 1)
    for level in range(2):
        for part in ("body", "hand"):
            quantizer = model.parts[part].levels[level]
            assert torch.equal(out[f"{part}_levels"][:, level].flatten(), quantizer.encode(left))
            left = left - quantizer.decode(quantizer.encode(left))
    before = model.decode(out.body_codes, out.hand_codes).motion_values
    after = model.decode(out.body_codes, out.hand_codes.flip(1)).motion_values
    assert not torch.isclose(before[..., :99], after[..., :99]).all()
    with torch.enable_grad():
        model.train()(values).loss.backward()
    assert model.body.decoder["conv_out"].weight.grad.abs().sum() > 0 and model.hand.quantizer.initialised
    for wrong in ({}, {"network": "linear", "bound": True}, {"network": "linear", "hand_code_dim": 4}):
        with pytest.raises(ValueError, match="two codes of one width"):
            tiny(residual_hand=True, **wrong)


def test_wrong_levels_are_named():
    for options in ({"num_levels": 0}, {"num_levels": 9}, {"level_dropout": 1.5}):
        with pytest.raises(ValueError, match="expected 1 to 8 levels and a share from 0 to 1"):
            SolamiMotionVQConfig(**options)
    codes = torch.zeros(1, 3, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="`body_codes` has 3 levels, expected at most 2"):
        tiny(num_levels=2).decode(codes, codes)
    with pytest.raises(ValueError, match="`hand_codes` runs from 99 to 99"):
        tiny(num_levels=3).decode(codes, codes + 99)
    with pytest.raises(ValueError, match=r"is empty, or not of 2 rows"):
        filler().generate(codes)
    with pytest.raises(ValueError, match="expected at least 3: 2 given, others filled"):
        filler(rows=2)


def test_a_filler_keeps_what_is_given_and_reads_both_parts():
    model, rng = filler(), torch.Generator().manual_seed(0)
    given = torch.randint(0, 16, (2, 2, 9), generator=rng)
    body, hand = model.fill_motion(given.unbind(1))
    assert body.shape == hand.shape == (2, 4, 9)
    assert torch.equal(body[:, 0], given[:, 0]) and torch.equal(hand[:, 0], given[:, 1]) and body.max() < 16
    other = model.fill_motion([given[:, 0], (given[:, 1] + 5) % 16])[0]
    assert not torch.equal(other[:, 1:], body[:, 1:])  # of the body, by the hand
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    padded = model.fill_motion([part.masked_fill(~mask, -1) for part in given.unbind(1)], mask)
    alone = model.fill_motion([part[1:, :4] for part in given.unbind(1)])
    assert torch.equal(padded[0][1, :, :4], alone[0][0]) and (padded[0][1, :, 4:] == 0).all()
    prompt = torch.randint(0, 16, (1, 8, 5), generator=rng)
    assert model.fill_motion(given.unbind(1), prompt_codes=prompt)[0].shape == (2, 4, 9)
    assert filler(rows=4, given=1).fill_motion([given[:, 0]])[0].shape == (2, 4, 9)  # bound


@torch.no_grad()
def test_a_filler_of_sums_takes_the_nearest_codes():
    model = filler(vector_size=3)
    model.vectors.normal_(generator=torch.Generator().manual_seed(0))
    given = torch.randint(0, 16, (2, 2, 9), generator=torch.Generator().manual_seed(0))
    masked = torch.cat([given, torch.full((2, 6, 9), 16)], dim=1)
    sums = model(masked).sums
    assert sums.shape == (2, 9, 2, 3) and not hasattr(model, "head_weight")
    body, hand = model.fill_motion(given.unbind(1))
    for part, codes in enumerate((body, hand)):
        assert torch.equal(codes[:, 0], given[:, part])
        left = sums[:, :, part]
        for level in range(3):
            vectors = model.vectors[2 * level + part]
            assert torch.equal(codes[:, 1 + level], (left[..., None, :] - vectors).norm(dim=-1).argmin(-1))
            left = left - vectors[codes[:, 1 + level]]
    labels = torch.randint(0, 16, (2, 6, 9))
    true = [model.vectors[row][labels[:, row]] for row in range(6)]
    wanted = torch.stack([sum(true[0::2]), sum(true[1::2])], dim=2)
    loss = float((sums - wanted).norm(dim=-1).mean())
    assert float(model(masked, labels=labels).loss) == pytest.approx(loss, rel=1e-4)
    with pytest.raises(ValueError, match="needs all"):
        model(masked, labels=labels.masked_fill(torch.arange(6)[:, None] == 2, -100))
    prompt = torch.randint(0, 16, (1, 8, 5))
    assert model.fill_motion(given.unbind(1), prompt_codes=prompt)[0].shape == (2, 4, 9)


def test_masks_leave_all_given_rows():
    codes = torch.randint(0, 16, (64, 8, 12), generator=torch.Generator().manual_seed(0))
    real = torch.ones(64, 12, dtype=torch.bool)
    masked, labels = hide_codes(codes, real, 16, torch.Generator().manual_seed(1), given=2)
    assert torch.equal(masked[:, :2], codes[:, :2]) and labels.shape == (64, 6, 12)
    learnt = labels != -100
    assert (learnt.any(2).sum(1) == 1).all() and learnt.any(2).any(0).all()  # one row each, of all rows
    assert torch.equal(labels[learnt], codes[:, 2:][learnt]) and (masked[:, 2:][learnt] == 16).all()
    output = filler()(masked, labels=labels)
    assert output.loss.isfinite() and filler()(masked).logits.shape == (64, 6, 12, 16)


def processor_with(tokenizer, model, storm):
    return SolamiProcessor(tokenizer, model, motion_filler=storm)


def test_the_processor_fills_and_saves_and_streams(tiny_tokenizer, tmp_path):
    model, storm = tiny(num_levels=4), filler()
    processor = processor_with(tiny_tokenizer, model, storm)
    codes = np.random.default_rng(0).integers(0, 16, (2, 7))
    motion = processor.decode_motion({"body": codes[0], "hand": codes[1]})
    parts = [torch.from_numpy(part)[None] for part in codes]
    filled = model.decode(*storm.fill_motion(parts)).motion_values
    level0 = SolamiProcessor(tiny_tokenizer, model).decode_motion({"body": codes[0], "hand": codes[1]})
    assert motion.num_frames == filled.shape[1] == 28 and not np.allclose(motion.poses, level0.poses)
    processor.save_pretrained(tmp_path)
    again = SolamiProcessor.from_pretrained(tmp_path)
    assert np.allclose(again.decode_motion({"body": codes[0], "hand": codes[1]}).poses, motion.poses, atol=1e-5)
    pieces = MotionPieces(model, lookahead=7, filler=storm)  # shorter than a chunk: all is filled at once
    assert pieces.push(*codes[:, :3]) is None and pieces.push(*codes[:, 3:]) is None
    np.testing.assert_allclose(pieces.finish().to_params(), motion.to_params(), atol=1e-4)
    long = MotionPieces(model, lookahead=2, filler=storm)
    some = [long.push(*np.tile(codes, 4)[:, i : i + 4]) for i in range(0, 28, 4)] + [long.finish()]
    assert sum(piece.num_frames for piece in some if piece is not None) == 112
    assert [index for index, piece in enumerate(some) if piece is not None][0] == 1  # 8 codes: 6 and 2 ahead
