"""Everything that may come as motion and is none: a ValueError that says so, soon, in little memory, running nothing.

A case is a name, what is done, and a piece of the message.
"""

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.processing.motion.features import features_to_smplx, motion_to_features, smplx_to_features
from solami_hf.processing.motion.motion_io import read_motion, resample_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion

T = 6


class Executed:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def trap(folder) -> np.ndarray:
    return np.array([Executed(folder / "executed")], dtype=object)


def save(folder, **arrays):
    content = {"trans": np.zeros((T, 3)), "poses": np.zeros((T, 165)), "mocap_frame_rate": np.array(30.0)}
    np.savez(folder / "bad.npz", **{key: value for key, value in (content | arrays).items() if value is not None})
    return folder / "bad.npz"


def npz(**arrays):
    """Reads an archive with some arrays changed; a function makes its array from the folder, `None` leaves it out."""

    def run(folder, _):
        made = {key: value(folder) if callable(value) else value for key, value in arrays.items()}
        read_motion(save(folder, **made))

    return run


def changed(change):
    """Reads a good archive whose bytes `change` has changed."""

    def run(folder, _):
        path = save(folder)
        path.write_bytes(change(path.read_bytes()))
        read_motion(path)

    return run


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def patch(field: int, value: bytes):
    """Changes a field of the first entry of the archive's directory."""

    def change(data):
        at = data.index(b"PK\x01\x02") + field
        return data[:at] + value + data[at + len(value) :]

    return changed(change)


def archive(members, compression=zipfile.ZIP_DEFLATED):
    """Reads an archive of members {name: bytes}."""

    def run(folder, _):
        with zipfile.ZipFile(folder / "bad.npz", "w", compression) as file:
            for name, data in (members() if callable(members) else members).items():
                file.writestr(name, data)
        read_motion(folder / "bad.npz")

    return run


def npy(array, forged: str | None = None) -> bytes:
    """An `.npy` file, its header replaced by `forged`."""
    out = io.BytesIO()
    np.save(out, array)
    if forged is None:
        return out.getvalue()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(forged)) + forged.encode() + array.tobytes()


def header(shape, descr="<f8") -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n"


def forged(text: str):
    return archive({"trans.npy": npy(np.zeros((T, 3)), text), "poses.npy": npy(np.zeros((T, 165)))})


def file(name: str, content):
    """Reads a file of these bytes or this text."""

    def run(folder, _):
        data = content(folder) if callable(content) else content
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        read_motion(folder / name)

    return run


def huge(name: str, size: int):
    def run(folder, _):
        with open(folder / name, "wb") as sparse:
            sparse.truncate(size)
        read_motion(folder / name)

    return run


def array(values):
    return file("bad.npy", lambda folder: npy(values))


def pickled(folder) -> bytes:
    return pickle.dumps(Executed(folder / "executed"))


def pickled_npy(folder) -> bytes:
    np.save(folder / "trap.npy", trap(folder), allow_pickle=True)
    return (folder / "trap.npy").read_bytes()


UNIT, ANGLE = [1.0, 0.0, 0.0, 0.0], [0.0]
GOOD_FRAME = [0.03, 0.0, 0.85, 0.0, *UNIT * 4, *ANGLE, *UNIT * 2, *ANGLE, *UNIT, *ANGLE, *UNIT * 2, *ANGLE]


def frames(*rows):
    return file("bad.txt", json.dumps({"Frames": rows}))


def with_value(column: int, value) -> list:
    return GOOD_FRAME[:column] + [value] + GOOD_FRAME[column + 1 :]


BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Chest
  {
    OFFSET 0 10 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 10 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.0333333
0 90 0 0 0 0 0 0 0
0 90 0 0 0 0 0 0 0
"""


def bvh(old: str, new: str):
    assert old in BVH
    return file("bad.bvh", BVH.replace(old, new, 1))


def deep_bvh(levels: int, closed: bool) -> str:
    joints = "".join(f"JOINT j{i}\n{{\nOFFSET 0 1 0\nCHANNELS 1 Zrotation\n" for i in range(levels))
    start = BVH.index("  JOINT")
    return BVH[:start] + joints + ("}\n" * (levels + 1) + BVH[BVH.index("MOTION") :] if closed else "")


def motion(transl=(T, 3), poses=(T, 55, 3), **fields):
    def run(*_):
        arrays = [np.zeros(a) if isinstance(a, tuple) else a for a in (transl, poses)]
        SmplxMotion(*arrays, **fields)

    return run


def resampled(source: float, fps: float):
    return lambda *_: resample_motion(SmplxMotion(np.zeros((2, 3)), np.zeros((2, 55, 3)), fps=source), fps)


def features(function, *shape, dtype=torch.float32):
    return lambda *_: function(torch.zeros(shape, dtype=dtype))


def encode(values, mask=None):
    return lambda _, model: model.encode(values, mask)


def decode(body, hand, mask=None):
    return lambda _, model: model.decode(body, hand, mask)


def values(*shape, bad=None):
    tensor = torch.zeros(shape)
    if bad is not None:
        tensor[0, 1, 2] = bad
    return tensor


def folder_instead(folder, _):
    (folder / "bad.npz").mkdir()
    read_motion(folder / "bad.npz")


def pipe_instead(folder, _):
    os.mkfifo(folder / "bad.bvh")
    read_motion(folder / "bad.bvh")


CODES, MASK = torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 8, dtype=torch.bool)
GAP = torch.tensor([[True, False, True, True]] * 2)

CASES = {
    # no file to speak of
    "folder": (folder_instead, "is a folder or a device"),
    "pipe": (pipe_instead, "is a folder or a device"),
    "other suffix": (file("bad.fbx", b"Kaydara"), "expected a suffix of .npz"),
    "empty npz": (file("bad.npz", b""), "no complete npz archive .it is empty"),
    "empty npy": (file("bad.npy", b""), "no readable npy header"),
    "empty txt": (file("bad.txt", b""), "no JSON object"),
    "empty bvh": (file("bad.bvh", b""), "it is empty"),
    # archives
    "npz that is text": (file("bad.npz", b"hello " * 99), "no complete npz archive"),
    "npz that is one array": (file("bad.npz", lambda folder: npy(np.zeros((T, 165)))), "no complete npz archive"),
    "npz that is a pickle": (file("bad.npz", pickled), "no complete npz archive"),
    "npz cut at its end": (changed(lambda data: data[:-30]), "no complete npz archive"),
    "npz cut in half": (changed(lambda data: data[: len(data) // 2]), "no complete npz archive"),
    "npz without its first half": (changed(lambda data: data[len(data) // 2 :]), "no complete npz archive"),
    "npz with a flipped bit": (changed(lambda data: flip(data, 400)), "no complete npz archive .Bad CRC-32"),
    "npz with another checksum": (patch(16, b"abcd"), "no complete npz archive .Bad CRC-32"),
    "npz with an encrypted array": (patch(8, b"\x01"), "no complete npz archive"),
    "npz of an unknown packing": (patch(10, b"\x63"), "`trans` is packed by method 99"),
    "npz of bzip2": (archive({"trans.npy": npy(np.zeros((T, 3)))}, zipfile.ZIP_BZIP2), "packed by method 12"),
    "npz said to unpack to 2 GiB": (patch(24, struct.pack("<I", 1 << 31)), "`trans` is said to unpack from"),
    "npz bomb of one array": (
        archive(lambda: {"poses.npy": npy(np.zeros((70 << 20) // 165, "u1").repeat(165).reshape(-1, 165))}),
        "`poses` is said to unpack from .* which no motion does",
    ),
    "npz bomb within an npz": (
        archive({"trans.npy": b"PK\x03\x04" + bytes(1 << 20), "poses.npy": npy(np.zeros((T, 165)))}),
        "`trans` has no readable npy header",
    ),
    "npz of 5000 members": (archive({f"{i}.npy": b"" for i in range(5000)}), "5000 members, expected at most 1000"),
    "npz of more than 65535 members": (
        changed(lambda data: data[:-22] + b"PK\x06\x07" + bytes(16) + data[-22:]), "more than 4 GiB or 65535 members",
    ),
    "npz of 10^7 frames": (npz(trans=np.zeros((10**7, 3), "i1")), "10000000 frames, expected at most 1000000"),
    # arrays
    "npz with pickled poses": (npz(poses=trap), "`poses` holds pickled objects"),
    "npz with a pickled gender": (npz(gender=trap), "`gender` holds pickled objects"),
    "npz with pickled fields": (forged(header((T,), [("a", "|O"), ("b", "<f8", (2,))])), "`trans` holds pickled"),
    "npz of named fields": (forged(header((T,), [("a", "<f8"), ("b", "<f8", (2,))])), "expected numbers"),
    "npz header of 10^12 values": (forged(header((10**12, 3))), "24000000000000 bytes, at most"),
    "npz header of ten times the values": (forged(header((10 * T, 3))), "takes 1440 bytes, but 144 are there"),
    "npz header of fewer values": (forged(header((T - 1, 3))), "takes 120 bytes, but 144 are there"),
    "npz header of negative length": (forged(header((-1, 3))), r"`trans` has shape \(-1, 3\)"),
    "npz header that is code": (forged("__import__('os').mkdir('executed')\n"), "no readable npy header"),
    "npz header that is nested deeply": (forged("-" * 9000 + "1\n"), "no readable npy header"),
    "npz header of open brackets": (forged("(" * 9000 + "\n"), "no readable npy header"),
    "npz header said to take 4 GiB": (
        archive({"trans.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(99)}), "no readable npy header",
    ),
    "npz of complex numbers": (npz(poses=np.zeros((T, 165), complex)), "`poses` is of type complex128"),
    "npz of words": (npz(poses=np.full((T, 165), "a")), "`poses` is of type <U1"),
    "npz without frames": (npz(trans=np.zeros((0, 3)), poses=np.zeros((0, 165))), "0 frames"),
    "npz of 24 joints": (npz(poses=np.zeros((T, 24, 3))), r"`poses` has shape \(6, 24, 3\)"),
    "npz of width 164": (npz(poses=np.zeros((T, 164))), r"`poses` has shape \(6, 164\)"),
    "npz of one long row": (npz(poses=np.zeros(T * 165)), r"`poses` has shape \(990,\)"),
    "npz of unequal lengths": (npz(poses=np.zeros((T + 1, 165))), "`poses` has 7 frames, but `trans` has 6"),
    "npz without trans": (npz(trans=None), "lacks trans"),
    "npz without rotations": (npz(poses=None, pose_body=np.zeros((T, 63))), "lacks poses, or else root_orient"),
    "npz of NaN": (npz(trans=np.full((T, 3), np.nan)), "`transl` holds 18 NaN"),
    "npz of infinite rotations": (npz(poses=np.full((T, 165), -np.inf)), "`poses` holds 990 NaN or infinite"),
    "npz of 1e300": (npz(poses=np.full((T, 165), 1e300)), "`poses` holds 990 NaN or infinite"),
    "npz of 1e30 radians": (npz(poses=np.full((T, 165), 1e30)), r"`poses` holds 1e\+30, expected no more"),
    "npz of NaN betas": (npz(betas=np.full(10, np.nan)), "`betas` holds 10 NaN"),
    "npz of betas in a cube": (npz(betas=np.zeros((T, 1, 10))), "`betas` has shape"),
    "npz of an unknown gender": (npz(gender=np.array("robot")), "`gender` is 'robot'"),
    "npz at 0 fps": (npz(mocap_frame_rate=np.array(0)), "`fps` is 0"),
    "npz at -30 fps": (npz(mocap_frame_rate=np.array(-30)), "`fps` is -30"),
    "npz at NaN fps": (npz(mocap_frame_rate=np.array(np.nan)), "`fps` is nan"),
    "npz at 1e9 fps": (npz(mocap_frame_rate=np.array(1e9)), "`fps` is 1000000000.0"),
    "npz at 1e-6 fps": (npz(mocap_frame_rate=np.array(1e-6)), "150000001 frames, expected at most"),
    "npz at 1e-300 fps": (npz(mocap_frame_rate=np.array(1e-300)), "frames, expected at most"),
    # HumanML3D
    "npy of pickled objects": (file("bad.npy", pickled_npy), "pickled objects"),
    "npy cut off": (file("bad.npy", lambda _: npy(np.zeros((9, 263)))[:-8]), "truncated or forged"),
    "npy header of 10^12 values": (file("bad.npy", npy(np.zeros(9), header((10**12,)))), "bytes, at most"),
    "npy of positions": (array(np.zeros((9, 22, 3))), r"shape \(9, 22, 3\) of float64, expected HumanML3D"),
    "npy without frames": (array(np.zeros((0, 263))), "0 frames"),
    "npy of NaN": (array(np.full((9, 263), np.nan)), "NaN"),
    "npy of zeros": (array(np.zeros((9, 263))), "bones are 0 to 0 m"),
    # DeepMimic
    "txt that is no JSON": (file("bad.txt", b"hello"), "no JSON object"),
    "txt that is binary": (file("bad.txt", b"\xff\xfe\x00"), "no JSON object"),
    "txt of 10^5 brackets": (file("bad.txt", b"[" * 10**5), "no JSON object"),
    "txt of 10^5 brackets under Frames": (file("bad.txt", b'{"Frames": ' + b"[" * 10**5), "no JSON object"),
    "txt of a list": (file("bad.txt", b"[1, 2]"), "no JSON object"),
    "txt of frames that are no list": (file("bad.txt", b'{"Frames": {"a": 1}}'), "0 frames"),
    "txt of 64 MiB": (huge("bad.txt", 64 << 20), "67108864 bytes, expected at most"),
    "txt without frames": (frames(), "0 frames"),
    "txt of short rows": (frames(GOOD_FRAME, GOOD_FRAME[:-1]), "frame 1 has 43 values"),
    "txt of words": (frames(with_value(5, "1.0")), "frame 0 holds '1.0'"),
    "txt of NaN": (frames(with_value(5, float("nan"))), "frame 0 holds nan"),
    "txt of infinity": (frames(with_value(5, float("-inf"))), "frame 0 holds -inf"),
    "txt of 1e999": (file("bad.txt", json.dumps({"Frames": [GOOD_FRAME]}).replace("0.85", "1e999")), "holds inf"),
    "txt of 10^400": (frames(with_value(2, 10**400)), "frame 0 holds 1000"),
    "txt of a number of 5000 digits": (file("bad.txt", b'{"Frames": [[' + b"9" * 5000 + b"]]}"), "no JSON object"),
    "txt of a zero quaternion": (frames(with_value(4, 0.0)), "quaternion at column 4 is not normalised"),
    "txt of a long quaternion": (frames(with_value(9, 50.0)), "quaternion at column 8 is not normalised"),
    "txt of no duration": (frames(with_value(0, 0.0), GOOD_FRAME), "duration is not positive"),
    "txt of frames that last days": (frames(*[with_value(0, 1e5)] * 3), "6000001 frames, expected at most"),
    # BVH
    "bvh that is binary": (file("bad.bvh", bytes(range(256)) * 9), "zero bytes"),
    "bvh that is text": (file("bad.bvh", b"hello"), "expected HIERARCHY"),
    "bvh without motion": (file("bad.bvh", BVH[: BVH.index("MOTION")]), "no MOTION section"),
    "bvh without a root": (file("bad.bvh", "HIERARCHY\n" + BVH[BVH.index("MOTION") :]), "no ROOT"),
    "bvh of two roots": (bvh("MOTION", "ROOT Hips\n{\nOFFSET 0 0 0\nCHANNELS 0\n}\nMOTION"), "a second ROOT"),
    "bvh of an open brace": (bvh("}\nMOTION", "MOTION"), "1 braces are still open"),
    "bvh of a closing brace too many": (bvh("}\nMOTION", "}\n}\nMOTION"), "line 16 has a '}' too many"),
    "bvh of 10^5 levels": (file("bad.bvh", lambda _: deep_bvh(10**5, True)), "one joint too many"),
    "bvh of 10^5 levels that never end": (file("bad.bvh", lambda _: deep_bvh(10**5, False)), "no MOTION section"),
    "bvh of 10^6 braces": (bvh("{", "{" * 10**6), "'{' that no joint announces"),
    "bvh without channels": (bvh("    CHANNELS 3 Zrotation Xrotation Yrotation\n", ""), "'Chest', which has no C"),
    "bvh without offset": (bvh("    OFFSET 0 10 0\n    CHANNELS", "    CHANNELS"), "'Chest', which has no OFFSET"),
    "bvh of an unknown channel": (bvh("3 Zrotation", "3 Wrotation"), "unknown channel 'Wrotation'"),
    "bvh of a channel twice": (bvh("3 Zrotation Xrotation", "3 Zrotation Zrotation"), "each channel at most once"),
    "bvh of fewer channels than said": (bvh("CHANNELS 3", "CHANNELS 30"), "but names 3 channels"),
    "bvh without positions": (bvh("6 Xposition Yposition Zposition", "3"), "no joint has position channels"),
    "bvh of an infinite offset": (bvh("OFFSET 0 10 0", "OFFSET 0 inf 0"), "three finite numbers"),
    "bvh of too few values": (bvh("0 90 0 0", "0 90 0"), "holds 17 values .* expected 18"),
    "bvh of too many values": (bvh("0 90 0 0", "0 90 0 0 0"), "holds 19 values .* expected 18"),
    "bvh of NaN": (bvh("0 90 0", "0 nan 0"), "channel 2 of frame 1 is nan"),
    "bvh of words": (bvh("0 90 0", "0 up 0"), "line 19 has 'up' among the frames"),
    "bvh of 0 frames": (bvh("Frames: 2", "Frames: 0"), "Frames: 0, expected 1 to 1000000"),
    "bvh of -1 frames": (bvh("Frames: 2", "Frames: -1"), "Frames: -1"),
    "bvh of 10^7 frames": (bvh("Frames: 2", "Frames: 10000000"), "Frames: 10000000, expected 1 to 1000000"),
    "bvh of 10^12 frames": (bvh("Frames: 2", f"Frames: {10**12}"), "expected 1 to 1000000"),
    "bvh of 10^4 digits of frames": (bvh("Frames: 2", "Frames: " + "9" * 10**4), "follows MOTION"),
    "bvh of a frame time of 0": (bvh("0.0333333", "0"), "Frame Time: 0, expected"),
    "bvh of a frame time of NaN": (bvh("0.0333333", "nan"), "Frame Time: nan, expected"),
    "bvh of no person": (file("bad.bvh", BVH), "has no joint known as left_hip"),
    "bvh of 1 TiB": (huge("bad.bvh", 1 << 40), "1099511627776 bytes, expected at most"),
    # SmplxMotion and its rate
    "motion of 0 frames": (motion((0, 3), (0, 55, 3)), "0 frames"),
    "motion of 10^7 frames": (motion(np.broadcast_to(np.float32(0), (10**7, 3))), "10000000 frames"),
    "motion of 24 joints": (motion(poses=(T, 24, 3)), r"expected \(6, 55, 3\)"),
    "motion of matrices": (motion(poses=(T, 55, 3, 3)), r"expected \(6, 55, 3\)"),
    "motion in the plane": (motion((T, 2)), r"`transl` has shape \(6, 2\)"),
    "motion of NaN": (motion(np.full((T, 3), np.nan)), "`transl` holds 18 NaN"),
    "motion of infinite turns": (motion(poses=np.full((T, 55, 3), np.inf)), "`poses` holds 990 NaN"),
    "motion of words": (motion("far"), "`transl` is not an array of numbers"),
    "motion of ragged rows": (motion([[0, 0, 0], [0]]), "`transl` is not an array of numbers"),
    "motion of objects": (motion(np.array([[{}] * 3])), "`transl` is not an array of numbers"),
    "motion without a rate": (motion(fps=None), "`fps` is None"),
    "resampled from 1e-6 fps": (resampled(1e-6, 30), "30000001 frames, expected at most"),
    "resampled to 1e9 fps": (resampled(30, 1e9), "`fps` is 1000000000.0"),
    # features
    "features of 0 frames": (features(smplx_to_features, 0, 159), "0 frames, expected at least 2"),
    "features of 1 frame": (features(smplx_to_features, 1, 159), "1 frames, expected at least 2"),
    "features of 165 parameters": (features(motion_to_features, 9, 165), r"`params` has shape \(9, 165\)"),
    "features of one row": (features(smplx_to_features, 159), r"`params` has shape \(159,\)"),
    "features of integers": (features(smplx_to_features, 9, 159, dtype=torch.long), "expected a floating-point"),
    "parameters of 0 frames": (features(features_to_smplx, 0, 315), "0 frames, expected at least 1"),
    "parameters of 135 features": (features(features_to_smplx, 9, 135), r"`features` has shape \(9, 135\)"),
    # tokenizers
    "encode 0 clips": (encode(values(0, 8, 315)), "0 frames, expected at least 4"),
    "encode 0 frames": (encode(values(2, 0, 315)), "0 frames, expected at least 4"),
    "encode 1 frame": (encode(values(2, 1, 315)), "1 frames, expected at least 4"),
    "encode 3 frames": (encode(values(2, 3, 315)), "3 frames, expected at least 4"),
    "encode 3 real frames": (encode(values(2, 8, 315), MASK & (torch.arange(8) < 3)), "3 frames, expected at least 4"),
    "encode NaN": (encode(values(2, 8, 315, bad=torch.nan)), "NaN or infinite"),
    "encode infinity": (encode(values(2, 8, 315, bad=torch.inf)), "NaN or infinite"),
    "encode parameters": (encode(values(2, 8, 159)), r"shape \(2, 8, 159\), expected \(B, T, 315\)"),
    "encode one clip without a batch": (encode(values(8, 315)), r"shape \(8, 315\)"),
    "encode integers": (encode(torch.zeros(2, 8, 315, dtype=torch.long)), "torch.int64, expected a floating-point"),
    "encode with a short mask": (encode(values(2, 8, 315), MASK[:, :7]), r"shape \(2, 7\), expected bool of \(2, 8\)"),
    "encode with a mask of numbers": (encode(values(2, 8, 315), MASK.float()), "`padding_mask` is torch.float32"),
    "encode with padding before": (encode(values(2, 8, 315), MASK & (torch.arange(8) > 2)), "`padding_mask` has gaps"),
    "decode 0 codes": (decode(CODES[:, :0], CODES[:, :0]), "`body_codes` is .* of shape \\(2, 0\\)"),
    "decode unequal codes": (decode(CODES, CODES[:, :3]), "codes"),
    "decode a code too large": (decode(CODES + 16, CODES), "`body_codes` runs from 16 to 16, expected codes from 0"),
    "decode a negative code": (decode(CODES, CODES - 1), "`hand_codes` runs from -1 to -1"),
    "decode halves of codes": (decode(CODES.float(), CODES), "`body_codes` is torch.float32"),
    "decode one clip without a batch": (decode(CODES[0], CODES[0]), r"`body_codes` is .* of shape \(4,\)"),
    "decode with a mask of gaps": (decode(CODES, CODES, GAP), "`code_mask` has gaps"),
    "decode with a short mask": (decode(CODES, CODES, GAP[:, :3]), "`code_mask` is"),
    "encode a transform of 4": (lambda _, m: m.encode_transform(torch.zeros(2, 4)), r"`transform` is .* \(2, 4\)"),
    "encode a transform of NaN": (lambda _, m: m.encode_transform(torch.full((2, 5), torch.nan)), "holds NaN"),
    "encode one transform without a batch": (lambda _, m: m.encode_transform(torch.zeros(5)), "`transform` is"),
    "decode a transform too large": (lambda _, m: m.decode_transform(torch.tensor([8])), "runs from 8 to 8"),
    "decode no transform": (lambda _, m: m.decode_transform(torch.zeros(0, dtype=torch.long)), "expected integers"),
    "decode half a transform": (lambda _, m: m.decode_transform(torch.tensor([0.5])), "expected integers"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_malformed_motion(case, tmp_path, tiny_codecs, monkeypatch, bounded):
    run, message = CASES[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, tiny_codecs[0])
    made = [path.name for path in tmp_path.iterdir()]
    assert "executed" not in made
    bad = [name for name in made if name.startswith("bad")]
    assert all(name in str(caught.value) for name in bad), "the message does not name the file"


def test_the_trap_works(tmp_path):
    np.save(tmp_path / "trap.npy", trap(tmp_path), allow_pickle=True)
    np.load(tmp_path / "trap.npy", allow_pickle=True)
    assert (tmp_path / "executed").is_dir()


def test_pickles_that_no_motion_needs_are_left_alone(tmp_path):
    assert read_motion(save(tmp_path, markers_latent_vids=trap(tmp_path))).num_frames == T
    assert not (tmp_path / "executed").exists()


def test_what_is_not_there(tmp_path):
    (tmp_path / "bad.npz").symlink_to(tmp_path / "none.npz")
    (tmp_path / "loop.npz").symlink_to(tmp_path / "loop.npz")
    for name in ("bad.npz", "loop.npz", "none.npz"):
        with pytest.raises(FileNotFoundError, match=name):
            read_motion(Path(tmp_path) / name)
