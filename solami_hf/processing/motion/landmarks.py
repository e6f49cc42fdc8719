"""The landmarks that MediaPipe sees of a person, as a motion on SMPL-X's skeleton.

Positions become rotations as HumanML3D makes them (Guo et al., CVPR 2022): from the pelvis outwards each bone of the
rest skeleton is turned the shortest way onto the one that was seen, so a person's size does not matter. Twist is taken
from what is seen beside the bone: hips and trunk for the pelvis, shoulders and trunk for the chest, ears, eyes and
mouth for the head, the plane of a bent elbow or knee for the limb above it, the hand for the forearm. The place in the
room is not seen: the person stands with the lower foot on the floor.
"""

import numpy as np
import torch
from scipy.ndimage import convolve1d
from scipy.spatial.transform import Rotation, Slerp

from ...modeling.motion_vq.kinematics import (
    SMPLX_PARENTS,
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_quaternion,
    quaternion_to_matrix,
    rotation_6d_to_matrix,
    shortest_turn,
)
from .body import SMPLX_JOINT_NAMES, joint_positions, rest_joints, standing_joints
from .formats.humanml3d import best_turn
from .smplx_motion import NUM_JOINTS, SmplxMotion, check_fps, check_frames

NUM_LANDMARKS = 75
FPS = 30.0
SEEN = 0.5  # a landmark counts from this visibility on
_HANN = np.hanning(9) / np.hanning(9).sum()  # over 0.2 s at 30 fps
_FARTHEST = 10.0  # metres
_HANDS = (33, 54)
_JOINT = {name: index for index, name in enumerate(SMPLX_JOINT_NAMES)}
_FINGERS = {"index": 5, "middle": 9, "pinky": 17, "ring": 13, "thumb": 1}  # first landmark of a hand's finger
_PALM = list(_FINGERS)[:4]
_LEAST_BEND = np.sin(np.radians(25))  # of an elbow or knee that tells how the limb above is twisted


def landmarks_to_smplx(landmarks: np.ndarray, fps: float) -> SmplxMotion:
    """The motion of a person that a camera has seen, at 30 fps: feet on the floor, pelvis at x = z = 0; somebody who
    faces the camera faces +z, and their left is at +x.

    Points that are not seen are interpolated, before the first and after the last sight held; of hands, how they are
    turned against the forearm. What is never seen stays at rest: legs and trunk stand, hands and head go straight on.
    Positions are smoothed by a Hann window of 0.2 s before they become rotations.

    `landmarks` are (T, 75, 4): x to the right of the picture, y down, z away from the camera, in metres from the
    middle of the hips, and visibility 0 to 1, 0 where a point is missing: MediaPipe's 33 world landmarks of the body,
    then 21 of the left and 21 of the right hand, whose place and scale do not matter; `fps` is theirs. Raises
    ValueError: another shape, NaN, values that no person has, no rate, or both shoulders are never seen.
    """
    points, seen = _check(landmarks)
    times = np.arange(len(points)) / check_fps(fps)
    wanted = np.arange(check_frames(np.floor(times[-1] * FPS + 1e-4) + 1)) / FPS
    for first in _HANDS:
        part = slice(first, first + 21)
        seen[:, part] = seen[:, part].all(axis=1, keepdims=True)
        points[:, part] -= points[:, first : first + 1]
    filled = np.zeros((len(wanted), NUM_LANDMARKS, 3))
    for mark in np.flatnonzero(seen.any(axis=0)):
        known = seen[:, mark]
        filled[:, mark] = np.stack([np.interp(wanted, times[known], points[known, mark, k]) for k in range(3)], -1)
    smooth = torch.from_numpy(convolve1d(filled, _HANN, axis=0, mode="nearest"))
    world = _trunk_and_head(smooth, seen.any(axis=0))
    for side in (0, 1):
        hand_seen = seen[np.searchsorted(times, wanted + 1e-6, side="right") - 1, _HANDS[side]]
        _arm(world, smooth, seen.any(axis=0), side, hand_seen)
        _leg(world, smooth, seen.any(axis=0), side)
    local = world.clone()
    local[:, 1:] = world[:, SMPLX_PARENTS[1:]].mT @ world[:, 1:]
    poses = matrix_to_axis_angle(local)
    feet = [_JOINT[f"{side}_{part}"] for side in ("left", "right") for part in ("ankle", "foot")]
    transl = np.zeros((len(wanted), 3))
    above = joint_positions(SmplxMotion(transl, poses.numpy()))[:, feet, 1] - standing_joints()[feet, 1]
    transl[:, 1] = -above.min(axis=1)
    return SmplxMotion(transl, poses.numpy(), fps=FPS)


def _check(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (T, 75, 3) in SMPL-X's axes, and whether each was seen (T, 75)."""
    values = np.asarray(landmarks)
    if values.ndim != 3 or values.shape[1:] != (NUM_LANDMARKS, 4) or values.dtype.kind not in "fiu":
        raise ValueError(f"`landmarks` has shape {values.shape} of {values.dtype}, expected numbers (T, 75, 4).")
    check_frames(len(values))
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("`landmarks` holds NaN or infinite values; a missing point has visibility 0.")
    points, visibility = values[..., :3], values[..., 3]
    if visibility.min() < 0 or visibility.max() > 1 + 1e-6:
        raise ValueError(f"visibility is {visibility.min():g} to {visibility.max():g}, expected 0 to 1.")
    seen = visibility >= SEEN
    if (far := np.abs(points[seen]).max(initial=0)) > _FARTHEST:
        raise ValueError(f"a landmark lies {far:g} from the hips, expected metres, {_FARTHEST:g} at most.")
    if not seen[:, [11, 12]].any(axis=0).all():
        raise ValueError("the person's shoulders are never seen; come before the camera, or leave the body out.")
    if np.ptp(points[seen[:, 11] | seen[:, 12]][:, [11, 12]], axis=1).max(initial=0) < 0.01:
        raise ValueError("the shoulders lie at one place, expected positions in metres.")
    return points * [1, -1, -1], seen


def _trunk_and_head(points: torch.Tensor, seen: np.ndarray) -> torch.Tensor:
    """World rotations (T, 55, 3, 3) in which pelvis, spine, collars, neck and head are turned."""
    rest, up = torch.from_numpy(rest_joints()), torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    shoulders, hips = points[:, 11] - points[:, 12], points[:, 23] - points[:, 24]
    trunk = (points[:, 11] + points[:, 12] - points[:, 23] - points[:, 24]) / 2
    if not seen[[23, 24]].all():
        hips, trunk = shoulders, up.expand_as(shoulders)
    straight = rest[[16, 17]].sum(0) - rest[[1, 2]].sum(0) if seen[[23, 24]].all() else up
    upright = _frame(rest[1] - rest[2], straight)
    pelvis, chest = _frame(hips, trunk) @ upright.mT, _frame(shoulders, trunk) @ upright.mT
    world = pelvis[:, None].repeat(1, NUM_JOINTS, 1, 1)
    third = axis_angle_to_matrix(matrix_to_axis_angle(pelvis.mT @ chest) / 3)
    world[:, _JOINT["spine1"]] = pelvis @ third
    world[:, _JOINT["spine2"]] = pelvis @ third @ third
    world[:, [_JOINT["spine3"], *range(12, NUM_JOINTS)]] = chest[:, None].clone()
    for side, name in ((1, "left"), (-1, "right")):
        world[:, _JOINT[f"{name}_collar"]] = _aim(chest, rest.new_tensor([side, 0, 0]), side * shoulders)
    if seen[[2, 5, 7, 8, 9, 10]].all():
        head = _frame(points[:, 7] - points[:, 8], (points[:, [2, 5]] - points[:, [9, 10]]).sum(1))
        world[:, _JOINT["neck"]] = chest @ axis_angle_to_matrix(matrix_to_axis_angle(chest.mT @ head) / 2)
        world[:, [_JOINT["head"], *range(22, 25)]] = head[:, None].clone()
    return world


def _arm(world: torch.Tensor, points: torch.Tensor, seen: np.ndarray, side: int, hand_seen: np.ndarray) -> None:
    """Turns shoulder, elbow, wrist and fingers of the left (0) or right (1) arm."""
    name, across = ("left", "right")[side], 1.0 - 2 * side
    shoulder, elbow, wrist = (_JOINT[f"{name}_{part}"] for part in ("shoulder", "elbow", "wrist"))
    marks = [11 + side, 13 + side, 15 + side]
    bone, down = points.new_tensor([across, 0, 0]), points.new_tensor([0.0, -1.0, 0.0]).expand(len(points), 3)
    upper = points[:, marks[1]] - points[:, marks[0]] if seen[marks[1]] else down
    fore = points[:, marks[2]] - points[:, marks[1]] if seen[marks[1:]].all() else upper
    world[:, shoulder] = _hinged(world[:, _JOINT[f"{name}_collar"]], bone, across * down[0], upper, fore)
    world[:, elbow] = _aim(world[:, shoulder], bone, fore)
    hand = range(25 + 15 * side, 40 + 15 * side)
    world[:, [wrist, *hand]] = world[:, elbow, None].clone()
    if not hand_seen.any():
        return
    rest, first = torch.from_numpy(rest_joints()), _HANDS[side]
    knuckles = [_JOINT[f"{name}_{finger}1"] for finger in _PALM]
    directions = torch.nn.functional.normalize(rest[knuckles] - rest[wrist], dim=-1)
    found = torch.nn.functional.normalize(points[:, [first + _FINGERS[finger] for finger in _PALM]], dim=-1)
    turns = {wrist: best_turn(directions, found)}
    for finger, mark in _FINGERS.items():
        for i in range(3):  # the last joint has no child: its bone goes on as the one before it does at rest
            joint, place = _JOINT[f"{name}_{finger}{i + 1}"], first + mark + i
            start = joint - 1 if i == 2 else joint
            bone, seen_bone = rest[start + 1] - rest[start], points[:, place + 1] - points[:, place]
            turns[joint] = _aim(turns[SMPLX_PARENTS[joint]], bone, seen_bone)
    known = np.flatnonzero(hand_seen)
    for joint, turn in turns.items():  # against the parent, so that a hand that is not seen goes with the forearm
        above = world[:, elbow] if joint == wrist else turns[SMPLX_PARENTS[joint]]
        world[:, joint] = _fill_turns(above.mT @ turn, known)
    # the forearm has half of the hand's twist, as bodies' rigs share it
    half = axis_angle_to_matrix(matrix_to_axis_angle(_twist_about_x(world[:, wrist])) / 2)
    world[:, elbow] = world[:, elbow] @ half
    world[:, wrist] = half.mT @ world[:, wrist]
    for joint in turns:
        world[:, joint] = world[:, SMPLX_PARENTS[joint]] @ world[:, joint]


def _leg(world: torch.Tensor, points: torch.Tensor, seen: np.ndarray, side: int) -> None:
    """Turns hip, knee and ankle of the left (0) or right (1) leg."""
    name = ("left", "right")[side]
    joints = [_JOINT[f"{name}_{part}"] for part in ("hip", "knee", "ankle", "foot")]
    hip, knee, ankle, heel, toes = (mark + side for mark in (23, 25, 27, 29, 31))
    axes = torch.eye(3, dtype=points.dtype)
    down = -axes[1].expand(len(points), 3)
    thigh = points[:, knee] - points[:, hip] if seen[[hip, knee]].all() else down
    shin = points[:, ankle] - points[:, knee] if seen[[knee, ankle]].all() else down
    sole = points[:, toes] - points[:, heel] if seen[[heel, toes]].all() else world[:, 0, :, 2] * (1 - axes[1])
    world[:, joints[0]] = _hinged(world[:, 0], -axes[1], axes[0], thigh, shin)
    world[:, joints[1]] = _aim(world[:, joints[0]], -axes[1], shin)
    world[:, joints[2:]] = _aim(world[:, joints[1]], axes[2], sole)[:, None].clone()


def _aim(turn: torch.Tensor, bone: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The rotations (T, 3, 3) nearest to `turn` that lay the rest direction `bone` (3,) onto `wanted` (T, 3)."""
    return shortest_turn(turn @ bone, wanted) @ turn


def _hinged(turn: torch.Tensor, bone: torch.Tensor, axis: torch.Tensor, wanted: torch.Tensor, below: torch.Tensor):
    """As `_aim`; about the bone it is turned so that the rest direction `axis` becomes the axis of the bend between
    `wanted` and `below`, where there is one in a frame, and between such frames as they tell."""
    turn = _aim(turn, bone, wanted)
    along, end = (torch.nn.functional.normalize(vector, dim=-1) for vector in (wanted, below))
    normal, rest = torch.linalg.cross(along, end), turn @ axis
    bent = np.flatnonzero(normal.norm(dim=-1) > _LEAST_BEND)
    if not len(bent):
        return turn
    angle = torch.atan2((torch.linalg.cross(rest, normal) * along).sum(-1), (rest * normal).sum(-1))[bent]
    frames = np.arange(len(turn))
    cosine, sine = (np.interp(frames, bent, values.numpy()) for values in (angle.cos(), angle.sin()))
    return axis_angle_to_matrix(along * torch.from_numpy(np.arctan2(sine, cosine))[:, None]) @ turn


def _frame(across: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) whose y is along `up` and whose x is as near to `across` as can be."""
    found = rotation_6d_to_matrix(torch.cat(torch.broadcast_tensors(up, across), dim=-1))  # any matrix where they fail
    return torch.stack([found[..., 1], found[..., 0], -found[..., 2]], dim=-1)


def _fill_turns(turns: torch.Tensor, known: np.ndarray) -> torch.Tensor:
    """Rotations (T, 3, 3) of which only the `known` frames are kept; others lie between these, or are the nearest."""
    frames = np.clip(np.arange(len(turns)), known[0], known[-1])
    if len(known) == 1:
        return turns[frames]
    return torch.from_numpy(Slerp(known, Rotation.from_matrix(turns[known].numpy()))(frames).as_matrix())


def _twist_about_x(turn: torch.Tensor) -> torch.Tensor:
    """The part (..., 3, 3) of rotations that turns about the x axis; the rest is a turn about an axis across it."""
    return quaternion_to_matrix(matrix_to_quaternion(turn) * torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=turn.dtype))
