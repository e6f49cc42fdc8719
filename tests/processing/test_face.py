"""Names and files of faces, visemes to curves, eyes that look and a head that turns."""

import io
import zipfile

import numpy as np
import pytest

from solami_hf.modeling.face.configuration_lips import VISEMES
from solami_hf.processing.motion.body import standing_height
from solami_hf.processing.motion.expression import Expression, _angles, user_head
from solami_hf.processing.motion.face import FACE_UNITS, UNIT_INDEX, checked_face, read_face
from solami_hf.processing.motion.motion_io import read_motion, write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from solami_hf.processing.motion.visemes import (
    PHONE_VISEMES,
    SHAPES,
    face_of_phones,
    frame_visemes,
    mouth_opening,
    viseme_curves,
)


def standing(frames=60):
    transl = np.tile([0.0, standing_height(), 0.0], (frames, 1)).astype(np.float32)
    return SmplxMotion(transl, np.zeros((frames, 55, 3), np.float32), pelvis_offset=np.zeros(3, np.float32))


def test_units_stand_in_apples_order():
    assert len(FACE_UNITS) == len(set(FACE_UNITS)) == 52
    assert FACE_UNITS[0] == "eyeBlinkLeft" and FACE_UNITS[7] == "eyeBlinkRight"
    places = {"jawForward": 14, "jawOpen": 17, "mouthClose": 18, "mouthPucker": 20, "mouthPressLeft": 35,
              "browDownLeft": 41, "browInnerUp": 43, "cheekPuff": 46, "tongueOut": 51}  # fmt: skip
    assert {name: UNIT_INDEX[name] for name in places} == places


@pytest.mark.parametrize(
    "face",
    [
        np.zeros((3, 51)),
        np.zeros(52),
        np.full((3, 52), np.nan),
        np.full((3, 52), 1.1),
        np.full((3, 52), -0.1),
        [["a"]],
    ],
)
def test_what_is_no_face_is_refused(face):
    with pytest.raises(ValueError, match="face"):
        checked_face(face)


def test_a_face_lies_beside_its_motion(tmp_path):
    face = np.random.default_rng(0).random((60, 52), dtype=np.float32)
    write_motion(tmp_path / "a.npz", standing(), face)
    write_motion(tmp_path / "b.npz", standing())
    assert np.array_equal(read_face(tmp_path / "a.npz"), face) and read_face(tmp_path / "b.npz") is None
    assert np.array_equal(read_motion(tmp_path / "a.npz").poses, standing().poses)


def header(text: str, values: bytes = b"") -> bytes:
    """An array's file with a header of these words."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + values


def zipped(**members: bytes) -> bytes:
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w") as file:
            for name, content in members.items():
                file.writestr(f"{name}.npy", content)
        return buffer.getvalue()


def spoiled(place: float, *values: int) -> bytes:
    """A good file, other bytes at a share of its length."""
    with io.BytesIO() as buffer:
        np.savez_compressed(buffer, face=np.random.default_rng(0).random((90, 52), np.float32))
        data = bytearray(buffer.getvalue())
    place = int(place * len(data))
    data[place : place + len(values)] = values
    return bytes(data)


HEADER = "{{'descr': '{}', 'fortran_order': False, 'shape': ({}, 52), }}\n"
GOOD = np.full((5, 52), 0.5)
BAD_ARRAYS = {
    "one column less": GOOD[:, :51],
    "one more": np.full((5, 53), 0.5),
    "turned": GOOD.T,
    "one frame without its axis": GOOD[0],
    "two faces": np.stack([GOOD, GOOD]),
    "a number": np.array(0.5),
    "nothing": np.zeros(0),
    "no columns": np.zeros((5, 0)),
    "percent": GOOD * 100,
    "negative": GOOD - 1,
    "a bit above": GOOD + 0.51,
    "NaN": np.where(np.eye(5, 52) > 0, np.nan, 0.5),
    "infinite": np.where(np.eye(5, 52) > 0, np.inf, 0.5),
    "bytes of a picture": np.full((5, 52), 128, np.uint8),
    "huge integers": np.full((5, 52), 1 << 62),
    "beyond float32": np.full((5, 52), 1e300),
    "words": np.full((5, 52), "open"),
    "bytes": np.full((5, 52), b"open"),
    "imaginary": GOOD * 1j,
    "dates": np.full((5, 52), np.datetime64("2026-01-01")),
    "fields": np.zeros((5, 52), [("a", "f4"), ("b", "f4")]),
    "pickled dictionary": np.array([{}]),
    "pickled list of lists": np.array([[0.5] * 52, [0.5]], dtype=object),
}
BAD_BYTES = {
    "empty": b"",
    "text": b"nothing",
    "an array alone": header(HEADER.format("<f8", 1), bytes(8 * 52)),
    "html": b"<html><body>404</body></html>",
    "beginning of a zip": b"PK\x03\x04",
    "half": spoiled(1)[: len(spoiled(1)) // 2],
    "without its end": spoiled(1)[:-9],
    "without its beginning": spoiled(1)[99:],
    "spoiled at the beginning": spoiled(0, 1, 2, 3, 4),
    "spoiled in the middle": spoiled(0.5, *range(64)),
    "spoiled at the end": spoiled(0.99, *[255] * 20),
    "text in the zip": zipped(face=b"nothing"),
    "empty in the zip": zipped(face=b""),
    "no header": zipped(face=header("")),
    "header of code": zipped(face=header("__import__('os').system('true')\n")),
    "header without a shape": zipped(face=header("{'descr': '<f8', 'fortran_order': False, }\n")),
    "negative shape": zipped(face=header(HEADER.format("<f8", -5))),
    "shape of more than there is": zipped(face=header(HEADER.format("<f8", 9))),
    "shape of the world": zipped(face=header(HEADER.format("<f8", 1 << 60))),
    "a shape to compute": zipped(face=header(HEADER.format("<f8", "1 << 60"))),
    "unknown type": zipped(face=header(HEADER.format("face", 5))),
    "deep header": zipped(face=header("(" * 5000)),
}  # fmt: skip


@pytest.mark.parametrize("case", [*BAD_ARRAYS, *BAD_BYTES])
@pytest.mark.filterwarnings("ignore:overflow")
def test_malformed_faces_are_refused_in_words(tmp_path, case):
    path = tmp_path / "bad.npz"
    if case in BAD_ARRAYS:
        np.savez(path, face=BAD_ARRAYS[case])
    else:
        path.write_bytes(BAD_BYTES[case])
    with pytest.raises(ValueError, match=r"bad\.npz"):
        read_face(path)
    with pytest.raises(OSError):
        read_face(tmp_path / "none.npz")


def test_phones_have_frames():
    phones = [("pau", 0.1), ("m", 0.16), ("ay", 0.36), ("pau", 0.4)]
    names = [VISEMES[i] for i in frame_visemes(phones, 24, 50.0)]
    expected = ["rest"] * 5 + ["bilabial"] * 3 + ["open"] * 5 + ["spread"] * 5 + ["rest"] * 6
    assert names == expected and set(sum(PHONE_VISEMES.values(), ())) == set(VISEMES)
    with pytest.raises(ValueError, match="unknown phone 'xx'"):
        frame_visemes([("xx", 1.0)], 5, 50.0)


def test_lips_close_between_vowels_and_round_for_them():
    phones = [("aa", 0.3), ("b", 0.36), ("aa", 0.6), ("uw", 0.9), ("t", 0.95), ("uw", 1.2)]
    face = face_of_phones(phones, 1.2)
    opening = mouth_opening(face)
    assert face.shape == (36, 52) and 0 <= face.min() and face.max() <= 1
    assert opening[9:12].min() < 0.02 and opening[4] > 0.5 and opening[15] > 0.5
    pucker = face[:, UNIT_INDEX["mouthPucker"]]
    assert pucker[24] > 0.6 and pucker[28] > 0.3 and pucker[3] < 0.01  # a t takes the lips of the vowels around it
    rest = viseme_curves(np.eye(15, dtype=np.float32)[[0] * 5], 50.0)
    assert not rest.any() and not SHAPES[0].any()


def test_expressions_are_seeded():
    speaking = np.ones(900, np.float32)
    one, two, other = (Expression(seed).curves(0, 900, speaking) for seed in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, other)
    assert np.array_equal(one[300:400], Expression(1).curves(300, 100, speaking[:100]))
    blinks = one[:, UNIT_INDEX["eyeBlinkLeft"]]
    starts = ((blinks[1:] > 0.5) & (blinks[:-1] <= 0.5)).sum()
    assert 4 <= starts <= 15 and blinks.max() > 0.9
    assert one[:, UNIT_INDEX["browInnerUp"]].max() > 0.1
    assert not Expression(1).curves(0, 900, 0 * speaking)[:, UNIT_INDEX["browInnerUp"]].any()
    assert not one[:, UNIT_INDEX["jawOpen"]].any()


@pytest.mark.parametrize("side", [-1, 1])
def test_eyes_and_head_turn_to_the_user(side):
    target = user_head([side * 1.5, 0.0, 1.5])  # 45 degrees; +x is the character's left
    turned, still = Expression(0, target), Expression(0, target)
    motion, as_was = turned.move(standing()), still.move(standing(), turn_head=False)
    assert np.array_equal(as_was.poses, standing().poses)
    left, right = ("eyeLookOutLeft", "eyeLookInRight"), ("eyeLookInLeft", "eyeLookOutRight")
    wanted, not_wanted = (left, right) if side > 0 else (right, left)
    eyes = still.curves(0, 60, np.ones(60))
    assert eyes[:, [UNIT_INDEX[name] for name in wanted]].min() > 0.9
    assert not eyes[:, [UNIT_INDEX[name] for name in not_wanted]].any()
    off = np.abs(_angles(motion, target)[:, 0])
    assert off[0] > 40 and off[-1] < 20  # by and by
    assert turned.curves(0, 60, np.ones(60))[-1, UNIT_INDEX[wanted[0]]] < 0.7  # then the eyes have less to do
    parts = Expression(0, target)
    pieces = [parts.move(standing(count)) for count in (7, 53)]
    np.testing.assert_allclose(np.concatenate([p.poses for p in pieces]), motion.poses, atol=1e-6)


def test_the_head_rises_to_who_is_taller():
    target = user_head([0.0, 0.6, 1.0])
    expression = Expression(0, target)
    motion = expression.move(standing())
    off = _angles(motion, target)[:, 1]
    assert off[0] > 20 and off[-1] < 0.6 * off[0]
    assert expression.curves(0, 1, np.ones(1))[0, UNIT_INDEX["eyeLookUpLeft"]] > 0.5
