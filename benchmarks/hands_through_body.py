"""How often hands go through trunk, head and legs in the demo's gestures: `python benchmarks/hands_through_body.py`.

Counted are frames in which something of a hand lies inside the skin of the rest of the body (its generalised winding
number, Jacobson et al. 2013): a joint of the hand, which the motion alone implies, and a vertex of its mesh. The last
line is the table as JSON.
"""

import json

import numpy as np

from solami_hf.demo.corpus.gestures import GESTURES, make_gesture
from solami_hf.processing.motion.body import joint_positions
from solami_hf.processing.motion.mesh.body_mesh import body_mesh, skinned_vertices

HANDS = (20, 21, *range(25, 55))
ARMS = (13, 14, 16, 17, 18, 19)
STEP, SEEDS = 10, (0,)


def winding(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(P,) winding numbers of triangles (F, 3, 3) about points (P, 3): 1 inside, 0 outside."""
    a, b, c = (triangles[None, :, i] - points[:, None] for i in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
    volume = (a * np.cross(b, c)).sum(-1)
    below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return np.arctan2(volume, below).sum(axis=1) / (2 * np.pi)


def main() -> None:
    mesh = body_mesh()
    owner = mesh.joints[np.arange(len(mesh.rest)), mesh.weights.argmax(axis=1)]
    hand = np.flatnonzero(np.isin(owner, HANDS))[::12]
    rest = mesh.faces[~np.isin(owner[mesh.faces], (*HANDS, *ARMS)).any(axis=1)]
    table, total = {}, np.zeros(3, int)
    for name in GESTURES:
        counts = np.zeros(3, int)
        for seed in SEEDS:
            motion, _ = make_gesture(name, np.random.default_rng(seed))
            vertices, joints = skinned_vertices(motion)[::STEP], joint_positions(motion)[::STEP]
            for skin, bones in zip(vertices, joints, strict=True):
                points = np.concatenate([bones[list(HANDS)], skin[hand]]).astype(np.float32)
                inside = winding(points, skin[rest]) > 0.5
                counts += [1, inside[: len(HANDS)].any(), inside[len(HANDS) :].any()]
        total += counts
        table[name] = dict(zip(("frames", "joints_inside", "skin_inside"), counts.tolist(), strict=True))
        print(f"{name:16} {counts[0]:4} frames: joints inside in {counts[1]:3}, skin in {counts[2]:3}", flush=True)
    print(f"{'all':16} {total[0]:4} frames: joints inside in {total[1]:3}, skin in {total[2]:3}")
    print(json.dumps(table))


if __name__ == "__main__":
    main()
