"""Arrays of plain numbers out of a pickled dictionary, without unpickling it.

`np.save` writes a dictionary as a pickle, which can run any code when it is loaded. Here its opcodes
(https://docs.python.org/3/library/pickletools.html) are followed by hand: names of functions stay words, nothing is
imported or called, and what is not a dictionary of names to arrays is refused.
"""

import pickletools
from pathlib import Path

import numpy as np

from .motion_npz import MAX_ARRAY_BYTES

_MARK = object()


class _Call:
    """What a pickle would have called, with which arguments, and the state that it would have set."""

    def __init__(self, name, arguments):
        self.name, self.arguments, self.state = name, arguments, None


def is_pickled(path: Path) -> bool:
    """True for an `.npy` file of Python objects."""
    with open(path, "rb") as file:
        head = file.read(128)
    return head.startswith(b"\x93NUMPY") and b"'|O'" in head


def pickled_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays by name of an `.npy` file that holds one dictionary; ValueError where it holds something else."""
    if (size := path.stat().st_size) > MAX_ARRAY_BYTES:
        raise ValueError(f"it takes {size} bytes, expected at most {MAX_ARRAY_BYTES}.")
    data = path.read_bytes()
    try:
        wide = 2 if data[6] == 1 else 4  # bytes of the header's length, by the version of the format
        begin = 8 + wide + int.from_bytes(data[8 : 8 + wide], "little")
        (entries,) = _follow(data[begin:]).state[-1]
        return {str(name): _array(value) for name, value in entries.items()}
    except (ValueError, AttributeError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(
            f"it holds pickled objects, no dictionary of arrays ({type(error).__name__}: {error})."
        ) from error


def _follow(data: bytes):
    """The value that a pickle describes, with a `_Call` for each call."""
    stack: list = []
    memo: dict[int, object] = {}

    def since_mark() -> list:
        at = max(place for place, value in enumerate(stack) if value is _MARK)
        taken, stack[at:] = stack[at + 1 :], []
        return taken

    for opcode, argument, _ in pickletools.genops(data):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NEWTRUE": True, "NEWFALSE": False}.get(opcode.name))
            case "MARK":
                stack.append(_MARK)
            case "MEMOIZE" | "BINPUT" | "LONG_BINPUT":
                memo[len(memo) if argument is None else argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[opcode.name]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack[-int(opcode.name[-1]) :] = [tuple(stack[-int(opcode.name[-1]) :])]
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "STACK_GLOBAL":
                stack[-2:] = [" ".join(stack[-2:])]
            case "REDUCE":
                stack[-2:] = [_Call(*stack[-2:])]
            case "BUILD":
                stack[-1].state = stack.pop()
            case "APPEND" | "APPENDS":
                values = since_mark() if opcode.name == "APPENDS" else [stack.pop()]
                stack[-1].extend(values)
            case "SETITEM" | "SETITEMS":
                values = since_mark() if opcode.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                stack[-1].update(zip(values[::2], values[1::2], strict=True))
            case name:
                if argument is None or opcode.stack_before:
                    raise ValueError(f"it holds {name}")
                stack.append(argument)  # numbers, words and bytes
    raise ValueError("it is cut short")


def _array(call: _Call) -> np.ndarray:
    """The array that numpy would have rebuilt; ValueError where it would have been anything else."""
    if not isinstance(call, _Call) or not str(call.name).endswith("multiarray _reconstruct"):
        raise ValueError(f"{getattr(call, 'name', type(call).__name__)} in place of an array")
    _, shape, kind, by_columns, content = call.state
    if kind.name != "numpy dtype" or not isinstance(content, bytes | bytearray):
        raise ValueError(f"an array of {kind.name}")
    dtype = np.dtype(kind.arguments[0]).newbyteorder(kind.state[1] if kind.state[1] in "<>" else "=")
    if dtype.kind not in "bfiu":
        raise ValueError(f"an array of {dtype}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")
