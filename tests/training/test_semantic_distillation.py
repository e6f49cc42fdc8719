import pytest
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from solami_hf.training.speech.speech_codec_losses import SemanticTeacher, distillation_loss


def hubert():
    config = HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 3,
        conv_kernel=(10, 8, 4), conv_stride=(8, 8, 5), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    return HubertModel(config), Wav2Vec2FeatureExtractor()


def w2v_bert():
    config = Wav2Vec2BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_depthwise_kernel_size=3
    )
    return Wav2Vec2BertModel(config), SeamlessM4TFeatureExtractor()


def whisper():
    config = WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, begin_suppress_tokens=None,
    )  # fmt: skip
    return WhisperModel(config), WhisperFeatureExtractor()


@pytest.fixture(params=[hubert, w2v_bert, whisper])
def folder(request, tmp_path):
    torch.manual_seed(0)
    for part in request.param():
        part.save_pretrained(tmp_path)
    return tmp_path


def test_any_encoder_gives_a_vector_a_frame(folder):
    values = 0.1 * torch.randn(2, 1, 6400)
    for layer in (None, -1, 1):
        teacher = SemanticTeacher(folder, layer, 16000)
        teacher.measure([values], 20)
        states = teacher(values, 20)
        assert states.shape == (2, 20, 16) and not states.requires_grad
        torch.testing.assert_close(states.flatten(0, 1).mean(0), torch.zeros(16), atol=1e-4, rtol=0)
        assert states.flatten(0, 1).std(0).max() < 1.01
    assert not torch.equal(teacher(values, 20), teacher(values.flip(-1), 20))


def test_a_wrong_rate_or_layer_is_refused(tmp_path):
    for part in hubert():
        part.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="reads 16000 Hz, the codec 24000 Hz"):
        SemanticTeacher(tmp_path, None, 24000)
    with pytest.raises(ValueError, match="semantic_layer is 3, but .* has layers -3 to 2"):
        SemanticTeacher(tmp_path, 3, 16000)


def test_the_loss_is_zero_for_the_same_and_one_by_chance():
    torch.manual_seed(0)
    states = torch.randn(4, 30, 64)
    assert distillation_loss(3 * states, states) < 1e-5
    assert abs(distillation_loss(torch.randn(4, 30, 64), states) - 1) < 0.05
    assert distillation_loss(-states, states) > 1.99
