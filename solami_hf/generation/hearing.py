"""Words of what a user says, recognised before a language model that reads words gets the turn.

With `hearing="transcript"` or `"both"` a user's turn carries its transcript. Turns that have words already keep them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..processing.audio.recognition import SAMPLING_RATE
from ..processing.audio.waveforms import read_audio
from ..processing.processing_solami import MAX_SPEECH_SECONDS
from ..processing.rendering import raw_medium, text_block

Recogniser = Callable[[Sequence[np.ndarray]], list[str]]


def with_words(messages: list[dict], hearing: str, asr: Recogniser) -> list[dict]:
    """Messages in which each of the user's recordings that stands without words has its transcript before it.

    Args:
        messages: as in `SolamiProcessor.apply_chat_template`, checked; sound that is codes already is not recognised.
        hearing: with "codes" nothing is recognised.
        asr: see `recognition.as_recogniser`.

    Raises:
        ValueError: an unreadable recording.
    """
    if hearing == "codes":
        return messages
    recordings = []
    for number, message in enumerate(messages):
        blocks = [] if isinstance(message["content"], str) or message["role"] != "user" else message["content"]
        if not any(block["type"] == "text" for block in blocks):
            media = [raw_medium(block) for block in blocks if block["type"] == "audio"]
            recordings += [(number, medium) for medium in media if medium is not None]
    if not recordings:
        return messages
    clips = [read_audio(medium, SAMPLING_RATE, max_seconds=MAX_SPEECH_SECONDS) for _, medium in recordings]
    words: dict[int, list[dict]] = {}
    for (number, _), text in zip(recordings, asr(clips), strict=True):
        words.setdefault(number, []).append(text_block(text))
    return [{**m, "content": [*words[i], *m["content"]]} if i in words else m for i, m in enumerate(messages)]


def dialogues_in_words(dialogues: list, root, asr: Recogniser) -> None:
    """Puts what is recognised in the recordings of users in the place of their words, in batches of a dialogue.

    Args:
        dialogues: `inputs.Dialogue`s of files, changed in place; a recording that cannot be read costs its dialogue.
        root: the folder that the names of files are relative to.
    """
    for dialogue in dialogues:
        turns = zip(dialogue.turns, dialogue.files, strict=True)
        named = [(turn, files["audio"]) for turn, files in turns if turn["role"] == "user" and files.get("audio")]
        try:
            clips = [read_audio(root / name, SAMPLING_RATE, max_seconds=MAX_SPEECH_SECONDS) for _, name in named]
        except (OSError, ValueError) as error:
            dialogue.turns, dialogue.error = [], str(error)
            continue
        for (turn, _), text in zip(named, asr(clips), strict=True):
            turn["text"] = text
