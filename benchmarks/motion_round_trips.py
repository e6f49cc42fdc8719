"""What a motion loses on its way through files, frame rates and features: `python benchmarks/motion_round_trips.py`.

Each row sends a motion there and back and compares the free body's 55 joints: how far they are off in millimetres, and
how far their rotations are off in degrees, the median and the largest over joints and frames. The last line is the
table as one JSON object. The motion is the recording of `tests/data`, with random fingers since it has none.
"""

import json
import struct
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from solami_hf.processing.motion.body import joint_positions, rest_joints
from solami_hf.processing.motion.features import features_to_smplx, smplx_to_features
from solami_hf.processing.motion.formats.bvh import read_skeleton_motion
from solami_hf.processing.motion.motion_io import read_motion, resample_motion, write_motion
from solami_hf.processing.motion.retarget import match_joints, retarget
from solami_hf.processing.motion.smplx_motion import SmplxMotion

RECORDING = Path(__file__).parents[1] / "tests" / "data" / "cmu_01_01.bvh"
_GLTF_TYPES = {5121: "<u1", 5123: "<u2", 5126: "<f4"}
_GLTF_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def recording() -> SmplxMotion:
    """The recording at 30 fps without its first frame, a T-pose; fingers, jaw and eyes move at random."""
    motion = read_motion(RECORDING, fps=30.0)
    motion = replace(motion, transl=motion.transl[1:], poses=motion.poses[1:])
    rng = np.random.default_rng(0)
    knots = rng.normal(scale=0.3, size=(motion.num_frames // 15 + 2, 33, 3))
    times = np.arange(motion.num_frames) / 15
    first, part = times.astype(int), (times % 1)[:, None, None]
    poses = motion.poses.copy()
    poses[:, 22:] = (1 - part) * knots[first] + part * knots[first + 1]
    return replace(motion, poses=poses)


def read_glb(path: Path) -> tuple[dict, list[np.ndarray]]:
    """The document of a `.glb` file and the arrays of its accessors."""
    data = path.read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    document, binary = json.loads(data[20 : 20 + size]), data[28 + size :]
    arrays = []

    def stored(told: dict, count: int, kind: int, width: int) -> np.ndarray:
        start = document["bufferViews"][told["bufferView"]]["byteOffset"]
        return np.frombuffer(binary, _GLTF_TYPES[kind], count * width, start).reshape(count, width)

    for accessor in document["accessors"]:
        count, kind, width = accessor["count"], accessor["componentType"], _GLTF_WIDTHS[accessor["type"]]
        if "sparse" in accessor:
            sparse, values = accessor["sparse"], np.zeros((count, width))
            rows = stored(sparse["indices"], sparse["count"], sparse["indices"]["componentType"], 1)[:, 0]
            values[rows] = stored(sparse["values"], sparse["count"], kind, width)
        else:
            values = stored(accessor, count, kind, width)
        arrays.append(values)
    return document, arrays


def motion_of_glb(path: Path) -> SmplxMotion:
    """The motion that `write_motion` put into a `.glb` file."""
    document, arrays = read_glb(path)
    animation = document["animations"][0]
    tracks = {}
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        tracks[channel["target"]["node"], channel["target"]["path"]] = arrays[sampler["output"]]
        times = arrays[sampler["input"]][:, 0]
    rotations = [Rotation.from_quat(tracks[joint, "rotation"]).as_rotvec() for joint in range(55)]
    fps = (len(times) - 1) / float(times[-1])
    return SmplxMotion(tracks[0, "translation"], np.stack(rotations, axis=1), fps=fps)


def through_file(suffix: str, read: Callable[[Path], SmplxMotion]) -> Callable[[SmplxMotion], SmplxMotion]:
    """Writes a motion under a name of this suffix and reads it again."""

    def run(motion: SmplxMotion) -> SmplxMotion:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"motion{suffix}"
            write_motion(path, motion)
            return read(path)

    return run


def through_rate(fps: float) -> Callable[[SmplxMotion], SmplxMotion]:
    """Resamples to another rate and back."""
    return lambda motion: resample_motion(resample_motion(motion, fps), motion.fps)


def through_features(motion: SmplxMotion) -> SmplxMotion:
    """To the 315 features and back, put where the motion began; the last frame, a velocity's end, is lost."""
    params = torch.from_numpy(motion.to_params())
    back = features_to_smplx(smplx_to_features(params)).numpy()
    back[:, [0, 2]] += motion.to_params()[0, [0, 2]]
    return SmplxMotion.from_params(back, fps=motion.fps)


def errors(expected: SmplxMotion, found: SmplxMotion) -> tuple[np.ndarray, np.ndarray]:
    """Millimetres and degrees (T, 55) between two motions; the longer one is cut to the other's frames."""
    frames = min(expected.num_frames, found.num_frames)
    apart = joint_positions(expected)[:frames].astype(np.float64) - joint_positions(found)[:frames]
    first, second = (
        Rotation.from_rotvec(m.poses[:frames].reshape(-1, 3).astype(np.float64)) for m in (expected, found)
    )
    return 1000 * np.linalg.norm(apart, axis=-1), np.degrees((first.inv() * second).magnitude()).reshape(frames, -1)


def retargeted() -> tuple[np.ndarray, np.ndarray]:
    """The recording's own skeleton, scaled by its legs, against what it became: joints and directions of the limbs."""
    source = read_skeleton_motion(RECORDING)
    joints = match_joints(source.names, source.parents)
    limbs = [(1, 4), (2, 5), (4, 7), (5, 8), (16, 18), (17, 19), (18, 20), (19, 21)]
    theirs, _ = source.forward_kinematics()
    ours = joint_positions(retarget(source)).astype(np.float64)
    lengths = [
        sum(np.linalg.norm(points[index[end]] - points[index[start]]) for start, end in limbs[:4])
        for points, index in ((rest_joints(), range(55)), (source.rest_places(), joints))
    ]
    theirs = theirs * lengths[0] / lengths[1]
    ends = sorted({joint for limb in limbs for joint in limb})
    apart = np.linalg.norm(ours[:, ends] - theirs[:, [joints[joint] for joint in ends]], axis=-1)
    turns = []
    for start, end in limbs:
        a, b = ours[:, end] - ours[:, start], theirs[:, joints[end]] - theirs[:, joints[start]]
        turns.append(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1))))
    return 1000 * apart, np.stack(turns, axis=1)


def main() -> int:
    """Prints the table; 0 always, since it measures and does not judge."""
    motion = recording()
    without_face = replace(motion, poses=np.where(np.isin(np.arange(55), (22, 23, 24))[:, None], 0, motion.poses))
    ways = {
        "npz": (motion, through_file(".npz", lambda path: read_motion(path, fps=None))),
        "BVH": (motion, through_file(".bvh", lambda path: read_motion(path, fps=None))),
        "glTF": (motion, through_file(".glb", motion_of_glb)),
        "30 -> 120 -> 30 fps": (motion, through_rate(120.0)),
        "30 -> 20 -> 30 fps": (motion, through_rate(20.0)),
        "features and back": (without_face, through_features),
    }
    rows = {name: errors(start, way(start)) for name, (start, way) in ways.items()}
    rows["CMU's skeleton -> ours (limbs)"] = retargeted()
    table = {}
    print(f"{motion.num_frames} frames of {RECORDING.name}, joints of the free body\n")
    print(f"{'round trip':32}{'mm median':>12}{'mm largest':>12}{'deg median':>12}{'deg largest':>12}")
    for name, (millimetres, degrees) in rows.items():
        values = [f(x) for x in (millimetres, degrees) for f in (np.median, np.max)]
        print(f"{name:32}" + "".join(f"{value:12.3g}" for value in values))
        keys = ("mm_median", "mm_max", "degrees_median", "degrees_max")
        table[name] = {key: round(float(value), 6) for key, value in zip(keys, values, strict=True)}
    print("\n" + json.dumps(table))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
