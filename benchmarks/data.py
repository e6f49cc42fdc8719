"""How fast dialogues become training samples, and in how much memory: the original's way and ours in one run.

    python benchmarks/data.py [--dialogues 2000] [--repeats 5] [--stream-rows 1000000]

The original writes every turn as a string of token names and lets a tokenizer in Python read it back, with all rows of
the data set in memory as lists; ours adds offsets to Arrow columns, a batch at a time (shared facts of the original,
written anew here). Dialogues have about 2,000 tokens, 5 rounds with the demo's system prompts; codes are random. Ids
and labels of both ways are compared before anything is timed. The last line is one JSON object of ratios: theirs over
ours, above 1 is faster or smaller.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timing
from datasets import disable_progress_bars, load_dataset
from transformers import PreTrainedTokenizer

from solami_hf.demo.corpus.dialogues import load_dialogues
from solami_hf.demo.tiny_model import train_tokenizer
from solami_hf.modeling.solami.vocabulary import BRACKETS, MODALITY_FORMATS, extend_tokenizer
from solami_hf.processing.datasets.batch_rendering import RenderingCounts, render_chats
from solami_hf.processing.datasets.rendered_data import write_rendered
from solami_hf.processing.datasets.tasks import chat_messages
from solami_hf.processing.datasets.token_dataset import SCHEMAS
from solami_hf.processing.rendering import IGNORE, TokenRenderer
from solami_hf.training.language_model.mixture import Mixture

ROUNDS, MOTION_CODES, SPEECH_CODES = 5, (18, 33), (100, 200)  # a turn of 2.4 to 4.4 s, spoken for 2 to 4 s
BATCH = 256
THEIR_DIALOGUES = 20
MEMORY_ROWS = 10_000
DRAWN = 20_000

logger = logging.getLogger(__name__)


class SlowTokenizer(PreTrainedTokenizer):
    """A tokenizer in Python, as the original's: it splits at the added tokens itself; only words come from Rust."""

    def __init__(self, base):
        self.base, self.base_vocab = base, base.get_vocab()
        self.base_tokens = {i: token for token, i in self.base_vocab.items()}
        super().__init__()

    @property
    def vocab_size(self) -> int:
        """Tokens without the added ones."""
        return len(self.base_vocab)

    def get_vocab(self) -> dict[str, int]:
        """All tokens."""
        return {**self.base_vocab, **self.added_tokens_encoder}

    def _tokenize(self, text, **kwargs):
        return self.base.tokenize(text)

    def _convert_token_to_id(self, token):
        return self.base_vocab.get(token)

    def _convert_id_to_token(self, index):
        return self.base_tokens.get(index)


def make_tokenizers():
    """`(slow, fast, layout)`: two tokenizers of one vocabulary at the paper's sizes, and where its modalities lie."""
    characters = load_dialogues()
    texts = [c.system for c in characters]
    slow, fast = SlowTokenizer(train_tokenizer(texts)), train_tokenizer(texts)
    layouts = [extend_tokenizer(tokenizer) for tokenizer in (slow, fast)]
    if layouts[0] != layouts[1]:
        raise RuntimeError("the two tokenizers number their tokens differently")
    return slow, fast, SimpleNamespace(modalities=layouts[1][0], markers=layouts[1][1], speech_levels=1)


def make_dialogues(number: int, seed: int = 0) -> pa.Table:
    """Rows of chat data with random codes; every answer has its own transcript."""
    rng, systems = np.random.default_rng(seed), [c.system for c in load_dialogues()]
    vocabulary = " ".join(systems).split()
    rows = []
    for i in range(number):
        turns = [{"role": "system", "text": systems[i % len(systems)]}]
        for k in range(2 * ROUNDS):
            motion, speech = rng.integers(*MOTION_CODES), rng.integers(*SPEECH_CODES)
            turns.append(
                {
                    "role": ("user", "assistant")[k % 2],
                    "text": " ".join(rng.choice(vocabulary, size=9)),
                    "body": rng.integers(512, size=motion),
                    "hand": rng.integers(512, size=motion),
                    "trans": rng.integers(256, size=1),
                    "speech": rng.integers(1024, size=speech),
                }
            )
        rows.append({"id": str(i), "topic": "", "character": "", "turns": turns, "source": ""})
    return pa.Table.from_pylist(rows, schema=SCHEMAS["chat"].arrow_schema)


def their_span(name: str, codes: list[int]) -> str:
    """A span of codes as a string of token names."""
    begin, end = (f"<{marker}>" for marker in BRACKETS[name]) if name in BRACKETS else ("", "")
    return begin + "".join(MODALITY_FORMATS[name].format(code) for code in codes) + end


def their_sample(row: dict, tokenizer, transcripts: bool) -> dict:
    """A dialogue turn by turn: its string, its ids, its labels."""
    ids, labels = [], []
    for i, turn in enumerate(row["turns"]):
        answer = turn["role"] == "assistant"
        if turn["role"] == "system":
            text = turn["text"] + "\n"
        else:
            names = ("body", "hand", "speech") if answer else ("trans", "body", "hand", "speech")
            words = turn["text"] + "<eot>" if answer and transcripts else ""
            spans = "".join(their_span(name, turn[name]) for name in names)
            role, end = ("[MMGPT]: ", "<eos>") if answer else ("[Human]: ", "<eoh>")
            text = ("\n" if i > 1 else "") + role + words + spans + end
        new = tokenizer(text, add_special_tokens=False)["input_ids"]
        role_at = new.index(tokenizer.convert_tokens_to_ids("[MMGPT]: ")) + 1 if answer else len(new)
        ids += new
        labels += [IGNORE] * role_at + new[role_at:]
    return {"input_ids": ids, "labels": labels}


def our_samples(table: pa.Table, renderer: TokenRenderer, answer_format: str) -> list[pa.Table]:
    """All dialogues of a table, batch by batch, with no text tokenized before."""
    renderer._text_cache.clear()
    batches = (table.slice(i, BATCH) for i in range(0, len(table), BATCH))
    return list(render_chats(batches, renderer, RenderingCounts(), answer_format))


def render_samples(args) -> dict[str, float]:
    """Samples a second, in both answer formats, and two further comparisons."""
    slow, fast, layout = make_tokenizers()
    renderer, table = TokenRenderer(fast, layout), make_dialogues(args.dialogues)
    rows, results = table.slice(0, THEIR_DIALOGUES).to_pylist(), {}

    def per_hundred(function, samples):
        times, result = timing.timed(function, args.repeats)
        return [100 * t / samples for t in times], result

    for answer_format in ("motion_speech", "text_motion_speech"):
        transcripts = answer_format == "text_motion_speech"
        theirs, wanted = per_hundred(lambda t=transcripts: [their_sample(row, slow, t) for row in rows], len(rows))
        ours, tables = per_hundred(lambda f=answer_format: our_samples(table, renderer, f), len(table))
        for mine, their in zip(tables[0].slice(0, len(rows)).to_pylist(), wanted, strict=True):
            if any(mine[name] != their[name] for name in their):
                raise RuntimeError(f"dialogue {mine['id']} is rendered differently by the two ways")
        results[answer_format] = timing.log_row(f"100 samples, {answer_format}", theirs, ours)
        if not transcripts:
            tokens = sum(len(sample["input_ids"]) for sample in wanted) / len(wanted)
            with_fast, _ = per_hundred(lambda: [their_sample(row, fast, False) for row in rows], len(rows))
            fast_ratio = timing.log_row("the same, theirs with a fast tokenizer", with_fast, ours)
            messages = [chat_messages(row, answer_format) for row in rows]
            single, _ = per_hundred(lambda m=messages: [renderer.chat(one) for one in m], len(rows))
            timing.log_row("the same, ours one dialogue at a time", theirs, single)
            median = float(np.median(ours))
            logger.info("%.0f tokens a sample; ours %.0f samples/s", tokens, 100 / median)
    return {
        "render_samples": results["motion_speech"],
        "render_samples_with_transcripts": results["text_motion_speech"],
        "render_samples_over_fast_tokenizer": fast_ratio,
    }


def peak_memory(args) -> dict[str, float]:
    """Memory that the two ways take on top of what is loaded before, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "chat-00000.parquet"
        part = make_dialogues(1000)
        with pq.ParquetWriter(source, part.schema) as writer:
            for _ in range(MEMORY_ROWS // 1000):
                writer.write_table(part, row_group_size=BATCH)
        copies = max(1, args.stream_rows // MEMORY_ROWS)
        for i in range(1, copies):  # one file under many names is read as often
            os.link(source, Path(folder) / f"chat-{i:05d}.parquet")
        theirs = child("theirs", folder, 1)
        ours = child("ours", folder, 1)
        logger.info("%-38s %-28s %-28s", "megabytes on top of the program", "the original's way", "ours")
        logger.info("%-38s %-28.0f %.0f", f"{MEMORY_ROWS} dialogues to a data set", theirs["mb"], ours["mb"])
        for way, what in (("ours_streamed", "rendered"), ("ours_drawn", f"mixed, {DRAWN} drawn")):
            much = child(way, folder, copies)
            text = f"{much['mb']:.0f} ({much['rows'] / much['seconds']:.0f} rows/s)"
            logger.info("%-38s %-28s %s", f"{copies * MEMORY_ROWS} rows, streamed, {what}", "", text)
    return {"peak_memory_mb": theirs["mb"] / ours["mb"]}


def child(way: str, folder: str, copies: int) -> dict[str, float]:
    """Runs `measure` in a new process."""
    command = [sys.executable, __file__, "--measure", way, folder, str(copies)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(way: str, folder: str, copies: int) -> dict[str, float]:
    """One way's peak of memory in megabytes above the start, its rows and seconds."""
    slow, fast, layout = make_tokenizers()
    files = [str(Path(folder) / f"chat-{i:05d}.parquet") for i in range(copies)]
    renderer, counts = TokenRenderer(fast, layout), RenderingCounts()
    Path("/proc/self/clear_refs").write_text("5")  # begins the peak anew
    before, start, rows = resident("VmRSS"), time.perf_counter(), copies * MEMORY_ROWS
    if way == "theirs":
        # Rows as lists, as from JSON. Samples are made one by one, so a few show what they need.
        kept = [row for batch in pq.ParquetFile(files[0]).iter_batches(BATCH) for row in batch.to_pylist()]
        for row in kept[:10]:
            their_sample(row, slow, False)
    elif way == "ours_drawn":
        rendered = [str(Path(folder) / "rendered" / "sft" / "train-00000-of-00001.parquet")] * copies
        half = len(rendered) // 2 or 1
        a, b = (
            load_dataset("parquet", data_files=part, split="train", cache_dir=folder).with_format("numpy")
            for part in (rendered[:half], rendered[half:] or rendered)
        )
        rows = sum(1 for _ in Mixture({"a": a}, {"b": b}, DRAWN, 0).stream())
    else:
        stream = load_dataset("parquet", data_files=files, split="train", streaming=True).with_format("arrow")
        tables = render_chats(stream.iter(BATCH), renderer, counts)
        if way == "ours":
            write_rendered(Path(folder) / "rendered", "sft", "train", tables)
        else:
            rows = sum(len(table) for table in tables)
    return {"mb": (resident("VmHWM") - before) / 1024, "rows": rows, "seconds": time.perf_counter() - start}


def resident(name: str) -> int:
    """Kilobytes of this process: `VmRSS` now, `VmHWM` at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status does not name {name}")


def main(argv: list[str] | None = None) -> None:
    """Runs both parts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dialogues", type=int, default=2000, help="dialogues that ours renders in a timed run")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each way")
    parser.add_argument("--stream-rows", type=int, default=1_000_000, help="rows of the streamed data set")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    disable_progress_bars()
    timing.show_results(logger)
    if args.measure:
        way, folder, copies = args.measure
        print(json.dumps(measure(way, folder, int(copies))))
        return
    timing.log_header()
    results = {**render_samples(args), **peak_memory(args)}
    print(json.dumps({name: float(f"{value:.4g}") for name, value in results.items()}))


if __name__ == "__main__":
    main()
