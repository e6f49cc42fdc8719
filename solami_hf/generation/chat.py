"""`solami chat`: talk to a character with files or words; each answer becomes a wav, an npz and a page to look at.

    solami chat --checkpoint runs/demo/checkpoint --character ada --output runs/chat \
        --turns hello.wav,wave.npz next.wav,nod.npz
    solami chat --checkpoint runs/demo/checkpoint --character ada --output runs/chat        # a console, no microphone
    solami chat --output runs/chat                                        # the same with the packaged character

A turn is any of a sound file, a motion file and words. In the console a line is a turn, `hello.wav wave.npz` or
`wave.npz Good morning!`, and these are commands:

    /undo            takes the last round back (or two)   /fork NAME   goes on from here under another name
    /reset           forgets the conversation             /switch NAME goes back to a conversation, at first "main"
    /save FOLDER     keeps it on the disk                 /load FOLDER takes one from there
    /help, /quit

OUTPUT gets turn1.wav, turn1.npz, turn1.html, ... and chat.json with all rounds, written after each answer. The npz has
the face's 52 curves as `face` beside the motion.
"""

import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..command_line import option, parse_arguments
from ..processing.audio.waveforms import read_audio, write_audio
from ..processing.files.output_folder import writing_to
from ..processing.files.text_files import write_json
from ..processing.media_files import named_media
from ..processing.motion.body import joint_positions
from ..processing.motion.mesh.contact import hands_off_body
from ..processing.motion.motion_io import read_motion, write_motion
from ..processing.motion.smplx_motion import SmplxMotion
from ..processing.rendering import raw_medium, sorted_blocks
from ..report.page import Conversation, Performer, Scene, standing_motion, write_report
from .folder.generate import TalkingArguments

logger = logging.getLogger(__name__)

PROMPT = "you> "
MOST_UNDONE = 2
"""Rounds that can be taken back; the state before each keeps keys and values of its own."""
USER_PLACE = (0.0, 0.0, 1.5)
"""Metres; where a user stands whose place is not known, or too far away to be seen."""
FARTHEST = 10.0


@dataclass
class ChatArguments(TalkingArguments):
    """Arguments of `solami chat`: the character and the turns."""

    output: str = option(..., "Folder for turn1.wav, turn1.npz, turn1.html, ..., chat.json.", kw_only=True)
    turns: list[str] | None = option(None, "A word a round: files joined by commas, a.wav,a.npz; else a console.")
    character: str | None = option(None, "One of the checkpoint's characters; of the packaged ones ada.")
    system: str | None = option(None, "A system prompt of your own instead.")
    voice: str | None = option(None, "One of its voices; by default the character's.")
    pages: bool = option(True, "Write a page of each round.")
    format: Literal["npz", "bvh", "glb", "vrm", "vrma"] = option("npz", "Of the motions; all but bvh hold the face.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    (args,) = parse_arguments([ChatArguments], argv, "solami chat", __doc__)
    with writing_to(args.output):
        return _chat(args)


def _chat(args: ChatArguments) -> int:
    import torch

    from .loading import fitting_threads
    from .session import DialogueSession

    users = None if args.turns is None else [user_message(word) for word in args.turns]
    sampling = args.sampling
    pipeline = args.load_pipeline(args.max_new_tokens)
    character = args.character
    if args.checkpoint is None and args.system is None:
        character = character or next(iter(pipeline.processor.characters))
    session = DialogueSession(pipeline, character, args.system, args.voice)
    known = pipeline.processor.characters.get(character, {})
    recorder = Recorder(args.output, known.get("name", "Character"), args.pages, args.format)
    torch.manual_seed(args.seed)
    with fitting_threads(pipeline):
        if users is None:
            console(session, recorder, sys.stdin, sys.stdout, **sampling)
        else:
            for said, user in zip(args.turns, users, strict=True):
                sys.stdout.write(f"{PROMPT}{said}\n")
                _say(session, recorder, user, sys.stdout, sampling)
    logger.info("%d answers in %s", len(recorder.rounds), args.output)
    return 0


def user_message(text: str | list[str]) -> dict:
    """A user message of files and words, in pieces or one string with commas between; see
    `media_files.named_media`. Raises FileNotFoundError: a file does not exist; ValueError: neither file nor words,
    a file that cannot be read, or two of a kind."""
    content, words = [], []
    for piece in _pieces(text) if isinstance(text, str) else text:
        kind = named_media(piece, in_sentence=not isinstance(text, str) and len(text) > 1)
        if kind is None:
            words.append(piece)
            continue
        if kind in (block["type"] for block in content):
            raise ValueError(f"a turn has one sound and one motion at most, {piece.strip()} is another {kind}")
        content.append({"type": kind, kind: piece.strip()})
    said = (", " if isinstance(text, str) else " ").join(word for word in (w.strip() for w in words) if word)
    if said:
        content.append({"type": "text", "text": said})
    if not content:
        raise ValueError(f"a turn needs a sound file, a motion file or words, got {text!r}")
    return {"role": "user", "content": content}


def _pieces(text: str) -> list[str]:
    """The parts between commas; those of the name of a file that is there stay together."""
    parts, pieces = text.split(","), []
    while parts:
        lengths = range(min(len(parts), 32), 1, -1)  # more commas has no name
        count = next((n for n in lengths if os.path.isfile(",".join(parts[:n]).strip())), 1)
        pieces.append(",".join(parts[:count]))
        del parts[:count]
    return pieces


class Recorder:
    """Writes the answers of a chat, each as it comes: `turn{n}.wav`, `.npz` and `.html`, and `chat.json`. `name` is
    the character's, for the pages, which `pages` writes; `file_format` that of the motions, one of
    `motion_io.WRITTEN_SUFFIXES` without its dot. `rounds` has `{"text", "valid", "audio", "motion", "page"}` of each;
    paths are None where the answer was malformed."""

    def __init__(self, output: str | Path, name: str = "Character", pages: bool = True, file_format="npz"):
        self.output, self.name, self.pages, self.suffix = Path(output), name, pages, f".{file_format}"
        self.output.mkdir(parents=True, exist_ok=True)
        self.rounds: list[dict] = []

    def write(self, user: dict, reply) -> dict:
        """Writes an answer to a message, and the list of all rounds; returns its entry."""
        number = len(self.rounds) + 1
        stem, paths = self.output / f"turn{number}", {"audio": None, "motion": None, "page": None}
        if reply.valid:
            paths["motion"] = f"{stem}{self.suffix}"
            write_motion(paths["motion"], reply.motion, reply.face)
            if reply.audio is not None:  # a talker says nothing where there is nothing to be said
                paths["audio"] = f"{stem}.wav"
                write_audio(paths["audio"], reply.audio, reply.sampling_rate)
        else:
            logger.warning("round %d: malformed answer (%s)", number, reply.answer.reason)
        if self.pages:
            page = write_turn_page(stem.with_suffix(".html"), number, self.name, user, reply, paths["audio"])
            paths["page"] = str(page)
        self.rounds.append({"text": reply.text, "valid": reply.valid, **paths})
        write_json(self.output / "chat.json", self.rounds)
        return self.rounds[-1]


def chat(
    pipeline,
    users: list[dict],
    output: str | Path,
    system: str | None = None,
    name: str = "Character",
    pages: bool = True,
    **generate_kwargs,
) -> list[dict]:
    """Plays a conversation with a `SolamiPipeline` and writes each answer as it comes; see `Recorder`, whose rounds it
    gives. `users` are the user's messages, one a round. A malformed answer stays out of the history, so that it cannot
    spoil the rounds that follow; see `DialogueSession`."""
    from .session import DialogueSession

    session, recorder = DialogueSession(pipeline, system=system), Recorder(output, name, pages)
    for user in users:
        recorder.write(user, session.answer(user, **generate_kwargs))
    return recorder.rounds


def console(session, recorder: Recorder, lines: Iterable[str], out, **generate_kwargs) -> None:
    """Answers line after line (as of `sys.stdin`) by a `DialogueSession` until `/quit` or the end of the input, and
    shows the answers on `out`; a bad line is told there and costs nothing."""
    conversations, current = {"main": [session]}, "main"
    out.write("A line is a turn: files, words, or both. /help lists the commands.\n" + PROMPT)
    out.flush()
    for line in lines:
        try:
            words = shlex.split(line) if line.strip() else []
            if words == ["/quit"]:
                break
            if words and re.fullmatch("/[a-z]*", words[0]):
                current = _command(words, conversations, current, out)
            elif words:
                # The state before each round is a fork, so that it can be taken back
                history = conversations[current]
                history.append(history[-1].fork())
                try:
                    _say(history[-1], recorder, user_message(words), out, generate_kwargs)
                except BaseException:
                    history.pop()
                    raise
                del history[: -1 - MOST_UNDONE]
        except (ValueError, OSError) as error:
            out.write(f"! {error}\n")
        out.write(PROMPT)
        out.flush()
    out.write("\n")


def _say(session, recorder: Recorder, user: dict, out, generate_kwargs: dict) -> None:
    """Answers a turn, and shows what was said, how long it is, how long it took and where it lies."""
    begin = time.perf_counter()
    reply = session.answer(user, **generate_kwargs)
    took = f"answered in {time.perf_counter() - begin:.1f} s"
    entry = recorder.write(user, reply)
    words, told = f"(malformed) {reply.answer.reason}", [took]
    if reply.valid:
        words = " ".join(reply.text.split()) or "(no words: this checkpoint answers without a transcript)"
        speech = 0.0 if reply.audio is None else len(reply.audio) / reply.sampling_rate
        motion = len(reply.motion.poses) / reply.motion.fps
        told = [f"{speech:.1f} s of speech", f"{motion:.1f} s of motion", took]
    files = [entry[name] for name in ("audio", "motion", "page") if entry[name]]
    out.write(f"{recorder.name}: {words}\n  {', '.join(told)}\n" + (f"  {' '.join(files)}\n" if files else ""))
    out.flush()


def _command(words: list[str], conversations: dict, current: str, out) -> str:
    """Runs a command of the console; returns the name of the conversation that goes on."""
    from .session import DialogueSession

    (name, *rest), history = words, conversations[current]
    if name in ("/fork", "/switch", "/save", "/load") and len(rest) != 1:
        raise ValueError(f"{name} takes one name, got {len(rest)}")
    if name == "/reset":
        fresh = history[-1].fork()
        fresh.reset()
        history.append(fresh)
    elif name == "/undo":
        if len(history) == 1:
            raise ValueError("there is nothing to take back")
        history.pop()
    elif name == "/fork":
        if rest[0] in conversations:
            raise ValueError(f"there is a conversation {rest[0]!r} already: {', '.join(conversations)}")
        conversations[rest[0]] = [history[-1].fork()]
        return _told(rest[0], conversations, out)
    elif name == "/switch":
        if rest[0] not in conversations:
            raise ValueError(f"no conversation {rest[0]!r}; there are {', '.join(conversations)}")
        return _told(rest[0], conversations, out)
    elif name == "/save":
        history[-1].save(rest[0])
    elif name == "/load":
        history.append(DialogueSession.load(rest[0], history[-1].pipeline))
    elif name == "/help":
        out.write(__doc__.partition("A turn is")[2].rpartition("OUTPUT")[0])
        return current
    else:
        raise ValueError(f"unknown command {name}; /help lists them")
    return _told(current, conversations, out)


def _told(current: str, conversations: dict, out) -> str:
    out.write(f"[{current}: {conversations[current][-1].rounds} rounds]\n")
    return current


def write_turn_page(path: Path, number: int, name: str, user: dict, reply, audio: str | None) -> Path:
    """Writes a round, counted from 1, of the character `name` as one HTML file: the user's message with its files or
    arrays, whose sound is written beside it as `<stem>.user.wav`, and the `Reply` with the wav file of its sound."""
    scene = turn_scene(path.with_suffix(".user.wav"), f"Round {number}", name, user, reply, audio)
    conversation = Conversation(name, "", [scene])
    lead = reply.text or ("An answer without words." if reply.valid else "The answer was malformed.")
    return write_report(path, title=f"{name}, round {number}", lead=lead, conversations=[conversation])


def turn_scene(heard: Path, title: str, name: str, user: dict, reply, audio: str | None) -> Scene:
    """A round as a page shows it; the user's sound is written to `heard`. Arguments as in `write_turn_page`."""
    blocks = {block["type"]: block for block in sorted_blocks(user["content"])}
    media = {kind: raw_medium(blocks[kind]) if kind in blocks else None for kind in ("motion", "audio")}
    if media["audio"] is None:
        heard = None
    else:
        write_audio(heard, read_audio(media["audio"], reply.sampling_rate), reply.sampling_rate)
    said = blocks.get("text", {}).get("text") or ("(a recording)" if heard else "")
    user = Performer.of_motion("You", hands_off_body(_user_motion(media["motion"])), heard, said)
    motion = standing_motion() if reply.motion is None else hands_off_body(reply.motion)
    character = Performer.of_motion(name, motion, audio, reply.text, face=reply.face)
    return Scene(title, reply.answer.reason, user, character, valid=reply.valid)


def _user_motion(motion) -> SmplxMotion:
    """A motion file or motion, as it is told; without any a body that faces the character."""
    if motion is None:
        return standing_motion(USER_PLACE, turn=np.pi)  # the character looks along +Z
    motion = read_motion(motion)
    if np.abs(joint_positions(motion)).max() > FARTHEST:
        motion = replace(motion, transl=motion.transl - motion.pelvis[:1] * [1.0, 0.0, 1.0] + USER_PLACE)
    return motion
