import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from solami_hf.processing.motion.body import SMPLX_PARENTS, joint_positions
from solami_hf.processing.motion.formats.humanml3d import read_humanml3d
from solami_hf.processing.motion.smplx_motion import SmplxMotion

T = 30


def some_motion() -> SmplxMotion:
    rng = np.random.default_rng(3)
    poses = rng.uniform(-1.2, 1.2, (T, 55, 3))
    poses[:, 22:] = 0
    transl = np.cumsum(rng.normal(size=(T, 3)) * 0.02, axis=0) + [0, 1.0, 0]
    transl[:, (0, 2)] -= transl[0, (0, 2)]
    return SmplxMotion(transl, poses, fps=20)


def to_vectors(joints: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Vectors (T, 263) of positions (T + 1, 22, 3), facing `turn` (T + 1,) radians about y, the first of them 0."""
    to_facing = Rotation.from_rotvec(np.outer(-turn, [0, 1, 0]))
    local = joints - joints[:, :1] * [1, 0, 1]
    local = np.stack([to_facing[t].apply(local[t]) for t in range(len(joints))])
    step = to_facing[1:].apply(np.diff(joints[:, 0], axis=0))
    half = -np.diff(turn)[:, None] / 2
    rest = np.random.default_rng(0).normal(size=(len(half), 263 - 67))  # what is not read
    return np.concatenate([half, step[:, (0, 2)], local[:-1, 0, 1:2], local[:-1, 1:].reshape(len(half), 63), rest], 1)


def global_rotations(motion: SmplxMotion, joint: int) -> Rotation:
    chain = [joint]
    while chain[0]:
        chain.insert(0, SMPLX_PARENTS[chain[0]])
    total = Rotation.identity()
    for link in chain:
        total = total * Rotation.from_rotvec(motion.poses[:, link])
    return total


@pytest.fixture
def both(tmp_path):
    motion = some_motion()
    turn = np.concatenate([[0.0], np.cumsum(np.random.default_rng(4).normal(size=T - 1) * 0.3)])
    vectors = to_vectors(joint_positions(motion)[:, :22].astype(np.float64), turn)
    np.save(tmp_path / "a.npy", vectors.astype(np.float32))
    return motion, read_humanml3d(tmp_path / "a.npy")


def test_joints_are_where_the_vectors_say(both):
    motion, back = both
    assert (back.num_frames, back.fps, back.gender) == (T - 1, 20, "neutral")
    expected = joint_positions(motion)[: T - 1, :22]
    np.testing.assert_allclose(joint_positions(back)[:, :22], expected, atol=2e-5)


@pytest.mark.parametrize("joint", [0, 9])
def test_pelvis_and_chest_keep_their_twist(both, joint):
    motion, back = both
    expected, came = global_rotations(motion, joint)[: T - 1], global_rotations(back, joint)
    assert (expected.inv() * came).magnitude().max() < 1e-4


def test_bones_that_point_the_other_way(tmp_path):
    poses = np.zeros((T, 55, 3))
    poses[:, 16] = [0, np.pi, 0]  # the left arm points to the right: no shorter way than another
    motion = SmplxMotion(np.zeros((T, 3)), poses)
    np.save(tmp_path / "a.npy", to_vectors(joint_positions(motion)[:, :22].astype(np.float64), np.zeros(T)))
    back = read_humanml3d(tmp_path / "a.npy")
    np.testing.assert_allclose(joint_positions(back)[:, :22], joint_positions(motion)[:-1, :22], atol=1e-5)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 22, 3)), r"shape \(5, 22, 3\) of float64, expected HumanML3D's \(T, 263\)"),
        (np.zeros((5, 251)), r"shape \(5, 251\)"),
        (np.zeros((0, 263)), "0 frames"),
        (np.full((5, 263), np.nan), "NaN"),
        (np.zeros((5, 263)), "its bones are 0 to 0 m long"),
        (np.random.default_rng(0).normal(size=(5, 263)) * 3, "normalised vectors"),
        (np.array(["a"]), "expected HumanML3D"),
        (np.array([{}], dtype=object), "pickled objects"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        read_humanml3d(tmp_path / "a.npy")
