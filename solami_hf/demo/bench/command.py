"""`solami bench build FOLDER` makes the benchmark `solami_bench`; `solami bench run` has a checkpoint answer it.

solami bench build runs/bench
solami bench run --benchmark runs/bench --output runs/entry --checkpoint my_character
solami bench check --benchmark runs/bench --output runs/entry     # is an entry, of whatever made it, complete?
solami evaluate bench runs/entry --benchmark runs/bench
"""

import logging
import sys
from dataclasses import dataclass

from ...command_line import option, parse_arguments

logger = logging.getLogger(__name__)
KINDS = ("build", "run", "check")


@dataclass
class BenchArguments:
    """Arguments of `solami bench`."""

    kind: str = option(..., "build, run or check; also accepted as the first word.")
    output: str = option(..., "Folder of the benchmark to build, or of the entry; also accepted as the second word.")
    benchmark: str | None = option(None, "The benchmark's folder or Hub id.")
    checkpoint: str | None = option(None, "What answers; the packaged character when unset.")
    name: str | None = option(None, "Of the system; the checkpoint's when unset.")
    description: str | None = option(None, "Of the system and what it was trained on.")
    seed: int = option(0, "Answers are drawn from it.")

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"bench what? Got {self.kind!r}, expected one of: {', '.join(KINDS)}")
        if self.kind != "build" and not self.benchmark:
            raise ValueError("name the --benchmark: a folder of `solami bench build`, or its Hub id")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    (args,) = parse_arguments([BenchArguments], argv, "solami bench", __doc__, words=["kind", "output"])
    if args.kind == "build":
        from .build_bench import build_benchmark

        digest = build_benchmark(args.output)
        logger.info("wrote the benchmark %s; its manifest's SHA-256 is %s", args.output, digest)
        return 0
    from ...metrics.evaluation.bench.bench_entries import Benchmark, read_entry
    from ...metrics.evaluation.bench.bench_report import benchmark_folder

    folder = benchmark_folder(args.benchmark)
    if args.kind == "run":
        from ...generation.pipeline import SolamiPipeline
        from .run_bench import pipeline_answers, write_entry

        name = args.name or args.checkpoint or "packaged character"
        system = {"name": name, "description": args.description or f"SolamiPipeline of {name}"}
        pipeline = SolamiPipeline.from_pretrained(args.checkpoint)
        write_entry(args.output, folder, system, pipeline_answers(pipeline, args.seed), args.seed)
    found = read_entry(args.output, Benchmark(folder))
    logger.info("%s: %d runs of %s, complete", args.output, len(found.runs), found.header["system"]["name"])
    return 0
