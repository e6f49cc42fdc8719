import numpy as np
import pytest

from solami_hf.demo.corpus.animation import animate
from solami_hf.demo.corpus.gestures import GESTURES, make_gesture
from solami_hf.demo.corpus.posing import HAND_SHAPES, HANGING, Arm, Pose, arm_rotations, hand_rotations
from solami_hf.processing.motion.body import SMPLX_JOINT_NAMES, joint_positions, rest_joints
from solami_hf.processing.motion.features import canonicalize
from solami_hf.processing.motion.smplx_motion import SmplxMotion


def at(positions: np.ndarray, name: str) -> np.ndarray:
    return positions[..., SMPLX_JOINT_NAMES.index(name), :]


def gesture(action: str, side: str = "right", seed: int = 0) -> np.ndarray:
    """Joint positions (T, 55, 3) of a gesture that faces +z at the origin."""
    import torch

    motion, _ = make_gesture(action, np.random.default_rng(seed), side=side)
    return joint_positions(canonicalize(torch.from_numpy(motion.to_params()))).numpy()


def test_all_sixteen_are_there():
    assert list(GESTURES) == [
        *("wave", "bow", "nod", "shake_head", "clap", "point", "shrug", "thumbs_up", "beckon", "raise_hands"),
        *("cross_arms", "offer_hand", "salute", "hands_on_hips", "scratch_head", "hand_on_heart"),
    ]


@pytest.mark.parametrize("action", GESTURES)
def test_clip_is_sound(action):
    motion, details = make_gesture(action, np.random.default_rng(5))
    assert 1.6 <= motion.duration <= 3.1 and motion.fps == 30 and details["action"] == action
    positions = joint_positions(motion)
    ankles = positions[:, [7, 8]]
    assert np.abs(ankles - ankles[0]).max() < 0.005  # planted
    assert 0.0 < positions[..., 1].min() < 0.05  # on the floor, not through it
    assert np.abs(positions[0, 0, [0, 2]]).max() <= 2.1
    assert np.linalg.norm(np.diff(positions, axis=0), axis=-1).max() * 30 < 12  # metres a second: no jumps


@pytest.mark.parametrize("side", ["left", "right"])
def test_hand_goes_where_the_gesture_needs_it(side):
    sign, middle = (1 if side == "left" else -1), slice(20, -20)
    wave = gesture("wave", side)
    assert at(wave, f"{side}_wrist")[middle, 1].max() > at(wave, "neck")[:, 1].max()
    point = gesture("point", side)
    assert (at(point, f"{side}_index3") - at(point, f"{side}_shoulder"))[:, 2].max() > 0.55
    heart = gesture("hand_on_heart", side)
    assert np.abs(at(heart, f"{side}_wrist")[len(heart) // 2, 0]) < 0.12
    salute = gesture("salute", side)
    tip = at(salute, f"{side}_middle3")[len(salute) // 2] - at(salute, "head")[len(salute) // 2]
    assert np.linalg.norm(tip) < 0.2 and 0 < tip[0] * sign


def test_the_other_hand_stays_down():
    wave = gesture("wave", "right")
    assert at(wave, "left_wrist")[:, 1].max() < at(wave, "spine3")[:, 1].min()


def test_two_handed_gestures_are_told_by_their_shape():
    clap = gesture("clap")
    apart = np.linalg.norm(at(clap, "left_wrist") - at(clap, "right_wrist"), axis=-1)
    assert apart.min() < 0.12 and np.sum((apart[1:-1] < apart[:-2]) & (apart[1:-1] < apart[2:])) >= 3
    high = gesture("raise_hands")
    assert min(at(high, f"{side}_wrist")[:, 1].max() for side in ("left", "right")) > at(high, "head")[:, 1].max()
    crossed = gesture("cross_arms")[40]
    assert at(crossed, "left_wrist")[0] < 0 < at(crossed, "right_wrist")[0]
    bow, nod = gesture("bow"), gesture("nod")
    assert np.ptp(at(bow, "neck")[:, 1]) > 0.07 > 0.02 > np.ptp(at(nod, "neck")[:, 1])


def test_fingers_close_towards_the_palm():
    for side in ("left", "right"):
        poses = np.zeros((1, 55, 3))
        first = 25 if side == "left" else 40
        poses[0, first : first + 15] = hand_rotations("fist", side)
        fist = joint_positions(SmplxMotion(np.zeros((1, 3)), poses))[0]
        for finger in ("index", "middle", "ring", "pinky"):  # the palm of the rest pose looks down
            assert at(fist, f"{side}_{finger}3")[1] < at(rest_joints(), f"{side}_{finger}3")[1] - 0.015
    left, right = hand_rotations("point", "left"), hand_rotations("point", "right")
    np.testing.assert_allclose(left * [1, -1, -1], right, atol=1e-12)
    assert np.abs(left[:3]).max() < 0.1 < 1.0 < np.abs(left[3:6]).max()  # the index finger alone is straight


def test_arm_reaches_its_target():
    arm = Arm((0.3, 0.5, 0.3), elbow=(1, -1, 0), fingers=(0, 1, 0), palm=(0, 0, 1))
    for side, sign in (("left", 1), ("right", -1)):
        poses = np.zeros((1, 55, 3))
        for joint, rotation in arm_rotations(arm, side).items():
            poses[0, joint] = rotation.as_rotvec()
        placed = joint_positions(SmplxMotion(np.zeros((1, 3)), poses))[0]
        np.testing.assert_allclose(at(placed, f"{side}_wrist"), [0.3 * sign, 0.5, 0.3], atol=1e-5)
        fingers = at(placed, f"{side}_middle1") - at(placed, f"{side}_wrist")
        np.testing.assert_allclose(fingers / np.linalg.norm(fingers), [0, 1, 0], atol=1e-3)
        assert at(placed, f"{side}_thumb2")[0] * sign < 0.3  # palm forward, so the thumb points inwards


def test_clips_differ_and_repeat():
    first, _ = make_gesture("wave", np.random.default_rng(1))
    again, _ = make_gesture("wave", np.random.default_rng(1))
    other, _ = make_gesture("wave", np.random.default_rng(2))
    assert np.array_equal(first.poses, again.poses) and np.array_equal(first.transl, again.transl)
    assert first.num_frames != other.num_frames or not np.allclose(first.poses, other.poses, atol=0.05)


def test_quick_is_shorter_than_slow():
    frames = [make_gesture("nod", np.random.default_rng(0), speed=speed)[0].num_frames for speed in (0.8, 1.2)]
    assert frames[0] > frames[1] + 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": "fly"}, "`action` is 'fly'"),
        ({"action": "wave", "side": "up"}, "`side` is 'up'"),
        ({"action": "wave", "speed": 0.0}, "`speed` is 0.0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_gesture(rng=np.random.default_rng(0), **arguments)


def test_keys_must_increase():
    with pytest.raises(ValueError, match="expected at least two, increasing"):
        animate([(0.0, Pose()), (0.0, Pose())], np.random.default_rng(0))
    assert HANGING.shape in HAND_SHAPES
