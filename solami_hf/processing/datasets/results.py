"""A results folder: what `solami generate` writes and `solami evaluate` reads, for the six tasks and for dialogues.

    RESULTS/
      results.jsonl   one JSON object an answer, in the columns of `FEATURES`; batches are appended whole
      run.json        how it was made; `finished` says whether every answer is there
      README.md       card: `datasets.load_dataset("RESULTS")` reads it, from a disk or the Hub
      media/seed<S>/[<condition>/]<id>[.<round>].npz|.wav

`(id, round, seed, condition)` is unique. A run that has not finished can be read; `solami generate` completes it.

| column | what |
|---|---|
| task, id, round, seed, condition | which answer; `round` counts a dialogue's user turns from 1, tasks have 0 |
| character, topic, system | of a dialogue |
| user_text, user_motion_text | words of the input and what its motion shows, where the data says so |
| user_motion, user_audio | files of the input, as the data names them |
| user_body, user_hand, user_trans, user_speech | codes that the model was given as its input or last user turn |
| swapped_from | where a control took other sound or motion from, `<id>.<round>` |
| text, body, hand, speech | the answer: its words and its codes |
| valid, reason | whether it was well formed, and why not |
| error | why an input could not be used; nothing was generated for it then |
| motion, audio | files of the answer, relative to the folder |
| reference_text | known good texts: every caption of a motion, the transcript of a turn |
| reference_motion_text, reference_body, reference_hand, reference_speech | likewise |
| reference_motion, reference_audio | their files, as the data names them |
| num_tokens | generated, `<eos>` included |
| first_token_seconds, seconds | from the batch's start to the answer's first and last token |
| first_motion_seconds, first_audio_seconds | to the first pair of body and hand codes, the first frame of speech |
| decode_seconds | codes to motion and waveform |
| batch, batch_size | the batch's number in the run, and its answers; times are a live turn's where it is one |
"""

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value

RESULTS, RUN, VERSION = "results.jsonl", "run.json", 1
_text, _codes, _seconds = Value("string"), List(Value("int32")), Value("float64")
FEATURES = Features(
    **dict.fromkeys(("task", "id"), _text),
    **dict.fromkeys(("round", "seed"), Value("int64")),
    **dict.fromkeys(("condition", "character", "topic", "system", "user_text", "user_motion_text"), _text),
    **dict.fromkeys(("user_motion", "user_audio"), _text),
    **dict.fromkeys(("user_body", "user_hand", "user_trans", "user_speech"), _codes),
    **dict.fromkeys(("swapped_from", "text"), _text),
    **dict.fromkeys(("body", "hand", "speech"), _codes),
    valid=Value("bool"),
    **dict.fromkeys(("reason", "error", "motion", "audio"), _text),
    reference_text=List(_text),
    reference_motion_text=_text,
    **dict.fromkeys(("reference_body", "reference_hand", "reference_speech"), _codes),
    **dict.fromkeys(("reference_motion", "reference_audio"), _text),
    num_tokens=Value("int64"),
    **dict.fromkeys(("first_token_seconds", "first_motion_seconds", "first_audio_seconds", "seconds"), _seconds),
    decode_seconds=_seconds,
    **dict.fromkeys(("batch", "batch_size"), Value("int64")),
)
KEY = ("id", "round", "seed", "condition")
_EMPTY = {
    "round": 0, "text": "", "body": [], "hand": [], "speech": [], "valid": False, "reason": "", "error": "",
    "reference_text": [],
}  # fmt: skip


def result_row(**columns) -> dict:
    """A row with all columns in their order, those that are not given empty; TypeError for an unknown one."""
    if unknown := columns.keys() - FEATURES.keys():
        raise TypeError(f"results have no column {sorted(unknown)}")
    return {name: _plain(columns.get(name, _EMPTY.get(name))) for name in FEATURES}


def key_of(row: dict) -> tuple:
    """Key of an answer in a run."""
    return tuple(row[name] for name in KEY)


def read_results(folder: str | Path) -> tuple[Dataset, dict]:
    """The answers of a results folder and its `run.json`, finished or not. Raises FileNotFoundError: there are no
    results; ValueError: a damaged file, or a layout of another version."""
    folder = Path(folder)
    if not (folder / RUN).is_file():
        raise FileNotFoundError(f"{folder} holds no results: there is no {RUN}; make some with `solami generate`")
    run = read_run(folder)
    rows = whole_rows(folder / RESULTS)
    try:
        return Dataset.from_dict({name: [row[name] for row in rows] for name in FEATURES}, features=FEATURES), run
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{folder / RESULTS} holds a value of a wrong type ({error})") from None


def read_run(folder: Path) -> dict:
    """`run.json` of a folder; ValueError for a damaged one, or one of another version."""
    try:
        run = dict(json.loads((folder / RUN).read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder / RUN} is damaged ({error}); give another output, or remove the folder") from None
    if run.get("version") != VERSION:
        raise ValueError(f"{folder} has results of version {run.get('version')}, expected {VERSION}")
    return {name: value for name, value in run.items() if name != "version"}


def whole_rows(path: Path, required: Collection[str] = FEATURES) -> list[dict]:
    """The rows of a file but for a last line that was not written to its end, with None for columns that are
    missing. Raises ValueError: a damaged line, or one that lacks a column of `required`."""
    if not path.is_file():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = dict(json.loads(line.decode("utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}:{number} is damaged ({error}); remove the folder and run again") from None
        if missing := [name for name in required if name not in row]:
            raise ValueError(f"{path}:{number} lacks {', '.join(missing)}; was it written by `solami generate`?")
        rows.append({name: row.get(name) for name in FEATURES})
    return rows


def _plain(value):
    """Value as JSON: lists of int for arrays, numbers for NumPy's."""
    if isinstance(value, np.ndarray):
        return value.reshape(-1).tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    return value
