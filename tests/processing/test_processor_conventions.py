"""What the processor does as processors of transformers do: saving, keyword arguments, templates, padding."""

from __future__ import annotations

import inspect
import json

import pytest
import torch
from transformers import AutoProcessor, AutoTokenizer
from transformers.processing_utils import ProcessingKwargs

from solami_hf.processing.processing_solami import CODECS, SolamiProcessor

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'][0]['text'] + '.' }}{% endgeneration %}{% else %}{{ m['content'][0]['text'] }}{% endif %}"
    "{{ '\n' }}{% endfor %}"
)


def say(role: str, text: str) -> dict:
    return {"role": role, "content": [{"type": "text", "text": text}]}


@pytest.fixture
def folder(tiny_processor, tmp_path):
    tiny_processor.save_pretrained(tmp_path)
    return tmp_path


def test_saving_loses_nothing(tiny_processor, folder, tmp_path):
    loaded = AutoProcessor.from_pretrained(folder)
    assert isinstance(loaded, SolamiProcessor) and loaded.to_dict() == tiny_processor.to_dict()
    assert json.loads(loaded.to_json_string())["characters"] == tiny_processor.characters
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == tiny_processor.tokenizer.get_vocab()
    loaded.save_pretrained(tmp_path / "again")
    again = SolamiProcessor.from_pretrained(tmp_path / "again")
    assert again.to_dict() == loaded.to_dict() and again.chat_template == tiny_processor.chat_template
    for name in ("motion_codec", "speech_codec"):
        for key, value in getattr(tiny_processor, name).state_dict().items():
            assert torch.equal(getattr(again, name).state_dict()[key], value), (name, key)
    assert again.acoustic_model is None and not again.voices.names


def test_a_processor_from_its_parts_is_the_loaded_one(tiny_processor, folder):
    parts = {name: getattr(tiny_processor, name) for name in ("motion_codec", "speech_codec", "characters")}
    built = SolamiProcessor(AutoTokenizer.from_pretrained(folder), **parts, answer_format=tiny_processor.answer_format)
    assert built.to_dict() == SolamiProcessor.from_pretrained(folder).to_dict()


def test_arguments_of_loading_reach_the_tokenizer(folder):
    loaded = SolamiProcessor.from_pretrained(folder, cls_token="(CLS)", padding_side="left")
    assert loaded.tokenizer.cls_token == "(CLS)" and loaded.tokenizer.padding_side == "left"


def test_arguments_have_one_place_each():
    """Those of `__init__` are no attributes of the class, those of `__call__` no options of the tokenizer."""
    init, call = (set(inspect.signature(f).parameters) for f in (SolamiProcessor.__init__, SolamiProcessor.__call__))
    assert not {name for name in init if hasattr(SolamiProcessor, name)}
    options = set(ProcessingKwargs.__annotations__)
    for kind in ProcessingKwargs.__annotations__.values():
        options |= set(getattr(kind, "__annotations__", {}))
    assert not init & options and call & options == set()


def test_what_is_missing_is_named(tiny_tokenizer):
    processor = SolamiProcessor(tiny_tokenizer)
    for name in CODECS[:2]:
        with pytest.raises(ValueError, match=f"no {name}"):
            getattr(processor, name)
    with pytest.raises(AttributeError, match="no attribute 'image_codec'"):
        getattr(processor, "image_codec")  # noqa: B009
    assert not hasattr(processor, "feature_extractor")


def test_text_goes_to_the_tokenizer_with_its_options(tiny_processor):
    texts = ["please wave", "bow"]
    plain = tiny_processor.tokenizer(texts, padding=True, return_tensors="pt")
    for call in (
        {"padding": True, "return_tensors": "pt"},
        {"text_kwargs": {"padding": True, "return_tensors": "pt"}},
        {"text_kwargs": {"padding": True}, "common_kwargs": {"return_tensors": "pt"}},
        {"text_kwargs": {"padding": True}, "return_tensors": "pt"},
    ):
        out = tiny_processor(texts, **call)
        assert set(out) == set(tiny_processor.model_input_names)
        assert torch.equal(out["input_ids"], plain["input_ids"])
    with pytest.raises(ValueError, match="padding"):
        tiny_processor(texts, padding="longest", text_kwargs={"padding": "do_not_pad"})
    ids = [[1, 4, 5], [3, 4]]
    assert tiny_processor.batch_decode(ids) == tiny_processor.tokenizer.batch_decode(ids)
    assert tiny_processor.decode(ids[0]) == tiny_processor.tokenizer.decode(ids[0])


def test_defaults_of_the_tokenizer_hold_beside_media_too(folder, small_sound, small_motion):
    tokenizer = AutoTokenizer.from_pretrained(folder, padding="max_length", max_length=300, padding_side="left")
    processor = SolamiProcessor.from_pretrained(folder, tokenizer=tokenizer)
    bare = processor("look", small_motion, small_sound, padding=False, return_tensors="pt")
    assert bare["attention_mask"].all() and bare["input_ids"].shape[1] < 300
    out = processor("look", small_motion, small_sound, return_tensors="pt")
    assert out["input_ids"].shape == (1, 300)
    assert torch.equal(out["input_ids"][out["attention_mask"].bool()], bare["input_ids"][0])
    assert not out["attention_mask"][0, 0]
    right = processor("look", audio=small_sound, padding="max_length", max_length=200, padding_side="right")
    assert len(right["input_ids"]) == 200 and right["attention_mask"][0] and not right["attention_mask"][-1]
    with pytest.raises(ValueError, match="truncation would cut"):
        processor("look", audio=small_sound, truncation=True, max_length=5)


@pytest.mark.parametrize("templates", ["only {{ messages[0]['content'] }}", {"default": "a", "second": "b"}])
def test_templates_of_ones_own_are_saved_and_loaded(tiny_processor, tmp_path, templates):
    tiny_processor.chat_template = templates
    tiny_processor.save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").is_file()
    loaded = SolamiProcessor.from_pretrained(tmp_path)
    assert loaded.chat_template == templates == loaded.tokenizer.chat_template


def test_template_variables_and_another_template(tiny_processor):
    chat = [say("user", "hi"), say("assistant", "ho")]
    shown = tiny_processor.apply_chat_template(chat, chat_template="{{ motto }}" + TEMPLATE, motto="Be kind.\n")
    assert shown == "Be kind.\nuser\nhi\nassistant\nho.\n"


@pytest.mark.parametrize("side", [None, "left", "right"])
def test_assistant_masks_of_another_template(tiny_processor, side):
    chats = [
        [say("user", "hi"), say("assistant", "a long answer"), say("user", "so"), say("assistant", "yes")],
        [say("user", "hi"), say("assistant", "bow")],
    ]
    out = tiny_processor.apply_chat_template(
        chats, chat_template=TEMPLATE, tokenize=True, return_dict=True, return_tensors="pt",
        return_assistant_tokens_mask=True, padding=True, **({"padding_side": side} if side else {}),
    )  # fmt: skip
    said = [ids[mask.bool()] for ids, mask in zip(out["input_ids"], out["assistant_masks"], strict=True)]
    assert tiny_processor.batch_decode(said) == ["a long answer.yes.", "bow."]
    padding = out["attention_mask"][1]
    assert padding[0] == (side != "left") and padding[-1] == (side == "left")


def test_ids_of_the_packaged_template_are_those_of_its_text(tiny_processor):
    chats = [[say("system", "You are Ada."), say("user", "hi")], [say("user", "please wave your hand")]]
    texts = tiny_processor.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    for tensors in ("pt", "np"):
        out = tiny_processor.apply_chat_template(
            chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors=tensors
        )
        for text, ids, mask in zip(texts, out["input_ids"], out["attention_mask"], strict=True):
            expected = tiny_processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            assert ids[mask.astype(bool) if tensors == "np" else mask.bool()].tolist() == expected
