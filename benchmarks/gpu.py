"""Everything that needs a GPU, measured in one run: under ten minutes on a large one, with `--quick` under four.

    python benchmarks/gpu.py [--quick] [--only training speech] [--seconds 300]

`equality`: results of the GPU beside the CPU's, for motion and speech codec, SoundStorm, a step of training and one of
the answer grammar. `training`: useful tokens a second and the share of the device's bf16 peak for 135M, 1B and 7B
random weights on packed rows, by attention and by TRL's `SFTTrainer`, and peak memory beside what `--plan` says.
`decoding`: tokens a second, eager, with a static cache, compiled, and in vLLM. `streaming`: first motion and first
sound of an interleaved answer at the paper's sizes. `speech`: SoundStorm and the codec, in seconds of sound a second.
`motion`: 10,000 clips to codes.

Each part runs in a process of its own for so many seconds at most; what it has found until then counts. What cannot be
measured is skipped with its reason: without a GPU a part of it all, on small sizes, which takes some minutes on two
cores. The last line is one JSON object of the figures, with what was skipped under `skipped`.
"""

import argparse
import json
import logging
import sys
import time

import gpu_rows
import timing
import torch
from datasets import disable_progress_bars

logger = logging.getLogger(__name__)


def run_part(name: str, setup: gpu_rows.Setup) -> None:
    """One part, in the process that is its own."""
    import gpu_parts
    import gpu_training

    disable_progress_bars()
    {
        "equality": gpu_parts.equality,
        "training": gpu_training.training_rows,
        "decoding": gpu_parts.decoding,
        "streaming": gpu_parts.streaming,
        "speech": gpu_parts.speech,
        "motion": gpu_parts.motion,
    }[name](setup)


def main(argv: list[str] | None = None) -> None:
    """Runs the parts one after the other and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="shorter, fewer sizes")
    parser.add_argument(
        "--only", nargs="+", choices=gpu_rows.SECONDS, default=list(gpu_rows.SECONDS), help="these parts alone"
    )
    parser.add_argument("--part", choices=gpu_rows.SECONDS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help="of each part at most, where the machine is slow or busy")
    args = parser.parse_args(argv)
    timing.show_results(logger, gpu_rows.logger)
    if args.part:
        run_part(args.part, gpu_rows.make_setup(args.quick, args.seconds))
        return
    begin, rows = time.perf_counter(), []
    has_gpu, limits = torch.cuda.is_available(), gpu_rows.QUICK if args.quick else gpu_rows.SECONDS
    name = torch.cuda.get_device_name() if has_gpu else f"no GPU, {torch.get_num_threads()} threads of the CPU"
    logger.info("%s, torch %s", name, torch.__version__)
    for part in args.only:
        seconds = args.seconds or (limits[part] if has_gpu else gpu_rows.ON_CPU)
        command = [sys.executable, __file__, "--part", part, "--seconds", str(seconds)]
        rows += gpu_rows.collect(command + ["--quick"] * args.quick, seconds, part)
    result = {"device": name, "seconds": round(time.perf_counter() - begin)}
    result |= {row["name"]: float(f"{row['value']:.4g}") for row in rows if "value" in row}
    print(json.dumps(result | {"skipped": {row["name"]: row["skipped"] for row in rows if "skipped" in row}}))


if __name__ == "__main__":
    main()
