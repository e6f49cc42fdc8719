"""What each side heard of the other: a user's words, recognised, and the part of an answer that was interrupted.

With `hearing="transcript"` or `"both"` a user's turn carries its transcript. Turns that have words already keep them.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from ..processing.answers import FORMATS, is_reserved
from ..processing.audio.recognition import SAMPLING_RATE
from ..processing.audio.waveforms import read_audio
from ..processing.processing_solami import MAX_SPEECH_SECONDS
from ..processing.rendering import raw_medium, text_block

CUT = "..."
"""Ends the words of an answer that was interrupted."""
CHARACTERS_PER_SECOND = 15.0
"""Of speech whose length is not known yet."""
Recogniser = Callable[[Sequence[np.ndarray]], list[str]]


def with_words(messages: list[dict], hearing: str, asr: Recogniser) -> list[dict]:
    """Messages, checked by the processor, in which each of the user's recordings that stands without words has its
    transcript by `asr` (`recognition.as_recogniser`) before it. Sound that is codes already is not recognised, and
    with the `hearing` "codes" nothing. Raises ValueError: an unreadable recording."""
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
    """Puts what is recognised in the recordings of users in the place of their words, in batches of an
    `inputs.Dialogue`, whose files are relative to `root`; a recording that cannot be read costs its dialogue."""
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


def heard_part(processor, ids: Sequence[int], said, seconds: float) -> list[int] | None:
    """The ids of an answer, which may end anywhere, as far as `seconds` of its sound, or without sound of its motion,
    were heard; None where that is no whole word, or nothing at all. Words are heard in proportion to their letters: of
    all the sound where its length is known, else of what was made of it so far, or of speech at
    `CHARACTERS_PER_SECOND` where that is more. A part that had begun keeps a code. `said` are speech codes (n,) of a
    talker, empty where there is none."""
    ids, levels = np.asarray(ids, dtype=np.int64), processor.speech_levels
    spans = {name: (span["first_id"], span["size"]) for name, span in processor.modalities.items()}
    codes = {name: ids[(ids >= first) & (ids < first + size)] - first for name, (first, size) in spans.items()}
    text, media = "", is_reserved(ids, processor)
    if has_text := FORMATS[processor.answer_format][0]:
        text = processor.tokenizer.decode(ids[: np.argmax(media) if media.any() else len(ids)]).strip()
    body_rate, speech_rate = processor.motion_codec.config.frame_rate, processor.speech_codec.config.frame_rate
    speech = codes.get("speech", ids[:0])
    moved, spoken = len(codes["body"]) / body_rate, (len(said) or len(speech)) / levels / speech_rate
    ended = processor.markers["eos"] in ids
    total = (spoken or moved) if ended or len(said) else max(spoken, moved, len(text) / CHARACTERS_PER_SECOND)
    if seconds <= 0 or (ended and seconds >= total):
        return ids.tolist() if seconds > 0 else None
    content = []
    if has_text:
        ends = [word.end() for word in re.finditer(r"\S+", text) if word.end() * total <= len(text) * seconds + 1e-6]
        text = text[: ends[-1]] + CUT if ends else ""
        if not text or processor.renderer.texts([(text, False)])[0] is None:
            return None
        content.append({"type": "text", "text": text})
    moving = {name: codes[name] for name in ("body", "hand") if name in codes}
    steps = min(max(1, int(seconds * body_rate)), *map(len, moving.values()))
    content.append({"type": "motion", "motion": {name: part[:steps] for name, part in moving.items()}})
    if frames := min(max(1, int(seconds * speech_rate)), len(speech) // levels):
        content.append({"type": "audio", "audio": {"codes": speech[: frames * levels]}})
    if not (text or steps or frames):
        return None
    return processor.renderer.chat([{"role": "assistant", "content": content}])["input_ids"][1:].tolist()
