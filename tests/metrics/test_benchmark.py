"""The benchmark runs, small, and its two ways give the same features."""

import importlib.util
import json
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_benchmark_of_fid_features(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("benchmark_of_metrics", BENCHMARKS / "metrics.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.main(["--motions", "600", "--frames", "20", "--sample", "2", "--repeats", "1"])
    ratios = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ratios["fid_features"] > 5 and ratios["largest_relative_difference"] < 1e-9
    assert abs(ratios["more_memory_mb_for_10x_motions"]) < 2  # 16 MB are all motions
