"""For any task, dialogue and format: the ids say what was meant, labels are the answers, and these are read back."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solami_hf.demo.tiny_model import train_tokenizer
from solami_hf.modeling.solami.configuration_solami import ANSWER_FORMATS
from solami_hf.modeling.solami.vocabulary import extend_tokenizer
from solami_hf.processing.answers import parse_answer, parse_interleaved
from solami_hf.processing.datasets.batch_rendering import render_chat_batch
from solami_hf.processing.datasets.tasks import chat_messages, phrasings
from solami_hf.processing.datasets.token_dataset import SCHEMAS
from solami_hf.processing.rendering import IGNORE, TASKS, TokenRenderer, drop_oldest_rounds

# Without a database and a clock: the same examples on every machine.
settings.register_profile("house", derandomize=True, database=None, deadline=None, max_examples=40)
settings.load_profile("house")

FORMATS = [(text, chunks) for text in ANSWER_FORMATS for chunks in (False, True)]
SIGNS = {"speech": "🗣️", "body": "🕺", "hand": "🤚", "trans": "🔀"}
ENDS = {"speech": ("<sosp>", "<eosp>"), "body": ("<sobo>", "<eobo>"), "hand": ("<soha>", "<eoha>"), "trans": ("", "")}
PER_CHUNK = {"body": 3, "hand": 3, "speech": 20}

words = st.text(st.characters(codec="utf-8", exclude_characters="<["), min_size=1, max_size=12)


def codes(least, most):
    return st.lists(st.integers(0, 15), min_size=least, max_size=most)


@st.composite
def turns(draw, role, complete):
    length = draw(st.integers(1 if complete else 0, 9))
    turn = {"role": role, "text": draw(words), "motion_text": None}
    turn |= {name: draw(codes(length, length)) for name in ("body", "hand")}
    return turn | {"trans": draw(codes(1, 1)), "speech": draw(codes(1 if complete else 0, 50))}


@st.composite
def dialogues(draw, complete=False):
    """A row of chat data: perhaps a system turn, then turns of both roles, not always by turns."""
    roles = ["user", "assistant"] * 3 if complete else st.lists(st.sampled_from(["user", "assistant"]), max_size=6)
    roles = roles[: 2 * draw(st.integers(1, 3))] if complete else draw(roles)
    rows = [draw(turns(role, complete)) for role in roles]
    if draw(st.booleans()):
        empty = {"motion_text": None, "body": None, "hand": None, "trans": None, "speech": None}
        rows.insert(0, {"role": "system", "text": draw(words), **empty})
    return {"id": "x", "topic": "", "character": "ada", "turns": rows, "source": ""}


@pytest.fixture(scope="module")
def renderers():
    """A sequential and an interleaved renderer of one tokenizer."""
    tokenizer = train_tokenizer(["please wave your hand", "a person takes a bow"], vocab_size=280)
    modalities, markers = extend_tokenizer(tokenizer, dict.fromkeys(SIGNS, 16))
    layout = SimpleNamespace(modalities=modalities, markers=markers, answer_format="motion_speech")
    return TokenRenderer(tokenizer, layout, False), TokenRenderer(tokenizer, layout, True)


def written(name, values, begin=True, end=True):
    opened, closed = ENDS[name]
    return opened * begin + "".join(f"<{SIGNS[name]}{value}>" for value in values) + closed * end


def written_media(spans, interleaved):
    """Spans `{name: codes}` one after the other, or chunk by chunk."""
    if not interleaved:
        return "".join(written(name, values) for name, values in spans.items())
    text, chunk = "", 0
    while any(chunk * PER_CHUNK[name] < len(values) for name, values in spans.items()):
        for name, values in spans.items():
            start, stop = chunk * PER_CHUNK[name], (chunk + 1) * PER_CHUNK[name]
            if start < len(values):
                text += written(name, values[start:stop], chunk == 0, stop >= len(values))
        chunk += 1
    return text


def answer_spans(turn, answer_format="motion_speech"):
    spans = {"body": turn["body"], "hand": turn["hand"], "speech": turn["speech"]}
    if answer_format == "text_motion":
        del spans["speech"]
    return {name: values for name, values in spans.items() if values}


def written_answer(turn, answer_format, interleaved):
    media = written_media(answer_spans(turn, answer_format), interleaved)
    if not media:
        return turn["text"]
    return (turn["text"] + "<eot>" if answer_format.startswith("text") else "") + media


def written_chat(rows, answer_format, interleaved):
    """The whole dialogue, and the trained part of it."""
    text, trained = "", ""
    for i, turn in enumerate(rows):
        if turn["role"] == "system":
            text += turn["text"] + "\n"
            continue
        text += "\n" if i and rows[i - 1]["role"] != "system" else ""
        if turn["role"] == "user":
            spans = {"trans": turn["trans"] if turn["body"] else [], **answer_spans(turn)}
            media = written_media({name: values for name, values in spans.items() if values}, False)
            text += f"[Human]: {media or turn['text']}<eoh>"
        else:
            answer = written_answer(turn, answer_format, interleaved) + "<eos>"
            text, trained = text + "[MMGPT]: " + answer, trained + answer
    return text, trained


def check(renderer, sample, text, trained):
    ids, labels = np.asarray(sample["input_ids"]), np.asarray(sample["labels"])
    assert renderer.tokenizer.decode(ids) == text
    assert renderer.tokenizer.decode(ids[labels != IGNORE]) == trained
    assert np.array_equal(labels[labels != IGNORE], ids[labels != IGNORE])


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("task", TASKS)
@given(data=st.data())
def test_tasks(renderers, task, interleaved, data):
    def block(kind):
        if kind == "text":
            text = data.draw(words)
            return {"type": "text", "text": text}, lambda _: text
        spans = {"speech": data.draw(codes(1, 60))}
        if kind == "audio":
            return {"type": "audio", "audio": {"codes": spans["speech"]}}, lambda i: written_media(spans, i)
        length = data.draw(st.integers(1, 12))
        spans = {name: data.draw(codes(length, length)) for name in ("body", "hand")}
        return {"type": "motion", "motion": spans}, lambda i: written_media(spans, i)

    renderer, (source, target) = renderers[interleaved], TASKS[task]
    (given_block, given_text), (wanted_block, wanted_text) = block(source), block(target)
    instruction = data.draw(st.sampled_from(phrasings(task)))
    lead = instruction + (" " if target == "text" else " This is input: ")
    answer = wanted_text(interleaved) + "<eos>"
    text = f"[Human]: {lead}{given_text(False)}<eoh> [MMGPT]: {answer}"
    check(renderer, renderer.task(instruction, given_block, wanted_block), text, answer)


@pytest.mark.parametrize(("answer_format", "interleaved"), FORMATS)
@given(row=dialogues())
def test_chats(renderers, answer_format, interleaved, row):
    if not row["turns"]:
        return
    renderer = renderers[interleaved]
    text, trained = written_chat(row["turns"], answer_format, interleaved)
    check(renderer, renderer.chat(chat_messages(row, answer_format)), text, trained)


@pytest.mark.parametrize(("answer_format", "interleaved"), FORMATS)
@given(row=dialogues(complete=True))
def test_answers_are_read_back(renderers, answer_format, interleaved, row):
    renderer = renderers[interleaved]
    sample, _ = render_chat_batch(table([row]), renderer, answer_format)
    labels = np.asarray(sample["labels"][0].as_py())
    trained = labels[labels != IGNORE]
    answers = [turn for turn in row["turns"] if turn["role"] == "assistant"]
    ends = np.flatnonzero(trained == renderer.layout.markers["eos"])
    assert len(ends) == len(answers) and ends[-1] == len(trained) - 1
    read = parse_interleaved if interleaved else parse_answer
    for ids, turn in zip(np.split(trained, ends[:-1] + 1), answers, strict=True):
        answer = read(ids, renderer.layout, answer_format)
        assert answer.valid, answer.reason
        said = {"body": turn["body"], "hand": turn["hand"], "speech": []} | answer_spans(turn, answer_format)
        assert all(getattr(answer, name).tolist() == codes for name, codes in said.items())
        transcript = turn["text"] if answer_format.startswith("text") else ""
        assert renderer.tokenizer.decode(answer.text_ids) == transcript


def table(rows):
    return pa.Table.from_pylist(rows, schema=SCHEMAS["chat"].arrow_schema)


def one_by_one(renderer, row, answer_format, max_length):
    """What a batch must give for a row, from the dialogue renderer: a sample, or why there is none."""
    roles = [turn["role"] for turn in row["turns"]]
    if "assistant" not in roles:
        return "without_answer"
    last = len(roles) - 1 - roles[::-1].index("assistant")
    messages = chat_messages({"turns": row["turns"][: last + 1]}, answer_format)
    kept = drop_oldest_rounds(messages, lambda m: len(renderer.chat(m)["input_ids"]) <= max_length)
    return "too_long" if kept is None else renderer.chat(kept)


@pytest.mark.parametrize(("answer_format", "interleaved"), FORMATS)
@given(rows=st.lists(dialogues(), min_size=1, max_size=5), max_length=st.integers(20, 400))
def test_batches_equal_one_by_one(renderers, answer_format, interleaved, rows, max_length):
    renderer = renderers[interleaved]
    rows = [{**row, "id": str(i)} for i, row in enumerate(rows)]
    rendered, counts = render_chat_batch(table(rows), renderer, answer_format, max_length)
    expected = [one_by_one(renderer, row, answer_format, max_length) for row in rows]
    samples = {str(i): sample for i, sample in enumerate(expected) if not isinstance(sample, str)}
    assert rendered["id"].to_pylist() == list(samples)
    for row in rendered.to_pylist():
        assert row["input_ids"] == samples[row["id"]]["input_ids"].tolist()
        assert row["labels"] == samples[row["id"]]["labels"].tolist()
        assert len(row["input_ids"]) <= max_length
    assert counts.without_answer == expected.count("without_answer") and counts.too_long == expected.count("too_long")
    assert counts.rendered == len(samples) and counts.rejected == 0
    assert counts.tokens == sum(len(sample["input_ids"]) for sample in samples.values())


@given(row=dialogues(complete=True), max_length=st.integers(20, 400))
def test_whole_rounds_are_kept(renderers, row, max_length):
    renderer = renderers[0]
    rendered, counts = render_chat_batch(table([row]), renderer, "motion_speech", max_length)
    rows = [turn for turn in row["turns"] if turn["role"] != "system"]
    system = [turn for turn in row["turns"] if turn["role"] == "system"]
    tails = [written_chat(system + rows[i:], "motion_speech", False)[0] for i in range(0, len(rows), 2)]
    if not len(rendered):
        assert counts.too_long == 1 and len(renderer.tokenizer(tails[-1])["input_ids"]) > max_length
        return
    ids = rendered["input_ids"][0].as_py()
    text = renderer.tokenizer.decode(ids)
    assert text in tails and counts.dropped_rounds == tails.index(text) and counts.shortened == (text != tails[0])
    if text != tails[0]:  # one round more would have been too long
        longer = tails[tails.index(text) - 1]
        assert len(renderer.tokenizer(longer)["input_ids"]) > max_length
