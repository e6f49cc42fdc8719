"""What packing saves in time and the chunked loss in memory: the plain way and ours in one run.

    python benchmarks/training.py [--chat TOKENS/chat/train-00000-of-00001.parquet] [--repeats 5]

`packing`: useful tokens a second of training steps, forward and backward, on dialogues in the order they come. Theirs
pads each batch to its longest dialogue; ours packs them (`pack_dataset`, rows side by side). The lengths are those of
`--chat`, a data set of `solami prepare chat`; without it, of dialogues of 2 to 5 rounds with random codes, as the
original draws them. `loss_memory`: peak memory of loss and gradients from hidden states on, at 4,096 labelled tokens
and a vocabulary of 50,000, each way in a process of its own. `two_ranks`: useful tokens a second of whole steps on
packed rows, with the optimizer, at equal global batch: theirs on one rank with two threads, ours on two ranks with one
thread each (`torchrun`, gloo). `trainers`: useful tokens a second of whole steps on the same packed rows, theirs by
TRL's `SFTTrainer`, ours by the trainer of `solami sft`, and both curves of the loss; a row a step, as TRL puts several
end to end, which sdpa attends to as a whole. Both ways see the same model and data, and their losses are compared
before anything is reported. The last line is one JSON object of ratios, above 1 is faster or smaller.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import data as data_benchmark
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timing
import torch
import training_trainers
from datasets import Dataset, disable_progress_bars
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM
from trl import pack_dataset

from solami_hf.processing.datasets.batch_rendering import RenderingCounts, render_chats
from solami_hf.processing.rendering import TokenRenderer
from solami_hf.training.language_model.chunked_loss import add_chunked_loss, token_scores
from solami_hf.training.language_model.packed_mixture import PackedRowsCollator

VOCABULARY, TOKENS, WIDTH = 50_000, 4096, 256  # of the loss; the width is the demo's, where logits weigh most
DIALOGUES = 96
LOSS_REPEATS = 3
PARTS = ("packing", "loss_memory", "two_ranks", "trainers")
RANK_ROWS = 24  # of a pass on one and two ranks

logger = logging.getLogger(__name__)


def chat_rows(path: str | None) -> pa.Table:
    """Chat rows of a data set, or random ones of 2 to 5 rounds, in a random order."""
    rng = np.random.default_rng(0)
    if path:
        table = pq.read_table(path)
    else:
        table = data_benchmark.make_dialogues(DIALOGUES)
        rows = table.to_pylist()
        for row in rows:
            row["turns"] = row["turns"][: 1 + 2 * int(rng.integers(2, 6))]
        table = pa.Table.from_pylist(rows, schema=table.schema)
    return table.take(rng.permutation(len(table))[:DIALOGUES])


def render(table: pa.Table, max_length: int) -> Dataset:
    """Rendered dialogues, those that fit; longer ones lose rounds from the front, as in `solami sft`."""
    _, tokenizer, layout = data_benchmark.make_tokenizers()
    renderer, counts = TokenRenderer(tokenizer, layout), RenderingCounts()
    batches = [table.slice(i, 64) for i in range(0, len(table), 64)]
    tables = list(render_chats(batches, renderer, counts, "text_motion_speech", max_length))
    return Dataset(pa.concat_tables(tables)).select_columns(["input_ids", "labels"])


def packing(args) -> dict[str, float]:
    """Useful tokens a second, theirs padded to the longest of each batch, ours packed."""
    samples = render(chat_rows(args.chat), args.max_length)
    lengths = [len(ids) for ids in samples["input_ids"]]
    quartiles = "/".join(f"{q:.0f}" for q in np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1]))
    logger.info("%d dialogues of %s tokens (quartiles), %d rows a step", len(lengths), quartiles, args.rows)
    model, collate = small_model(samples, args.max_length), PackedRowsCollator(0)

    def steps(dataset):
        rows = dataset.to_list()
        batches = [collate(rows[i : i + args.rows]) for i in range(0, len(rows), args.rows)]
        return sum(_step(model, batch) for batch in batches) / sum(lengths)

    packed = pack_dataset(samples, args.max_length, "bfd")
    # Padding to max_length is what scripts do that want one shape
    full = [{**row, "seq_lengths": None} for row in samples.to_list()]
    theirs, their_loss = timing.timed(lambda: steps(samples), args.repeats)
    ours, our_loss = timing.timed(lambda: steps(packed), args.repeats)
    if abs(their_loss - our_loss) > 1e-3 * abs(their_loss):
        raise RuntimeError(f"padded and packed losses differ: {their_loss} and {our_loss}")
    ratio = timing.log_row("all dialogues once, padded to longest", theirs, ours)
    blocks = [_padded_to(collate([row]), args.max_length) for row in full]
    batches = [
        {name: torch.cat([block[name] for block in blocks[i : i + args.rows]]) for name in blocks[0]}
        for i in range(0, len(blocks), args.rows)
    ]
    fixed, _ = timing.timed(lambda: sum(_step(model, b | {"use_cache": False}) for b in batches), args.repeats)
    fixed_ratio = timing.log_row("the same, padded to max_length", fixed, ours)
    rates = [sum(lengths) / statistics.median(times) for times in (theirs, fixed, ours)]
    logger.info("useful tokens/s: %.0f padded to the longest, %.0f to max_length, %.0f packed", *rates)
    return {"packing": ratio, "packing_over_max_length": fixed_ratio}


def small_model(samples: Dataset, max_length: int, chunked_loss: bool = True) -> LlamaForCausalLM:
    """A model of the demo's size for the tokens of the samples, by default with the loss in chunks."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=max(max(ids) for ids in samples["input_ids"]) + 1,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    if chunked_loss:
        add_chunked_loss(model)
    return model


def trainers(args) -> dict[str, float]:
    """Useful tokens a second of TRL's trainer and of ours, in turns, and by how much their losses differ."""
    samples = render(chat_rows(args.chat), args.max_length)
    _, tokenizer, layout = data_benchmark.make_tokenizers()
    rows = pack_dataset(samples, args.max_length, "bfd")
    ways = {"theirs": training_trainers.train_trl, "ours": training_trainers.train_ours}
    runs = {name: [] for name in ways}
    settings = {"batch": 1, "max_length": args.max_length, "bf16": args.bf16, "activation_checkpointing": False}
    for _ in range(args.repeats):  # in turns, since other programs come and go
        for name, train in ways.items():
            model = small_model(samples, args.max_length, chunked_loss=False)
            model.config.modalities, model.config.markers = layout.modalities, layout.markers
            runs[name].append(train(model, tokenizer, rows, args.steps, **settings))
    rates = {name: [rate for run in way for rate in run.rates] for name, way in runs.items()}
    logger.info(
        "useful tokens/s: %.0f by TRL's trainer, %.0f by ours", *(statistics.median(r) for r in rates.values())
    )
    theirs, ours = (runs[name][0].losses for name in ways)
    for step in range(0, args.steps, max(1, args.steps // 8)):
        logger.info("loss at step %3d: %.4f by TRL's trainer, %.4f by ours", step + 1, theirs[step], ours[step])
    difference = max(abs(a - b) for a, b in zip(theirs, ours, strict=True))
    if difference > 0.05:
        raise RuntimeError(f"the losses of the two trainers differ by up to {difference}")
    seconds_of = [[1000 / rate for rate in rates[name]] for name in ways]
    ratio = timing.log_row("1,000 useful tokens, TRL's and our trainer", *seconds_of)
    return {"trainers": ratio, "trainers_loss_difference": difference}


def two_ranks(args) -> dict[str, float]:
    """Seconds for the same steps on one rank with two threads and on two ranks with one each."""
    one, two = (_ranks_child(args, ranks) for ranks in (1, 2))
    if abs(one["loss"] - two["loss"]) > 1e-3 * abs(one["loss"]):
        raise RuntimeError(f"losses of one and two ranks differ: {one['loss']} and {two['loss']}")
    logger.info("useful tokens/s: %.0f on one rank, %.0f on two", *(way["tokens"] for way in (one, two)))
    return {"two_ranks": timing.log_row("the same steps, on one and two ranks", one["times"], two["times"])}


def _ranks_child(args, ranks: int) -> dict:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", __file__]
    command += ["--measure-ranks", "--max-length", str(args.max_length), "--rows", str(args.rows)]
    command += ["--repeats", str(args.repeats), *(["--chat", args.chat] if args.chat else [])]
    environment = os.environ | {"OMP_NUM_THREADS": str(2 // ranks)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def measure_ranks(args) -> dict | None:
    """One rank's part of the steps; the first rank has their seconds, the tokens a second and the last loss."""
    distributed.init_process_group("gloo")
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    torch.set_num_threads(2 // world_size)
    samples = render(chat_rows(args.chat), args.max_length)
    rows = pack_dataset(samples, args.max_length, "bfd").to_list()
    rows = rows[: min(len(rows), RANK_ROWS) // args.rows * args.rows]
    model, collate = DistributedDataParallel(small_model(samples, args.max_length)), PackedRowsCollator(0)
    optimizer, batches = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for i in range(0, len(rows), args.rows):
        labels = collate(rows[i : i + args.rows])["labels"]
        # Gradients are averaged over the ranks, so each divides by its share of all labels
        count = (labels != -100).sum().item() / world_size
        batches.append((collate(rows[i + rank : i + args.rows : world_size]), count))

    def steps() -> float:
        total = 0.0
        for batch, count in batches:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(**batch, num_items_in_batch=count).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item() / len(batches)
        mean = torch.tensor(total)
        distributed.all_reduce(mean)
        return mean.item() / world_size

    times, loss = timing.timed(steps, args.repeats)
    distributed.destroy_process_group()
    useful = sum(len(row["input_ids"]) for row in rows)
    tokens = useful / statistics.median(times)
    return {"times": times, "tokens": tokens, "loss": loss} if rank == 0 else None


def _step(model, batch) -> float:
    """Summed loss of a batch after its backward pass, in bf16 as in the recipes."""
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch, num_items_in_batch=1).loss
    loss.backward()
    return loss.item()


def _padded_to(batch: dict, width: int) -> dict:
    """A batch of one row at a fixed width; what is added is a document of its own."""
    extra = width - batch["input_ids"].shape[1]
    padded = {
        "input_ids": F.pad(batch["input_ids"], (0, extra)),
        "labels": F.pad(batch["labels"], (0, extra), value=-100),
    }
    return padded | {"position_ids": torch.cat([batch["position_ids"], torch.arange(extra)[None]], 1)}


def loss_memory(args) -> dict[str, float]:
    """Peaks of the two ways, in fp32 and under bf16 autocast."""
    logger.info("%-38s %-28s %-28s %6s", "megabytes", "all logits at once", "ours", "ratio")
    ratios = {}
    for dtype in ("fp32", "bf16"):
        theirs, ours = (_child(way, dtype) for way in ("plain", "chunked"))
        if abs(theirs["loss"] - ours["loss"]) > (1e-5 if dtype == "fp32" else 1e-2):
            raise RuntimeError(f"the losses differ: {theirs['loss']} and {ours['loss']} in {dtype}")
        ratio = theirs["mb"] / ours["mb"]
        cells = (f"{way['mb']:9.0f} ({way['seconds']:.2f} s)" for way in (theirs, ours))
        logger.info("%-38s %-28s %-28s %6.2f", f"loss, {TOKENS} x {VOCABULARY}, {dtype}", *cells, ratio)
        ratios[f"loss_memory_{dtype}"] = ratio
        if dtype == "fp32":
            ratios = {"loss_memory": ratios.pop("loss_memory_fp32")}
            ratios["loss_time"] = theirs["seconds"] / ours["seconds"]
    return ratios


def _child(way: str, dtype: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--measure", way, dtype], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(way: str, dtype: str) -> dict[str, float]:
    """One way's peak of memory in megabytes above hidden states and head, its median seconds and its loss."""
    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
    targets = torch.randint(0, VOCABULARY, (TOKENS,))

    def run(hidden, targets):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
            if way == "plain":
                loss = F.cross_entropy(head(hidden).float(), targets)
            else:
                loss = -token_scores(hidden, head, targets)[0].mean()
        loss.backward()
        return loss.item()

    run(hidden[:64], targets[:64])  # buffers of the kernels, and the gradients, are there before
    Path("/proc/self/clear_refs").write_text("5")  # begins the peak anew
    before, times = data_benchmark.resident("VmRSS"), []
    for _ in range(LOSS_REPEATS):
        start = time.perf_counter()
        loss = run(hidden, targets)
        times.append(time.perf_counter() - start)
    mb = (data_benchmark.resident("VmHWM") - before) / 1024
    return {"mb": mb, "seconds": statistics.median(times), "loss": loss}


def main(argv: list[str] | None = None) -> None:
    """Runs all parts, or one, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chat", help="Parquet file of chat rows whose lengths are used")
    parser.add_argument("--max-length", type=int, default=2048, help="longest sample, and the length of a block")
    parser.add_argument("--rows", type=int, default=4, help="rows of a step")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each way")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure-ranks", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--steps", type=int, default=24, help="steps of each trainer")
    parser.add_argument("--bf16", action="store_true", help="mixed precision for both trainers")
    args = parser.parse_args(argv)
    disable_progress_bars()
    timing.show_results(logger)
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return
    if args.measure_ranks:
        if result := measure_ranks(args):
            print(json.dumps(result))
        return
    results = loss_memory(args) if args.only in (None, "loss_memory") else {}
    timing.log_header()
    for part in (packing, two_ranks, trainers):
        if args.only in (None, part.__name__):
            results |= part(args)
    print(json.dumps({name: float(f"{value:.4g}") for name, value in results.items()}))


if __name__ == "__main__":
    main()
