"""The duplex recipe trains on rows of two people and writes a checkpoint that knows what a tick holds."""

from pathlib import Path

import numpy as np
from transformers import AutoModelForCausalLM

import solami_hf
from solami_hf.processing.datasets.duplex import DuplexFormat
from solami_hf.processing.datasets.token_dataset import fingerprints, write_token_dataset
from solami_hf.training import sft

RECIPE = Path(solami_hf.__file__).parent / "training/recipes/sft_duplex_tiny.yaml"
QUICK = ["--max_steps", "2", "--save_steps", "2", "--warmup_steps", "0", "--per_device_train_batch_size", "2"]


def test_the_recipe_runs(tmp_path, tiny_model, tiny_processor, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [
        {"id": f"r{i}", "source": f"s{i}", "people": [
            {"person": str(p), "body": rng.integers(16, size=60), "hand": rng.integers(16, size=60), "trans": [0],
             "speech": rng.integers(32, size=400), "talks": []} for p in range(2)]}
        for i in range(4)
    ]  # fmt: skip
    rows[3]["id"] = "r0"  # a held-out row must not be trained on
    prints = fingerprints(tiny_processor, "duplex")
    write_token_dataset(tmp_path / "data", "duplex", {"train": rows[:3], "test": rows[3:]}, prints)
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    folders = [
        "--model",
        str(tmp_path / "model"),
        "--data",
        str(tmp_path / "data"),
        "--output_dir",
        str(tmp_path / "o"),
    ]
    seen = []
    made = sft.duplex_samples
    monkeypatch.setattr(sft, "duplex_samples", lambda *given: seen.append(made(*given)) or seen[-1])
    assert sft.main(["--config", str(RECIPE), *folders, *QUICK]) == 0
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "o").config
    assert config.duplex["max_ticks"] == 13 and DuplexFormat.of(config).tokens == 28
    assert {name.split("#")[0] for name in seen[0]["id"]} == {"r1", "r2"} and len(seen[0]) == 8
    assert sum(label != -100 for label in seen[0][0]["labels"]) == 13 * 3
