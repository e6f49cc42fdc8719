"""Checks messages before their media are encoded, and finds the media in their blocks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

ROLES = ("system", "user", "assistant")
CODES = ("trans", "body", "hand")
_BLOCKS = {
    "text": ("text",),
    "motion": ("motion", "path", "url"),
    "audio": ("audio", "array", "raw", "bytes", "path", "url"),
}


def check_messages(messages) -> None:
    """ValueError for what is no conversation: a list of `{"role", "content"}` whose content is a string or blocks.

    A block is `{"type": "text", "text": str}`, or of type "motion" or "audio" with the medium under the same name, or
    under another that `audio.read_audio` knows.
    """
    if not isinstance(messages, (list, tuple)):
        raise ValueError(f"a conversation is a list of messages, got {type(messages).__name__}")
    if not messages:
        raise ValueError("the conversation is empty; give at least one message")
    for message in messages:
        if not isinstance(message, Mapping):
            raise ValueError(f'a message is like {{"role": "user", "content": ...}}, got {type(message).__name__}')
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise ValueError(f"role must be system, user or assistant, got {role!r}")
        if isinstance(content, str):
            continue
        if not isinstance(content, (list, tuple)):
            raise ValueError(f"a message's content is a string or a list of blocks, got {type(content).__name__}")
        for block in content:
            _check_block(block, role)


def _check_block(block, role: str) -> None:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if isinstance(kind, str) and kind not in _BLOCKS:
        raise ValueError(f"unknown content type {kind!r}; expected text, motion or audio")
    if not isinstance(kind, str) or all(block.get(name) is None for name in _BLOCKS[kind]):
        told = sorted(map(str, block)) if isinstance(block, Mapping) else type(block).__name__
        told = f"{told}, with no {kind} in it" if isinstance(kind, str) else told
        raise ValueError(f'a content block is like {{"type": "audio", "audio": ...}}, got {told}')
    if kind == "text" and not isinstance(block["text"], str):
        raise ValueError(f"the text of a block is a string, got {type(block['text']).__name__}")
    if kind != "text" and role == "system":
        raise ValueError(f"a system message has words alone, got a block of type {kind}")


def raw_medium(block: Mapping):
    """What `encode_motion` or `encode_speech` takes of a motion or audio block, None where it holds codes already."""
    named = block.get(block["type"])
    if isinstance(named, Mapping) and (block["type"] == "motion" or "codes" in named):
        return None
    if block["type"] == "motion":
        return named if named is not None else block.get("path") or block.get("url")
    return {name: value for name, value in block.items() if name not in ("type", "text", "motion")}


def plain_codes(kind: str, codes: Mapping, with_transform: bool) -> dict[str, list[int]]:
    """Codes of a motion or audio block as lists of int, as the chat template needs them.

    Args:
        with_transform: keep a motion's transform; the character's turns carry none.

    Raises:
        ValueError: other names than those of codes, or codes that are no integers.
    """
    known = ("codes",) if kind == "audio" else CODES
    if codes.keys() - set(known):
        form = '{"codes"}' if kind == "audio" else 'a SmplxMotion, a path or {"body", "hand", "trans"}'
        raise ValueError(f"the codes of {kind} are {form}, got {sorted(map(str, codes))}")
    plain = {}
    for name, values in codes.items():
        if (values is None and kind == "motion") or (name == "trans" and not with_transform):
            continue
        values = np.asarray(values)
        if values.size and values.dtype.kind not in "iu":
            raise ValueError(f"{name} of a block of {kind} holds {values.dtype}, expected codes, which are integers")
        plain[name] = values.astype(np.int64).reshape(-1).tolist()
    return plain


__all__ = ["check_messages", "plain_codes", "raw_medium"]
