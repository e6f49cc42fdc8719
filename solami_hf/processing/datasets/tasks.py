"""The six pretraining tasks: their phrasings, and token rows turned into (source, target) pairs."""

from functools import cache
from importlib import resources

from ..answers import FORMATS
from ..rendering import TASKS, heard, text_block

MOTION_TASKS = ("motion_to_text", "text_to_motion", "motion_to_motion")


@cache
def phrasings(task: str) -> tuple[str, ...]:
    """The instructions of a task; ValueError for an unknown task."""
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; expected one of {sorted(TASKS)}")
    text = resources.files("solami_hf.processing.datasets").joinpath(f"tasks/{task}.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def motion_block(row: dict) -> dict:
    """A content block with the body and hand codes of a `motion` row (tasks leave the transform out). There are no
    hand codes in the rows of a bound motion codec."""
    return {"type": "motion", "motion": {"body": row["body"], "hand": row["hand"]}}


def audio_block(turn: dict) -> dict:
    """A content block with the speech codes of a turn."""
    return {"type": "audio", "audio": {"codes": turn["speech"]}}


def chat_messages(row: dict, answer_format: str, system: str | None = None, hearing: str = "codes") -> list[dict]:
    """A row of a `chat` token dataset, with turns of role `system`, `user`, `assistant`, as messages whose media are
    codes. The character's turns hold what belongs to `answer_format`, see `answers.FORMATS`; the paper's if empty.
    `system` is the system prompt, when the row has none. With `hearing` `transcript` or `both` the user's turns begin
    with their words, with `transcript` without sound. Raises ValueError: with `transcript`, a user's turn has sound
    and no words."""
    words, parts = FORMATS[answer_format or "motion_speech"]
    messages = [] if system is None else [{"role": "system", "content": system}]
    for turn in row["turns"]:
        if turn["role"] == "system":
            messages.append({"role": "system", "content": turn["text"]})
            continue
        content, is_answer = [], turn["role"] == "assistant"
        if words if is_answer else hearing != "codes" and turn["text"]:
            content.append(text_block(turn["text"]))
        if turn["body"]:
            codes = {name: turn[name] for name in ("body", "hand") + (() if is_answer else ("trans",))}
            content.append({"type": "motion", "motion": codes})
        if turn["speech"] and (not is_answer or "speech" in parts):
            content.append(audio_block(turn))
        content = content if is_answer else heard(content, hearing)
        messages.append({"role": turn["role"], "content": content or turn["text"]})
    return messages
