"""What a motion loses on avatars of other proportions, rest poses and names: `python benchmarks/retargeting.py`.

For each skeleton an avatar is made as a `.glb` file: bones with axes of their own, in an A-pose, limbs of other
lengths, two of them in centimetres below a turned armature. The recording of `tests/data` and authored gestures are
put on it. End effectors are wrists and ankles, as seen from shoulder and hip and divided by the limb's length: the
error is the distance to ours. Foot skating is the metric's (mm/s), scaled to our size. The last line is JSON.
"""

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from solami_hf.demo.corpus.gestures import GESTURES, make_gesture
from solami_hf.metrics.motion_math import foot_steps
from solami_hf.processing.motion.avatar import Avatar, AvatarMotion, read_avatar, retarget_to_avatar, write_on_avatar
from solami_hf.processing.motion.body import (
    SMPLX_JOINT_NAMES,
    SMPLX_PARENTS,
    joint_positions,
    rest_joints,
    standing_height,
)
from solami_hf.processing.motion.formats.gltf import GltfDocument
from solami_hf.processing.motion.motion_io import read_motion
from solami_hf.processing.motion.skeleton_names import JOINT_NAMES
from solami_hf.processing.motion.smplx_motion import SmplxMotion

RECORDING = Path(__file__).parents[1] / "tests" / "data" / "cmu_01_01.bvh"
BODY_JOINTS = "pelvis spine1 spine2 spine3 neck head hip knee ankle foot collar shoulder elbow wrist".split()
# in the order of BODY_JOINTS; "-" where the skeleton has none
SPELLINGS = {
    "cmu": "Hips LowerBack Spine Spine1 Neck1 Head UpLeg Leg Foot ToeBase Shoulder Arm ForeArm Hand",
    "vroid": "Hips Spine Chest UpperChest Neck Head UpperLeg LowerLeg Foot ToeBase Shoulder UpperArm LowerArm Hand",
    "motive": "Hip Ab - Chest Neck Head Thigh Shin Foot Toe Shoulder UArm FArm Hand",
    "daz": "hip abdomenLower abdomenUpper chestUpper neckLower head ThighBend Shin Foot Toe Collar ShldrBend "
    "ForearmBend Hand",
}
SIDES = {
    "cmu": ("Left{}", "Right{}"),
    "vroid": ("J_Bip_L_{}", "J_Bip_R_{}"),
    "motive": ("L{}", "R{}"),
    "daz": ("l{}", "r{}"),
}
FINGERS = {"daz": {"middle": "Mid"}, "vroid": {"pinky": "Little"}}
# sizes of thigh, shin, arm, shoulders, trunk, all
BUILDS = {
    "smplx": (1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    "mixamo": (1.06, 0.98, 1.05, 1.1, 0.96, 1.04),
    "unreal": (1.04, 1.02, 0.96, 1.15, 1.0, 1.05),
    "cmu": (1.1, 0.95, 1.0, 0.95, 1.0, 0.97),
    "vroid": (1.12, 1.1, 0.9, 0.85, 0.9, 0.9),
    "motive": (0.95, 0.97, 1.04, 1.05, 1.05, 1.02),
    "daz": (1.03, 0.99, 0.98, 1.0, 1.02, 1.03),
}


def names_of(kind: str) -> dict[int, str]:
    """SMPL-X's joint -> the name that it has in a kind of skeleton, where it is there."""
    if kind in JOINT_NAMES:
        return dict(enumerate(JOINT_NAMES[kind]))
    words = dict(zip(BODY_JOINTS, SPELLINGS[kind].split(), strict=True))
    names = {}
    for joint, ours in enumerate(SMPLX_JOINT_NAMES):
        side, _, part = ours.partition("_")
        pattern = SIDES[kind][side == "right"] if part else "J_Bip_C_{}" if kind == "vroid" else "{}"
        part = part or ours
        if part in words and words[part] != "-":
            names[joint] = pattern.format(words[part])
        elif part[-1] in "123" and kind != "cmu" and part[:-1] in ("thumb", "index", "middle", "ring", "pinky"):
            names[joint] = pattern.format(FINGERS.get(kind, {}).get(part[:-1], part[:-1].title()) + part[-1])
    return names


def build_of(kind: str) -> np.ndarray:
    """Rest positions (55, 3) of a person of other proportions in our T-pose."""
    thigh, shin, arm, shoulders, trunk, size = BUILDS[kind]
    ours, places = rest_joints(), np.zeros((55, 3))
    factors = {"knee": thigh, "ankle": shin, "elbow": arm, "wrist": arm, "shoulder": shoulders, "collar": shoulders}
    for joint, parent in enumerate(SMPLX_PARENTS):
        part = SMPLX_JOINT_NAMES[joint].partition("_")[2] or "trunk"
        if parent >= 0:
            offset = ours[joint] - ours[parent]
            places[joint] = places[parent] + size * offset * (trunk if part == "trunk" else factors.get(part, 1.0))
    return places


def make_avatar(path: Path, kind: str, vrm: bool = False, down: float = 45.0) -> None:
    """Writes an avatar of a kind of skeleton, its arms `down` degrees at rest, with a skin of one triangle."""
    rng = np.random.default_rng(len(kind))
    names, places = names_of(kind), build_of(kind)
    joints = sorted(names)
    stance: list[Rotation] = []
    posed = np.zeros((55, 3))
    for joint, parent in enumerate(SMPLX_PARENTS):
        turn = Rotation.identity() if parent < 0 else stance[parent]
        if SMPLX_JOINT_NAMES[joint].endswith("_shoulder"):
            sign = -1 if SMPLX_JOINT_NAMES[joint].startswith("left") else 1
            turn = Rotation.from_euler("z", sign * down, degrees=True)
        stance.append(turn)
        if parent >= 0:
            posed[joint] = posed[parent] + stance[parent].apply(places[joint] - places[parent])
    ankle = SMPLX_JOINT_NAMES.index("left_ankle")
    posed[:, 1] -= posed[ankle, 1] - (rest_joints()[ankle, 1] + standing_height()) * BUILDS[kind][-1]
    centimetres = kind in ("mixamo", "motive")
    unit = 100.0 if centimetres else 1.0
    root = Rotation.from_euler("x", -90 if centimetres else 0, degrees=True)
    axes = {joint: Rotation.identity() if kind == "smplx" else Rotation.random(random_state=rng) for joint in joints}
    nodes = [{"name": "Armature", "rotation": root.as_quat().tolist(), "scale": [1 / unit] * 3, "children": [1]}]
    node_of = {joint: index + 1 for index, joint in enumerate(joints)}
    for joint in joints:
        parent = SMPLX_PARENTS[joint]
        while parent >= 0 and parent not in names:
            parent = SMPLX_PARENTS[parent]
        above, origin = (axes[parent], posed[parent]) if parent >= 0 else (root, np.zeros(3))
        node = {"name": names[joint], "rotation": (above.inv() * axes[joint]).as_quat().tolist()}
        node["translation"] = (unit * above.inv().apply(posed[joint] - origin)).tolist()
        nodes.append(node)
        if parent >= 0:
            nodes[node_of[parent]].setdefault("children", []).append(len(nodes) - 1)
    gltf = GltfDocument()
    skinned = {
        "POSITION": gltf.add(posed[:3] + [[0, 0, 0.1]], "VEC3", 34962, bounds=True),
        "JOINTS_0": gltf.add(np.zeros((3, 4), np.uint8), "VEC4", 34962),
        "WEIGHTS_0": gltf.add(np.tile([1.0, 0, 0, 0], (3, 1)), "VEC4", 34962),
    }
    primitive = {"attributes": skinned, "targets": [{"POSITION": gltf.add(np.eye(3), "VEC3", 34962, bounds=True)}]}
    gltf.document |= {
        "scenes": [{"nodes": [0, len(nodes)]}],
        "nodes": [*nodes, {"name": "Body", "mesh": 0, "skin": 0}],
        "skins": [{"joints": [node_of[joint] for joint in joints]}],
        "meshes": [{"primitives": [primitive], "extras": {"targetNames": ["jawOpen"]}}],
    }
    if vrm:
        bones = {JOINT_NAMES["vrm"][joint]: {"node": node} for joint, node in node_of.items()}
        extension = {"specVersion": "1.0", "humanoid": {"humanBones": bones}}
        gltf.document |= {"extensionsUsed": ["VRMC_vrm"], "extensions": {"VRMC_vrm": extension}}
    gltf.write(path)


def avatar_places(avatar: Avatar, moved: AvatarMotion) -> dict[int, np.ndarray]:
    """SMPL-X's joint -> its places (T, 3) on the avatar, as a viewer of the file computes them."""
    matrices: dict[int, np.ndarray] = {}
    for node in avatar.chain:
        local = np.tile(avatar.local[node], (len(moved.translation), 1, 1))
        if node in moved.rotations:
            sizes = np.linalg.norm(avatar.local[node, :3, :3], axis=0)
            local[:, :3, :3] = Rotation.from_quat(moved.rotations[node]).as_matrix() * sizes
        if node == moved.hips:
            local[:, :3, 3] = moved.translation
        parent = avatar.parents[node]
        matrices[node] = matrices[parent] @ local if parent >= 0 else local
    return {joint: matrices[node][:, :3, 3] for joint, node in avatar.joints.items()}


def end_effectors(places: dict[int, np.ndarray]) -> np.ndarray:
    """(T, 4, 3) wrists and ankles seen from shoulders and hips, divided by the length of arm and leg."""
    index, out = SMPLX_JOINT_NAMES.index, []
    for limb in (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")):
        for side in ("left", "right"):
            a, b, c = (places[index(f"{side}_{part}")] for part in limb)
            length = np.linalg.norm(b - a, axis=-1).mean() + np.linalg.norm(c - b, axis=-1).mean()
            out.append((c - a) / length)
    return np.stack(out, axis=1)


def skating(feet: np.ndarray, fps: float) -> float:
    """Speed in mm/s of feet (T, 2, 3) that are on the floor, as the metric has it."""
    joints = np.zeros((len(feet), 55, 3))
    joints[:, [10, 11]] = feet
    speed, contact = foot_steps(joints, fps, 0.0)
    return float(1000 * (speed * contact).sum() / max(contact.sum(), 1))


def motions() -> dict[str, SmplxMotion]:
    recorded = read_motion(RECORDING, fps=30.0)
    made = {name: make_gesture(name, np.random.default_rng(7))[0] for name in list(GESTURES)[:8]}
    return {"recording": replace(recorded, transl=recorded.transl[1:], poses=recorded.poses[1:])} | made


def main() -> None:
    table, given = {}, motions()
    print(
        f"{'skeleton':10} {'end effectors, mean, max %':>27} {'skating before, after mm/s':>28} "
        f"{'sole mm':>8} {'ms/s':>6}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for kind in BUILDS:
            file = Path(folder) / f"{kind}.glb"
            make_avatar(file, kind, vrm=kind == "vroid")
            avatar = read_avatar(file)
            size = np.linalg.norm(build_of(kind)[[1, 4, 7]], axis=1)[2] / np.linalg.norm(rest_joints()[7])
            errors, before, after, lowest, spent, seconds = [], [], [], [], 0.0, 0.0
            for motion in given.values():
                ours = joint_positions(motion)
                began = time.perf_counter()
                moved = retarget_to_avatar(avatar, motion)
                spent, seconds = spent + time.perf_counter() - began, seconds + motion.duration
                theirs = avatar_places(avatar, moved)
                errors.append(
                    np.linalg.norm(
                        end_effectors(theirs) - end_effectors(dict(enumerate(ours.swapaxes(0, 1)))), axis=-1
                    )
                )
                feet = np.stack([theirs[10], theirs[11]], axis=1) / size
                before.append(skating(ours[:, [10, 11]], motion.fps))
                after.append(skating(feet, motion.fps))
                lowest.append(1000 * (feet[..., 1].min() - ours[:, [10, 11], 1].min()))
            write_on_avatar(Path(folder) / "out.glb", file, given["recording"])
            error = np.concatenate([e.ravel() for e in errors])
            row = {
                "end_effector_mean": error.mean(),
                "end_effector_max": error.max(),
                "skating_before": np.mean(before),
            }
            row |= {
                "skating_after": np.mean(after),
                "lowest_foot_mm": np.mean(lowest),
                "ms_per_second": 1000 * spent / seconds,
            }
            table[kind] = {name: round(float(value), 4) for name, value in row.items()}
            print(
                f"{kind:10} {100 * row['end_effector_mean']:18.2f} {100 * row['end_effector_max']:8.2f} "
                f"{row['skating_before']:18.1f} {row['skating_after']:9.1f} {row['lowest_foot_mm']:8.1f} "
                f"{row['ms_per_second']:6.1f}"
            )
    print(json.dumps(table))


if __name__ == "__main__":
    main()
