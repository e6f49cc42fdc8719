"""How `benchmarks/gpu.py` runs its parts; what they measure is seen by running it."""

import sys
import textwrap
import time

from benchmarks import gpu_rows


def collect(script: str, seconds: float) -> list[dict]:
    return gpu_rows.collect([sys.executable, "-c", textwrap.dedent(script)], seconds, "speech")


def test_a_part_that_ends_has_its_rows():
    rows = collect(
        """
        print("of a library")
        print('{"name": "codec_decode", "value": 2.5, "unit": "s"}')
        print('{"name": "codec_encode", "skipped": "no GPU"}')
        """,
        30,
    )
    assert rows == [
        {"name": "codec_decode", "value": 2.5, "unit": "s"},
        {"name": "codec_encode", "skipped": "no GPU"},
    ]


def test_a_part_that_takes_too_long_is_stopped_and_keeps_its_rows():
    begin = time.monotonic()
    rows = collect(
        """
        import subprocess, sys
        print('{"name": "codec_decode", "value": 2.5, "unit": "s"}', flush=True)
        subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"])
        """,
        4,
    )
    assert time.monotonic() - begin < 300
    assert [row["name"] for row in rows] == ["codec_decode", "speech"]
    assert rows[1]["skipped"] == "the rest was stopped after 4 s"


def test_a_part_that_fails_says_why():
    (row,) = collect("raise RuntimeError('no driver')", 30)
    assert row == {"name": "speech", "skipped": "failed: RuntimeError: no driver"}


def test_the_promise():
    assert sum(gpu_rows.SECONDS.values()) < 600 and sum(gpu_rows.QUICK.values()) < 240
    assert list(gpu_rows.SECONDS) == list(gpu_rows.QUICK)
