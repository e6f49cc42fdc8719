"""The talker: lengths, padding, batches, saved folders, and what it refuses."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from solami_hf import SolamiTalkerConfig, SolamiTalkerModel
from solami_hf.modeling.talker.modeling_talker import character_ids, frame_places, whole_frames, word_frames

TINY = {
    "hidden_size": 16, "intermediate_size": 24, "num_encoder_layers": 2, "num_attention_heads": 2,
    "local_attention": 4, "num_decoder_layers": 2, "conv_channels": 24, "conv_kernel_size": 3, "num_places": 4,
    "codebook_size": 12,
}  # fmt: skip
TEXTS = ["Hello there, friend.", "Yes!", "..."]


@pytest.fixture
def talker():
    """A tiny model whose durations and codes vary."""
    torch.manual_seed(0)
    model = SolamiTalkerModel(SolamiTalkerConfig(**TINY, initializer_range=0.4)).eval()
    torch.nn.init.constant_(model.duration_head[2].bias, 0.8)
    return model


def labelled(talker):
    inputs = talker.encode_text(TEXTS)
    durations = inputs["input_ids"].clamp(max=3)
    labels = torch.arange(int(durations.sum(1).max())).repeat(len(TEXTS), 1) % 12
    return {**inputs, "durations": durations, "labels": labels}


def test_ids_are_places_in_the_alphabet_and_0_is_padding(talker):
    inputs = talker.encode_text(["Ab!", "c"])
    assert inputs["input_ids"].tolist() == [[2, 3, 32], [4, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[True, True, True], [True, False, False]]
    assert character_ids("a~b", "ab") == [1, 2]


def test_each_frame_knows_its_character_and_its_place_within():
    character, start, end, mask = frame_places(torch.tensor([[2, 0, 3], [1, 1, 0]]))
    assert character.tolist() == [[0, 0, 2, 2, 2], [0, 1, 2, 2, 2]]
    assert start[0].tolist() == [0, 1, 0, 1, 2] and end[0].tolist() == [1, 0, 2, 1, 0]
    assert mask.tolist() == [[True] * 5, [True, True, False, False, False]]


def test_rounding_keeps_the_length_of_the_text():
    frames = torch.full((1, 10), 1.4)
    assert whole_frames(frames, torch.ones(1, 10, dtype=torch.bool)).tolist() == [[1, 2, 1, 2, 1, 1, 2, 1, 2, 1]]
    assert whole_frames(frames, torch.arange(10)[None] < 3).sum() == 4


def test_words_have_their_frames():
    assert word_frames("hi, you", [2, 3, 1, 2, 1, 1, 4]) == [("hi,", 0, 6), ("you", 8, 14)]
    with pytest.raises(ValueError, match="durations are of 1 characters, expected 2"):
        word_frames("hi", [1])


def test_a_batch_says_what_its_texts_say_alone(talker):
    inputs = talker.encode_text(TEXTS)
    together = talker.generate(**inputs)
    assert together.codes.shape == together.code_mask.shape and len(set(together.codes[0].tolist())) > 3
    assert together.durations.sum(1).tolist() == together.code_mask.sum(1).tolist()
    assert together.code_mask[2].sum() == 0 and together.codes[2].sum() == 0
    for row, text in enumerate(TEXTS[:2]):
        alone = talker.generate(**talker.encode_text(text))
        assert torch.equal(alone.codes[0], together.codes[row][together.code_mask[row]])
        assert torch.equal(alone.durations[0], together.durations[row][inputs["attention_mask"][row]])


def test_padding_changes_no_score(talker):
    inputs = labelled(talker)
    scores = talker(**inputs).logits
    alone = talker(inputs["input_ids"][1:2, :4], durations=inputs["durations"][1:2, :4]).logits
    torch.testing.assert_close(alone[0], scores[1, : alone.shape[1]], rtol=0, atol=1e-5)
    inputs["labels"][1, alone.shape[1] :] = 5  # padding has no label, whatever stands there
    inputs["labels"][2] = 5
    assert talker(**inputs).loss == talker(**labelled(talker)).loss


def test_the_loss_is_that_of_codes_and_of_durations(talker):
    inputs = labelled(talker)
    output = talker(**inputs)
    real = output.code_mask
    expected = torch.nn.functional.cross_entropy(output.logits[real], inputs["labels"][real])
    torch.testing.assert_close(output.code_loss, expected)
    torch.testing.assert_close(output.loss, output.code_loss + output.duration_loss)
    mask, wanted = inputs["attention_mask"], inputs["durations"].float()
    poisson = (output.log_durations.exp() - wanted * output.log_durations)[mask].mean()
    torch.testing.assert_close(output.duration_loss, poisson)
    inputs["labels"] = inputs["labels"].masked_fill(inputs["labels"] != 3, -100)
    chosen = inputs["labels"][real] == 3
    picked = torch.nn.functional.cross_entropy(output.logits[real][chosen], inputs["labels"][real][chosen])
    torch.testing.assert_close(talker(**inputs).code_loss, picked)


def test_gradients_reach_every_weight_and_are_numbers(talker):
    talker.train()(**labelled(talker)).loss.backward()
    wrong = [name for name, weight in talker.named_parameters() if weight.grad is None or not weight.grad.norm() > 0]
    assert wrong == []


def test_faster_is_shorter(talker):
    inputs = talker.encode_text(TEXTS[0])
    natural, faster = (talker.generate(**inputs, speed=speed).durations.sum() for speed in (1.0, 2.0))
    assert abs(int(faster) - int(natural) / 2) <= 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_saved_folders_load_by_auto_classes(talker, tmp_path, attention):
    talker.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), SolamiTalkerConfig)
    loaded = AutoModel.from_pretrained(tmp_path, attn_implementation=attention).eval()
    inputs = talker.encode_text(TEXTS)
    torch.testing.assert_close(loaded(**inputs).logits, talker(**inputs).logits, rtol=0, atol=1e-5)
    assert {path.name for path in tmp_path.glob("*.py")} == {
        *("configuration_talker.py", "modeling_talker.py", "remote_code.py", "spoken_text.py")
    }


def test_what_it_refuses(talker):
    inputs = labelled(talker)
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with pytest.raises(ValueError, match="labels need durations"):
        talker(**texts, labels=inputs["labels"])
    with pytest.raises(ValueError, match=r"labels are \(3, 5\), expected \(3, 5\d\)"):
        talker(**texts, durations=inputs["durations"], labels=inputs["labels"][:, :5])
    with pytest.raises(ValueError, match=r"durations are \(3, 4\), expected \(3, 20\)"):
        talker(**texts, durations=inputs["durations"][:, :4])
    with pytest.raises(ValueError, match=r"input_ids are torch.int64 \(3, 0\)"):
        talker(inputs["input_ids"][:, :0])
    with pytest.raises(ValueError, match=r"ids from -?\d+ to 99, expected 0 to 35"):
        talker(torch.tensor([[1, 99]]))
    with pytest.raises(ValueError, match=r"attention_mask is \(3, 1\), expected \(3, 20\)"):
        talker(inputs["input_ids"], inputs["attention_mask"][:, :1])
    with pytest.raises(ValueError, match=r"speed is 0.0, expected more than 0"):
        talker.generate(**texts, speed=0.0)
    talker.config.max_frames = 10
    with pytest.raises(ValueError, match=r"takes \d+ frames, expected at most 10, .*: say it in parts"):
        talker.generate(**texts)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alphabet": " aa"}, "each character once"),
        ({"alphabet": "ab"}, "a space among them"),
        ({"num_decoder_layers": 0}, "num_decoder_layers is 0, expected at least 1"),
        ({"hidden_size": 18}, "expected a multiple of twice the 2 num_attention_heads"),
        ({"conv_kernel_size": 4}, "conv_kernel_size is 4, expected an odd number"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"frame_rate": 0}, "frame_rate is 0"),
    ],
)
def test_configurations_that_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        SolamiTalkerConfig(**TINY | wrong)
