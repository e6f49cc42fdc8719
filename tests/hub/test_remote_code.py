"""The first promise: a checkpoint on the Hub loads with transformers and torch alone, and does the same as with us."""

import json
import re
import sys

import pytest
import torch

from solami_hf.hub_cards.export import export_checkpoint
from solami_hf.modeling.remote_code import remote_modules
from solami_hf.processing import processing_solami
from solami_hf.processing.motion.motion_io import write_motion

# Codes of what is heard and seen, an answer, and what those codes look and sound like; the same lines for everybody.
LOAD_AND_USE = """
import hashlib, json, sys
import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor
torch.set_num_threads(1)

def use(source, **options):
    config = AutoConfig.from_pretrained(source, **options)
    headless = AutoModel.from_pretrained(source, **options)
    model = AutoModelForCausalLM.from_pretrained(source, **options).eval()
    processor = AutoProcessor.from_pretrained(source, **options)
    sound = np.sin(np.arange(9600) / 9).astype(np.float32) / 4
    content = [{"type": "motion", "motion": "motion.npz"}, {"type": "audio", "audio": sound}]
    messages = [{"role": "system", "content": "You are Ada."}, {"role": "user", "content": content}]
    inputs = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    hidden = headless(**inputs).last_hidden_state
    answer = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    parsed = processor.parse_response(answer[0, inputs["input_ids"].shape[1]:])
    codes = processor.encode_media([messages])[0][1]["content"]
    motion = processor.decode_motion(codes[0]["motion"])
    waveform = processor.decode_speech(codes[1]["audio"]["codes"], "Ada")
    digest = lambda values: hashlib.sha256(np.ascontiguousarray(values, np.float32).tobytes()).hexdigest()
    return model, processor, {
        "model_type": config.model_type, "prompt": inputs["input_ids"].tolist(), "answer": answer.tolist(),
        "valid": parsed.valid, "reason": parsed.reason, "hidden": digest(hidden.detach()),
        "motion": digest(motion.to_params()), "waveform": digest(waveform), "voices": processor.voices.names,
        "characters": processor.characters,
    }
"""
BARE = (
    LOAD_AND_USE
    + """
try:
    import solami_hf
    raise SystemExit("solami_hf is installed here")
except ModuleNotFoundError:
    pass
model, processor, first = use("org/solami", trust_remote_code=True)
assert type(processor).__module__.startswith("transformers_modules.org.solami."), type(processor)
model.save_pretrained("again")
processor.save_pretrained("again")
_, _, second = use("./again", trust_remote_code=True)
codecs = {"speech_codec": "SpeechCodec", "motion_codec": "MotionVQ", "acoustic_model": "SoundStorm"}
for name, kind in codecs.items():
    for source, inside in (("org/solami", name), ("./again", name), (f"./again/{name}", ""), (f"org/{name}", "")):
        codec = AutoModel.from_pretrained(source, subfolder=inside, trust_remote_code=True)
        assert type(codec).__name__ == f"Solami{kind}Model"
        assert type(codec).__module__.startswith("transformers_modules."), type(codec)
pinned = AutoConfig.from_pretrained("org/solami", revision="v1", trust_remote_code=True)
print(json.dumps({"first": first, "second": second, "pinned": pinned.codecs}))
"""
)


@pytest.fixture
def exported(tmp_path, tiny_model, tiny_processor, tiny_codecs, small_motion):
    """`solami/` as it goes to the Hub, with a voice and an acoustic model, its weights in several files."""
    from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
    from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel

    _, codec = tiny_codecs
    config = SolamiSoundStormConfig(
        codebook_size=32, num_semantic_codes=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        head_dim=8, intermediate_size=32, conv_channels=16, conv_kernel_size=3, max_frames=400,
    )  # fmt: skip
    acoustic = SolamiSoundStormModel(config)
    tiny_processor._models.loaded["acoustic_model"] = acoustic.eval()
    tiny_processor.voices.add("Ada", codec.encode(torch.zeros(1, 1, 48000)).audio_codes[0], "silence", codec)
    tiny_model.save_pretrained(tmp_path / "run")
    tiny_processor.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "training_args.json").write_text(json.dumps({"output_dir": str(tmp_path)}))
    (tmp_path / "run" / "checkpoint-1").mkdir()
    export_checkpoint(tmp_path / "run", tmp_path / "solami", max_shard_size="20KB")
    write_motion(tmp_path / "motion.npz", small_motion)
    return tmp_path / "solami"


def put_on(hub, folder, repo="org/solami"):
    """Puts a folder on the Hub without a network; pushing has tests of its own."""
    stored = hub.repos["models", repo] = sys.modules["hub_server"].Repo(private=False)
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    stored.tags["v1"] = stored.commit(files)


def test_flat_modules_import_neighbours_only():
    modules = remote_modules(processing_solami.__file__)
    assert {"processing_solami.py", "motion_npz.py", "free_body.py"} <= set(modules)
    assert len(modules) <= 20 and sum(text.count("\n") for text in modules.values()) <= 4500
    upwards = re.compile(r"^\s*(from \.\.|from solami_hf|import solami_hf)", re.MULTILINE)
    assert not [name for name, text in modules.items() if upwards.search(text)]
    neighbours = {f"{line.split('.')[1].split()[0]}.py" for text in modules.values() for line in text.splitlines()
                  if line.strip().startswith("from .")}  # fmt: skip
    assert neighbours <= set(modules)


def _code_of_codecs():
    from solami_hf.modeling.motion_vq import modeling_motion_vq
    from solami_hf.modeling.soundstorm import modeling_soundstorm
    from solami_hf.modeling.speech_codec import modeling_speech_codec

    modules = (modeling_motion_vq, modeling_speech_codec, modeling_soundstorm)
    return {name: text for module in modules for name, text in remote_modules(module.__file__).items()}


def test_modules_of_one_name_are_refused(tmp_path):
    for package in ("a", "b"):
        (tmp_path / package).mkdir()
    (tmp_path / "a" / "first.py").write_text("from ..b.same import x\nfrom .same import y\n")
    for package in ("a", "b"):
        (tmp_path / package / "same.py").write_text("")
    with pytest.raises(ValueError, match="same.py cannot lie in one folder"):
        remote_modules(tmp_path / "a" / "first.py")
    (tmp_path / "a" / "first.py").write_text("from . import same\n")
    with pytest.raises(ValueError, match="line 1: import names from a module"):
        remote_modules(tmp_path / "a" / "first.py")


@pytest.mark.slow
def test_without_the_package_over_http(hub, in_process, bare_python, exported, monkeypatch):
    put_on(hub, exported)
    for codec in ("speech_codec", "motion_codec", "acoustic_model"):  # each a repository of its own, too
        put_on(hub, exported / codec, f"org/{codec}")
    found = in_process(BARE, python=bare_python)
    namespace = {}
    exec(LOAD_AND_USE, namespace)  # the same lines, with the package
    monkeypatch.chdir(exported.parent)
    ours = namespace["use"](str(exported))[2]
    assert found["first"] == json.loads(json.dumps(ours))
    assert found["second"] == found["first"]
    assert ours["voices"] == ["Ada"] and len(ours["answer"][0]) > len(ours["prompt"][0])


WITH = (
    """
import json, os, sys
import solami_hf
from transformers import AutoModelForCausalLM
"""
    + LOAD_AND_USE
    + """
found = {"id": use("org/solami")[2], "revision": use("org/solami", revision="v1")[2]}
model = use("org/solami")[0]
assert type(model).__module__ == "solami_hf.modeling.solami.modeling_solami", type(model)
trusted = AutoModelForCausalLM.from_pretrained("org/solami", trust_remote_code=True)
assert type(trusted) is type(model)  # the installed package goes before the code of a repository
try:
    use("org/solami", revision="v2")
except OSError as error:
    found["wrong"] = str(error)
print(json.dumps(found))
"""
)
OFFLINE = (
    "import solami_hf\n"
    + LOAD_AND_USE
    + """
print(json.dumps({"cache": use("org/solami")[2], "folder": use(sys.argv[1])[2]}))
"""
)


@pytest.mark.slow
def test_with_the_package_by_id_revision_folder_and_cache(hub, in_process, exported):
    put_on(hub, exported)
    found = in_process(WITH)
    count = len(hub.requests)
    found |= in_process(OFFLINE, exported, HF_HUB_OFFLINE="1")
    assert len(hub.requests) == count  # the cache alone
    assert found["id"] == found["revision"] == found["cache"] == found["folder"]
    assert found["id"]["model_type"] == "solami" and "v2 is not a valid git identifier" in found["wrong"]


def test_code_of_a_folder_gives_the_same_ids(exported, tmp_path, monkeypatch):
    """In this process: the classes of the folder's own files, beside the installed ones."""
    from transformers import dynamic_module_utils

    from solami_hf.processing.processing_solami import SolamiProcessor

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    remote = dynamic_module_utils.get_class_from_dynamic_module("processing_solami.SolamiProcessor", str(exported))
    assert remote is not SolamiProcessor
    content = [{"type": "motion", "motion": str(tmp_path / "motion.npz")}, {"type": "text", "text": "please wave"}]
    messages = [{"role": "user", "content": content}]
    theirs, ours = (known.from_pretrained(exported) for known in (remote, SolamiProcessor))
    ids = ours.apply_chat_template(messages, tokenize=True)
    assert theirs.apply_chat_template(messages, tokenize=True) == ids and len(ids) > 10
    theirs.save_pretrained(tmp_path / "again")
    code = {path.name: path.read_text() for path in (tmp_path / "again").glob("*.py")}
    codecs = (theirs.motion_codec, theirs.speech_codec, theirs.acoustic_model)
    assert {type(codec).__module__.rsplit(".", 1)[-1] for codec in codecs} == {
        "modeling_motion_vq", "modeling_speech_codec", "modeling_soundstorm"
    }  # fmt: skip
    assert code == remote_modules(processing_solami.__file__) | _code_of_codecs()
    assert len(code) < 30 and sum(text.count("\n") for text in code.values()) <= 7300
    assert json.loads((tmp_path / "again" / "processor_config.json").read_text())["auto_map"] == ours.auto_map


def test_a_run_becomes_a_clean_folder(exported, tmp_path):
    assert not list(exported.rglob("training_args*")) and not (exported / "checkpoint-1").exists()
    assert len(list(exported.glob("model-*-of-*.safetensors"))) > 1
    config = json.loads((exported / "config.json").read_text())
    assert set(config["codecs"]) == {"motion", "speech"}
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    for codec, name in (("motion_codec", "SolamiMotionVQModel"), ("acoustic_model", "SolamiSoundStormModel")):
        module, found = json.loads((exported / codec / "config.json").read_text())["auto_map"]["AutoModel"].split(".")
        assert found == name and (exported / codec / f"{module}.py").is_file()
    with pytest.raises(FileExistsError, match="is there already"):
        export_checkpoint(exported, exported)
    (exported / "README.md").write_text(
        '---\nmodel-index:\n- name: solami\n---\n\n# solami\n\nx.from_pretrained("solami")\n'
    )
    export_checkpoint(exported / "motion_codec", tmp_path / "codec", model_id="org/codec")
    assert 'AutoModel.from_pretrained("org/codec"' in (tmp_path / "codec" / "README.md").read_text()
    export_checkpoint(exported, tmp_path / "named", model_id="org/other")
    named = '---\nmodel-index:\n- name: other\n---\n\n# other\n\nx.from_pretrained("org/other")\n'
    assert (tmp_path / "named" / "README.md").read_text() == named


def test_codecs_that_the_model_was_not_trained_with_are_refused(exported, tmp_path):
    config = json.loads((exported / "config.json").read_text())
    config["codecs"]["motion"] = "0" * 16
    (exported / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="was trained with the codecs .*0000000000000000"):
        export_checkpoint(exported, tmp_path / "other")
    assert not (tmp_path / "other").exists()
