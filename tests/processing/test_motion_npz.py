import io
import zipfile

import numpy as np
import pytest

from solami_hf.processing.motion.formats import motion_npz
from solami_hf.processing.motion.formats.motion_npz import SMPLX_PELVIS, read_npz, write_npz
from solami_hf.processing.motion.smplx_motion import SmplxMotion

T = 7
RNG = np.random.default_rng(0)
POSES = RNG.uniform(-0.5, 0.5, (T, 55, 3)).astype(np.float32)
TRANS = np.tile([1.0, 2.0, 3.0], (T, 1))
BODY, HANDS = [*range(22)], [*range(25, 55)]


def flat(poses):
    return poses.reshape(len(poses), -1)


def save(path, **arrays):
    """Writes `arrays` to `path`; `None` leaves one out."""
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def amass(path, **changed):
    """An AMASS file of SMPL-H with what its files hold besides, some of it pickled."""
    arrays = {
        "trans": TRANS,
        "gender": np.array("male", dtype="<U4"),
        "mocap_framerate": np.array(120.0),
        "betas": np.arange(16.0),
        "dmpls": np.zeros((T, 8)),
        "poses": flat(POSES[:, BODY + HANDS]).astype(np.float64),
    }
    return save(path, **(arrays | changed))


def split(path, **changed):
    """An AMASS file of SMPL-X (`*_stageii.npz`), without the joined `poses`."""
    arrays = {
        "gender": np.array("female"),
        "surface_model_type": np.array("smplx"),
        "mocap_frame_rate": np.array(120.0),
        "trans": TRANS,
        "betas": np.arange(16.0),
        "num_betas": np.array(16),
        "root_orient": POSES[:, 0],
        "pose_body": flat(POSES[:, 1:22]),
        "pose_hand": flat(POSES[:, 25:]),
        "pose_jaw": POSES[:, 22],
        "pose_eye": flat(POSES[:, 23:25]),
        "markers_latent_vids": np.array({"a": 1}, dtype=object),
    }
    return save(path, **(arrays | changed))


def inter_x(path, **changed):
    arrays = {
        "root_orient": POSES[:, 0],
        "pose_body": POSES[:, 1:22],
        "pose_lhand": POSES[:, 25:40],
        "pose_rhand": POSES[:, 40:],
        "trans": TRANS.astype(np.float32),
        "betas": np.arange(10.0, dtype=np.float32)[None],
        "gender": np.array("male"),
    }
    return save(path, **(arrays | changed))


def beat2(path, **changed):
    arrays = {
        "betas": np.arange(300.0),
        "poses": flat(POSES),
        "expressions": np.zeros((T, 100)),
        "trans": TRANS,
        "model": np.array("smplx2020"),
        "gender": np.array("neutral"),
        "mocap_frame_rate": np.array(30),
    }
    return save(path, **(arrays | changed))


def without(joints):
    poses = POSES.copy()
    poses[:, joints] = 0
    return poses


LAYOUTS = {
    # maker, what it holds of `POSES`, rate, up, gender, number of betas
    "amass 52 joints": (amass, without([22, 23, 24]), 120, "z", "male", 16),
    "amass 22 joints": (
        lambda path: amass(path, poses=flat(POSES[:, :22]), betas=None, gender=None, trans=TRANS.astype(np.float32)),
        without([*range(22, 55)]), 120, "z", "neutral", 0,
    ),
    "amass 55 joints, not flat": (lambda path: amass(path, poses=POSES), POSES, 120, "z", "male", 16),
    "amass by columns": (lambda path: amass(path, poses=np.asfortranarray(flat(POSES))), POSES, 120, "z", "male", 16),
    "amass big endian": (lambda path: amass(path, poses=flat(POSES).astype(">f8")), POSES, 120, "z", "male", 16),
    "amass split": (split, POSES, 120, "z", "female", 16),
    "amass split, body only": (
        lambda path: split(path, pose_hand=None, pose_jaw=None, pose_eye=None),
        without([*range(22, 55)]), 120, "z", "female", 16,
    ),
    "inter-x": (inter_x, without([22, 23, 24]), 120, "y", "male", 10),
    "inter-x at a rate of its own": (
        lambda path: inter_x(path, mocap_frame_rate=np.array(30)), without([22, 23, 24]), 30, "y", "male", 10,
    ),
    "beat2": (beat2, POSES, 30, "y", "neutral", 300),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    make, poses, fps, up, gender, num_betas = LAYOUTS[layout]
    motion = read_npz(make(tmp_path / "a.npz"))
    assert motion.transl[0].tolist() == ([1, 3, -2] if up == "z" else [1, 2, 3])
    np.testing.assert_allclose(motion.poses[:, 1:], poses[:, 1:], atol=1e-7)
    if up == "y":
        assert np.array_equal(motion.poses[:, 0], poses[:, 0])
    assert (motion.fps, motion.gender) == (fps, gender)
    assert num_betas == 0 if motion.betas is None else motion.betas.tolist() == list(range(num_betas))


@pytest.mark.parametrize(("make", "other"), [(amass, "y"), (inter_x, "z")])
def test_axis_of_the_argument_wins(tmp_path, make, other):
    motion = read_npz(make(tmp_path / "a.npz", up_axis=np.array("z" if other == "y" else "y")), up_axis=other)
    assert motion.transl[0].tolist() == ([1, 2, 3] if other == "y" else [1, 3, -2])


def test_z_up_root_is_turned_about_x(tmp_path):
    lying = np.zeros((T, 52, 3))
    lying[:, 0] = [0, 0, np.pi / 2]  # facing the file's +x is facing +z turned about the vertical
    motion = read_npz(amass(tmp_path / "a.npz", poses=lying))
    half = np.pi / 2
    # a quarter turn about x after one about z is 120 degrees about (-1, 1, 1)
    np.testing.assert_allclose(motion.poses[0, 0], np.array([-1, 1, 1]) * (4 / 3 * half / np.sqrt(3)), atol=1e-6)


def test_pelvis_is_where_the_body_model_puts_it(tmp_path):
    y_up = read_npz(inter_x(tmp_path / "a.npz"))
    np.testing.assert_allclose(y_up.pelvis[0], [1.003, 1.649, 3.012], atol=1e-6)
    z_up = read_npz(amass(tmp_path / "b.npz"))
    np.testing.assert_allclose(z_up.pelvis_offset, [-0.002, 0.029, 0.241], atol=1e-7)  # SMPL-H
    assert z_up.transl[0].tolist() == [1, 3, -2]
    np.testing.assert_allclose(z_up.to_params()[0, :3], [0.998, 3.029, -1.759], atol=1e-6)
    smplx = read_npz(amass(tmp_path / "c.npz", poses=np.zeros((T, 165))))
    np.testing.assert_allclose(smplx.pelvis_offset, [0.003, 0.012, 0.351], atol=1e-7)


def test_pelvis_offset_of_file_and_argument(tmp_path):
    path = amass(tmp_path / "a.npz", pelvis_offset=np.array([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(read_npz(path).pelvis_offset, [0.1, 0.3, -0.2], atol=1e-7)
    np.testing.assert_allclose(read_npz(path, pelvis_offset=(0, 0, -0.4)).pelvis_offset, [0, -0.4, 0], atol=1e-7)


@pytest.mark.parametrize("shape", [(5,), (1, 5), (T, 5)])
def test_first_row_of_betas(tmp_path, shape):
    betas = np.broadcast_to(np.arange(5.0), shape).copy()
    betas[1:] += 9 * (betas.ndim == 2)
    assert read_npz(beat2(tmp_path / "a.npz", betas=betas)).betas.tolist() == [0, 1, 2, 3, 4]


def test_written_motion_is_read_back(tmp_path):
    motion = SmplxMotion(TRANS, POSES, betas=np.ones(10), gender="male", fps=25, pelvis_offset=(0, -0.3, 0))
    write_npz(tmp_path / "new" / "a.npz", motion)
    back = read_npz(tmp_path / "new" / "a.npz")
    assert np.array_equal(back.poses, motion.poses) and np.array_equal(back.transl, motion.transl)
    assert np.array_equal(back.pelvis_offset, motion.pelvis_offset)
    assert back.betas.tolist() == [1.0] * 10 and (back.gender, back.fps) == ("male", 25.0)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.npz"]


def test_ours_is_y_up_with_the_pelvis_at_transl(tmp_path):
    write_npz(tmp_path / "a.npz", SmplxMotion(TRANS, POSES))
    assert read_npz(tmp_path / "a.npz").pelvis_offset.tolist() == [0, 0, 0]
    assert SMPLX_PELVIS == (0.003, -0.351, 0.012)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"poses": np.zeros((T, 72))}, r"`poses` has shape \(7, 72\), expected \(T, 66 or 156 or 165\)"),
        ({"poses": np.zeros((T - 1, 165))}, "`poses` has 6 frames, but `trans` has 7"),
        ({"trans": None}, "lacks trans"),
        ({"poses": None}, "lacks poses, or else root_orient and pose_body"),
        ({"poses": None, "root_orient": np.zeros((T, 3))}, "lacks poses, or else pose_body"),
        ({"mocap_framerate": None}, "lacks mocap_frame_rate"),
        ({"mocap_framerate": np.array("fast")}, "`mocap_framerate` is of type <U4, expected numbers"),
        ({"mocap_framerate": np.array([30, 60])}, r"`mocap_framerate` has shape \(2,\), expected one number"),
        ({"up_axis": np.array("x")}, "`up_axis` is 'x'"),
        ({"gender": np.array(["male", "female"])}, "expected one word"),
        ({"pelvis_offset": np.zeros(2)}, r"`pelvis_offset` has shape \(2,\)"),
    ],
)
def test_bad_arrays_are_named(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        read_npz(amass(tmp_path / "bad.npz", **arrays))


def test_sum_of_sizes_is_refused_before_anything_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(motion_npz, "MAX_ARRAY_BYTES", 9000)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_: pytest.fail("was unpacked"))
    with pytest.raises(ValueError, match="its arrays take 9056 bytes, expected at most 9000"):
        read_npz(amass(tmp_path / "bad.npz"))


def test_later_entry_of_the_same_name_is_checked_as_well(tmp_path):
    path = amass(tmp_path / "bad.npz")
    content = io.BytesIO()
    np.save(content, np.zeros((3, 3)))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("trans.npy", content.getvalue())
    with pytest.raises(ValueError, match="`poses` has 7 frames, but `trans` has 3"):
        read_npz(path)
