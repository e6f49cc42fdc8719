"""Teaching level 0 of a codec to say the same in every voice: alignment, units, windows, and a whole small run."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SeamlessM4TFeatureExtractor, TrainingArguments, Wav2Vec2BertConfig, Wav2Vec2BertModel

from benchmarks.judged_voices import HELD_OUT, held_out_sentences
from research.packaged_speech import __main__ as research
from research.packaged_speech import parallel_speech
from research.packaged_speech.parallel_speech import (
    EXCHANGED,
    OWN,
    ExchangeWindows,
    ParallelSpeech,
    exchanged_codes,
    exchanged_speech,
    features_of,
    latents_of_voices,
    run_head,
    sentence_of,
    speak_parallel,
)
from research.packaged_speech.prompt_voice import (
    PromptVoiceArguments,
    PromptVoiceTrainingArguments,
    PromptVoiceWindows,
    train_prompt_voice,
)
from research.packaged_speech.speech_alignment import align, warp
from research.packaged_speech.speech_units import shared_units
from research.packaged_speech.voice_exchange import (
    VoiceExchangeArguments,
    VoiceExchangeTrainingArguments,
    exchange_voices,
)
from research.packaged_speech.voice_exchange_start import read_through, teach_units
from research.packaged_speech.voice_level import make_level_1_the_voice
from research.packaged_speech.write_package import PackageArguments
from solami_hf.command_line import parse_arguments
from solami_hf.modeling.speech_codec.codec_interface import codec_fingerprint
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.processing.audio.speech_sentences import sentences
from solami_hf.processing.files.text_files import read_text
from solami_hf.training.soundstorm.soundstorm_data import SpeechCodes
from solami_hf.training.soundstorm.train_soundstorm import SoundStormArguments
from solami_hf.training.speech.semantic_teacher import TeacherArguments, TeacherTrainingArguments
from solami_hf.training.speech.speech_codec_arguments import SpeechCodecArguments, SpeechCodecTrainingArguments
from solami_hf.training.speech.speech_decoder import own_and_filled
from solami_hf.training.speech.train_speech_codec import train_speech_codec
from solami_hf.training.speech_recordings import Recordings

sys.path.append(str(Path(__file__).parents[1]))
from small_speech import own_codec, soundstorm  # noqa: E402

SENTENCES = 4


def voice(pitch: float, speed: float) -> Recordings:
    """The same "words", three tones each, by a voice of its own pitch and speed."""
    clips = []
    for index in range(SENTENCES):
        rng = np.random.default_rng(index)
        tones = [
            np.sin(2 * np.pi * pitch * rng.choice([220, 440, 880]) * np.arange(int(11000 / speed)) / 16000)
            for _ in range(3)
        ]
        clips.append(0.2 * np.concatenate(tones) + 0.01 * rng.standard_normal(3 * int(11000 / speed)))
    return Recordings.join(clips, sentences(SENTENCES, 42))


@pytest.fixture
def codec():
    torch.manual_seed(0)
    codec = own_codec(bidirectional=False)
    for level in codec.quantizer.levels:
        level.set_codes(0.1 * torch.randn(16, 8), torch.ones(16))
    return codec


@pytest.fixture
def speech(codec):
    recordings = [voice(1.0, 1.0), voice(1.2, 0.9)]
    features = [features_of(codec, spoken) for spoken in recordings]
    warps = align([[clip.float() for clip in clips] for clips in features])
    units = [[torch.arange(len(clip)) % 16 for clip in clips] for clips in features]
    return ParallelSpeech(["low", "high"], recordings, features, warps, units)


def test_warping_finds_the_frames_that_say_the_same():
    words = torch.eye(6)
    short, long = words[[0, 1, 2, 3, 4, 5]], words[[0, 0, 1, 2, 2, 2, 3, 4, 5, 5]]
    paths = warp([(short, long), (long, short), (short, short)])
    assert paths[0].tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 5, 5]
    assert torch.equal(long[paths[1]], short)
    assert paths[2].tolist() == list(range(6))


def test_voices_with_other_sentences_are_not_aligned():
    with pytest.raises(ValueError, match="the voices speak 1 or 2 sentences"):
        align([[torch.eye(3)], [torch.eye(3)] * 2])


def test_units_are_what_the_voices_share():
    torch.manual_seed(0)
    words, said = 3 * torch.randn(5, 12), [torch.randint(0, 5, (60,)) for _ in range(8)]
    words[:, -2:] = 0
    offsets = torch.zeros(3, 12)
    offsets[:, -2:] = 4 * torch.randn(3, 2)  # who speaks, in directions of its own
    latents = [[words[said[i]] + offset + 0.3 * torch.randn(60, 12) for i in range(8)] for offset in offsets]
    same = {(a, b, i): np.arange(60) for i in range(8) for a in range(3) for b in range(3) if a != b}
    units = shared_units(latents, same, 8)
    for clips in zip(*units.labels, strict=True):
        assert all(torch.equal(clips[0], labels) for labels in clips[1:])
    of_words = set(zip(torch.cat(said).tolist(), torch.cat(units.labels[0]).tolist(), strict=True))
    assert len({unit for _, unit in of_words}) == len(of_words)  # none stands for two words
    used = units.counts > 0
    assert units.codebook[used][:, -2:].std(0).max() < 0.5 < units.codebook[used][:, :-2].std(0).min()


def test_the_decoder_reads_new_latents_as_it_read_the_old(codec):
    old = torch.randn(1, 8, 6)
    matrix = torch.nn.Linear(8, 8)
    new = torch.linalg.solve(matrix.weight, old[0] - matrix.bias[:, None])[None]
    with torch.no_grad():
        expected = codec.decoder(old)
        read_through(codec, matrix.weight, matrix.bias)
        # at the edges convolutions reflect, which is the same before and behind a map of each frame
        torch.testing.assert_close(codec.decoder(new), expected, atol=1e-4, rtol=1e-3)


def test_windows_are_those_of_their_numbers(speech):
    windows = ExchangeWindows(speech, 10, 100, 7, 320)
    kinds = set()
    for number in range(24):
        item, again = windows[number], windows[number]
        assert all(torch.equal(item[name], again[name]) for name in item)
        target = speech.recordings[int(item["voice"])]
        values = item["input_values"][0].numpy()
        at = [i for i in range(SENTENCES) if values[:100].tobytes() in target[i].tobytes()]
        assert len(at) == 1 and item["features"].shape == (33, 32) and item["source_features"].shape == (53, 32)
        found = speech.features[int(item["voice"])][at[0]]
        assert any(torch.equal(item["features"], found[i : i + 33]) for i in range(len(found)))
        kinds.add(int(item["kind"]))
        if item["kind"] == EXCHANGED:
            others = speech.features[1 - int(item["voice"])][at[0]]
            assert any(torch.equal(item["source_features"], others[i : i + 53]) for i in range(len(others)))
    assert kinds == {0, 1, 2}


def test_every_twelfth_window_is_of_others(codec, speech):
    recordings = voice(2.0, 1.0)
    others = recordings, features_of(codec, recordings)
    item = ExchangeWindows(speech, 10, 100, 7, 320, others)[11]
    assert item["kind"] == OWN and (item["units"] == -100).all()
    with pytest.raises(ValueError, match="no sentence is as long as 243 frames"):
        ExchangeWindows(speech, 200, 100, 7, 320)


def test_codes_to_exchange_have_level_0_of_another_voice(codec, speech):
    codes = exchanged_codes(codec, latents_of_voices(codec, speech.features), speech.warps, 1, "name", 0)
    assert len(codes) == 2 * SENTENCES and codes.codec == "name" and codes.codes.shape[0] == 3
    said = [sentence_of(number, SENTENCES) for number in range(2 * SENTENCES)]
    assert sorted(said) == sorted([*range(SENTENCES)] * 2) and all(a != b for a, b in itertools.pairwise(said))
    for index in range(SENTENCES):
        own, exchanged = (codes[number] for number in range(2 * SENTENCES) if said[number] == index)
        if said.index(index) % 2:
            own, exchanged = exchanged, own
        expected = codec.encode(torch.from_numpy(speech.recordings[1][index])[None, None]).audio_codes[0].numpy()
        assert (own == expected).mean() > 0.95  # features are kept in half precision
        with torch.no_grad():
            theirs = run_head(codec, speech.features[0][index].float()[None])[0]
        first = codec.quantizer.levels[0].encode(theirs).numpy()
        np.testing.assert_array_equal(exchanged[0], first[speech.warps[0, 1, index]])


def test_the_encoder_learns_units(codec, speech, caplog):
    latents = latents_of_voices(codec, speech.features)
    units = shared_units(latents, speech.warps, 16)
    codec.train()

    def right() -> float:
        with torch.no_grad():
            found = [
                torch.cdist(run_head(codec, clip.float()[None])[0], units.codebook).argmin(1) == label
                for clips, labels in zip(speech.features, units.labels, strict=True)
                for clip, label in zip(clips, labels, strict=True)
            ]
        return float(torch.cat(found).float().mean())

    before = right()
    codec.quantizer.levels[0].set_codes(units.codebook, units.counts)
    teach_units(codec, replace(speech, units=units.labels), latents, 250, 0)
    assert right() > before + 0.1


def test_level_1_becomes_the_voice(codec, speech):
    first = codec.quantizer.levels[0]
    directions = torch.randn(3, 8)  # three of eight, in which level 0 varies
    first.set_codes(0.1 * torch.randn(16, 3) @ directions, torch.ones(16))
    latents = latents_of_voices(codec, speech.features)
    vectors = 0.3 * torch.randn(2, 3) @ directions
    before = [[first.encode(clip) for clip in clips] for clips in latents]
    with torch.no_grad():
        spoken = [codec.decoder((first.decode(before[0][0]) + vector).T[None]) for vector in vectors]
    make_level_1_the_voice(codec, speech, vectors, [], 100, 0)
    for index, clips in enumerate(latents_of_voices(codec, speech.features)):
        codes = [codec.quantizer.encode(clip.T[None], 3)[0] for clip in clips]
        assert all(torch.equal(code[0], same) for code, same in zip(codes, before[index], strict=True))
        assert (torch.cat(codes, 1)[1] == index).float().mean() > 0.9
    for index, expected in enumerate(spoken):
        codes = torch.stack([before[0][0], torch.full_like(before[0][0], index)])
        with torch.no_grad():
            made = codec.decoder(codec.quantizer.decode(codes[None]))
        torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-3)


def test_level_1_has_a_code_for_all_others(codec, speech):
    others = features_of(codec, voice(1.45, 1.0))
    make_level_1_the_voice(codec, speech, torch.zeros(2, 8), others, 100, 0)
    book = codec.quantizer.levels[1].codebook
    assert torch.pdist(book[:3]).min() > 0.1
    assert torch.equal(book[3:6], book[:3]) and torch.equal(book[15], book[0])  # what is too many repeats


def test_level_1_needs_room_for_the_voices(codec, speech):
    speech.features *= 3
    with pytest.raises(ValueError, match="3 levels and room for 5 voices, expected 3 levels, and 6 voices"):
        make_level_1_the_voice(codec, speech, torch.zeros(6, 8), [], 100, 0)


@pytest.fixture
def folders(tmp_path, codec):
    codec.save_pretrained(tmp_path / "start")
    config = Wav2Vec2BertConfig(
        vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_depthwise_kernel_size=3, position_embeddings_type="rotary", add_adapter=False,
    )  # fmt: skip
    Wav2Vec2BertModel(config).save_pretrained(tmp_path / "teacher")
    SeamlessM4TFeatureExtractor().save_pretrained(tmp_path / "teacher")
    (tmp_path / "run").mkdir()
    for name, spoken in {"heart": voice(1.0, 1.0), "slt": voice(1.2, 0.9)}.items():
        spoken.save(tmp_path / "run" / f"parallel_{name}.npz")
    return tmp_path


def run(folders, steps: int = 4, **options):
    arguments = VoiceExchangeArguments(
        start_from=str(folders / "start"), semantic_teacher=str(folders / "teacher"), voices=["heart", "slt"],
        sentences=SENTENCES, window_seconds=0.2, unit_steps=3, **options,
    )  # fmt: skip
    training = VoiceExchangeTrainingArguments(
        output_dir=str(folders / "run"), max_steps=steps, per_device_train_batch_size=12, save_steps=2,
        logging_steps=1, use_cpu=True, disable_tqdm=True, warmup_steps=0, learning_rate=1e-2,
    )  # fmt: skip
    return exchange_voices(arguments, training)


def test_a_run_gives_a_codec_and_codes_to_learn_from(folders, codec):
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    run(folders)
    written = SolamiSpeechCodecModel.from_pretrained(folders / "run" / "codec", dtype=torch.float32)
    assert set(written.state_dict()) == set(before)
    after = written.state_dict()
    changed = {name for name, value in after.items() if not torch.allclose(value, before[name], atol=1e-3)}
    assert {name.split(".")[0] for name in changed} == {"encoder", "decoder", "quantizer"}
    assert not any(name.startswith(("encoder.layers.0.", "encoder.layers.1.")) for name in changed)
    for name in ("heart", "slt"):
        codes = SpeechCodes.load(folders / "run" / f"codes_{name}.npz")
        assert codes.codec == codec_fingerprint(written) and len(codes) == 2 * SENTENCES
    again = run(folders)  # nothing is left to train
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, written.state_dict()[name], rtol=0, atol=0)


def test_the_decoder_is_tuned_on_what_was_exchanged(folders):
    run(folders)
    recordings, codes, held_out = exchanged_speech(folders / "run", 2, 2)
    assert len(recordings) == len(codes) == 2 * 2 * 2 and len(held_out) == 2
    twins = [i for i in range(1, 4) if recordings.texts[i] == recordings.texts[0]]
    np.testing.assert_array_equal(recordings[0], recordings[twins[0]])
    assert len(twins) == 1 and codes[0][0].tolist() != codes[twins[0]][0].tolist()
    soundstorm().save_pretrained(folders / "acoustic")
    arguments = SpeechCodecArguments(
        start_from=str(folders / "run" / "codec"), decoder_only=True, acoustic_model=str(folders / "acoustic"),
        sentences=2, held_out=2, window_seconds=0.2, eval_clips=2,
    )  # fmt: skip
    training = SpeechCodecTrainingArguments(
        output_dir=str(folders / "tuned"), max_steps=2, per_device_train_batch_size=2, use_cpu=True, disable_tqdm=True
    )
    train_speech_codec(arguments, training, exchanged_speech(folders / "run", 2, 2))
    filled = SpeechCodes.load(folders / "tuned" / "filled_codes.npz")
    np.testing.assert_array_equal(filled.codes[0], codes.codes[0])  # level 0 stays, own and exchanged
    assert not np.array_equal(filled.codes[1:], codes.codes[1:])
    start = SolamiSpeechCodecModel.from_pretrained(folders / "start", dtype=torch.float32)
    with pytest.raises(ValueError, match="the given codes are of the codec .*, `start_from`"):
        own_and_filled(recordings, start, None, folders / "none.npz", own=codes)
    with pytest.raises(FileNotFoundError, match="has no codes_.*, expected a folder of voice_exchange"):
        exchanged_speech(folders / "start", 2, 2)


def test_other_sentences_in_the_folder_are_refused(folders):
    with pytest.raises(ValueError, match="has other sentences; remove it"):
        speak_parallel(["heart"], SENTENCES + 1, 16000, 42, folders / "run")


def test_sentences_to_judge_by_are_not_spoken(tmp_path, monkeypatch):
    said = []

    def speak_all(texts, voices, *_, **__):
        said.append((voices, texts))
        return [np.zeros(10)] * len(texts), voices

    monkeypatch.setattr(parallel_speech, "speak_all", speak_all)
    usual = sentences(5, 42)
    speak_parallel(["heart", "slt"], 4, 16000, 42, tmp_path, frozenset(usual[:1]))
    assert [voices for voices, _ in said] == [["heart"], ["slt"]] and said[0][1] == said[1][1] == usual[1:]


def test_what_cannot_be_exchanged_is_refused(folders):
    with pytest.raises(ValueError, match="expected two or more to exchange"):
        VoiceExchangeArguments(start_from="a", semantic_teacher="b", voices=["heart", "heart"])
    own_codec().save_pretrained(folders / "start")
    with pytest.raises(ValueError, match="reads both ways"):
        run(folders)


def test_level_1_is_to_be_the_prompts(folders):
    rng = np.random.default_rng(0)
    voices = []
    for number in (3, 5):  # level 1 says the voice, level 0 the words
        codes = rng.integers(0, 16, (3, 60))
        codes[1] = number
        voices.append(SpeechCodes.join([[codes[:, :25], codes[:, 25:]]], "codec"))
    windows = PromptVoiceWindows(voices, 20, 16, 40, 0)
    seen = set()
    for number in range(40):
        item, again = windows[number], windows[number]
        assert torch.equal(item["audio_codes"], again["audio_codes"]) and item["audio_codes"].shape == (3, 20)
        learnt = item["labels"] != -100
        assert learnt.any()
        if number % 4 < 3:
            told = item["labels"][0][learnt[0]].unique().tolist()
            prompt = item["audio_codes"][1][:5].unique().tolist()
            assert not learnt[1:].any() and told == prompt
            own = voices[(3, 5).index(told[0])].codes[0].tolist()
            words = item["audio_codes"][0, 10:].tolist()
            seen.add((told[0], any(own[i : i + 10] == words for i in range(51))))
    assert seen == {(voice, own) for voice in (3, 5) for own in (False, True)}
    soundstorm().save_pretrained(folders / "acoustic")
    for name, codes in zip("ab", voices, strict=True):
        codes.save(folders / f"codes_{name}.npz")
    training = PromptVoiceTrainingArguments(
        output_dir=str(folders / "out"), max_steps=2, per_device_train_batch_size=4, use_cpu=True, disable_tqdm=True
    )
    arguments = PromptVoiceArguments(
        start_from=str(folders / "acoustic"), data=[str(folders / f"codes_{name}.npz") for name in "ab"], window=20
    )
    before = soundstorm().state_dict()
    after = train_prompt_voice(arguments, training).state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    voices[1].codec = "another"
    voices[1].save(folders / "codes_b.npz")
    with pytest.raises(ValueError, match="are not codes of one codec with 3 levels"):
        train_prompt_voice(arguments, training)


def test_stages_take_what_those_before_them_wrote(tmp_path, monkeypatch):
    args = research.MakeArguments(output=str(tmp_path), recordings=["mine"])
    found = {name: (result, run, options) for name, result, run, options in research.stages(args)}
    ran = []
    stages = [
        (name, result, lambda argv, name=name: ran.append((name, argv)), options)
        for name, (result, _, options) in found.items()
    ]
    monkeypatch.setattr(research, "stages", lambda args: stages)
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text("{}")
    (tmp_path / "package" / "voices").mkdir(parents=True)  # stopped before the index
    research.make(args)
    assert [name for name, _ in ran] == ["codec", "exchange", "acoustic", "prompt_voice", "decoder", "package"]
    words = dict(ran)["decoder"]
    assert words[words.index("--acoustic_model") + 1] == str(tmp_path / "prompt_voice")
    words = dict(ran)["codec"]
    assert words[words.index("--data") + 1 : words.index("--data") + 3] == ["tts", "mine"]
    for name, types in {
        "teacher": [TeacherArguments, TeacherTrainingArguments],
        "codec": [SpeechCodecArguments, SpeechCodecTrainingArguments],
        "exchange": [VoiceExchangeArguments, VoiceExchangeTrainingArguments],
        "acoustic": [SoundStormArguments, TrainingArguments],
        "prompt_voice": [PromptVoiceArguments, PromptVoiceTrainingArguments],
        "decoder": [SpeechCodecArguments, SpeechCodecTrainingArguments],
        "package": [PackageArguments],
    }.items():
        argv = []
        for option, value in found[name][2].items():
            argv += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
        monkeypatch.chdir(Path(__file__).parents[2])
        parse_arguments(types, argv, name)  # each option is one of its stage


def test_no_stage_trains_on_the_sentences_that_the_pair_is_judged_by(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    judged = held_out_sentences(HELD_OUT)
    args = research.MakeArguments(output=str(tmp_path))
    found = {name: options for name, _, _, options in research.stages(args)}
    for name, types in {
        "teacher": [TeacherArguments, TeacherTrainingArguments],
        "codec": [SpeechCodecArguments, SpeechCodecTrainingArguments],
    }.items():
        argv = []
        for option, value in found[name].items():
            argv += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
        told, training = parse_arguments(types, argv, name)
        # as `speech_recordings.synthesized` divides them
        spoken = sentences(told.sentences * len(told.voices) + told.held_out, training.seed)
        assert spoken[: told.held_out] == judged
    monkeypatch.setattr(research, "stages", lambda args: [])
    research.make(args)
    assert read_text(found["exchange"]["leave_out"]).split("\n") == judged
