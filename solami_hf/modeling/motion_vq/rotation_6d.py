"""Rotation matrices <-> `rotation_6d`: the first, then the second column of the matrix.

After Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019. Leading dimensions
are free; dtype and device are kept.
"""

import torch


def check_last(tensor: torch.Tensor, shape: tuple[int, ...], name: str) -> None:
    """ValueError where a tensor does not end with these dimensions."""
    if tuple(tensor.shape[-len(shape) :]) != shape:
        expected = ", ".join(str(size) for size in shape)
        raise ValueError(f"`{name}` has shape {tuple(tensor.shape)}, expected (..., {expected}).")


def matrix_to_rotation_6d(matrix: torch.Tensor) -> torch.Tensor:
    """The first, then the second column (..., 6) of rotation matrices (..., 3, 3)."""
    check_last(matrix, (3, 3), "matrix")
    return torch.cat([matrix[..., 0], matrix[..., 1]], dim=-1)


def rotation_6d_to_matrix(rotation_6d: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) of any six values (..., 6), by Gram-Schmidt.

    A network can predict columns of length zero or parallel ones. They get the nearest sensible axis instead of NaN:
    all zeros give the identity.
    """
    check_last(rotation_6d, (6,), "rotation_6d")
    eye = torch.eye(3, dtype=rotation_6d.dtype, device=rotation_6d.device)
    first, degenerate = _unit(rotation_6d[..., :3])
    first = torch.where(degenerate, eye[0], first)
    second, _ = _unit(rotation_6d[..., 3:])
    second, degenerate = _unit(second - (first * second).sum(-1, keepdim=True) * first)
    # where both columns are parallel, take the axis that is least parallel to the first; y comes first
    fallback = torch.where(first[..., 1:2].abs() < 0.9, eye[1], eye[2])
    fallback, _ = _unit(fallback - (first * fallback).sum(-1, keepdim=True) * first)
    second = torch.where(degenerate, fallback, second)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def _unit(vector: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The normalised vector and where it was too short to have a direction."""
    norm = vector.norm(dim=-1, keepdim=True)
    degenerate = norm < 1e-8
    return vector / torch.where(degenerate, torch.ones_like(norm), norm), degenerate


__all__ = ["check_last", "matrix_to_rotation_6d", "rotation_6d_to_matrix"]
