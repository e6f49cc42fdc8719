"""Metric modules as a user loads them, and real motion and speech to judge."""

import evaluate
import numpy as np
import pytest

from solami_hf.metrics import folder_of


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    """Loads each module once, with its cache out of the user's home."""
    cache, modules = str(tmp_path_factory.mktemp("evaluate")), {}

    def loader(name):
        if name not in modules:
            modules[name] = evaluate.load(folder_of(name), cache_dir=cache)
        return modules[name]

    return loader


class KnownMotions:
    """An evaluator that reads a text as the place of one of its motions, and embeds poses and how they vary."""

    ground_truth = {"beats_shuffled": True}

    def __init__(self, motions):
        self.motions = list(motions)

    def embed_motions(self, motions, fps=30.0):
        rows = [np.concatenate([m.mean(axis=0).ravel(), 3 * m.std(axis=0).ravel()]) for m in map(np.asarray, motions)]
        return np.stack([row / np.linalg.norm(row) for row in rows])

    def embed_texts(self, texts):
        return self.embed_motions([self.motions[int(text)] for text in texts])


@pytest.fixture(scope="session")
def known_motions():
    """The class of a stand-in for a trained evaluator."""
    return KnownMotions


@pytest.fixture
def motions():
    """Three random walks of different lengths, (T, 55, 3)."""
    rng = np.random.default_rng(3)
    return [np.cumsum(rng.normal(size=(frames, 55, 3)), axis=0) * 0.01 for frames in (12, 20, 9)]


@pytest.fixture(scope="session")
def mocap():
    """65 takes of thirteen recorded actions: `SmplxMotion`s that stand on the floor."""
    from solami_hf.demo.corpus.mocap import SOURCES, make_mocap

    rng = np.random.default_rng(0)
    return [make_mocap(action, rng)[0] for action in SOURCES for _ in range(5)]


@pytest.fixture(scope="session")
def mocap_joints(mocap):
    """Their joint positions, float64 (T, 55, 3)."""
    from solami_hf.processing.motion.body import joint_positions

    return [joint_positions(motion).astype(np.float64) for motion in mocap]


@pytest.fixture(scope="session")
def spoken():
    """Synthesized speech at 16 kHz and what is said: [(samples, text)]."""
    import hibari

    from solami_hf.processing.audio.waveforms import resample

    texts = ["Please wave your hand and take a bow.", "We could walk to the harbour tomorrow morning."]
    speak = hibari.Hibari()
    return [(resample(np.ravel(speak(text)).astype(np.float32), 24_000, 16_000), text) for text in texts]


@pytest.fixture(scope="session")
def recorded():
    """A reader's sentence, as `spoken`; for tests marked `system("pocketsphinx-testdata")`."""
    from benchmarks.judged_voices import read_voice

    speech = read_voice("librivox", 1, 16_000, 3.0).speech
    return [(np.asarray(speech[0]), speech.texts[0])]


RECORDED = pytest.param("recorded", marks=pytest.mark.system("pocketsphinx-testdata"))


@pytest.fixture(params=["spoken", RECORDED])
def speech(request):
    """Samples and texts of `spoken` and of `recorded`: (clips, texts)."""
    return zip(*request.getfixturevalue(request.param), strict=True)


@pytest.fixture(scope="session")
def tiny_xvector(tmp_path_factory):
    """The folder of a WavLM with an x-vector head, a few thousand random weights."""
    import torch
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("xvector")
    config = WavLMConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 8, 8),
        conv_stride=(5, 8, 8),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(16, 16, 16),
        tdnn_kernel=(5, 3, 1),
        tdnn_dilation=(1, 2, 1),
        xvector_output_dim=8,
    )
    WavLMForXVector(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return str(folder)
