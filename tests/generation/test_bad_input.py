"""What a user can get wrong in a turn: each is told in one clear error, and what is merely unusual is answered."""

import pytest

from solami_hf.generation import DialogueSession

CODES = {"body": [1, 2], "hand": [3, 4], "trans": [5]}


def turn(*blocks):
    return [{"role": "user", "content": list(blocks)}]


def motion(**codes):
    return {"type": "motion", "motion": {**CODES, **codes}}


def speech(*codes):
    return {"type": "audio", "audio": {"codes": list(codes)}}


@pytest.mark.parametrize(
    "messages",
    [turn(speech(1, 2, 3)), turn(motion()), turn({"type": "text", "text": "hi"}), turn(motion(trans=None))],
    ids=["only speech", "only motion", "only words", "a motion from nowhere"],
)
def test_one_medium_is_enough(talker, messages):
    reply = talker(messages)
    assert reply.valid and reply.motion is not None and reply.audio is not None


def test_no_conversation_has_no_answer(talker):
    assert talker.respond([]) == talker.run_task("Do.", [], "motion") == []


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "must end with the user's turn"),
        ([{"role": "assistant", "content": "hi"}], "must end with the user's turn"),
        (turn(), "turn is empty"),
        ([{"role": "user", "content": " \n"}], "turn is empty"),
        ([{"role": "user", "content": None}], "a string or a list of blocks, got NoneType"),
        ([{"role": "user"}], "a string or a list of blocks, got NoneType"),
        (turn({"type": "audio", "file": "hello.wav"}), r"a content block is like .*, got \['file', 'type'\]"),
        (turn({"audio": "hello.wav"}), r"a content block is like .*, got \['audio'\]"),
        (
            turn({"type": "audio", "audio": [0.0] * 99, "sample_rate": 44100}),
            "told by one of audio, array, raw, bytes, url or path, .* got audio, sample_rate",
        ),
        (turn({"type": "audio", "audio": {"array": [0.0], "sampling_rate": 8}}), "8, expected 1000 to 1000000"),
        (turn("hello.wav"), "a content block is like .*, got str"),
        (turn(motion(hand=[3])), "as many codes of the body as of the hands, got 2 and 1"),
        (turn(motion(hand=None)), "as many codes of the body as of the hands, got 2 and 0"),
        ([{"role": "user", "content": ""}], "turn is empty"),
        ([{"role": "narrator", "content": "x"}, *turn(motion())], "role must be system, user or assistant"),
        (turn({"type": "text", "text": ""}, speech()), "turn is empty"),
        (turn(speech(1, 32)), r"speech codes must lie in 0..31, got 1..32; they were probably made by another codec"),
        (turn(motion(body=[1, 16])), r"body codes must lie in 0..15, got 1..16"),
        (turn(motion(trans=[-1])), r"trans codes must lie in 0..7, got -1..-1"),
        (turn({"type": "text", "text": "say <eos> now"}), "reserved tokens"),
        (turn({"type": "video", "video": "x"}), "unknown content type 'video'"),
        (turn(speech(*[1] * 1000)), "the last turn alone needs more than the 984 tokens"),
    ],
)
def test_what_cannot_be_answered(talker, messages, told):
    with pytest.raises(ValueError, match=told):
        talker(messages)


def test_unknown_names(talker):
    with pytest.raises(ValueError, match=r"unknown character 'bob'; this checkpoint plays \['ada'\]"):
        DialogueSession(talker, character="bob")
    with pytest.raises(ValueError, match="unknown voice 'Link'; this checkpoint has no voices"):
        talker(turn(motion()), voice="Link")


def test_an_answer_as_long_as_the_context(talker):
    context = talker.model.config.max_position_embeddings
    told = f"max_new_tokens={context} fill the context of {context} tokens; lower it"
    for asked in (
        lambda: talker(turn(motion()), max_new_tokens=context),
        lambda: DialogueSession(talker).answer("hi", max_new_tokens=context),
        lambda: talker.run_task("Do.", [{"type": "text", "text": "waves"}], "motion", max_new_tokens=context),
    ):
        with pytest.raises(ValueError, match=told):
            asked()


def test_the_longest_answer_of_a_call_counts(talker):
    """It bounds the answer, and leaves the prompt the rest of the context, more or less than by default."""
    limit = talker.model.config.max_position_embeddings
    long = turn(speech(*[1] * (limit - 60)))
    with pytest.raises(ValueError, match=f"more than the {limit - 40} tokens"):
        talker(turn(speech(*[1] * (limit - 40))))
    with pytest.raises(ValueError, match=f"more than the {limit - 100} tokens"):
        talker(long, max_new_tokens=100)
    (ids,) = talker.generate_prompts([talker.chat_prompt(long, 20)], max_new_tokens=20)
    assert len(ids) <= 20 and talker.processor.parse_response(ids).valid
    assert talker(long, max_new_tokens=20, decode=False).valid
    history = turn(speech(*[1] * 500)) + [
        {"role": "assistant", "content": [{"type": "text", "text": "Hm."}, motion(), speech(1)]}
    ]
    asked = history + turn(speech(*[2] * 440))
    assert len(talker.chat_prompt(asked, 20)) > 900 > len(talker.chat_prompt(asked, 400))


def test_codes_of_another_codec_are_refused_with_a_session(talker, tmp_path):
    DialogueSession(talker, character="ada").save(tmp_path)
    weight = next(talker.processor.speech_codec.parameters())
    kept = weight.data.clone()
    try:
        weight.data.add_(1.0)
        with pytest.raises(ValueError, match="codes of another speech_codec"):
            DialogueSession.load(tmp_path, talker)
    finally:
        weight.data.copy_(kept)
