"""Input representations of the motion tokenizers: a frame's 315 raw features, or the same pose told in another way.

The first nine features (way, height and rotation of the root) are always as they come. Of the joints below the root
the raw features hold the rotations; `representation` is one of

- `local_rotation`: 6D rotations relative to the parent, as in the raw features (6 a joint);
- `global_rotation`: 6D rotations relative to the pelvis, the product of the local ones down the tree (6 a joint). The
  way back is exact;
- `joints`: positions in metres on the free body, as seen from the pelvis (3 a joint). Jaw and eyes are among them: a
  fixed part of the head, they show how it is turned. The way back gives every joint its position, and a rotation as
  far as positions tell one: spine 3, head and wrists have several bones and are exact; any other joint turns its one
  bone the shortest way from where its parent leaves it, so its twist about that bone is lost; toes and finger tips,
  which have no bone, are not turned.

These are the "joint, local-rotation and global-rotation features" of the ablations in SOLAMI (arXiv 2412.00174), whose
exact layout is not published.
"""

import torch

from .free_body import REST
from .kinematics import (
    SMPLX_PARENTS,
    global_rotations,
    local_rotations,
    matrix_to_rotation_6d,
    on_the_tree,
    pelvis_way,
    place_on_tree,
    rotation_6d_to_matrix,
    shortest_turn,
)

_ROOT = 9  # features of the root
_TOLD = [*range(1, 22), *range(25, 55)]  # joints of the raw features
FEATURES_JOINTS = [0, *_TOLD]
# Joints whose turn follows from two directions, each from one joint to another: chest, head, wrists
_TWO_DIRECTIONS = {
    9: ((9, 12), (14, 13)),  # to the neck; from collar to collar
    15: ((15, 23), (24, 23)),  # to an eye; from eye to eye
    20: ((20, 28), (31, 25)),  # to the middle finger; from the little to the index finger
    21: ((21, 43), (46, 40)),
}
_ONE_DIRECTION = {
    joint: SMPLX_PARENTS.index(joint) for joint in range(1, 55) if SMPLX_PARENTS.count(joint) == 1
}  # joint -> the joint at the end of its bone


def represent(features: torch.Tensor, representation: str) -> torch.Tensor:
    """Raw features (..., 315) in a representation: (..., 315), or (..., 171) for `joints`."""
    if representation == "local_rotation":
        return features
    features = features.float()
    local = on_the_tree(rotation_6d_to_matrix(features[..., _ROOT:].unflatten(-1, (-1, 6))), _TOLD)
    if representation == "global_rotation":
        told = matrix_to_rotation_6d(global_rotations(local)[..., _TOLD, :, :])
    else:
        pelvis = torch.zeros_like(features[..., :3])
        told = place_on_tree(pelvis, local, _rest(features))[..., 1:, :]
    return torch.cat([features[..., :_ROOT], told.flatten(-2)], dim=-1)


def raw_features(values: torch.Tensor, representation: str) -> torch.Tensor:
    """Raw features (..., 315) of what `represent` gives, or of a network's attempt at it."""
    if representation == "local_rotation":
        return values
    values = values.float()
    told = values[..., _ROOT:]
    if representation == "global_rotation":
        turned = on_the_tree(rotation_6d_to_matrix(told.unflatten(-1, (-1, 6))), _TOLD)
    else:
        turned = _turned_bones(told.unflatten(-1, (-1, 3)))
    local = local_rotations(turned)[..., _TOLD, :, :]
    return torch.cat([values[..., :_ROOT], matrix_to_rotation_6d(local).flatten(-2)], dim=-1)


def joint_places(features: torch.Tensor) -> torch.Tensor:
    """Joint positions (..., T, 55, 3) in metres on the free body of raw features (..., T, 315)."""
    joints = rotation_6d_to_matrix(features[..., 3:].unflatten(-1, (-1, 6)))
    return place_on_tree(pelvis_way(features), on_the_tree(joints, FEATURES_JOINTS), _rest(features))


def _rest(like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(REST, dtype=like.dtype, device=like.device)


def _turned_bones(places: torch.Tensor) -> torch.Tensor:
    """Rotations (..., 55, 3, 3) relative to the pelvis of positions (..., 54, 3) of the joints below it."""
    rest, places = _rest(places), torch.nn.functional.pad(places, (0, 0, 1, 0))
    turned = [torch.eye(3, dtype=places.dtype, device=places.device).expand(*places.shape[:-2], 3, 3)]
    for joint in range(1, len(SMPLX_PARENTS)):
        above = turned[SMPLX_PARENTS[joint]]
        if joint in _TWO_DIRECTIONS:
            ours, theirs = (_frame(points, _TWO_DIRECTIONS[joint]) for points in (rest, places))
            turned.append(theirs @ ours.transpose(-1, -2))
        elif joint in _ONE_DIRECTION:
            end = _ONE_DIRECTION[joint]
            wanted = places[..., end, :] - places[..., joint, :]
            left = (above @ (rest[end] - rest[joint])[:, None])[..., 0]
            turned.append(shortest_turn(left, wanted) @ above)
        else:
            turned.append(above)
    return torch.stack(turned, dim=-3)


def _frame(points: torch.Tensor, directions: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """Rotations (..., 3, 3) that two directions between joints (..., 55, 3) tell: the first is their x axis."""
    columns = [points[..., end, :] - points[..., start, :] for start, end in directions]
    return rotation_6d_to_matrix(torch.cat(columns, dim=-1))
