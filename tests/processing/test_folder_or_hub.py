"""One rule for names of folders and repositories; what is written never goes to the Hub unless that was asked for."""

import logging
from pathlib import Path

import pytest

from solami_hf.hub_cards import push
from solami_hf.processing.datasets.token_dataset import load_tokens
from solami_hf.processing.files.folder_or_hub import check_source, hub_id, model_source, output_hub_id, push_target
from solami_hf.processing.files.output_folder import atomic_folder
from solami_hf.processing.prepare import main as prepare


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in ("runs/tokens", "org/known", "tokens", "home/model"):
        (tmp_path / folder).mkdir(parents=True)


@pytest.mark.parametrize(
    "name, repository",
    [
        ("data/tokens", "data/tokens"),
        ("acme/set-1.0_b", "acme/set-1.0_b"),
        ("hf://acme/set", "acme/set"),
        ("hf://datasets/acme/set", "acme/set"),
        ("hf://runs/tokens", "runs/tokens"),
        ("runs/tokens", None),
        ("runs/tokenz", None),
        ("org/unknown", None),
        ("tokens", None),
        ("gpt2", None),
        ("./acme/set", None),
        ("../acme", None),
        ("/acme/set", None),
        ("~/set", None),
        ("acme/set/", None),
        ("acme/", None),
        ("models/sft", None),
        ("datasets/tokens", None),
        ("a/b/c", None),
        ("my data/set", None),
        ("acme\\set/x", None),
        ("C:/set", None),
        ("acme/..", None),
        ("", None),
        (Path("acme/set"), None),
    ],
)
def test_the_rule(name, repository):
    assert hub_id(name) == repository


@pytest.mark.parametrize("name", ["hf://", "hf://acme", "hf://a/b/c", "hf://acme/my set", "hf://datasets/acme"])
def test_hf_with_something_else_is_an_error(name):
    for function in (hub_id, output_hub_id):
        with pytest.raises(ValueError, match="names no repository, expected hf://OWNER/NAME"):
            function(name)


@pytest.mark.parametrize("name", ["data/tokens", "acme/set", "runs/new", "new", "a/b/c", "~/new", Path("acme/set")])
def test_outputs_are_folders_and_it_is_said(name, caplog):
    with caplog.at_level(logging.INFO):
        assert output_hub_id(name) is None
    told = f"the output is the folder {name}"
    hint = f"; for the Hub repository of that name write hf://{name}" if name in ("data/tokens", "acme/set") else ""
    assert caplog.messages == [told + hint]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert output_hub_id("hf://acme/set") == "acme/set"
    assert caplog.messages == ["the output will be pushed to the Hub repository acme/set"]


def test_what_is_read_is_there_or_on_the_hub(caplog):
    assert model_source("model", "runs/tokens") == "runs/tokens" and check_source("model", "tokens") is None
    assert model_source("model", "~/model").endswith("home/model") and not caplog.messages
    with caplog.at_level(logging.INFO):
        assert model_source("model", "acme/set") == check_source("model", "hf://acme/set") == "acme/set"
        assert model_source("backbone", "gpt2", bare=True) == "gpt2"
    assert caplog.messages[0] == "reading the model acme/set from the Hub" and len(caplog.messages) == 3
    with pytest.raises(FileNotFoundError, match="no such model folder: gpt2$"):
        model_source("model", "gpt2")
    with pytest.raises(FileNotFoundError, match="no such model folder: runs/x; for the Hub .* write hf://runs/x$"):
        model_source("model", "runs/x")
    for name in ("./x", "~/x", "x/", "a/b/c", ""):
        with pytest.raises(FileNotFoundError, match="no such backbone folder: [^;]*$"):
            model_source("backbone", name, bare=True)


def test_a_repository_whose_name_is_a_folder_here_too(monkeypatch):
    monkeypatch.setattr("solami_hf.processing.files.folder_or_hub.snapshot_download", "cache/of/{}".format)
    assert model_source("model", "hf://org/known") == "cache/of/org/known"
    assert model_source("model", "hf://org/other") == "org/other" and model_source("model", "org/known") == "org/known"


def test_prepare_writes_a_folder_whose_parent_is_not_there_yet(tiny_processor, small_motion, tmp_path):
    from solami_hf.processing.motion.motion_io import write_motion

    tiny_processor.save_pretrained("processor")
    write_motion("a.npz", small_motion)
    Path("manifest.jsonl").write_text('{"id": "a", "motion": "a.npz", "text": "waves"}\n')
    assert prepare(["motion", ".", "--processor", "processor", "--output", "data/tokens"]) == 0
    assert load_tokens("data/tokens", "motion", "train")["id"] == ["a"] and not Path("runs/prepare").exists()


def test_a_missing_data_set_is_told_with_the_way_to_the_hub():
    with pytest.raises(FileNotFoundError, match="no such token dataset folder: runs/x; .* write hf://runs/x"):
        load_tokens("runs/x", "motion", "train")


@pytest.mark.parametrize("name", ["runs/tokens", "./acme/set", "tokens", "runs/new", "acme/set/", "~/set"])
def test_nothing_is_pushed_to_the_name_of_a_folder(name):
    with pytest.raises(ValueError, match=f"`repo_id` is '{name}', expected OWNER/NAME"):
        push.main(["checkpoint", "tokens", name, "--dry_run"])
    assert push_target("repo_id", "acme/set") == push_target("repo_id", "hf://acme/set") == "acme/set"


def test_a_repository_is_no_output_of_commands_that_write_folders():
    with (
        pytest.raises(ValueError, match="hf://acme/set is no folder .* `solami push`"),
        atomic_folder("hf://acme/set"),
    ):
        pass
    assert not Path("hf:").exists()
