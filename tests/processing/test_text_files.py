"""Text of a user's files: byte order marks, other encodings, line ends."""

import json

import pytest

from solami_hf.processing.datasets.layouts.find_layout import find_layout, read_rows
from solami_hf.processing.datasets.layouts.motion_folders import textgrid_words
from solami_hf.processing.datasets.manifests import BadRow, read_manifest
from solami_hf.processing.files.text_files import read_json, read_lines, read_text, read_yaml
from solami_hf.processing.motion.formats.bvh import read_skeleton_motion
from solami_hf.processing.synthesize.scripts import read_characters, read_topics

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]
TEXT = "Zoë\nnaïve \u2028 caffè\n"


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_is_whole_in_every_encoding_that_tells_itself(tmp_path, encoding, ends):
    (tmp_path / "a.txt").write_bytes(TEXT.replace("\n", ends).encode(encoding))
    assert read_text(tmp_path / "a.txt") == TEXT
    assert list(read_lines(tmp_path / "a.txt")) == TEXT.splitlines(keepends=True)[:1] + [TEXT[4:]]
    assert list(read_lines(tmp_path / "a.txt", newline="")) == [f"Zoë{ends}", f"{TEXT[4:-1]}{ends}"]


@pytest.mark.parametrize(
    "data", ["Zoë".encode("cp1252"), "Zoë".encode("utf-16-le"), "Zoë".encode("utf-16")[:-1], "ё".encode("koi8-r")]
)
def test_other_encodings_are_refused(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(ValueError, match="a.txt .*save it as UTF-8, e.g. `iconv"):
        read_text(tmp_path / "a.txt")


def test_json_and_yaml_name_the_file(tmp_path):
    (tmp_path / "a.json").write_bytes('{"name": "Zoë"}'.encode("utf-16"))
    assert read_json(tmp_path / "a.json") == read_yaml(tmp_path / "a.json") == {"name": "Zoë"}
    for text in ("{", "[" * 100_000, "a: b: c", "- 2001-13-01 00:00:00"):
        (tmp_path / "b.txt").write_text(text)
        with pytest.raises(ValueError, match="b.txt is not JSON"):
            read_json(tmp_path / "b.txt")
        with pytest.raises(ValueError, match="b.txt is not YAML"):
            read_yaml(tmp_path / "b.txt")


ROWS = [{"id": name, "motion": f"{name}.npz", "text": [f"Zoë {name}"]} for name in "abc"]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_manifests_keep_their_first_row(tmp_path, encoding, ends):
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    (tmp_path / "manifest.jsonl").write_bytes(ends.join(lines).encode(encoding))
    assert read_manifest(tmp_path) == [{**row, "split": "train"} for row in ROWS]
    assert list(read_rows(tmp_path, "motion", find_layout(tmp_path, "motion"))) == ROWS
    (tmp_path / "t").mkdir()
    for suffix, comma in ((".csv", ","), (".tsv", "\t")):
        table = [("id", "motion", "text"), *((row["id"], row["motion"], row["text"][0]) for row in ROWS)]
        (tmp_path / f"t/list{suffix}").write_bytes(ends.join(map(comma.join, table)).encode(encoding))
        source = tmp_path / f"t/list{suffix}"
        assert list(read_rows(source, "motion", find_layout(source, "motion"))) == [
            {**row, "text": row["text"][0]} for row in ROWS
        ]


def test_manifests_that_were_joined(tmp_path):
    part = "\ufeff" + json.dumps(ROWS[0]) + "\n"
    (tmp_path / "manifest.jsonl").write_text(part + part.replace('"a"', '"b"'), encoding="utf-8")
    assert [row["id"] for row in read_manifest(tmp_path)] == ["a", "b"]


def test_rows_in_another_encoding_are_rejected_by_name_and_cost_no_other(tmp_path):
    table = "id,motion,text\na,a.npz,waves\nb,b.npz,Zoë\nc,c.npz,bows\n"
    (tmp_path / "list.csv").write_bytes(table.encode("cp1252"))
    first, bad, last = read_rows(tmp_path / "list.csv", "motion", "csv")
    assert (first["id"], last["id"]) == ("a", "c") and bad.id == "list.csv:3" and "0xEB" in bad.reason
    lines = "\n".join(json.dumps({"id": n, "text": t}, ensure_ascii=False) for n, t in (("a", "Zoë"), ("b", "bows")))
    (tmp_path / "list.jsonl").write_bytes(lines.encode("cp1252"))
    bad, good = read_rows(tmp_path / "list.jsonl", "motion", "manifest")
    assert "UTF-8" in bad.reason and good["id"] == "b"


LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "TextTier"
        name = "notes"
        xmin = 0
        xmax = 2
        points: size = 1
        points [1]:
            number = 1e-05
            mark = "noise"
    item [2]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 1
            text = "Zoë"
        intervals [2]:
            xmin = 1
            xmax = 1.5
            text = ""
        intervals [3]:
            xmin = 1.5
            xmax = 2
            text = "a ""friend"" of 3"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
2
<exists>
2
"TextTier"
"notes"
0
2
1
1e-05
"noise"
"IntervalTier"
"words"
0
2
3
0
1
"Zoë"
1
1.5
""
1.5
2
"a ""friend"" of 3"
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("form", [LONG, SHORT])
def test_textgrids(tmp_path, form, encoding):
    (tmp_path / "smplxflame_30").mkdir()
    (tmp_path / "textgrid").mkdir()
    (tmp_path / "smplxflame_30/a.npz").write_bytes(b"")
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "textgrid/a.TextGrid").write_bytes((mark + form).replace("\n", "\r\n").encode(encoding))
    (row,) = read_rows(tmp_path, "motion", find_layout(tmp_path, "motion"))
    assert row["text"] == ['a person talks: Zoë a "friend" of 3']


@pytest.mark.parametrize("form", [LONG, SHORT])
def test_textgrids_that_are_cut_short(form):
    for end in (form.index("noise"), form.index('""\n'), len(form) - 4):
        with pytest.raises(ValueError, match="cut short"):
            textgrid_words(form[:end])


def test_words_that_cannot_be_read_cost_one_row(tmp_path):
    for folder in ("smplxflame_30", "textgrid", "text"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        (tmp_path / f"smplxflame_30/{name}.npz").write_bytes(b"")
    (tmp_path / "textgrid/a.TextGrid").write_bytes(LONG.encode("cp1252"))
    (tmp_path / "textgrid/b.TextGrid").write_text("hello there")
    (tmp_path / "text/c.txt").write_text("hello there")
    bad, none, good = read_rows(tmp_path, "motion", "beat2")
    assert "a.TextGrid" in bad.reason and "b.TextGrid" in none.reason
    assert good["text"] == ["a person talks: hello there"]


@pytest.mark.parametrize("files", [
    {"texts/1.txt": "Zoë waves#x#0#0", "motions/1.npz": "", "motions/2.npz": "", "texts/2.txt": "a bow#x#0#0"},
    {"motions/1/P1.npz": "", "texts/1.txt": "Zoë waves", "motions/2/P1.npz": "", "texts/2.txt": "a bow"},
    {"1.bvh": "", "1.txt": "Zoë waves", "2.bvh": "", "2.txt": "a bow"},
])  # fmt: skip
def test_captions_that_cannot_be_read_cost_one_row(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text.encode("cp1252"))
    bad, good = read_rows(tmp_path, "motion", find_layout(tmp_path, "motion"))
    assert isinstance(bad, BadRow) and "1.txt" in bad.reason and good["text"] == ["a bow"]


def test_topics_and_characters(tmp_path):
    (tmp_path / "t.txt").write_bytes("café\r\nsea".encode("utf-16"))
    assert read_topics(tmp_path / "t.txt") == ["café", "sea"]
    (tmp_path / "c.yaml").write_bytes("zoe: {name: Zoë, system: You are Zoë.}".encode("utf-8-sig"))
    assert read_characters(tmp_path / "c.yaml")[0].name == "Zoë"
    for name, read in (("t.txt", read_topics), ("c.yaml", read_characters)):
        (tmp_path / name).write_bytes("Zoë: [".encode("cp1252"))
        with pytest.raises(ValueError, match=name):
            read(tmp_path / name)


BVH = """HIERARCHY
ROOT Hüfte
{
OFFSET 0 1 0
CHANNELS 3 Xposition Yposition Zposition
End Site
{
OFFSET 0 1 0
}
}
MOTION
Frames: 1
Frame Time: 0.03
1 2 3
"""


@pytest.mark.parametrize(("encoding", "name"), [("utf-16", "Hüfte"), ("utf-8-sig", "Hüfte"), ("cp1252", "H\\xfcfte")])
def test_skeletons_of_windows(tmp_path, encoding, name):
    (tmp_path / "a.bvh").write_bytes(BVH.replace("\n", "\r\n").encode(encoding))
    assert read_skeleton_motion(tmp_path / "a.bvh").names[0] == name
