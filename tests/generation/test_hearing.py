"""A user's speech as words: what the language model reads, and who recognises it."""

import json

import numpy as np
import pytest

from solami_hf.generation import DialogueSession, SolamiPipeline
from solami_hf.generation.folder import jobs
from solami_hf.generation.folder.generate import GenerateArguments, generate
from solami_hf.processing.audio.recognition import as_recogniser


class Recogniser:
    """Writes down what it hears: the number of samples."""

    def __init__(self):
        self.heard = []

    def __call__(self, clips):
        self.heard += [len(clip) for clip in clips]
        return [f"{len(clip)} samples" for clip in clips]


@pytest.fixture(params=["transcript", "both"])
def pipeline(request, tiny_model, tiny_processor):
    tiny_processor.hearing = request.param
    return SolamiPipeline(tiny_model, tiny_processor, max_new_tokens=60, asr=Recogniser())


def prompts_of(pipeline, monkeypatch):
    seen, generate_padded = [], pipeline.generate_padded

    def generate(input_ids, attention_mask, **kwargs):
        seen.append(pipeline.processor.decode(input_ids[0]))
        return generate_padded(input_ids, attention_mask, **kwargs)

    monkeypatch.setattr(pipeline, "generate_padded", generate)
    return seen


def test_sound_is_read_as_words(pipeline, small_sound, small_motion, monkeypatch):
    prompts = prompts_of(pipeline, monkeypatch)
    sound = {"type": "audio", "audio": small_sound, "sampling_rate": 16000}
    motion = {"type": "motion", "motion": small_motion}
    assert pipeline([{"role": "user", "content": [sound, motion]}]).valid
    words, both = f"[Human]: {len(small_sound)} samples<🔀", pipeline.processor.hearing == "both"
    assert words in prompts[0] and ("<sosp>" in prompts[0]) == both
    # words that are given are not recognised again, and sound at another rate is resampled
    said = [{"type": "text", "text": "Good morning!"}, sound]
    assert pipeline([{"role": "user", "content": said}]).valid
    assert "[Human]: Good morning!<" in prompts[1] and len(pipeline.asr.heard) == 1
    pipeline([{"role": "user", "content": [{"type": "audio", "audio": (small_sound, 8000)}]}])
    assert pipeline.asr.heard[1] == 2 * len(small_sound)


def test_a_session_hears_each_turn_once(pipeline, small_sound):
    session = DialogueSession(pipeline)
    for number in (1, 2):
        assert session.answer([{"type": "audio", "audio": small_sound[: 4000 * number]}]).valid
    *_, end = session.stream([{"type": "audio", "audio": small_sound}])
    assert end.reply.valid and pipeline.asr.heard == [4000, 8000, len(small_sound)]
    turns = [m["content"][0]["text"] for m in session.messages if m["role"] == "user"]
    assert turns == ["4000 samples", "8000 samples", f"{len(small_sound)} samples"]


def test_a_session_of_other_hearing_is_refused(pipeline, tmp_path):
    session = DialogueSession(pipeline)
    session.answer("hi")
    session.save(tmp_path / "saved")
    assert DialogueSession.load(tmp_path / "saved", pipeline).rounds == 1
    pipeline.processor.hearing = "codes"
    with pytest.raises(ValueError, match="hearing differ"):
        DialogueSession.load(tmp_path / "saved", pipeline)


def test_codes_are_read_without_a_recogniser(tiny_model, tiny_processor, small_sound):
    pipeline = SolamiPipeline(tiny_model, tiny_processor, max_new_tokens=60, asr=Recogniser())
    assert pipeline([{"role": "user", "content": [{"type": "audio", "audio": small_sound}]}]).valid
    assert pipeline.asr.heard == []


def test_a_folder_is_heard_by_its_words_or_by_a_recogniser(pipeline, dialogues, tmp_path):
    options = {"task": "chat", "checkpoint": "x", "input": str(dialogues), "media": False, "max_new_tokens": 40}
    conditions = {"conditions": ["given", "other_audio"], "batch_size": 100}
    seen = {}

    def chat_prompt(messages, longest, ask=pipeline.chat_prompt):
        seen.setdefault(len(seen), messages)
        return ask(messages, longest)

    pipeline.chat_prompt = chat_prompt
    generate(GenerateArguments(**options, **conditions, output=str(tmp_path / "words")), pipeline)
    told = [m[-1]["content"][0]["text"] for m in seen.values() if m[-1]["content"][0]["type"] == "text"]
    assert told and all(text.startswith("line ") for text in told) and pipeline.asr.heard == []
    lines = (tmp_path / "words" / "results.jsonl").read_text().splitlines()
    swapped = [row for row in map(json.loads, lines) if row["condition"] == jobs.CONDITIONS[3] and not row["error"]]
    assert swapped and len(seen) > len(swapped)
    seen.clear()
    generate(GenerateArguments(**options, asr="given", output=str(tmp_path / "heard")), pipeline)
    told = [m[-1]["content"][0]["text"] for m in seen.values()]
    assert told and {text for text in told if not text.endswith(" samples")} == {"line 0 2"}  # no sound there
    run = json.loads((tmp_path / "heard" / "run.json").read_text())
    assert run["asr"] == "given" and run["hearing"] == pipeline.processor.hearing


@pytest.mark.parametrize("asr", [3, [], {"model": "x"}])
def test_what_is_no_recogniser_is_refused(asr):
    with pytest.raises(ValueError, match="expected a Hub id, a folder, a recogniser or a function"):
        as_recogniser(asr)


def test_recognisers_of_other_packages(monkeypatch):
    class Segment:
        text = " good morning "

    class FasterWhisper:
        def transcribe(self, samples, **options):
            return [Segment()], None

    assert as_recogniser(FasterWhisper())([np.zeros(16000, np.float32)]) == ["good morning"]
    given = Recogniser()
    assert as_recogniser(given) is given
