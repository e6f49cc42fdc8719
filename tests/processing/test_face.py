"""Names and files of faces, visemes to curves, eyes that look and a head that turns."""

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


@pytest.mark.parametrize("wrong", ["text", "pickle", "shape", "cut", "npy", "range"])
def test_bad_files_are_refused(tmp_path, wrong):
    path = tmp_path / "face.npz"
    arrays = {"pickle": np.array([{}]), "shape": np.zeros((5, 3)), "range": np.full((5, 52), 7.0)}
    np.savez(path, face=arrays.get(wrong, np.zeros((5, 52))))
    if wrong == "text":
        path.write_text("nothing")
    elif wrong == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif wrong == "npy":
        with open(path, "wb") as file:
            np.save(file, np.zeros((5, 52)))
    with pytest.raises(ValueError, match="face"):
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
