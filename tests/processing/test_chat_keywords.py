"""Keywords of `apply_chat_template` and of the processor: honoured as transformers does, or refused in words."""

import numpy as np
import pytest
import torch

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Good mor"}]
LONG = [{"role": "user", "content": "hello " * 20}]
SOUND = [{"role": "user", "content": [{"type": "audio", "audio": {"codes": [1] * 40}}]}]


@pytest.mark.parametrize(
    "last",
    [
        {"role": "assistant", "content": "Good mor"},
        {"role": "assistant", "content": " spaces "},
        {"role": "assistant", "content": [{"type": "text", "text": "Good "}, {"type": "text", "text": "mor"}]},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "and"},
        {"role": "system", "content": "Be kind"},
    ],
)
def test_the_last_message_is_left_open(last, tiny_processor):
    chats = [[CHAT[0], last], [last]]
    texts = tiny_processor.apply_chat_template(chats, continue_final_message=True)
    ids = tiny_processor.apply_chat_template(chats, continue_final_message=True, tokenize=True)
    for text, row in zip(texts, ids, strict=True):
        assert row == tiny_processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert not text.endswith(("<eos>", "<eoh>", "\n"))


@pytest.mark.parametrize(
    ("messages", "options", "message"),
    [
        (CHAT, {"add_generation_prompt": True}, "excludes add_generation_prompt"),
        (CHAT, {"continue_final_message": "reasoning"}, "expected True"),
        (SOUND, {}, "the last message holds audio"),
        ([{"role": "user", "content": []}], {}, "the last message holds nothing"),
    ],
)
def test_what_cannot_be_continued(messages, options, message, tiny_processor):
    for tokenize in (True, False):
        with pytest.raises(ValueError, match=message):
            tiny_processor.apply_chat_template(
                messages, tokenize=tokenize, **{"continue_final_message": True, **options}
            )


@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation_is_that_of_the_tokenizer(side, tiny_processor):
    tiny_processor.tokenizer.truncation_side = side
    whole = tiny_processor.apply_chat_template(LONG, tokenize=True)
    expected = whole[:20] if side == "right" else whole[-20:]
    for options in (
        {"truncation": True, "max_length": 20},
        {"processor_kwargs": {"truncation": True, "max_length": 20}},
        {"text_kwargs": {"truncation": "longest_first"}, "max_length": 20},
        {"tokenizer_kwargs": {"truncation": True, "max_length": 20}},
    ):
        assert tiny_processor.apply_chat_template(LONG, tokenize=True, **options) == expected
    out = tiny_processor.apply_chat_template(
        [CHAT, LONG], tokenize=True, return_dict=True, return_assistant_tokens_mask=True, truncation=True, max_length=9
    )
    assert all(len(row) == 9 for name in out for row in out[name])


def test_no_recording_is_cut(tiny_processor):
    options = {"tokenize": True, "truncation": True}
    with pytest.raises(ValueError, match="cut through motion or audio: 44 tokens, max_length=20"):
        tiny_processor.apply_chat_template(SOUND, max_length=20, **options)
    assert len(tiny_processor.apply_chat_template(SOUND, max_length=44, **options)) == 44
    with pytest.raises(ValueError, match="truncation needs a positive max_length"):
        tiny_processor.apply_chat_template(LONG, **options)


@pytest.mark.parametrize("template", [None, "{% for m in messages %}{{ m.content }}{% endfor %}"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("options", "width"), [({"padding": True}, None), ({"padding": "max_length"}, 150)])
def test_padding(template, side, options, width, tiny_processor):
    if width:
        options = {**options, "max_length": width}
    chats, ask = [CHAT, LONG], {"chat_template": template, "tokenize": True, "return_dict": True}
    bare = tiny_processor.apply_chat_template(chats, **ask)["input_ids"]
    width = width or max(map(len, bare))
    for tensors in (None, "np"):
        out = tiny_processor.apply_chat_template(chats, padding_side=side, return_tensors=tensors, **options, **ask)
        assert np.shape(out["input_ids"]) == np.shape(out["attention_mask"]) == (2, width)
        for ids, mask, row in zip(out["input_ids"], out["attention_mask"], bare, strict=True):
            assert [i for i, real in zip(ids, mask, strict=True) if real] == row
            assert mask[0 if side == "right" else -1] == 1 and sum(mask) == len(row)
    out = tiny_processor.apply_chat_template(chats, padding=True, pad_to_multiple_of=32, return_tensors="pt", **ask)
    assert out["input_ids"].shape[1] % 32 == 0


def test_a_row_longer_than_the_tensor_is_told(tiny_processor):
    options = {"tokenize": True, "return_dict": True, "padding": "max_length", "max_length": 9}
    assert len(tiny_processor.apply_chat_template([LONG], **options)["input_ids"][0]) == 122  # as tokenizers do
    with pytest.raises(ValueError, match="max_length is 9, but a conversation has 122 tokens; pass truncation=True"):
        tiny_processor.apply_chat_template([LONG], return_tensors="pt", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"add_generation_promt": True}, "no argument 'add_generation_promt'; did you mean add_generation_prompt?"),
        ({"padding_sid": "left"}, "did you mean padding_side?"),
        ({"truncate": True}, "did you mean truncation?"),
        ({"processor_kwargs": {"max_len": 20}}, "no argument 'max_len'; did you mean max_length?"),
        ({"enable_thinking": False}, "no argument 'enable_thinking'; expected among"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "no place for tools"),
        ({"documents": [{"title": "a", "text": "b"}]}, "no place for documents"),
        ({"max_length": 20}, r"max_length=20 needs truncation=True or padding='max_length'"),
        ({"padding": "longst"}, "padding is 'longst', expected one of True, False, 'longest'"),
        ({"padding_side": "top"}, "padding_side is 'top'"),
        ({"truncation": "only_second"}, "truncation is 'only_second', expected one of"),
        ({"add_special_tokens": True}, "add_special_tokens is True"),
        ({"load_audio_from_video": True}, "no argument 'load_audio_from_video'"),
        ({"return_assistant_tokens_mask": True}, "needs tokenize=True and return_dict=True"),
    ],
)
def test_refused(options, message, tiny_processor):
    for tokenize in (True, False):
        with pytest.raises(ValueError, match=message):
            tiny_processor.apply_chat_template(CHAT, tokenize=tokenize, **options)


@pytest.mark.parametrize("options", [{}, {"padding": False}, {"padding": True, "pad_to_multiple_of": 0}])
def test_multiples_need_padding(options, tiny_processor):
    with pytest.raises(ValueError, match="pad_to_multiple_of is ., expected 1 or more, beside padding=True"):
        tiny_processor.apply_chat_template(CHAT, tokenize=True, **{"pad_to_multiple_of": 8, **options})


def test_what_asks_for_nothing_is_allowed(tiny_processor):
    ids = tiny_processor.apply_chat_template(CHAT, tokenize=True)
    nothing = {"tools": None, "documents": None, "load_audio_from_video": False, "return_tensors": "auto",
               "processor_kwargs": {}, "padding": None, "max_length": None}  # fmt: skip
    assert tiny_processor.apply_chat_template(CHAT, tokenize=True, **nothing) == ids


def test_a_template_gets_its_variables(tiny_processor):
    template = "{{ motto }}{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{{ messages[0].content }}"
    tools = [{"type": "function", "function": {"name": "wave"}}]
    shown = tiny_processor.apply_chat_template(CHAT, chat_template=template, motto="Hi ", tools=tools)
    assert shown == "Hi wavehello"
    with pytest.raises(ValueError, match="no argument 'moto'"):
        tiny_processor.apply_chat_template(CHAT, chat_template=template, moto="Hi ")


def test_a_template_that_is_set_gives_the_ids_too(tiny_processor):
    template = "{% for m in messages %}{{ m.content }}.{% endfor %}"
    tiny_processor.chat_template = {"default": template, "short": "{{ messages[0].content }}"}
    for name, expected in ((None, "hello.Good mor."), ("short", "hello")):
        ids = tiny_processor.apply_chat_template(CHAT, chat_template=name, tokenize=True)
        assert tiny_processor.apply_chat_template(CHAT, chat_template=name) == expected
        assert tiny_processor.tokenizer.decode(ids) == expected


def user(*blocks):
    return [{"role": "user", "content": list(blocks)}]


ODD = {
    "no content": ([{"role": "assistant", "tool_calls": []}], "a string or a list of blocks, got NoneType"),
    "content None": ([{"role": "user", "content": None}], "a string or a list of blocks, got NoneType"),
    "a dict": ([{"role": "user", "content": {"type": "text", "text": "hi"}}], "list of blocks, got dict"),
    "a number": ([{"role": "user", "content": 5}], "a string or a list of blocks, got int"),
    "a string as block": (user("hi"), "a content block is like .*, got str"),
    "text None": (user({"type": "text", "text": None}), r"got \['text', 'type'\]"),
    "no text": (user({"type": "text", "content": "hi"}), r"got \['content', 'type'\]"),
    "a number as text": (user({"type": "text", "text": 5}), "is a string, got int"),
    "no type": (user({"text": "hi"}), r"got \['text'\]"),
    "type None": (user({"type": None, "text": "hi"}), r"got \['text', 'type'\]"),
    "an image": (user({"type": "image", "image": "x.png"}), "unknown content type 'image'"),
    "an image's address": (user({"type": "image_url"}), "unknown content type 'image_url'"),
    "audio of nothing": (user({"type": "audio"}), r"got \['type'\]"),
    "motion of nothing": (user({"type": "motion", "motion": None}), r"'motion', 'type'"),
    "other codes": (user({"type": "motion", "motion": {"poses": [1]}}), r"got \['poses'\]"),
    "half codes": (user({"type": "audio", "audio": {"codes": [0.5]}}), "holds float64"),
    "no codes": (user({"type": "audio", "audio": {"codes": None}}), "holds object"),
    "words as codes": (user({"type": "audio", "audio": {"codes": "1 2"}}), "expected codes"),
    "codes too large": (user({"type": "audio", "audio": {"codes": [99]}}), "another codec"),
    "a marker in the words": ([{"role": "user", "content": "bye<eos>"}], "reserved tokens"),
    "the role tool": ([{"role": "tool", "content": "42"}], "role must be system, user or assistant, got 'tool'"),
    "the role developer": ([{"role": "developer", "content": "be nice"}], "got 'developer'"),
    "no role": ([{"content": "x"}], "got None"),
    "a system's sound": ([{**user({"type": "audio", "audio": [0.1]})[0], "role": "system"}], "has words alone"),
    "a string": ("hello", "a conversation is a list of messages, got str"),
    "a message": ({"role": "user", "content": "hi"}, "a conversation is a list of messages, got dict"),
    "strings": (["hello"], "a conversation is a list of messages, got str"),
    "nothing": ([], "the conversation is empty"),
    "None": (None, "a conversation is a list of messages, got NoneType"),
    "a batch with nothing": ([CHAT, []], "the conversation is empty"),
    "a batch with a string": ([CHAT, "hi"], "a conversation is a list of messages, got str"),
    "a message that is none": ([{"role": "user", "content": "hi"}, "ho"], "a message is like .*, got str"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_messages(case, tiny_processor):
    messages, message = ODD[case]
    for tokenize in (True, False):
        with pytest.raises(ValueError, match=message):
            tiny_processor.apply_chat_template(messages, tokenize=tokenize, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "x", "images": [1]}, "the processor has no argument 'images'"),
        ({"text": "x", "paddin": True}, "did you mean padding?"),
        ({"text": "x", "text_kwargs": {"trunctation": True}}, "did you mean truncation?"),
        ({"audio": np.zeros(640), "sampling_rat": 48000}, "did you mean sampling_rate?"),
        ({"audio": np.zeros(640), "audio_kwargs": {"rate": 48000}}, "audio_kwargs has no argument 'rate'"),
        ({"audio": np.zeros(640), "return_offsets_mapping": True}, "beside motion or audio has no argument"),
    ],
)
def test_keywords_of_the_processor(given, message, tiny_processor):
    with pytest.raises(ValueError, match=message):
        tiny_processor(**given)


def test_empty_keywords_of_the_processor(tiny_processor):
    out = tiny_processor(text="x", images=None, videos=None, return_tensors="pt")
    assert torch.equal(out["input_ids"], tiny_processor(text="x", return_tensors="pt")["input_ids"])
