"""Reads the tensors of an original checkpoint; nothing is unpickled."""

import re
from collections.abc import Iterable
from pathlib import Path

import torch


def load_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint, also where it lies inside `model` or `state_dict`. FileNotFoundError without it;
    ValueError where it holds anything but tensors, or needs pickled code to load."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors alike
        raise ValueError(f"{path} is no checkpoint of plain tensors: {error}") from error
    for level in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(level), dict):
            state = state[level]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} holds {type(state).__name__}, expected a state dict of tensors.")
    return state


def rename_key(key: str, patterns: Iterable[tuple[str, str]]) -> str:
    """A key after regular expressions and their replacements, one after another."""
    for pattern, replacement in patterns:
        key = re.sub(pattern, replacement, key)
    return key
