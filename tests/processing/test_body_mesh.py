"""The packaged mesh: its joints are those of our kinematics, its shapes, its face, its size."""

from pathlib import Path

import numpy as np
import pytest

from solami_hf.processing.motion.body import SMPLX_JOINT_NAMES, free_body, joint_positions, rest_joints
from solami_hf.processing.motion.face import FACE_UNITS
from solami_hf.processing.motion.mesh import body_mesh as module
from solami_hf.processing.motion.mesh.body_mesh import body_mesh, face_at, skinned_vertices
from solami_hf.processing.motion.smplx_motion import SmplxMotion

FILE = Path(module.__file__).with_name("body_mesh.npz")


@pytest.fixture
def motion():
    rng = np.random.default_rng(5)
    return SmplxMotion(rng.normal(size=(6, 3)), rng.normal(scale=0.6, size=(6, 55, 3)), pelvis_offset=(0, -0.3, 0))


def joints_of_skin(vertices: np.ndarray, rest: np.ndarray, body_rest: np.ndarray) -> np.ndarray:
    """Joints (T, 55, 3) that moved vertices tell: the transforms that explain them best, without our kinematics."""
    mesh = body_mesh()
    design = np.zeros((len(rest), 55, 4))
    points = np.concatenate([rest, np.ones((len(rest), 1))], axis=1)
    for k in range(4):
        np.add.at(design, (np.arange(len(rest)), mesh.joints[:, k]), mesh.weights[:, k, None] / 255 * points)
    moved = vertices.transpose(1, 0, 2).reshape(len(rest), -1)
    design = design.reshape(len(rest), -1)
    transforms = np.linalg.solve(design.T @ design, design.T @ moved).reshape(55, 4, -1, 3)
    ends = np.concatenate([body_rest, np.ones((55, 1))], axis=1)
    return np.einsum("jk,jktc->tjc", ends, transforms)


@pytest.mark.parametrize("betas", [None, [1, -0.5, 0.3, 1.2, 0.4, -1]])
def test_the_skin_tells_the_joints_of_our_kinematics(motion, betas):
    rest, body = body_mesh().shaped(betas)
    joints = joints_of_skin(skinned_vertices(motion, betas), rest.astype(float), body.rest)
    assert np.linalg.norm(joints - joint_positions(motion, body), axis=-1).max() < 0.001


def test_file_is_small_and_plain():
    mesh = body_mesh()
    assert FILE.stat().st_size < 1_500_000 and len(mesh.rest) <= 8000
    with np.load(FILE, allow_pickle=False) as file:
        assert not [name for name in file.files if file[name].dtype.hasobject]
    assert (mesh.weights.sum(axis=1, dtype=int) == 255).all() and mesh.joints.max() < 55
    assert mesh.faces.max() == len(mesh.rest) - 1 and list(mesh.units) == list(FACE_UNITS)


def test_it_rests_as_the_skeleton_does():
    mesh = body_mesh()
    assert mesh.rest[:, 1].min() == pytest.approx(free_body().sole, abs=0.002)
    still = skinned_vertices(SmplxMotion(np.zeros((1, 3)), np.zeros((1, 55, 3))))[0]
    assert np.abs(still - mesh.rest).max() < 1e-5
    for joint in range(1, 55):  # the skin that a joint moves most lies near it
        near = np.linalg.norm(mesh.rest[mesh.joints[:, 0] == joint] - rest_joints()[joint], axis=1)
        assert near.min() < 0.13, SMPLX_JOINT_NAMES[joint]
    volume = np.linalg.det(mesh.rest[mesh.faces]).sum() / 6  # positive where faces look outwards
    assert 0.04 < volume < 0.1
    assert np.allclose(np.linalg.norm(mesh.normals(mesh.rest), axis=1), 1, atol=1e-4)


def test_left_and_right_are_the_persons_own():
    mesh = body_mesh()
    for name, (rows, _) in mesh.units.items():
        middle = mesh.rest[rows, 0].mean()
        if name.startswith(("eye", "brow", "cheek", "nose")) and name.endswith(("Left", "Right")):
            assert np.sign(middle) == (1 if name.endswith("Left") else -1), name


def test_a_face_moves_the_face_alone(motion):
    face = np.zeros((6, 52), np.float32)
    face[3, FACE_UNITS.index("jawOpen")] = 1
    moved = np.linalg.norm(skinned_vertices(motion, face=face) - skinned_vertices(motion), axis=-1)
    assert moved[[0, 1, 2, 4, 5]].max() < 1e-5 and 0.02 < moved[3].max() < 0.06
    rows, moves = body_mesh().units["jawOpen"]
    rigid = body_mesh().weights[rows, 0] == 255  # elsewhere the turns of two joints are mixed
    assert rigid.sum() > 200
    assert np.allclose(moved[3, rows[rigid]], np.linalg.norm(moves[rigid], axis=1), atol=1e-5)
    assert moves[np.abs(moves[:, 1]).argmax(), 1] < -0.02  # downwards


def test_a_face_is_taken_at_the_motions_rate(motion):
    motion.fps = 60.0
    face = np.zeros((2, 52), np.float32)
    face[1] = 1
    assert np.allclose(face_at(face, motion)[:, 0], [0, 0.5, 1, 1, 1, 1])


@pytest.mark.parametrize("betas", [[0] * 7, [3.5], [np.nan]])
def test_other_betas_are_refused(motion, betas):
    with pytest.raises(ValueError, match="gender, weight, muscle"):
        skinned_vertices(motion, betas)


@pytest.mark.parametrize("face", [np.zeros((3, 51)), np.full((3, 52), 2.0), np.zeros((0, 52))])
def test_other_faces_are_refused(motion, face):
    with pytest.raises(ValueError, match="face"):
        skinned_vertices(motion, face=face)
