# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "soundfile"]
# ///
"""An entry to `solami_bench` from its folder alone, by a system that waves and repeats what it heard.

uv run examples/bench_entry.py BENCHMARK ENTRY && python BENCHMARK/bench_entries.py ENTRY
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import soundfile

benchmark, entry = map(Path, sys.argv[1:])
entry.mkdir(parents=True)
runs = []
for line in (benchmark / "runs.jsonl").read_text(encoding="utf-8").splitlines():
    run = json.loads(line)
    # What a system is given: run["system"], run["history"], the sound and the body. Put yours here.
    sound, rate = soundfile.read(benchmark / run["audio"], dtype="float32")
    frames = 60
    poses = np.zeros((frames, 55, 3), np.float32)  # axis-angle, SMPL-X's joints
    poses[:, 17, 2] = 1.2 + 0.5 * np.sin(np.arange(frames) / 3)  # the right upper arm, up and down
    trans = np.zeros((frames, 3), np.float32)  # the pelvis in metres, y up

    name = f"{run['id']}-{run['condition']}"
    soundfile.write(entry / f"{name}.wav", sound, rate)
    np.savez_compressed(entry / f"{name}.npz", poses=poses, trans=trans, mocap_frame_rate=30.0)
    made = {"text": run["text"], "audio": f"{name}.wav", "motion": f"{name}.npz"}
    runs.append({"id": run["id"], "condition": run["condition"], **made})

manifest = (benchmark / "manifest.json").read_bytes()
known = json.loads(manifest)
header = {"name": known["name"], "version": known["version"], "sha256": hashlib.sha256(manifest).hexdigest()}
system = {"name": "parrot", "description": "repeats the transcript that the benchmark tells, and lifts an arm"}
results = {"benchmark": header, "system": system, "seed": 0, "runs": runs}
(entry / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
