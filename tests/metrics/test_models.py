"""Metrics that need a network agree with a direct use of it, and take any model of the Hub from a folder."""

import jiwer
import numpy as np
import pytest
import torch

TEXTS = ["a person waves the left hand", "someone walks in a small circle", "the man jumps"]
PEOPLE = [["a person waves a hand", "somebody greets"], ["someone walks in a small park"], ["the man jumps"]]


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    return [rng.normal(size=size).astype(np.float32) * 0.1 for size in (9000, 16000)]


@pytest.fixture(scope="module")
def tiny_ctc(tmp_path_factory):
    """A speech recogniser of a few thousand random weights that writes letters."""
    import json

    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ctc")
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    conv = {"conv_dim": (16, 16), "conv_kernel": (10, 8), "conv_stride": (20, 16)}
    config = Wav2Vec2Config(
        vocab_size=13, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, **sizes, **conv
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=False), tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tiny_whisper(tmp_path_factory):
    """A Whisper of a few thousand random weights with the vocabulary of tiny.en."""
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizerFast,
    )

    from solami_hf.metrics import asr

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("whisper")
    config = WhisperConfig(
        vocab_size=51864, num_mel_bins=80, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=50256, bos_token_id=50256,
        eos_token_id=50256, decoder_start_token_id=50257,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config.max_length = 12
    model.generation_config.is_multilingual = False
    model.generation_config.no_timestamps_token_id = 50362
    model.save_pretrained(folder)
    tokenizer = WhisperTokenizerFast(tokenizer_file=str(asr.packaged_model() / "tokenizer.json"))
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return str(folder)


def test_wer_of_a_ctc_model(load, tiny_ctc, clips):
    from transformers import AutoModelForCTC, AutoProcessor

    model, processor = AutoModelForCTC.from_pretrained(tiny_ctc).eval(), AutoProcessor.from_pretrained(tiny_ctc)
    heard = []
    for clip in clips:
        with torch.inference_mode():
            logits = model(**processor(clip, sampling_rate=16000, return_tensors="pt")).logits
        heard.append(processor.batch_decode(logits.argmax(-1))[0])
    assert any(heard)
    result = load("speech_wer").compute(
        predictions=clips, references=["A BAD HEAD"] * 2, model_id=tiny_ctc, normalizer="none"
    )
    assert result["wer"] == jiwer.wer(["A BAD HEAD"] * 2, heard)
    assert result["model"] == tiny_ctc and result["normalizer"] == "none" and result["num_words"] == 6


def test_whisper_folders_are_taken(tiny_whisper, clips):
    from transformers import AutoProcessor, WhisperForConditionalGeneration

    from solami_hf.metrics.asr import HubTranscriber

    model = WhisperForConditionalGeneration.from_pretrained(tiny_whisper)
    processor = AutoProcessor.from_pretrained(tiny_whisper)
    features = processor(clips[0], sampling_rate=16000, return_tensors="pt").input_features
    direct = processor.batch_decode(model.generate(features, do_sample=False, num_beams=1), skip_special_tokens=True)[
        0
    ]
    transcribe = HubTranscriber(tiny_whisper)
    assert transcribe(clips[:1])[0] == direct.strip()
    assert transcribe([np.zeros(10, np.float32)]) == [""]


def test_unknown_models(load, clips):
    with pytest.raises(OSError):
        load("speech_wer").compute(predictions=clips, references=["a", "b"], model_id="/none/such")
    with pytest.raises(OSError):
        load("speaker_similarity").compute(predictions=clips, references=clips, model_id="/none/such")


def test_similarity_of_an_xvector_model(load, tiny_xvector, clips):
    from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

    model = AutoModelForAudioXVector.from_pretrained(tiny_xvector).eval()
    extractor = AutoFeatureExtractor.from_pretrained(tiny_xvector)
    with torch.inference_mode():
        one, two = (model(**extractor(c, sampling_rate=16000, return_tensors="pt")).embeddings for c in clips)
    expected = float(torch.nn.functional.cosine_similarity(one, two))
    result = load("speaker_similarity").compute(predictions=clips, references=clips[::-1], model_id=tiny_xvector)
    assert result["speaker_similarity"] == pytest.approx(expected, abs=1e-6) and abs(expected) < 0.999
    own = load("speaker_similarity").compute(predictions=clips, references=clips, model_id=tiny_xvector)
    assert own["speaker_similarity"] == pytest.approx(1) and own["model"] == tiny_xvector


def test_wer_of_real_speech_agrees_with_whisper_itself(load, speech):
    from faster_whisper import WhisperModel
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    from solami_hf.metrics import asr

    clips, texts = speech
    model = WhisperModel(str(asr.packaged_model()), device="cpu", compute_type="float32", local_files_only=True)
    options = {"language": "en", "beam_size": 5, "temperature": 0.0, "condition_on_previous_text": False}
    heard = [" ".join(segment.text.strip() for segment in model.transcribe(clip, **options)[0]) for clip in clips]
    normalize = EnglishTextNormalizer({"harbour": "harbor"})
    expected = jiwer.wer([normalize(text) for text in texts], [normalize(text) for text in heard])
    result = load("speech_wer").compute(predictions=clips, references=texts)
    assert result["wer"] == expected < 0.1
    assert result["model"].startswith("whisper-tiny.en") and result["normalizer"] == "whisper_english"


def test_similarity_of_real_speech_agrees_with_resemblyzer_itself(load, spoken):
    from resemblyzer import VoiceEncoder, preprocess_wav

    from solami_hf.metrics.speaker import SpeakerEmbedder

    clips = [clip for clip, _ in spoken]
    same = load("speaker_similarity").compute(predictions=clips[:1], references=clips[1:], model_id="resemblyzer")[
        "speaker_similarity"
    ]
    assert same > 0.75
    encoder = VoiceEncoder("cpu", verbose=False)
    direct = [encoder.embed_utterance(preprocess_wav(clip)) for clip in clips]
    # Ours brings loud clips down as well and cuts short of full scale; the voices hardly change.
    assert same == pytest.approx(float(direct[0] @ direct[1]), abs=0.03)
    ours = SpeakerEmbedder()(clips)
    assert same == pytest.approx(float(ours[0] @ ours[1]), abs=1e-6)


@pytest.mark.system("pocketsphinx-testdata")
def test_another_speaker_is_less_similar(load, spoken, recorded):
    other = load("speaker_similarity").compute(
        predictions=[spoken[0][0]], references=[recorded[0][0]], model_id="resemblyzer"
    )["speaker_similarity"]
    assert other < 0.65


def test_bertscore_of_a_folder(load, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = sorted({word for text in [*TEXTS, *sum(PEOPLE, [])] for word in text.split()})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=64,
    ).save_pretrained(tmp_path)  # fmt: skip
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(tmp_path)
    caption = load("motion_caption")

    def score(predictions, references, **options):
        return caption.compute(
            predictions=predictions, references=references, scores=["bertscore"], model_id=str(tmp_path), **options
        )

    result = score(TEXTS, TEXTS)
    assert result["bertscore"] == pytest.approx(1, abs=1e-5) and result["model"] == str(tmp_path)
    other = score(TEXTS, TEXTS[1:] + TEXTS[:1])["bertscore"]
    assert other < 0.99
    best = [
        max(score([text], [person])["bertscore"] for person in row) for text, row in zip(TEXTS, PEOPLE, strict=True)
    ]
    assert score(TEXTS, PEOPLE)["bertscore"] == pytest.approx(np.mean(best), abs=1e-5)
    assert score(TEXTS, TEXTS[1:] + TEXTS[:1], layer=1)["bertscore"] != pytest.approx(other, abs=1e-4)
    assert score([None, *TEXTS[1:]], TEXTS)["valid"] == pytest.approx(2 / 3)
    assert score(["", *TEXTS[1:]], TEXTS)["bertscore"] == pytest.approx(2 / 3, abs=1e-5)
    assert score(TEXTS[1:] + TEXTS[:1], TEXTS, mode="upstream")["bertscore"] == pytest.approx(1, abs=1e-5)


def test_captions_agree_with_the_libraries(load):
    import sacrebleu
    from pycocoevalcap.cider.cider import Cider
    from rouge_score.rouge_scorer import RougeScorer

    result = load("motion_caption").compute(predictions=TEXTS, references=PEOPLE)
    columns = [[row[0] for row in PEOPLE], [row[1] if len(row) > 1 else None for row in PEOPLE]]
    assert result["bleu_1"] == pytest.approx(
        sacrebleu.BLEU(max_ngram_order=1).corpus_score(TEXTS, columns).score / 100
    )
    assert result["bleu_4"] == pytest.approx(
        sacrebleu.BLEU(smooth_method="none").corpus_score(TEXTS, columns).score / 100
    )
    scorer = RougeScorer(["rougeL"])
    pairs = zip(PEOPLE, TEXTS, strict=True)
    assert result["rouge_l"] == pytest.approx(np.mean([scorer.score_multi(a, b)["rougeL"].fmeasure for a, b in pairs]))
    theirs, _ = Cider().compute_score(dict(enumerate(PEOPLE)), {i: [text] for i, text in enumerate(TEXTS)})
    assert result["cider"] == pytest.approx(theirs)
    shouted = load("motion_caption").compute(predictions=[text.upper() + "!" for text in TEXTS], references=PEOPLE)
    assert shouted == result  # case and punctuation are no words
