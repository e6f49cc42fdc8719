"""Answers the jobs of a folder run batch by batch and writes them to a results folder, which a later run continues."""

import logging
import time
import zlib

import numpy as np
import torch
from tqdm import tqdm
from transformers import StoppingCriteria

from ...processing.answers import Answer
from ...processing.audio.waveforms import write_audio
from ...processing.motion.motion_io import write_motion
from ..results_writer import ResultsWriter
from ..serving.continuous import generate_continuously
from ..settings import Decoding
from .jobs import Job

logger = logging.getLogger(__name__)


def run_folder(pipeline, batches: list[list[Job]], writer: ResultsWriter, decoding: Decoding, media: bool) -> dict:
    """Answers all batches (as `jobs.in_batches` gives them) that are not there yet, and writes them by an entered
    writer, with `media` also motion and waveform of each valid one. Returns `{"answers", "valid", "errors"}` of the
    whole run, counted."""
    first, bar = writer.next_batch, tqdm(total=len(batches), desc="answers", unit="batch", disable=None)
    bar.update(first)
    with bar:
        for number in range(first, len(batches)):
            writer.append(_answer_batch(pipeline, batches[number], number, writer, decoding, media))
            bar.update()
    rows = writer.done.values()
    for row in [row for row in rows if row["error"]][:5]:
        logger.warning("left out %s%s: %s", row["id"], f".{row['round']}" if row["round"] else "", row["error"])
    valid, errors = sum(row["valid"] for row in rows), sum(bool(row["error"]) for row in rows)
    return {"answers": len(rows), "valid": valid, "errors": errors}


def _answer_batch(pipeline, batch: list[Job], number: int, writer: ResultsWriter, decoding: Decoding, media) -> list:
    """The rows of a batch; its sampling depends on seed and batch alone."""
    begin, prompts = time.perf_counter(), {}
    rows = [{**job.columns, "batch": number, "batch_size": len(batch)} for job in batch]
    for i, (job, row) in enumerate(zip(batch, rows, strict=True)):
        if not row["error"]:
            try:
                prompts[i] = job.prompt(writer.done)
            except ValueError as error:  # it costs no other answer
                row["error"] = str(error)
    if not prompts:
        return rows
    torch.manual_seed(zlib.crc32(f"{rows[0]['seed']} {number}".encode()))
    late = time.perf_counter() - begin
    ids, times = _generate(pipeline, list(prompts.values()), batch[0].answer_format, decoding)
    for i, row_ids, row_times in zip(prompts, ids, times, strict=True):
        answer = pipeline.processor.parse_response(row_ids, batch[i].answer_format)
        text = pipeline.processor.tokenizer.decode(answer.text_ids).strip() if answer.text_ids else ""
        answer.speech = pipeline.spoken(answer, text, batch[i].answer_format)
        codes = {name: getattr(answer, name).tolist() for name in ("body", "hand", "speech")}
        rows[i] |= {"text": text, **codes, "valid": answer.valid, "reason": answer.reason}
        rows[i] |= _latency(row_ids, [late + moment for moment in row_times], pipeline.model.config)
        if media and answer.valid:
            rows[i] |= _write_media(pipeline, answer, rows[i], batch[i].voice, writer)
    return rows


def _generate(pipeline, prompts: list, answer_format: str | None, decoding: Decoding) -> tuple[list, list]:
    """Ids of the answers, and for each of their tokens the seconds until it was there."""
    longest = decoding.max_new_tokens
    if len(prompts) > 1 and not pipeline.takes_batches:
        each = [_generate(pipeline, [prompt], answer_format, decoding) for prompt in prompts]
        return [ids for (ids,), _ in each], [times for _, (times,) in each]
    if decoding.is_continuous(pipeline.model):
        grammar = pipeline.grammar(answer_format, longest)
        return generate_continuously(pipeline.model, prompts, grammar, longest, **decoding.sampling)
    clock = _Clock()
    ids = pipeline.generate_prompts(
        prompts, answer_format, max_new_tokens=longest, stopping_criteria=[clock], **decoding.sampling
    )
    return ids, [clock.times] * len(ids)


class _Clock(StoppingCriteria):
    """Notes when each step of `generate` was done; it never stops one."""

    def __init__(self):
        self.begin, self.times = time.perf_counter(), []

    def __call__(self, input_ids, scores, **kwargs):
        self.times.append(time.perf_counter() - self.begin)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _latency(ids: list[int], times: list[float], config) -> dict:
    """Number of tokens, and the seconds to the first, to the first motion and sound, and to the last."""
    ids = np.asarray(ids)
    ends = np.flatnonzero(ids == config.markers["eos"])
    count = int(ends[0]) + 1 if len(ends) else len(ids)

    def moment(name: str, needed: int) -> float | None:
        span = config.modalities[name]
        places = np.flatnonzero((ids[:count] >= span["first_id"]) & (ids[:count] < span["first_id"] + span["size"]))
        return times[places[needed - 1]] if len(places) >= needed else None

    motion = [moment(name, 1) for name in ("body", "hand") if name in config.modalities]
    return {
        "num_tokens": count,
        "first_token_seconds": times[0],
        "first_motion_seconds": None if None in motion else max(motion),
        "first_audio_seconds": moment("speech", config.speech_levels),
        "seconds": times[count - 1],
    }


def _write_media(pipeline, answer: Answer, row: dict, voice: str | None, writer: ResultsWriter) -> dict:
    """Writes what an answer holds of motion and sound; where, and how long decoding took."""
    processor, written, begin = pipeline.processor, {}, time.perf_counter()
    motion = processor.decode_motion({"body": answer.body, "hand": answer.hand}) if len(answer.body) else None
    audio = processor.decode_speech(answer.speech, voice) if len(answer.speech) else None
    seconds = time.perf_counter() - begin
    if motion is not None:
        pieces = pipeline.face_pieces()
        face = None if pieces is None else pieces.whole(motion, answer.speech, audio)[1]
        written["motion"] = writer.media_path(row, ".npz").as_posix()
        write_motion(writer.folder / written["motion"], motion, face)
    if audio is not None:
        written["audio"] = writer.media_path(row, ".wav").as_posix()
        write_audio(writer.folder / written["audio"], audio, processor.speech_codec.config.sampling_rate)
    return {**written, "decode_seconds": seconds}
