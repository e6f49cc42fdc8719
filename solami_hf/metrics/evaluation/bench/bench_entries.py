"""The folders of `solami_bench`: the benchmark, and an entry to it, refused with all its faults at once.

    python bench_entries.py ENTRY          # beside the benchmark's other files: is the entry complete?

An entry is a folder with `results.json`:

    {"benchmark": {"name": "solami_bench", "version": "1.0", "sha256": of manifest.json},
     "system": {"name": "...", "description": "..."}, "seed": 0,
     "runs": [{"id": "seeing-03", "condition": "given", "text": "You bow to me.",
               "audio": "seeing-03.wav", "motion": "seeing-03.npz"}, ...]}

with one run for each row of the benchmark's `runs.jsonl`. `text` is what is said; `audio` (wav, mono, 16 kHz) and
`motion` (npz: `poses` (T, 165) or (T, 55, 3) axis-angle in SMPL-X order, `trans` (T, 3) of the pelvis in metres, y up,
30 frames a second) may be null, and count as missing. Needs numpy and soundfile only.
"""

import hashlib
import json
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile

VERSION = "1.0"
MANIFEST, RUNS, RESULTS = "manifest.json", "runs.jsonl", "results.json"
CONTROL_OF = {
    "persona": "other_audio",
    "seeing": "other_body",
    "memory": "no_history",
    "acting": "other_audio",
    "talk": "other_audio",
}
"""What is asked, and the control that it is asked under."""
RATE, FPS, JOINTS = 16_000, 30, 55
LONGEST, LARGEST = 60, 10_000_000  # seconds of an answer, bytes of its file
_PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npy", ".ckpt")
_TOLD = 12  # faults that one message lists


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Benchmark:
    """The benchmark's folder, each file checked by its hash: `runs` are the rows of `runs.jsonl`, in order, `sha256`
    that of the manifest. Raises FileNotFoundError: it is no benchmark, or a file is missing; ValueError: a file is not
    the one that the manifest names, or the version is another."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / MANIFEST).is_file():
            raise FileNotFoundError(
                f"{folder} is no benchmark: there is no {MANIFEST}; `solami bench build` makes one"
            )
        manifest = json.loads((self.folder / MANIFEST).read_text("utf-8"))
        if manifest["version"] != VERSION:
            raise ValueError(f"{folder} is version {manifest['version']} of the benchmark, this code scores {VERSION}")
        for name, wanted in manifest["files"].items():
            if not (self.folder / name).is_file():
                raise FileNotFoundError(f"{self.folder / name} is missing; get the benchmark anew")
            if (found := digest_of(self.folder / name)) != wanted:
                raise ValueError(
                    f"{self.folder / name} was changed (SHA-256 {found[:12]}..., expected {wanted[:12]}...): scores "
                    "would not compare; get the benchmark anew"
                )
        self.name, self.sha256 = manifest["name"], digest_of(self.folder / MANIFEST)
        lines = (self.folder / RUNS).read_text("utf-8").splitlines()
        self.runs = [json.loads(line) for line in lines]

    def header(self) -> dict:
        """What an entry says under `benchmark`."""
        return {"name": self.name, "version": VERSION, "sha256": self.sha256}

    @cached_property
    def skeleton(self) -> tuple[np.ndarray, list[int]]:
        """Rest positions (55, 3) from the pelvis in metres, and the parent of each joint."""
        told = json.loads((self.folder / "skeleton.json").read_text("utf-8"))
        return np.array(told["rest"]), told["parents"]

    def joints(self, path: Path) -> np.ndarray:
        """Joint positions (T, 55, 3) in metres of a motion file, on the benchmark's skeleton."""
        from scipy.spatial.transform import Rotation

        poses, trans = read_motion_file(path)
        rest, parents = self.skeleton
        local = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(len(poses), JOINTS, 3, 3)
        turned, placed = [local[:, 0]], [trans]
        for joint in range(1, JOINTS):
            parent = parents[joint]
            placed.append(placed[parent] + turned[parent] @ (rest[joint] - rest[parent]))
            turned.append(turned[parent] @ local[:, joint])
        return np.stack(placed, axis=1)


@dataclass(frozen=True)
class Entry:
    """A checked entry: `header`, `results.json` without its runs, and `runs`: (id, condition) -> text, audio and
    motion (paths or None)."""

    folder: Path
    header: dict
    runs: dict[tuple[str, str], dict]


def read_entry(folder: str | Path, benchmark: Benchmark) -> Entry:
    """An entry that has one well-formed run for each of the benchmark's. Raises FileNotFoundError: there is no
    `results.json`; ValueError, told with all faults: another version or benchmark, runs that are missing, twice or
    unknown, files that are missing, outside of the folder or malformed, and pickles."""
    folder = Path(folder)
    if not (folder / RESULTS).is_file():
        raise FileNotFoundError(
            f"{folder} is no entry: there is no {RESULTS}; the benchmark's card says what it holds"
        )
    try:
        told = json.loads((folder / RESULTS).read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / RESULTS} is not JSON ({error})") from None
    faults = list(_header_faults(told, benchmark))
    rows = told.get("runs") if isinstance(told, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{folder / RESULTS}: `runs` is missing, expected a list of objects")
    keys = [(str(row.get("id")), str(row.get("condition"))) for row in rows]
    wanted = [(run["id"], run["condition"]) for run in benchmark.runs]
    faults += [f"{_named(key)} is missing" for key in wanted if key not in set(keys)]
    faults += [f"{_named(key)} is there {count} times" for key, count in Counter(keys).items() if count > 1]
    faults += [f"{_named(key)} is no run of the benchmark" for key in dict.fromkeys(keys) if key not in set(wanted)]
    faults += [
        f"{path.relative_to(folder)} may hold pickled code; an entry has json, wav and npz files"
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _PICKLED
    ]
    runs = {}
    for key, row in zip(keys, rows, strict=True):
        if not isinstance(row.get("text"), str):
            faults.append(f"{_named(key)}: `text` is {row.get('text')!r}, expected what is said, '' for nothing")
        runs[key] = {"text": row.get("text")}
        for kind, check in (("audio", check_sound), ("motion", read_motion_file)):
            runs[key][kind] = None
            if row.get(kind) is not None:
                try:
                    runs[key][kind] = _inside(folder, row[kind])
                    check(runs[key][kind])
                except (ValueError, OSError) as error:
                    faults.append(f"{_named(key)}: `{kind}` {row[kind]!r}: {error}")
    if faults:
        more = f"; and {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
        raise ValueError(f"{folder} is no entry to {benchmark.name} {VERSION}: {'; '.join(faults[:_TOLD])}{more}")
    return Entry(folder, {key: value for key, value in told.items() if key != "runs"}, runs)


def _named(key: tuple[str, str]) -> str:
    return f"{key[0]} ({key[1]})"


def _header_faults(told, benchmark: Benchmark):
    told = told if isinstance(told, dict) else {}
    if told.get("benchmark") != benchmark.header():
        yield f"`benchmark` is {told.get('benchmark')!r}, expected {benchmark.header()!r}"
    system = told.get("system")
    if not isinstance(system, dict) or not all(str(system.get(key) or "").strip() for key in ("name", "description")):
        yield "`system` lacks `name` or `description`: say what answered, and what it was trained on"
    if not isinstance(told.get("seed"), int):
        yield f"`seed` is {told.get('seed')!r}, expected the whole number that the answers were drawn with"


def _inside(folder: Path, name) -> Path:
    path = folder / str(name)
    if not isinstance(name, str) or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError("expected the name of a file in the entry's folder")
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has {path.stat().st_size} bytes, expected at most {LARGEST}")
    return path


def check_sound(path: Path) -> None:
    """Raises ValueError for what is no mono sound of 16 kHz, or too short or long."""
    try:
        told = soundfile.info(path)
    except soundfile.SoundFileError as error:
        raise ValueError(f"it is no wav file ({error})") from None
    if (told.samplerate, told.channels) != (RATE, 1):
        raise ValueError(f"it has {told.channels} channel(s) at {told.samplerate} Hz, expected 1 at {RATE}")
    if not 0.1 <= told.duration <= LONGEST:
        raise ValueError(f"it lasts {told.duration:.2f} s, expected 0.1 to {LONGEST}")


def read_motion_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Axis-angle poses (T, 55, 3) and places of the pelvis (T, 3) in metres of an npz file, never as pickles. Raises
    ValueError: arrays are missing, misshapen or not finite, the rate is another, or it is too short or long."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("poses", "trans", "mocap_frame_rate", "pelvis_offset") if key in file}
    except Exception as error:  # numpy and zipfile raise many kinds for a file that is none
        raise ValueError(f"it is no npz file of plain numbers ({error})") from None
    if missing := {"poses", "trans", "mocap_frame_rate"} - arrays.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    poses, trans = arrays["poses"], arrays["trans"]
    if any(values.dtype.kind != "f" for values in (poses, trans)) or poses.shape[1:] not in ((165,), (55, 3)):
        raise ValueError(f"`poses` has shape {poses.shape} of {poses.dtype}, expected floats (T, 165) or (T, 55, 3)")
    if trans.shape != (len(poses), 3) or not 10 <= len(poses) <= LONGEST * FPS:
        raise ValueError(f"`trans` has shape {trans.shape} for {len(poses)} poses, expected (T, 3), T 10 to 1800")
    if float(arrays["mocap_frame_rate"]) != FPS:
        raise ValueError(f"it has {float(arrays['mocap_frame_rate']):g} frames a second, expected {FPS}")
    if not (np.isfinite(poses).all() and np.isfinite(trans).all()) or np.abs(trans).max() > 1000:
        raise ValueError("it holds NaN, infinite numbers or places a kilometre away")
    return poses.reshape(-1, JOINTS, 3).astype(float), trans + arrays.get("pelvis_offset", np.zeros(3))


if __name__ == "__main__":
    try:
        found = read_entry(sys.argv[1], Benchmark(Path(__file__).parent))
    except (ValueError, OSError, IndexError) as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{len(found.runs)} runs of {found.header['system']['name']}: complete\n")
