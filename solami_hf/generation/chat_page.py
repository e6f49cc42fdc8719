"""The page of one round of `solami chat`: user and character in 3D, with their sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..processing.audio.waveforms import read_audio, write_audio
from ..processing.motion.body import joint_positions, rest_joints, standing_height
from ..processing.motion.motion_io import read_motion
from ..processing.rendering import raw_medium, sorted_blocks
from ..report.page import Conversation, Performer, Scene, write_report

USER_PLACE = (0.0, 0.0, 1.5)
"""Metres; where a user stands whose place is not known, or too far away to be seen."""
FARTHEST = 10.0


def write_turn_page(path: Path, number: int, name: str, user: dict, reply, audio: str | None) -> Path:
    """Writes a round as one HTML file; the user's sound is written beside it as `<stem>.user.wav`.

    Args:
        path: of the page.
        number: of the round, from 1.
        name: the character's.
        user: the user's message with its files or arrays.
        reply: the `Reply`, its media decoded.
        audio: wav file of the answer, None where it is not valid.
    """
    blocks = {block["type"]: block for block in sorted_blocks(user["content"])}
    media = {kind: raw_medium(blocks[kind]) if kind in blocks else None for kind in ("motion", "audio")}
    heard = None
    if media["audio"] is not None:
        heard = path.with_suffix(".user.wav")
        write_audio(heard, read_audio(media["audio"], reply.sampling_rate), reply.sampling_rate)
    joints, fps = _user_joints(media["motion"])
    said = blocks.get("text", {}).get("text") or ("(a recording)" if heard else "")
    performers = Performer("You", joints, fps, heard, said), _character(name, reply, audio)
    scene = Scene(f"Round {number}", reply.answer.reason, *performers, valid=reply.valid)
    conversation = Conversation(name, "", [scene])
    lead = reply.text or ("An answer without words." if reply.valid else "The answer was malformed.")
    return write_report(path, title=f"{name}, round {number}", lead=lead, conversations=[conversation])


def _character(name: str, reply, audio: str | None) -> Performer:
    if reply.motion is None:
        return Performer(name, _resting(), 30.0, audio, reply.text)
    return Performer(name, joint_positions(reply.motion), reply.motion.fps, audio, reply.text)


def _user_joints(motion) -> tuple[np.ndarray, float]:
    """Joints of a motion file or motion, turned to nobody; without any a body that faces the character."""
    if motion is None:
        # Half a turn about the vertical: the character looks along +Z
        return _resting() * [-1.0, 1.0, -1.0] + USER_PLACE, 30.0
    motion = read_motion(motion)
    joints = np.asarray(joint_positions(motion))
    if np.abs(joints).max() > FARTHEST:
        joints = joints - joints[:1, :1] * [1.0, 0.0, 1.0] + USER_PLACE
    return np.clip(joints, -30.0, 30.0), motion.fps


def _resting() -> np.ndarray:
    return rest_joints()[None] + [0.0, standing_height(), 0.0]


__all__ = ["write_turn_page"]
