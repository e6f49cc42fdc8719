"""A motion on somebody's avatar: any `.vrm` or `.glb` file with a person's skeleton.

The bones are those that VRM's humanoid names (1.0 or 0.x), else joints that `retarget.match_joints` knows by name
(Mixamo, VRoid, Unreal, ...). The avatar's rest pose may be any in which it stands upright: our skeleton is laid over
it as `retarget` does, and from then on each bone turns in the world as ours. The middle of the hips moves as ours,
scaled by the length of the legs and raised so that soles on the floor stay there.
"""

import json
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from .body import SMPLX_JOINT_NAMES, SMPLX_PARENTS, joint_positions, rest_joints, standing_height
from .face import FACE_UNITS
from .formats.gltf import GltfDocument, one_sign, with_suffix
from .formats.vrm import UNITS_OF_PRESETS
from .mesh.body_mesh import face_at
from .retarget import NEEDED_JOINTS, how_upright, leg_length, match_joints, standing_turns
from .skeleton_names import JOINT_NAMES
from .smplx_motion import NUM_JOINTS, SmplxMotion

MAX_BYTES, MAX_NODES, MAX_JSON = 512 << 20, 20_000, 64 << 20
_JOINT = {name: index for index, name in enumerate(SMPLX_JOINT_NAMES)}
# VRM 0.x names the thumb's links as those of other fingers
_OLD_THUMB = {"ThumbProximal": "ThumbMetacarpal", "ThumbIntermediate": "ThumbProximal"}
_OLD_PRESETS = {"a": "aa", "u": "ou", "e": "ee", "o": "oh", "blink_l": "blinkLeft", "blink_r": "blinkRight"}
_OLD_PRESETS |= {"joy": "happy", "sorrow": "sad", "angry": "angry"}
_HIPS = [_JOINT["left_hip"], _JOINT["right_hip"]]
_UP = np.array([0.0, 1.0, 0.0])
_FARTHEST = 1e6


@dataclass
class Avatar:
    """A glTF file with a person's skeleton of N nodes.

    Attributes:
        document, data: the file's JSON, and its binary part.
        parents: of the nodes, -1 for those without.
        local, world: (N, 4, 4) matrices at rest, to the parent's axes and to the world's.
        joints: SMPL-X's joint -> node.
        chain: these nodes and all above them, parents before children.
    """

    document: dict[str, Any]
    data: bytes
    parents: list[int]
    local: np.ndarray
    world: np.ndarray
    joints: dict[int, int]
    chain: list[int]

    def places(self) -> np.ndarray:
        """(N, 3) places of the nodes at rest."""
        return self.world[:, :3, 3]


@dataclass
class AvatarMotion:
    """A motion as values of nodes: translations (T, 3) of the hips' node, and rotations (T, 4) by node."""

    hips: int
    translation: np.ndarray
    rotations: dict[int, np.ndarray]


def read_avatar(path: str | Path) -> Avatar:
    """Reads the skeleton of a `.vrm` or `.glb` file. Raises FileNotFoundError: there is no such file; ValueError,
    whose message says what came and what was expected: it is no whole binary glTF 2.0 file, has no person's skeleton,
    or one that does not stand upright."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no avatar file at {path}.")
    with _told_of(path):
        document, data = read_glb(path)
        if any("uri" in buffer for buffer in document.get("buffers", ())) or len(document.get("buffers", ())) > 1:
            raise ValueError("its data lie in other files, expected one whole .glb file.")
        parents, order = _tree(document)
        local = np.array([_matrix(node, index) for index, node in enumerate(document["nodes"])])
        world = local.copy()
        for node in order:
            if parents[node] >= 0:
                world[node] = world[parents[node]] @ local[node]
        if not np.abs(world).max() < _FARTHEST:
            raise ValueError(f"its nodes lie or are scaled beyond {_FARTHEST:g}, expected metres.")
        joints = _humanoid(document, len(order)) or _named_joints(document, parents, order)
        chain = _with_parents(joints.values(), parents, order)
        if (np.linalg.det(local[chain, :3, :3]) <= 0).any():
            raise ValueError("a bone is mirrored or flattened, expected scales above 0.")
        avatar = Avatar(document, data, parents, local, world, joints, chain)
        if how_upright(avatar.places(), avatar.joints, _UP) <= 0.7:
            raise ValueError("its rest pose does not stand upright with straight legs, y up; expected a T- or A-pose.")
        leg_length(avatar.places(), avatar.joints)
        return avatar


@contextmanager
def _told_of(path: str | Path) -> Iterator[None]:
    """Within the block an avatar's document is read: what is wrong in it is told with the file's name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path} is no avatar that can be moved: {error}") from error
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path} is no avatar that can be moved: its glTF is malformed ({error!r}).") from error


def read_glb(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON document and the binary part of a binary glTF 2.0 file; ValueError where it is none."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"it takes {size} bytes, expected at most {MAX_BYTES}.")
    content = path.read_bytes()
    if len(content) < 20 or content[:4] != b"glTF":
        raise ValueError(f"it begins with {content[:4]!r}, expected b'glTF' (a .glb or .vrm file).")
    version, length, chunk, kind = struct.unpack("<IIII", content[4:20])
    if version != 2:
        raise ValueError(f"it is glTF {version}, expected 2.")
    if length != size or kind != 0x4E4F534A or chunk > size - 20:
        raise ValueError(f"it takes {size} bytes but tells {length}, or its JSON does not come first: it is cut off.")
    if chunk > MAX_JSON:
        raise ValueError(f"its JSON takes {chunk} bytes, expected at most {MAX_JSON}.")
    try:
        document = json.loads(content[20 : 20 + chunk].decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"its JSON cannot be read ({error}).") from error
    if not isinstance(document, dict) or not isinstance(document.get("nodes"), list) or not document["nodes"]:
        raise ValueError("its JSON has no nodes, expected a skeleton.")
    if len(document["nodes"]) > MAX_NODES:
        raise ValueError(f"it has {len(document['nodes'])} nodes, expected at most {MAX_NODES}.")
    binary = content[20 + chunk :]
    if not binary:
        return document, b""
    length, kind = struct.unpack("<II", binary[:8]) if len(binary) >= 8 else (0, 0)
    if kind != 0x004E4942 or length > len(binary) - 8:
        raise ValueError("its binary part is cut off.")
    return document, binary[8 : 8 + length]


def _tree(document: dict[str, Any]) -> tuple[list[int], list[int]]:
    nodes = document["nodes"]
    parents = [-1] * len(nodes)
    for index, node in enumerate(nodes):
        for child in node.get("children", ()):
            if not _is_index(child, len(nodes)) or parents[child] >= 0:
                raise ValueError(f"node {index} has the child {child!r}, expected a node that has no other parent.")
            parents[child] = index
    order = [node for node, parent in enumerate(parents) if parent < 0]
    for node in order:  # grows while it is read
        order.extend(nodes[node].get("children", ()))
    if len(order) != len(nodes):
        raise ValueError("its nodes form a circle, expected a tree.")
    return parents, order


def _is_index(value: Any, count: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count


def _matrix(node: dict[str, Any], index: int) -> np.ndarray:
    def numbers(key: str, default: tuple[float, ...]) -> np.ndarray:
        values = np.array(node.get(key, default), dtype=np.float64)
        if values.shape != (len(default),) or not np.abs(values).max() < _FARTHEST:
            raise ValueError(f"`{key}` of node {index} is {node[key]!r}, expected {len(default)} numbers.")
        return values

    if "matrix" in node:
        return numbers("matrix", (0.0,) * 16).reshape(4, 4).T
    rotation = numbers("rotation", (0.0, 0.0, 0.0, 1.0))
    if not np.linalg.norm(rotation) > 1e-6:
        raise ValueError(f"`rotation` of node {index} is {rotation.tolist()}, expected a quaternion.")
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(rotation).as_matrix() * numbers("scale", (1.0, 1.0, 1.0))
    matrix[:3, 3] = numbers("translation", (0.0, 0.0, 0.0))
    return matrix


def _humanoid(document: dict[str, Any], count: int) -> dict[int, int]:
    """SMPL-X's joint -> node, as the extension of VRM 1.0 or 0.x tells; empty where the file has none."""
    extensions = document.get("extensions", {})
    if extensions.get("VRMC_vrm"):
        bones = extensions["VRMC_vrm"]["humanoid"]["humanBones"]
        named = {name: bone["node"] for name, bone in bones.items()}
    elif "VRM" in extensions:
        named = {bone["bone"]: bone["node"] for bone in extensions["VRM"]["humanoid"]["humanBones"]}
        thumbs = {s + old: s + new for s in ("left", "right") for old, new in _OLD_THUMB.items()}
        named = {thumbs.get(name, name): node for name, node in named.items()}
    else:
        return {}
    wrong = {name: node for name, node in named.items() if not _is_index(node, count)}
    if wrong or len(set(named.values())) < len(named):
        raise ValueError(
            f"its VRM humanoid names the nodes {wrong or named}, expected a node of its own for each bone."
        )
    joints = {joint: named[bone] for joint, bone in enumerate(JOINT_NAMES["vrm"]) if bone in named}
    missing = [JOINT_NAMES["vrm"][_JOINT[name]] for name in NEEDED_JOINTS if _JOINT[name] not in joints]
    if missing:
        raise ValueError(f"its VRM humanoid lacks {', '.join(missing)}.")
    return joints


def _with_parents(found: Iterable[int], parents: list[int], order: list[int]) -> list[int]:
    """The nodes and all that are above them, in order."""
    found = set(found)
    for node in reversed(order):
        if node in found:
            found.add(parents[node])
    return [node for node in order if node in found]


def _named_joints(document: dict[str, Any], parents: list[int], order: list[int]) -> dict[int, int]:
    """SMPL-X's joint -> node, by the names of the joints of the document's skins."""
    nodes = document["nodes"]
    skinned = {joint for skin in document.get("skins", ()) for joint in skin["joints"]}
    if not skinned:
        raise ValueError("it has no skin, expected a mesh with a skeleton.")
    wrong = [joint for joint in skinned if not _is_index(joint, len(nodes))]
    if wrong:
        raise ValueError(f"its skins name the joints {wrong}, but it has {len(nodes)} nodes.")
    used = _with_parents(skinned, parents, order)
    place = {node: index for index, node in enumerate(used)}
    names = [str(nodes[node].get("name", "")) for node in used]
    matched = match_joints(names, [place.get(parents[node], -1) for node in used])
    return {joint: used[index] for joint, index in matched.items()}


def _turns_of(matrices: np.ndarray) -> Rotation:
    """The rotations of matrices (..., 4, 4), without their scales."""
    left, _, right = np.linalg.svd(matrices[..., :3, :3])
    return Rotation.from_matrix(left @ right)


def retarget_to_avatar(avatar: Avatar, motion: SmplxMotion) -> AvatarMotion:
    """A motion of T frames on an avatar, as values of its nodes."""
    nodes, rest = avatar.joints, avatar.places()
    stance = standing_turns(rest, nodes, _UP)
    ours, standing = rest_joints(), standing_height()
    scale = leg_length(rest, nodes) / leg_length(ours, {joint: joint for joint in range(NUM_JOINTS)})
    count = motion.num_frames
    joint_of = {node: joint for joint, node in nodes.items()}

    turned: list[Rotation] = []  # ours, in the world
    for joint, parent in enumerate(SMPLX_PARENTS):
        local = Rotation.from_rotvec(motion.poses[:, joint].astype(np.float64))
        turned.append(local if parent < 0 else turned[parent] * local)
    world: dict[int, Rotation] = {}
    rotations: dict[int, np.ndarray] = {}
    for node in avatar.chain:
        parent = avatar.parents[node]
        above = world[parent] if parent >= 0 else Rotation.identity(count)
        if node in joint_of:
            joint = joint_of[node]
            world[node] = turned[joint] * (stance[joint].inv() * _turns_of(avatar.world[node]))
            rotations[node] = one_sign((above.inv() * world[node]).as_quat())
        else:
            world[node] = above * _turns_of(avatar.local[node])

    hips, middle = nodes[0], rest[[nodes[joint] for joint in _HIPS]].mean(axis=0)
    ankles = [_JOINT["left_ankle"], _JOINT["right_ankle"]]
    lowest = float(min(rest[node, 1] for node in nodes.values()))
    # most avatars stand on 0; else a sole lies as far below their lowest joint as below ours
    floor = 0.0 if -0.02 < lowest / scale < 0.15 else lowest - scale * (ours[:, 1].min() + standing)
    raised = rest[[nodes[joint] for joint in ankles], 1].mean() - floor - scale * (ours[ankles, 1].mean() + standing)
    wanted = scale * joint_positions(motion)[:, _HIPS].mean(axis=1) + [0.0, raised, 0.0]
    from_middle = _turns_of(avatar.world[hips]).inv().apply(rest[hips] - middle)
    place = wanted + world[hips].apply(from_middle)
    parent = avatar.parents[hips]
    if parent >= 0:
        above = np.linalg.inv(avatar.world[parent])
        place = place @ above[:3, :3].T + above[:3, 3]
    return AvatarMotion(hips, place, rotations)


def write_on_avatar(path: str | Path, avatar_file: str | Path, motion: SmplxMotion, face=None) -> None:
    """Writes an avatar's file with a motion as its only animation, whole or not at all. `face` (frames, 52) at 30
    frames a second moves morph targets of ARKit's names, or else, in a VRM, those of the preset expressions; ignored
    where the avatar has neither. Raises FileNotFoundError, ValueError: as `read_avatar`; a suffix other than `.glb`
    and `.vrm`; a face of another form."""
    path, avatar = with_suffix(path, ".glb", ".vrm"), read_avatar(avatar_file)
    moved = retarget_to_avatar(avatar, motion)
    for node in (moved.hips, *moved.rotations):  # what is animated must not be told by a matrix
        told = avatar.document["nodes"][node]
        if told.pop("matrix", None) is not None:
            matrix = avatar.local[node]
            told |= {"translation": matrix[:3, 3].tolist(), "rotation": _turns_of(matrix).as_quat().tolist()}
            told["scale"] = np.linalg.norm(matrix[:3, :3], axis=0).tolist()
    channels = {(node, "rotation"): values for node, values in moved.rotations.items()}
    channels[moved.hips, "translation"] = moved.translation
    if face is not None:
        curves = face_at(face, motion)
        with _told_of(avatar_file):
            channels |= _face_channels(avatar.document, curves)
    avatar.document.pop("animations", None)
    gltf = GltfDocument(avatar.document, avatar.data)
    gltf.animate(np.arange(motion.num_frames) / motion.fps, channels)
    gltf.write(path)


def _face_channels(document: dict[str, Any], face: np.ndarray) -> dict[tuple[int, str], np.ndarray]:
    """(node, "weights") -> weights (T, M) of the meshes' M morph targets that a face (T, 52) moves."""
    units = {name.lower(): index for index, name in enumerate(FACE_UNITS)}
    channels = {}
    presets = _preset_binds(document)
    for node, told in enumerate(document["nodes"]):
        mesh = document["meshes"][told["mesh"]] if "mesh" in told else {"primitives": [{}]}
        count = len(mesh["primitives"][0].get("targets", ()))
        names = mesh.get("extras", {}).get(
            "targetNames", mesh["primitives"][0].get("extras", {}).get("targetNames", ())
        )
        weights = np.zeros((len(face), count), np.float32)
        known = {at: units[name.lower()] for at, name in enumerate(names[:count]) if name.lower() in units}
        for at, unit in known.items():
            weights[:, at] = face[:, unit]
        for bound, at, weight, preset in presets if not known else ():
            if bound == told.get("mesh") and at < count:
                mixed = face[:, [FACE_UNITS.index(unit) for unit in UNITS_OF_PRESETS[preset]]].mean(axis=1)
                weights[:, at] = np.minimum(weights[:, at] + weight * mixed, 1)
        if weights.any():
            channels[node, "weights"] = weights
    return channels


def _preset_binds(document: dict[str, Any]) -> list[tuple[int, int, float, str]]:
    """Mesh, morph target, weight and preset of the expressions of a VRM."""
    extensions, nodes = document.get("extensions", {}), document["nodes"]
    found = []
    for preset, told in extensions.get("VRMC_vrm", {}).get("expressions", {}).get("preset", {}).items():
        for bind in told.get("morphTargetBinds", ()):
            found.append((nodes[bind["node"]].get("mesh"), bind["index"], float(bind["weight"]), preset))
    for group in extensions.get("VRM", {}).get("blendShapeMaster", {}).get("blendShapeGroups", ()):
        preset = _OLD_PRESETS.get(group.get("presetName"))
        found += [(bind["mesh"], bind["index"], bind["weight"] / 100, preset) for bind in group.get("binds", ())]
    return [bind for bind in found if bind[3] in UNITS_OF_PRESETS]


def has_units(avatar: Avatar) -> bool:
    """Whether a VRM has custom expressions of ARKit's names."""
    custom = avatar.document.get("extensions", {}).get("VRMC_vrm", {}).get("expressions", {}).get("custom", {})
    return {name.lower() for name in FACE_UNITS} <= {name.lower() for name in custom}
