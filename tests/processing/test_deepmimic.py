import json

import numpy as np
import pytest

from solami_hf.processing.motion.body import standing_height
from solami_hf.processing.motion.formats.deepmimic import read_deepmimic


def deepmimic(path, frames):
    path.write_text(json.dumps({"Loop": "wrap", "Frames": frames}), encoding="utf-8")
    return path


def standing(duration=1 / 30) -> list[float]:
    """A DeepMimic frame at rest: every quaternion and angle is zero rotation."""
    frame = [duration, 0.0, 0.85, 0.0]
    for size in (4, 4, 4, 4, 1, 4, 4, 1, 4, 1, 4, 4, 1):
        frame += [1.0, 0.0, 0.0, 0.0] if size == 4 else [0.0]
    return frame


def test_rest_hangs_its_arms_down(tmp_path):
    motion = read_deepmimic(deepmimic(tmp_path / "a.txt", [standing()] * 4))
    assert motion.num_frames == 4
    np.testing.assert_allclose(motion.poses[0, 16], [0, 0, -np.pi / 2], atol=1e-6)
    np.testing.assert_allclose(motion.poses[0, 17], [0, 0, np.pi / 2], atol=1e-6)
    rest = np.delete(motion.poses, [16, 17], axis=1)
    np.testing.assert_allclose(rest, 0, atol=1e-6)


def test_stands_on_its_soles(tmp_path):
    frame = standing()
    frame[2] = 0.881  # straight legs
    motion = read_deepmimic(deepmimic(tmp_path / "a.txt", [frame]))
    assert motion.transl[0, 1] == pytest.approx(standing_height(), abs=1e-6)
    assert not motion.pelvis_offset.any()


def test_axes(tmp_path):
    frame = standing()
    frame[1] = 1.0  # one metre ahead
    frame[20] = -1.0  # the right knee bends
    frame[43] = 1.0  # the left elbow bends
    motion = read_deepmimic(deepmimic(tmp_path / "a.txt", [frame]))
    np.testing.assert_allclose(motion.transl[0, [0, 2]], [0, 1], atol=1e-6)
    np.testing.assert_allclose(motion.poses[0, 5], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(motion.poses[0, 18], [0, -1, 0], atol=1e-6)


def test_rate_is_the_middle_duration(tmp_path):
    path = deepmimic(tmp_path / "a.txt", [standing(0.1)] * 10 + [standing(0.0)])
    assert read_deepmimic(path).fps == pytest.approx(10)
    assert read_deepmimic(path).num_frames == 11
    assert read_deepmimic(path, 30).num_frames == 31


def test_uneven_durations_are_kept(tmp_path):
    frames = [standing(0.1), standing(0.3), standing(0.1)]
    for number, frame in enumerate(frames):
        frame[1] = float(number)
    # +x ahead becomes +z: a metre in the first 0.1 s, another in the next 0.3 s
    motion = read_deepmimic(deepmimic(tmp_path / "a.txt", frames), 10)
    np.testing.assert_allclose(motion.transl[:, 2], [0, 1, 4 / 3, 5 / 3, 2], atol=1e-6)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "0 frames"),
        ([[0.0] * 43], "frame 0 has 43 values, expected 44 numbers"),
        ([standing(), 7], "frame 1 has int, expected 44 numbers"),
        ([standing()[:4] + [0.0] * 40], "quaternion at column 4 is not normalised"),
        ([standing()[:4] + [9.0] * 40], "quaternion at column 4 is not normalised"),
        ([standing(0.0), standing()], "duration is not positive"),
        ([standing()[:43] + [None]], "frame 0 holds None, expected finite numbers"),
        ([standing()[:43] + [True]], "frame 0 holds True, expected finite numbers"),
    ],
)
def test_bad_frames_are_named(tmp_path, frames, message):
    with pytest.raises(ValueError, match=message):
        read_deepmimic(deepmimic(tmp_path / "bad.txt", frames))
