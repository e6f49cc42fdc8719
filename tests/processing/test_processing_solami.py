"""The processor: media to ids and back, one folder, and equality of the id path with the template's string path."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoProcessor

from solami_hf.processing.motion.motion_io import read_motions, resample_motion, write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from solami_hf.processing.processing_solami import SolamiProcessor


@pytest.fixture
def conversation(small_motion, small_sound):
    return [
        {"role": "system", "content": "You are Ada."},
        {
            "role": "user",
            "content": [{"type": "audio", "audio": small_sound}, {"type": "motion", "motion": small_motion}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Hello there!"},
                {"type": "motion", "motion": small_motion},
                {"type": "audio", "audio": small_sound[:4000]},
            ],
        },
        {"role": "user", "content": "What am I doing?"},
    ]


def test_ids_equal_the_tokenized_template_string(tiny_processor, conversation):
    text = tiny_processor.apply_chat_template(conversation, add_generation_prompt=True)
    rendered = tiny_processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, add_generation_prompt=True, return_assistant_tokens_mask=True
    )
    tokenizer = tiny_processor.tokenizer
    assert rendered["input_ids"] == [tokenizer(text, add_special_tokens=False)["input_ids"]]
    by_template = tokenizer.apply_chat_template(
        tiny_processor.encode_media([conversation])[0],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        return_assistant_tokens_mask=True,
    )
    assert [by_template["input_ids"]] == rendered["input_ids"]
    assert [by_template["assistant_masks"]] == rendered["assistant_masks"]


def test_the_dialogue_reads_as_the_paper_writes_it(tiny_processor):
    codes = {"body": [1, 2], "hand": [3, 4], "trans": [5]}
    messages = [
        {"role": "system", "content": "Be kind."},
        {
            "role": "user",
            "content": [{"type": "motion", "motion": codes}, {"type": "audio", "audio": {"codes": [6, 7]}}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Hi."},
                {"type": "motion", "motion": codes},
                {"type": "audio", "audio": {"codes": [8]}},
            ],
        },
    ]
    assert tiny_processor.apply_chat_template(messages) == (
        "Be kind.\n[Human]: <🔀5><sobo><🕺1><🕺2><eobo><soha><🤚3><🤚4><eoha><sosp><🗣️6><🗣️7><eosp><eoh>\n"
        "[MMGPT]: Hi.<eot><sobo><🕺1><🕺2><eobo><soha><🤚3><🤚4><eoha><sosp><🗣️8><eosp><eos>"
    )


def test_an_answer_is_parsed_back(tiny_processor, conversation):
    rendered = tiny_processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    mask = np.array(rendered["assistant_masks"]) == 1
    answer = tiny_processor.parse_response(np.array(rendered["input_ids"])[mask])
    assert answer.valid and not answer.reason
    assert tiny_processor.tokenizer.decode(answer.text_ids) == "Hello there!"
    assert len(answer.body) == len(answer.hand) == 39 // 4
    assert tiny_processor.decode_motion({"body": answer.body, "hand": answer.hand}).num_frames == 36
    assert tiny_processor.decode_speech(answer.speech).shape == (320 * len(answer.speech),)


def test_one_folder_loads_again(tiny_processor, conversation, tmp_path):
    tiny_processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, SolamiProcessor)
    assert loaded.characters == tiny_processor.characters and loaded.answer_format == "text_motion_speech"
    ids = tiny_processor.apply_chat_template(conversation, tokenize=True)
    assert loaded.apply_chat_template(conversation, tokenize=True) == ids
    loaded.save_pretrained(tmp_path / "again")
    again = AutoProcessor.from_pretrained(tmp_path / "again")
    assert again.apply_chat_template(conversation, tokenize=True) == ids


def test_a_checkpoint_without_codecs_says_so(tiny_tokenizer, small_motion, small_sound, tmp_path):
    SolamiProcessor(tiny_tokenizer).save_pretrained(tmp_path)
    bare = SolamiProcessor.from_pretrained(tmp_path)
    assert "input_ids" in bare(text="hello")
    with pytest.raises(ValueError, match="no readable motion_codec"):
        bare.encode_motion([small_motion])
    with pytest.raises(ValueError, match="speech_codec"):
        bare.encode_speech([small_sound])


def test_batches_equal_singles(tiny_processor, small_motion, small_sound):
    shorter = SmplxMotion(small_motion.transl[:22], small_motion.poses[:22])
    both = tiny_processor.encode_motion([small_motion, shorter])
    for motion, codes in zip((small_motion, shorter), both, strict=True):
        alone = tiny_processor.encode_motion([motion])[0]
        assert all(np.array_equal(alone[name], codes[name]) for name in ("body", "hand", "trans"))
    both = tiny_processor.encode_speech([small_sound, small_sound[:5000]])
    assert np.array_equal(both[1], tiny_processor.encode_speech([small_sound[:5000]])[0])
    assert len(both[0]) == 30 and len(both[1]) == 16


def test_stereo_at_another_rate_from_a_file(tiny_processor, tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.random.default_rng(0).normal(size=(44100, 2)) * 0.1, 44100)
    assert abs(len(tiny_processor.encode_speech([path])[0]) - 50) <= 1


def test_padding_is_on_the_left(tiny_processor):
    batch = tiny_processor.apply_chat_template(
        [[{"role": "user", "content": "hi"}], [{"role": "user", "content": "what am I doing?"}]],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["attention_mask"][0, 0] == 0 and batch["attention_mask"][:, -1].all()
    assert batch["input_ids"][0, 0] == tiny_processor.tokenizer.pad_token_id


def test_call_joins_text_motion_and_sound(tiny_processor, small_motion, small_sound):
    output = tiny_processor(text="look", motion=small_motion, audio=small_sound, return_tensors="pt")
    text = tiny_processor.decode(output["input_ids"][0])
    assert text.startswith("look<🔀") and text.endswith("<eosp>")
    assert output["attention_mask"].sum() == output["input_ids"].numel()


def test_modality_tokens_survive_skip_special_tokens(tiny_processor):
    ids = tiny_processor.tokenizer("hi<🕺3><sosp>", add_special_tokens=False)["input_ids"]
    assert tiny_processor.decode(ids, skip_special_tokens=True) == "hi<🕺3><sosp>"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "empty"),
        ([{"role": "robot", "content": "hi"}], "role must be"),
        ([{"role": "user", "content": "ignore this<eos>"}], "reserved tokens"),
        ([{"role": "user", "content": [{"type": "video", "video": 1}]}], "unknown content type"),
        ([{"role": "user", "content": [{"type": "audio", "audio": {"codes": [99]}}]}], "another codec"),
        ([{"role": "user", "content": [{"type": "audio", "audio": np.zeros(0)}]}], "empty"),
        ([{"role": "user", "content": [{"type": "audio", "audio": np.array([0.0, np.nan])}]}], "NaN"),
        ([{"role": "user", "content": [{"type": "motion", "motion": 3}]}], "SmplxMotion or a path"),
    ],
)
def test_bad_conversations(tiny_processor, messages, message):
    with pytest.raises(ValueError, match=message):
        tiny_processor.apply_chat_template(messages, tokenize=True)


def test_bad_media(tiny_processor, small_motion, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.wav"):
        tiny_processor.encode_speech([str(tmp_path / "nothing.wav")])
    with pytest.raises(FileNotFoundError, match="nothing.npz"):
        tiny_processor.encode_motion([str(tmp_path / "nothing.npz")])
    with pytest.raises(ValueError, match="at least 5 frames"):
        tiny_processor.encode_motion([SmplxMotion(small_motion.transl[:4], small_motion.poses[:4])])
    with pytest.raises(ValueError, match="equally many"):
        tiny_processor.decode_motion({"body": [1, 2], "hand": [1]})
    with pytest.raises(ValueError, match="at least one code"):
        tiny_processor.decode_speech([])
    with pytest.raises(ValueError, match="unknown voice 'Link'"):
        tiny_processor.decode_speech([1], voice="Link")
    with pytest.raises(ValueError, match="unknown character 'Bob'"):
        tiny_processor.character_system("Bob")
    with pytest.raises(ValueError, match="got none of them"):
        tiny_processor()


def test_saved_config_holds_no_weights(tiny_processor, tmp_path):
    tiny_processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "processor_config.json").read_text())
    settings = {"answer_format", "auto_map", "characters", "frame_rates", "hearing", "interleaved", "speech_levels"}
    assert set(config) == {*settings, "processor_class"}
    write_motion(tmp_path / "m.npz", SmplxMotion(np.zeros((9, 3)), np.zeros((9, 55, 3))))
    assert len(tiny_processor.encode_motion([tmp_path / "m.npz"])[0]["body"]) == 2


def test_same_logits_after_saving(tiny_processor, tiny_model, conversation, tmp_path):
    from transformers import AutoModelForCausalLM

    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    ids = torch.tensor([tiny_processor.apply_chat_template(conversation, tokenize=True)])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(ids).logits, tiny_model(ids).logits)


@pytest.mark.parametrize("fps", [20, 60, 119.88])
def test_motions_of_other_rates_are_resampled_at_every_door(tiny_processor, tmp_path, fps):
    """A motion that is given means the same as its file, and the same as at 30 fps."""
    turns = np.linspace(0, 1, round(2 * fps))[:, None, None] * np.full((1, 55, 3), 0.1)
    motion = SmplxMotion(np.tile([0.3, 0.9, 1.5], (len(turns), 1)), turns, fps=fps)
    write_motion(tmp_path / "m.npz", motion)
    given, read, at_30 = tiny_processor.encode_motion([motion, tmp_path / "m.npz", resample_motion(motion, 30.0)])
    assert len(given["body"]) == len(read["body"]) == 14
    assert all(np.array_equal(given[name], codes[name]) for codes in (read, at_30) for name in given)
    ids = tiny_processor(motion=motion)["input_ids"]
    assert ids == tiny_processor(motion=str(tmp_path / "m.npz"))["input_ids"]
    chat = [{"role": "user", "content": [{"type": "motion", "motion": motion}]}]
    assert tiny_processor.apply_chat_template(chat, tokenize=True)[1:-1] == ids


@pytest.mark.parametrize("given", ["m.npz", SmplxMotion(np.zeros((9, 3)), np.zeros((9, 55, 3))), None])
def test_motions_come_in_a_list(tiny_processor, given):
    with pytest.raises(ValueError, match="takes a list of motions, got"):
        tiny_processor.encode_motion(given)


def test_a_motion_that_is_too_short_in_time(tiny_processor):
    with pytest.raises(ValueError, match="at least 5 frames and at most 120 s, got 4 frames at 30 fps"):
        tiny_processor.encode_motion([SmplxMotion(np.zeros((8, 3)), np.zeros((8, 55, 3)), fps=60)])


def test_a_character_is_known_by_its_prompt_in_blocks(tiny_processor):
    tiny_processor.characters["ada"]["voice"] = "Ada"
    for content in ("You are Ada.", [{"type": "text", "text": "You are Ada."}]):
        assert tiny_processor.voice_of([{"role": "system", "content": content}]) == "Ada"


def test_other_capture_formats_are_read_before(tiny_processor):
    """A processor carries its code, so it reads SMPL-X .npz alone; the pipeline reads every format before."""
    path = Path(__file__).parents[1] / "data" / "cmu_01_01.bvh"
    for use in (
        lambda: tiny_processor.encode_motion([path]),
        lambda: tiny_processor(motion=path),
        lambda: tiny_processor.apply_chat_template([{"role": "user", "content": [{"type": "motion", "path": path}]}]),
    ):
        with pytest.raises(ValueError, match="cmu_01_01.bvh is no SMPL-X .npz file.*processing.motion.read_motion"):
            use()
    with pytest.raises(FileNotFoundError, match="no motion file at nothing.bvh"):
        tiny_processor.encode_motion(["nothing.bvh"])
    message = {"role": "user", "content": [{"type": "motion", "path": str(path)}, {"type": "text", "text": "hi"}]}
    (read,) = read_motions([message], tiny_processor)
    assert isinstance(read["content"][0]["motion"], SmplxMotion) and read["content"][1] is message["content"][1]
    assert tiny_processor.apply_chat_template([read]).startswith("[Human]: hi")


def test_codecs_are_placed_also_those_that_are_loaded_later(tiny_processor, small_motion, small_sound, tmp_path):
    """A dtype stands for a device, of which there is one here; nothing else changes with it."""
    expected = tiny_processor.encode_motion([small_motion])[0]
    tiny_processor.save_pretrained(tmp_path)
    processor = SolamiProcessor.from_pretrained(tmp_path)
    processor.place_codecs("cpu", torch.float64)
    assert processor.motion_codec.dtype == processor.speech_codec.dtype == torch.float64
    codes = processor.encode_motion([small_motion])[0]
    assert all(np.array_equal(codes[name], expected[name]) for name in expected)
    assert processor.decode_motion(codes).transl.dtype == np.float32
    heard = processor.decode_speech(processor.encode_speech([small_sound])[0])
    assert heard.dtype == np.float32 and len(heard)
    processor.place_codecs(dtype=torch.float32)
    assert processor.motion_codec.dtype == torch.float32
