"""Which names are media, and the files of folders: links, loops, and what is left out."""

import logging

import pytest
import soundfile

from solami_hf.generation.chat import user_message
from solami_hf.hub_cards.repository_files import kind_of
from solami_hf.processing.convert_command import convert_motion
from solami_hf.processing.datasets.layouts.find_layout import find_layout, read_rows
from solami_hf.processing.datasets.manifests import BadRow
from solami_hf.processing.hub_upload import files_of, refusals
from solami_hf.processing.media_files import SOUND_SUFFIXES, files_below, find_media
from solami_hf.processing.motion.motion_io import read_motion, write_motion
from solami_hf.training.speech_recordings import read_recordings


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with files in it, in which a person chats."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.opus", "a.WAV", "a b.wav", "hello, world.wav", "a,b,c.npz", "memo.m4a", "a.webm", "walk.fbx", "wave.pkl",
        "clip.mp4", "notes.pdf", "talk", "license",
    ):  # fmt: skip
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder").mkdir()
    return tmp_path


def block(kind, name):
    return {"type": kind, kind: name}


@pytest.mark.parametrize(
    ("turn", "content"),
    [
        ("a.opus", [block("audio", "a.opus")]),
        (" a.WAV ", [block("audio", "a.WAV")]),
        ("a b.wav", [block("audio", "a b.wav")]),
        ("hello, world.wav", [block("audio", "hello, world.wav")]),
        ("hello, world.wav,a,b,c.npz", [block("audio", "hello, world.wav"), block("motion", "a,b,c.npz")]),
        ("a.opus,a,b,c.npz,hi", [block("audio", "a.opus"), block("motion", "a,b,c.npz"), block("text", "hi")]),
        ("hello.", [block("text", "hello.")]),
        ("see you at 5.30", [block("text", "see you at 5.30")]),
        ("yes/no, e.g. this...", [block("text", "yes/no, e.g. this...")]),
        ("Did you hear memo.m4a?", [block("text", "Did you hear memo.m4a?")]),
        ("folder", [block("text", "folder")]),
        (["the", "license", "please"], [block("text", "the license please")]),
        (["hello, world.wav"], [block("audio", "hello, world.wav")]),
        ("a, " * 300, [block("text", ", ".join("a" * 300))]),
        ("x" * 5000, [block("text", "x" * 5000)]),
    ],
)
def test_a_turn_is_files_and_words(here, turn, content):
    assert user_message(turn)["content"] == content


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ("memo.m4a", "memo.m4a is no sound or motion file that can be read.*`ffmpeg -i memo.m4a memo.wav`"),
        ("hi,memo.m4a", "memo.m4a is no sound"),
        ("clip.mp4", "`ffmpeg -i clip.mp4 clip.wav`"),
        ("a.webm", "a.webm is no sound"),
        ("walk.fbx", "walk.fbx is no sound or motion .*export it as .bvh"),
        ("wave.pkl", "wave.pkl is no .*numpy.savez"),
        ("notes.pdf", "notes.pdf is no sound"),
        ("talk", "talk is no sound"),
        (["look", "walk.fbx"], "walk.fbx is no"),
        ("./folder", "./folder is a folder"),
    ],
)
def test_files_that_cannot_be_read_are_never_said(here, turn, message):
    with pytest.raises(ValueError, match=message):
        user_message(turn)


@pytest.mark.parametrize(
    "turn",
    ["missing.m4a", "missing.wav", "missing.fbx", "hi,no.opus", "missing.mp4.", "one two.mp3", "x/y.npz", "me.jpg"],
)
def test_missing_media_are_never_said(here, turn):
    with pytest.raises(FileNotFoundError, match=f"no such file: {turn.split(',')[-1]}"):
        user_message(turn)


def test_a_full_stop_behind_a_name(here):
    with pytest.raises(FileNotFoundError, match="no such file: a.opus.; there is a.opus"):
        user_message("a.opus.")


# ---- folders


@pytest.fixture
def linked(tmp_path):
    """A folder with links to folders inside, outside, around and to nowhere."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    for path in (inside / "b/one.wav", inside / ".hidden.wav", outside / "deep/two.wav", outside / "three.wav"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (inside / "a").symlink_to(inside / "b")  # another name of what is there
    (inside / "c").symlink_to(outside)
    (inside / "d").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    (outside / "deep/back").symlink_to(inside / "b")
    (inside / "self").symlink_to(inside / "self")
    (inside / "gone.wav").symlink_to(inside / "nowhere.wav")
    (inside / "same.wav").symlink_to(outside / "three.wav")
    return inside


def test_folders_behind_links_are_read_once_and_loops_end(linked):
    names = [path.relative_to(linked).as_posix() for path in files_below(linked)]
    assert names == ["b/one.wav", "c/deep/two.wav", "c/three.wav", "gone.wav", "same.wav", "self"]
    with pytest.raises(FileNotFoundError):
        files_below(linked / "none")


def test_a_folder_that_cannot_be_read_is_told(linked, monkeypatch, caplog):
    import os

    scan = os.scandir

    def scandir(place):
        if str(place).endswith("/b"):
            raise PermissionError(13, "Permission denied", place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)
    assert len(files_below(linked)) == 5 and "Permission denied" in caplog.text


def test_media_of_a_folder(tmp_path):
    for name in ("a.wav", "a.mp4", "b.m4a", "c.npz", "d.OPUS", "e/f.aiff", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_media(tmp_path, "audio", SOUND_SUFFIXES)
    assert [[path.name for path in paths] for paths in found] == [
        ["a.wav", "d.OPUS", "f.aiff"], ["b.m4a"], ["a.mp4", "c.npz", "notes.md"]
    ]  # fmt: skip


def test_recordings_behind_links_and_in_other_formats(tmp_path, small_sound, caplog):
    (tmp_path / "more").mkdir()
    soundfile.write(tmp_path / "more/a.opus", small_sound[:4800], 48000, format="OGG", subtype="OPUS")
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/b.aiff", small_sound, 16000)
    (tmp_path / "in/more").symlink_to(tmp_path / "more")
    (tmp_path / "in/c.m4a").write_bytes(b"x")
    (tmp_path / "in/._b.wav").write_bytes(b"x")
    with caplog.at_level(logging.INFO):
        assert len(read_recordings(tmp_path / "in", 16000)) == 2
    assert "1 left out, expected" in caplog.text and "c.m4a" in caplog.text
    assert len(read_recordings(tmp_path / "in/b.aiff", 16000)) == 1
    with pytest.raises(ValueError, match="c.m4a is not a readable.*ffmpeg"):
        read_recordings(tmp_path / "in/c.m4a", 16000)
    (tmp_path / "list.txt").write_bytes("\ufeffin/b.aiff\r\n\r\nmore/a.opus".encode("utf-16-le"))
    assert len(read_recordings(tmp_path / "list.txt", 16000)) == 2


def test_motion_behind_links(tmp_path, small_motion, caplog):
    write_motion(tmp_path / "out/a.bvh", small_motion)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/far").symlink_to(tmp_path / "out")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    for name in ("b.fbx", "notes.md", "caption.txt"):
        (tmp_path / "in" / name).write_text("x")
    (tmp_path / "out/a.txt").write_text("a person waves")
    with caplog.at_level(logging.INFO):
        rows = list(read_rows(tmp_path / "in", "motion", find_layout(tmp_path / "in", "motion")))
    assert [row.id if isinstance(row, BadRow) else row["motion"] for row in rows] == ["far/a.bvh", "b.fbx"]
    assert rows[0]["text"] == ["a person waves"] and "export it as .bvh" in rows[1].reason
    assert "2 left out, neither motion nor captions: caption.txt, notes.md" in caplog.text
    caplog.clear()
    bad = convert_motion(tmp_path / "in", tmp_path / "npz")
    assert read_motion(tmp_path / "npz/far/a.npz").num_frames == small_motion.num_frames
    assert {path.name for path in bad} == {"b.fbx", "caption.txt", "a.txt"}
    assert "1 left out, no motion: notes.md" in caplog.text
    (tmp_path / "only").mkdir()
    (tmp_path / "only/b.fbx").write_text("x")
    with pytest.raises(ValueError, match="holds no motion file.*b.fbx cannot be read"):
        convert_motion(tmp_path / "only", tmp_path / "none")


def test_what_is_pushed_of_a_folder_with_links(linked):
    (linked / "__pycache__").mkdir()
    (linked / "__pycache__/x.pyc").write_bytes(b"")
    (linked / ".gitattributes").write_bytes(b"")
    (linked.parent / "out/train.parquet").write_bytes(b"")
    names = files_of(linked)
    assert "c/train.parquet" in names and ".gitattributes" in names and "__pycache__/x.pyc" not in names
    assert kind_of(linked) == "dataset"
    secret = "token: hf_" + "a" * 34
    (linked / "notes.txt").write_bytes(secret.encode("utf-16"))
    assert "Hugging Face token" in refusals(linked, ["notes.txt"])[0].what
