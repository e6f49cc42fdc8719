"""How fast speech becomes codes and codes become speech: the original's way and ours, on the same inputs in one run.

    python benchmarks/speech.py [--rows soundstorm codec_encode] [--repeats 3]

The networks have the original's sizes and seeded weights. Prints a table (medians and ranges) and, last, one JSON
object of ratios: theirs over ours, above 1 is faster. Each row is a function of its own module that takes the number
of repeats and returns its part of that object.
"""

import argparse
import json

import timing
import torch
from speech_codec import codec_decode, codec_encode, stream_first_audio
from speech_soundstorm import soundstorm

ROWS = {
    "soundstorm": soundstorm,
    "codec_encode": codec_encode,
    "codec_decode": codec_decode,
    "stream_first_audio": stream_first_audio,
}


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    """Runs the rows asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="what to measure")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each way")
    args = parser.parse_args(argv)
    timing.show_results()
    timing.logger.info("%d threads", torch.get_num_threads())
    timing.log_header()
    results = {}
    for name in args.rows:
        results |= ROWS[name](args.repeats)
    print(json.dumps({name: float(f"{value:.4g}") for name, value in results.items()}))


if __name__ == "__main__":
    main()
