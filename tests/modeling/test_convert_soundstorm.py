import json
from pathlib import Path

import pytest
import torch

from solami_hf.modeling.convert import convert_soundstorm

FOLDER = Path(__file__).parents[1] / "golden" / "soundstorm"
CHECKPOINT, CONFIG = FOLDER / "soundstorm.pt", FOLDER / "config.json"


@pytest.fixture(scope="module")
def state():
    return torch.load(CHECKPOINT, weights_only=True)


@pytest.fixture(scope="module")
def model():
    return convert_soundstorm(CHECKPOINT, CONFIG)


def same_weights(left, right) -> bool:
    right = right.state_dict()
    return all(torch.equal(value, right[key]) for key, value in left.state_dict().items())


def test_sizes_are_read_from_the_tensors(model):
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (64, 2, 256)
    assert (config.num_attention_heads, config.head_dim) == (2, 16)
    assert (config.conv_channels, config.conv_kernel_size) == (128, 31)
    assert (config.num_quantizers, config.codebook_size, config.num_semantic_codes) == (8, 32, 32)
    assert not model.training and config.mask_code == 32 and config.num_acoustic_levels == 7


@pytest.mark.parametrize("config", [{"heads": 2}, {"dim_head": 16}, {"net": {"conformer": {"heads": 2}}}])
def test_either_heads_or_their_width_is_enough(model, config):
    assert same_weights(model, convert_soundstorm(CHECKPOINT, config))


def test_the_published_checkpoint_has_no_config_and_heads_of_128(state, tmp_path):
    wide = dict(state)
    for layer in range(2):
        prefix = f"net.conformer.layers.{layer}.attn.fn"
        wide[f"{prefix}.to_q.weight"] = torch.zeros(256, 64)
        wide[f"{prefix}.to_kv.weight"] = torch.zeros(512, 64)
        wide[f"{prefix}.to_out.weight"] = torch.zeros(64, 256)
    torch.save(wide, tmp_path / "wide.pt")
    config = convert_soundstorm(tmp_path / "wide.pt").config
    assert (config.num_attention_heads, config.head_dim) == (2, 128)


def test_numbered_convolutions_and_a_trainers_checkpoint(model, state, tmp_path):
    numbered = {}
    for key, value in state.items():
        for group, number in (("net1", "net"), ("ds_conv", "net.4"), ("net2.1", "net.6"), ("net2.2", "net.7")):
            key = key.replace(f".conv.{group}.", f".conv.{number}.")
        numbered[key] = value
    assert "net.conformer.layers.1.conv.net.4.conv.weight" in numbered
    torch.save({"model": numbered, "step": 3}, tmp_path / "trainer.pt")
    assert same_weights(model, convert_soundstorm(tmp_path / "trainer.pt", CONFIG))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, "depth 3, but the tensors of .* 2"),
        ({"num_quantizers": 8}, "num_quantizers 8, but the tensors of .* 7"),
        ({"heads": 3}, "heads of 10 do not divide"),
        ({"dim_head": None}, "dim_head None, expected an integer"),
        ({"grouped_quantizers": 2}, "not supported"),
        ({"conv_causal": True}, "not supported"),
        ({"t5_rel_pos_bias": True}, "only rotary"),
    ],
)
def test_configs_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        convert_soundstorm(CHECKPOINT, {"heads": 2} | change)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pt"):
        convert_soundstorm(tmp_path / "nothing.pt", CONFIG)
    with pytest.raises(FileNotFoundError, match="nothing.json"):
        convert_soundstorm(CHECKPOINT, tmp_path / "nothing.json")
    with pytest.raises(ValueError, match="heads of 128 do not divide"):
        convert_soundstorm(CHECKPOINT)
    broken = tmp_path / "broken.json"
    for text, message in (("{", "no JSON"), ("[1]", "a JSON list")):
        broken.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            convert_soundstorm(CHECKPOINT, broken)
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(CHECKPOINT.read_bytes()[:1000])
    with pytest.raises(ValueError, match="no checkpoint of plain tensors"):
        convert_soundstorm(truncated, CONFIG)


def test_other_checkpoints_are_refused(state, tmp_path):
    path = tmp_path / "other.pt"
    for content, message in (
        ({"weight": torch.zeros(3)}, "lacks 'semantic_token_emb.weight'"),
        ([1, 2], "holds list, expected a state dict"),
        ({key: value for key, value in state.items() if "to_kv" not in key}, "does not fit"),
        ({key: value for key, value in state.items() if "layers.1.post_norm" not in key}, "does not fit"),
        (state | {"net.conformer.rel_pos_bias.weight": torch.zeros(2)}, "position bias"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            convert_soundstorm(path, json.loads(CONFIG.read_text()))


def test_checkpoints_that_would_run_code_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="no checkpoint of plain tensors"):
        convert_soundstorm(tmp_path / "evil.pt", CONFIG)
    assert not (tmp_path / "ran").exists()
