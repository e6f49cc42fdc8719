"""Motion data sets of several people, from small files made to their documented formats: read, prepared, trained."""

import json
import logging

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from solami_hf.processing.audio.waveforms import write_audio
from solami_hf.processing.datasets.layouts.find_layout import find_layout, read_rows
from solami_hf.processing.datasets.manifests import BadRow
from solami_hf.processing.datasets.token_dataset import load_tokens
from solami_hf.processing.motion.body import (
    SMPLX_JOINT_NAMES,
    SMPLX_PARENTS,
    joint_positions,
    standing_height,
    standing_joints,
)
from solami_hf.processing.motion.formats.susu import susu_skeleton
from solami_hf.processing.motion.motion_io import read_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from solami_hf.processing.prepare import prepare
from solami_hf.processing.rendering import TokenRenderer

RATE = 16000


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def spoken(path, seconds, *spans):
    """Sound of so many seconds that is silent but for some spans."""
    times = np.arange(round(seconds * RATE)) / RATE
    loud = sum(((start <= times) & (times < end)).astype(float) for start, end in spans) + 0 * times
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, (0.2 * loud * np.sin(900 * times)).astype(np.float32), RATE)


CAPTURE = "c--20250108--1300--AAA111--BBB222--pilot--EMOTIONS_happy--000100-000399"
ALONE = "c--20250109--0900--CCC333--pilot--LOCOMOTION_high_kicks--000010-000069"
NOTED = "c--20250110--1000--DDD444--EEE555--pilot--ACTING_party--000301-000900"


def embody_person(section, capture, person, frames, **changes):
    features = {
        "smplx_mesh_transl": np.tile(np.float32([0.1, 1.3, 2.0]), (frames, 1)),
        "smplx_mesh_global_orient": np.zeros((frames, 3), np.float32),
        "smplx_mesh_body_pose": np.full((frames, 63), 0.1, np.float32),
        "smplx_mesh_left_hand_pose": np.full((frames, 45), 0.2, np.float32),
        "smplx_mesh_right_hand_pose": np.full((frames, 45), 0.3, np.float32),
        "smplx_mesh_betas": np.zeros((frames, 300), np.float32),
        "missing": np.ones(frames, np.int64),
    }
    for name, values in (features | changes).items():
        save(section / capture / person / name / f"{capture}.npy", values)


def embody3d(folder):
    section = folder / "emotions"
    for person in ("AAA111", "BBB222"):
        embody_person(section, CAPTURE, person, 300)
    for person in ("DDD444", "EEE555"):
        embody_person(section, NOTED, person, 600)
    embody_person(section, ALONE, "CCC333", 60)
    spoken(section / CAPTURE / "AAA111/separated_audio" / f"{CAPTURE}.wav", 10, (0.5, 3.0), (6.0, 8.0))
    spoken(section / CAPTURE / "BBB222/audio_separated" / f"{CAPTURE}.wav", 10, (1.0, 1.4), (2.8, 5.0), (8.5, 9.5))
    for person in ("DDD444", "EEE555"):
        notes = section / NOTED / person / "text_annotations" / f"{NOTED}.json"
        notes.parent.mkdir()
        told = {"301": {"describe_person_movement": [f"{person} dances."], "is_active": "yes"}, "601": {"mood": "gay"}}
        notes.write_text(json.dumps(told))
    facts = {"length": 300, "id": 0, "text": None, "multiperson": None, "audio": None}
    both = {"multiperson": ["other"], "audio": "/far/away.wav"}
    listed = {
        "AAA111": {CAPTURE: facts | both}, "BBB222": {CAPTURE: facts | both},
        "CCC333": {f"{ALONE}.npy".removesuffix(".npy"): facts | {"text": "high_kicks"}},
        "DDD444": {NOTED: facts | {"text": "/far/away.json"}}, "EEE555": {NOTED: facts | {"text": "/far/away.json"}},
    }  # fmt: skip
    (section / "dataset.json").write_text(json.dumps(listed))
    return folder


def read(source, kind, layout):
    assert find_layout(source, kind) == layout
    rows = list(read_rows(source, kind, layout))
    bad = {row.id: row.reason for row in rows if isinstance(row, BadRow)}
    return [row for row in rows if not isinstance(row, BadRow)], bad


MIRROR = np.diag([1.0, -1.0, 1.0])


def susu_arrays(frames, **turned):
    """A person in T-pose who faces +z, in Unreal's left-handed way; `turned`: joint -> more rotation in the world."""
    names, parents, _ = susu_skeleton()
    up_along_x = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]])  # columns: where x, y and z of a bone point
    arm = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    worlds = {}
    for name in names:
        leg, side = name.split("_")[0] in ("thigh", "calf", "foot", "ball"), name[-2:]
        world = np.eye(3) if side in ("_l", "_r") and not leg else up_along_x
        worlds[name] = world @ np.diag([-1, -1, 1]) if leg and side == "_r" else world
    assert np.linalg.det(up_along_x) == 1 and np.array_equal(arm, np.eye(3))
    for joint, more in turned.items():
        below = {joint}
        for name, parent in zip(names, parents, strict=True):
            if parent >= 0 and names[parent] in below:
                below.add(name)
        for name in below:
            worlds[name] = Rotation.from_rotvec(more).as_matrix() @ worlds[name]
    locals_ = []
    for name, parent in zip(names, parents, strict=True):
        local = worlds[names[parent]].T @ worlds[name] if parent >= 0 else worlds[name]
        local = MIRROR @ local @ MIRROR
        locals_.append(Rotation.from_euler("x", -90, degrees=True).as_matrix() @ local if parent < 0 else local)
    sixes = np.stack(locals_)[:, :, :2].transpose(0, 2, 1).reshape(63, 6)
    body = np.concatenate([[10.0, 20.0, 102.0], sixes[:25].reshape(-1)])
    hands = [np.concatenate([sixes[wrist : wrist + 1], sixes[first : first + 19]]).reshape(-1)
             for wrist, first in ((23, 25), (24, 44))]  # fmt: skip
    rows = [np.tile(row, (frames, 1)).astype(np.float32) for row in (body, *hands)]
    rows[0][:, 0] += np.linspace(0, 50, frames)  # half a metre to the side
    return dict(zip(("body", "left", "right"), rows, strict=True))


def susu(folder):
    for name in ("day1/a_001", "day1/a_002", "b_001"):
        save(folder / "motion_data" / f"{name}.npy", susu_arrays(40))
        spoken(folder / "wav_data" / f"{name}.wav", 2, (0.2, 1.8))
    lines = {
        "day1/a_001": "【表情：认真聆听】【动作：缓慢点头】嗯嗯，这样啊", "day1/a_002": "【动作：挥手】",
        "b_001": {"expression": "smile", "action": None, "dialogue": "hello"}, "c_001": "lost", "d_001": 7,
    }  # fmt: skip
    for place, text in {
        "text_data/motion2text.json": json.dumps(lines),
        "split/train_file_list.txt": "day1/a_001\nday1/a_002\nc_001\nd_001\n", "split/test_file_list.txt": "b_001\n",
    }.items():  # fmt: skip
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text(text)
    return folder


def interhuman_vectors(motion):
    """What InterHuman has of a motion: z up, 62 joints and 51 rotations, of which only the body's are known."""
    places = joint_positions(motion)[:, :22] @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    matrices = Rotation.from_rotvec(motion.poses[:, 1:22].reshape(-1, 3)).as_matrix().reshape(-1, 21, 3, 3)
    values = np.zeros((motion.num_frames, 492), np.float32)
    values[:, :66], values[:, 186:312] = places.reshape(-1, 66), matrices[..., :2].reshape(-1, 126)
    return values


def moving(frames, turn=0.3):
    """A body that stands with its lowest joint where a standing body's is, turned and bent a little."""
    rng = np.random.default_rng(0)
    poses = np.tile(rng.normal(size=(55, 3)) * 0.2, (frames, 1, 1)) * np.linspace(0.5, 1, frames)[:, None, None]
    poses[:, 0] = [0, turn, 0]
    poses[:, [1, 2, 4, 5, 7, 8, 10, 11]] = 0
    transl = np.tile([1.0, standing_height(), -2.0], (frames, 1)) + np.linspace(0, 1, frames)[:, None] * [1, 0, 0]
    return SmplxMotion(transl, poses)


def from_t_pose(frames):
    """A motion whose first frame alone stands straight."""
    motion = moving(frames)
    motion.poses[0], motion.poses[1:, 4:6] = 0, [0.3, 0, 0]
    return motion


def interhuman(folder):
    for person in (1, 2):
        save(folder / f"motions_processed/person{person}/12.npy", interhuman_vectors(moving(30, person)))
    for name in ("7", "9", "13"):
        save(folder / f"motions_processed/person1/{name}.npy", interhuman_vectors(moving(30)))
    for name in ("12", "9", "13"):
        (folder / "annots").mkdir(exist_ok=True)
        (folder / f"annots/{name}.txt").write_text("Two people bow.\nThey greet each other.\n")
    (folder / "split").mkdir()
    (folder / "split/train.txt").write_text("12\n7\n9\n13\n")
    (folder / "split/ignore_list.txt").write_text("9\n")
    return folder


FINGERS = ("Thumb", "Index", "Middle", "Ring", "Pinky")
SOMA = [("Root", None), ("Hips", "Root"), ("Spine1", "Hips"), ("Spine2", "Spine1"), ("Chest", "Spine2"),
        ("Neck1", "Chest"), ("Neck2", "Neck1"), ("Head", "Neck2"), ("HeadEnd", "Head"), ("Jaw", "Head")]  # fmt: skip
for _side in ("Left", "Right"):
    for _chain in ("Head Eye", "Chest Shoulder Arm ForeArm Hand", "Hips Leg Shin Foot ToeBase ToeEnd"):
        _parent, *_links = _chain.split()
        for _link in _links:
            SOMA.append((_side + _link, _parent))
            _parent = _side + _link
    for _finger in FINGERS:
        _parent = _side + "Hand"
        for _number in (*range(1, 4 if _finger == "Thumb" else 5), "End"):
            SOMA.append((f"{_side}Hand{_finger}{_number}", _parent))
            _parent = SOMA[-1][0]
_OF_SOMA = {
    "Hips": "pelvis", "Spine1": "spine1", "Spine2": "spine2", "Chest": "spine3", "Neck2": "neck", "Head": "head",
    "Jaw": "jaw", "Eye": "eye_smplhf", "Shoulder": "collar", "Arm": "shoulder", "ForeArm": "elbow", "Hand": "wrist",
    "Leg": "hip", "Shin": "knee", "Foot": "ankle", "ToeBase": "foot",
}  # fmt: skip


def smplx_name(name):
    """SMPL-X's name of a joint of SOMA, None for those that it lacks."""
    side = next((s for s in ("Left", "Right") if name.startswith(s)), "")
    part, of_side = name[len(side) :], f"{side.lower()}_" if side else ""
    finger = next((f for f in FINGERS if f in part), None)
    if finger is None:
        return of_side + _OF_SOMA[part] if part in _OF_SOMA else None
    number = part[len("Hand" + finger) :]
    link = 0 if number == "End" else int(number) - (finger != "Thumb")
    return f"{of_side}{finger.lower()}{link}" if link else None


def below(name):
    """A joint of SOMA and all that hang on it, as a file has them."""
    return [name, *(joint for child, parent in SOMA if parent == name for joint in below(child))]


def soma_bvh(motion):
    """A motion on a skeleton of SOMA's joints whose rest pose is nonsense, as its bones have axes of their own."""
    names, rest = SMPLX_JOINT_NAMES.index, standing_joints()
    rng, places, worlds, offsets = np.random.default_rng(3), {}, {}, {}
    for name, parent in SOMA:
        known = smplx_name(name)
        worlds[name] = Rotation.random(random_state=rng) if parent else Rotation.identity()
        if known:
            places[name] = rest[names(known)]
        elif name.endswith("End"):
            places[name] = 2 * places[parent] - places[dict(SOMA)[parent]]
        else:
            places[name] = places[parent] + [0, 0.03, 0] if parent else np.zeros(3)
        offsets[name] = worlds[parent].inv().apply(places[name] - places[parent]) * 100 if parent else np.zeros(3)
    turned = [Rotation.identity()] * 55
    frames = []
    for poses, pelvis in zip(motion.poses, motion.pelvis, strict=True):
        for joint, parent in enumerate(SMPLX_PARENTS):
            local = Rotation.from_rotvec(poses[joint])
            turned[joint] = local if parent < 0 else turned[parent] * local
        of_frame, row = {"Root": Rotation.identity()}, [0.0] * 6
        for name, parent in SOMA[1:]:
            known = smplx_name(name)
            above = of_frame[parent] * worlds[parent].inv()
            of_frame[name] = (turned[names(known)] if known else above) * worlds[name]
        for name in below("Root")[1:]:
            local = of_frame[dict(SOMA)[name]].inv() * of_frame[name]
            row += [*(pelvis * 100 if name == "Hips" else ()), *local.as_euler("ZYX", True)]
        frames.append(" ".join(f"{value:.6f}" for value in row))

    def lines(name, parent):
        word, turn = "JOINT" if parent else "ROOT", "Zrotation Yrotation Xrotation"
        channels = f"6 Xposition Yposition Zposition {turn}" if name in ("Root", "Hips") else f"3 {turn}"
        inside = [line for child, its in SOMA if its == name for line in lines(child, name)]
        inside = inside or ["End Site", "{", "OFFSET 0 0 0", "}"]
        return [f"{word} {name}", "{", "OFFSET {:.6f} {:.6f} {:.6f}".format(*offsets[name]), f"CHANNELS {channels}",
                *inside, "}"]  # fmt: skip

    head = ["HIERARCHY", *lines("Root", None), "MOTION", f"Frames: {len(frames)}", "Frame Time: 0.008333"]
    return "\n".join([*head, *frames]) + "\n"


def seed(folder):
    place = "soma_uniform/bvh/230101"
    (folder / place).mkdir(parents=True)
    motion = from_t_pose(40)
    for name in ("wave_001__A001", "wave_001__A001_M"):
        (folder / place / f"{name}.bvh").write_text(soma_bvh(motion))
    (folder / place / "cut_001__A001.bvh").write_text(soma_bvh(moving(2))[:9000])
    (folder / "metadata").mkdir()
    columns = "filename,move_soma_uniform_path,content_natural_desc_1,content_natural_desc_2,content_short_description"
    rows = [f'{name},{place}/{name}.bvh,"A person waves, twice.",They wave.,They wave.'
            for name in ("wave_001__A001", "wave_001__A001_M", "cut_001__A001", "gone_001__A001")]  # fmt: skip
    (folder / "metadata/seed_metadata_v003.csv").write_text("filename\nold\n")
    (folder / "metadata/seed_metadata_v004.csv").write_text("\n".join([columns, *rows, ",x.bvh,lost,,"]) + "\n")
    events = [{"start_time": 0.0, "end_time": 0.15, "description": "Lifts a hand."},
              {"start_time": 0.15, "end_time": 0.3, "description": "Waves."}, {"start_time": 1.0}]  # fmt: skip
    labels = [json.dumps({"filename": "wave_001__A001", "events": events}), '{"filename": 3}', "{half"]
    (folder / "metadata/seed_metadata_v002_temporal_labels.jsonl").write_text("\n".join(labels))
    return folder


def beat2(folder):
    for language, name, folder_of in (("english", "2_scott_0_1_1", "smplxflame_30"),
                                      ("chinese", "12_zhao_2_1_1", "smplxflame_25")):  # fmt: skip
        place = folder / f"beat_{language}_v2.0.0"
        arrays = {"betas": np.zeros(300), "poses": np.full((50, 165), 0.1), "expressions": np.zeros((50, 100)),
                  "trans": np.tile([0, 1.2, 0], (50, 1)), "model": "smplx2020", "gender": "neutral",
                  "mocap_frame_rate": int(folder_of[-2:])}  # fmt: skip
        (place / folder_of).mkdir(parents=True)
        np.savez(place / folder_of / f"{name}.npz", **arrays)
        (place / folder_of / "broken.npz").write_bytes(b"PK")
        spoken(place / "wave16k" / f"{name}.wav", 2, (0.2, 1.8))
        words = "whisper_transcription" if language == "chinese" else "textgrid"
        (place / words).mkdir()
        (place / words / f"{name}.TextGrid").write_text(
            'File type = "ooTextFile"\n"TextGrid"\n0\n2\n<exists>\n1\n"IntervalTier"\n"words"\n0\n2\n1\n0\n2\n'
            f'"{language}"\n'
        )
        (place / "train_test_split.csv").write_text(f"id,type\n{name},train\nbroken,train\n")
    return folder


SETS = {
    "interhuman": (interhuman, ("motion",), "CC BY-NC-SA 4.0"),
    "seed": (seed, ("motion",), "Bones Studio"),
    "beat2": (beat2, ("motion", "speech"), "CC BY-NC 4.0"),
    "embody3d": (embody3d, ("motion", "chat"), "XRCIA"),
    "susu": (susu, ("motion", "speech"), "CC BY-NC 4.0"),
}


def test_embody3d_rows(tmp_path):
    rows, bad = read(embody3d(tmp_path), "motion", "embody3d")
    by_id = {row["id"]: row for row in rows}
    assert by_id[f"{ALONE}/CCC333"]["text"] == ["high kicks"] and "partner_id" not in by_id[f"{ALONE}/CCC333"]
    piece = by_id[f"{NOTED}/DDD444@0-10"]
    assert piece["text"] == ["DDD444 dances."] and piece["partner_id"] == f"{NOTED}/EEE555@0-10"
    assert piece["source"] == "c--20250110--1000" and piece["end"] == 10
    talk = by_id[f"{CAPTURE}/AAA111@0.50-3.00"]
    assert talk["text"] == ["a person talks"] and talk["partner_id"] == f"{CAPTURE}/BBB222@0.50-3.00"
    assert list(bad) == [f"{NOTED}/{person}@601" for person in ("DDD444", "EEE555")]
    rows, bad = read(tmp_path, "chat", "embody3d")
    assert [(row["id"], len(row["turns"])) for row in rows] == [(f"{CAPTURE}/AAA111#0", 2), (f"{CAPTURE}/BBB222#0", 4)]
    assert rows[1]["turns"][0]["back_channels"] == [(1.0, 1.4)] and rows[1]["turns"][1]["start"] == 2.8
    assert "has no sound" in bad[ALONE]
    embody_person(tmp_path / "emotions", CAPTURE, "BBB222", 300, missing=np.arange(300) > 280)
    (tmp_path / "emotions" / CAPTURE / "AAA111/separated_audio" / f"{CAPTURE}.wav").write_bytes(b"RIFF")
    assert CAPTURE in read(tmp_path, "chat", "embody3d")[1]
    (tmp_path / "acting").mkdir()
    (tmp_path / "acting/dataset.json").write_text("[1")
    assert "is not JSON" in read(tmp_path, "motion", "embody3d")[1]["acting/dataset.json"]


def test_embody3d_motion(tmp_path):
    moved = np.zeros((60, 3), np.float32)
    moved[20:30] = 9.0  # nonsense where the tracking was lost
    embody_person(tmp_path, ALONE, "CCC333", 60, smplx_mesh_global_orient=moved,
                  missing=np.where((np.arange(60) // 10) == 2, 0, 1))  # fmt: skip
    path = tmp_path / ALONE / "CCC333/smplx_mesh_body_pose" / f"{ALONE}.npy"
    motion = read_motion(path)
    assert motion.num_frames == 60 and motion.fps == 30 and len(motion.betas) == 10
    np.testing.assert_allclose(motion.poses[:, [0, 5, 30, 50]].mean((0, 2)), [0, 0.1, 0.2, 0.3], atol=1e-6)
    np.testing.assert_allclose(motion.pelvis[0], np.float32([0.1, 1.3, 2.0]) + [0.003, -0.351, 0.012], atol=1e-6)
    for name, values, told in (
        ("smplx_mesh_transl", np.zeros((60, 4), np.float32), r"shape \(60, 4\) of float32, expected \(T, 3\)"),
        ("smplx_mesh_body_pose", np.zeros((59, 63), np.float32), "has 59 frames"),
        ("missing", np.zeros(60), "0 of its 60 frames are valid"),
        ("missing", np.ones(61), "`missing` has 61 frames"),
        ("smplx_mesh_left_hand_pose", np.array([{}] * 60), "smplx_mesh_left_hand_pose, .* pickled"),
    ):
        embody_person(tmp_path, ALONE, "CCC333", 60, **{name: values})
        with pytest.raises(ValueError, match=told):
            read_motion(path)
    (path.parent.parent / "smplx_mesh_transl" / path.name).unlink()
    with pytest.raises(ValueError, match="it lacks smplx_mesh_transl"):
        read_motion(path)


def test_susu_rows(tmp_path):
    rows, bad = read(susu(tmp_path), "motion", "susu")
    assert [(r["id"], r["text"], r["source"], r["split"]) for r in rows] == [
        ("b_001", ["smile"], "b_001", "test"), ("day1/a_001", ["缓慢点头"], "day1", "train"),
        ("day1/a_002", ["挥手"], "day1", "train"),
    ]  # fmt: skip
    assert bad["c_001"] == "has no motion_data/c_001.npy" and "expected text" in bad["d_001"]
    rows, bad = read(tmp_path, "speech", "susu")
    turn = {"text": "嗯嗯，这样啊", "audio": "wav_data/day1/a_001.wav", "speaker": "SuSu"}
    assert [row["turns"] for row in rows][1] == [turn] and "has no words" in bad["day1/a_002"]


def test_susu_motion(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, susu_arrays(20))
    motion = read_motion(path, fps=None)
    assert motion.fps == 20 and motion.num_frames == 20
    np.testing.assert_allclose(motion.poses[:, :16], 0, atol=0.12)  # upright, facing +z; the spine has its curve
    places = joint_positions(motion)
    names = SMPLX_JOINT_NAMES.index
    assert places[0, names("left_wrist"), 0] > places[0, names("right_wrist"), 0] + 1
    assert (places[0, names("left_foot")] - places[0, names("left_ankle")])[2] > 0.08
    step = motion.pelvis[-1] - motion.pelvis[0]
    assert 0.4 < step[0] < 0.6 and abs(step[1]) < 1e-5 and abs(step[2]) < 1e-5
    np.save(path, susu_arrays(20, upperarm_l=[0, 0, 1.0], upperarm_r=[0, 0, 0.5], pelvis=[0, 0.7, 0]))
    bent = read_motion(path, fps=None)
    turned = Rotation.from_rotvec(bent.poses[0]).as_matrix()
    np.testing.assert_allclose(Rotation.from_matrix(turned[0]).as_rotvec(), [0, 0.7, 0], atol=0.02)
    lifted = joint_positions(bent)[0]
    assert lifted[names("left_wrist"), 1] > lifted[names("left_shoulder"), 1] + 0.3  # the left one is raised ...
    assert lifted[names("right_wrist"), 1] < lifted[names("right_shoulder"), 1] - 0.15  # ... the right one hangs


class Evil:
    def __reduce__(self):
        return print, ("it ran",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"body": Evil()}, "print in place of an array"),
        ([Evil()], "no dictionary of arrays"),
        ({"body": np.zeros((4, 153)), "left": np.zeros((4, 120))}, "it lacks right"),
        ({"body": np.zeros((4, 153)), "left": np.zeros((4, 120)), "right": np.zeros((3, 120))}, "`right` has shape"),
        ({"body": np.full((4, 153), np.nan), "left": np.zeros((4, 120)), "right": np.zeros((4, 120))}, "NaN"),
        ({"body": np.array(["x"]), "left": 1, "right": 2}, "array of"),
    ],
)
def test_susu_files_are_never_unpickled(tmp_path, content, told, capsys):
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(ValueError, match=told):
        read_motion(tmp_path / "a.npy")
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "b.npy").write_bytes(data[: len(data) - 20])
    with pytest.raises(ValueError, match=r"b\.npy"):
        read_motion(tmp_path / "b.npy")
    assert "it ran" not in capsys.readouterr().out


def test_interhuman(tmp_path):
    rows, bad = read(interhuman(tmp_path), "motion", "interhuman")
    first = {"text": ["Two people bow.", "They greet each other."], "source": "12", "split": "train"}
    assert rows[0] == first | {
        "id": "12_P1", "motion": "motions_processed/person1/12.npy", "partner_id": "12_P2",
    }  # fmt: skip
    assert [row["id"] for row in rows] == ["12_P1", "12_P2", "13_P1"]
    assert bad == {"7": "has no annots/7.txt", "9": "is in split/ignore_list.txt"}
    told = moving(30, 2)
    motion = read_motion(tmp_path / "motions_processed/person2/12.npy")
    np.testing.assert_allclose(motion.poses[:, :22], told.poses[:, :22], atol=1e-4)
    np.testing.assert_allclose(joint_positions(motion)[:, :22], joint_positions(told)[:, :22], atol=1e-4)
    save(tmp_path / "a.npy", np.zeros((5, 492), np.float32))
    with pytest.raises(ValueError, match=r"a\.npy .* its rotations are none"):
        read_motion(tmp_path / "a.npy")
    save(tmp_path / "a.npy", np.full((5, 492), np.inf, np.float32))
    with pytest.raises(ValueError, match="NaN or infinite"):
        read_motion(tmp_path / "a.npy")


def test_bones_seed(tmp_path):
    rows, bad = read(seed(tmp_path), "motion", "seed")
    assert [row["id"] for row in rows] == [
        "wave_001__A001", "wave_001__A001_M", "cut_001__A001", "wave_001__A001@0-0.15", "wave_001__A001@0.15-0.3",
    ]  # fmt: skip
    assert rows[0]["text"] == ["A person waves, twice.", "They wave."] and rows[1]["source"] == "wave_001__A001"
    assert rows[4]["text"] == ["Waves."] and (rows[4]["start"], rows[4]["end"]) == (0.15, 0.3)
    labels = "seed_metadata_v002_temporal_labels.jsonl"
    assert bad["gone_001__A001"].endswith("gone_001__A001.bvh; unpack its archive") and "no list" in bad[f"{labels}:2"]
    assert bad["seed_metadata_v004.csv:6"] == "has no filename" and "is not JSON" in bad[f"{labels}:3"]
    assert "without start_time" in bad[f"{labels}:1"]
    told = from_t_pose(40)
    motion = read_motion(tmp_path / rows[0]["motion"], fps=None)
    assert motion.fps == 120 and len(SOMA) == 78
    skipped = {22, 23, 24}  # jaw and eyes
    joints = [joint for joint in range(55) if joint not in skipped]
    difference = (
        Rotation.from_rotvec(motion.poses[:, joints].reshape(-1, 3))
        * Rotation.from_rotvec(told.poses[:, joints].reshape(-1, 3)).inv()
    )
    assert difference.magnitude().max() < 0.02, "fingers too, which begin a link later"
    np.testing.assert_allclose(motion.pelvis, told.pelvis, atol=2e-3)


def test_beat2_as_the_hub_has_it(tmp_path):
    rows, bad = read(beat2(tmp_path), "motion", "beat2")
    assert [(row["id"], row["motion"], row["text"]) for row in rows if row["id"] != "broken"] == [
        ("12_zhao_2_1_1", "beat_chinese_v2.0.0/smplxflame_25/12_zhao_2_1_1.npz", ["a person talks: chinese"]),
        ("2_scott_0_1_1", "beat_english_v2.0.0/smplxflame_30/2_scott_0_1_1.npz", ["a person talks: english"]),
    ]
    motion = read_motion(tmp_path / "beat_chinese_v2.0.0/smplxflame_25/12_zhao_2_1_1.npz")
    assert motion.num_frames == 59  # 2 s less a frame, 25 a second
    (tmp_path / "beat_english_v2.0.0/train_test_split.csv").write_text("id,type\n")
    assert "is of type None" in read(tmp_path, "motion", "beat2")[1]["beat_english_v2.0.0/2_scott_0_1_1"]


def test_inter_x_texts_with_tokens(tmp_path):
    for name, text in (("motions/G001T000A000R000/P1.npz", ""),
                       ("texts_processed/G001T000A000R000.txt", "Two people hug.#two/NUM people/NOUN\n")):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert read(tmp_path, "motion", "interx")[0][0]["text"] == ["Two people hug."]


def blocks(row):
    """A row's turn or motion as content blocks."""
    motion = {name: row[name] for name in ("body", "hand", "trans") if row.get(name)}
    found = [{"type": "text", "text": row["text"]}] if isinstance(row["text"], str) and row["text"] else []
    found += [{"type": "motion", "motion": motion}] if motion else []
    return found + ([{"type": "audio", "audio": {"codes": row["speech"]}}] if row.get("speech") else [])


@pytest.mark.parametrize("layout", SETS)
def test_prepared_loaded_and_one_step(layout, tmp_path, tiny_processor, tiny_model, caplog):
    build, kinds, licence = SETS[layout]
    source, out = build(tmp_path / "source"), tmp_path / "out"
    renderer, samples = TokenRenderer(tiny_processor.tokenizer, tiny_processor), []
    for kind in kinds:
        with caplog.at_level(logging.WARNING):
            found = prepare(kind, source, tiny_processor, out)
        assert sum(licence in record.getMessage() for record in caplog.records) == 1
        caplog.clear()
        split = next(name for name in ("train", "validation", "test") if found.get(name))
        row = load_tokens(out, kind, split, tiny_processor)[0]
        if kind == "motion":
            text = {"type": "text", "text": row["text"][0]}
            samples.append(renderer.task("Do this.", text, blocks({**row, "text": ""})[0]))
        elif kind == "chat":
            assert all(len(turn["trans"]) == 1 for turn in row["turns"])
            messages = [{"role": turn["role"], "content": blocks(turn)} for turn in row["turns"][:2]]
            samples.append(renderer.chat(messages))
    optimizer = torch.optim.SGD(tiny_model.parameters(), lr=0.1)
    before = tiny_model.get_input_embeddings().weight.clone()
    for sample in samples:
        batch = {name: torch.from_numpy(values)[None] for name, values in sample.items()}
        loss = tiny_model(**batch).loss
        assert torch.isfinite(loss)
        loss.backward()
    optimizer.step()
    assert not torch.equal(before, tiny_model.get_input_embeddings().weight)
