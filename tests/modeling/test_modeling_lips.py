"""The lips: a stream says what the whole says, nothing comes from the future, and a saved folder loads."""

import pytest
import torch
from transformers import AutoModel

from solami_hf.modeling.face.configuration_lips import SolamiLipsConfig
from solami_hf.modeling.face.modeling_lips import LipsStream, SolamiLipsModel

TINY = {"hidden_size": 16, "num_layers": 3, "codebook_size": 32, "num_mels": 8, "lookahead": 4}


@pytest.fixture
def lips():
    torch.manual_seed(0)
    return SolamiLipsModel(SolamiLipsConfig(**TINY)).eval()


def streamed(lips, name, values, cuts):
    stream = LipsStream(lips)
    parts = [stream.push(**{name: part}) for part in torch.tensor_split(values, cuts)]
    return [len(part) for part in parts], torch.cat([*parts, stream.finish()])


def test_streams_equal_the_whole(lips):
    codes = torch.randint(0, 32, (50,), generator=torch.Generator().manual_seed(0))
    whole = lips(codes=codes[None]).logits.softmax(-1)[0]
    sizes, pieces = streamed(lips, "codes", codes, [1, 3, 30, 31])
    assert sizes == [0, 0, 26, 1, 19] and pieces.shape == (50, 15)
    torch.testing.assert_close(pieces, whole, atol=1e-6, rtol=0)
    sound = torch.randn(16000, generator=torch.Generator().manual_seed(0))
    whole = lips(mels=lips.log_mels(sound[None])).logits.softmax(-1)[0]
    _, pieces = streamed(lips, "samples", sound, [100, 900, 7000, 7001])
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)
    assert streamed(lips, "codes", codes[:2], [1])[1].shape == (2, 15)  # shorter than the look-ahead
    assert not len(LipsStream(lips).finish())


def test_a_frame_hears_the_lookahead_and_no_more(lips):
    codes = torch.zeros(2, 40, dtype=torch.long)
    codes[1, 20] = 7
    first, second = lips(codes=codes).logits
    changed = (first != second).any(-1).nonzero()[:, 0]
    assert changed[0] == 20 - TINY["lookahead"] and changed[-1] == 20 - TINY["lookahead"] + lips.context


def test_padding_and_labels(lips):
    codes = torch.randint(0, 32, (2, 30), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(30) < torch.tensor([[30], [20]])
    labels = torch.ones(2, 30, dtype=torch.long).masked_fill(~mask, -100)
    output = lips(codes=codes, padding_mask=mask, labels=labels)
    torch.testing.assert_close(output.logits[1, :20], lips(codes=codes[1:, :20]).logits[0], atol=1e-5, rtol=0)
    assert output.loss > 0 and 0 <= output.accuracy <= 1


def test_bad_input_is_refused(lips):
    with pytest.raises(ValueError, match="give codes or mels, one of them"):
        lips()
    with pytest.raises(ValueError, match=r"mels are \(1, 5, 7\), expected \(batch, frames, 8\)"):
        lips(mels=torch.zeros(1, 5, 7))
    with pytest.raises(ValueError, match="codes are 0 to 32, expected 0 to 31"):
        lips(codes=torch.arange(33)[None])
    with pytest.raises(ValueError, match="codes are torch.float32"):
        lips(codes=torch.zeros(1, 5))
    with pytest.raises(ValueError, match="labels are"):
        lips(codes=torch.zeros(1, 5, dtype=torch.long), labels=torch.zeros(1, 4, dtype=torch.long))
    for wrong in ({"hidden_size": 0}, {"lookahead": -1}, {"visemes": ["rest", "rest"]}):
        with pytest.raises(ValueError, match="expected"):
            SolamiLipsConfig(**wrong)


def test_a_saved_folder_loads(lips, tmp_path):
    lips.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    assert type(again) is SolamiLipsModel and (tmp_path / "modeling_lips.py").is_file()
    codes = torch.arange(20)[None]
    assert torch.equal(again(codes=codes).logits, lips(codes=codes).logits)
