"""Keys and values with room to grow, so that a decoding step writes its own and copies nothing.

transformers' `DynamicCache` joins old and new keys into a new tensor at every step: with 110M weights and 1,300 tokens
of context on a CPU that takes about as long as the MLPs of the whole model. A static cache has no such cost, but reads
and masks its full length at every step, which pays where steps are compiled (`decoding`). Here the old ones lie
at the beginning of a larger tensor, which is made anew, by half a thousand tokens and more longer, when it is full.
"""

import copy

import torch
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, StaticCache
from transformers.generation import GenerateDecoderOnlyOutput

CACHE = "cache" if "cache" in GenerateDecoderOnlyOutput.__dataclass_fields__ else "past_key_values"
"""The argument of models and of `generate` that holds keys and values: `cache` from transformers 5.24 on."""
LEAST_ROOM = 512
"""Tokens that a new tensor has room for, at least, beyond those that it is made for."""


class GrowingLayer(DynamicLayer):
    """Keys and values (batch, heads, tokens, size) of one layer, the beginning of tensors with more room. A copy
    (`copy.copy`) shares them until one of the two goes on; neither ever sees the other's tokens."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def __copy__(self) -> "GrowingLayer":
        other = type(self)()
        self._buffers = None  # whoever goes on first takes tensors of its own
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo) -> "GrowingLayer":
        return copy.copy(self)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        """All keys and values with the new ones, each (batch, heads, new tokens, size), behind the old ones."""
        past, new = self.get_seq_length(), key_states.shape[-2]
        for buffer, states in zip(self.grow(new, key_states, value_states), (key_states, value_states), strict=True):
            buffer[..., past : past + new, :] = states
        return self.keys, self.values

    def grow(self, new: int, key_states: torch.Tensor, value_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Makes room for `new` tokens behind the old ones, and counts them: returns the whole tensors of keys and of
        values, in which whoever called writes them. The states are of any length: only their other sizes count."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        past = self.get_seq_length()
        total = past + new
        if not self._has_room(key_states, past, total):
            self._buffers = tuple(
                _with_room(old, states, past, total)
                for old, states in ((self.keys, key_states), (self.values, value_states))
            )
        self.keys, self.values = (buffer[..., :total, :] for buffer in self._buffers)
        return self._buffers

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


def static_cache(config, tokens: int, max_cache_len: int | None = None) -> StaticCache:
    """An empty cache with room for so many tokens. Its length is a power of two, or `max_cache_len` where that is
    more, so that calls share the shapes of a graph. Raises ValueError: layers with a sliding window, whose static
    cache cannot be shortened."""
    length = LEAST_ROOM
    while length < tokens:
        length *= 2
    length = min(length, max(tokens, config.max_position_embeddings))
    cache = StaticCache(config=config, max_cache_len=max(length, max_cache_len or 0))
    if any(layer.is_sliding for layer in cache.layers):
        raise ValueError("cache_implementation='static' is for full attention, but this model has sliding windows")
    return cache


# ---- what a session does with its cache, dynamic or static


def moved(cache: Cache, other: Cache) -> Cache:
    """`other`, an empty cache of another kind or length, with what `cache` holds."""
    for number, layer in enumerate(cache.layers):
        if length := int(layer.get_seq_length()):
            other.update(layer.keys[..., :length, :], layer.values[..., :length, :], number)
    return other


@torch.inference_mode()
def fitted(cache: Cache, config, static_tokens: int, max_cache_len: int | None = None) -> Cache:
    """A cache that holds the same and is static, with room for so many tokens; for 0 a dynamic one."""
    is_static = isinstance(cache, StaticCache)
    if static_tokens and not (is_static and cache.get_max_length() >= static_tokens):
        return moved(cache, static_cache(config, static_tokens, max_cache_len))
    return moved(cache, DynamicCache()) if is_static and not static_tokens else cache


@torch.inference_mode()
def copied(cache: Cache) -> DynamicCache:
    """A dynamic cache of the same keys and values. Another dynamic one's are never written to, so they are shared."""
    other = DynamicCache()
    if isinstance(cache, StaticCache):
        return moved(cache, other)
    other.layers = [copy.copy(layer) for layer in cache.layers]
    return other


@torch.inference_mode()
def shortened(cache: Cache, length: int) -> tuple[Cache, int]:
    """A cache cut to `length` tokens at most, all its layers alike, and how many it has then."""
    lengths = [int(layer.get_seq_length()) for layer in cache.layers]
    length = min([length, *lengths]) if lengths else 0
    if isinstance(cache, StaticCache):
        for layer in cache.layers:  # what lies behind is masked, and written over
            layer.cumulative_length.fill_(length)
        return cache, length
    if not length:  # an interrupted first pass leaves layers out
        return DynamicCache(), 0
    for layer, old in zip(cache.layers, lengths, strict=True):
        layer.crop(length - old)
    return cache, length


@torch.inference_mode()
def joined(caches: list[Cache], width: int) -> DynamicCache:
    """One cache of caches of a row each, padded on the left to `width` tokens; masked is what the padding holds."""

    def padded(states: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([pad(each, (0, 0, width - each.shape[-2], 0)) for each in states])

    layers = zip(*(cache.layers for cache in caches), strict=True)
    return DynamicCache([(padded([one.keys for one in of]), padded([one.values for one in of])) for of in layers])


@torch.inference_mode()
def row_of(cache: Cache, row: int, begin: int, end: int) -> DynamicCache:
    """A cache of its own of the tokens from `begin` to `end` of a row."""
    part = slice(row, row + 1), slice(None), slice(begin, end)
    return DynamicCache([(layer.keys[part].clone(), layer.values[part].clone()) for layer in cache.layers])
