import json

import numpy as np
import pytest

from solami_hf.processing.motion import SmplxMotion
from solami_hf.processing.motion_files import read_motion, resample_motion, write_motion
from solami_hf.processing.smplx_body import standing_height


def amass(path, frames=12, width=165, **arrays):
    """Writes an AMASS-style file; `None` leaves an array out."""
    content = {
        "trans": np.tile([1.0, 2.0, 3.0], (frames, 1)),
        "poses": np.zeros((frames, width)),
        "mocap_frame_rate": np.array(30.0),
        "gender": np.array("female"),
    }
    content = {key: value for key, value in (content | arrays).items() if value is not None}
    np.savez(path, **content)
    return path


def deepmimic(path, frames):
    path.write_text(json.dumps({"Loop": "wrap", "Frames": frames}), encoding="utf-8")
    return path


def standing(duration=1 / 30) -> list[float]:
    """A DeepMimic frame at rest: every quaternion and angle is zero rotation."""
    frame = [duration, 0.0, 0.85, 0.0]
    for size in (4, 4, 4, 4, 1, 4, 4, 1, 4, 1, 4, 4, 1):
        frame += [1.0, 0.0, 0.0, 0.0] if size == 4 else [0.0]
    return frame


def test_written_motion_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    motion = SmplxMotion(rng.normal(size=(9, 3)), rng.normal(size=(9, 55, 3)), betas=np.ones(10), gender="male")
    write_motion(tmp_path / "a.npz", motion)
    back = read_motion(tmp_path / "a.npz")
    assert np.array_equal(back.poses, motion.poses) and np.array_equal(back.transl, motion.transl)
    assert back.betas.tolist() == [1.0] * 10 and (back.gender, back.fps) == ("male", 30.0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_amass_is_turned_to_y_up(tmp_path):
    motion = read_motion(amass(tmp_path / "a.npz"))
    assert motion.transl[0].tolist() == [1.0, 3.0, -2.0]
    np.testing.assert_allclose(motion.poses[0, 0], [-np.pi / 2, 0, 0], atol=1e-6)
    assert motion.gender == "female"


@pytest.mark.parametrize("given", [{"file": "y"}, {"argument": "y"}])
def test_y_up_stays(tmp_path, given):
    path = amass(tmp_path / "a.npz", up_axis=np.array(given["file"]) if "file" in given else None)
    motion = read_motion(path, up_axis=given.get("argument"))
    assert motion.transl[0].tolist() == [1.0, 2.0, 3.0] and not motion.poses.any()


@pytest.mark.parametrize(("joints", "flat"), [(22, True), (52, True), (52, False), (55, False)])
def test_joint_layouts(tmp_path, joints, flat):
    poses = np.tile(np.arange(joints, dtype=np.float64)[:, None] / 100, (3, 1, 3))
    poses = poses.reshape(3, -1) if flat else poses
    motion = read_motion(amass(tmp_path / "a.npz", frames=3, poses=poses, up_axis=np.array("y")))
    last = {22: 0.0, 52: 0.51, 55: 0.54}[joints]
    assert motion.poses[0, 21, 0] == pytest.approx(0.21)
    assert motion.poses[0, 54, 0] == pytest.approx(last)
    assert motion.poses[0, 25, 0] == pytest.approx({22: 0.0, 52: 0.22, 55: 0.25}[joints])


def test_120_fps_becomes_30(tmp_path):
    path = amass(tmp_path / "a.npz", frames=121, mocap_frame_rate=None, mocap_framerate=np.array([120.0]))
    assert read_motion(path).num_frames == 31
    assert read_motion(path, fps=None).fps == 120.0


def test_resampling_turns_evenly():
    poses = np.zeros((2, 55, 3))
    poses[1, 3] = [0, 1.0, 0]
    fast = resample_motion(SmplxMotion([[0, 0, 0], [0, 0, 1]], poses, fps=1), 4)
    np.testing.assert_allclose(fast.poses[:, 3, 1], [0, 0.25, 0.5, 0.75, 1], atol=1e-6)
    np.testing.assert_allclose(fast.transl[:, 2], [0, 0.25, 0.5, 0.75, 1], atol=1e-6)


def test_deepmimic_rest_hangs_its_arms_down(tmp_path):
    motion = read_motion(deepmimic(tmp_path / "a.txt", [standing()] * 4))
    assert motion.num_frames == 4
    np.testing.assert_allclose(motion.poses[0, 16], [0, 0, -np.pi / 2], atol=1e-6)
    np.testing.assert_allclose(motion.poses[0, 17], [0, 0, np.pi / 2], atol=1e-6)
    rest = np.delete(motion.poses, [16, 17], axis=1)
    np.testing.assert_allclose(rest, 0, atol=1e-6)


def test_deepmimic_stands_on_its_soles(tmp_path):
    frame = standing()
    frame[2] = 0.881  # straight legs
    height = read_motion(deepmimic(tmp_path / "a.txt", [frame])).transl[0, 1]
    assert height == pytest.approx(standing_height(), abs=1e-6)


def test_deepmimic_axes(tmp_path):
    frame = standing()
    frame[1] = 1.0  # one metre ahead
    frame[20] = -1.0  # the right knee bends
    frame[43] = 1.0  # the left elbow bends
    motion = read_motion(deepmimic(tmp_path / "a.txt", [frame]))
    np.testing.assert_allclose(motion.transl[0, [0, 2]], [0, 1], atol=1e-6)
    np.testing.assert_allclose(motion.poses[0, 5], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(motion.poses[0, 18], [0, -1, 0], atol=1e-6)


def test_deepmimic_durations_are_kept(tmp_path):
    assert read_motion(deepmimic(tmp_path / "a.txt", [standing(0.1)] * 11)).num_frames == 31


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"poses": np.zeros((12, 72))}, r"`poses` has shape \(12, 24, 3\), expected widths of 66"),
        ({"poses": np.zeros((11, 165))}, r"`poses` has shape \(11, 55, 3\), expected \(12"),
        ({"trans": None}, "lacks trans"),
        ({"mocap_frame_rate": None}, "lacks mocap_frame_rate"),
        ({"mocap_frame_rate": np.array(0.0)}, "`fps` is 0"),
        ({"mocap_frame_rate": np.array("fast")}, "expected one number"),
        ({"trans": np.full((12, 3), np.nan)}, "`trans` holds 36 NaN"),
        ({"trans": np.zeros((0, 3)), "poses": np.zeros((0, 165))}, "0 frames"),
        ({"poses": np.array([{}] * 12, dtype=object)}, "pickled objects"),
        ({"up_axis": np.array("x")}, "`up_axis` is 'x'"),
    ],
)
def test_bad_npz_is_named(tmp_path, arrays, message):
    path = amass(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message.replace("`trans` holds", "`transl` holds")) as caught:
        read_motion(path)
    assert "bad.npz" in str(caught.value)


def test_truncated_npz(tmp_path):
    path = amass(tmp_path / "bad.npz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="no complete npz archive"):
        read_motion(path)


def test_absurd_size_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("solami_hf.processing.motion_files.MAX_ARRAY_BYTES", 1000)
    with pytest.raises(ValueError, match="expected at most 1000"):
        read_motion(amass(tmp_path / "bad.npz"))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "0 frames"),
        ([[0.0] * 43], r"expected \(T, 44\)"),
        ([standing(), standing()[:-1]], "rows of numbers|expected|inhomogeneous"),
        ([standing()[:4] + [0.0] * 40], "quaternion at column 4 is not normalised"),
        ([standing(0.0), standing()], "duration is not positive"),
        ([[float("nan")] * 44], "NaN"),
    ],
)
def test_bad_deepmimic_is_named(tmp_path, frames, message):
    with pytest.raises(ValueError, match=message):
        read_motion(deepmimic(tmp_path / "bad.txt", frames))


def test_text_that_is_no_json(tmp_path):
    (tmp_path / "bad.txt").write_text("hello", encoding="utf-8")
    with pytest.raises(ValueError, match="no JSON object"):
        read_motion(tmp_path / "bad.txt")


def test_missing_file_and_unknown_suffix(tmp_path):
    with pytest.raises(FileNotFoundError, match="no motion file at"):
        read_motion(tmp_path / "none.npz")
    (tmp_path / "a.fbx").touch()
    with pytest.raises(ValueError, match=r"expected a suffix of .npz, .txt"):
        read_motion(tmp_path / "a.fbx")
    with pytest.raises(ValueError, match="ends in .npz"):
        write_motion(tmp_path / "a.txt", SmplxMotion(np.zeros((1, 3)), np.zeros((1, 55, 3))))
