"""The face's curves as Live Link Face writes them, and as JSON; what is neither."""

import json

import numpy as np
import pytest

from solami_hf import cli
from solami_hf.processing.motion.face import FACE_UNITS
from solami_hf.processing.motion.formats.face_curves import read_curves, write_curves
from solami_hf.processing.motion.motion_io import write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion

# of a recording of the app, without the values
HEADER = (
    "Timecode,BlendShapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,EyeSquintLeft,"
    "EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,EyeSquintRight,"
    "EyeWideRight,JawForward,JawRight,JawLeft,JawOpen,MouthClose,MouthFunnel,MouthPucker,MouthRight,MouthLeft,"
    "MouthSmileLeft,MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,MouthDimpleRight,MouthStretchLeft,"
    "MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,MouthShrugUpper,MouthPressLeft,MouthPressRight,"
    "MouthLowerDownLeft,MouthLowerDownRight,MouthUpperUpLeft,MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,"
    "BrowOuterUpLeft,BrowOuterUpRight,CheekPuff,CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,"
    "TongueOut,HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
)


@pytest.fixture
def face():
    return np.random.default_rng(0).random((65, 52), np.float32)


def test_the_layout_is_the_apps(tmp_path, face):
    write_curves(tmp_path / "a.csv", face)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == HEADER and len(lines) == 66
    row = lines[64].split(",")
    assert row[:2] == ["00:00:02:03.000", "61"] and len(row) == 63
    assert float(row[2 + 15]) == pytest.approx(face[63, FACE_UNITS.index("jawRight")], abs=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_round_trip(tmp_path, face, suffix):
    write_curves(tmp_path / f"a{suffix}", face)
    assert np.abs(read_curves(tmp_path / f"a{suffix}") - face).max() < 2e-6


def test_other_rates_are_resampled(tmp_path, face):
    write_curves(tmp_path / "a.csv", face[:60])
    lines = (tmp_path / "a.csv").read_text().splitlines()
    for index, line in enumerate(lines[1:]):  # 60 frames a second
        lines[index + 1] = f"10:00:00:{index:02}.000,{line.split(',', 1)[1]}"
    (tmp_path / "b.csv").write_text("\n".join(lines))
    assert np.abs(read_curves(tmp_path / "b.csv") - face[:60:2]).max() < 1e-5
    (tmp_path / "c.json").write_text(json.dumps({"fps": 15, "names": FACE_UNITS, "frames": face[:3].tolist()}))
    found = read_curves(tmp_path / "c.json")
    assert len(found) == 5 and np.allclose(found[1], (face[0] + face[1]) / 2, atol=1e-6)


def test_a_motion_tells_how_the_head_turns(tmp_path, face):
    poses = np.zeros((65, 55, 3))
    poses[:, 15, 1] = 0.3  # to the person's left
    poses[:, 24, 0] = 0.1
    write_motion(tmp_path / "a.csv", SmplxMotion(np.zeros((65, 3)), poses), face)
    last = (tmp_path / "a.csv").read_text().splitlines()[-1].split(",")
    assert np.allclose([float(value) for value in last[54:]], [0.3, 0, 0, 0, 0, 0, 0, 0.1, 0], atol=1e-6)


def test_the_command_takes_the_face_of_a_motion(tmp_path, face):
    write_motion(tmp_path / "a.npz", SmplxMotion(np.zeros((65, 3)), np.zeros((65, 55, 3))), face)
    for source, target in (("a.npz", "a.csv"), ("a.csv", "b.json")):
        assert cli.main(["convert", "motion", str(tmp_path / source), str(tmp_path / target)]) == 0
    assert np.abs(read_curves(tmp_path / "b.json") - face).max() < 2e-6
    words = ["convert", "motion", str(tmp_path / "a.npz"), str(tmp_path / "a.glb"), "--face", str(tmp_path / "b.json")]
    assert cli.main(words) == 0 and b'"path":"weights"' in (tmp_path / "a.glb").read_bytes()


def csv_with(line: int, change):
    return lambda lines: [*lines[:line], change(lines[line]), *lines[line + 1 :]]


def cell(column: int, value: str):
    return lambda line: ",".join([*line.split(",")[:column], value, *line.split(",")[column + 1 :]])


BAD_CSV = {
    "empty": (lambda lines: [], "first row"),
    "blank lines": (lambda lines: ["", ""], "first row"),
    "no header": (lambda lines: lines[1:], "first row"),
    "header alone": (lambda lines: lines[:1], "0 frames"),
    "html": (lambda lines: ["<html>", "</html>"], "first row"),
    "a unit missing": (csv_with(0, lambda line: line.replace("JawOpen", "Chin")), "lacks jawOpen"),
    "no units": (csv_with(0, lambda line: "Timecode,BlendShapeCount"), "lacks eyeBlinkLeft"),
    "a unit twice": (csv_with(0, lambda line: line.replace("HeadYaw", "JawOpen")), "different names"),
    "short row": (csv_with(3, lambda line: line.rsplit(",", 3)[0]), "row 4 has 60 values"),
    "long row": (csv_with(3, lambda line: line + ",0.5"), "row 4 has 64 values"),
    "semicolons": (lambda lines: [line.replace(",", ";") for line in lines], "first row"),
    "no timecode": (csv_with(2, cell(0, "0.0333")), "row 3 .*timecode"),
    "words as timecode": (csv_with(2, cell(0, "aa:bb:cc:dd")), "row 3 .*timecode"),
    "negative timecode": (csv_with(2, cell(0, "-1:00:00:00")), "row 3 .*timecode"),
    "time that stands": (csv_with(2, cell(0, "00:00:00:00.000")), "steadily"),
    "time that goes back": (csv_with(3, cell(0, "00:00:00:00.000")), "steadily"),
    "time of years": (csv_with(6, cell(0, "99999999:00:00:00")), "steadily"),
    "word as value": (csv_with(2, cell(5, "open")), "row 3 holds something that is no number"),
    "empty value": (csv_with(2, cell(5, "")), "row 3 holds"),
    "NaN": (csv_with(2, cell(5, "nan")), "not finite"),
    "infinite": (csv_with(2, cell(5, "inf")), "not finite"),
    "percent": (csv_with(2, cell(5, "55.0")), "0 to 1"),
    "negative": (csv_with(2, cell(5, "-0.5")), "0 to 1"),
    "zero bytes": (csv_with(2, lambda line: "\0" * 20), "no usable face"),
}  # fmt: skip
GOOD = {"fps": 30, "names": list(FACE_UNITS), "frames": [[0.0] * 52] * 3}
BAD_JSON = {
    "nothing": ("", "no usable face"),
    "half": (json.dumps(GOOD)[:-9], "no usable face"),
    "list": ([], "expected {"),
    "number": (3, "expected {"),
    "deep": ("[" * 100_000, "no usable face"),
    "no names": ({"fps": 30, "frames": []}, "expected {"),
    "no frames": ({"fps": 30, "names": []}, "expected {"),
    "empty frames": (GOOD | {"frames": []}, "frames"),
    "frames of words": (GOOD | {"frames": [["a"] * 52]}, "no usable face"),
    "ragged frames": (GOOD | {"frames": [[0] * 52, [0] * 51]}, "no usable face"),
    "too few columns": (GOOD | {"frames": [[0] * 51]}, "shape"),
    "frames of frames": (GOOD | {"frames": [[[0] * 52]]}, "shape"),
    "objects": (GOOD | {"frames": [{"jawOpen": 1}]}, "no usable face"),
    "names of numbers": (GOOD | {"names": list(range(52))}, "words"),
    "a name twice": (GOOD | {"names": ["jawOpen", *FACE_UNITS[1:]]}, "lacks eyeBlinkLeft"),
    "foreign names": (GOOD | {"names": [f"key{i}" for i in range(52)]}, "lacks"),
    "no rate": ({key: GOOD[key] for key in ("names", "frames")}, "fps"),
    "rate 0": (GOOD | {"fps": 0}, "fps"),
    "rate of words": (GOOD | {"fps": "fast"}, "fps"),
    "beyond 1": (GOOD | {"frames": [[2] * 52]}, "0 to 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CSV)
def test_malformed_csv_is_refused_in_words(tmp_path, face, case):
    change, message = BAD_CSV[case]
    write_curves(tmp_path / "a.csv", face[:6])
    lines = (tmp_path / "a.csv").read_text().splitlines()
    (tmp_path / "bad.csv").write_text("\n".join(change(lines)))
    with pytest.raises(ValueError, match=message) as caught:
        read_curves(tmp_path / "bad.csv")
    assert "bad.csv" in str(caught.value)


@pytest.mark.parametrize("case", BAD_JSON)
def test_malformed_json_is_refused_in_words(tmp_path, case):
    content, message = BAD_JSON[case]
    (tmp_path / "bad.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        read_curves(tmp_path / "bad.json")
    assert "bad.json" in str(caught.value)


def test_other_files(tmp_path, face):
    with pytest.raises(FileNotFoundError, match="none.csv"):
        read_curves(tmp_path / "none.csv")
    for run in (lambda: read_curves(tmp_path / "a.txt"), lambda: write_curves(tmp_path / "a.txt", face)):
        with pytest.raises(ValueError, match=r"\.csv, \.json"):
            run()
    with pytest.raises(ValueError, match="52"):
        write_curves(tmp_path / "a.csv", face[:, :51])
    assert not list(tmp_path.iterdir())
