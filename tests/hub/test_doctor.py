"""`solami doctor`: a whole folder passes, each thing that is broken is found, and each finding says how to mend it."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from solami_hf import cli
from solami_hf.hub_cards import doctor
from solami_hf.hub_cards.export import export_adapter, export_checkpoint
from solami_hf.processing.audio.voices import Voices
from solami_hf.processing.datasets.token_dataset import write_token_dataset


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Where `whole` is exported to, once."""
    return tmp_path_factory.mktemp("doctor") / "whole"


@pytest.fixture
def whole(tmp_path, exported, tiny_model, tiny_processor):
    """A checkpoint as it goes to the Hub, whose motion codec has statistics."""
    if not exported.exists():
        motion = tiny_processor.motion_codec
        before = motion.mean.clone(), motion.std.clone()
        motion.mean.fill_(0.5), motion.std.fill_(2.0)
        tiny_model.save_pretrained(tmp_path / "run")
        tiny_processor.save_pretrained(tmp_path / "run")
        export_checkpoint(tmp_path / "run", exported)
        motion.mean.copy_(before[0]), motion.std.copy_(before[1])
    return shutil.copytree(exported, tmp_path / "whole")


def findings(folder, name=None):
    done = doctor.examine(folder, examine_code=False)
    return [str(f) for check, found in done.checks.items() for f in found if not f.is_note and name in (None, check)]


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.slow
def test_a_whole_checkpoint_has_no_problem_and_its_code_loads(whole, capsys):
    assert cli.main(["doctor", str(whole), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "checkpoint" and told["problems"] == 0 and told["checks"]["remote code"] == []
    assert {f["where"] for f in told["checks"]["files"]} == {"acoustic_model/"}  # a note
    code = whole / "features.py"
    code.write_text(code.read_text() + "\nraise ImportError('broken here')\n")
    untrusted = doctor.examine(whole)
    assert not untrusted.problems and "was not run" in str(untrusted.checks["remote code"])
    (problem,) = doctor.examine(whole, trust_remote_code=True).problems
    assert "broken here" in problem.what and "save model and processor again" in problem.remedy


def test_nothing_is_wrong_with_a_whole_one(whole):
    assert findings(whole) == []


def _unlike(config, name, **values):
    return {**config["modalities"], name: {**config["modalities"][name], **values}}


@pytest.mark.parametrize(
    ("check", "break_it", "told"),
    [
        ("files", lambda f: (f / "model.safetensors").unlink(), "model.safetensors: missing; model.save_pretrained"),
        ("files", lambda f: (f / "chat_template.jinja").unlink(), "chat_template.jinja: missing"),
        ("files", lambda f: (f / "processing_solami.py").unlink(), "processing_solami.py: missing, though auto_map"),
        (
            "files",
            lambda f: (f / "modeling_speech_codec.py").unlink(),
            "modeling_speech_codec.py: missing, though auto_map of speech_codec/config.json names it",
        ),
        ("files", lambda f: change(f / "config.json", auto_map=None), "config.json: has no auto_map"),
        ("fit to be shared", lambda f: (f / "old.bin").write_bytes(b"x"), "old.bin: a pickle"),
        ("fit to be shared", lambda f: change(f / "generation_config.json", a="/root/x/y"), "'/root/x/y' is a path"),
        ("vocabulary", lambda f: change(f / "generation_config.json", eos_token_id=1), "eos_token_id is 1, but <eos>"),
        ("vocabulary", lambda f: change(f / "processor_config.json", answer_format="motion_speech"), "answer_format"),
        ("vocabulary", lambda f: change(f / "processor_config.json", hearing="transcript"), "hearing is codes"),
        ("vocabulary", lambda f: change(f / "processor_config.json", interleaved=True), "interleaved is False, but"),
        ("codecs", lambda f: change(f / "config.json", codecs={"motion": "abc"}), "was trained with abc"),
        ("codecs", lambda f: change(f / "config.json", sampling_rate=24000), "sampling_rate is 24000, but"),
        ("card", lambda f: (f / "README.md").write_text("---\nlicense: [a\n---\n# x {{ title }}"), "its head is not"),
        ("card", lambda f: (f / "README.md").write_text("---\nlicense: mit\n---\n# x {{ t }}"), "holds '{{ t }}'"),
        ("vocabulary", lambda f: (f / "config.json").write_text("{}"), "cannot be checked"),
        ("vocabulary", lambda f: _cut(f / "model.safetensors"), "cannot be checked: Error while deserializing"),
        ("codecs", lambda f: _cut(f / "motion_codec" / "model.safetensors"), "cannot be checked: Error while"),
    ],
)  # fmt: skip
def test_what_is_broken_is_found(whole, check, break_it, told):
    break_it(whole)
    found = findings(whole, check)
    assert any(told in text for text in found), found


def test_vocabulary_against_tokenizer_and_weights(whole):
    config = json.loads((whole / "config.json").read_text())
    moved = _unlike(config, "body", first_id=config["modalities"]["body"]["first_id"] - 1)
    change(whole / "config.json", modalities=moved, markers={**config["markers"], "eoh": 3})
    found = findings(whole, "vocabulary")
    assert any("modalities.body: <🕺0> to <🕺15> are" in text for text in found)
    assert any("markers.eoh is 3, but the tokenizer has '<eoh>'" in text for text in found)
    change(whole / "config.json", **config)
    weights = load_file(whole / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:-3].clone()
    save_file(weights, whole / "model.safetensors", {"format": "pt"})
    (problem,) = findings(whole, "vocabulary")
    assert "model.embed_tokens.weight has the shape" in problem and "put back weights and config" in problem
    del weights["model.norm.weight"]
    save_file(weights, whole / "model.safetensors", {"format": "pt"})
    assert any("1 weights are missing, such as model.norm.weight" in text for text in findings(whole, "vocabulary"))


def test_a_config_without_a_layout(whole):
    change(whole / "config.json", modalities=None, markers=None)
    for check in ("vocabulary", "codecs"):
        (told,) = findings(whole, check)
        assert "has no modality tokens; make a folder that has them with `solami init`" in told


def test_codecs_statistics_and_voices(whole, tiny_codecs):
    path = whole / "motion_codec" / "model.safetensors"
    weights = load_file(path)
    weights["mean"], weights["std"] = torch.zeros_like(weights["mean"]), torch.ones_like(weights["std"])
    save_file(weights, path, {"format": "pt"})
    found = findings(whole, "codecs")
    assert any("mean is all 0 and std all 1" in text and "solami train-motion-vq" in text for text in found)
    assert any(text.startswith("motion_codec/: its fingerprint is") for text in found)
    weights["std"][3] = float("nan")
    save_file(weights, path, {"format": "pt"})
    assert any("mean or std is not finite" in text for text in findings(whole, "codecs"))
    voices = Voices()
    voices.add("Ada", torch.zeros(8, 150, dtype=torch.long), "silence", tiny_codecs[1])
    voices.entries["Ada"]["codec"] = "another"
    voices.save(whole)
    change(whole / "processor_config.json", characters={"a": {"name": "A", "system": "Be A.", "voice": "Eve"}})
    found = findings(whole, "codecs")
    assert any("voice 'Ada' was made by the codec another" in text for text in found)
    assert any("speaks with the voice 'Eve', which is not there" in text for text in found)


def test_a_template_that_renders_something_else(whole):
    path = whole / "chat_template.jinja"
    path.write_text(path.read_text().replace("<eoh>", "<eot>"))
    assert findings(whole, "chat template") == [
        "chat_template.jinja: it gives other ids than the processor renders; delete chat_template.jinja and save the "
        "processor again, or train with this template"
    ]


def test_a_codec_alone(whole, tiny_codecs, tmp_path):
    assert [text.split(":")[0] for text in findings(whole / "motion_codec")] == ["README.md"]
    export_checkpoint(whole / "speech_codec", tmp_path / "speech")
    assert findings(tmp_path / "speech") == []


def test_a_data_set(tmp_path):
    row = {"id": "a", "text": ["x"], "body": [1], "hand": [1], "trans": [0], "partner_id": None, "num_frames": 4}
    write_token_dataset(tmp_path / "d", "motion", {"train": [{**row, "source": "s"}]}, {"motion": "abc"})
    assert findings(tmp_path / "d") == []
    card = tmp_path / "d" / "README.md"
    card.write_text(card.read_text().replace("motion: abc", "other: abc"))
    assert "does not say which motion codec made the codes" in findings(tmp_path / "d")[0]
    (tmp_path / "d/motion/train-00000-of-00001.parquet").rename(tmp_path / "d/motion/test-0.parquet")
    assert "there is no motion/train-*.parquet" in findings(tmp_path / "d")[0]


def test_an_adapter_and_a_metric(tmp_path):
    (tmp_path / "lora").mkdir()
    config = {"base_model_name_or_path": str(tmp_path), "peft_type": "LORA", "r": 8}
    (tmp_path / "lora/adapter_config.json").write_text(json.dumps(config))
    save_file({"a": torch.zeros(1)}, tmp_path / "lora/adapter_model.safetensors")
    assert any("which others do not have" in text for text in findings(tmp_path / "lora"))
    with pytest.raises(ValueError, match="as its base, which others do not have; pass --base OWNER/NAME"):
        export_adapter(tmp_path / "lora", tmp_path / "out")
    export_adapter(tmp_path / "lora", tmp_path / "out", base="org/solami")
    assert findings(tmp_path / "out") == []
    (tmp_path / "my_metric").mkdir()
    (tmp_path / "my_metric/my_metric.py").write_text("import evaluate\nfrom .shared import x\ndef _info(self): ...\n")
    assert any("imports shared.py, which is missing" in text for text in findings(tmp_path / "my_metric"))


def test_what_a_training_leaves_is_a_note(whole):
    (whole / "checkpoint-2").mkdir()
    (whole / "checkpoint-2" / "optimizer.pt").write_bytes(b"x")
    assert findings(whole) == []
    (told,) = doctor.examine(whole, examine_code=False).checks["fit to be shared"]
    assert told.is_note and told.what == "1 files of the training, such as checkpoint-2/optimizer.pt"


def test_the_command_says_what_is_wrong(tmp_path, capsys, caplog):
    np.save(tmp_path / "x.npy", np.zeros(2))
    assert cli.main(["doctor", str(tmp_path)]) == 2
    assert "holds neither a model (config.json), an adapter" in capsys.readouterr().err
    assert cli.main(["doctor", "./nowhere"]) == 2
    assert "no such local folder: ./nowhere" in capsys.readouterr().err
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert cli.main(["doctor", str(tmp_path)]) == 1
    assert "PROBLEM files" in caplog.text and "adapter_model.safetensors: missing" in caplog.text
