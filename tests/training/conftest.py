"""What the tests of training share: folders to train in, random tokens of many lengths, and runs compared."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from solami_hf.modeling.speech_codec.codec_interface import codec_fingerprint
from solami_hf.processing.datasets.token_dataset import fingerprints, write_token_dataset

WORDS = "please wave your hand what am I doing a person takes bow now and then".split()


def token_rows(config, split, count, rng):
    """Rows of a config, of the sizes of `tiny_processor`."""

    def codes(highest, low, high):
        return rng.integers(0, highest, rng.integers(low, high)).tolist()

    def words():
        return " ".join(rng.choice(WORDS, rng.integers(1, 6)))

    def motion():
        length = int(rng.integers(2, 12))
        body, hand = (rng.integers(0, 16, length).tolist() for _ in range(2))
        return {"body": body, "hand": hand, "trans": codes(8, 1, 2)}

    def turn(role):
        return {"role": role, "text": words(), "motion_text": "", **motion(), "speech": codes(32, 3, 30)}

    rows = []
    for i in range(count):
        row = {"id": f"{split}{i}", "source": f"{split}-source{i}"}
        if config == "motion":
            partner = f"{split}{i - 1}" if i % 2 else None
            row |= {"text": [words()], **motion(), "partner_id": partner, "num_frames": 40}
        elif config == "speech":
            row["turns"] = [{"text": words(), "speech": codes(32, 3, 40), "speaker": "a"} for _ in range(1 + i % 3)]
        else:
            rounds = [turn(role) for _ in range(1 + i % 3) for role in ("user", "assistant")]
            row |= {"topic": "t", "character": "ada", "turns": rounds}
        rows.append(row)
    return rows


@pytest.fixture
def training_folder(tmp_path, tiny_model, tiny_processor):
    """`model/` and `data/` in a temporary folder."""
    rng = np.random.default_rng(0)
    for config in ("motion", "speech", "chat"):
        splits = {split: token_rows(config, split, count, rng) for split, count in (("train", 24), ("test", 5))}
        write_token_dataset(tmp_path / "data", config, splits, fingerprints(tiny_processor, config))
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    return tmp_path


@pytest.fixture(scope="session")
def token_data(tmp_path_factory, tiny_codecs):
    """Three equal rows in each split of all configs, whose codes `tiny_codecs` could have made."""
    folder = tmp_path_factory.mktemp("tokens") / "data"
    prints = dict(zip(("motion", "speech"), map(codec_fingerprint, tiny_codecs), strict=True))
    motion = {"body": [1, 2, 3], "hand": [4, 5, 6], "trans": [7]}
    user = {"role": "user", "text": "hi", "motion_text": "", **motion, "speech": [8, 9, 10]}
    answer = {**user, "role": "assistant", "text": "please wave", "body": [3, 3], "hand": [2, 2], "speech": [11] * 9}
    system = {**dict.fromkeys(user), "role": "system", "text": "Be Ada."}
    rows = {
        "motion": {"text": ["a person waves"], **motion, "partner_id": None, "num_frames": 13},
        "speech": {"turns": [{"text": "hi", "speech": [1, 2, 3, 4], "speaker": "me"}] * 2},
        "chat": {"topic": "t", "character": "ada", "turns": [system, user, answer, user, answer]},
    }
    for config, row in rows.items():
        names = {s: [f"{s}{i}" for i in range(3)] for s in ("train", "test")}
        splits = {s: [{**row, "id": name, "source": name} for name in names[s]] for s in names}
        write_token_dataset(folder, config, splits, {k: v for k, v in prints.items() if config in (k, "chat")})
    return folder


@pytest.fixture
def start(tmp_path, tiny_model, tiny_processor):
    """A folder to begin with: a tiny Llama whose embedding is its head, and its processor."""
    tiny_model.save_pretrained(tmp_path / "start")
    tiny_processor.save_pretrained(tmp_path / "start")
    return tmp_path / "start"


@pytest.fixture
def options(tmp_path, token_data):
    """Command lines of quick runs on `token_data`: `options(model, output, *more)`."""
    recipe = "max_length: 256\nper_device_train_batch_size: 1\nlearning_rate: 1.0e-2\nuse_cpu: true\nbf16: false\n"
    recipe += "logging_steps: 1\nsave_strategy: steps\nsave_steps: 2\nreport_to: none\nmax_steps: 2\n"
    (tmp_path / "quick.yaml").write_text(recipe)

    def make(model, output, *more):
        paths = ["--model", str(model), "--data", str(token_data), "--output_dir", str(output)]
        return ["--config", str(tmp_path / "quick.yaml"), *paths, *more]

    return make


@pytest.fixture(scope="session")
def assert_same_run():
    """`assert_same_run(first, second)`: two folders of a run have equal weights and histories, bit for bit."""

    def compare(first, second):
        ours, theirs = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
        assert (first / "history.json").read_text() == (second / "history.json").read_text()

    return compare


@pytest.fixture
def stops_writing(monkeypatch):
    """`stops_writing("checkpoint-4/optimizer.pt", error)`: torch raises it where it would write this file; what comes
    back lets it write again."""
    save = torch.save

    def stop(name, error):
        def stopped(value, file, *args, **more):
            if str(file).endswith(name):
                raise error
            save(value, file, *args, **more)

        monkeypatch.setattr(torch, "save", stopped)
        return lambda: monkeypatch.setattr(torch, "save", save)

    return stop
