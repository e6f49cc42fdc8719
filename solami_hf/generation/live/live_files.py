"""Files of `solami serve`: answers to download, and recordings to try."""

import json
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

from ...processing.audio.waveforms import write_audio
from ...processing.motion.motion_io import write_motion
from ...report.page import Conversation, write_report
from ..chat import turn_scene
from .live_conversation import LiveConversation
from .live_protocol import ProtocolError

FORMATS = ("npz", "bvh", "glb", "wav", "html")
RECORDINGS = resources.files(__package__) / "recordings"


def turn_file(conversation: LiveConversation, number: int, format: str, pipeline) -> tuple[str, bytes]:
    """Name and content of an answer as a file; as `html`, of the whole talk as far as it is kept, with number 0. The
    package's writers write files, so that one lies in a temporary folder for the moment. Raises ProtocolError: an
    unknown format or turn, or an answer without such a part."""
    turns = (0, 0) if format == "html" else (1, conversation.turns)
    if format not in FORMATS or not turns[0] <= number <= turns[1]:
        told = f"expected a turn of 1 to {conversation.turns} as {', '.join(FORMATS)}, or turn 0, the talk, as html"
        raise ProtocolError("unknown", f"{told}; got {number} as {format[:20]!r}")
    kept, name = dict(conversation.kept), f"turn{number}.{format}" if number else "talk.html"
    reply = kept[number][1] if number in kept else None
    medium = (kept or None) if format == "html" else reply and (reply.audio if format == "wav" else reply.motion)
    if medium is None:
        told = f"turn {number} has no {format}: it has no answer, or not such a part, or is too long ago"
        raise ProtocolError("unavailable", told)
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        if format == "html":
            _write_talk(path, kept, pipeline.processor.characters.get(conversation.character, {}))
        elif format == "wav":
            write_audio(path, medium, reply.sampling_rate)
        else:
            write_motion(path, medium, reply.face)
        return name, path.read_bytes()


def _write_talk(path: Path, kept: dict, character: dict) -> None:
    """The page of the last rounds, as `solami chat` writes one of each."""
    name, scenes = character.get("name", "Character"), []
    for number, (content, reply) in kept.items():
        sound = None
        if reply.audio is not None:
            write_audio(sound := path.with_name(f"turn{number}.wav"), reply.audio, reply.sampling_rate)
        heard = path.with_name(f"turn{number}.user.wav")
        scenes.append(turn_scene(heard, f"Round {number}", name, {"content": content}, reply, sound))
    lead = f"{len(scenes)} rounds of a live conversation."
    write_report(path, title=f"A talk with {name}", lead=lead, conversations=[Conversation(name, "", scenes)])


def recordings() -> list[dict]:
    """The recordings that a user without a microphone can try: `{"id", "text"}` of each."""
    texts = json.loads((RECORDINGS / "recordings.json").read_text(encoding="utf-8"))
    return [{"id": number, "text": text} for number, text in enumerate(texts, 1)]


def recording(number: int) -> bytes | None:
    """The sound of a recording, Ogg Vorbis; None where there is none of this number."""
    known = any(number == each["id"] for each in recordings())
    return (RECORDINGS / f"{number}.ogg").read_bytes() if known else None
