"""Options of an answer: each reaches `generate`, or is refused by name; so it is with pipeline, session and stream."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor, MaxLengthCriteria

from solami_hf.generation import AnswerGrammar, DialogueSession, SolamiPipeline
from solami_hf.generation.cache import CACHE
from solami_hf.generation.loading import load_model
from solami_hf.generation.serving.continuous import generate_continuously

TURN = [{"role": "user", "content": "wave your hand"}]


def by_pipeline(pipeline, **options):
    return pipeline(TURN, decode=False, **options).answer


def by_session(pipeline, **options):
    return DialogueSession(pipeline).answer(TURN[0], decode=False, **options).answer


def by_stream(pipeline, **options):
    *_, last = DialogueSession(pipeline).stream(TURN[0], **options)
    return last.reply.answer


def by_task(pipeline, **options):
    (ids,) = pipeline.run_task("Say.", [{"type": "text", "text": "hi"}], "text", **options)
    return pipeline.processor.parse_response(ids, "text")


DOORS = pytest.mark.parametrize("answer", [by_pipeline, by_session, by_stream, by_task])


def codes(answer):
    assert answer.valid, answer.reason
    return [answer.text_ids, *(part.tolist() for part in (answer.body, answer.hand, answer.speech))]


def length(answer):
    return sum(map(len, codes(answer)))


def without_cache(pipeline, prompt):
    """The answer that reading everything again at each step gives."""
    settings = {"do_sample": False, "use_cache": False, "logits_processor": [pipeline.grammar()]}
    return pipeline.model.generate(torch.tensor([prompt]), max_new_tokens=40, **settings)[0, len(prompt) :].tolist()


def read_lengths(model):
    """Numbers of tokens that the model reads in each of the steps to come."""
    lengths = []
    model.model.register_forward_pre_hook(
        lambda module, args, inputs: lengths.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    return lengths


# ---- the cache


@pytest.mark.parametrize("where", ["config", "generation_config", "both", "training"])
def test_a_checkpoint_without_a_cache_answers_with_one(talker, where):
    model, prompt = talker.model, talker.chat_prompt(TURN)
    expected = without_cache(talker, prompt)
    if where in ("config", "both"):
        model.config.use_cache = False
    if where in ("generation_config", "both"):
        model.generation_config.use_cache = False
    if where == "training":
        model.gradient_checkpointing_enable()
        model.train()
    lengths = read_lengths(model)
    assert talker.generate_prompts([prompt]) == [expected]
    assert lengths[0] == len(prompt) and set(lengths[1:]) == {1} and model.training == (where == "training")
    session = DialogueSession(talker)
    assert session.generate_ids(prompt, session.options({})) == expected
    assert session._read(prompt) is None and codes(by_stream(talker)) == codes(by_session(talker))


def test_a_checkpoint_without_generation_config(talker, tmp_path):
    talker.model.config.use_cache = False
    talker.model.save_pretrained(tmp_path)
    talker.processor.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    loaded, prompt = SolamiPipeline.from_pretrained(tmp_path, max_new_tokens=40), talker.chat_prompt(TURN)
    assert loaded.generate_prompts([prompt]) == [without_cache(talker, prompt)]
    grammar = loaded.grammar()
    assert generate_continuously(loaded.model, [prompt], grammar, 40)[0] == [without_cache(talker, prompt)]


@DOORS
@pytest.mark.parametrize("options", [{"use_cache": False}, {"generation_config": GenerationConfig(use_cache=False)}])
def test_a_call_without_a_cache(talker, answer, options):
    expected, lengths = codes(answer(talker)), read_lengths(talker.model)
    assert codes(answer(talker, **options)) == expected
    assert lengths == list(range(lengths[0], lengths[-1] + 1))


def test_a_session_goes_on_after_a_turn_without_a_cache(talker):
    one, two = DialogueSession(talker), DialogueSession(talker)
    for number, options in enumerate(({}, {"use_cache": False}, {"use_cache": False, "num_beams": 2}, {})):
        words, beams = f"turn {number}", {"num_beams": options.get("num_beams", 1)}
        first, second = one.answer(words, False, **options), two.answer(words, False, **beams)
        assert codes(first.answer) == codes(second.answer)
    assert one.context_ids == two.context_ids and one._cached == two._cached


# ---- settings


@DOORS
def test_a_generation_config(talker, answer):
    """Its length bounds the answer, and its sampling draws."""
    assert length(answer(talker, generation_config=GenerationConfig(max_new_tokens=22))) < length(answer(talker))
    assert codes(answer(talker, max_new_tokens=22)) == codes(
        answer(talker, generation_config=GenerationConfig(max_new_tokens=22))
    )
    config = GenerationConfig(do_sample=True, temperature=3.0, max_new_tokens=99)
    drawn = [codes(answer(talker, generation_config=config, max_new_tokens=30)) for _ in range(3)]
    assert drawn[0] != drawn[1] or drawn[1] != drawn[2]
    assert codes(answer(talker, generation_config=config, do_sample=False, max_new_tokens=40)) == codes(answer(talker))
    assert (config.max_new_tokens, config.use_cache) == (99, None)  # the caller's object


@DOORS
def test_the_generation_config_of_the_checkpoint(talker, answer):
    greedy = codes(answer(talker))
    talker.model.generation_config.update(do_sample=True, temperature=3.0)
    drawn = [codes(answer(talker)) for _ in range(3)]
    assert drawn[0] != drawn[1] or drawn[1] != drawn[2]
    assert codes(answer(talker, do_sample=False)) == greedy
    talker.model.generation_config.update(max_new_tokens=22)
    shorter = SolamiPipeline(talker.model, talker.processor)
    assert (shorter.max_new_tokens, talker.max_new_tokens) == (22, 40) and length(answer(shorter)) < 22


def test_beams_of_the_checkpoint(talker):
    expected = codes(by_pipeline(talker, num_beams=3))
    talker.model.generation_config.num_beams = 3
    assert codes(by_pipeline(talker)) == codes(by_session(talker)) == expected
    with pytest.raises(ValueError, match="a stream has one beam"):
        by_stream(talker)


@DOORS
@pytest.mark.parametrize("options", [{"return_dict_in_generate": True, "output_scores": True}, {"max_time": 99.0}])
def test_what_changes_no_answer(talker, answer, options):
    expected = codes(answer(talker))
    assert codes(answer(talker, **options)) == expected
    assert codes(answer(talker, generation_config=GenerationConfig(**options))) == expected
    talker.model.generation_config.update(**options)
    assert codes(answer(talker)) == expected


class Seen(LogitsProcessor):
    """Forbids nothing."""

    calls = 0

    def __call__(self, input_ids, scores):
        self.calls += torch.isfinite(scores).all().item()
        return scores


@DOORS
def test_processors_of_ones_own_come_before_the_grammar(talker, answer):
    expected, seen = codes(answer(talker)), Seen()
    assert codes(answer(talker, logits_processor=[seen])) == expected and seen.calls > 5

    def shout(input_ids, scores):  # not what the grammar wants
        return torch.where(torch.arange(scores.shape[1]) == 5, scores + 1e4, scores)

    codes(answer(talker, logits_processor=[shout]))
    assert not answer(talker, logits_processor=[]).valid  # said in so many words


def test_a_grammar_of_ones_own(talker):
    bounds = {"min_seconds": 0.5, "max_seconds": 0.54, "max_new_tokens": 60, "max_text_tokens": 3}
    grammar = AnswerGrammar(talker.model.config, **bounds)
    answer = by_pipeline(talker, logits_processor=[grammar], max_new_tokens=60)
    assert len(codes(answer)[0]) <= 3 and len(answer.body) == 4 and 25 <= len(answer.speech) <= 27


@DOORS
def test_criteria_of_ones_own(talker, answer):
    prompt = len(talker.chat_prompt(TURN))
    for criteria in ([MaxLengthCriteria(prompt + 5)], [lambda ids, scores, **more: torch.full((len(ids),), True)]):
        assert answer(talker, stopping_criteria=criteria).reason.startswith("no <eos>")
    assert codes(answer(talker, stopping_criteria=None)) == codes(answer(talker))


def test_words_that_stop(talker):
    for answer in (by_pipeline, by_session):
        assert answer(talker, stop_strings=["<sobo>"]).reason.startswith("no <eos>")


def test_a_streamer(talker):
    class Streamer:
        def __init__(self):
            self.ids = []

        def put(self, value):
            self.ids += value.reshape(-1).tolist()

        def end(self):
            self.ids.append(None)

    for answer in (by_pipeline, by_session):
        streamer = Streamer()
        ids = answer(talker, streamer=streamer).text_ids
        prompt = len(talker.chat_prompt(TURN))
        assert streamer.ids[prompt : prompt + len(ids)] == ids and streamer.ids[-1] is None


@DOORS
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temprature": 2.0}, "temprature"),
        ({"generation_config": GenerationConfig(temprature=2.0)}, "generation_config has temprature"),
        ({"generation_config": {"do_sample": True}}, "must be a GenerationConfig, got dict"),
        ({"generation_config": "greedy"}, "must be a GenerationConfig, got str"),
        ({"do_sample": True, "num_return_sequences": 3}, "one answer a turn; for several, repeat"),
        ({"generation_config": GenerationConfig(num_beams=2, num_return_sequences=2)}, "one answer a turn"),
        ({"max_length": 300}, "max_length=300 counts the prompt too; say max_new_tokens"),
        ({"generation_config": GenerationConfig(max_length=300)}, "max_length=300 counts the prompt too"),
        ({"logits_processor": Seen()}, "logits_processor must be a list, got Seen"),
        ({"stopping_criteria": MaxLengthCriteria(9)}, "stopping_criteria must be a list, got MaxLengthCriteria"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 2000}, "max_new_tokens=2000"),
    ],
)
def test_what_is_refused(talker, answer, options, told):
    with pytest.raises(ValueError, match=told):
        answer(talker, **options)


def test_a_cache_of_ones_own_has_no_place_in_a_session(talker):
    for options in ({"cache_implementation": "offloaded"}, {"past_key_values": object()}):
        for answer in (by_session, by_stream):
            with pytest.raises(ValueError, match="a session has a cache of its own"):
                answer(talker, **options)
    for name in ("past_key_values", CACHE):
        with pytest.raises(ValueError, match=f"{CACHE} and use_cache=False exclude each other"):
            by_pipeline(talker, **{name: object()}, use_cache=False)


def test_settings_that_only_the_checkpoint_knows(talker):
    """As those of some Hub models; a copy of its generation config is no typing error."""
    talker.model.generation_config.chat_format = "raw"
    assert codes(by_pipeline(talker, generation_config=talker.model.generation_config)) == codes(by_pipeline(talker))


# ---- mixed precision, and weights on a disk


@DOORS
def test_autocast_around_an_answer(talker, answer):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = codes(answer(talker))
        assert codes(answer(talker)) == first
        assert by_pipeline(talker).valid and codes(by_stream(talker)) == codes(by_session(talker))
    assert codes(answer(talker)) == codes(answer(talker))


def test_autocast_around_media(talker, small_motion, small_sound):
    turn = [{"type": "motion", "motion": small_motion}, {"type": "audio", "audio": small_sound}]
    user = {"role": "user", "content": turn}
    ((plain,),) = talker.processor.encode_media([[user]])
    talker.face = False  # or the head turns to the user
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ((mixed,),) = talker.processor.encode_media([[user]])
        reply = talker([user])
        *_, last = DialogueSession(talker).stream(user)
    assert plain == mixed
    assert reply.audio.dtype == "float32" and reply.motion.num_frames == last.reply.motion.num_frames
    body, speech = {"body": reply.answer.body, "hand": reply.answer.hand}, reply.answer.speech
    assert (talker.processor.decode_motion(body).poses == reply.motion.poses).all()
    assert (talker.processor.decode_speech(speech) == reply.audio).all()


PARTS = ("model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head")


@pytest.mark.parametrize("on_disk", ["model.embed_tokens", "lm_head"])
def test_half_of_tied_weights_on_a_disk_is_refused(talker, tmp_path, monkeypatch, on_disk):
    monkeypatch.setattr(talker.model.config, "tie_word_embeddings", True)
    talker.model.config.save_pretrained(tmp_path)
    places = {name: "disk" if name == on_disk else "cpu" for name in PARTS}
    with pytest.raises(ValueError, match="one of embed_tokens and lm_head on a disk, .* put both there, or neither"):
        load_model(tmp_path, device_map=places, offload_folder=tmp_path / "disk")


@pytest.mark.parametrize("on_disk", [PARTS[1:2], PARTS[:1] + PARTS[4:], PARTS[:2] + PARTS[4:]])
def test_weights_on_a_disk(talker, tmp_path, on_disk):
    talker.model.save_pretrained(tmp_path / "model")
    talker.processor.save_pretrained(tmp_path / "model")
    places = {name: "disk" if name in on_disk else "cpu" for name in PARTS}
    placed = SolamiPipeline.from_pretrained(
        tmp_path / "model", max_new_tokens=40, device_map=places, offload_folder=tmp_path / "disk"
    )
    for answer in (by_pipeline, by_session, by_task):
        assert codes(answer(placed)) == codes(answer(talker))
    session, twin = DialogueSession(placed), DialogueSession(talker)
    for one in (session, twin):
        one.answer("hi", decode=False, num_beams=2)
    session.save(tmp_path / "session", cache=True)
    loaded = DialogueSession.load(tmp_path / "session", talker)  # keys and values are those of the model in memory
    assert loaded._cached == twin._cached


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_the_dtype_by_either_name(talker, tmp_path, name, dtype):
    talker.model.save_pretrained(tmp_path)
    talker.processor.save_pretrained(tmp_path)
    assert SolamiPipeline.from_pretrained(tmp_path, **{name: dtype}).model.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="dtype is float16 and torch_dtype"):
        SolamiPipeline.from_pretrained(tmp_path, dtype="float16", torch_dtype=dtype)
    with pytest.raises((TypeError, ValueError), match="atention"):
        SolamiPipeline.from_pretrained(tmp_path, atention="eager")
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.float32
