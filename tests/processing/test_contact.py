"""Hands are led around the skin, smoothly, and only where they would go through it."""

import numpy as np

from benchmarks.hands_through_body import ARMS, HANDS, winding
from solami_hf.processing.convert_command import convert_motion
from solami_hf.processing.motion.body import joint_positions
from solami_hf.processing.motion.formats.motion_npz import read_npz, write_npz
from solami_hf.processing.motion.mesh.body_mesh import body_mesh, skinned_vertices
from solami_hf.processing.motion.mesh.contact import hands_off_body
from solami_hf.processing.motion.smplx_motion import SmplxMotion


def hanging(frames: int, degrees: float, swing: float = 0.0) -> SmplxMotion:
    """Both arms hang, `degrees` below the horizontal, 90 along the body; they swing through the thighs."""
    poses, way = np.zeros((frames, 55, 3)), np.sin(np.linspace(0, 2 * np.pi, frames))
    poses[:, 16, 2], poses[:, 17, 2] = -np.radians(degrees + swing * way), np.radians(degrees + swing * way)
    return SmplxMotion(np.zeros((frames, 3)), poses)


def hand_points_inside(motion: SmplxMotion) -> int:
    mesh = body_mesh()
    owner = mesh.joints[np.arange(len(mesh.rest)), mesh.weights.argmax(axis=1)]
    hand = np.flatnonzero(np.isin(owner, HANDS))[3::40]
    skin = skinned_vertices(motion)[-1]
    rest = mesh.faces[~np.isin(owner[mesh.faces], (*HANDS, *ARMS)).any(axis=1)]
    return int((winding(skin[hand], skin[rest]) > 0.5).sum())


def test_hanging_hands_come_out_of_the_thighs():
    motion = hanging(2, 88)
    assert hand_points_inside(motion) > 3
    led = hands_off_body(motion)
    assert hand_points_inside(led) == 0
    moved = np.linalg.norm(joint_positions(led) - joint_positions(motion), axis=-1)[0]
    assert 0.01 < moved[[20, 21]].max() < 0.12
    others = [joint for joint in range(55) if joint not in (*HANDS, *ARMS)]
    assert moved[others].max() == 0
    np.testing.assert_allclose(moved[20], moved[21], atol=5e-3)  # left as right


def test_what_stays_outside_is_left_alone():
    motion = hanging(3, 40)
    np.testing.assert_array_equal(hands_off_body(motion).poses, motion.poses)


def test_arms_that_swing_through_the_body_stay_smooth():
    motion = hanging(60, 78, swing=10)
    speeds = [np.diff(joint_positions(m), axis=0) for m in (motion, hands_off_body(motion))]
    before, after = (np.linalg.norm(np.diff(speed, axis=0), axis=-1).max() for speed in speeds)
    assert after < before + 0.003  # metres a frame, of a frame


def test_the_command_leads_hands_when_asked(tmp_path):
    write_npz(tmp_path / "a.npz", hanging(3, 88))
    for name, clear in (("plain", False), ("clear", True)):
        convert_motion(tmp_path / "a.npz", tmp_path / f"{name}.npz", clear_hands=clear)
    plain, clear = (read_npz(tmp_path / f"{name}.npz").poses for name in ("plain", "clear"))
    assert np.abs(plain[:, 16] - hanging(3, 88).poses[:, 16]).max() < 1e-5
    assert np.abs(clear[:, 16:20] - plain[:, 16:20]).max() == np.abs(clear - plain).max() > 0.01
