"""`solami bench build FOLDER`: the benchmark `solami_bench`, a data set that loads from the Hub or from its folder.

48 held-out turns, authored for it, each in its own way and under a control: what is heard, seen or remembered is
another user's or missing. Gestures are the demo's, drawn anew; voices are offline ones; three turns are LibriVox's.
The same machine gives the same files; `manifest.json` has their hashes.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import yaml
from datasets import Audio, Features, List, Value

from ...metrics.evaluation import bench, intervals
from ...metrics.evaluation.bench.bench_entries import CONTROL_OF, MANIFEST, RUNS, VERSION, digest_of
from ...metrics.evaluation.bench.bench_score import GALLERY, moments
from ...modeling.motion_vq.kinematics import SMPLX_PARENTS
from ...processing.audio.speech_voices import check_voices, speak
from ...processing.audio.waveforms import read_audio, write_audio
from ...processing.datasets.token_dataset import write_parquet
from ...processing.files.output_folder import atomic_folder
from ...processing.files.text_files import write_json, write_json_lines, write_text
from ...processing.motion.body import free_body, joint_positions
from ...processing.motion.motion_io import write_motion
from ..corpus.build_corpus import place_for_dialogue
from ..corpus.captions import CAPTIONS, caption
from ..corpus.gestures import GESTURES, make_gesture

HERE = Path(__file__).parent
TURNS = yaml.safe_load((HERE / "bench_turns.yaml").read_text(encoding="utf-8"))
RECORDINGS = Path("/usr/share/pocketsphinx/test/data/librivox")  # Debian's pocketsphinx-testdata
SEED = 2026  # of gestures; the corpus of the demo draws with other numbers
TAKES = 9  # a character's clips of an action: the reference, and those that acted gestures are compared with
BESIDE = ("README.md", "eval.yaml")
CODE = (Path(intervals.__file__), *sorted(Path(bench.__file__).parent.glob("bench_[es]*.py")))
TEXT = Value("string")
FEATURES = Features(
    **dict.fromkeys(("id", "condition", "kind", "system", "text", "audio_file", "motion"), TEXT),
    **dict.fromkeys(("action", "motion_text", "reference_motion", "swapped", "prompt"), TEXT),
    **dict.fromkeys(("references", "right", "wrong"), List(TEXT)),
    history=List({"role": TEXT, "text": TEXT, "audio": TEXT}),
    audio=Audio(sampling_rate=16_000),
)


def say(voice: str, text: str, seed: int) -> np.ndarray:
    """A line at 16 kHz, (samples,)."""
    samples, rate = speak(voice, text, seed=seed)
    return read_audio(samples, 16_000, source_rate=rate)


def build_benchmark(
    output: str | Path, say: Callable[[str, str, int], np.ndarray] = say, recordings=RECORDINGS
) -> str:
    """Writes the benchmark into a new folder and returns the SHA-256 of its manifest.

    The code that checks and scores entries without this package lies in it too. `say(voice, text, seed)` gives a line
    (samples,) at 16 kHz; `recordings` is the folder of the LibriVox clips. Raises FileNotFoundError, ImportError:
    recordings or voices are not installed; FileExistsError: the folder is there already.
    """
    recordings = Path(recordings)
    if not recordings.is_dir():
        raise FileNotFoundError(f"{recordings} is missing: apt-get install pocketsphinx-testdata")
    if say is globals()["say"]:
        check_voices(TURNS["voices"])
    with atomic_folder(output) as folder:
        _write_motions(folder)
        turns = [_spoken(folder, number, turn, say, recordings) for number, turn in enumerate(_turns())]
        runs = [_run(turn) for turn in turns] + [_run(turn, other) for turn, other in _controls(turns)]
        write_json_lines(folder / RUNS, runs)
        write_json(folder / "skeleton.json", {"rest": free_body().rest.tolist(), "parents": list(SMPLX_PARENTS)})
        for kind in CONTROL_OF:
            for split in ("test", "controls"):
                rows = [_shown(folder, run) for run in runs if run["kind"] == kind]
                rows = [row for row in rows if (row["condition"] == "given") == (split == "test")]
                write_parquet(folder / kind / f"{split}.parquet", rows, FEATURES)
        files = {str(p.relative_to(folder)): digest_of(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        seeds = {"gestures": SEED, "answers": [0]}
        write_json(folder / MANIFEST, {"name": "solami_bench", "version": VERSION, "seeds": seeds, "files": files})
        for path in CODE:  # not in the manifest: a mended scorer scores the same data
            text = re.sub(r"^from \.+(\w+) import", r"from \1 import", path.read_text("utf-8"), flags=re.MULTILINE)
            write_text(folder / path.name, text)
        for name in BESIDE:  # the card may be written anew, with more systems in its table
            shutil.copyfile(HERE / name.replace("README", "bench_card"), folder / name)
        return digest_of(folder / MANIFEST)


def _write_motions(folder: Path) -> None:
    """A user's clip of each action, placed before the character, and a character's; of `TAKES` the gallery."""
    gallery, actions = [], list(GESTURES)
    for index, action in enumerate(actions):
        clips = [np.random.default_rng([SEED, 1000 + index, number]) for number in range(TAKES + 1)]
        user, *takes = [make_gesture(action, rng)[0] for rng in clips]
        write_motion(folder / f"motion/user-{action}.npz", place_for_dialogue(user, clips[0]))
        write_motion(folder / f"motion/reference-{action}.npz", takes[0])
        gallery += [moments(np.asarray(joint_positions(take))) for take in takes[1:]]
    named = np.repeat(actions, TAKES - 1)
    np.savez_compressed(folder / GALLERY, moments=np.stack(gallery).astype(np.float16), actions=named)


def _turns() -> Iterator[dict]:
    """The authored turns: kind, person, words, the user's action, references."""
    actions, people = TURNS["actions"], TURNS["people"]
    for number, one in enumerate(TURNS["persona"]):
        told, person = TURNS["told"][one["about"]], people[number // 3]
        answers = [line.format(**person) for line in told["answers"]]
        right = [person[one["about"]].casefold()]
        yield _turn("persona", number, one["ask"], answers, told["do"], person, right=right)
    seeing = TURNS["seeing"]
    for number, action in enumerate(seeing["actions"]):
        answers = [line.format(do=actions[action]["told"]) for line in seeing["answers"]]
        others = [name for other, one in actions.items() if other != action for name in one["named"]]
        turn = _turn("seeing", number, seeing["ask"][number % 4], answers, seeing["do"])
        yield turn | {"shows": action, "right": actions[action]["named"], "wrong": others}
    for number, one in enumerate(TURNS["memory"]):
        turn = _turn("memory", number, one["ask"], one["answers"], "thumbs_up", right=one["named"])
        yield turn | {"before": [("user", one["say"]), ("assistant", one["reply"])]}
    for number, one in enumerate(TURNS["acting"]):
        yield _turn("acting", number, one["ask"], TURNS["acted"], one["do"], right=actions[one["do"]]["named"])
    for number, one in enumerate(TURNS["talk"]):
        yield _turn("talk", number, one["ask"], one["answers"], one["do"]) | {"recording": one.get("recording")}


def _turn(kind: str, number: int, ask: str, answers: list[str], do: str, person: dict | None = None, right=()) -> dict:
    person = person or TURNS["people"][number % len(TURNS["people"])]
    who = "You are {name}, a {trade} in {place}. {more} Answer in one or two short spoken sentences."
    shows = TURNS["other_bodies"][number % len(TURNS["other_bodies"])]
    turn = {"id": f"{kind}-{number:02d}", "kind": kind, "system": who.format(**person), "text": ask, "shows": shows}
    return turn | {"do": do, "references": answers, "right": list(right), "wrong": [], "before": [], "recording": None}


def _spoken(folder: Path, number: int, turn: dict, say: Callable, recordings: Path) -> dict:
    """The turn with the names of its sounds, which are written."""
    voice = TURNS["voices"][number % len(TURNS["voices"])]
    audio, history = f"audio/{turn['id']}.wav", []
    if turn["recording"]:
        (path,) = recordings.glob(f"*-{turn['recording']}.wav")
        write_audio(folder / audio, read_audio(path, 16_000))
    else:
        write_audio(folder / audio, say(voice, turn["text"], number))
    for place, (role, text) in enumerate(turn["before"]):
        name = f"audio/{turn['id']}-{place}.wav" if role == "user" else ""
        if name:
            write_audio(folder / name, say(voice, text, number))
        history.append({"role": role, "text": text, "audio": name})
    return turn | {"audio": audio, "history": history}


def _controls(turns: list[dict]) -> Iterator[tuple[dict, dict]]:
    """Each turn with the one of its kind whose sound or body it gets; without history, with itself."""
    for kind in CONTROL_OF:
        some = [turn for turn in turns if turn["kind"] == kind]
        for number, turn in enumerate(some):
            yield turn, some[number if kind == "memory" else (number + 1) % len(some)]


def _run(turn: dict, other: dict | None = None) -> dict:
    """A row: all that a system is given, and what is hoped for; with what is not its own from another turn."""
    condition = "given" if other is None else CONTROL_OF[turn["kind"]]
    heard = other if condition == "other_audio" else turn
    seen = other if condition == "other_body" else turn
    history = [] if condition == "no_history" else turn["history"]
    said = "".join(f"{one['role'].capitalize()}: {one['text']}\n" for one in history)
    columns = {key: turn[key] for key in ("id", "kind", "system", "references", "right", "wrong")}
    return columns | {
        "condition": condition,
        "history": history,
        "text": heard["text"],
        "audio": heard["audio"],
        "motion": f"motion/user-{seen['shows']}.npz",
        "action": turn["do"],
        "motion_text": caption(CAPTIONS[turn["do"]][0]),
        "reference_motion": f"motion/reference-{turn['do']}.npz",
        "swapped": "" if other in (None, turn) else other["id"],
        "prompt": f"{turn['system']}\n\n{said}User: {heard['text']}\nAssistant:",
    }


def _shown(folder: Path, run: dict) -> dict:
    """The row as the viewer plays it."""
    work = folder / "shown.flac"
    soundfile.write(work, *soundfile.read(folder / run["audio"], dtype="int16"), subtype="PCM_16")
    sound = {"bytes": work.read_bytes(), "path": f"{run['id']}.flac"}
    work.unlink()
    return run | {"audio_file": run["audio"], "audio": sound}
