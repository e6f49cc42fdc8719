"""`solami`: fast help, one clear line for a user's mistake, tracebacks for ours."""

import importlib
import sys
import types

import pytest
from safetensors import SafetensorError

from solami_hf import cli


@pytest.fixture
def command(monkeypatch):
    """Stands a module with the given main() in for the demo's."""

    def stand_in(main):
        monkeypatch.setitem(sys.modules, "solami_hf.stand_in", types.SimpleNamespace(main=main))
        monkeypatch.setitem(cli.COMMANDS, "demo", ("stand_in:main", "stands in"))

    return stand_in


def fails_with(error):
    def main(argv):
        raise error

    return main


def test_help_lists_every_command(capsys):
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in cli.COMMANDS)


def test_no_command_shows_the_usage_and_fails(capsys):
    assert cli.main([]) == 2
    assert capsys.readouterr().out.startswith("usage: solami")


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "solami_hf 0.1.0\n"


def test_unknown_command_names_the_known_ones(capsys):
    assert cli.main(["dance"]) == 2
    assert "unknown command 'dance', expected one of: demo, prepare," in capsys.readouterr().err


def test_arguments_and_exit_code_pass_through(command):
    seen = []
    command(lambda argv: seen.append(argv) or 7)
    assert cli.main(["demo", "--out", "x"]) == 7
    assert seen == [["--out", "x"]]


def test_none_is_success(command):
    command(lambda argv: None)
    assert cli.main(["demo"]) == 0


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("`fps` is 0,\n expected more"), "solami demo: error: `fps` is 0, expected more\n"),
        (KeyError("no character 'x'"), "solami demo: error: no character 'x'\n"),
        (FileNotFoundError(2, "No such file", "a.npz"), "solami demo: error: [Errno 2] No such file: 'a.npz'\n"),
        (ValueError(), "solami demo: error: ValueError\n"),
        (SafetensorError("a file ends early"), "solami demo: error: a file ends early\n"),
    ],
)
def test_a_users_mistake_is_one_line(command, capsys, monkeypatch, error, line):
    monkeypatch.delenv("SOLAMI_DEBUG", raising=False)
    command(fails_with(error))
    assert cli.main(["demo"]) == 2
    assert capsys.readouterr().err == line


def test_debug_keeps_the_traceback(command, monkeypatch):
    monkeypatch.setenv("SOLAMI_DEBUG", "1")
    command(fails_with(ValueError("bad")))
    with pytest.raises(ValueError, match="bad"):
        cli.main(["demo"])


def test_our_own_faults_are_not_hidden(command):
    command(fails_with(TypeError("a bug")))
    with pytest.raises(TypeError, match="a bug"):
        cli.main(["demo"])


def test_interruption(command, capsys):
    command(fails_with(KeyboardInterrupt()))
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "solami demo: interrupted\n"


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_its_function(name):
    module, function = cli.COMMANDS[name][0].split(":")
    assert callable(getattr(importlib.import_module(f"solami_hf.{module}"), function))


# What each command is told to write; nothing else of these lines is there.
OUTPUTS = [
    ["demo", "--out"],
    ["prepare", "motion", "SOURCE", "--processor", "org/none", "--output"],
    ["prepare", "chat", "--synthesize", "none", "--output"],
    ["convert", "motion", "SOURCE", "--output"],
    ["convert", "lm", "none", "--output"],
    ["init", "none", "--motion_codec", "none", "--output"],
    ["train-motion-vq", "--data", "none", "--output_dir"],
    ["train-speech-codec", "--data", "none", "--output_dir"],
    ["train-soundstorm", "--data", "none", "--output_dir"],
    ["train-talker", "--data", "none", "--output_dir"],
    ["train-lips", "--processor", "none", "--output_dir"],
    ["train-evaluator", "--data", "none", "--output_dir"],
    ["pretrain", "--model", "./none", "--data", "none", "--max_steps", "1", "--bf16", "false", "--output_dir"],
    ["sft", "--model", "./none", "--data", "none", "--bf16", "false", "--output_dir"],
    ["merge", "ADAPTER", "--output"],
    ["generate", "--task", "t2m", "--checkpoint", "./none", "--input", "none", "--output"],
    ["chat", "--checkpoint", "./none", "--turns", "hello", "--output"],
    ["evaluate", "chat", "none", "--output"],
    ["export", "ADAPTER", "--base", "a/b", "--output"],
]


@pytest.mark.parametrize("words", OUTPUTS, ids=lambda words: "-".join(words[:2]))
def test_where_nothing_can_be_written_a_command_says_so_first(words, tmp_path, small_motion, monkeypatch, capsys):
    from solami_hf.processing.files.output_folder import writing_to
    from solami_hf.processing.motion.motion_io import write_motion

    monkeypatch.delenv("SOLAMI_DEBUG", raising=False)
    for name in ("SOURCE", "ADAPTER"):
        write_motion(tmp_path / name / "a.npz", small_motion)
        (tmp_path / name / "a.txt").write_text("a person waves")
    (tmp_path / "ADAPTER" / "adapter_config.json").write_text("{}")
    (tmp_path / "ADAPTER" / "adapter_model.safetensors").write_text("")
    (tmp_path / "file").write_text("")
    before, out = sorted(tmp_path.rglob("*")), tmp_path / "new"
    words = [str(tmp_path / word) if word.isupper() else word for word in words]
    assert cli.main([*words, str(tmp_path / "file" / "new" / "out")]) == 2
    told = capsys.readouterr().err
    assert "error: cannot write to " in told and "(Not a directory); give another output" in told, told
    with writing_to(out, beside=words[0] in ("init", "merge", "export") or words[1] == "lm"):
        assert cli.main([*words, str(out)]) == 2
        told = capsys.readouterr().err
        assert "error: another process (pid " in told and f") is writing to {out}; wait for it" in told, told
    assert sorted(tmp_path.rglob("*")) == before
