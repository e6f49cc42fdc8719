"""Training data of the motion tokenizers: clips in memory, random windows of them, transforms, statistics."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ...modeling.motion_vq.free_body import REST
from ...modeling.motion_vq.kinematics import SMPLX_PARENTS
from ...modeling.motion_vq.motion_representation import represent
from ...processing.batching import pad_right
from ...processing.datasets.manifests import read_manifest
from ...processing.motion.features import motion_to_features, relative_transform
from ...processing.motion.motion_io import read_motion

BONE_LENGTH = 0.25
"""Metres, between that of a thigh and of a finger; see `feature_statistics`."""
COUNTED_JOINTS = [*range(22), *range(25, 55)]  # jaw and eyes follow the head
FACE_JOINTS = [22, 23, 24]
WAY_SECONDS = 8 / 30  # over which errors of the velocity add up, see `joint_levers`


@dataclass
class MotionClip:
    """One clip of a manifest with its `id`: `features` (T, 315) float32, raw features of the motion turned to begin
    facing +Z at the origin; `first` (159,) float32 parameters of the first frame, where the file has the person
    standing; `partner_id` of the other person of an interaction, or `None`."""

    id: str
    features: torch.Tensor
    first: torch.Tensor
    partner_id: str | None = None


def read_clips(folder: str | Path, split: str, fps: float = 30.0, least_frames: int = 4) -> list[MotionClip]:
    """All clips of a split as features, each file read once. Raises FileNotFoundError, ValueError: from
    `read_manifest` and `read_motion`, or a clip is too short for one code."""
    clips = []
    for row in read_manifest(folder):
        if row["split"] != split:
            continue
        if "motion" not in row:
            raise ValueError(f"The row {row['id']!r} of {folder}/manifest.jsonl lacks `motion`, the path of its clip.")
        params = torch.from_numpy(read_motion(Path(folder) / row["motion"], fps=fps).to_params())
        if len(params) <= least_frames:
            raise ValueError(
                f"The clip {row['id']!r} has {len(params)} frames at {fps:g} fps, "
                f"expected at least {least_frames + 1}."
            )
        features = motion_to_features(params)  # place and facing are the transform's to tell
        clips.append(MotionClip(row["id"], features, params[0], row.get("partner_id")))
    return clips


def cut_anywhere(clips: list[MotionClip], frames_per_code: int) -> list[MotionClip]:
    """The clips, and again without their first 1, 2, ... frames, so that codes begin at each frame."""
    starts = range(frames_per_code)
    return [
        replace(clip, features=clip.features[start:])
        for clip in clips for start in starts if len(clip.features) >= start + frames_per_code
    ]  # fmt: skip


class WindowDataset(Dataset):
    """Windows of equal length at random places of the clips; a shorter clip is padded. A clip counts once for each
    full window that fits into it, so long clips are not under-represented. Items are {motion_values (W, 315),
    padding_mask (W,), transform (5,)}. An item's number goes on counting from epoch to epoch (see `WindowSampler`),
    and it alone with `seed` decides the place."""

    def __init__(self, clips: list[MotionClip], window: int, transforms: torch.Tensor, seed: int = 0):
        self.clips, self.window, self.transforms, self.seed = clips, window, transforms, seed
        self.index = [i for i, clip in enumerate(clips) for _ in range(max(1, len(clip.features) // window))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, number])
        features = self.clips[self.index[number % len(self.index)]].features
        start = int(rng.integers(max(0, len(features) - self.window) + 1))
        piece = features[start : start + self.window]
        values = piece.new_zeros(self.window, piece.shape[1])
        values[: len(piece)] = piece
        return {
            "motion_values": values,
            "padding_mask": torch.arange(self.window) < len(piece),
            "transform": self.transforms[int(rng.integers(len(self.transforms)))],
        }


def padded_batches(clips: list[MotionClip], size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Whole clips as (B, T, 315) and masks (B, T), clips of similar length together."""
    ordered = sorted((clip.features for clip in clips), key=len)
    for start in range(0, len(ordered), size):
        yield pad_right(ordered[start : start + size])


def read_transforms(clips: list[MotionClip], random_number: int, generator: torch.Generator) -> torch.Tensor:
    """Transforms (N, 5) to train on: those of the partners among `clips`, seen from both sides, and random places. The
    random ones put an upright user at 0.5-4 m from the character, turned anywhere, mostly towards it and in front of
    it: all that a transform can say between two standing people, for data that holds few partners. Raises ValueError:
    no pair of partners and no random places were asked for."""
    by_id = {clip.id: clip for clip in clips}
    pairs = [(clip.first, by_id[clip.partner_id].first) for clip in clips if clip.partner_id in by_id]
    parts = []
    if pairs:
        user, character = (torch.stack(people) for people in zip(*pairs, strict=True))
        parts.append(relative_transform(user, character))
    if random_number:
        distance = 0.5 + 3.5 * torch.rand(random_number, generator=generator)
        bearing = 0.8 * torch.randn(random_number, generator=generator)
        turn = bearing + torch.pi + 0.8 * torch.randn(random_number, generator=generator)
        height = 0.05 * torch.randn(random_number, generator=generator)
        x, z = distance * bearing.sin(), distance * bearing.cos()
        parts.append(torch.stack([turn.cos(), -turn.sin(), x, height, z], dim=-1))
    if not parts:
        raise ValueError("There are no partners in the data and `random_transforms` is 0: no transforms to train on.")
    return torch.cat(parts)


def feature_statistics(
    clips: list[MotionClip],
    rotation_std_floor: float,
    representation: str = "local_rotation",
    parts: tuple[int, ...] = (),
    face_joints: float = 0.0,
    fps: float = 30.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (315,) over all frames, in double precision; (171,) in the representation `joints`.

    Rotation features vary by up to 2; a deviation below `rotation_std_floor` is noise of a joint that hardly moves.
    Dividing by it would spend the codebook on it, so it is raised. Velocities and height are small by nature. Of a
    joint's position it is raised to what such a turn moves at the end of a bone of `BONE_LENGTH`. With `parts`, the
    numbers of features of body and of hand, it is the inverse of `joint_levers(face_joints, fps)` instead, so scaled
    that each part has a mean square of 1.
    """
    frames = torch.cat([represent(clip.features, representation) for clip in clips]).double()
    mean, std = frames.mean(0), frames.std(0, correction=0)
    if parts:
        levers = joint_levers(face_joints, fps).double()
        seen = (std * levers).square()
        seen[:9] = torch.nan  # the root would set the scale alone
        scales = [part.nanmean().sqrt().expand(len(part)) for part in seen.split(parts)]
        return mean.float(), (torch.cat(scales) / levers).float()
    std[3:9] = std[3:9].clamp_min(rotation_std_floor)
    std[9:] = std[9:].clamp_min(rotation_std_floor * (BONE_LENGTH if representation == "joints" else 1))
    return mean.float(), std.float()


def joint_levers(face_joints: float = 0.0, fps: float = 30.0) -> torch.Tensor:
    """Metres (315,) that a unit of each raw feature moves the joints, root mean square over body and fingers. Of a
    joint's rotation those below it in the rest pose, each of its two columns half the square; of the velocity what
    adds up in `WAY_SECONDS`. Divided by this instead of its deviation, a feature's error counts as it is seen. Nothing
    of these lies behind the head, so a nod moves none: `face_joints` is how many joints the face counts as."""
    rest = torch.tensor(REST)
    above = torch.eye(len(SMPLX_PARENTS), dtype=torch.bool)
    for joint in range(1, len(SMPLX_PARENTS)):
        above[joint] |= above[SMPLX_PARENTS[joint]]
    squares = (rest[:, None] - rest).square().sum(-1) * above  # of each joint (rows) to those above it
    moved = squares[COUNTED_JOINTS].sum(0) + face_joints * squares[FACE_JOINTS].mean(0)
    levers = moved.div(2 * len(COUNTED_JOINTS)).sqrt().clamp_min(1e-3)
    told = [0, *range(1, 22), *range(25, 55)]
    way = WAY_SECONDS * fps  # the velocity is that of a frame
    return torch.cat([torch.tensor([way, way, 1.0]), levers[told].repeat_interleave(6)])
