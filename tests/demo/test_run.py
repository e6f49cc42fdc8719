"""The demo's runner: stages once each, in order, continued after an interruption; and the whole demo, slowly."""

import json

import pytest

from solami_hf.demo import command as demo_run
from solami_hf.demo.command import Demo, DemoArguments, expected_seconds, main, run


def with_stages(tmp_path, calls, failing=None, **arguments):
    """A demo whose stages only note that they ran; one of them may fail."""
    demo = Demo(DemoArguments(out=str(tmp_path / "out"), **arguments))

    def stage(name):
        def function():
            if name == failing:
                raise RuntimeError("killed")
            calls.append(name)

        return function

    demo.stages = lambda: {name: (name, stage(name)) for name in ("first", "second", "third")}
    return demo


def test_an_interrupted_demo_continues_after_the_last_finished_stage(tmp_path):
    calls = []
    with pytest.raises(RuntimeError):
        run(with_stages(tmp_path, calls, failing="second"))
    assert calls == ["first"]
    run(with_stages(tmp_path, calls))
    assert calls == ["first", "second", "third"]
    run(with_stages(tmp_path, calls))
    assert calls == ["first", "second", "third"]
    state = json.loads((tmp_path / "out" / "stages.json").read_text())
    assert list(state["stages"]) == calls and all(s["seconds"] >= 0 for s in state["stages"].values())


def test_another_seed_needs_another_folder(tmp_path):
    run(with_stages(tmp_path, []))
    with pytest.raises(ValueError, match="take another --out"):
        run(with_stages(tmp_path, [], seed=1))


def test_bad_minutes():
    with pytest.raises(ValueError, match="minutes must be above 0"):
        Demo(DemoArguments(minutes=0))
    with pytest.raises(ValueError, match="minutes must be above 0"):
        Demo(DemoArguments(minutes=float("nan")))


def test_steps_scale_with_the_minutes():
    assert Demo(DemoArguments(minutes=30)).steps(100) == 200
    assert Demo(DemoArguments(minutes=0.01)).steps(100) == 2


def test_every_stage_has_its_usual_time():
    assert list(demo_run.USUAL) == list(Demo(DemoArguments()).stages())


def test_the_time_left_follows_what_this_machine_did():
    demo, usual = Demo(DemoArguments(minutes=30)), demo_run.USUAL
    left = expected_seconds({}, ["pretrain", "chat"], demo)
    assert left == {"pretrain": 2 * usual["pretrain"], "chat": usual["chat"]}
    done = {"motion_corpus": {"seconds": 3 * usual["motion_corpus"]}}
    assert expected_seconds(done, ["pretrain", "chat"], demo) == {name: 3 * value for name, value in left.items()}
    done["motion_codec"] = {"seconds": 10 * usual["motion_codec"]}  # twice the steps, five times as slow
    assert expected_seconds(done, ["pretrain", "chat"], demo) == {
        "pretrain": 5 * left["pretrain"],
        "chat": 3 * left["chat"],
    }


def test_each_stage_is_announced_with_the_time_that_is_left(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(demo_run, "USUAL", {"first": 60, "second": 30, "third": 90})
    caplog.set_level("INFO")
    with pytest.raises(RuntimeError):
        run(with_stages(tmp_path, [], failing="first"))
    assert caplog.messages == ["[1/3] first: about 1 min 00 s, 3 min 00 s to the end"]


def test_recipes_exist():
    for name in ("motion_vq_tiny", "pretrain_tiny", "sft_tiny", "pretrain_paper", "sft_paper", "motion_vq_paper"):
        assert (demo_run.RECIPES / f"{name}.yaml").is_file()


@pytest.mark.slow
def test_the_whole_demo_in_a_minute_of_training(tmp_path):
    """Everything runs and is complete; a minute of training is too short for the figures to be good."""
    out = tmp_path / "demo"
    assert main(["--out", str(out), "--minutes", "0.5"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert set(report) == {"stages", "metrics", "chat", "checkpoint"}
    assert report["chat"] and {"user_audio", "character_motion", "text", "valid"} <= set(report["chat"][0])
    assert report["metrics"]["codec_mpjpe"] < 300
    page = (out / "report.html").read_text()
    assert "solamiReport" in page and "https://" not in page.split("<script")[0].split("<body")[-1]

    from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

    assert AutoModel.from_pretrained(out / "checkpoint") is not None
    assert AutoModelForCausalLM.from_pretrained(out / "checkpoint") is not None
    assert AutoProcessor.from_pretrained(out / "checkpoint").speech_codec is not None
