import numpy as np
import pytest

from solami_hf.processing.motion.smplx_motion import SmplxMotion


def test_params_hold_root_body_and_hands_in_order():
    poses = np.arange(2 * 55 * 3, dtype=np.float32).reshape(2, 55, 3)
    motion = SmplxMotion(np.full((2, 3), 7.0), poses)
    params = motion.to_params()
    assert params.shape == (2, 159) and params.dtype == np.float32
    assert params[0, :3].tolist() == [7, 7, 7]
    assert params[0, 3:6].tolist() == [0, 1, 2]  # root
    assert params[0, 66:69].tolist() == [63, 64, 65]  # joint 21
    assert params[0, 69:72].tolist() == [75, 76, 77]  # joint 25: jaw and eyes are left out
    assert params[1, -1] == poses[1, 54, 2]


def test_params_tell_the_pelvis():
    motion = SmplxMotion(np.full((2, 3), 7.0), np.zeros((2, 55, 3)), pelvis_offset=(0, -0.5, 0.25))
    assert motion.transl[0].tolist() == [7, 7, 7]
    assert motion.pelvis[1].tolist() == [7, 6.5, 7.25] == motion.to_params()[1, :3].tolist()
    assert SmplxMotion.from_params(motion.to_params()).pelvis_offset.tolist() == [0, 0, 0]


def test_params_come_back_with_jaw_and_eyes_at_rest():
    params = np.random.default_rng(0).normal(size=(5, 159)).astype(np.float32)
    motion = SmplxMotion.from_params(params, fps=20)
    assert np.array_equal(motion.to_params(), params)
    assert not motion.poses[:, 22:25].any()
    assert (motion.num_frames, motion.fps, motion.duration) == (5, 20.0, 0.25)


@pytest.mark.parametrize(
    ("transl", "poses", "message"),
    [
        (np.zeros((0, 3)), np.zeros((0, 55, 3)), "0 frames"),
        (np.zeros((4, 2)), np.zeros((4, 55, 3)), r"`transl` has shape \(4, 2\)"),
        (np.zeros((4, 3)), np.zeros((4, 24, 3)), r"`poses` has shape \(4, 24, 3\), expected \(4, 55, 3\)"),
        (np.zeros((4, 3)), np.zeros((5, 55, 3)), r"`poses` has shape \(5, 55, 3\)"),
        (np.full((4, 3), np.nan), np.zeros((4, 55, 3)), r"`transl` holds 12 NaN .* \(0, 0\)"),
        (np.zeros((4, 3)), np.full((4, 55, 3), np.inf), "`poses` holds 660 NaN"),
        (np.full((4, 3), 1e300), np.zeros((4, 55, 3)), "`transl` holds 12 NaN or infinite"),
        (np.full((4, 3), -1e30), np.zeros((4, 55, 3)), r"`transl` holds 1e\+30, expected no more than 1e\+06"),
        (np.zeros((4, 3)), np.full((4, 55, 3), 1e20), r"`poses` holds 1e\+20, expected no more than 10000"),
        ("far", np.zeros((4, 55, 3)), "`transl` is not an array of numbers"),
    ],
)
def test_bad_arrays_are_named(transl, poses, message):
    with pytest.raises(ValueError, match=message):
        SmplxMotion(transl, poses)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"fps": 0}, "`fps` is 0"),
        ({"fps": float("nan")}, "`fps` is nan"),
        ({"fps": "fast"}, "`fps` is 'fast'"),
        ({"fps": 1001}, "`fps` is 1001"),
        ({"gender": "cat"}, "`gender` is 'cat'"),
        ({"betas": [np.nan]}, "`betas` holds 1 NaN"),
        ({"pelvis_offset": (0, 1)}, r"`pelvis_offset` has shape \(2,\), expected \(3,\)"),
        ({"pelvis_offset": (0, np.inf, 0)}, "`pelvis_offset` holds 1 NaN"),
    ],
)
def test_bad_fields_are_named(field, message):
    with pytest.raises(ValueError, match=message):
        SmplxMotion(np.zeros((1, 3)), np.zeros((1, 55, 3)), **field)


def test_params_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"`params` has shape \(3, 165\), expected \(T, 159\)"):
        SmplxMotion.from_params(np.zeros((3, 165)))
