"""Avatars of other names, proportions and rest poses, made by the benchmark; and BVH files of their skeletons."""

import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import pygltflib
import pytest
from scipy.spatial.transform import Rotation

from solami_hf import cli
from solami_hf.processing.motion.avatar import has_units, read_avatar, retarget_to_avatar, write_on_avatar
from solami_hf.processing.motion.body import SMPLX_PARENTS, joint_positions, rest_joints, standing_height
from solami_hf.processing.motion.formats.bvh import read_bvh, write_bvh
from solami_hf.processing.motion.formats.gltf import write_gltf
from solami_hf.processing.motion.formats.vrm import write_vrm
from solami_hf.processing.motion.motion_io import read_motion, write_motion
from solami_hf.processing.motion.skeleton_names import JOINT_NAMES
from solami_hf.processing.motion.smplx_motion import SmplxMotion

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "retargeting.py"
KINDS = ["smplx", "mixamo", "unreal", "cmu", "vroid", "motive", "daz"]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("retargeting", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def motion():
    rng = np.random.default_rng(4)
    poses = rng.normal(scale=0.4, size=(5, 55, 3))
    poses[:, 0] *= [0.3, 4, 0.3]
    poses[0] = 0
    return SmplxMotion(rng.normal(size=(5, 3)) * [2, 0, 2] + [0, standing_height(), 0], poses)


def places_in_file(path: Path) -> np.ndarray:
    """(T, N, 3) places of all nodes, as pygltflib reads them and glTF composes them."""
    gltf = pygltflib.GLTF2().load_binary(str(path))
    blob, animation = gltf.binary_blob(), gltf.animations[-1]

    def values(index: int, width: int) -> np.ndarray:
        accessor = gltf.accessors[index]
        start = gltf.bufferViews[accessor.bufferView].byteOffset
        return np.frombuffer(blob, "<f4", accessor.count * width, start).reshape(-1, width).astype(float)

    tracks = {}
    for channel in animation.channels:
        width = {"translation": 3, "rotation": 4, "weights": 1}[channel.target.path]
        tracks[channel.target.node, channel.target.path] = values(animation.samplers[channel.sampler].output, width)
    frames = gltf.accessors[animation.samplers[0].input].count
    places, parents = (
        np.zeros((frames, len(gltf.nodes), 3)),
        {c: n for n, node in enumerate(gltf.nodes) for c in node.children},
    )

    def world(node: int, frame: int) -> np.ndarray:
        told = gltf.nodes[node]
        turn = tracks[node, "rotation"][frame] if (node, "rotation") in tracks else told.rotation or [0, 0, 0, 1]
        move = tracks[node, "translation"][frame] if (node, "translation") in tracks else told.translation or [0, 0, 0]
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_quat(turn).as_matrix() * np.array(told.scale or [1, 1, 1])
        matrix[:3, 3] = move
        return world(parents[node], frame) @ matrix if node in parents else matrix

    for frame in range(frames):
        for node in range(len(gltf.nodes)):
            places[frame, node] = world(node, frame)[:3, 3]
    return places


@pytest.mark.parametrize("write", [write_gltf, write_vrm], ids=["glb", "vrm"])
def test_joints_read_back_by_pygltflib(tmp_path, motion, write):
    path = tmp_path / f"a.{'glb' if write is write_gltf else 'vrm'}"
    write(path, motion)
    assert np.linalg.norm(places_in_file(path)[:, :55] - joint_positions(motion), axis=-1).max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_limbs_point_as_ours_and_feet_stay_on_the_floor(tmp_path, bench, motion, kind):
    bench.make_avatar(tmp_path / "a.glb", kind, vrm=kind == "vroid")
    avatar = read_avatar(tmp_path / "a.glb")
    places = bench.avatar_places(avatar, retarget_to_avatar(avatar, motion))
    ours = dict(enumerate(joint_positions(motion).swapaxes(0, 1)))
    for limb in ((16, 18), (18, 20), (1, 4), (4, 7), (2, 5), (5, 8)):
        a, b = (
            (p[limb[1]] - p[limb[0]]) / np.linalg.norm(p[limb[1]] - p[limb[0]], axis=1)[:, None]
            for p in (places, ours)
        )
        assert np.abs(a - b).max() < 0.06, limb  # the chains of twist that fewer joints make are no exact match
    rested = rest_joints()[7, 1] + standing_height()  # the ankle over the sole
    size = bench.BUILDS[kind][-1]
    assert places[7][0, 1] == pytest.approx(rested * size, abs=0.004)  # the first frame stands
    leg = (places[1] - places[7])[0]
    assert leg[1] / np.linalg.norm(leg) > 0.98  # and its legs hang straight down


def test_our_own_figure_moves_exactly(tmp_path, motion):
    for path, write in ((tmp_path / "a.vrm", write_vrm), (tmp_path / "a.glb", lambda p: write_gltf(p, motion))):
        write(path)
        write_on_avatar(tmp_path / "b.glb", path, motion)
        assert (
            np.linalg.norm(places_in_file(tmp_path / "b.glb")[:, :55] - joint_positions(motion), axis=-1).max() < 1e-4
        )


def test_a_written_avatar_moves_as_computed(tmp_path, bench, motion):
    bench.make_avatar(tmp_path / "a.glb", "mixamo")
    face = np.zeros((5, 52), np.float32)
    face[2, 17] = 0.7  # jawOpen
    write_on_avatar(tmp_path / "b.glb", tmp_path / "a.glb", motion, face)
    avatar = read_avatar(tmp_path / "a.glb")
    wanted = bench.avatar_places(avatar, retarget_to_avatar(avatar, motion))
    found = places_in_file(tmp_path / "b.glb")
    assert max(np.abs(found[:, avatar.joints[joint]] - places).max() for joint, places in wanted.items()) < 1e-4
    (channel,) = [
        c
        for c in pygltflib.GLTF2().load_binary(str(tmp_path / "b.glb")).animations[0].channels
        if c.target.path == "weights"
    ]
    assert channel.target.node == len(avatar.parents) - 1


def test_matrices_and_old_vrm_are_read(tmp_path, bench, motion):
    bench.make_avatar(tmp_path / "a.glb", "vroid", vrm=True)
    data = (tmp_path / "a.glb").read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + size])
    bones = document["extensions"].pop("VRMC_vrm")["humanoid"]["humanBones"]
    old = {"ThumbMetacarpal": "ThumbProximal", "ThumbProximal": "ThumbIntermediate"}
    rename = {s + new: s + name for s in ("left", "right") for new, name in old.items()}
    listed = [{"bone": rename.get(name, name), "node": bone["node"]} for name, bone in bones.items()]
    document["extensions"]["VRM"] = {"humanoid": {"humanBones": listed}}
    for node in document["nodes"]:
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_quat(node.pop("rotation", [0, 0, 0, 1])).as_matrix() * node.pop(
            "scale", [1, 1, 1]
        )
        matrix[:3, 3] = node.pop("translation", [0, 0, 0])
        node["matrix"] = matrix.T.ravel().tolist()
    (tmp_path / "b.glb").write_bytes(glb(document, data[28 + size :]))
    first, second = read_avatar(tmp_path / "a.glb"), read_avatar(tmp_path / "b.glb")
    assert first.joints == second.joints and np.allclose(first.world, second.world, atol=1e-6)
    write_on_avatar(tmp_path / "c.glb", tmp_path / "b.glb", motion)
    wanted = bench.avatar_places(first, retarget_to_avatar(first, motion))
    found = places_in_file(tmp_path / "c.glb")
    assert max(np.abs(found[:, first.joints[joint]] - places).max() for joint, places in wanted.items()) < 1e-4


def glb(document, binary: bytes = b"") -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = struct.pack("<II", len(binary), 0x004E4942) + binary if binary else b""
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest


def test_the_commands_of_the_documentation(tmp_path, bench, motion, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_motion("turn1.npz", motion, np.zeros((5, 52), np.float32))
    write_bvh("walk.bvh", motion)
    bench.make_avatar(Path("mine.vrm"), "vroid", vrm=True)
    page = (Path(__file__).parents[2] / "docs" / "motion.md").read_text("utf-8")
    lines = [line.split("#")[0].split() for line in page.splitlines() if line.startswith("solami convert motion ")]
    assert len(lines) == 8
    for line in lines:
        assert cli.main(line[1:]) == 0 and Path(line[4]).stat().st_size > 0, line


def test_the_command_moves_an_avatar(tmp_path, bench, motion):
    write_motion(tmp_path / "m.npz", motion)
    bench.make_avatar(tmp_path / "a.vrm", "vroid", vrm=True)
    words = [
        "convert",
        "motion",
        str(tmp_path / "m.npz"),
        str(tmp_path / "out.vrm"),
        "--avatar",
        str(tmp_path / "a.vrm"),
    ]
    assert cli.main(words) == 0
    assert len(read_avatar(tmp_path / "out.vrm").document["animations"]) == 1
    assert not has_units(read_avatar(tmp_path / "a.vrm"))
    write_vrm(tmp_path / "ours.vrm")
    assert has_units(read_avatar(tmp_path / "ours.vrm"))


def bvh_of(bench, kind: str, motion: SmplxMotion) -> str:
    """The text of a BVH file with the motion on a skeleton of our bones that has a kind's joints and names."""
    names, rest = bench.names_of(kind), rest_joints()
    parent_of = {}
    for joint in names:
        parent = SMPLX_PARENTS[joint]
        while parent >= 0 and parent not in names:
            parent = SMPLX_PARENTS[parent]
        parent_of[joint] = parent
    world: list[Rotation] = []
    for joint, parent in enumerate(SMPLX_PARENTS):
        local = Rotation.from_rotvec(motion.poses[:, joint])
        world.append(local if parent < 0 else world[parent] * local)
    columns = [100 * motion.pelvis]

    def lines(joint: int) -> list[str]:
        parent = parent_of[joint]
        offset = 100 * (rest[joint] - rest[parent]) if parent >= 0 else np.zeros(3)
        local = world[joint] if parent < 0 else world[parent].inv() * world[joint]
        columns.append(local.as_euler("ZXY", degrees=True))
        position = "6 Xposition Yposition Zposition" if parent < 0 else "3"
        inside = [
            f"OFFSET {' '.join(f'{v:.6f}' for v in offset)}",
            f"CHANNELS {position} Zrotation Xrotation Yrotation",
        ]
        children = [child for child, above in parent_of.items() if above == joint]
        for child in children:
            inside += lines(child)
        inside += [] if children else ["End Site", "{", "OFFSET 0 5 0", "}"]
        return [f"{'JOINT' if parent >= 0 else 'ROOT'} {names[joint]}", "{", *inside, "}"]

    header = ["HIERARCHY", *lines(0), "MOTION", f"Frames: {motion.num_frames}", "Frame Time: 0.0333333"]
    rows = [" ".join(f"{value:.6f}" for value in row) for row in np.concatenate(columns, axis=1)]
    return "\n".join([*header, *rows]) + "\n"


@pytest.mark.parametrize("kind", KINDS)
def test_bvh_files_of_their_skeletons_are_read(tmp_path, bench, motion, kind):
    motion.poses[:, [joint for joint in (3, 6, 9) if joint not in bench.names_of(kind)]] = (
        0  # no place for a bend there
    )
    (tmp_path / "a.bvh").write_text(bvh_of(bench, kind, motion))
    back = joint_positions(read_bvh(tmp_path / "a.bvh"))
    known = [joint for joint in bench.names_of(kind) if joint not in (22, 23, 24)]
    assert np.abs(back[:, known] - joint_positions(motion)[:, known]).max() < 2e-3


BAD_BVH = {  # what of the text is replaced by what; {} is the kind's name of a joint
    "no hips": (0, "ROOT {}", "ROOT Blob", "no joint known as"),
    "no left knee": (4, "JOINT {}", "JOINT Blob", "no joint known as"),
    "no right ankle": (8, "JOINT {}", "JOINT Blob", "no joint known as"),
    "no left elbow": (18, "JOINT {}", "JOINT Blob", "no joint known as"),
    "no right wrist": (21, "JOINT {}", "JOINT Blob", "no joint known as"),
    "a leg that is both": (2, "JOINT {}", "JOINT {1}", "{1}|no joint known as"),
    "a joint without a name": (5, "JOINT {}", "JOINT", "JOINT without a name"),
    "two roots": (4, "JOINT {}", "ROOT {}", "ROOT"),
    "a brace too many": (4, "JOINT {}\n{{", "JOINT {}\n{{\n{{", "no joint announces"),
    "no brace": (4, "JOINT {}\n{{", "JOINT {}", "expected '{{'"),
    "an offset of a word": (4, "JOINT {}\n{{\nOFFSET ", "JOINT {}\n{{\nOFFSET up ", "three finite numbers"),
    "a channel twice": (4, "Yrotation\nJOINT {}", "Zrotation\nJOINT {}", "each channel at most once|CHANNELS"),
    "a frame too many": (0, "Frames: 5", "Frames: 9", "expected"),
    "no frames": (0, "Frames: 5", "Frames: 0", "Frames: 0, expected"),
    "a second of a word": (0, "0.0333333", "soon", "Frame Time|number"),
    "cut off": (0, "MOTION", "", "MOTION|expected"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["vroid", "motive", "daz"])
@pytest.mark.parametrize("case", BAD_BVH)
def test_malformed_bvh_of_other_names_is_refused_in_words(tmp_path, bench, motion, kind, case):
    joint, part, other, message = BAD_BVH[case]
    names, text = bench.names_of(kind), bvh_of(bench, kind, motion)
    part, other, message = (words.format(names[joint], *[names[1]] * 2) for words in (part, other, message))
    assert part in text
    (tmp_path / "bad.bvh").write_text(text.replace(part, other, 1))
    with pytest.raises(ValueError, match=message) as caught:
        read_motion(tmp_path / "bad.bvh")
    assert "bad.bvh" in str(caught.value)


@pytest.mark.parametrize("names", ["mixamo", "unreal", "vrm"])
def test_bvh_is_written_under_other_names(tmp_path, motion, names):
    write_bvh(tmp_path / "a.bvh", motion, names)
    text = (tmp_path / "a.bvh").read_text()
    assert f"ROOT {JOINT_NAMES[names][0]}\n" in text and text.count(f"JOINT {JOINT_NAMES[names][42]}\n") == 1
    assert np.abs(joint_positions(read_bvh(tmp_path / "a.bvh")) - joint_positions(motion)).max() < 1e-4


def change(**values):
    """A fault in the document: values of dotted paths; `...` takes one away."""

    def run(document: dict) -> dict:
        for path, value in values.items():
            *inner, last = path.split("__")
            place = document
            for key in inner:
                place = place[int(key) if key.isdigit() else key]
            last = int(last) if last.isdigit() else last
            if value is ...:
                del place[last]
            else:
                place[last] = value
        return document

    return run


def nameless(document: dict) -> dict:
    for node in document["nodes"]:
        node["name"] = "x"
    return document


BONES = "extensions__VRMC_vrm__humanoid__humanBones"
NO_NODE = {"preset": {"aa": {"morphTargetBinds": [{}]}}}
BAD_DOCUMENTS = {
    "no nodes": (change(nodes=...), "no nodes"),
    "empty nodes": (change(nodes=[]), "no nodes"),
    "nodes that are words": (change(nodes="many"), "no nodes"),
    "nodes that are numbers": (change(nodes=[1, 2]), "malformed"),
    "null node": (change(nodes__3=None), "malformed"),
    "child out of range": (change(nodes__0__children=[999]), "child 999"),
    "negative child": (change(nodes__0__children=[-1]), "child -1"),
    "child that is true": (change(nodes__0__children=[True]), "child True"),
    "child that is a word": (change(nodes__0__children=["hips"]), "child 'hips'"),
    "children that are a number": (change(nodes__0__children=7), "malformed"),
    "own parent": (change(nodes__3__children=[3]), "no other parent"),
    "circle": (lambda d: change(nodes__0__children=[], nodes__2__children=[1])(d), "child|circle"),
    "short rotation": (change(nodes__1__rotation=[0, 0, 1]), "`rotation` of node 1"),
    "zero rotation": (change(nodes__1__rotation=[0, 0, 0, 0]), "quaternion"),
    "rotation of words": (change(nodes__1__rotation=["a", "b", "c", "d"]), "no avatar"),
    "rotation of null": (change(nodes__1__rotation=None), "malformed|rotation"),
    "huge translation": (change(nodes__1__translation=[1e30, 0, 0]), "`translation` of node 1"),
    "NaN translation": (change(nodes__1__translation=[float("nan"), 0, 0]), "`translation` of node 1"),
    "short matrix": (change(nodes__1__matrix=[1, 0, 0]), "`matrix` of node 1"),
    "zero scale": (change(nodes__0__scale=[0, 0, 0]), "flattened"),
    "exploding scales": (lambda d: [n.update(scale=[1e5] * 3) for n in d["nodes"]] and d, "beyond"),
    "lying down": (change(nodes__0__rotation=[0.70710678, 0, 0, 0.70710678]), "upright"),
    "upside down": (change(nodes__0__rotation=[1, 0, 0, 0]), "upright"),
    "mirrored bone": (change(nodes__5__scale=[-1, 1, 1]), "mirrored"),
    "data elsewhere": (change(buffers=[{"byteLength": 3, "uri": "a.bin"}]), "other files"),
    "mesh out of range": (change(meshes=[]), "malformed"),
    "mesh without primitives": (change(meshes__0={}), "malformed"),
    "expression at no node": (change(extensions__VRMC_vrm__expressions=NO_NODE), "malformed"),
    "expressions of a list": (change(extensions__VRMC_vrm__expressions=[]), "malformed"),
    "no humanoid": (change(extensions__VRMC_vrm__humanoid=...), "malformed"),
    "humanoid of null": (change(extensions__VRMC_vrm__humanoid=None), "malformed"),
    "bone without node": (change(**{f"{BONES}__hips": {}}), "malformed"),
    "bone out of range": (change(**{f"{BONES}__hips": {"node": 999}}), "names the nodes"),
    "bone that is half": (change(**{f"{BONES}__hips": {"node": 1.5}}), "names the nodes"),
    "two bones at one node": (change(**{f"{BONES}__hips": {"node": 4}}), "node of its own"),
    "no hips": (change(**{f"{BONES}__hips": ...}), "lacks hips"),
    "no left hand": (change(**{f"{BONES}__leftHand": ...}), "lacks leftHand"),
    "no bones": (change(**{BONES: {}}), "lacks hips"),
    "list of bones": (change(**{BONES: []}), "malformed"),
    "extensions that are a list": (change(extensions=[]), "malformed"),
    "no extension, no skin": (change(extensions=..., skins=...), "no skin"),
    "no extension, foreign names": (lambda d: nameless(change(extensions=...)(d)), "no joint known"),
    "no extension, bad skin": (change(extensions=..., skins=[{"joints": [1, 2, 999]}]), "skins name"),
    "no extension, skin without joints": (change(extensions=..., skins=[{}]), "malformed"),
}  # fmt: skip
BAD_BYTES = {
    "empty": (lambda data: b"", "glTF"),
    "a few bytes": (lambda data: data[:12], "glTF"),
    "json glTF": (lambda data: b'{"asset": {"version": "2.0"}, "nodes": []}', "begins with"),
    "a picture": (lambda data: b"\x89PNG" + data[4:], "begins with"),
    "version 1": (lambda data: data[:4] + struct.pack("<I", 1) + data[8:], "glTF 1"),
    "cut off": (lambda data: data[:-40], "cut off"),
    "cut off in the json": (lambda data: data[:300], "cut off"),
    "longer than told": (lambda data: data + b"....", "cut off"),
    "json longer than the file": (lambda data: data[:12] + struct.pack("<I", 1 << 30) + data[16:], "cut off"),
    "binary first": (lambda data: data[:16] + b"BIN\0" + data[20:], "cut off"),
    "json of noise": (lambda data: data[:20] + b"\xff" * 40 + data[60:], "JSON cannot be read"),
    "json cut": (lambda data: data[:20] + b"[" + data[21:], "JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", [*BAD_DOCUMENTS, *BAD_BYTES])
def test_malformed_avatars_are_refused_in_words(tmp_path, bench, motion, case):
    bench.make_avatar(tmp_path / "a.vrm", "vroid", vrm=True)
    data = (tmp_path / "a.vrm").read_bytes()
    if case in BAD_BYTES:
        spoil, message = BAD_BYTES[case]
        (tmp_path / "bad.vrm").write_bytes(spoil(data))
    else:
        spoil, message = BAD_DOCUMENTS[case]
        size = struct.unpack_from("<I", data, 12)[0]
        (tmp_path / "bad.vrm").write_bytes(glb(spoil(json.loads(data[20 : 20 + size])), data[28 + size :]))
    with pytest.raises(ValueError, match=message) as caught:
        write_on_avatar(tmp_path / "out.glb", tmp_path / "bad.vrm", motion, np.zeros((5, 52)))
    assert "bad.vrm" in str(caught.value) and not (tmp_path / "out.glb").exists()


def test_a_missing_avatar_and_other_outputs(tmp_path, bench, motion):
    with pytest.raises(FileNotFoundError, match="none.vrm"):
        write_on_avatar(tmp_path / "out.glb", tmp_path / "none.vrm", motion)
    bench.make_avatar(tmp_path / "a.glb", "daz")
    for name, options in (("a.bvh", {"avatar": tmp_path / "a.glb"}), ("a.vrma", {"names": "mixamo"}), ("a.csv", {})):
        with pytest.raises(ValueError, match=name):
            write_motion(tmp_path / name, motion, **options)
