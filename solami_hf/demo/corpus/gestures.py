"""Sixteen social gestures, authored as key poses with fingers and varied in side, speed, size, start and noise.

motion, details = make_gesture("wave", np.random.default_rng(0))
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ...processing.motion.smplx_motion import SmplxMotion
from .animation import Keys, animate, place
from .posing import HANGING, Arm, Pose, Vector

MIN_SECONDS, MAX_SECONDS = 1.6, 3.0
_OTHER = {"left": "right", "right": "left"}
_RAISED = Arm((0.25, 0.06, 0.27), (0.7, -0.5, -0.7), fingers=(-0.2, 0.1, 1.0), palm=(-0.8, -0.5, 0.0))


@dataclass
class Style:
    """Variation of a clip: side, speed and size factors, start pose, and the generator for the rest."""

    side: str
    speed: float
    size: float
    start: Pose
    rng: np.random.Generator

    def near(self, place: Vector, metres: float = 0.025) -> Vector:
        """`place` moved a little, so that no two clips reach the same point."""
        return tuple(np.add(place, self.rng.normal(0, metres / 2, 3)))

    def degrees(self, mean: float, spread: float = 0.12) -> float:
        """`mean` scaled by the size of the gesture and a little chance."""
        return mean * self.size * self.rng.uniform(1 - spread, 1 + spread)

    def arms(self, active: Arm, other: Arm | None = None, **changes) -> Pose:
        """The start pose with the active arm (and the other one, if given) and further fields changed."""
        arms = {self.side: active, _OTHER[self.side]: other or self.start.arms[_OTHER[self.side]]}
        return replace(self.start, arms=arms, **changes)

    def both(self, arm: Arm, **changes) -> Pose:
        """The start pose with both arms alike."""
        return replace(self.start, arms={"left": arm, "right": arm}, **changes)

    def towards(self, degrees: float) -> float:
        """A turn or lean towards the active side, in the signs of `Pose` (left is positive)."""
        return degrees if self.side == "left" else -degrees


def _plus(base: Vector, *change: float) -> Vector:
    return tuple(float(a + b) for a, b in zip(base, change, strict=True))


def _turned(pose: Pose, head: Vector = (0, 0, 0), torso: Vector = (0, 0, 0)) -> Pose:
    return replace(pose, head=_plus(pose.head, *head), torso=_plus(pose.torso, *torso))


def _hold(rise: float, pose: Pose, hold: float, style: Style) -> Keys:
    """Start, the pose reached after `rise` seconds, held, and back."""
    return [(0, style.start), (rise, pose), (rise + hold, pose), (rise * 1.9 + hold, style.start)]


def wave(style: Style) -> Keys:
    """The hand beside the head swings from side to side."""
    wide = 0.13 * style.size
    centre = style.near((0.37, 0.64, 0.16), 0.04)
    keys: Keys = [(0, style.start)]
    for i in range(int(style.rng.integers(4, 6))):
        swing = wide if i % 2 == 0 else -wide
        arm = Arm(_plus(centre, swing, -abs(swing) * 0.15, 0), (0.7, -1.0, -0.1), (swing * 4, 1, 0.1), shape="spread")
        keys.append((0.5 + 0.24 * i, _turned(style.arms(arm), head=(-2, 0, style.towards(3)))))
    return [*keys, (keys[-1][0] + 0.5, style.start)]


def bow(style: Style) -> Keys:
    """The upper body bends deep from the hips, arms at the sides."""
    angle = style.degrees(52)
    hang = np.radians(0.8 * angle)  # the arms go on hanging while the chest tilts
    along = (0.06, -np.cos(hang), np.sin(hang))
    wrist = style.near((0.21, 0.376 - 0.485 * np.cos(hang), 0.02 + 0.485 * np.sin(hang)))
    arm = replace(HANGING, wrist=wrist, elbow=(0.5, -np.sin(hang), -np.cos(hang)), fingers=along, shape="flat")
    low = replace(
        style.start,
        torso=(angle * 0.62, 0, 0),
        head=(angle * 0.3, 0, 0),
        tilt=angle * 0.38,
        hips=(0, -0.03, -0.10 * style.size),
        arms={"left": arm, "right": arm},
    )
    return _hold(0.75, low, 0.45, style)


def nod(style: Style) -> Keys:
    """The head goes down and up three times, the body stays."""
    keys: Keys = [(0, style.start), (0.25, _turned(style.start, head=(-8, 0, 0)))]
    for _ in range(3):
        down, up = style.degrees(31), style.degrees(9)
        keys.append((keys[-1][0] + 0.26, _turned(style.start, head=(down, 0, 0), torso=(2, 0, 0))))
        keys.append((keys[-1][0] + 0.25, _turned(style.start, head=(-up, 0, 0))))
    return [*keys, (keys[-1][0] + 0.3, style.start)]


def shake_head(style: Style) -> Keys:
    """The head turns left and right, the body stays."""
    sign = 1 if style.side == "left" else -1
    keys: Keys = [(0, style.start)]
    for i in range(5):
        keys.append((0.3 + 0.3 * i, _turned(style.start, head=(4, sign * (-1) ** i * style.degrees(40), 0))))
    return [*keys, (keys[-1][0] + 0.32, style.start)]


def clap(style: Style) -> Keys:
    """Both flat hands meet before the chest several times."""
    height, front = 0.27 + style.rng.normal(0, 0.02), 0.33 + style.rng.normal(0, 0.015)
    open_ = Arm(
        (0.05 + 0.13 * style.size, height, front), (0.8, -0.7, -0.3), (-0.25, 0.5, 0.8), (-1, 0, 0), shape="flat"
    )
    shut = replace(open_, wrist=(0.035, height + 0.01, front), fingers=(-0.03, 0.55, 0.8))
    keys: Keys = [(0, style.start), (0.45, style.both(open_))]
    for _ in range(int(style.rng.integers(4, 6))):
        keys.append((keys[-1][0] + 0.13, style.both(shut)))
        keys.append((keys[-1][0] + 0.16, style.both(open_)))
    return [*keys, (keys[-1][0] + 0.45, style.start)]


def point(style: Style) -> Keys:
    """The arm stretches forward at shoulder height, the index finger out."""
    target = style.near((0.24, 0.36, 0.50), 0.05)
    arm = Arm(target, (0.8, -0.6, 0), _plus(target, -0.18, -0.33, 0), (-0.35, -1, 0), lift=3, shape="point")
    ready = replace(arm, wrist=(0.26, 0.24, 0.3))
    pose = _turned(style.arms(arm), torso=(4, style.towards(-8), 0), head=(2, style.towards(4), 0))
    return [(0, style.start), (0.4, style.arms(ready)), (0.68, pose), (1.55, pose), (2.15, style.start)]


def shrug(style: Style) -> Keys:
    """The shoulders rise, the palms turn up and out, the head leans."""
    arm = Arm(style.near((0.42, 0.10, 0.20)), (0.2, -1, -0.5), (1, 0.12, 0.6), (0, 1, 0.15), style.degrees(24), "flat")
    high = _turned(style.both(arm), head=(-3, 0, style.towards(style.degrees(13))))
    return _hold(0.5, high, 0.5, style)


def thumbs_up(style: Style) -> Keys:
    """A fist before the chest with the thumb up, pushed forward once."""
    spot = style.near((0.17, 0.25, 0.33), 0.04)
    arm = Arm(spot, (0.7, -0.8, -0.3), (-0.25, 0.1, 1), (-1, 0.05, -0.2), shape="thumb")
    push = replace(arm, wrist=_plus(spot, 0, 0.03, 0.08 * style.size))
    back = _turned(style.arms(push), head=(8, 0, 0))
    return [(0, style.start), (0.55, style.arms(arm)), (0.8, back), (1.5, style.arms(push)), (2.05, style.start)]


def beckon(style: Style) -> Keys:
    """The raised forearm, palm towards oneself, pulls hand and fingers in again and again."""
    spot = style.near((0.24, 0.28, 0.40), 0.03)
    out = Arm(spot, (0.5, -1, -0.2), (-0.05, 0.45, 1), (-0.2, 1, -0.35), shape="flat")
    pull = 0.09 * style.size
    in_ = Arm(
        _plus(spot, -0.04, 0.10, -pull - 0.06), (0.5, -1, -0.2), (-0.25, 1.0, -0.45), (-0.1, -0.4, -1), shape="cupped"
    )
    keys: Keys = [(0, style.start), (0.45, style.arms(out))]
    for _ in range(3):
        keys += [(keys[-1][0] + 0.28, style.arms(in_)), (keys[-1][0] + 0.52, style.arms(out))]
    return [*keys[:-1], (keys[-1][0] + 0.32, style.start)]


def raise_hands(style: Style) -> Keys:
    """Both arms go straight up over the head, hands spread."""
    spot = style.near((0.30, 0.80 + 0.04 * style.size, 0.08), 0.03)
    arm = Arm(spot, (1, -0.1, 0.0), (0.1, 1, 0.05), (-0.1, 0, 1), lift=18, shape="spread")
    way = Arm((0.45, 0.42, 0.35), (1, -0.4, -0.2), (0.2, 1, 0.4), lift=8, shape="flat")
    high = _turned(style.both(arm), head=(-14, 0, 0), torso=(-4, 0, 0))
    return [(0, style.start), (0.42, style.both(way)), (0.85, high), (1.5, high), (2.25, style.start)]


def cross_arms(style: Style) -> Keys:
    """The forearms fold over each other before the chest."""
    over = Arm(style.near((-0.13, 0.20, 0.24), 0.015), (1, -0.55, 0.15), (-1, 0.12, -0.2), (0.1, -0.35, -1))
    under = Arm(style.near((-0.11, 0.13, 0.19), 0.015), (1, -0.55, 0.15), (-1, 0.35, -0.1), (0.1, 0.2, -1))
    way = Arm((0.16, 0.12, 0.34), (1, -0.6, -0.1), (-1, 0.1, 0.3), (0, -0.3, -1))
    pose = _turned(style.arms(over, under), head=(-3, 0, 0), torso=(-3, 0, 0))
    return [(0, style.start), (0.38, style.both(way)), (0.78, pose), (1.75, pose), (2.4, style.start)]


def offer_hand(style: Style) -> Keys:
    """The open hand comes forward at belly height, thumb up, for a handshake, with a little shake."""
    spot = style.near((0.12, 0.02, 0.43), 0.035)
    arm = Arm(spot, (0.4, -0.8, -0.6), (-0.05, -0.05, 1), (-1, 0.15, 0), shape="flat")
    low, high = replace(arm, wrist=_plus(spot, 0, -0.045, 0)), replace(arm, wrist=_plus(spot, 0, 0.045, 0))
    lean = {"torso": (11, style.towards(-9), 0), "head": (-4, style.towards(7), 0)}
    keys: Keys = [(0, style.start), (0.7, _turned(style.arms(arm), **lean))]
    for i in range(4):
        keys.append((keys[-1][0] + 0.18, _turned(style.arms(low if i % 2 else high), **lean)))
    return [*keys, (keys[-1][0] + 0.6, style.start)]


def salute(style: Style) -> Keys:
    """The flat hand snaps to the brow, elbow out, back straight."""
    spot = style.near((0.20, 0.575, 0.15), 0.012)
    arm = Arm(spot, (1, -0.35, 0.05), (-0.75, 0.62, -0.12), (-0.3, -0.55, 0.75), lift=6, shape="flat")
    rest = replace(HANGING, wrist=(0.22, -0.12, 0.02), shape="flat")
    pose = _turned(style.arms(arm, rest), torso=(-3, 0, 0), head=(-3, 0, 0))
    return _hold(0.52, pose, style.rng.uniform(0.75, 0.95), style)


def hands_on_hips(style: Style) -> Keys:
    """Both hands come to rest on the hips, elbows out."""
    hips = style.near((0.205, -0.005, 0.075), 0.012)
    arm = Arm(hips, (1, 0.1, -0.45), (-0.65, -0.35, 0.65), (-0.45, -0.2, -0.8), shape="cupped")
    way = Arm((0.36, 0.02, 0.16), (1, 0, -0.5), (-0.3, -0.8, 0.4), (-1, 0, -0.1))
    pose = _turned(style.both(arm), torso=(-3, 0, 0), head=(-3, style.towards(6), 0))
    return [(0, style.start), (0.35, style.both(way)), (0.68, pose), (1.65, pose), (2.2, style.start)]


def scratch_head(style: Style) -> Keys:
    """The fingers go to the side of the head and rub up and down, the head tilts."""
    spot = style.near((0.19, 0.66, 0.03), 0.012)
    arm = Arm(spot, (1, -0.15, 0.45), (-0.7, 0.55, -0.15), (-0.6, -0.75, -0.1), lift=10, shape="cupped")
    rub = 0.035 * style.size
    lean = {"head": (10, 0, style.towards(-9)), "torso": (2, 0, 0)}
    keys: Keys = [(0, style.start), (0.55, _turned(style.arms(arm), **lean))]
    for i in range(5):
        moved = replace(
            arm, wrist=_plus(spot, 0.01, -rub if i % 2 else rub, rub), shape="relaxed" if i % 2 else "cupped"
        )
        keys.append((keys[-1][0] + 0.18, _turned(style.arms(moved), **lean)))
    return [*keys, (keys[-1][0] + 0.55, style.start)]


def hand_on_heart(style: Style) -> Keys:
    """The flat palm is laid on the chest, the head bows a little."""
    heart = style.near((-0.015, 0.27, 0.165), 0.012)
    arm = Arm(heart, (0.9, -0.75, 0.1), (-0.95, 0.32, -0.1), (0, 0, -1), shape="flat")
    way = replace(arm, wrist=(0.14, 0.15, 0.32))
    pose = _turned(style.arms(arm), head=(style.degrees(13), 0, style.towards(-4)), torso=(4, 0, 0))
    return [(0, style.start), (0.4, style.arms(way)), (0.75, pose), (1.7, pose), (2.3, style.start)]


GESTURES: dict[str, Callable[[Style], Keys]] = {
    action.__name__: action
    for action in (
        *(wave, bow, nod, shake_head, clap, point, shrug, thumbs_up, beckon, raise_hands, cross_arms),
        *(offer_hand, salute, hands_on_hips, scratch_head, hand_on_heart),
    )
}
ONE_SIDED = {"wave", "point", "thumbs_up", "beckon", "offer_hand", "salute", "scratch_head", "hand_on_heart"}
"""Gestures made with one hand, whose side a caption may name."""


def start_pose(rng: np.random.Generator) -> Pose:
    """Arms hanging or hands a little raised, the weight on one leg or both, the knees straight or slightly bent."""
    arm = HANGING if rng.random() < 0.65 else _RAISED
    arms = {side: replace(arm, wrist=tuple(np.add(arm.wrist, rng.normal(0, 0.015, 3)))) for side in ("left", "right")}
    shift = rng.choice([-1.0, 0.0, 1.0]) * rng.uniform(0.02, 0.045)
    bend = -rng.uniform(0.0, 0.035) - abs(shift) * 0.15
    head = tuple(rng.normal(0, 2.0, 3))
    torso = (rng.normal(1, 1.5), rng.normal(0, 2), -shift * 60)
    return Pose(torso, head, (shift, bend, 0.0), arms=arms)


def make_gesture(
    action: str, rng: np.random.Generator, side: str | None = None, speed: float | None = None
) -> tuple[SmplxMotion, dict[str, str | float]]:
    """One clip of a gesture, 1.6-3.0 s at 30 fps, somewhere within 2 m of the origin and facing anywhere; what is not
    given is drawn from `rng`. `side`, "left" or "right", is the hand of a one-handed gesture, or the side that a
    two-handed one begins with; `speed` is 0.8 (slow) to 1.25 (quick). Returns the motion and {"action", "side",
    "speed", "size"}. Raises ValueError: an unknown action or side, or a speed that is not above 0."""
    if action not in GESTURES:
        raise ValueError(f"`action` is {action!r}, expected one of {', '.join(GESTURES)}.")
    if side not in (None, "left", "right"):
        raise ValueError(f'`side` is {side!r}, expected "left", "right" or None.')
    if speed is not None and not speed > 0:
        raise ValueError(f"`speed` is {speed}, expected a factor above 0.")
    drawn = str(rng.choice(["left", "right"], p=[0.35, 0.65]))
    pace = float(rng.uniform(0.8, 1.25))
    style = Style(side or drawn, speed or pace, float(rng.uniform(0.8, 1.2)), start_pose(rng), rng)
    keys = GESTURES[action](style)
    wait = rng.uniform(0.0, 0.15)
    span = float(np.clip(keys[-1][0] / style.speed + wait, MIN_SECONDS, MAX_SECONDS)) - wait
    stretch = span / keys[-1][0]
    timed = [(wait + time * stretch, pose) for time, pose in keys]
    if wait > 0:
        timed.insert(0, (0.0, style.start))
    motion = animate(timed, rng, liveliness=float(rng.uniform(0.7, 1.2)))
    motion = place(motion, rng.uniform(-np.pi, np.pi), *rng.uniform(-2, 2, 2))
    return motion, {"action": action, "side": style.side, "speed": style.speed, "size": style.size}
