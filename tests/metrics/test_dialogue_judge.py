"""`dialogue_judge` against a server on this machine, and with a tiny model of transformers."""

import importlib.util
import json
from pathlib import Path

import evaluate
import pytest

from solami_hf.metrics import folder_of, judging
from solami_hf.processing.synthesize.asking import UnusableAnswer
from solami_hf.processing.synthesize.writers import EndpointError

_spec = importlib.util.spec_from_file_location("chat_server", Path(__file__).parents[1] / "chat_server.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

CONTEXT = [{"role": "system", "content": "You are Ada, a captain."}, {"role": "user", "content": "Hello! (waves)"}]
ANSWERS = ["Welcome aboard!", "Bananas.", None]


def marks(relevance=4, consistency=5):
    return json.dumps({"reason": "so", "relevance": relevance, "consistency": consistency})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with _module.chat_server(lambda body: marks(1, 2) if "Bananas" in str(body["messages"]) else marks()) as stub:
        yield stub


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    return evaluate.load(folder_of("dialogue_judge"), cache_dir=str(tmp_path_factory.mktemp("evaluate")))


@pytest.fixture
def judge(load, server):
    """`judge(**options)` marks `ANSWERS` through the server."""

    def compute(predictions=ANSWERS, **options):
        settings = {"base_url": server.url, "model": "stub", "first_wait": 0.01, "timeout": 5.0, **options}
        return load.compute(predictions=predictions, contexts=[CONTEXT] * len(predictions), **settings)

    return compute


def test_marks_counts_and_cost(judge):
    result = judge(repeats=2, input_price=2.0, output_price=10.0)
    assert list(result)[:2] == ["relevance", "consistency"]
    assert (result["relevance"], result["consistency"]) == (2.5, 3.5)
    assert result["relevance_marks"] == [[4, 4], [1, 1], []]
    assert result["valid"] == pytest.approx(2 / 3) and result["judged"] == 1 and result["failed_marks"] == 0
    # The server counts 100 tokens of the prompt and 50 of the answer for each of the 4 requests.
    assert (result["requests"], result["prompt_tokens"], result["completion_tokens"]) == (4, 400, 200)
    assert result["cost"] == pytest.approx((400 * 2 + 200 * 10) / 1e6)
    assert result["judge"]["model"] == "stub" and result["mode"] == "corrected"


def test_the_prompt_shows_the_reference_only_when_asked(judge, server):
    judge(["Hi."], references=["Ahoy, sailor!"], repeats=1)
    judge(["Hi."], references=["Ahoy, sailor!"], repeats=1, with_reference=True)
    without, shown = (body["messages"][1]["content"] for body in server.requests)
    assert "Ahoy" not in without and "Ahoy, sailor!" in shown
    assert "You are Ada, a captain." in without and "Visitor: Hello! (waves)" in without and "Hi." in without
    with pytest.raises(ValueError, match=r"`references\[0\]` is empty"):
        judge(["Hi."], with_reference=True)


@pytest.mark.parametrize(
    "bad", ["{broken", "", marks(6), marks(0), marks("good"), marks(3.5), marks(True), '{"relevance": 3}']
)
def test_unusable_replies_are_asked_again_with_the_reason(judge, server, bad):
    server.behave = lambda number, body: bad if len(body["messages"]) == 2 else None
    result = judge(["Welcome!"], repeats=1)
    assert result["relevance"] == 4 and result["requests"] == 2 and result["failed_marks"] == 0
    complaint = server.requests[-1]["messages"][-1]["content"]
    assert complaint.startswith("Your reply cannot be used: ")


def test_what_is_never_usable_is_counted_and_left_out(judge, server):
    server.behave = lambda number, body: marks(9) if "Bananas" in str(body["messages"]) else None
    result = judge(repeats=2, attempts=2)
    assert result["relevance"] == 4 and result["judged"] == 0.5 and result["failed_marks"] == 2
    assert result["failures"] == ["relevance is 9, expected a whole number from 1 to 5"]
    assert result["relevance_marks"] == [[4, 4], [], []]
    server.behave = lambda number, body: marks(9)
    with pytest.raises(ValueError, match="no usable mark at all.* relevance is 9"):
        judge(repeats=1, attempts=1)


@pytest.mark.parametrize("trouble", [(429, {"Retry-After": "0"}), (500, {}), (503, {})])
def test_overload_and_server_errors_are_waited_out(judge, server, trouble):
    server.behave = lambda number, body: trouble if number < 2 else None
    assert judge(["Welcome!"], repeats=1, concurrency=1)["relevance"] == 4
    assert len(server.requests) == 3


def test_a_server_that_stays_down_is_an_error_and_a_refusal_too(judge, server):
    server.behave = lambda number, body: (500, {})
    with pytest.raises(OSError, match="failed for 4 marks one after another"):
        judge(["Welcome!"] * 6, repeats=1, retries=1, concurrency=1)
    server.behave = lambda number, body: (401, {})
    with pytest.raises(OSError, match="401"):
        judge(repeats=1)


def test_replies_are_kept_and_repeats_differ(judge, server, tmp_path):
    first = judge(repeats=2, cache=str(tmp_path), input_price=1.0, output_price=1.0)
    assert len({body["seed"] for body in server.requests}) == 2 and len(server.requests) == 4
    again = judge(repeats=3, cache=str(tmp_path), input_price=1.0, output_price=1.0)
    assert len(server.requests) == 6  # only the third repeats
    assert (again["requests"], again["from_cache"]) == (6, 4)
    assert again["relevance"] == first["relevance"] and again["paid"] == pytest.approx(again["cost"] / 3)
    judge(repeats=1, cache=str(tmp_path), temperature=0.2)
    assert len(server.requests) == 8  # another setting is another question


def test_agreement_of_repeats():
    assert judging.agreement([[1, 1], [5, 5]]) == {"exact": 1.0, "within_one": 1.0, "alpha": 1.0}
    assert judging.agreement([[3], []]) == {"exact": None, "within_one": None, "alpha": None}
    assert judging.agreement([[3, 3], [3, 3]])["alpha"] is None
    # By hand: within (1 + 4) * 2 / 4 = 2.5, over all marks 2 * var(1, 2, 5, 3) = 5.8333.
    found = judging.agreement([[1, 2], [5, 3]])
    assert found == {"exact": 0.0, "within_one": 0.5, "alpha": pytest.approx(1 - 2.5 / 5.833333)}


def test_agreement_is_reported(judge, server):
    server.behave = lambda number, body: marks(2 + body["seed"] // 1000 % 2, 3)
    result = judge(["Welcome!", "Hi."], repeats=2)
    assert result["relevance_agreement"]["exact"] == 0 and result["relevance_agreement"]["within_one"] == 1
    assert result["consistency_agreement"] == {"exact": 1.0, "within_one": 1.0, "alpha": None}


def test_marks_among_other_text():
    reply = 'Let me think {1}.</think> Sure:\n```json\n{"relevance": 4.0, "consistency": 2, "reason": "x"}\n```'
    assert judging.parse_marks(reply) == {"relevance": 4, "consistency": 2}
    with pytest.raises(UnusableAnswer, match="no JSON object"):
        judging.parse_marks("4 and 5")


def test_bad_input(load, judge):
    with pytest.raises(ValueError, match="say who judges"):
        load.compute(predictions=["a"], contexts=[CONTEXT])
    with pytest.raises(ValueError, match="`contexts` is missing"):
        load.compute(predictions=["a"], model="stub")
    with pytest.raises(ValueError, match=r"`contexts\[0\]` needs a user's message"):
        load.compute(predictions=["a"], contexts=[CONTEXT[:1]], model="stub")
    with pytest.raises(ValueError, match="every item of `predictions` is None"):
        judge([None])
    with pytest.raises(ValueError, match="unknown options modle"):
        judge(modle="x")
    with pytest.raises(ValueError, match="`mode` is 'upstream'"):
        judge(mode="upstream")
    with pytest.raises(ValueError, match="input_price and output_price go together"):
        judge(input_price=1.0)
    with pytest.raises(ValueError, match="repeats is 0"):
        judge(repeats=0)


def test_an_endpoint_error_of_one_question_is_a_failed_mark():
    class Judge:
        def complete(self, messages, seed, schema):
            if "Bananas" in messages[1]["content"]:
                raise EndpointError("too long")
            return judging_answer

        def close(self):
            pass

    from solami_hf.processing.synthesize.writers import Answer

    judging_answer = Answer(marks())
    questions = [judging.Question(text, CONTEXT) for text in ANSWERS[:2]]
    good, bad = judging.judge_answers(Judge(), questions, repeats=1)
    assert good.marks == [{"relevance": 4, "consistency": 5}] and not good.failures
    assert bad.marks == [] and bad.failures == ["endpoint: too long"]


def test_batches_and_the_usual_way_of_evaluate(load, server):
    load.add_batch(predictions=["Welcome!"], references=["Hi."], contexts=[CONTEXT])
    load.add(predictions="Bananas.", references="Hi.", contexts=CONTEXT)
    assert load.compute(base_url=server.url, model="stub", repeats=1)["relevance"] == 2.5


def test_a_local_model_is_asked_and_its_nonsense_refused(load, tiny_tokenizer, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    tiny_tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    tiny_tokenizer.save_pretrained(tmp_path / "lm")
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tiny_tokenizer), **sizes)).save_pretrained(tmp_path / "lm")
    options = {"local_model": str(tmp_path / "lm"), "max_tokens": 8, "attempts": 2, "repeats": 1}
    with pytest.raises(ValueError, match="the judge gave no usable mark at all"):
        load.compute(predictions=["Hi."], contexts=[CONTEXT], cache=str(tmp_path / "cache"), **options)
    kept = [json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*.json")]
    assert len(kept) == 2 and all(0 < entry["answer"]["completion_tokens"] <= 8 for entry in kept)
