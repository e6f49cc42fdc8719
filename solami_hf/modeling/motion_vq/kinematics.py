"""The tree of SMPL-X's 55 joints: rotations relative to the parent and to the root, and where the joints are."""

from functools import lru_cache

import torch

_FINGER_PARENTS = tuple(
    wrist if i == 0 else first + 3 * finger + i - 1
    for wrist, first in ((20, 25), (21, 40))
    for finger in range(5)
    for i in range(3)
)
SMPLX_PARENTS: tuple[int, ...] = (
    *(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15),
    *_FINGER_PARENTS,
)
"""Index of each joint's parent; -1 for the pelvis."""


@lru_cache(maxsize=1)
def _levels() -> tuple[tuple[tuple[list[int], list[int]], ...], list[int]]:
    """The tree by depth, so that a level is one batched product.

    Each level below the pelvis is its joints and where their parents stand in the level above. Then where each joint
    stands when all levels are put one after another.
    """
    joints_number = len(SMPLX_PARENTS)
    levels, order, above = [], [0], [0]
    while len(order) < joints_number:
        joints = [j for j in range(joints_number) if SMPLX_PARENTS[j] in above]
        levels.append((joints, [above.index(SMPLX_PARENTS[j]) for j in joints]))
        order, above = order + joints, joints
    return tuple(levels), [order.index(j) for j in range(joints_number)]


def on_the_tree(rotations: torch.Tensor, joints: list[int]) -> torch.Tensor:
    """Rotations (..., 55, 3, 3) of all joints; the pelvis and those that are not told are not turned."""
    whole = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    whole = whole.repeat(*rotations.shape[:-3], len(SMPLX_PARENTS), 1, 1)
    whole[..., joints, :, :] = rotations
    return whole


def global_rotations(local: torch.Tensor) -> torch.Tensor:
    """Rotations (..., 55, 3, 3) relative to the world of those relative to each joint's parent."""
    levels, order = _levels()
    found = [local[..., :1, :, :]]
    for joints, parents in levels:
        found.append(found[-1][..., parents, :, :] @ local[..., joints, :, :])
    return torch.cat(found, dim=-3)[..., order, :, :]


def local_rotations(turned: torch.Tensor) -> torch.Tensor:
    """The inverse of `global_rotations`."""
    below = turned[..., list(SMPLX_PARENTS[1:]), :, :].transpose(-1, -2) @ turned[..., 1:, :, :]
    return torch.cat([turned[..., :1, :, :], below], dim=-3)


def place_on_tree(pelvis: torch.Tensor, local: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Joint positions (..., 55, 3) of a rest skeleton (55, 3).

    The pelvis is at (..., 3); rotations (..., 55, 3, 3) are relative to the parents.
    """
    bones = (rest - rest[list(SMPLX_PARENTS)])[..., None]
    levels, order = _levels()
    turned, places = local[..., :1, :, :], [pelvis[..., None, :]]
    for joints, parents in levels:
        above = turned[..., parents, :, :]
        places.append(places[-1][..., parents, :] + (above @ bones[joints]).squeeze(-1))
        turned = above @ local[..., joints, :, :]
    return torch.cat(places, dim=-2)[..., order, :]


__all__ = ["SMPLX_PARENTS", "global_rotations", "local_rotations", "on_the_tree", "place_on_tree"]
