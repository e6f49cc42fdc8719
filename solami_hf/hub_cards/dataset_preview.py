"""Ten rows of a token dataset as sound and moving bodies, for the Hub's viewer: `solami push dataset --preview`."""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets import Audio, Features, Mesh, Value

from ..processing.audio.waveforms import write_audio
from ..processing.datasets.rendered_data import name_in_card
from ..processing.datasets.token_dataset import SCHEMAS, load_tokens, split_names, write_parquet
from ..processing.motion.motion_io import write_motion
from ..processing.processing_solami import SolamiProcessor

logger = logging.getLogger(__name__)
PREVIEW, ROWS = "preview", 10


def write_preview(folder: str | Path, checkpoint: str | Path, rows: int = ROWS) -> Path:
    """Adds the config `preview` of some rows to a token dataset folder and to its card; returns its file. A row is one
    motion, utterance or turn, decoded by the codecs of `checkpoint`, which made the codes: `id`, `text`, `audio` (wav)
    and `mesh` (an animated glTF of the free body), each None where the data have none. The configs share the rows.
    Raises FileNotFoundError: there are no tokens; ValueError: the codes are another codec's."""
    folder, processor = Path(folder), SolamiProcessor.from_pretrained(checkpoint)
    configs = [config for config in SCHEMAS if split_names(folder, config)]
    if not configs:
        raise FileNotFoundError(f"{folder} has no motion, speech or chat tokens to show; run `solami prepare`")
    shares = [rows // len(configs) + (i < rows % len(configs)) for i in range(len(configs))]
    turns = (
        turn
        for config, share in zip(configs, shares, strict=True)
        for turn in islice(_turns(load_tokens(folder, config, split_names(folder, config)[0], processor)), share)
    )
    text = Value("string")
    rate = processor.speech_codec.config.sampling_rate if processor.speech_codec is not None else None
    features = Features(id=text, text=text, audio=Audio(sampling_rate=rate), mesh=Mesh())
    path = folder / PREVIEW / "train-00000-of-00001.parquet"
    with TemporaryDirectory() as work:
        made = [_decoded(number, turn, processor, Path(work)) for number, turn in enumerate(turns)]
    logger.info("%d rows to look at in %s", write_parquet(path, made, features), path)
    name_in_card(folder, PREVIEW, {})
    return path


def _turns(rows) -> Iterator[dict]:
    """Each turn of each row with an id of its own; a motion is its row's only one."""
    for row in rows:
        for number, turn in enumerate(row.get("turns") or row.get("people") or [row]):
            told = turn.get("text", turn.get("person", ""))
            said = turn.get("motion_text") or told
            text = told if isinstance(told, str) and told else said
            yield {**turn, "id": f"{row['id']}-{number}", "text": text if isinstance(text, str) else " / ".join(text)}


def _decoded(number: int, turn: dict, processor, work: Path) -> dict:
    """The row of the preview."""
    audio = mesh = None
    if turn.get("speech"):
        rate = processor.speech_codec.config.sampling_rate
        write_audio(work / "a.wav", processor.decode_speech(turn["speech"]), rate)
        audio = {"bytes": (work / "a.wav").read_bytes(), "path": f"{number}.wav"}
    if turn.get("body"):
        write_motion(work / "m.glb", processor.decode_motion({"body": turn["body"], "hand": turn["hand"] or []}))
        mesh = {"bytes": (work / "m.glb").read_bytes(), "path": f"{number}.glb"}
    return {"id": turn["id"], "text": turn["text"], "audio": audio, "mesh": mesh}
