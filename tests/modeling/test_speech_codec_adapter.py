"""Codecs of transformers behind our contract, on tiny seeded checkpoints of each class."""

import pytest
import torch
from transformers import (
    AutoModel,
    AutoProcessor,
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    HubertConfig,
    LlamaConfig,
    LlamaModel,
    MimiConfig,
    MimiModel,
    Wav2Vec2BertConfig,
    Xcodec2Config,
    Xcodec2Model,
    XcodecConfig,
    XcodecModel,
)

from solami_hf.modeling.speech_codec.codec_interface import codec_fingerprint
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.modeling.speech_codec.speech_codec_adapter import (
    SpeechCodecAdapter,
    adapter_config,
    as_speech_codec,
    load_speech_codec,
)
from solami_hf.processing.processing_solami import SolamiProcessor


def mimi():
    return MimiModel(
        MimiConfig(
            hidden_size=16, num_filters=2, upsampling_ratios=[4, 2], codebook_size=32, codebook_dim=8,
            vector_quantization_hidden_dimension=8, num_quantizers=10, upsample_groups=16, num_hidden_layers=1,
            intermediate_size=16, num_attention_heads=2, num_key_value_heads=2, sampling_rate=1600,
        )
    )  # fmt: skip


def encodec(**change):
    sizes = dict(
        target_bandwidths=[1.0, 2.0, 4.0], sampling_rate=1600, hidden_size=16, num_filters=2, codebook_size=32,
        upsampling_ratios=[4, 2], num_lstm_layers=1, codebook_dim=16,
    )  # fmt: skip
    return EncodecModel(EncodecConfig(**sizes | change))


def dac():
    return DacModel(
        DacConfig(
            encoder_hidden_size=4, decoder_hidden_size=16, downsampling_ratios=[2, 5], n_codebooks=3, codebook_size=32,
            codebook_dim=4, sampling_rate=1600,
        )
    )  # fmt: skip


def xcodec2():
    semantic = Wav2Vec2BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conformer_conv_dropout=0.0,
        feature_projection_input_dim=160, output_hidden_size=32,
    )  # fmt: skip
    return Xcodec2Model(
        Xcodec2Config(
            hidden_size=64, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
            head_dim=32, encoder_hidden_size=4, semantic_model_config=semantic.to_dict(), quantization_dim=96,
            quantization_levels=[4, 4, 4],
        )
    )  # fmt: skip


def xcodec():
    acoustic = DacConfig(encoder_hidden_size=2, decoder_hidden_size=16, downsampling_ratios=[8, 5, 4, 2])
    semantic = HubertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    return XcodecModel(
        XcodecConfig(
            acoustic_model_config={**acoustic.to_dict(), "hidden_size": 32, "upsampling_ratios": [8, 5, 4, 2]},
            semantic_model_config=semantic.to_dict(), codebook_size=32, target_bandwidths=[0.25, 1.0],
        )
    )  # fmt: skip


# class -> (how it is made, levels, codes of each, levels of the language model by default, samples of a frame)
CODECS = {
    "mimi": (mimi, 10, 32, 8, 16),
    "encodec": (encodec, 4, 32, 1, 8),
    "dac": (dac, 3, 32, 3, 10),
    "xcodec2": (xcodec2, 1, 64, 1, 320),
    "xcodec": (xcodec, 4, 32, 4, 320),  # known by nothing but its configuration
}


def tiny_codec(kind, **options):
    torch.manual_seed(3)
    model = CODECS[kind][0]()
    with torch.no_grad():  # codebooks of new EnCodec and Mimi models are all zeros
        for name, buffer in model.named_buffers():
            if name.endswith((".embed", ".embed_sum")):
                buffer.normal_(std=0.05)
        if kind == "xcodec2":
            model.quantizer.project_in.weight.mul_(5000)  # fresh latents hardly differ from 0
        if kind == "encodec":  # its fresh encoder hardly moves: codes must lie where its latents do
            latents = model.encoder(torch.randn(1, 1, 32 * 8) * 0.1)[0].T
            for level in model.quantizer.layers:
                level.codebook.embed.copy_(latents)
                latents = torch.randn_like(latents) * 0.005
    return SpeechCodecAdapter(model.eval(), **options)


@pytest.fixture(params=CODECS)
def kind(request):
    return request.param


def test_sizes_come_from_the_configuration(kind):
    _, levels, size, lm_levels, hop = CODECS[kind]
    config = tiny_codec(kind).config
    assert (config.num_quantizers, config.codebook_size, config.lm_levels, config.hop_length) == (
        levels, size, lm_levels, hop
    )  # fmt: skip
    assert config.frame_rate == config.sampling_rate / hop


def test_the_published_sizes():
    sizes = {
        "mimi": (MimiConfig(), (24000, 1920, 32, 2048, 8)),
        "encodec": (EncodecConfig(), (24000, 320, 32, 1024, 2)),
        "dac": (DacConfig(n_codebooks=12, downsampling_ratios=[2, 4, 5, 8]), (16000, 320, 12, 1024, 12)),
        "xcodec2": (Xcodec2Config(), (16000, 320, 1, 65536, 1)),
    }
    for config, expected in sizes.values():
        c = adapter_config(config)
        assert (c.sampling_rate, c.hop_length, c.num_quantizers, c.codebook_size, c.lm_levels) == expected


def test_speech_to_codes_and_back(kind):
    codec = tiny_codec(kind)
    hop, levels, size = codec.config.hop_length, codec.config.num_quantizers, codec.config.codebook_size
    wave = torch.randn(2, 1, 20 * hop + 3) * 0.1
    codes = codec.encode(wave).audio_codes
    assert codes.shape == (2, levels, 21) and codes.dtype == torch.long
    assert 0 <= codes.min() and codes.max() < size and codes.unique().numel() > 5
    assert torch.equal(codec.encode(wave, num_quantizers=1).audio_codes, codes[:, :1])
    for count in {1, levels}:
        output = codec.decode(codes[:, :count])
        assert output.audio_values.shape == (2, 1, 21 * hop) and output.padding_mask.all()
        assert output.audio_values.isfinite().all() and output.audio_values.std() > 0


def test_codes_are_those_of_the_codec_itself(kind):
    codec = tiny_codec(kind)
    wave = torch.randn(1, 1, 12 * codec.config.hop_length) * 0.1
    ours, inner = codec.encode(wave).audio_codes, codec.codec
    with torch.no_grad():
        if kind == "encodec":
            theirs = inner.encode(wave, bandwidth=4.0).audio_codes[0]
            sound = inner.decode(theirs[None], [None]).audio_values
        elif kind == "xcodec2":
            from transformers import Xcodec2FeatureExtractor

            inputs = Xcodec2FeatureExtractor()(wave[0, 0].numpy(), sampling_rate=16000, return_tensors="pt")
            theirs = inner.encode(inputs["input_values"], inputs["input_features"]).audio_codes[..., :12]
            sound = inner.decode(theirs).audio_values
        else:
            theirs = inner.encode(wave).audio_codes
            sound = inner.decode(audio_codes=theirs).audio_values
    assert torch.equal(ours, theirs)
    values = codec.decode(ours).audio_values
    torch.testing.assert_close(values.flatten()[: sound.numel()], sound.flatten(), atol=1e-6, rtol=0)


def test_padded_batches_equal_clips_alone(kind):
    codec = tiny_codec(kind)
    hop = codec.config.hop_length
    lengths = torch.tensor([11 * hop, 1, 7 * hop + 1, 11 * hop])
    wave = torch.randn(4, 1, 11 * hop) * 0.1
    batch = codec.encode(wave, torch.arange(11 * hop) < lengths[:, None])
    assert batch.code_mask.sum(1).tolist() == [11, 1, 8, 11]
    sound = codec.decode(batch.audio_codes, batch.code_mask)
    for row, length in enumerate(lengths.tolist()):
        alone = codec.encode(wave[row : row + 1, :, :length]).audio_codes
        count = alone.shape[-1]
        assert torch.equal(batch.audio_codes[row, :, :count], alone[0]) and not batch.audio_codes[row, :, count:].any()
        expected = codec.decode(alone).audio_values[0]
        torch.testing.assert_close(sound.audio_values[row, :, : hop * count], expected, atol=1e-4, rtol=0)


def test_saved_as_a_checkpoint_of_the_codec_itself(kind, tmp_path):
    levels = CODECS[kind][1]
    codec = tiny_codec(kind, lm_levels=levels)
    codec.save_pretrained(tmp_path / "speech_codec")
    assert type(AutoModel.from_pretrained(tmp_path / "speech_codec")) is type(codec.codec)
    loaded = load_speech_codec(tmp_path, subfolder="speech_codec")
    assert loaded.config == codec.config and loaded.config.lm_levels == levels
    assert codec_fingerprint(loaded) == codec_fingerprint(codec)
    wave = torch.randn(1, 1, 9 * codec.config.hop_length) * 0.1
    assert torch.equal(loaded.encode(wave).audio_codes, codec.encode(wave).audio_codes)


def test_a_chat_is_rendered_and_parsed(kind, tiny_tokenizer, tmp_path):
    codec = tiny_codec(kind)
    hop, levels = codec.config.hop_length, codec.config.lm_levels
    SolamiProcessor(tiny_tokenizer, speech_codec=codec).save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert processor.speech_levels == levels
    assert processor.modalities["speech"]["size"] == levels * codec.config.codebook_size
    sound = (torch.randn(9 * hop) * 0.1).numpy()
    content = [{"type": "motion", "motion": {"body": [1], "hand": [2]}}, {"type": "audio", "audio": sound}]
    rendered = processor.apply_chat_template(
        [{"role": "user", "content": content}, {"role": "assistant", "content": content}],
        tokenize=True, return_dict=True, return_assistant_tokens_mask=True,
    )  # fmt: skip
    said = torch.tensor(rendered["input_ids"])[torch.tensor(rendered["assistant_masks"]) == 1]
    answer = processor.parse_response(said)
    assert answer.valid and len(answer.speech) == 9 * levels
    expected = codec.encode(torch.from_numpy(sound)[None, None], num_quantizers=levels).audio_codes
    assert answer.speech.reshape(9, levels)[:, 0].tolist() == expected[0, 0].tolist()
    values = codec.decode(expected).audio_values[0, 0]
    spoken = torch.from_numpy(processor.decode_speech(answer.speech))
    torch.testing.assert_close(spoken / spoken.abs().max(), values / values.abs().max(), atol=1e-5, rtol=0)


def test_the_fingerprint_covers_the_levels():
    one, three = tiny_codec("dac", lm_levels=1), tiny_codec("dac", lm_levels=3)
    assert codec_fingerprint(one) != codec_fingerprint(three)


def test_ours_is_loaded_as_it_is(tmp_path):
    sizes = {"num_filters": 2, "hidden_size": 8, "semantic_size": 4, "codebook_size": 16, "num_quantizers": 3}
    codec = SolamiSpeechCodecModel(SolamiSpeechCodecConfig(**sizes, lm_levels=2)).eval()
    assert as_speech_codec(codec) is codec
    codec.save_pretrained(tmp_path)
    loaded = load_speech_codec(str(tmp_path))
    assert isinstance(loaded, SolamiSpeechCodecModel) and loaded.config.lm_levels == 2
    with pytest.raises(ValueError, match="lm_levels is 3, but the codec was made for 2"):
        load_speech_codec(tmp_path, lm_levels=3)
    with pytest.raises(ValueError, match="lm_levels is 4, expected 1 to 3"):
        SolamiSpeechCodecConfig(**sizes, lm_levels=4)


def test_what_is_no_codec_is_refused():
    llama = LlamaModel(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    with pytest.raises(ValueError, match="a llama model cannot be the speech codec"):
        as_speech_codec(llama)
    with pytest.raises(ValueError, match="must be a model of transformers or ours, got int"):
        as_speech_codec(3)
    for change in ({"audio_channels": 2}, {"normalize": True}, {"chunk_length_s": 1.0, "overlap": 0.01}):
        with pytest.raises(ValueError, match="use one for whole mono clips"):
            SpeechCodecAdapter(encodec(**change))
    for levels in (0, 4):
        with pytest.raises(ValueError, match=f"lm_levels is {levels}, expected 1 to 3"):
            tiny_codec("dac", lm_levels=levels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.encode(torch.zeros(1, 2, 640)), "average stereo"),
        (lambda c: c.encode(torch.zeros(1, 1, 0)), "empty"),
        (lambda c: c.encode(torch.full((1, 1, 640), float("nan"))), "NaN"),
        (lambda c: c.encode(torch.zeros(1, 1, 640), num_quantizers=4), "expected 1 to 3"),
        (lambda c: c.encode(torch.zeros(1, 1, 640), torch.zeros(1, 640, dtype=torch.bool)), "all padding"),
        (lambda c: c.decode(torch.zeros(1, 4, 5, dtype=torch.long)), "the codec has 3"),
        (lambda c: c.decode(torch.full((1, 3, 5), 32)), "expected 0 to 31"),
        (lambda c: c.decode(torch.zeros(1, 3, 0, dtype=torch.long)), "empty"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_codec("dac"))
