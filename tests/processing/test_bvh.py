"""BVH text in and out. Rotations are compared with products of matrices written out here."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.modeling.motion_vq.kinematics import axis_angle_to_matrix
from solami_hf.processing.motion.body import SMPLX_JOINT_NAMES, joint_positions, standing_height
from solami_hf.processing.motion.formats.bvh import read_bvh, read_skeleton_motion, write_bvh
from solami_hf.processing.motion.smplx_motion import SmplxMotion

CMU_CLIP = Path(__file__).parents[1] / "data" / "cmu_01_01.bvh"
TWO_JOINTS = """HIERARCHY
ROOT Hips
{
\tOFFSET 0 1 0
\tCHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
\tJOINT Chest
\t{
\t\tOFFSET 0 2.5 0
\t\tCHANNELS 3 Zrotation Xrotation Yrotation
\t\tEnd Site
\t\t{
\t\t\tOFFSET 0 1 0
\t\t}
\t}
}
MOTION
Frames: 2
Frame Time: 0.0333333
1 2 3 10 20 30 40 50 60
4 5 6 0 0 90 0 0 0
"""


def about(axis: str, degrees: float) -> np.ndarray:
    """The matrix of a turn about one axis; it takes the next axis of x, y, z towards the one after."""
    first, second = ((1, 2), (2, 0), (0, 1))["xyz".index(axis)]
    matrix, angle = np.eye(3), np.radians(degrees)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[second, first], matrix[first, second] = np.sin(angle), -np.sin(angle)
    return matrix


@pytest.fixture
def read(tmp_path):
    """Reads text or bytes as the skeleton's own motion."""

    def run(content, reader=read_skeleton_motion):
        path = tmp_path / "a.bvh"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return reader(path)

    return run


@pytest.fixture
def random_motion():
    rng = np.random.default_rng(7)
    poses = rng.normal(scale=0.6, size=(20, 55, 3))
    poses[:, 0] *= 3
    return SmplxMotion(rng.normal(size=(20, 3)) + [0, 1, 0], poses, fps=24.0)


def degrees_apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    a, b = (axis_angle_to_matrix(torch.from_numpy(x.astype(np.float64))).numpy() for x in (first, second))
    # the chord is exact for small angles, where the arc cosine of the trace is not
    chord = np.linalg.norm(a - b, axis=(-2, -1)) / np.sqrt(8)
    return np.degrees(2 * np.arcsin(np.clip(chord, 0, 1)))


def test_a_small_file_has_the_numbers_it_says(read):
    motion = read(TWO_JOINTS)
    assert motion.names == ["Hips", "Chest", ""] and motion.parents == [-1, 0, 1] and motion.fps == 30.0
    assert motion.offsets.tolist() == [[0, 1, 0], [0, 2.5, 0], [0, 1, 0]]
    assert motion.positions[0].tolist() == [[1, 2, 3], [4, 5, 6]] and list(motion.positions) == [0]
    np.testing.assert_allclose(motion.rotations[0].as_matrix()[0], about("z", 10) @ about("x", 20) @ about("y", 30))
    np.testing.assert_allclose(motion.rotations[1].as_matrix()[0], about("z", 40) @ about("x", 50) @ about("y", 60))
    places, _ = motion.forward_kinematics()
    np.testing.assert_allclose(places[1], [[4, 5, 6], [4, 7.5, 6], [4, 8.5, 6]], atol=1e-12)


@pytest.mark.parametrize("order", ["".join(p) for n in (1, 2, 3) for p in itertools.permutations("xyz", n)])
def test_channels_turn_in_the_order_they_are_named(read, order):
    names = " ".join(f"{axis.upper()}rotation" for axis in order)
    angles = [30.0, -100.0, 65.0][: len(order)]
    text = TWO_JOINTS.replace("CHANNELS 3 Zrotation Xrotation Yrotation", f"CHANNELS {len(order)} {names}")
    row = " ".join(map(str, [0, 0, 0, 0, 0, 0, *angles]))
    motion = read(text[: text.index("1 2 3 10")] + row + "\n" + row)
    expected = np.eye(3)
    for axis, angle in zip(order, angles, strict=True):
        expected = expected @ about(axis, angle)
    np.testing.assert_allclose(motion.rotations[1].as_matrix(), np.stack([expected] * 2), atol=1e-12)


def test_position_channels_of_a_joint_replace_its_offset(read):
    text = TWO_JOINTS.replace("CHANNELS 3 Zrotation Xrotation Yrotation", "CHANNELS 2 Yposition Yrotation")
    text = text[: text.index("1 2 3 10")] + "0 0 0 0 0 0 7 0\n0 0 0 0 0 0 8 90\n"
    motion = read(text)
    assert motion.positions[1].tolist() == [[0, 7, 0], [0, 8, 0]]
    np.testing.assert_allclose(motion.rotations[1].as_matrix()[1], about("y", 90), atol=1e-12)


def test_layout_of_the_text_does_not_matter(read):
    plain = read(TWO_JOINTS)
    numbers = TWO_JOINTS[TWO_JOINTS.index("1 2 3 10") :].split()
    header = TWO_JOINTS[: TWO_JOINTS.index("1 2 3 10")]
    variants = [
        TWO_JOINTS.replace("\n", "\r\n"),
        TWO_JOINTS.replace("\n", "\r"),
        TWO_JOINTS.rstrip("\n"),
        "\ufeff\n\n" + TWO_JOINTS.lower().replace("hips", "Hips").replace("chest", "Chest"),
        TWO_JOINTS.upper().replace("HIPS", "Hips").replace("CHEST", "Chest"),
        TWO_JOINTS.replace("\n{", " {").replace("End Site", "End site"),
        TWO_JOINTS.replace("Frames: ", "Frames:\t").replace("Frame Time:", "Frame Time:\t") + "\n \n",
        header + "\n".join(numbers),
        header + "\t".join(numbers),
    ]
    for text in variants:
        other = read(text)
        assert other.names == plain.names and other.fps == plain.fps
        np.testing.assert_array_equal(other.rotations[1].as_quat(), plain.rotations[1].as_quat())


def test_one_frame_more_than_the_header_says_is_read(read, caplog):
    motion = read(TWO_JOINTS.replace("Frames: 2", "Frames: 1"))
    assert len(motion.positions[0]) == 2 and "one more" in caplog.text


@pytest.mark.parametrize(
    "seconds, fps",
    [("0.033333", 30.0), (".0083333", 120.0), ("0.01", 100.0), ("0.0333667", 1 / 0.0333667), ("1", 1.0)],
)
def test_rounded_frame_times_give_whole_rates(read, seconds, fps):
    assert read(TWO_JOINTS.replace("0.0333333", seconds)).fps == pytest.approx(fps, rel=1e-12)


HEADER_END = TWO_JOINTS.index("MOTION")
MANY_JOINTS = 3000 * "JOINT a\n{\nOFFSET 0 0 0\nCHANNELS 0\n}\n"
# the parser's own; more, as they come through `read_motion`, are in test_malformed_motion.py
MALFORMED = {
    "no hierarchy": (TWO_JOINTS[HEADER_END:], "expected HIERARCHY"),
    "joint before root": (TWO_JOINTS.replace("ROOT Hips", "JOINT Hips"), "outside of the ROOT"),
    "no name": (TWO_JOINTS.replace("JOINT Chest", "JOINT"), "line 6 has a JOINT without a name"),
    "unknown word": (TWO_JOINTS.replace("OFFSET 0 2.5 0", "SCALE 1 1 1"), "line 8 has 'SCALE'"),
    "short offset": (TWO_JOINTS.replace("OFFSET 0 2.5 0", "OFFSET 0 2.5"), "three finite numbers"),
    "offset of words": (TWO_JOINTS.replace("OFFSET 0 2.5 0", "OFFSET a b c"), "three finite numbers"),
    "no channel number": (TWO_JOINTS.replace("CHANNELS 3", "CHANNELS"), "CHANNELS Zrotation .* names 2 channels"),
    "channels twice": (TWO_JOINTS.replace("OFFSET 0 2.5 0", "CHANNELS 1 Xrotation"), "each channel at most once"),
    "brace without joint": (TWO_JOINTS.replace("OFFSET 0 2.5 0", "{"), "that no joint announces"),
    "joint without brace": (TWO_JOINTS.replace("Chest\n\t{", "Chest"), "expected '{'"),
    "too many joints": (TWO_JOINTS.replace("\tJOINT Chest", MANY_JOINTS + "JOINT Chest"), "at most 2000 joints"),
    "long hierarchy": (TWO_JOINTS.replace("\nMOTION", "\n" + " " * (17 << 20) + "\nMOTION"), "HIERARCHY takes"),
    "no frames": (TWO_JOINTS.replace("Frames: 2\n", ""), "expected 'Frames: N'"),
    "no frame time": (TWO_JOINTS.replace("Frame Time: 0.0333333\n", ""), "expected 'Frames: N'"),
    "frames of words": (TWO_JOINTS.replace("Frames: 2", "Frames: many"), "expected numbers"),
    "10^5 frames": (TWO_JOINTS.replace("Frames: 2", "Frames: 100000"), "expected 900000: 100000 frames of 9"),
    "negative frame time": (TWO_JOINTS.replace("0.0333333", "-0.03"), "expected 0.001 to 1 second"),
    "absurd frame time": (TWO_JOINTS.replace("0.0333333", "1e30"), "expected 0.001 to 1 second"),
    "cut off": (TWO_JOINTS[: TWO_JOINTS.index("50 60")], "holds 7 values after the frame time, expected 18"),
    "comma": (TWO_JOINTS.replace(" 50 60", " 50 6,0"), "line 19 has '6,0' among the frames"),
    "infinite": (TWO_JOINTS.replace("4 5 6", "4 5 1e999"), "channel 3 of frame 2 is inf"),
    "spaces": ("HIERARCHY\n" + 10**6 * " " + "MOTION" + 10**6 * " ", "no ROOT"),
    "blank lines": (TWO_JOINTS.replace("Frames: 2", "Frames" + 10**6 * "\n"), "expected 'Frames: N'"),
}


@pytest.mark.parametrize("content, message", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_files_say_what_is_wrong(read, content, message, bounded):
    with pytest.raises(ValueError, match=message):
        read(content)


def test_a_file_that_is_too_large_is_not_loaded(tmp_path):
    with open(tmp_path / "a.bvh", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="expected at most"):
        read_bvh(tmp_path / "a.bvh")


def test_positions_are_needed_somewhere(read):
    text = TWO_JOINTS.replace("6 Xposition Yposition Zposition Z", "3 Z")
    text = text[: text.index("1 2 3 10")] + "0 0 0 0 0 0\n0 0 0 0 0 0\n"
    with pytest.raises(ValueError, match="no joint has position channels"):
        read(text)


def test_what_is_written_comes_back(tmp_path, random_motion):
    write_bvh(tmp_path / "a.bvh", random_motion)
    back = read_bvh(tmp_path / "a.bvh")
    assert back.fps == random_motion.fps and back.num_frames == random_motion.num_frames
    assert np.abs(back.transl - random_motion.transl).max() < 1e-6
    assert np.abs(joint_positions(back) - joint_positions(random_motion)).max() < 1e-5
    assert degrees_apart(back.poses, random_motion.poses).max() < 1e-4


def test_the_pelvis_is_written_wherever_transl_is(tmp_path, random_motion):
    moved = SmplxMotion(random_motion.transl, random_motion.poses, pelvis_offset=[0.1, -0.35, 0.2])
    write_bvh(tmp_path / "a.bvh", moved)
    back = read_bvh(tmp_path / "a.bvh")
    assert np.abs(back.transl - random_motion.transl - [0.1, -0.35, 0.2]).max() < 1e-6
    assert not back.pelvis_offset.any()


def test_gimbal_lock_is_written_without_loss_or_noise(tmp_path, recwarn):
    poses = np.zeros((3, 55, 3))
    poses[:, 18] = [np.pi / 2, 0, 0]  # the middle angle of the written order at 90 degrees
    motion = SmplxMotion(np.zeros((3, 3)), poses)
    write_bvh(tmp_path / "a.bvh", motion)
    assert degrees_apart(read_bvh(tmp_path / "a.bvh").poses, motion.poses).max() < 1e-3
    assert not [warning for warning in recwarn if "Gimbal" in str(warning.message)]


def test_written_angles_never_jump_by_a_turn(tmp_path):
    poses = np.zeros((60, 55, 3))
    poses[:, 0, 1] = np.linspace(0, 4 * np.pi, 60)  # twice around
    write_bvh(tmp_path / "a.bvh", SmplxMotion(np.zeros((60, 3)), poses))
    rows = np.loadtxt((tmp_path / "a.bvh").read_text().split("Frame Time")[1].splitlines()[1:])
    assert rows[-1, 5] == pytest.approx(720) and np.abs(np.diff(rows, axis=0)).max() < 13


def test_the_written_file_has_centimetres_and_smplx_names(tmp_path):
    write_bvh(tmp_path / "a.bvh", SmplxMotion(np.array([[0.5, standing_height(), 0.0]]), np.zeros((1, 55, 3))))
    skeleton = read_skeleton_motion(tmp_path / "a.bvh")
    assert sorted(name for name in skeleton.names if name) == sorted(SMPLX_JOINT_NAMES)
    assert skeleton.names.count("") == 15  # toes, fingers, jaw and eyes have ends
    places, _ = skeleton.forward_kinematics()
    head = skeleton.names.index("head")
    expected = [50, 100 * joint_positions(read_bvh(tmp_path / "a.bvh"))[0, 15, 1]]
    np.testing.assert_allclose(places[0, head, :2], expected, atol=1e-3)
    assert places[0, :, 1].min() == pytest.approx(0, abs=1e-4)  # the ends of the toes touch the floor


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, random_motion):
    (tmp_path / "a.bvh").write_text("old")
    monkeypatch.setattr(np, "savetxt", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_bvh(tmp_path / "a.bvh", random_motion)
    assert (tmp_path / "a.bvh").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
