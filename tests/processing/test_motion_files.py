import json

import numpy as np
import pytest

from solami_hf.processing.motion.motion_io import read_motion, write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion


def amass(path, frames=12, **arrays):
    """Writes an AMASS file of SMPL-X; `None` leaves an array out."""
    content = {
        "trans": np.tile([1.0, 2.0, 3.0], (frames, 1)),
        "poses": np.zeros((frames, 165)),
        "mocap_frame_rate": np.array(30.0),
        "gender": np.array("female"),
    }
    content = {key: value for key, value in (content | arrays).items() if value is not None}
    np.savez(path, **content)
    return path


def deepmimic(path, frames=11, duration=0.1):
    frame = [duration, 0.0, 0.85, 0.0]
    for size in (4, 4, 4, 4, 1, 4, 4, 1, 4, 1, 4, 4, 1):
        frame += [1.0, 0.0, 0.0, 0.0] if size == 4 else [0.0]
    path.write_text(json.dumps({"Frames": [frame] * frames}), encoding="utf-8")
    return path


def some_motion():
    rng = np.random.default_rng(0)
    return SmplxMotion(rng.normal(size=(9, 3)), rng.normal(size=(9, 55, 3)), pelvis_offset=(0.1, -0.3, 0))


def test_npz_is_written_and_read_back(tmp_path):
    motion = some_motion()
    write_motion(tmp_path / "a.npz", motion)
    back = read_motion(tmp_path / "a.npz")
    assert np.array_equal(back.poses, motion.poses) and np.array_equal(back.to_params(), motion.to_params())
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_bvh_and_glb_are_written(tmp_path):
    write_motion(tmp_path / "a.BVH", some_motion())
    write_motion(tmp_path / "a.glb", some_motion())
    assert (tmp_path / "a.BVH").read_text().startswith("HIERARCHY")
    assert (tmp_path / "a.glb").read_bytes().startswith(b"glTF")
    assert read_motion(tmp_path / "a.BVH").num_frames == 9


def test_amass_is_turned_and_resampled(tmp_path):
    path = amass(tmp_path / "a.npz", frames=121, mocap_frame_rate=None, mocap_framerate=np.array([120.0]))
    motion = read_motion(path)
    assert (motion.num_frames, motion.fps, motion.gender) == (31, 30.0, "female")
    assert motion.transl[0].tolist() == [1.0, 3.0, -2.0]
    np.testing.assert_allclose(motion.pelvis_offset, [0.003, 0.012, 0.351], atol=1e-7)
    assert read_motion(path, fps=None).fps == 120.0
    assert read_motion(path, up_axis="y").transl[0].tolist() == [1.0, 2.0, 3.0]


def test_deepmimic_is_resampled_from_its_durations(tmp_path):
    assert read_motion(deepmimic(tmp_path / "a.txt")).num_frames == 31
    assert read_motion(deepmimic(tmp_path / "a.txt"), fps=None).num_frames == 11


@pytest.mark.parametrize(("make", "name"), [(amass, "a.npz"), (deepmimic, "a.txt")])
def test_pelvis_offset_of_the_argument(tmp_path, make, name):
    motion = read_motion(make(tmp_path / name), pelvis_offset=(0.0, 0.5, 0.0))
    expected = [0.0, 0.0, -0.5] if name == "a.npz" else [0.0, 0.5, 0.0]
    np.testing.assert_allclose(motion.pelvis_offset, expected, atol=1e-7)


def test_arguments_are_checked(tmp_path):
    path = amass(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="`up_axis` is 'x'"):
        read_motion(path, up_axis="x")
    with pytest.raises(ValueError, match="`fps` is -1"):
        read_motion(path, fps=-1)
    with pytest.raises(ValueError, match=r"`pelvis_offset` has shape \(2,\)"):
        read_motion(path, pelvis_offset=(0, 1))
    with pytest.raises(ValueError, match="always y-up"):
        read_motion(deepmimic(tmp_path / "a.txt"), up_axis="z")


def test_missing_file_and_unknown_suffix(tmp_path):
    with pytest.raises(FileNotFoundError, match="no motion file at"):
        read_motion(tmp_path / "none.npz")
    (tmp_path / "a.fbx").touch()
    with pytest.raises(ValueError, match=r"expected a suffix of .npz, .npy, .txt, .bvh"):
        read_motion(tmp_path / "a.fbx")
    with pytest.raises(ValueError, match="ends in .npz, .bvh, .glb"):
        write_motion(tmp_path / "a.txt", some_motion())
