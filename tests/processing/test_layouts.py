"""Known layouts, from small files made to their documented formats: which is recognised, and the rows they give."""

import json
from pathlib import Path

import pytest

from solami_hf.processing.datasets.layouts.find_layout import LAYOUTS, find_layout, read_rows, root_of
from solami_hf.processing.datasets.manifests import BadRow


def fill(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(source: Path, kind: str, expected: str) -> tuple[list[dict], dict[str, str]]:
    """Rows and faults of a source whose layout must be recognised as `expected`."""
    assert find_layout(source, kind) == expected
    rows = list(read_rows(source, kind, expected))
    bad = {row.id: row.reason for row in rows if isinstance(row, BadRow)}
    return [row for row in rows if not isinstance(row, BadRow)], bad


def test_humanml3d(tmp_path):
    fill(
        tmp_path,
        {
            "texts/000001.txt": "a man walks.#a/DET man/NOUN walk/VERB#0.0#0.0\nhe strolls.#he/PRON#nan#nan\n",
            "texts/M000001.txt": "a man turns right.#a/DET#0.0#0.0\nhe waves.#he/PRON#1.5#4.0\nhe waves.#x#4.0#1.5\n",
            "texts/000002.txt": "only the words are here.#x#0.0#0.0\n",
            "texts/000003.txt": "not in a list#x#0.0#0.0\n",
            "texts/000004.txt": "two#parts\n\n",
            "new_joint_vecs/000001.npy": b"",
            "new_joint_vecs/M000001.npy": b"",
            "motions/M000001.npz": b"",
            "new_joint_vecs/000003.npy": b"",
            "new_joint_vecs/000004.npy": b"",
            "train.txt": "000001\n000002\n000004\n",
            "test.txt": "M000001\n",
        },
    )
    rows, bad = read(tmp_path, "motion", "humanml3d")
    assert rows == [
        {
            "id": "000001",
            "motion": "new_joint_vecs/000001.npy",
            "text": ["a man walks.", "he strolls."],
            "source": "000001",
            "split": "train",
        },
        {
            "id": "M000001",
            "motion": "motions/M000001.npz",
            "text": ["a man turns right."],
            "source": "000001",
            "split": "test",
        },
        {
            "id": "M000001@1.5-4",
            "motion": "motions/M000001.npz",
            "text": ["he waves."],
            "source": "000001",
            "split": "test",
            "start": 1.5,
            "end": 4.0,
        },
    ]
    assert "end behind the start" in bad["M000001.txt:3"] and "has no motion" in bad["000002"]
    assert "in none of train.txt" in bad["000003"]
    assert "expected caption#tokens#start#end" in bad["000004.txt:1"] and "no caption" in bad["000004"]


def test_inter_x(tmp_path):
    name = "G001T000A000R000"
    fill(
        tmp_path,
        {
            f"motions/{name}/P1.npz": b"",
            f"motions/{name}/P2.npz": b"",
            f"texts/{name}.txt": "One person hugs the other.\nTwo people hug.\n",
            "motions/G001T000A001R000/P2.npz": b"",
            "motions/G001T000A002R000/notes.md": b"",
            "motions/G009T000A002R000/P1.npz": b"",
            "splits/train.txt": "G001T000A001R000\nG001T000A002R000\n",
            "splits/val.txt": f"{name}\n",
        },
    )
    rows, bad = read(tmp_path, "motion", "interx")
    pair = {"text": ["One person hugs the other.", "Two people hug."], "source": name, "split": "validation"}
    assert rows[:2] == [
        {"id": f"{name}_P1", "motion": f"motions/{name}/P1.npz", "partner_id": f"{name}_P2", **pair},
        {"id": f"{name}_P2", "motion": f"motions/{name}/P2.npz", "partner_id": f"{name}_P1", **pair},
    ]
    assert [(r["id"], r["partner_id"], r["text"]) for r in rows[2:]] == [
        ("G001T000A001R000_P2", "G001T000A001R000_P1", [])
    ]
    assert "neither P1 nor P2" in bad["G001T000A002R000"] and "in none of splits" in bad["G009T000A002R000"]


TEXTGRID = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        intervals [1]:
            text = "HH"
    item [2]:
        class = "IntervalTier"
        name = "words"
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 1
            text = "hello"
        intervals [2]:
            text = ""
        intervals [3]:
            text = "a ""friend"""
'''


def test_beat2(tmp_path):
    fill(
        tmp_path,
        {
            "smplxflame_30/2_scott_0_1_1.npz": b"",
            "smplxflame_30/2_scott_0_2_2.npz": b"",
            "smplxflame_30/2_scott_0_3_3.npz": b"",
            "wave16k/2_scott_0_1_1.wav": b"",
            "wave16k/2_scott_0_2_2.wav": b"",
            "textgrid/2_scott_0_1_1.TextGrid": TEXTGRID,
            "train_test_split.csv": "id,type\n2_scott_0_1_1,test\n2_scott_0_2_2,additional\n",
        },
    )
    rows, bad = read(tmp_path, "motion", "beat2")
    assert [(r["id"], r["split"], r["text"]) for r in rows] == [
        ("2_scott_0_1_1", "test", ['a person talks: hello a "friend"']),
        ("2_scott_0_2_2", "train", []),
    ]
    assert "is of type None" in bad["2_scott_0_3_3"]
    rows, bad = read(tmp_path, "speech", "beat2")
    turn = {"text": 'hello a "friend"', "audio": "wave16k/2_scott_0_1_1.wav", "speaker": "2_scott"}
    assert [r["turns"] for r in rows] == [[turn]] and "has no words" in bad["2_scott_0_2_2"]


def test_a_folder_of_motion_files(tmp_path):
    fill(tmp_path, {"sit_down-slowly.bvh": b"", "walk/01.bvh": b"", "walk/01.txt": "a walk\nwalking\n", "n.md": b""})
    rows, bad = read(tmp_path, "motion", "bvh")
    assert rows == [
        {"id": "sit_down-slowly", "motion": "sit_down-slowly.bvh", "text": ["sit down slowly"]},
        {"id": "walk/01", "motion": "walk/01.bvh", "text": ["a walk", "walking"]},
    ]
    assert not bad
    fill(tmp_path / "npz", {"a.npz": b"", "b.npz": b""})
    with pytest.raises(FileNotFoundError, match="npz files with captions beside them"):
        find_layout(tmp_path / "npz", "motion")
    fill(tmp_path / "npz", {"b.txt": "bows\n"})
    assert [r["text"] for r in read(tmp_path / "npz", "motion", "bvh")[0]] == [["a"], ["bows"]]


def test_common_voice(tmp_path):
    header = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent\n"
    fill(
        tmp_path,
        {
            "clips/common_voice_en_1.mp3": b"",
            "train.tsv": header + 'c1\tcommon_voice_en_1.mp3\tThe "big one.\t2\t0\t\t\t\n'
            "c2\tcommon_voice_en_2.mp3\t\t2\t0\t\t\t\n",
            "dev.tsv": header + "c3\told_3\tHello.\t2\t0\t\t\t\n",
            "other.tsv": header + "c4\tx.mp3\tHello.\t2\t0\t\t\t\n",
        },
    )
    rows, bad = read(tmp_path, "speech", "commonvoice")
    assert rows == [
        {
            "id": "common_voice_en_1",
            "turns": [{"text": 'The "big one.', "audio": "clips/common_voice_en_1.mp3", "speaker": "c1"}],
            "source": "c1",
            "split": "train",
        },
        {
            "id": "old_3",
            "turns": [{"text": "Hello.", "audio": "clips/old_3.mp3", "speaker": "c3"}],
            "source": "c3",
            "split": "validation",
        },
    ]
    assert bad == {"train.tsv:3": "lacks sentence"}
    rows, _ = read(tmp_path / "other.tsv", "speech", "commonvoice")
    assert [r["id"] for r in rows] == ["x"] and "split" not in rows[0]
    assert root_of(tmp_path / "other.tsv") == tmp_path


def test_ljspeech(tmp_path):
    lines = 'LJ001-0001|Printing, in 1 sense|Printing, in one sense\nLJ002-0002|only "this\nLJ003-0001|\na|b|c|d\n'
    fill(tmp_path / "LJSpeech-1.1", {"metadata.csv": lines, "wavs/LJ001-0001.wav": b""})
    rows, bad = read(tmp_path / "LJSpeech-1.1", "speech", "ljspeech")
    assert [(r["id"], r["source"], r["turns"][0]["text"]) for r in rows] == [
        ("LJ001-0001", "LJ001", "Printing, in one sense"),
        ("LJ002-0002", "LJ002", 'only "this'),
    ]
    assert rows[0]["turns"][0] | {"text": ""} == {
        "text": "",
        "audio": "wavs/LJ001-0001.wav",
        "speaker": "LJSpeech-1.1",
    }
    assert "is not id|text" in bad["LJ003-0001"] and "more cells" in bad["metadata.csv:4"]


def test_dialogues_in_the_manner_of_anyinstruct(tmp_path):
    turns = [{"role": "USER", "message": "hi", "speech": "a.mp3"}, {"role": "AnyGPT", "message": "ho", "speech": "b"}]
    lines = [{"id": 7, "chat": turns}, {"id": "x", "chat": ["hi"]}, {"id": "y"}, {"conversations": turns[:1]}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + "{broken\n"
    fill(tmp_path, {"metadata.jsonl": text})
    rows, bad = read(tmp_path, "speech", "anyinstruct")
    assert rows[0] == {
        "id": "7",
        "turns": [
            {"text": "hi", "audio": "a.mp3", "speaker": "USER"},
            {"text": "ho", "audio": "b", "speaker": "AnyGPT"},
        ],
        "source": "7",
    }
    assert rows[1]["id"] == "metadata-4"
    assert "no objects" in bad["x"] and "no list of turns" in bad["y"] and "is not JSON" in bad["metadata.jsonl:5"]
    assert read(tmp_path / "metadata.jsonl", "speech", "anyinstruct")[0] == rows


def test_plain_tables(tmp_path):
    text = "id,motion,caption,partner_id,start,end\na,x/a.npz,waves | greets,b,1,2.5\n,x/b.bvh,\n,,lost\n"
    fill(tmp_path / "m", {"manifest.csv": "\ufeff" + text})
    rows, bad = read(tmp_path / "m", "motion", "csv")
    piece = {"partner_id": "b", "start": "1", "end": "2.5"}
    assert rows == [
        {"id": "a", "motion": "x/a.npz", "text": ["waves", "greets"], **piece},
        {"id": "x/b.bvh", "motion": "x/b.bvh", "text": []},
        {"id": "manifest.csv:4", "text": "lost"},
    ]
    assert not bad
    fill(tmp_path, {"list.tsv": "file\tsentence\tspeaker\tsplit\nc.wav\thi there\tme\ttest\n"})
    rows, _ = read(tmp_path / "list.tsv", "speech", "csv")
    turn = {"text": "hi there", "audio": "c.wav", "speaker": "me"}
    assert rows == [{"id": "c.wav", "split": "test", "turns": [turn]}]
    lines = b'{"path": "d.wav", "text": "ho"}\n{"id": "e", "turns": []}\n[]\n\xff\n'
    fill(tmp_path, {"list.jsonl": lines})
    rows, bad = read(tmp_path / "list.jsonl", "speech", "manifest")
    turn = {"text": "ho", "audio": "d.wav", "speaker": ""}
    assert rows == [{"id": "d.wav", "turns": [turn]}, {"id": "e", "turns": []}]
    assert list(bad) == ["list.jsonl:3", "list.jsonl:4"] and "UTF-8" in bad["list.jsonl:4"]


def test_what_is_not_known_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no source"):
        find_layout(tmp_path / "none", "motion")
    with pytest.raises(FileNotFoundError, match=r"no chat data of a known layout; looked for: manifest.jsonl"):
        find_layout(tmp_path, "chat")
    with pytest.raises(FileNotFoundError, match="looked for: smplxflame_30/$"):
        find_layout(tmp_path, "motion", "beat2")
    with pytest.raises(ValueError, match="layout ljspeech holds no motion rows"):
        find_layout(tmp_path, "motion", "ljspeech")
    with pytest.raises(ValueError, match=f"expected auto or one of {', '.join(LAYOUTS)}"):
        find_layout(tmp_path, "motion", "kit")
