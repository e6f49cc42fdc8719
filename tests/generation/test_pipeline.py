"""The pipeline and the chat command: raw turns in, raw turns out, invalid answers kept out of the history."""

import json

import numpy as np
import pytest
import soundfile
import torch

from solami_hf.generation import SolamiPipeline
from solami_hf.generation.chat import chat, main, user_message
from solami_hf.processing.motion.motion_io import read_motion, write_motion


@pytest.fixture
def pipeline(tiny_model, tiny_processor):
    return SolamiPipeline(tiny_model, tiny_processor, max_new_tokens=60)


@pytest.fixture
def user(small_motion, small_sound):
    content = [{"type": "motion", "motion": small_motion}, {"type": "audio", "audio": small_sound}]
    return {"role": "user", "content": content}


def scripted(pipeline, monkeypatch, answers):
    """Makes the model say the given answers, as ids; the prompts that it saw are returned."""
    prompts, queue = [], iter(answers)

    def generate(input_ids, attention_mask, **kwargs):
        prompts.append(input_ids)
        return torch.cat([input_ids, torch.tensor([next(queue)] * len(input_ids))], dim=1)

    monkeypatch.setattr(pipeline.model, "generate", generate)
    return prompts


def good_answer(processor):
    text = "Hello.<eot><sobo><🕺1><🕺2><eobo><soha><🤚3><🤚4><eoha><sosp><🗣️5><🗣️6><eosp><eos>"
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_turn_in_a_turn_out(pipeline, tiny_processor, monkeypatch, user):
    prompts = scripted(pipeline, monkeypatch, [good_answer(tiny_processor)])
    reply = pipeline([{"role": "system", "content": "You are Ada."}, user])
    assert reply.valid and reply.text == "Hello."
    assert reply.motion.num_frames == 8 and reply.audio.shape == (640,) and reply.sampling_rate == 16000
    assert np.abs(reply.audio).max() <= 1
    assert tiny_processor.decode(prompts[0][0]).endswith("<eosp><eoh>\n[MMGPT]: ")


def test_a_turn_in_a_voice(pipeline, tiny_processor, monkeypatch, user):
    scripted(pipeline, monkeypatch, [good_answer(tiny_processor)] * 3)
    with pytest.raises(ValueError, match="unknown voice 'Link'; this checkpoint has no voices"):
        pipeline([user], voice="Link")
    heard = []
    monkeypatch.setattr(tiny_processor, "decode_speech", lambda codes, voice: heard.append(voice) or np.zeros(640))
    tiny_processor.voices.add("Link", torch.zeros(8, 9, dtype=torch.long), "made up", tiny_processor.speech_codec)
    assert pipeline([user], voice="Link").valid and heard == ["Link"]
    ada = tiny_processor.characters["ada"]
    system = {"role": "system", "content": ada["system"]}
    pipeline([system, user])
    monkeypatch.setitem(ada, "voice", "Link")
    pipeline([system, user])
    assert heard == ["Link", None, "Link"]


def test_an_untrained_model_answers_validly(pipeline, user):
    for settings in ({}, {"do_sample": True}, {"num_beams": 2}, {"cache_implementation": "static"}):
        replies = pipeline.respond([[user], [{"role": "user", "content": "hi"}]], **settings)
        assert all(reply.valid and reply.audio is not None for reply in replies)
    reply = pipeline([user], logits_processor=[])
    assert not reply.valid and reply.motion is None and reply.audio is None and reply.answer.reason


def test_an_untrained_model_does_its_tasks(pipeline, tiny_processor):
    markers, sources = tiny_processor.markers, [{"type": "text", "text": text} for text in ("waves", "a person waves")]
    for target, begin, end in (("motion", "sobo", "eoha"), ("audio", "sosp", "eosp")):
        for row in pipeline.run_task("Do.", sources, target):
            last = row.index(markers["eos"])
            assert (row[0], row[last - 1]) == (markers[begin], markers[end])
    for row in pipeline.run_task("Say.", sources, "text", max_new_tokens=5):
        assert 0 < row.index(markers["eos"]) < 5 and max(row[: row.index(markers["eos"])]) < markers["pad"]


def test_batch_equals_single(pipeline, user):
    short = {"role": "user", "content": "hi"}
    both = pipeline.generate_ids(pipeline.processor.encode_media([[user], [short]]))
    alone = pipeline.generate_ids(pipeline.processor.encode_media([[short]]))
    width = min(len(both[1]), len(alone[0]))
    assert both[1][:width] == alone[0][:width]


def test_tasks_end_with_the_role_marker(pipeline, tiny_processor, monkeypatch):
    prompts = scripted(pipeline, monkeypatch, [[tiny_processor.markers["eos"]]])
    sources = [{"type": "text", "text": "waves"}, {"type": "text", "text": "a person waves the hand"}]
    pipeline.run_task("Move.", sources, "motion")
    decoded = [tiny_processor.decode(row) for row in prompts[0]]
    assert decoded[1] == "[Human]: Move. This is input: a person waves the hand<eoh> [MMGPT]: "
    assert decoded[0].startswith("<pad>") and decoded[0].endswith("input: waves<eoh> [MMGPT]: ")


def test_oldest_rounds_go_when_the_context_is_full(pipeline, tiny_processor, monkeypatch, user):
    answers = [good_answer(tiny_processor)] * 2
    prompts = scripted(pipeline, monkeypatch, answers)
    messages = [{"role": "system", "content": "You are Ada."}, user]
    reply = pipeline(messages)
    pipeline.model.config.max_position_embeddings = prompts[0].shape[1] + 60
    pipeline(messages + [reply.message(), user])
    assert prompts[1].shape == prompts[0].shape


def test_chat_writes_files_and_keeps_malformed_answers_out(pipeline, tiny_processor, monkeypatch, user, tmp_path):
    good, bad = good_answer(tiny_processor), [tiny_processor.markers["eos"]]
    prompts = scripted(pipeline, monkeypatch, [good, bad, good])
    rounds = chat(pipeline, [user] * 3, tmp_path, "You are Ada.")
    assert [r["valid"] for r in rounds] == [True, False, True]
    assert read_motion(tmp_path / "turn1.npz").num_frames == 8
    assert soundfile.info(tmp_path / "turn3.wav").samplerate == 16000
    assert not (tmp_path / "turn2.wav").exists() and rounds[1]["audio"] is None
    assert prompts[1].shape == prompts[2].shape
    assert json.loads((tmp_path / "chat.json").read_text()) == rounds


def test_command_and_its_errors(tiny_model, tiny_processor, small_motion, small_sound, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    write_motion(tmp_path / "a.npz", small_motion)
    soundfile.write(tmp_path / "a.wav", small_sound, 16000)
    turn = f"{tmp_path}/a.wav,{tmp_path}/a.npz"
    options = ["--checkpoint", str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--max_new_tokens", "16"]
    assert main([*options, "--character", "ada", "--turns", turn, turn]) == 0
    assert len(json.loads((tmp_path / "out" / "chat.json").read_text())) == 2
    with pytest.raises(ValueError, match="unknown character 'bob'; this checkpoint plays \\['ada'\\]"):
        main([*options, "--character", "bob", "--turns", turn])
    for wrong, told in (
        (["--temperature", "-1"], "temperature is -1.0"),
        (["--temperature", "1", "--top_p", "0"], "top_p 0.0"),
        (["--character", "ada", "--system", "You are me."], "not both"),
    ):
        with pytest.raises(ValueError, match=told):
            main([*options, *wrong, "--turns", turn])
    with pytest.raises(FileNotFoundError, match="gone.wav"):
        main([*options, "--turns", f"{tmp_path}/gone.wav"])
    characters = json.loads((tmp_path / "model/processor_config.json").read_text())
    characters["characters"]["ada"]["voice"] = "Link"
    (tmp_path / "model/processor_config.json").write_text(json.dumps(characters))
    with pytest.raises(ValueError, match="unknown voice 'Link'"):
        main([*options, "--character", "ada", "--turns", turn])
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        main(["--checkpoint", str(tmp_path / "gone"), "--output", "x", "--turns", turn])


def test_bad_turns(pipeline, user):
    with pytest.raises(ValueError, match="needs a sound file"):
        user_message(",")
    with pytest.raises(ValueError, match="must end with the user's turn"):
        pipeline([{"role": "system", "content": "x"}])
    with pytest.raises(ValueError, match="turn is empty"):
        pipeline([{"role": "user", "content": []}])
    pipeline.model.config.max_position_embeddings = 70
    with pytest.raises(ValueError, match="shorten it"):
        pipeline([user])


def test_a_model_without_layout_or_codecs_is_refused(tiny_model, tiny_processor, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    type(tiny_processor)(tiny_processor.tokenizer).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no readable motion_codec"):
        SolamiPipeline.from_pretrained(tmp_path)
    tiny_model.config.modalities = None
    with pytest.raises(ValueError, match="from_backbone"):
        SolamiPipeline(tiny_model, tiny_processor)
