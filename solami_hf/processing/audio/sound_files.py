"""Checks that a sound file is whole, and mends what keeps libsndfile from reading all of it.

libsndfile says nothing of a recording that is cut short or that follows another one in the same file, takes the
placeholders that programs write into a pipe's header for lengths of 0, and guesses how long an MP3 without one is.
"""

import io
import mmap
import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

SOUND_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".mp3", ".opus", ".oga", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64",
    ".wave", ".mp2",
)  # fmt: skip
UNREAD_SOUND = frozenset(
    ".m4a .aac .mp4 .webm .wma .amr .mka .mkv .mov .avi .3gp .m4b .m4r .m4v .weba .ape .wv .ac3 .dts .mpg .mpeg .ogv "
    ".flv .wmv .ra .spx .voc .sph .tta .mpc .dsf .mid".split()
)
FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3")
"""libsndfile's names of the formats whose ends are known here."""

# first bytes -> where chunks begin, bytes of a chunk's name and length, byte order, the name of the one with the sound
_CHUNKED = {
    b"RIFF": (12, 4, 4, "little", b"data"),
    b"RIFX": (12, 4, 4, "big", b"data"),
    b"RF64": (12, 4, 4, "little", b"data"),
    b"FORM": (12, 4, 4, "big", b"SSND"),
    b"caff": (8, 4, 8, "big", b"data"),
    b"riff": (40, 16, 8, "little", b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"),
}
_TAIL = 1024  # bytes behind the sound that need no reason
_MPEG_KBITS = {  # (is version 1, layer) -> by index
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def sound_way_out(name: str | Path) -> str:
    """Advice for a file that is no readable sound: formats that are, and how to convert it."""
    path = Path(name)
    if path.suffix.lower() in UNREAD_SOUND:
        return f"expected {', '.join(SOUND_SUFFIXES)}; convert it: `ffmpeg -i {path.name} {path.stem}.wav`"
    return f"expected sound ({', '.join(SOUND_SUFFIXES)})"


def whole_sound(source: Path | BinaryIO, name: str | Path) -> Path | BinaryIO:
    """Input for libsndfile: `source` (an open file stands at its start), or a copy in memory whose header says the
    right length; `name` is for errors. Raises ValueError: it is cut short, or holds what is not read: a second
    recording, or more than its header says."""
    data = _bytes_of(source)
    start = _behind_tags(data, 0)
    mark = bytes(data[start : start + 4])
    if mark in _CHUNKED:
        put_right = _chunked(data, name, *_CHUNKED[mark])
    elif mark in (b".snd", b"dns."):
        put_right = _au(data, name, "big" if mark == b".snd" else "little")
    elif mark == b"OggS":
        put_right = _ogg(data, name, start)
    elif mark == b"fLaC":
        if re.compile(rb"fLaC[\0\x80]\0\0\x22").search(data, start + 4):
            raise _joined(name)
        put_right = None
    else:
        put_right = _mpeg(data, name)
    return source if put_right is None else io.BytesIO(put_right)


def _bytes_of(source: Path | BinaryIO) -> bytes | mmap.mmap:
    if not isinstance(source, Path):
        source.seek(0)
        data = source.read()
        source.seek(0)
        return data
    with source.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if source.stat().st_size else b""


def cut_short(name) -> ValueError:
    """The error about a sound file that ends before its header says."""
    return ValueError(f"{name} is cut short: its header promises more sound than it holds; copy it again")


def _joined(name) -> ValueError:
    return ValueError(
        f"{name} holds several recordings, one behind the other, and only the first would be read; split them, or "
        f"join them anew: `ffmpeg -i {Path(str(name)).name} whole.wav`"
    )


def _is_placeholder(length: int, width: int) -> bool:
    """True if no such length is meant: 0, or near the largest of 31 and 32 bits (or 63 and 64)."""
    near = [0x7F000000 <= length <= 0x8000FFFF, 0xFFFF0000 <= length <= 0xFFFFFFFF, length >= 1 << 62]
    return length == 0 or any(near if width == 8 else near[:2])


def _chunked(data, name, at: int, name_size: int, width: int, order: str, wanted: bytes) -> bytes | None:
    """WAV, AIFF, W64, RF64 and CAF: the chunk with the sound must end in the file, and chunks alone follow it."""
    head = name_size + width
    counted = head if name_size == 16 else 0  # W64 counts a chunk's own head, too
    sizes_at = None
    while at + head <= len(data):
        chunk = bytes(data[at : at + name_size])
        length_at = at + name_size
        length = int.from_bytes(data[length_at : at + head], order)
        if chunk == b"ds64":
            sizes_at = at + head
        if chunk == wanted:
            break
        at = _next_chunk(at, head, length - counted, name_size)
    else:
        return None  # libsndfile says what is wrong
    if sizes_at is not None and length in (0, 0xFFFFFFFF):  # 64-bit sizes of an RF64: of the file, of the sound
        length_at, width = sizes_at + 8, 8
        length = int.from_bytes(data[length_at : length_at + 8], order)
    start, rest = at + head, len(data) - at - head
    is_empty = length == 0 and _end_of_chunks(data, start, head, order) >= len(data)
    if any(_is_placeholder(told, width) for told in (length, max(0, length - counted))) and not is_empty:
        if wanted == b"SSND" or name_size == 16 or (width == 4 and length):
            return None  # libsndfile reads on to the end by itself
        put_right = bytearray(data)
        put_right[length_at : length_at + width] = (rest + counted).to_bytes(width, order)
        if sizes_at is not None:
            put_right[sizes_at : sizes_at + 8] = (len(data) - 8).to_bytes(8, order)
        return bytes(put_right)
    if length - counted > rest:
        raise cut_short(name)
    behind = _next_chunk(at, head, length - counted, name_size)
    if name_size == 4:
        behind = _end_of_chunks(data, behind, head, order)
    _check_tail(data, behind, name)
    return None


def _next_chunk(at: int, head: int, length: int, name_size: int) -> int:
    at += head + max(0, length)
    return at + -at % 8 if name_size == 16 else at + length % 2 if head == 8 else at


def _end_of_chunks(data, at: int, head: int, order: str) -> int:
    """End of the chunks that begin at `at`."""
    while at + head <= len(data) and re.fullmatch(rb"[ -~]{4}", data[at : at + 4]):
        if data[at : at + 4] in _CHUNKED:
            break
        after = _next_chunk(at, head, int.from_bytes(data[at + 4 : at + head], order), 4)
        if after > len(data) + 1:
            break
        at = after
    return at


def _check_tail(data, at: int, name) -> None:
    """Refuses what is left behind the sound, but for zeros and a few bytes."""
    if bytes(data[at : at + 4]) in (*_CHUNKED, b".snd"):
        raise _joined(name)
    if len(data) - at > _TAIL and bytes(data[at : at + (1 << 16)]).strip(b"\0"):
        raise ValueError(
            f"{name} holds {len(data) - at} bytes behind the sound that its header tells of; was it cut off while it "
            f"was written? `ffmpeg -i {Path(str(name)).name} whole.wav` or a sound editor may save it"
        )


def _au(data, name, order: str) -> bytes | None:
    start, length = (int.from_bytes(data[at : at + 4], order) for at in (4, 8))
    if _is_placeholder(length, 4):
        return bytes(data[:8]) + b"\xff" * 4 + bytes(data[12:]) if len(data) > start else None
    if start + length > len(data):
        raise cut_short(name)
    _check_tail(data, start + length, name)
    return None


def _ogg(data, name, at: int) -> None:
    """Pages must be whole, and no stream may begin behind another."""
    begun = False
    while data[at : at + 4] == b"OggS":
        sizes = data[at + 27 : at + 27 + data[at + 26]] if len(data) > at + 26 else b""
        begins = len(data) > at + 5 and data[at + 5] & 2
        if begins and begun:
            raise _joined(name)
        begun = begun or not begins
        at += 27 + len(sizes) + sum(sizes)
        if at > len(data):
            raise cut_short(name)
    _check_tail(data, at, name)


def _behind_tags(data, at: int) -> int:
    """End of the tags that begin at `at`: ID3, APE and Lyrics."""
    while True:
        if data[at : at + 3] == b"ID3" and at + 10 <= len(data):
            size = [byte & 0x7F for byte in data[at + 6 : at + 10]]  # 7 bits a byte
            at += 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3]) + (10 if data[at + 5] & 0x10 else 0)
        elif data[at : at + 3] == b"TAG":
            at += 128
        elif data[at : at + 8] == b"APETAGEX" and at + 32 <= len(data):
            header = data[at + 23] & 0x20
            at += 32 + (int.from_bytes(data[at + 12 : at + 16], "little") if header else 0)
        else:
            return at


class _Frame(NamedTuple):
    """The head of an MPEG frame: the sound's kind (version, layer, rate, channels), kbit/s, and bytes of the frame."""

    kind: tuple[int, int, int, int]
    kbits: int
    length: int


def _frame(data, at: int) -> _Frame | None:
    head = int.from_bytes(data[at : at + 4], "big") if at + 4 <= len(data) else 0
    version, layer, rate = head >> 19 & 3, 4 - (head >> 17 & 3), head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or layer == 4 or head >> 12 & 15 in (0, 15) or rate == 3:
        return None
    rate = _MPEG_RATES[version][rate]
    kbits = _MPEG_KBITS[version == 3, layer][(head >> 12 & 15) - 1]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    unit = 4 if layer == 1 else 1  # bytes that are padded by one
    length = (125 * samples // unit * kbits // rate + (head >> 9 & 1)) * unit
    return _Frame((version, layer, rate, 1 if head >> 6 & 3 == 3 else 2), kbits, length)


def _mpeg(data, name) -> bytes | None:
    """An MP3 whose head counts its frames right is left to libsndfile, others get a head that does."""
    at = _behind_tags(data, 0)
    if (first := _frame(data, at)) is None:
        return None
    kind, kbits, places, told = first.kind, set(), [], []
    while (at := _behind_tags(data, at)) < len(data):
        frame = _frame(data, at)
        if len(data) - at < 4 and data[at] == 0xFF:
            raise cut_short(name)
        if frame is None or frame.kind != kind:
            after = frame and _frame(data, at + frame.length)
            if after and after.kind == frame.kind:
                raise _joined(name)
            at = _next_frame(data, at + 1, kind)
            continue
        if at + frame.length > len(data):
            raise cut_short(name)
        count = _counted(data, at, kind)
        if count is None:
            places.append((at, at + frame.length))
            kbits.add(frame.kbits)
        else:
            told.append(count)
        at += frame.length
    if sum(told) > len(places) + len(told):
        raise cut_short(name)
    if told == [len(places)] or kind[1] < 3 and len(kbits) < 2 or not places:
        return None
    if kind[1] < 3:
        raise ValueError(f"{name} has a varying bit rate and does not say how long it is; convert it to wav")
    head = int.from_bytes(data[places[0][0] : places[0][0] + 4], "big")
    head = (head | 1 << 16) & ~(0xF << 12 | 1 << 9) | 8 << 12  # no checksum, no padding, room enough
    tag = b"Xing" + (1).to_bytes(4, "big") + len(places).to_bytes(4, "big")
    tag = head.to_bytes(4, "big") + bytes(_side_bytes(kind)) + tag
    return b"".join([tag.ljust(_frame(tag, 0).length, b"\0"), *(data[start:end] for start, end in places)])


def _next_frame(data, at: int, kind: tuple) -> int:
    """Begin of the next frame that another of its kind follows, or the end."""
    while 0 <= (at := data.find(b"\xff", at)):
        frame = _frame(data, at)
        if frame and frame.kind == kind and (after := _frame(data, at + frame.length)) and after.kind == kind:
            return at
        at += 1
    return len(data)


def _side_bytes(kind: tuple) -> int:
    version, _, _, channels = kind
    return (32 if channels == 2 else 17) if version == 3 else 17 if channels == 2 else 9


def _counted(data, at: int, kind: tuple) -> int | None:
    """The frames that a frame tells of, if it is no sound but the head of a file (Xing, Info, VBRI)."""
    tag = at + 4 + _side_bytes(kind)
    if data[tag : tag + 4] in (b"Xing", b"Info"):
        return int.from_bytes(data[tag + 8 : tag + 12], "big") if data[tag + 7] & 1 else 0
    return 0 if data[at + 36 : at + 40] == b"VBRI" else None  # which libsndfile does not know
