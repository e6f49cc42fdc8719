"""Commands that are killed, interrupted, started twice, or run out of disk: nothing is lost, and a rerun ends as if
nothing had been. Prints a table of counts.

Fractions of the time that a command takes, and of the room that it needs, are drawn by a seed. A full disk and one
that cannot be written are small file systems in memory, which root alone can mount.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
from command_process import Commands  # noqa: E402
from hub_server import hub_server  # noqa: E402

from solami_hf.processing.motion.motion_io import write_motion  # noqa: E402
from solami_hf.processing.motion.smplx_motion import SmplxMotion  # noqa: E402

pytestmark = pytest.mark.slow

FIXTURE = Path(__file__).parent / "fixtures" / "first_version"
MODEL, TOKENS = FIXTURE / "model", FIXTURE / "tokens"
SEED = int(os.environ.get("SOLAMI_FAULT_SEED", "0"))
KILLED = ("prepare", "pretrain", "sft", "evaluate", "push")
KILLS, INTERRUPTIONS = 30 // len(KILLED), 2  # of each command
OTHERS = ("generate", "chat", "train-motion-vq", "export")
HANGING = 20  # seconds over what the command takes undisturbed, several times
COUNTED = ("disturbances", "recovered", "lost", "hangs", "bare tracebacks")
# Of what is alike in no two runs: times, and what is made of them.
TIMES = ("first_token_seconds", "first_motion_seconds", "first_audio_seconds", "seconds", "decode_seconds")


class Workshop:
    """The commands with their material, what they give undisturbed, and the table.

    All of them write to one place, `disk/out`, since paths are part of what they write; it is moved away for the next.
    """

    def __init__(self, folder: Path, hub):
        self.folder, self.hub = folder, hub
        self.out = folder / "disk" / "out"
        self.commands = Commands(folder)
        self.wanted: dict[str, tuple[dict, float, int]] = {}  # name -> what it gives, seconds, bytes
        self.table: dict[tuple[str, str], Counter] = {}
        write_material(folder)
        self.finish("generate")
        shutil.move(self.out, folder / "answers")

    def argv(self, name: str) -> list:
        """The command line."""
        language_model = {
            "model": MODEL, "data": TOKENS, "output_dir": self.out, "max_length": 256, "max_steps": 12,
            "per_device_train_batch_size": 2, "learning_rate": 1e-2, "use_cpu": True, "bf16": False,
            "logging_steps": 2, "save_steps": 3, "save_total_limit": 2, "report_to": "none",
        }  # fmt: skip
        language_model = [part for key, value in language_model.items() for part in (f"--{key}", str(value))]
        checkpoint = ["--checkpoint", MODEL, "--output", self.out, "--max_new_tokens", 60]
        prepare = ["--processor", MODEL, "--output", self.out, "--shard_rows", 4, "--batch_size", 4]
        motion_vq = ["--output_dir", self.out, "--max_steps", 20, "--save_steps", 5, "--logging_steps", 2]
        motion_vq += ["--width", 16, "--code_dim", 8, "--depth", 1, "--code_num", 8, "--use_cpu", "true"]
        return [name] + {
            "prepare": ["motion", self.folder / "source", *prepare],
            "pretrain": language_model,
            "sft": [*language_model, "--use_peft", "true", "--lora_dropout", "0.3"],
            "generate": ["--task", "t2m", "--input", self.folder / "captions.txt", *checkpoint, "--batch_size", 2],
            "evaluate": ["pretrain", self.folder / "answers", "--output", self.out],
            "push": ["checkpoint", MODEL, "org/thing"],
            "chat": [*checkpoint, "--turns", "hello", "please wave"],
            "train-motion-vq": ["--data", self.folder / "source", *motion_vq, "--report_to", "none"],
            "export": [MODEL, self.out],
        }[name]

    def start(self, name: str):
        """Starts a command."""
        return self.commands.start(self.argv(name), TMPDIR=str(self.out.parent))

    def clear(self) -> None:
        """Removes what the last command gave."""
        shutil.rmtree(self.out.parent, ignore_errors=True)
        self.out.parent.mkdir(exist_ok=True)
        self.hub.repos.clear()
        self.hub.objects.clear()

    def finish(self, name: str, patience: float = 300.0) -> str:
        """Runs a command to its end: "recovered", or what became of it."""
        command = self.start(name)
        code, told = self.commands.end(command, patience), self.commands.told(command)
        if code is None:
            return "hangs"
        assert code == 0, f"{name} ended with {code}:\n{told[-4000:]}"
        return "recovered"

    def given(self) -> dict[str, str]:
        """What lies in the output and on the Hub: file -> hash of what is alike in every run."""
        files = {p.relative_to(self.out.parent).as_posix(): p.read_bytes() for p in walk(self.out.parent)}
        for (_, repo), there in self.hub.repos.items():
            files |= {f"{repo}/{name}": data for name, data in there.resolve("main")[1].items()}
        return {name: hashlib.sha256(without_times(name, data)).hexdigest() for name, data in sorted(files.items())}

    def undisturbed(self, name: str) -> tuple[dict, float, int]:
        """What a command gives, the seconds that it takes, and the bytes."""
        if name not in self.wanted:
            self.clear()
            begin = time.monotonic()
            assert self.finish(name) == "recovered"
            seconds, size = time.monotonic() - begin, sum(path.stat().st_size for path in walk(self.out))
            self.wanted[name] = self.given(), seconds, size
        return self.wanted[name]

    def recover(self, name: str, disturbance: str) -> None:
        """Runs a disturbed command again and counts what came out."""
        wanted, seconds, _ = self.undisturbed(name)
        outcome = self.finish(name, HANGING + 5 * seconds)
        found = self.given()
        if outcome == "recovered" and found != wanted:
            outcome = "lost"
            names = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
            print(f"{name} after {disturbance}: {', '.join(names)} differ")
        self.count(name, disturbance, outcome)

    def count(self, name: str, disturbance: str, outcome: str) -> None:
        """Notes one disturbance."""
        self.table.setdefault((name, disturbance), Counter()).update({"disturbances": 1, outcome: 1})

    def refused(self, name: str, disturbance: str, command, words: str) -> None:
        """A command that cannot do its work says so in one line, without a traceback."""
        code, told = self.commands.end(command, HANGING + 5 * self.undisturbed(name)[1]), self.commands.told(command)
        outcome = "hangs" if code is None else "bare tracebacks" if "Traceback" in told else "recovered"
        line = f"solami {name}: error: "
        if outcome == "recovered" and not (code and told.count(line) == 1 and words in told.split(line)[1]):
            raise AssertionError(f"{name}, {disturbance}: expected {words!r}, got {code} and\n{told[-3000:]}")
        if outcome != "recovered":
            print(f"{name}, {disturbance}: {outcome}\n{told[-3000:]}")
        self.count(name, disturbance, outcome)

    def check(self, name: str, disturbance: str) -> None:
        """All disturbances of this kind were recovered from."""
        row = self.table[name, disturbance]
        assert row["recovered"] == row["disturbances"], row


def write_material(folder: Path) -> None:
    """Motions to prepare and train on, and captions to answer."""
    rng, rows = np.random.default_rng(0), []
    for i in range(40):
        transl = rng.normal(size=(120, 3)) * 0.01 + [0.3, 0.9, 1.5]
        poses = rng.normal(size=(120, 55, 3)) * 0.1
        write_motion(folder / "source" / f"{i}.npz", SmplxMotion(transl.astype("f4"), poses.astype("f4")))
        rows.append({"id": f"r{i}", "motion": f"{i}.npz", "text": f"clip {i}", "split": "train" if i % 7 else "test"})
    (folder / "source" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "captions.txt").write_text("a person waves\na person bows\nplease wave\nhello\n" * 4)


def walk(folder: Path) -> list[Path]:
    """The files of a folder."""
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


def without_times(name: str, data: bytes) -> bytes:
    """A file without the seconds that things took."""
    if name.endswith("results.jsonl"):
        rows = [json.loads(line) for line in data.splitlines()]
        return json.dumps([{key: row[key] for key in row if key not in TIMES} for row in rows]).encode()
    return data


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("faults")
    with hub_server() as hub, pytest.MonkeyPatch.context() as patch:
        for name, value in hub.environment(folder / "home").items():
            patch.setenv(name, value)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        shop = Workshop(folder, hub)
        yield shop
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n\n| command | what happened | {' | '.join(COUNTED)} |\n|---|---|{'---|' * len(COUNTED)}")
        for (name, disturbance), row in shop.table.items():
            print(f"| {name} | {disturbance} | {' | '.join(str(row[column]) for column in COUNTED)} |")


@pytest.fixture
def mounted(workshop):
    """`mounted(size)` makes the place of the output a file system of so many bytes; `mounted(0)` one to read only."""
    place, there = workshop.out.parent, []

    def mount(size: int) -> None:
        option = f"size={size}" if size else "ro"
        words = ["-o", f"remount,{option}", place] if there else ["-t", "tmpfs", "-o", option, "tmpfs", place]
        done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        there.append(size)

    yield mount
    if there:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("name", KILLED)
def test_killed(workshop, name):
    rng = random.Random(f"{SEED} {name}")
    for _ in range(KILLS):
        disturb(workshop, name, "kill -9", signal.SIGKILL, rng.uniform(0, 1))
    workshop.check(name, "kill -9")


@pytest.mark.parametrize("name", KILLED)
def test_interrupted(workshop, name):
    rng = random.Random(f"{SEED} {name} interrupted")
    for _ in range(INTERRUPTIONS):
        command = disturb(workshop, name, "Ctrl-C", signal.SIGINT, rng.uniform(0.1, 1))
        told = workshop.commands.told(command)
        assert command.exitcode == 0 or "Traceback" not in told, told[-3000:]
    workshop.check(name, "Ctrl-C")


def disturb(workshop, name, disturbance, number, share):
    """Sends a signal after a share of the time that the command takes, and runs it again."""
    seconds = workshop.undisturbed(name)[1]
    workshop.clear()
    command = workshop.start(name)
    command.join(share * seconds)
    if command.exitcode is None:
        os.kill(command.pid, number)
    assert workshop.commands.end(command, HANGING) is not None, f"{name} does not end by {disturbance}"
    workshop.recover(name, disturbance)
    return command


@pytest.mark.parametrize("name", KILLED + OTHERS)
def test_two_at_once(workshop, name):
    wanted, seconds, _ = workshop.undisturbed(name)
    workshop.clear()
    first = workshop.start(name)
    if name == "push":  # the Hub is where they meet: one commit of the two finds all there
        second = workshop.start(name)
        codes = {workshop.commands.end(command, HANGING + 5 * seconds) for command in (first, second)}
        workshop.count(name, "two at once", "recovered" if codes == {0} and workshop.given() == wanted else "lost")
    else:
        lock = workshop.out.with_name(".out.lock") if name == "export" else workshop.out / ".lock"
        while first.exitcode is None and not lock.exists():
            time.sleep(0.01)
        workshop.refused(name, "two at once", workshop.start(name), f"another process (pid {first.pid} on ")
        assert workshop.commands.end(first, HANGING + 5 * seconds) == 0
        assert workshop.given() == wanted
    workshop.check(name, "two at once")


@pytest.mark.parametrize("name", KILLED + OTHERS)
def test_full_disk(workshop, name, mounted):
    rng, size = random.Random(f"{SEED} {name} full"), workshop.undisturbed(name)[2] or 2**16
    workshop.clear()
    mounted(max(4096, int(rng.uniform(0.1, 0.8) * size)))
    workshop.refused(name, "full disk", workshop.start(name), "disk full at ")
    left = [path.name for path in walk(workshop.out.parent) if path.name.endswith(".tmp") or ".staging" in path.parts]
    assert left == []
    mounted(2**28)
    workshop.recover(name, "full disk, then room")
    workshop.check(name, "full disk, then room")


@pytest.mark.parametrize("name", [name for name in KILLED + OTHERS if name != "push"])
def test_read_only(workshop, name, mounted):
    workshop.undisturbed(name)
    workshop.clear()
    mounted(0)
    workshop.refused(name, "read-only folder", workshop.start(name), "cannot write to ")
    workshop.check(name, "read-only folder")
