import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from solami_hf.modeling.speech_codec import modeling_speech_codec
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.convert_speech_codec import convert_speech_codec
from solami_hf.modeling.speech_codec.modeling_speech_codec import (
    SolamiSpeechCodecModel,
    SpeechCodecCodebook,
    passes,
    reflect_pad,
    reflect_pad_each,
)

TINY = {
    "num_filters": 2, "hidden_size": 8, "semantic_size": 4, "codebook_size": 16, "num_quantizers": 3,
    "num_lstm_layers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def original(request):
    folder = request.config.rootpath / "tests/golden/speechtokenizer"
    with np.load(folder / "io.npz", allow_pickle=False) as file:
        tensors = {name: torch.from_numpy(file[name]) for name in file.files}
    return convert_speech_codec(folder / "config.json", folder / "ckpt.dev"), tensors


@pytest.fixture
def tiny():
    return SolamiSpeechCodecModel(SolamiSpeechCodecConfig(**TINY)).eval()


@pytest.mark.parametrize("tag", ["w8000", "w9601", "w3200b2", "w321", "w100"])
@torch.no_grad()
def test_original_codes_and_waveforms(original, tag):
    model, io = original
    codes = io[f"{tag}/codes"].transpose(0, 1)
    torch.testing.assert_close(model.encoder(io[f"{tag}/wav"]), io[f"{tag}/enc"], atol=1e-5, rtol=0)
    assert torch.equal(model.encode(io[f"{tag}/wav"]).audio_codes, codes)
    for name, chosen, first in (
        ("decode", codes, 0),
        ("decode_rvq1", codes[:, :1], 0),
        ("decode_st2_4", codes[:, 2:6], 2),
    ):
        values = model.decode(chosen, first_quantizer=first).audio_values
        torch.testing.assert_close(values, io[f"{tag}/{name}"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_original_forward(original):
    model, io = original
    output = model(io["w8000/wav"])
    torch.testing.assert_close(output.audio_values, io["w8000/forward"], atol=1e-4, rtol=0)
    torch.testing.assert_close(output.semantic_values, io["w8000/semantic_feature"], atol=1e-5, rtol=0)
    three = model.encode(io["w8000/wav"], num_quantizers=3).audio_codes
    assert torch.equal(three, io["w8000/codes_nq3"].transpose(0, 1))
    later = model.encode(io["w8000/wav"], num_quantizers=5, first_quantizer=2).audio_codes
    assert torch.equal(later, io["w8000/codes_nq5_st2"].transpose(0, 1))
    codes = io["w8000/codes"].transpose(0, 1)
    for level, expected in zip((0, 2), io["w8000/forward_feature_0_2"], strict=True):
        part = model.quantizer.decode(codes[:, level : level + 1], level)
        torch.testing.assert_close(part, expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_padded_batch_equals_clips_alone(original):
    model, io = original
    clips = [io["w8000/wav"][0], io["w9601/wav"][0], io["w100/wav"][0], io["w321/wav"][0]]
    lengths = [clip.shape[-1] for clip in clips]
    padded = torch.full((4, 1, 9601), 0.3)  # padding that is not silence must not matter either
    mask = torch.zeros(4, 9601, dtype=torch.bool)
    for row, clip in enumerate(clips):
        padded[row, :, : lengths[row]] = clip
        mask[row, : lengths[row]] = True
    batch = model.encode(padded, mask)
    assert batch.code_mask.sum(1).tolist() == [25, 31, 1, 2]
    sound = model.decode(batch.audio_codes, batch.code_mask)
    assert sound.padding_mask.sum(1).tolist() == [8000, 9920, 320, 640]
    for row, clip in enumerate(clips):
        alone = model.encode(clip[None]).audio_codes
        frames = alone.shape[-1]
        assert torch.equal(batch.audio_codes[row, :, :frames], alone[0])
        assert not batch.audio_codes[row, :, frames:].any()
        expected = model.decode(alone).audio_values[0]
        torch.testing.assert_close(sound.audio_values[row, :, : 320 * frames], expected, atol=1e-6, rtol=0)
        assert not sound.audio_values[row, :, 320 * frames :].any()


@pytest.mark.parametrize("change", [{}, {"bidirectional": False}, {"kernel_size": 6, "num_residual_layers": 3}])
@pytest.mark.parametrize("longest", [700, 9000])
@torch.no_grad()
def test_clips_of_random_lengths_in_one_pass(change, longest, monkeypatch):
    def one_pass(lengths, limit, shape):
        return [(torch.arange(shape[0]), shape[1] if lengths is None else int(lengths.max()), lengths)]

    monkeypatch.setattr(modeling_speech_codec, "passes", one_pass)
    model = SolamiSpeechCodecModel(SolamiSpeechCodecConfig(**TINY | change)).eval()
    lengths = torch.cat([torch.randint(1, longest, (6,)), torch.tensor([1, 2, 319, 320, 321, longest])])
    wave = torch.randn(len(lengths), 1, longest) * 0.1
    mask = torch.arange(longest) < lengths[:, None]
    batch = model.encode(wave, mask)
    frames = batch.code_mask.sum(1)
    assert frames.tolist() == [-(-n // 320) for n in lengths.tolist()]
    sound = model.decode(batch.audio_codes, batch.code_mask).audio_values
    for row, (samples, count) in enumerate(zip(lengths.tolist(), frames.tolist(), strict=True)):
        alone = model.encode(wave[row : row + 1, :, :samples]).audio_codes
        assert torch.equal(batch.audio_codes[row, :, :count], alone[0])
        expected = model.decode(alone).audio_values[0]
        torch.testing.assert_close(sound[row, :, : 320 * count], expected, atol=1e-5, rtol=0)
        assert not sound[row, :, 320 * count :].any()


@pytest.mark.parametrize(
    ("left", "right", "stride"), [(3, 3, 1), (1, 1, 1), (4, 4, 8), (3, 2, 5), (1, 1, 2), (0, 0, 2)]
)
def test_each_clip_is_reflected_as_if_alone(left, right, stride):
    lengths = torch.arange(1, 30)
    values = torch.randn(29, 2, 29)
    padded = reflect_pad_each(values, left, right, stride, lengths)
    for clip, result, length in zip(values, padded, lengths.tolist(), strict=True):
        alone = reflect_pad(clip[None, :, :length], left, right + -length % stride)[0]
        assert torch.equal(result[:, : alone.shape[-1]], alone)
    two = reflect_pad_each(torch.tensor([[[1.0, 2.0, 9.0, 9.0]]]), 3, 3, 1, torch.tensor([2]))
    assert two[0, 0, :8].tolist() == [0, 0, 2, 1, 2, 0, 0, 0]  # too short to be reflected: zeros, as the original


def test_large_batches_are_split_into_passes_of_like_length():
    lengths = torch.tensor([5, 90, 40, 7, 41, 90, 31])
    found = [(rows.tolist(), longest, clips) for rows, longest, clips in passes(lengths, 130, (7, 90))]
    assert [(rows, longest) for rows, longest, _ in found] == [
        ([5], 90), ([1], 90), ([6, 2, 4], 41), ([3], 7), ([0], 5)
    ]  # fmt: skip
    assert found[2][2].tolist() == [31, 40, 41] and found[0][2] is None
    assert [rows.tolist() for rows, *_ in passes(lengths, 100, (7, 90))] == [[5], [1], [2, 4], [6], [3], [0]]
    assert next(passes(torch.tensor([3, 3]), 9, (2, 3)))[2] is None  # nothing to pad
    assert list(passes(None, 7, (5, 3))) == [(slice(0, 2), 3, None), (slice(2, 4), 3, None), (slice(4, 6), 3, None)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_saved_and_loaded(tiny, tmp_path, dtype):
    tiny.to(dtype).save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "encoder.layers.0.gain" in names and "quantizer.levels.2.codebook" in names
    loaded = SolamiSpeechCodecModel.from_pretrained(tmp_path, dtype=torch.float32)
    assert loaded.dtype == torch.float32
    for name, value in tiny.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.float()), name
    wave = torch.rand(1, 1, 1000) - 0.5
    assert torch.equal(loaded.encode(wave).audio_codes, tiny.float().encode(wave).audio_codes)


def test_codebook_follows_its_vectors():
    codebook = SpeechCodecCodebook(SolamiSpeechCodecConfig(hidden_size=2, codebook_size=2, codebook_decay=0.5))
    codebook.set_codes(torch.tensor([[0.0, 0.0], [4.0, 4.0]]), torch.tensor([2.0, 2.0]))
    vectors = torch.tensor([[1.0, 0.0], [1.0, 2.0], [4.0, 5.0]])
    codes = codebook.encode(vectors)
    assert codes.tolist() == [0, 0, 1]
    codebook.update(vectors, codes)
    # Sums and counts are half old, half new: (0 + 2) / (2 + 2), (0 + 2) / (2 + 2); (8 + 4) / (2 + 1), (8 + 5) / 3.
    torch.testing.assert_close(codebook.codebook, torch.tensor([[0.5, 0.5], [4.0, 13 / 3]]))
    assert codebook.code_counts.tolist() == [2.0, 1.5]


def test_dead_code_is_replaced_by_a_vector():
    codebook = SpeechCodecCodebook(SolamiSpeechCodecConfig(hidden_size=2, codebook_size=2, dead_code_share=0.1))
    codebook.set_codes(torch.tensor([[0.0, 0.0], [99.0, 99.0]]), torch.tensor([10.0, 0.01]))
    codebook.update(torch.tensor([[1.0, 1.0]]), torch.tensor([0]))
    torch.testing.assert_close(codebook.codebook[1], torch.tensor([1.0, 1.0]))


def test_training_forward_moves_codebooks_and_evaluation_does_not(tiny):
    wave = torch.rand(2, 1, 640) - 0.5
    before = tiny.quantizer.levels[0].codebook.clone()
    output = tiny(wave, num_quantizers=torch.tensor([1, 3]))
    assert torch.equal(tiny.quantizer.levels[0].codebook, before)
    assert output.audio_values.shape == wave.shape and output.audio_codes.shape == (2, 3, 2)
    alone = tiny.decode(output.audio_codes[:1, :1]).audio_values
    torch.testing.assert_close(output.audio_values[:1], alone, atol=1e-5, rtol=0)
    tiny.train()(wave).loss.backward()
    assert not torch.equal(tiny.quantizer.levels[0].codebook, before)
    assert tiny.encoder.layers[0].direction.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (torch.zeros(1, 640), "expected a float waveform of shape"),
        (torch.zeros(1, 2, 640), "average stereo"),
        (torch.zeros(1, 1, 640, dtype=torch.int16), "int16"),
        (torch.zeros(1, 1, 0), "empty"),
        (torch.zeros(0, 1, 640), "empty"),
        (torch.full((1, 1, 640), float("nan")), "NaN"),
        (torch.full((1, 1, 640), float("inf")), "infinite"),
    ],
)
def test_bad_waveforms(tiny, wave, message):
    with pytest.raises(ValueError, match=message):
        tiny.encode(wave)
    with pytest.raises(ValueError, match=message):
        tiny(wave)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(1, 100, dtype=torch.bool), "expected torch.bool of shape"),
        (torch.ones(1, 640), "expected torch.bool"),
        (torch.zeros(1, 640, dtype=torch.bool), "all padding"),
        (torch.arange(640)[None] >= 100, "padding before real"),
    ],
)
def test_bad_masks(tiny, mask, message):
    with pytest.raises(ValueError, match=message):
        tiny.encode(torch.zeros(1, 1, 640), mask)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 4, dtype=torch.long), "expected integers"),
        (torch.zeros(1, 1, 4), "expected integers"),
        (torch.zeros(1, 1, 0, dtype=torch.long), "empty"),
        (torch.zeros(1, 4, 4, dtype=torch.long), "the codec has 3"),
        (torch.full((1, 1, 4), 16), "expected 0 to 15"),
        (torch.full((1, 1, 4), -1), "expected 0 to 15"),
    ],
)
def test_bad_codes(tiny, codes, message):
    with pytest.raises(ValueError, match=message):
        tiny.decode(codes)


@pytest.mark.parametrize("levels", [0, 4])
def test_bad_number_of_levels(tiny, levels):
    with pytest.raises(ValueError, match="expected 1 to 3"):
        tiny.encode(torch.zeros(1, 1, 640), num_quantizers=levels)


def test_bad_first_level(tiny):
    with pytest.raises(ValueError, match="first_quantizer is 2, expected 0 to 1"):
        tiny.encode(torch.zeros(1, 1, 640), num_quantizers=2, first_quantizer=2)


def test_bad_config():
    with pytest.raises(ValueError, match="codebook_size is 0"):
        SolamiSpeechCodecConfig(codebook_size=0)
    with pytest.raises(ValueError, match="every stride is 0"):
        SolamiSpeechCodecConfig(strides=[8, 0])
    with pytest.raises(ValueError, match="codebook_decay"):
        SolamiSpeechCodecConfig(codebook_decay=1.0)
    config = SolamiSpeechCodecConfig()
    assert (config.hop_length, config.frame_rate) == (320, 50.0)


def test_convert_refuses_what_does_not_fit(golden, tmp_path):
    folder = golden / "speechtokenizer"
    with pytest.raises(FileNotFoundError, match="nothing.pt"):
        convert_speech_codec(folder / "config.json", tmp_path / "nothing.pt")
    sizes = json.loads((folder / "config.json").read_text())
    config = tmp_path / "config.json"
    for change, message in (
        ({"activation": "Snake"}, "only 'ELU'"),
        ({"codebook_size": 64}, "does not fit"),
    ):
        config.write_text(json.dumps(sizes | change))
        with pytest.raises(ValueError, match=message):
            convert_speech_codec(config, folder / "ckpt.dev")
    del sizes["n_q"]
    config.write_text(json.dumps(sizes))
    with pytest.raises(ValueError, match="lacks n_q"):
        convert_speech_codec(config, folder / "ckpt.dev")
