"""The commands of README and docs are run as they are written there, on a tiny model, and give what they promise.

Words are added behind some of them, so that a run takes two steps instead of hours. Those that are not run say why.
"""

from __future__ import annotations

import copy
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import soundfile

from solami_hf import cli

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(?:bash|sh)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHORT = "--max_steps 2 --save_steps 2 --eval_steps 2 --logging_steps 1 --warmup_steps 0 --bf16 false --use_cpu true"
CODEC = "--width 32 --hand_width 32 --code_num 16 --per_device_train_batch_size 4 --window 32"
# Beginning of a command -> words behind it, and a file or folder that it makes; in the order in which they build on
# each other.
RUN = {
    "solami chat --checkpoint runs/demo/checkpoint --character ada --output runs/chat": (
        "--max_new_tokens 160",
        "runs/chat/chat.json",
    ),
    "solami generate --task t2m": ("--max_new_tokens 80", "runs/motions"),
    "solami evaluate pretrain": ("", "runs/motions"),
    "solami prepare chat my_recordings": ("", "my_tokens/README.md"),
    "solami generate --task chat": ("--max_new_tokens 160 --repetitions 1", "runs/results"),
    "solami sft --config solami_hf/training/recipes/sft_tiny.yaml": (SHORT, "my_character/README.md"),
    "solami sft --config solami_hf/training/recipes/sft_lora.yaml": (
        f"{SHORT} --output_dir my_lora",
        "my_lora/checkpoint-2/adapter_config.json",
    ),
    "solami merge my_character/checkpoint-200": ("", "my_merged/config.json"),
    "solami convert lm": ("", "my_llama/config.json"),
    "solami prepare messages": ("", "my_messages"),
    "solami prepare duplex": ("", "my_sessions_tokens/duplex"),
    "solami sft --config solami_hf/training/recipes/sft_duplex_tiny.yaml": (SHORT, "my_listener/config.json"),
    "solami evaluate duplex": ("", "my_listener/evaluation/evaluation.json"),
    "solami pretrain --config pretrain_paper.yaml": ("", None),
    "solami init": ("--speech_codec my_speech_codec --output my_other_model", "my_other_model/config.json"),
    "solami add-voice": ("", "my_checkpoint/voices/Link.safetensors"),
    "solami export": ("", "out/solami/README.md"),
    "solami push checkpoint my_character org/solami --dry_run": ("", None),
    "solami doctor": ("", None),
    "solami sft --model my_model": ("", None),
    "solami train-motion-vq": (f"{SHORT} {CODEC} --output_dir my_motion_codec", "my_motion_codec/report.html"),
}
# Words that name what is on the Hub -> what this test has instead.
INSTEAD = {
    "solami init": {"HuggingFaceTB/SmolLM2-135M": "my_backbone"},
    "solami doctor": {"org/solami": "out/solami"},
}
NOT_RUN = {
    "make ": "installs, and runs for a quarter of an hour; `.ci/run` and people run it",
    "pip ": "tests install nothing",
    "solami chat --checkpoint runs/demo/checkpoint --character ada --output runs/talk": "a console; see test_chat.py",
    "solami chat --output runs/talk": "needs the base's weights: tests/character/test_real_character.py",
    "transformers serve": "a server that does not end",
    "solami serve": "a server that does not end: tests/generation/live",
    "accelerate launch": "several processes: tests/training/test_language_model_ranks.py",
    "torchrun": "several processes: tests/training/test_motion_vq_ranks.py",
    "trl sft": "tests/training/test_trl_command.py, and over HTTP tests/hub/test_share.py",
    "cd ": "a folder",
    "solami pretrain --config solami_hf/training/recipes/pretrain_one_gpu.yaml": "for a GPU: tests/training",
    "solami evaluate chat": "asks a server: tests/metrics/evaluation",
    "solami bench": "minutes, and needs flite: tests/demo/test_bench.py",
    "solami evaluate bench": "an entry's: tests/demo/test_bench.py",
    "python examples/bench_entry.py": "tests/demo/test_bench.py",
    "solami push checkpoint my_character org/solami --tag": "over HTTP: tests/hub/test_share.py",
    "solami push adapter": "over HTTP: tests/hub/test_share.py",
    "solami train-evaluator": "minutes: tests/training/test_train_evaluator.py",
    "solami push dataset": "over HTTP: tests/hub/test_share.py",
    "solami push evaluator": "over HTTP: tests/hub/test_share_evaluator.py",
    "solami push metric": "over HTTP: tests/hub/test_share.py",
    "solami push space": "over HTTP: tests/hub/test_space.py",
    "solami convert motion turn1": "tests/processing/test_avatar.py",
    "solami convert motion walk": "tests/processing/test_avatar.py",
    "solami convert motion-vq": "the original's checkpoints: tests/modeling/test_convert.py",
    "solami prepare chat --synthesize": "asks a server: tests/processing",
    "solami prepare chat my_dialogues": "as my_recordings",
    "solami train-speech-codec": "minutes: tests/training/test_speech_codec.py",
    "solami train-soundstorm": "minutes: tests/training/test_soundstorm.py, test_motion_filler.py",
    "solami train-talker": "minutes: tests/training/test_talker.py",
    "solami train-lips": "minutes: tests/training/test_lips.py",
    "python -m benchmarks.lip_sync": "minutes, and needs flite: tests/generation/test_face_pieces.py",
    "python -m benchmarks.speech_quality": "minutes: tests/benchmarks/test_speech_quality.py",
    "python -m benchmarks.talker_quality": "minutes: tests/benchmarks/test_talker_quality.py",
}


def commands() -> list[str]:
    """The command lines of the bash blocks of README and docs, each once, without comments."""
    found = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in FENCE.findall(page.read_text("utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                found += [" ".join(shlex.split(part, comments=True)) for part in line.split("&&")]
    return [line for line in dict.fromkeys(found) if line]


def test_every_command_is_run_or_says_why_not():
    unknown = [line for line in commands() if sum(line.startswith(known) for known in (*RUN, *NOT_RUN)) != 1]
    assert not unknown, unknown
    assert not [known for known in (*RUN, *NOT_RUN) if not any(line.startswith(known) for line in commands())]


@pytest.fixture
def world(tmp_path, monkeypatch, tiny_model, tiny_processor, small_motion, small_sound):
    """What the commands name: checkpoints, recordings, a backbone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from solami_hf.demo.tiny_model import train_tokenizer
    from solami_hf.processing.motion.motion_io import write_motion

    monkeypatch.chdir(tmp_path)
    motion_codec = copy.deepcopy(tiny_processor.motion_codec)
    motion_codec.set_statistics(0.1, 1.5, 0.1, 1.5)
    tiny_processor._models.loaded["motion_codec"] = motion_codec
    (tmp_path / "solami_hf").symlink_to(ROOT / "solami_hf")
    for name in ("runs/demo/checkpoint", "runs/demo/pretrained", "my_model", "my_checkpoint"):
        tiny_model.save_pretrained(name)
        tiny_processor.save_pretrained(name)
    shutil.copytree("my_model/motion_codec", "my_codec")
    shutil.copytree("my_model/speech_codec", "my_speech_codec")
    tokenizer = train_tokenizer(["please wave your hand"], vocab_size=280)
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained("my_backbone")
    tokenizer.save_pretrained("my_backbone")
    (tmp_path / "captions.txt").write_text("a person waves\na person bows\n")
    for name, times in (("hello", 1), ("next", 1), ("link", 6)):
        soundfile.write(f"{name}.wav", list(small_sound) * times, 16000)
    write_motion("wave.npz", small_motion)
    (tmp_path / "my_motions").mkdir()
    clips = [{"id": str(i), "motion": f"{i}.npz", "text": ["waves"], "split": "test" if i > 3 else "train"}
             for i in range(6)]  # fmt: skip
    for clip in clips:
        write_motion(f"my_motions/{clip['motion']}", small_motion)
    (tmp_path / "my_motions" / "manifest.jsonl").write_text("\n".join(map(json.dumps, clips)) + "\n")
    for name in ("my_recordings", "my_dialogues"):
        (tmp_path / name).mkdir()
        for file in ("hello.wav", "wave.npz"):
            shutil.copyfile(file, Path(name) / file)
        media = {"audio": "hello.wav", "motion": "wave.npz", "motion_text": "a person waves"}
        turns = [{"role": role, "text": "please wave", **media} for role in ("user", "assistant") * 2]
        rows = [
            {"id": f"{split}{i}", "topic": "waving", "character": "ada", "turns": turns, "split": split}
            for split in ("train", "test")
            for i in range(2)
        ]
        (tmp_path / name / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "my_sessions").mkdir()
    shutil.copyfile("wave.npz", "my_sessions/wave.npz")
    soundfile.write("my_sessions/voice.wav", list(small_sound) * 2, 16000)
    people = [{"person": name, "motion": "wave.npz", "audio": "voice.wav"} for name in ("ada", "ben")]
    rows = [{"id": f"{split}{i}", "people": people, "split": split} for split in ("train", "test") for i in range(2)]
    (tmp_path / "my_sessions" / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path


@pytest.mark.slow
def test_the_readme_runs(world, monkeypatch, capsys, caplog):
    wrong = []
    caplog.set_level("INFO")
    for known, (more, made) in RUN.items():
        (line,) = [line for line in commands() if line.startswith(known)]
        words = [INSTEAD.get(known, {}).get(word, word) for word in shlex.split(line)[1:]]
        if known.startswith("solami merge") and Path("my_lora").is_dir():  # two steps instead of 200
            shutil.copytree("my_lora/checkpoint-2", "my_character/checkpoint-200", dirs_exist_ok=True)
        if "pretrain_paper.yaml" in words:  # behind `cd`
            words[words.index("my_model")] = str(world / "my_model")
            monkeypatch.chdir(ROOT / "solami_hf" / "training" / "recipes")
        code = cli.main([*words, *shlex.split(more)])
        monkeypatch.chdir(world)
        told = capsys.readouterr().err.splitlines()[-1:] + [record.getMessage() for record in caplog.records][-8:]
        if code != 0 or (made is not None and not Path(made).exists()):
            wrong.append(f"{line}: {code}, {made}: {told}")
        caplog.clear()
    assert not wrong, "\n".join(wrong)
