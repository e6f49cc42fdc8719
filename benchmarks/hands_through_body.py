"""How often hands go through trunk, head and legs in the demo's gestures: `python benchmarks/hands_through_body.py`.

Counted are frames in which something of a hand lies inside the skin of the rest of the body (its generalised winding
number, Jacobson et al. 2013): a joint of the hand, which the motion alone implies, and a vertex of its mesh; before
and after `hands_off_body`. The last line is the table as JSON.
"""

import json
from dataclasses import replace

import numpy as np

from solami_hf.demo.corpus.gestures import GESTURES, make_gesture
from solami_hf.processing.motion.body import joint_positions
from solami_hf.processing.motion.mesh.body_mesh import body_mesh, skinned_vertices
from solami_hf.processing.motion.mesh.contact import hands_off_body

HANDS = (20, 21, *range(25, 55))
ARMS = (13, 14, 16, 17, 18, 19)
STEP, SEEDS = 10, (0,)
COLUMNS = ("frames", "joints_inside", "skin_inside", "joints_after", "skin_after")
LINE = "{:16} {:4} frames: joints inside in {:3}, skin in {:3}; led around joints in {:3}, skin in {:3}"


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
    table, total = {}, np.zeros(5, int)
    for name in GESTURES:
        counts = np.zeros(5, int)
        for seed in SEEDS:
            motion, _ = make_gesture(name, np.random.default_rng(seed))
            counts[0] += len(motion.poses[::STEP])
            for turn, shown in enumerate((motion, hands_off_body(motion))):
                joints = joint_positions(shown)[::STEP]
                few = replace(shown, transl=shown.transl[::STEP], poses=shown.poses[::STEP])
                for skin, bones in zip(skinned_vertices(few), joints, strict=True):
                    points = np.concatenate([bones[list(HANDS)], skin[hand]]).astype(np.float32)
                    inside = winding(points, skin[rest]) > 0.5
                    counts[1 + 2 * turn : 3 + 2 * turn] += [inside[: len(HANDS)].any(), inside[len(HANDS) :].any()]
        total += counts
        table[name] = dict(zip(COLUMNS, counts.tolist(), strict=True))
        print(LINE.format(name, *counts), flush=True)
    print(LINE.format("all", *total))
    print(json.dumps(table))


if __name__ == "__main__":
    main()
