"""The same ground for every test on every machine: no network, no GPU, one thread (pytest-xdist brings the
parallelism), fixed seeds, and nothing of what the user has set or saved."""

import gc
import multiprocessing
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

# Before anything imports torch or huggingface_hub, which read the environment once. Workers inherit it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    foreign = ("ACCELERATE_", "DS_", "HF_", "HUGGING", "LOCAL_", "MASTER_", "SOLAMI_DEBUG", "TRANSFORMERS_", "WANDB_")
    for name in list(os.environ):
        if name.startswith(foreign) or name in ("RANK", "WORLD_SIZE") or name.lower().endswith("_proxy"):
            del os.environ[name]
    HOME = tempfile.TemporaryDirectory()
    os.environ |= {"HF_HOME": HOME.name, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

# What `.ci/run` installs of Debian for tests marked `system`, and the program or folder that shows that it is there.
DEBIAN = {
    "assimp-testmodels": "/usr/share/assimp/models/BVH",
    "chromium": "chromium",
    "flite": "flite",
    "pocketsphinx-testdata": "/usr/share/pocketsphinx/test/data/librivox",
}


def pytest_addoption(parser):
    parser.addoption("--system", action="store_true", help="fail, rather than skip, where a Debian package is missing")


def pytest_runtest_setup(item):
    for mark in item.iter_markers("system"):
        (package,) = mark.args
        if shutil.which(DEBIAN[package]) is None and not Path(DEBIAN[package]).is_dir():
            stop = pytest.fail if item.config.getoption("system") else pytest.skip
            stop(f"{package} is not installed: apt-get install {package}")


def pytest_collection_finish(session):
    """What is imported by now stays: the garbage collector need not look through it after every test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    """Each test starts from the same random state, in whatever order they run."""
    import random

    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def two_ranks():
    """`two_ranks(work, *arguments)`: `work(rank, *arguments)` in two processes that find each other as torchrun's do;
    they are forked, so that nothing has to be imported again."""

    def run(work, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        fork = multiprocessing.get_context("fork")
        ranks = [fork.Process(target=_as_rank, args=(rank, port, work, arguments)) for rank in range(2)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(300)
        assert [rank.exitcode for rank in ranks] == [0, 0]

    return run


def _as_rank(rank, port, work, arguments):
    from accelerate.state import AcceleratorState
    from torch import distributed

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    AcceleratorState._reset_state(reset_partial_state=True)  # of what other tests did in this process
    work(rank, *arguments)
    distributed.destroy_process_group()


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden vectors, see CONTRIBUTING.md for how to renew them."""
    return Path(__file__).parent / "golden"


@pytest.fixture
def tiny_tokenizer():
    """A byte-level BPE tokenizer of a few hundred tokens, without modality tokens."""
    from solami_hf.demo.tiny_model import train_tokenizer

    return train_tokenizer(["please wave your hand", "what am I doing?", "a person takes a bow"], vocab_size=300)


@pytest.fixture(scope="session")
def tiny_codecs():
    """A motion and a speech codec with random weights."""
    import torch

    from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
    from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
    from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
    from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel

    torch.manual_seed(0)
    sizes = {f"{part}_{key}": 16 for part in ("body", "hand") for key in ("code_num", "code_dim", "width")}
    motion = SolamiMotionVQModel(SolamiMotionVQConfig(transform_code_num=8, **sizes)).eval()
    speech = SolamiSpeechCodecModel(
        SolamiSpeechCodecConfig(num_filters=4, hidden_size=16, semantic_size=8, codebook_size=32)
    ).eval()
    return motion, speech


@pytest.fixture
def tiny_processor(tiny_tokenizer, tiny_codecs):
    """A processor with random codecs and one character."""
    from solami_hf.processing.processing_solami import SolamiProcessor

    characters = {"ada": {"name": "Ada", "system": "You are Ada."}}
    return SolamiProcessor(tiny_tokenizer, *tiny_codecs, characters=characters, answer_format="text_motion_speech")


@pytest.fixture
def tiny_model(tiny_processor):
    """A random language model that fits `tiny_processor`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from solami_hf.modeling.solami.modeling_solami import SolamiForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tiny_processor.markers["pad"],
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    sizes = {name: span["size"] for name, span in tiny_processor.modalities.items()}
    return SolamiForCausalLM.from_backbone(
        LlamaForCausalLM(config), tiny_processor.tokenizer, sizes=sizes, answer_format="text_motion_speech"
    ).eval()


@pytest.fixture
def small_motion():
    """40 frames of a body that moves a little."""
    import numpy as np

    from solami_hf.processing.motion.smplx_motion import SmplxMotion

    rng = np.random.default_rng(0)
    transl = np.tile([0.3, 0.9, 1.5], (40, 1)) + rng.normal(size=(40, 3)) * 0.01
    return SmplxMotion(transl.astype(np.float32), (rng.normal(size=(40, 55, 3)) * 0.1).astype(np.float32))


@pytest.fixture
def small_sound():
    """0.6 s of noise at 16 kHz."""
    import numpy as np

    return (np.random.default_rng(1).normal(size=9600) * 0.1).astype(np.float32)
