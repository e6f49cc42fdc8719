"""Keys and values with room to grow, so that a decoding step writes its own and copies nothing.

transformers' `DynamicCache` joins old and new keys into a new tensor at every step: with 110M weights and 1,300 tokens
of context on a CPU that takes about as long as the MLPs of the whole model. A static cache has no such cost, but reads
and masks its full length at every step. Here the old ones lie at the beginning of a larger tensor, which is made anew,
by half a thousand tokens and more longer, when it is full.
"""

from __future__ import annotations

import copy

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

LEAST_ROOM = 512
"""Tokens that a new tensor has room for, at least, beyond those that it is made for."""


class GrowingLayer(DynamicLayer):
    """Keys and values (batch, heads, tokens, size) of one layer, the beginning of tensors with more room.

    A copy (`copy.copy`) shares them until one of the two goes on; neither ever sees the other's tokens.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def __copy__(self) -> GrowingLayer:
        other = type(self)()
        self._buffers = None  # whoever goes on first takes tensors of its own
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo) -> GrowingLayer:
        return copy.copy(self)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        """All keys and values with the new ones, each (batch, heads, new tokens, size), behind the old ones."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        past = self.get_seq_length()
        total = past + key_states.shape[-2]
        if not self._has_room(key_states, past, total):
            self._buffers = tuple(
                _with_room(old, states, past, total)
                for old, states in ((self.keys, key_states), (self.values, value_states))
            )
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., past:total, :] = states
        self.keys, self.values = (buffer[..., :total, :] for buffer in self._buffers)
        return self.keys, self.values

    def _has_room(self, states: torch.Tensor, past: int, total: int) -> bool:
        """True if the keys still are the beginning of the tensor kept here, and it can be written to."""
        if self._buffers is None or not past:
            return False
        buffer = self._buffers[0]
        same = self.keys.data_ptr() == buffer.data_ptr() and self.keys.stride() == buffer.stride()
        same &= buffer.shape[:-2] == states.shape[:-2] and buffer.dtype == states.dtype
        # A tensor of inference mode takes no writing outside
        return same and total <= buffer.shape[-2] and (torch.is_inference_mode_enabled() or not buffer.is_inference())


def _with_room(old: torch.Tensor, states: torch.Tensor, past: int, total: int) -> torch.Tensor:
    buffer = states.new_empty(*states.shape[:-2], total + max(LEAST_ROOM, total // 2), states.shape[-1])
    if past:
        buffer[..., :past, :] = old
    return buffer


def growing(cache: DynamicCache) -> DynamicCache:
    """Gives a cache `GrowingLayer`s, in place; layers of other kinds (sliding windows) stay what they are."""
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[number] = GrowingLayer()
            cache.layers[number].__dict__.update(layer.__dict__)
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = GrowingLayer
    return cache


__all__ = ["GrowingLayer", "growing"]
