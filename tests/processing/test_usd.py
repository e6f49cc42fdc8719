"""Motions as USD, read back by OpenUSD's own library."""

import numpy as np
import pytest

from solami_hf.processing.motion.body import joint_positions
from solami_hf.processing.motion.face import FACE_UNITS
from solami_hf.processing.motion.mesh.body_mesh import skinned_vertices
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion

pytest.importorskip("pxr", reason="pip install usd-core")
from pxr import Usd, UsdGeom, UsdSkel  # noqa: E402


@pytest.fixture
def motion():
    rng = np.random.default_rng(3)
    return SmplxMotion(rng.normal(size=(4, 3)), rng.normal(scale=0.5, size=(4, 55, 3)), fps=25)


@pytest.mark.parametrize("names", ["smplx", "mixamo"])
def test_openusd_reads_our_joints_skin_and_face(tmp_path, motion, names):
    face = np.random.default_rng(4).random((6, 52), np.float32)
    write_motion(tmp_path / "a.usda", motion, face, names)
    stage = Usd.Stage.Open(str(tmp_path / "a.usda"))
    assert (stage.GetTimeCodesPerSecond(), stage.GetEndTimeCode()) == (25, 3)
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    cache, root = UsdSkel.Cache(), UsdSkel.Root(stage.GetPrimAtPath("/Figure"))
    cache.Populate(root, Usd.PrimDefaultPredicate)
    query = cache.GetSkelQuery(UsdSkel.Skeleton(stage.GetPrimAtPath("/Figure/Skeleton")))
    joints = joint_positions(motion)
    for frame in range(4):
        found = np.array(query.ComputeJointSkelTransforms(frame))[:, 3, :3]
        assert np.abs(found - joints[frame]).max() < 1e-4
    weights = np.array(query.GetAnimQuery().ComputeBlendShapeWeights(1))
    assert list(query.GetAnimQuery().GetBlendShapeOrder()) == list(FACE_UNITS)
    np.testing.assert_allclose(weights, face[1] + 0.2 * (face[2] - face[1]), atol=1e-5)
    assert UsdSkel.BakeSkinning(root)  # USD's own skinning, blend shapes included
    baked = UsdGeom.Mesh(stage.GetPrimAtPath("/Figure/Skin")).GetPointsAttr()
    skin = skinned_vertices(motion, face=face)
    for frame in range(4):
        assert np.abs(np.array(baked.Get(frame)) - skin[frame]).max() < 5e-4


def test_other_suffixes_and_names_are_refused(tmp_path, motion):
    from solami_hf.processing.motion.formats.usd import write_usd

    with pytest.raises(ValueError, match="usda"):
        write_usd(tmp_path / "a.usd", motion)
    with pytest.raises(ValueError, match="face"):
        write_usd(tmp_path / "a.usda", motion, np.zeros((3, 51)))
    assert not list(tmp_path.iterdir())
