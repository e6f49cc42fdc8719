"""A `.glb` file is read back by the benchmark's reader, and its skin is posed as a viewer poses it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from solami_hf.processing.motion.body import (
    SMPLX_JOINT_NAMES,
    SMPLX_PARENTS,
    joint_positions,
    rest_joints,
    standing_height,
)
from solami_hf.processing.motion.face import FACE_UNITS
from solami_hf.processing.motion.formats.gltf import write_gltf
from solami_hf.processing.motion.mesh.body_mesh import face_at, skinned_vertices
from solami_hf.processing.motion.smplx_motion import SmplxMotion

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "motion_round_trips.py"


@pytest.fixture(scope="module")
def reader():
    spec = importlib.util.spec_from_file_location("motion_round_trips", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def motion():
    rng = np.random.default_rng(11)
    return SmplxMotion(rng.normal(size=(9, 3)), rng.normal(scale=0.8, size=(9, 55, 3)), fps=25.0)


@pytest.fixture
def written(tmp_path, motion, reader):
    write_gltf(tmp_path / "a.glb", motion)
    document, arrays = reader.read_glb(tmp_path / "a.glb")
    return tmp_path / "a.glb", document, arrays


def corners(document, arrays) -> dict[str, np.ndarray]:
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    return {name: arrays[index] for name, index in attributes.items()}


def test_lengths_of_the_file_and_its_parts_agree(written):
    data = written[0].read_bytes()
    assert data[:4] == b"glTF" and int.from_bytes(data[4:8], "little") == 2
    assert int.from_bytes(data[8:12], "little") == len(data) and len(data) % 4 == 0
    size = int.from_bytes(data[12:16], "little")
    assert data[16:20] == b"JSON" and data[24 + size : 28 + size] == b"BIN\0"
    assert int.from_bytes(data[20 + size : 24 + size], "little") == len(data) - 28 - size
    assert written[1]["buffers"][0]["byteLength"] == len(data) - 28 - size


def test_motion_comes_back(written, motion, reader):
    back = reader.motion_of_glb(written[0])
    assert back.fps == pytest.approx(25.0)
    assert np.abs(joint_positions(back) - joint_positions(motion)).max() < 1e-5


def test_joints_are_smplx_and_rest_standing(written):
    nodes = written[1]["nodes"]
    assert [node["name"] for node in nodes[:55]] == list(SMPLX_JOINT_NAMES)
    places = np.array([node["translation"] for node in nodes[:55]])
    for joint, node in enumerate(nodes[:55]):
        for child in node.get("children", ()):
            assert SMPLX_PARENTS[child] == joint
            places[child] += places[joint]
    np.testing.assert_allclose(places, rest_joints() + [0, standing_height(), 0], atol=1e-6)


def posed_as_a_viewer_does(written, motion, frame: int, weights=None) -> np.ndarray:
    """Vertices (V, 3): morph targets, then joint matrices times inverse bind matrices, mixed by the skin."""
    _, document, arrays = written
    mesh = corners(document, arrays)
    bind = arrays[document["skins"][0]["inverseBindMatrices"]].reshape(55, 4, 4).transpose(0, 2, 1)
    places = joint_positions(motion)
    turned, posed = [], []
    for joint, parent in enumerate(SMPLX_PARENTS):
        local = Rotation.from_rotvec(motion.poses[frame, joint])
        turned.append(local if parent < 0 else turned[parent] * local)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = turned[joint].as_matrix(), places[frame, joint]
        posed.append(matrix @ bind[joint])
    points = mesh["POSITION"].astype(float)
    if weights is not None:
        for weight, target in zip(weights, document["meshes"][0]["primitives"][0]["targets"], strict=True):
            points = points + weight * arrays[target["POSITION"]]
    points = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    mixed = np.einsum("vk,vkij->vij", mesh["WEIGHTS_0"] / 255, np.array(posed)[mesh["JOINTS_0"]])
    return np.einsum("vij,vj->vi", mixed, points)[:, :3]


def test_the_skin_follows_the_joints(written, motion):
    """Posed as glTF says, the file's mesh lies where `skinned_vertices` puts it."""
    moved = posed_as_a_viewer_does(written, motion, 5)
    assert np.abs(moved - skinned_vertices(motion)[5]).max() < 1e-5


def test_the_face_moves_morph_targets(tmp_path, motion, reader):
    face = np.random.default_rng(2).random((11, 52), np.float32)
    write_gltf(tmp_path / "a.glb", motion, face)
    document, arrays = reader.read_glb(tmp_path / "a.glb")
    assert document["meshes"][0]["extras"]["targetNames"] == list(FACE_UNITS)
    (channel,) = [c for c in document["animations"][0]["channels"] if c["target"]["path"] == "weights"]
    assert channel["target"]["node"] == 55 and document["nodes"][55]["mesh"] == 0
    weights = arrays[document["animations"][0]["samplers"][channel["sampler"]]["output"]].reshape(9, 52)
    assert np.allclose(weights, face_at(face, motion))  # 30 a second, at the motion's 25
    moved = posed_as_a_viewer_does((None, document, arrays), motion, 5, weights[5])
    assert np.abs(moved - skinned_vertices(motion, face=face)[5]).max() < 1e-5


def test_other_names_of_joints(tmp_path, motion, reader):
    write_gltf(tmp_path / "a.glb", motion, names="mixamo")
    document, _ = reader.read_glb(tmp_path / "a.glb")
    assert [document["nodes"][joint]["name"] for joint in (0, 1, 20, 42)] == [
        "mixamorig:Hips", "mixamorig:LeftUpLeg", "mixamorig:LeftHand", "mixamorig:RightHandIndex3",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="names"):
        write_gltf(tmp_path / "a.glb", motion, names="rigify")


def test_faces_look_outwards(written):
    _, document, arrays = written
    mesh = corners(document, arrays)
    triangles = arrays[document["meshes"][0]["primitives"][0]["indices"]].reshape(-1, 3)
    points = mesh["POSITION"].astype(float)[triangles]
    assert 0.04 < np.linalg.det(points).sum() / 6 < 0.1  # the volume, negative where faces look inwards
    flat = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    normals = mesh["NORMAL"].astype(float)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)
    assert ((flat * normals[triangles].sum(axis=1)).sum(axis=1) > 0).mean() > 0.98
    assert mesh["POSITION"][:, 1].min() == pytest.approx(0, abs=0.01)  # stands on its soles
    assert (mesh["WEIGHTS_0"].sum(axis=1, dtype=int) == 255).all()


def test_neighbouring_rotations_have_one_sign(tmp_path, reader):
    poses = np.zeros((80, 55, 3))
    poses[:, 0, 1] = np.linspace(0, 6 * np.pi, 80) % (2 * np.pi)
    write_gltf(tmp_path / "a.glb", SmplxMotion(np.zeros((80, 3)), poses))
    document, arrays = reader.read_glb(tmp_path / "a.glb")
    rotations = arrays[document["animations"][0]["samplers"][1]["output"]]
    assert (rotations[1:] * rotations[:-1]).sum(axis=-1).min() > 0.99


def test_the_pelvis_moves_wherever_transl_is(tmp_path, reader):
    motion = SmplxMotion(np.ones((2, 3)), np.zeros((2, 55, 3)), pelvis_offset=[0, -0.35, 0])
    write_gltf(tmp_path / "a.glb", motion)
    np.testing.assert_allclose(reader.motion_of_glb(tmp_path / "a.glb").transl, [[1, 0.65, 1]] * 2, atol=1e-6)


def test_other_names_are_refused(tmp_path, motion):
    with pytest.raises(ValueError, match=r"\.glb"):
        write_gltf(tmp_path / "a.gltf", motion)
    assert not list(tmp_path.iterdir())
