"""Loads the original project's motion tokenizers with `weights_only=True`: nothing is unpickled."""

import re
from pathlib import Path

import numpy as np
import torch

from ..checkpoint_tensors import load_tensors, rename_key
from .configuration_motion_vq import SolamiMotionVQConfig
from .modeling_motion_vq import SolamiMotionVQModel


def convert_motion_vq(
    body: str | Path,
    hand: str | Path,
    transform: str | Path,
    mean,
    std,
    transform_mean=0,
    transform_std=1,
    **config_overrides,
) -> SolamiMotionVQModel:
    """The motion tokenizers of three original checkpoints and their normalisation statistics.

    `body`, `hand`, `transform` are paths of state dicts, with or without the prefixes `vae_body.`, `vae_hand.`,
    `vae_transform.` and the `state_dict` level of a Lightning checkpoint (one such file may serve for all). `mean`,
    `std` are (315,) as array, tensor, or path of an `.npy` file; `transform_mean`, `transform_std` (5,) or one number,
    likewise. `config_overrides` are what tensors cannot tell, as sizes are inferred: `body_activation`,
    `hand_activation` ("relu"), `body_dilation_growth_rate`, `hand_dilation_growth_rate` (3), `fps`, loss weights.
    Raises FileNotFoundError: a path does not exist; ValueError: a file is no such checkpoint, its keys are not the
    expected ones, or the parts do not fit together.
    """
    states = {
        "body": _part_state(body, "vae_body."),
        "hand": _part_state(hand, "vae_hand."),
        "transform": _part_state(transform, "vae_transform."),
    }
    try:
        config = SolamiMotionVQConfig(**{**_infer_sizes(states), **config_overrides})
    except KeyError as error:
        raise ValueError(f"A checkpoint lacks {error}, expected a motion VQ-VAE of the original SOLAMI.") from error
    model = SolamiMotionVQModel(config)
    patterns, weights = _renamed_keys(config.down_t), {}
    for part, state in states.items():
        weights |= {f"{part}.{rename_key(key, patterns)}": tensor for key, tensor in state.items()}
        codebook = weights[f"{part}.quantizer.codebook"]
        # the original does not save its averages: start them so that they give the loaded codebook back
        weights.setdefault(f"{part}.quantizer.code_sum", codebook.clone())
        weights.setdefault(f"{part}.quantizer.code_count", torch.ones(len(codebook)))
        weights[f"{part}.quantizer.initialised"] = torch.tensor(True)
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # an override that contradicts the tensors
        raise ValueError(f"The checkpoints do not fit the model: {error}") from error
    missing = [key for key in missing if key not in ("mean", "std", "transform_mean", "transform_std")]
    if missing or unexpected:
        raise ValueError(
            f"The checkpoints do not fit the model: missing {missing[:5] or 'nothing'}, "
            f"unexpected {unexpected[:5] or 'nothing'}."
        )
    model.set_statistics(*(_load_statistics(v) for v in (mean, std, transform_mean, transform_std)))
    return model.eval()


def _part_state(path: str | Path, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint under a prefix, without it; all of them where none has it."""
    state = load_tensors(path)
    part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return part or state


def _load_statistics(values):
    if not isinstance(values, (str, Path)):
        return values
    if not Path(values).is_file():
        raise FileNotFoundError(f"There is no file of statistics at {values}.")
    return np.load(values, allow_pickle=False)


def _infer_sizes(states: dict[str, dict[str, torch.Tensor]]) -> dict:
    sizes, down_t = {}, {}
    for part in ("body", "hand"):
        state = states[part]
        sizes[f"{part}_width"], features, _ = state["encoder.model.0.weight"].shape
        sizes[f"{part}_code_num"], sizes[f"{part}_code_dim"] = state["quantizer.codebook"].shape
        stages = {int(m[1]) for key in state if (m := re.match(r"encoder\.model\.(\d+)\.0\.weight", key))}
        blocks = {int(m[1]) for key in state if (m := re.match(r"encoder\.model\.2\.1\.model\.(\d+)\.", key))}
        down_t[part] = len(stages)
        sizes[f"{part}_depth"] = len(blocks)
        sizes[f"{part}_norm"] = "group" if "encoder.model.2.1.model.0.norm1.weight" in state else None
        sizes["body_features_size" if part == "body" else "features_size"] = features
    if down_t["body"] != down_t["hand"]:
        raise ValueError(f"Body and hand halve the time {tuple(down_t.values())} times, expected the same number.")
    sizes["features_size"] += sizes["body_features_size"]
    state = states["transform"]
    sizes["transform_code_num"], sizes["transform_code_dim"] = state["quantizer.codebook"].shape
    hidden, sizes["transform_features_size"] = state["encoder.fc1.weight"].shape
    return sizes | {
        "down_t": down_t["body"],
        "velocity_features": min(75, sizes["body_features_size"]),
        "transform_hidden_sizes": [hidden, state["encoder.fc2.weight"].shape[0]],
    }


def _renamed_keys(down_t: int) -> list[tuple[str, str]]:
    """The original numbers its layers: in, activation, stages from 2 on, then the rest. Ours have names."""
    return [
        (r"^(encoder|decoder)\.model\.0\.", r"\1.conv_in."),
        *((rf"^(encoder|decoder)\.model\.{2 + n}\.", rf"\1.stages.{n}.") for n in range(down_t)),
        (rf"^encoder\.model\.{2 + down_t}\.", "encoder.conv_out."),
        (rf"^decoder\.model\.{2 + down_t}\.", "decoder.conv_mid."),
        (rf"^decoder\.model\.{4 + down_t}\.", "decoder.conv_out."),
        (r"(stages\.\d+)\.[01]\.model\.", r"\1.blocks."),
        (r"(stages\.\d+)\.0\.(weight|bias)$", r"\1.down.\2"),
        (r"(stages\.\d+)\.2\.(weight|bias)$", r"\1.up.\2"),
    ]
