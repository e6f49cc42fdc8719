"""The endpoint: its troubles, its refusals, wrong answers, several requests at once; and a model in this process."""

import json
import socket
import time

import pytest

from solami_hf.processing.synthesize import synthesize


def test_no_saved_token_is_sent_to_a_plain_address(arguments, server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    synthesize(arguments(num_dialogues=1))
    assert "hf_secret" not in json.dumps(server.headers_seen)
    monkeypatch.setenv("MY_KEY", "key-1")
    synthesize(arguments(num_dialogues=1, output="two", api_key_env="MY_KEY"))
    assert server.headers_seen[-1]["authorization"] == "Bearer key-1"
    with pytest.raises(ValueError, match="NO_SUCH"):
        synthesize(arguments(api_key_env="NO_SUCH"))


def drop(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)  # `close` leaves it to the files that read and write it


def hang(handler):
    time.sleep(0.7)
    handler.send(200, b"{}")


@pytest.mark.parametrize(
    "trouble",
    [
        (429, {"Retry-After": "0.02"}),
        (500, {}),
        (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        drop,
        hang,
        lambda handler: handler.send(200, b"<html>busy</html>"),
        lambda handler: handler.send(200, {"object": "chat.completion"}),
        lambda handler: handler.send(200, {"choices": []}),
    ],
    ids=["overload", "error", "unavailable", "dropped", "timeout", "html", "no choices", "empty choices"],
)
def test_passing_trouble_is_waited_out(arguments, server, trouble, tmp_path, rows_of):
    server.behave = lambda number, body: trouble if number < 2 else None
    report = synthesize(arguments(num_dialogues=1, timeout=0.5 if trouble is hang else 60.0))
    assert report["train"] == 1
    assert len(server.requests) == 3 or trouble is hang and len(server.requests) > 3  # a busy machine may hang, too
    assert len(rows_of(tmp_path / "out")) == 1 and rows_of(tmp_path / "out", "rejected") == []


def test_retry_after_is_obeyed(arguments, server, caplog):
    server.behave = lambda number, body: (429, {"Retry-After": "0.2"}) if number == 0 else None
    caplog.set_level("DEBUG", "solami_hf")
    synthesize(arguments(num_dialogues=1))
    assert "next try in 0.2 s" in caplog.text


def test_wrong_answers_are_asked_again_with_the_error(arguments, server, tmp_path):
    server.behave = lambda number, body: "{broken" if len(body["messages"]) == 2 else None
    report = synthesize(arguments(num_dialogues=2))
    assert report["train"] == 2 and report["answers"] == 4 and report["completion_tokens"] == 200
    second = [body for body in server.requests if len(body["messages"]) == 4]
    assert len(second) == 2 and "not valid JSON" in second[0]["messages"][3]["content"]
    assert second[0]["messages"][2] == {"role": "assistant", "content": "{broken"}


def test_what_never_becomes_valid_is_kept_with_its_reason(arguments, server, tmp_path, rows_of):
    bad = "synthetic-0-000001"

    def behave(number, body):
        return "never" if body["messages"][1]["content"] == server.wanted else None

    server.behave = lambda number, body: None
    synthesize(arguments(output="probe"))
    topic = next(row["topic"] for row in rows_of(tmp_path / "probe") if row["id"] == bad)
    server.wanted = next(
        body["messages"][1]["content"]
        for body in server.requests
        if f"Topic: {topic}\n" in body["messages"][1]["content"]
    )
    server.behave = behave
    report = synthesize(arguments(attempts=2))
    assert (report["train"], report["rejected"]) == (2, 1)
    (rejected,) = rows_of(tmp_path / "out", "rejected")
    assert rejected["id"] == bad and "no JSON object" in rejected["reason"] and rejected["answers"] == ["never"] * 2


def test_a_server_without_schemas_is_asked_without(arguments, server):
    server.behave = lambda number, body: (400, {}) if "response_format" in body else None
    assert synthesize(arguments(concurrency=1))["train"] == 3
    kinds = [body.get("response_format", {}).get("type") for body in server.requests]
    assert kinds == ["json_schema", "json_object", None, None, None]


def test_one_refused_request_does_not_cost_the_others_their_schema(arguments, server, tmp_path, rows_of):
    refused = []

    def behave(number, body):
        refused[:] = refused or [body["messages"][1]["content"]]
        return (400, {}) if body["messages"][1]["content"] == refused[0] else None

    server.behave = behave
    assert synthesize(arguments(concurrency=1))["train"] == 2
    kinds = [body.get("response_format", {}).get("type") for body in server.requests]
    assert kinds == ["json_schema", "json_object", None, "json_schema", "json_schema"]
    (rejected,) = rows_of(tmp_path / "out", "rejected")
    assert rejected["reason"].startswith("endpoint: ") and "400" in rejected["reason"]


def test_a_refusing_endpoint_stops_the_run_at_once(arguments, server):
    server.behave = lambda number, body: (401, {})
    with pytest.raises(OSError, match="401"):
        synthesize(arguments(num_dialogues=50, concurrency=1))
    assert len(server.requests) <= 3


def test_an_endpoint_that_fails_on_and_on_stops_the_run_but_keeps_what_it_gave(arguments, server):
    server.behave = lambda number, body: None if number < 2 else (500, {})
    with pytest.raises(OSError, match="failed for 4 dialogues .* run the command again"):
        synthesize(arguments(num_dialogues=20, concurrency=1, retries=1))
    server.behave, before = lambda number, body: None, len(server.requests)
    assert synthesize(arguments(num_dialogues=20))["answers_from_cache"] == 2
    assert len(server.requests) - before == 18


def test_requests_run_side_by_side_and_give_the_same(arguments, server, tmp_path):
    server.delay = 0.05
    synthesize(arguments(output="one", num_dialogues=8, concurrency=1))
    assert server.most_under_way == 1
    server.behave = lambda number, body: time.sleep(0.2 * (number % 4 == 0))  # the first are not the first to end
    synthesize(arguments(output="four", num_dialogues=8, concurrency=4))
    assert 2 <= server.most_under_way <= 4
    assert (tmp_path / "one/manifest.jsonl").read_bytes() == (tmp_path / "four/manifest.jsonl").read_bytes()


def test_a_damaged_answer_is_asked_again(arguments, server, tmp_path, caplog):
    synthesize(arguments(num_dialogues=1))
    (path,) = (tmp_path / "out/cache/answers").glob("*.json")
    path.write_text('{"answer":')
    assert synthesize(arguments(num_dialogues=1))["train"] == 1
    assert len(server.requests) == 2 and "damaged" in caplog.text


def test_nonsense_of_a_local_model_is_rejected(tiny_tokenizer, arguments, tmp_path, rows_of):
    from transformers import LlamaConfig, LlamaForCausalLM

    tiny_tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tiny_tokenizer), max_position_embeddings=4096, **sizes))
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    local = dict(base_url=None, model=None, local_model=str(tmp_path / "model"), max_tokens=12, num_dialogues=2)
    with pytest.raises(ValueError, match="no dialogue could be used"):
        synthesize(arguments(attempts=2, **local))
    rejected = rows_of(tmp_path / "out", "rejected")
    assert len(rejected) == 2 and all(row["reason"] and len(row["answers"]) == 2 for row in rejected)
    first = [row["answers"] for row in rejected]
    for path in (tmp_path / "out/cache/answers").glob("*.json"):
        answer = json.loads(path.read_text())["answer"]
        assert answer["prompt_tokens"] > 100 and 0 < answer["completion_tokens"] <= 12
        path.unlink()
    with pytest.raises(ValueError, match="no dialogue could be used"):
        synthesize(arguments(attempts=2, **local))
    assert [row["answers"] for row in rows_of(tmp_path / "out", "rejected")] == first  # seeded
    tiny_tokenizer.chat_template = None
    tiny_tokenizer.save_pretrained(tmp_path / "untuned")
    model.save_pretrained(tmp_path / "untuned")
    with pytest.raises(ValueError, match="no chat template"):
        synthesize(arguments(**{**local, "local_model": str(tmp_path / "untuned")}))
