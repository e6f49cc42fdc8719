"""Motion from codes in chunks: that of the whole clip, but for what lies further ahead than the stream waits."""

import pytest
import torch

from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.modeling.motion_vq.streaming_motion_vq import MotionVQDecoderStream, decoder_reach

SIZES = {f"{part}_{key}": 8 for part in ("body", "hand") for key in ("code_num", "code_dim", "width")}


def tokenizers(**change):
    return SolamiMotionVQModel(SolamiMotionVQConfig(transform_code_num=8, **SIZES | change)).eval()


def streamed(model, codes, sizes, **settings):
    stream = MotionVQDecoderStream(model, **settings)
    chunks = [stream.decode(*chunk) for chunk in codes.split(sizes, dim=-1)]
    return [*chunks, stream.finish()]


def test_reach_of_the_paper_and_of_a_smaller_tokenizer():
    assert decoder_reach(SolamiMotionVQConfig()) == 22
    assert decoder_reach(SolamiMotionVQConfig(body_depth=2, hand_depth=2)) == 9
    assert decoder_reach(SolamiMotionVQConfig(body_depth=2, hand_depth=3)) == 22


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_frame_depends_on_codes_out_of_reach(depth):
    model = tokenizers(body_depth=depth, hand_depth=depth)
    reach = decoder_reach(model.config)
    codes = torch.randint(8, (2, 1, 2 * reach + 3))
    changed = codes.clone()
    changed[..., reach + 1] = (changed[..., reach + 1] + 1) % 8
    with torch.no_grad():
        differs = (model.decode(*codes).motion_values != model.decode(*changed).motion_values).any(-1)[0]
    touched = differs.nonzero()[:, 0]
    assert touched[0] >= 4 and touched[-1] < 4 * (2 * reach + 2)


@pytest.mark.parametrize("change", [{}, {"body_depth": 2, "hand_depth": 1}, {"causal": True}])
@pytest.mark.parametrize("sizes", [[31], [3] * 10, [1] * 12, [2, 0, 7, 1], [1]])
def test_chunks_equal_the_whole_where_all_is_known(change, sizes):
    model = tokenizers(**change)
    codes = torch.randint(8, (2, 2, sum(sizes)))
    with torch.no_grad():
        whole = model.decode(*codes).motion_values
    reach = decoder_reach(model.config)
    chunks = streamed(model, codes, sizes, lookahead=reach)
    torch.testing.assert_close(torch.cat(chunks, dim=1), whole, atol=2e-5, rtol=0)
    waits = 0 if model.config.causal else reach
    assert sum(chunk.shape[1] for chunk in chunks[:-1]) == 4 * max(0, sum(sizes) - waits)


def test_less_is_known_with_less_look_ahead():
    model, off = tokenizers(), {}
    codes = torch.randint(8, (2, 4, 40))
    with torch.no_grad():
        whole = model.decode(*codes).motion_values
    for lookahead in (0, 2, 6, 22):
        chunks = streamed(model, codes, 3, lookahead=lookahead)
        assert [chunk.shape[1] for chunk in chunks[: 1 + lookahead // 3]][-1] == 4 * (3 - lookahead % 3)
        off[lookahead] = (torch.cat(chunks, dim=1) - whole).abs().amax(-1).mean(0)
    means = [float(off[lookahead].mean()) for lookahead in off]
    assert means[0] > 1.2 * means[1] > 1.2 * means[2] > 1e-3 and means[3] < 1e-6
    assert off[2][-4:].max() < 1e-5 < off[2][:-4].max()  # at the end all is known


def test_other_types_of_weights_and_misuse():
    model = tokenizers().to(torch.bfloat16)
    codes = torch.randint(8, (2, 1, 9))
    with torch.no_grad():
        whole = model.decode(*codes).motion_values
    torch.testing.assert_close(torch.cat(streamed(model, codes, 4, lookahead=22), 1), whole, atol=0.05, rtol=0)
    with pytest.raises(ValueError, match="lookahead is -1"):
        MotionVQDecoderStream(model, -1)
    stream = MotionVQDecoderStream(model)
    with pytest.raises(ValueError, match="got no codes"):
        stream.finish()
    with pytest.raises(ValueError, match=r"body_codes has shape \(1, 2\) and hand_codes has shape \(1, 1\)"):
        stream.decode(codes[0, :, :2], codes[1, :, :1])
    stream.decode(*codes)
    with pytest.raises(ValueError, match="has 2 streams, expected 1"):
        stream.decode(*codes.expand(2, 2, 9))
    with pytest.raises(ValueError, match="expected codes from 0 to 7"):
        stream.decode(codes[0] + 8, codes[1])
    stream = MotionVQDecoderStream(model)
    stream.decode(*codes[..., :0])
    assert stream.finish().shape == (1, 0, 315)
    with pytest.raises(ValueError, match="has ended"):
        stream.finish()
    with pytest.raises(ValueError, match="is finished"):
        stream.decode(*codes)
