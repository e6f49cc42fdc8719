import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.modeling.motion_vq import free_body as free_body_module
from solami_hf.processing.motion.body import (
    SMPLX_JOINT_NAMES,
    SMPLX_PARENTS,
    free_body,
    joint_positions,
    load_body,
    rest_joints,
    standing_height,
)
from solami_hf.processing.motion.smplx_motion import SmplxMotion


def joint(name: str) -> int:
    return SMPLX_JOINT_NAMES.index(name)


def posed(**rotations) -> np.ndarray:
    """Positions (55, 3) of a body with some joints turned, the pelvis at (0, 1, 0)."""
    poses = np.zeros((1, 55, 3))
    for name, vector in rotations.items():
        poses[0, joint(name)] = vector
    return joint_positions(SmplxMotion(transl=[[0.0, 1.0, 0.0]], poses=poses))[0]


def test_joint_order_is_smplx():
    expected = {0: "pelvis", 1: "left_hip", 9: "spine3", 12: "neck", 15: "head", 20: "left_wrist", 22: "jaw"}
    expected |= {25: "left_index1", 31: "left_pinky1", 34: "left_ring1", 37: "left_thumb1", 40: "right_index1"}
    assert {i: SMPLX_JOINT_NAMES[i] for i in expected} == expected
    assert len(SMPLX_JOINT_NAMES) == len(SMPLX_PARENTS) == 55
    assert SMPLX_PARENTS[:25] == (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15)
    assert SMPLX_PARENTS[25:31] == (20, 25, 26, 20, 28, 29) and SMPLX_PARENTS[40:43] == (21, 40, 41)


def test_the_packaged_numbers_name_the_joints_of_the_code():
    lines = Path(free_body_module.__file__).read_text(encoding="utf-8").splitlines()
    assert tuple(line.split("# ")[1] for line in lines if line.startswith("    (")) == SMPLX_JOINT_NAMES
    assert free_body().rest.shape == (55, 3)


def test_rest_is_a_t_pose_of_human_size():
    rest = rest_joints()
    assert np.array_equal(rest[0], [0, 0, 0])
    left = [joint(name) for name in ("left_shoulder", "left_elbow", "left_wrist")]
    assert np.ptp(rest[left, 1:], axis=0) == pytest.approx([0, 0], abs=1e-5) and (np.diff(rest[left, 0]) > 0.2).all()
    mirrored = [SMPLX_JOINT_NAMES.index(n.replace("left", "right")) for n in SMPLX_JOINT_NAMES if n.startswith("left")]
    own = [i for i, n in enumerate(SMPLX_JOINT_NAMES) if n.startswith("left")]
    np.testing.assert_allclose(rest[own] * [-1, 1, 1], rest[mirrored], atol=1e-4)
    assert rest[joint("left_foot"), 2] > rest[joint("left_ankle"), 2] + 0.1  # facing +z
    assert standing_height() == pytest.approx(1.005, abs=0.001)
    assert -rest[:, 1].min() < standing_height() < -rest[:, 1].min() + 0.04


def test_identity_pose_is_the_rest_at_transl():
    np.testing.assert_allclose(posed(), rest_joints() + [0, 1, 0], atol=1e-6)


def test_one_joint_moves_what_hangs_on_it():
    still, moved = posed(), posed(left_elbow=(0, -np.pi / 2, 0))  # the forearm folds forward
    length = still[joint("left_wrist"), 0] - still[joint("left_elbow"), 0]
    np.testing.assert_allclose(moved[joint("left_wrist")] - moved[joint("left_elbow")], [0, 0, length], atol=1e-6)
    below = [joint("left_wrist"), *range(25, 40)]
    others = [i for i in range(55) if i not in below]
    np.testing.assert_allclose(moved[others], still[others], atol=1e-6)
    assert (np.linalg.norm(moved[below] - still[below], axis=1) > 0.1).all()


def test_root_turns_everything_about_the_pelvis():
    turned = posed(pelvis=(0, np.pi / 2, 0))  # +z to +x
    x, y, z = rest_joints().T
    np.testing.assert_allclose(turned, np.stack([z, y + 1, -x], axis=1), atol=1e-6)


def test_params_and_motion_agree_in_numpy_and_torch_and_batches():
    motion = SmplxMotion(
        transl=np.random.default_rng(0).normal(size=(7, 3)),
        poses=np.random.default_rng(1).normal(0, 0.5, (7, 55, 3)) * (np.arange(55) % 25 < 22)[:, None],
    )
    motion.poses[:, 22:25] = 0
    expected, params = joint_positions(motion), motion.to_params()
    assert isinstance(expected, np.ndarray) and expected.shape == (7, 55, 3) and expected.dtype == np.float32
    np.testing.assert_allclose(joint_positions(params), expected, atol=1e-6)
    batch = torch.from_numpy(params).double()[None].repeat(2, 3, 1).requires_grad_()
    result = joint_positions(batch)
    assert result.shape == (2, 21, 55, 3) and result.dtype == torch.float64
    np.testing.assert_allclose(result[1, 7:14].detach().numpy(), expected, atol=1e-5)
    result.sum().backward()
    assert torch.isfinite(batch.grad).all()


def test_bone_lengths_never_change():
    positions = joint_positions(np.random.default_rng(2).normal(size=(5, 159)))
    parents = list(SMPLX_PARENTS[1:])
    lengths = np.linalg.norm(positions[:, 1:] - positions[:, parents], axis=-1)
    rest = rest_joints()
    np.testing.assert_allclose(
        lengths, np.linalg.norm(rest[1:] - rest[parents], axis=-1)[None].repeat(5, 0), atol=1e-6
    )


def test_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 165\), expected an SmplxMotion or parameters \(..., 159\)"):
        joint_positions(np.zeros((4, 165)))


def test_the_pelvis_is_where_the_motion_says():
    poses = np.random.default_rng(3).normal(size=(2, 55, 3))
    motion = SmplxMotion(np.ones((2, 3)), poses, pelvis_offset=(0.5, -0.25, 0.125))
    there = SmplxMotion(np.ones((2, 3)) + [0.5, -0.25, 0.125], poses)
    assert np.array_equal(joint_positions(motion), joint_positions(there))


def test_parameters_with_the_face_move_it():
    poses = np.random.default_rng(4).normal(size=(2, 55, 3)).astype(np.float32)
    motion = SmplxMotion(np.zeros((2, 3)), poses)
    params = np.concatenate([motion.transl, poses.reshape(2, 165)], axis=1)
    np.testing.assert_allclose(joint_positions(params), joint_positions(motion), atol=1e-6)


def test_free_body_is_the_default():
    motion = SmplxMotion(np.zeros((1, 3)), np.random.default_rng(5).normal(size=(1, 55, 3)))
    assert np.array_equal(joint_positions(motion), joint_positions(motion, free_body()))
    assert np.array_equal(free_body().rest, rest_joints()) and free_body().sole == -standing_height()


class _RunsCode:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def model_arrays(shapes: int = 20, vertices: int = 60) -> dict[str, np.ndarray]:
    """Random arrays with the names and shapes of an SMPL-X model file, of few vertices."""
    rng = np.random.default_rng(shapes)
    regressor = rng.random((55, vertices))
    return {
        "v_template": rng.normal(size=(vertices, 3)),
        "shapedirs": rng.normal(0, 0.1, (vertices, 3, shapes)),
        "posedirs": rng.normal(0, 0.01, (vertices, 3, 486)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "kintree_table": np.array([(2**32 - 1, *SMPLX_PARENTS[1:]), range(55)], dtype=np.uint32),
        "weights": np.full((vertices, 55), 1 / 55),
        "f": np.zeros((4, 3), dtype=np.uint32),
        **{f"hands_components{side}": np.eye(45) for side in "lr"},
        **{f"hands_mean{side}": rng.normal(size=45) for side in "lr"},
        "lmk_faces_idx": np.zeros(51, dtype=np.int64),
        "lmk_bary_coords": np.full((51, 3), 1 / 3),
    }


def object_array(value) -> np.ndarray:
    array = np.empty((), dtype=object)
    array[()] = value
    return array


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("shapes", "count"), [(20, 10), (400, 16)])
def test_joints_equal_the_smplx_package(tmp_path, monkeypatch, shapes, count):
    """On the package's whole model with its skinning, in any pose; our file also holds pickles, which stay shut."""
    import smplx
    import torch
    from smplx.vertex_ids import vertex_ids

    arrays = model_arrays(shapes)
    np.savez(tmp_path / "plain.npz", **arrays)
    hidden = {"part2num": object_array({"head": 1}), "joint2num": object_array(_RunsCode(tmp_path / "ran"))}
    (tmp_path / "smplx").mkdir()
    np.savez(tmp_path / "smplx" / "SMPLX_FEMALE.npz", **arrays, **hidden)
    monkeypatch.setitem(vertex_ids, "smplx", dict.fromkeys(vertex_ids["smplx"], 0))  # the key points of 10475 vertices
    frames, rng = 5, np.random.default_rng(1)
    model = smplx.SMPLX(
        str(tmp_path / "plain.npz"), num_betas=count, use_pca=False, flat_hand_mean=True, batch_size=frames
    )
    betas = rng.normal(size=count)
    motion = SmplxMotion(rng.normal(size=(frames, 3)), rng.normal(size=(frames, 55, 3)), betas=betas)
    flat = torch.from_numpy(motion.poses.reshape(frames, 165))
    spans = {"global_orient": (0, 3), "body_pose": (3, 66), "jaw_pose": (66, 69), "leye_pose": (69, 72)}
    spans |= {"reye_pose": (72, 75), "left_hand_pose": (75, 120), "right_hand_pose": (120, 165)}
    poses = {name: flat[:, start:end] for name, (start, end) in spans.items()}
    shape = torch.from_numpy(betas).float().expand(frames, -1)
    expected = model(betas=shape, transl=torch.from_numpy(motion.transl), **poses).joints[:, :55].detach().numpy()

    body = load_body(tmp_path, gender="female", betas=betas)
    assert not (tmp_path / "ran").exists()
    motion.pelvis_offset = body.pelvis.astype(np.float32)
    np.testing.assert_allclose(joint_positions(motion, body), expected, atol=1e-5)
    np.testing.assert_allclose(joint_positions(motion.to_params(), body), expected, atol=1e-5)


def test_a_model_body_stands_on_its_lowest_vertex(tmp_path):
    arrays = model_arrays()
    np.savez(tmp_path / "model.npz", **arrays)
    body, wide = load_body(tmp_path / "model.npz"), load_body(tmp_path / "model.npz", betas=[[2.0, 0, 0]])
    pelvis = arrays["J_regressor"][0] @ arrays["v_template"]
    np.testing.assert_allclose(body.pelvis, pelvis, atol=1e-12)
    assert np.array_equal(body.rest[0], [0, 0, 0])
    assert body.sole == pytest.approx(arrays["v_template"][:, 1].min() - pelvis[1])
    moved = arrays["J_regressor"] @ (arrays["v_template"] + 2 * arrays["shapedirs"][..., 0])
    np.testing.assert_allclose(wide.rest + wide.pelvis, moved, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"J_regressor": None}, "lacks J_regressor"),
        ({"J_regressor": np.ones((52, 60))}, r"`J_regressor` is float64 of shape \(52, 60\), expected .* \(55, 60\)"),
        ({"v_template": np.full((60, 3), np.nan)}, "`v_template` .* expected finite floats"),
        ({"shapedirs": object_array({})}, "Object arrays cannot be loaded"),
        ({"kintree_table": np.zeros((2, 55), dtype=np.int64)}, "not the tree of SMPL-X"),
        ({"kintree_table": np.zeros((2, 24), dtype=np.int64)}, "not the tree of SMPL-X"),
    ],
)
def test_what_is_no_smplx_model_is_named(tmp_path, change, message):
    arrays = {name: array for name, array in (model_arrays() | change).items() if array is not None}
    np.savez(tmp_path / "model.npz", **arrays)
    with pytest.raises(ValueError, match=f"model.npz gives no SMPL-X body: .*{message}"):
        load_body(tmp_path / "model.npz")


def test_files_and_arguments_that_cannot_be_used_are_named(tmp_path):
    path = tmp_path / "SMPLX_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps({"v_template": _RunsCode(tmp_path / "ran")}))
    with pytest.raises(ValueError, match="A pickle can run code, so it is not opened: take the .npz"):
        load_body(path)
    with pytest.raises(FileNotFoundError, match="holds no SMPLX_MALE.npz"):
        load_body(tmp_path, gender="male")
    with pytest.raises(FileNotFoundError, match="no SMPL-X model file at"):
        load_body(tmp_path / "none.npz")
    path.rename(tmp_path / "model.npz")
    with pytest.raises(ValueError, match="no complete npz archive"):
        load_body(tmp_path / "model.npz")
    np.savez(tmp_path / "good.npz", **model_arrays())
    with pytest.raises(ValueError, match="`betas` has 12 coefficients, but the model has 10"):
        load_body(tmp_path / "good.npz", betas=np.ones(12))
    with pytest.raises(ValueError, match="`gender` is 'x'"):
        load_body(tmp_path / "good.npz", gender="x")
    assert not (tmp_path / "ran").exists()
