"""Prepare, push, load, stream and train a step through a Hub over HTTP, as a user does it with the real one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import soundfile

from solami_hf.processing.motion.motion_io import write_motion

_spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
hub_server = sys.modules.setdefault("hub_server", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(hub_server)

SCRIPT = """
import sys
from datasets import load_dataset
from solami_hf.processing.prepare import main
from solami_hf.processing.processing_solami import SolamiProcessor
from solami_hf.processing.datasets.split_hygiene import held_out_rows, without_leaks
from solami_hf.processing.datasets.token_dataset import load_tokens, split_names
from solami_hf.training import pretrain

source, model, out = sys.argv[1:]
for kind in ("motion", "speech"):
    options = ["--processor", model, "--output", "hf://org/tokens", "--license", "cc0-1.0", "--shard_rows", "2"]
    main([kind, f"{source}/{kind}", *options])
main(["motion", f"{source}/motion", "--processor", model, "--output", "hf://org/tokens", "--shard_rows", "4"])

rows = load_dataset("org/tokens", "motion", split="train")
assert rows["id"] == ["m0", "m1", "m2", "m4"], rows["id"]
assert rows.features["body"].feature.dtype == "int16"
stream = load_dataset("org/tokens", "motion", split="train", streaming=True)
assert list(stream) == rows.to_list()
processor = SolamiProcessor.from_pretrained(model)
safe = load_tokens("org/tokens", "speech", "train", processor, streaming=True)
assert len(list(safe)) == 5 and split_names("org/tokens", "motion") == ["train", "test"]
safe = load_tokens("org/tokens", "motion", "train", processor)
assert without_leaks(safe, held_out_rows("org/tokens", "motion"))["id"] == ["m0", "m1", "m4"]  # m2 has m3 as partner
try:
    load_tokens("org/tokens", "chat", "train")
    raise SystemExit("chat was never prepared")
except FileNotFoundError:
    pass
flags = "--max_steps 1 --max_length 256 --per_device_train_batch_size 1 --use_cpu --bf16 false --report_to none"
pretrain.main(["--model", model, "--data", "org/tokens", "--output_dir", out, *flags.split()])
"""


def test_prepare_push_load_stream_and_train(tmp_path, tiny_model, tiny_processor, small_motion, small_sound):
    motions = [{"id": f"m{i}", "motion": "a.npz", "text": f"waves {i}"} for i in range(5)]
    motions[3] |= {"split": "test"}
    motions[2] |= {"partner_id": "m3"}
    speech = [{"id": f"s{i}", "turns": [{"text": f"hi {i}", "audio": "a.wav", "speaker": "me"}]} for i in range(5)]
    for kind, rows in (("motion", motions), ("speech", speech)):
        folder = tmp_path / "source" / kind
        folder.mkdir(parents=True)
        (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_motion(tmp_path / "source/motion/a.npz", small_motion)
    soundfile.write(tmp_path / "source/speech/a.wav", small_sound, 16000)
    model = tmp_path / "model"
    tiny_model.save_pretrained(model)
    tiny_processor.save_pretrained(model)
    with hub_server.hub_server() as hub:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "source"), str(model), str(tmp_path / "out")],
            env=os.environ | hub.environment(tmp_path / "home") | {"CUDA_VISIBLE_DEVICES": ""},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        repo = hub.repos["datasets", "org/tokens"]
        _, files = repo.resolve("main")
        unknown = [request for request in hub.requests if request.startswith(("PUT /lfs", "POST /api"))]
    assert repo.private and unknown
    assert sorted(name for name in files if name.endswith("parquet")) == [
        "motion/test-00000-of-00001.parquet",
        "motion/train-00000-of-00001.parquet",
        "speech/train-00000-of-00003.parquet",
        "speech/train-00001-of-00003.parquet",
        "speech/train-00002-of-00003.parquet",
    ]
    assert "speech/report.json" in files and not [name for name in files if ".shards" in name]
    assert b"license: cc0-1.0" in files["README.md"]
    assert (tmp_path / "out" / "model.safetensors").is_file()
