"""SoundStorm's published checkpoints as a [`SolamiSoundStormModel`]."""

import json
import re
from pathlib import Path

import torch

from ..checkpoint_tensors import load_tensors, rename_key
from .configuration_soundstorm import SolamiSoundStormConfig
from .modeling_soundstorm import SolamiSoundStormModel

PUBLISHED_HEAD_DIM = 128

RENAMED_KEYS = (
    (r"^semantic_token_emb\.", "semantic_embedding."),
    (r"^net\.code_embeds\.", "code_embedding."),
    (r"^net\.heads\.0\.", "head_projection."),
    (r"^net\.to_logits\.0\.", "head_norm."),
    (r"^net\.to_logits\.2\.", "head_"),
    (r"^net\.conformer\.layers\.", "layers."),
    (r"\.ff1\.", ".feed_forward_in."),
    (r"\.ff2\.", ".feed_forward_out."),
    (r"\.fn\.fn\.net\.0\.", ".up."),
    (r"\.fn\.fn\.net\.3\.", ".down."),
    (r"\.fn\.norm\.", ".norm."),
    (r"\.attn\.fn\.to_out\.", ".attention.out."),
    (r"\.attn\.(fn|norm)\.", r".attention.\1."),
    (r"\.post_norm\.", ".norm."),
    # two revisions of the convolution: layers in three groups, or numbered through
    (r"\.conv\.(net1|net)\.0\.", ".convolution.norm."),
    (r"\.conv\.(net1|net)\.2\.", ".convolution.up."),
    (r"\.conv\.(ds_conv|net\.4)\.conv\.", ".convolution.depthwise."),
    (r"\.conv\.(net2\.1|net\.6)\.gamma$", ".convolution.channel_scale"),
    (r"\.conv\.(net2\.2|net\.7)\.", ".convolution.down."),
)

# names in the original's config: what they must agree with in the tensors
CHECKED = {
    "dim": "hidden_size", "depth": "num_hidden_layers", "heads": "num_attention_heads", "dim_head": "head_dim",
    "codebook_size": "codebook_size", "num_quantizers": "num_acoustic_levels",
    "num_semantic_token_ids": "num_semantic_codes", "conv_kernel_size": "conv_kernel_size",
}  # fmt: skip


def convert_soundstorm(checkpoint: str | Path, config: str | Path | dict | None = None) -> SolamiSoundStormModel:
    """A checkpoint in SoundStorm's layout, in evaluation mode. Pickled code in it is never run.

    `checkpoint` is a plain state dict, also inside `model` or `state_dict`, from whose tensors sizes are read;
    `config` its `config.json`, or that as a dict, at any nesting: `heads` or `dim_head` is needed, other sizes are
    compared with the tensors. None: heads of 128 values, as in the published checkpoint, which has no config. Raises
    FileNotFoundError: one of the files is missing; ValueError: a file is not what it should be, a variant that is not
    supported (grouped quantizers, causal convolution, learned position bias), or sizes that contradict the tensors.
    """
    state, sizes = load_tensors(checkpoint), _load_sizes(config)
    if any("rel_pos_bias" in key for key in state) or sizes.get("t5_rel_pos_bias"):
        raise ValueError(f"{checkpoint} has a learned position bias; only rotary positions are supported")
    if sizes.get("conv_causal") or sizes.get("grouped_quantizers", 1) != 1:
        raise ValueError("config has conv_causal or grouped_quantizers, which are not supported (AnyGPT has neither)")
    converted = SolamiSoundStormConfig(**_infer_sizes(state, sizes, checkpoint))
    for theirs, ours in CHECKED.items():
        if theirs in sizes and sizes[theirs] != getattr(converted, ours):
            raise ValueError(
                f"config has {theirs} {sizes[theirs]}, but the tensors of {checkpoint} {getattr(converted, ours)}; "
                "give the config of this checkpoint"
            )
    model = SolamiSoundStormModel(converted)
    try:
        model.load_state_dict(_rename(state))
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{checkpoint} does not fit SoundStorm's layout: {error}") from error
    return model.eval()


def _load_sizes(config: str | Path | dict | None) -> dict:
    """The values of a config at any nesting, by name."""
    if config is None:
        return {}
    if not isinstance(config, dict):
        if not Path(config).is_file():
            raise FileNotFoundError(f"no such file: {config}")
        try:
            config = json.loads(Path(config).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{config} is no JSON: {error}") from error
        if not isinstance(config, dict):
            raise ValueError(f"config is a JSON {type(config).__name__}, expected an object with SoundStorm's sizes")
    sizes = {}
    for name, value in config.items():
        if name in CHECKED and type(value) is not int:
            raise ValueError(f"config has {name} {value!r}, expected an integer")
        sizes |= _load_sizes(value) if isinstance(value, dict) else {name: value}
    return sizes


def _infer_sizes(state: dict[str, torch.Tensor], sizes: dict, checkpoint: str | Path) -> dict:
    """Arguments of our config."""
    layers = {int(match[1]) for key in state if (match := re.match(r"net\.conformer\.layers\.(\d+)\.", key))}
    first = "net.conformer.layers.0."
    try:
        semantic, hidden = state["semantic_token_emb.weight"].shape
        levels, _, codes = state["net.to_logits.2.weight"].shape
        width = state[f"{first}attn.fn.to_q.weight"].shape[0]
        intermediate = state[f"{first}ff1.fn.fn.net.0.weight"].shape[0]
        depthwise = "net.4" if f"{first}conv.net.4.conv.weight" in state else "ds_conv"
        channels, _, kernel = state[f"{first}conv.{depthwise}.conv.weight"].shape
    except (KeyError, ValueError) as error:
        raise ValueError(f"{checkpoint} lacks {error}; expected a checkpoint of SoundStorm") from error
    head_dim = sizes.get("dim_head") or (width // sizes["heads"] if sizes.get("heads") else PUBLISHED_HEAD_DIM)
    if width % head_dim:
        raise ValueError(
            f"{checkpoint} has attention {width} wide, which heads of {head_dim} do not divide; give a config with "
            "heads or dim_head"
        )
    return {
        "hidden_size": hidden, "num_hidden_layers": len(layers), "num_attention_heads": width // head_dim,
        "head_dim": head_dim, "intermediate_size": intermediate, "conv_channels": channels,
        "conv_kernel_size": kernel, "num_quantizers": levels + 1, "codebook_size": codes,
        "num_semantic_codes": semantic,
    }  # fmt: skip


def _rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys and shapes as ours: pointwise convolutions are linear layers, queries, keys and values one of them."""
    renamed = {}
    for key, value in state.items():
        key = rename_key(key, RENAMED_KEYS)
        if re.search(r"convolution\.(up|down)\.weight$", key):
            value = value.flatten(1)
        renamed[key] = value.flatten() if key.endswith("channel_scale") else value
    renamed["head_bias"] = renamed["head_bias"].view(renamed["head_weight"].shape[::2])
    for key in [key for key in renamed if key.endswith("attention.fn.to_q.weight")]:
        prefix = key.removesuffix("fn.to_q.weight")
        renamed[f"{prefix}qkv.weight"] = torch.cat([renamed.pop(key), renamed.pop(f"{prefix}fn.to_kv.weight")])
    return renamed
