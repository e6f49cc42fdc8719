"""The trained character as the package carries it: one adapter of all stages, rows, codec, talker, processor."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from solami_hf.character.packaged_character import ADAPTER, PACKED, ROWS, adapted_model, pack
from solami_hf.processing.files.output_folder import atomic_folder
from solami_hf.processing.files.text_files import read_json, write_json

logger = logging.getLogger(__name__)
TRAINED = ("pretrained", "checkpoint", "together")  # one on top of another; the last one may be missing
PROCESSOR_FILES = ("processor_config.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
# Greedy answers go round in circles; what is left of that ends at the second twelve equal tokens
SAMPLING = {
    "do_sample": True,
    "temperature": 0.4,
    "top_p": 0.9,
    "repetition_penalty": 1.1,
    "no_repeat_ngram_size": 12,
}
DIFFERENCE = 0.1  # of logits, that rounding to bfloat16 may make


def write_package(run: Path, output: Path) -> None:
    """Writes `output` from the stages of a run.

    Raises:
        ValueError: the packaged parts do not give the trained model back.
    """
    trained_stages = [run / name for name in TRAINED if (run / name).is_dir()]
    last = trained_stages[-1]
    config = AutoConfig.from_pretrained(last)
    with atomic_folder(output) as folder:
        config.auto_map = {}
        config.save_pretrained(folder)
        for name in PROCESSOR_FILES:
            shutil.copyfile(last / name, folder / name)
        settings = read_json(folder / "generation_config.json") | SAMPLING
        settings.pop("_from_model_config", None)
        write_json(folder / "generation_config.json", settings)
        tokenizer = json.loads((last / "tokenizer.json").read_text(encoding="utf-8"))
        text = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        for name, source in (("motion_codec", run / "motion_codec"), ("talker", run / "talker")):
            _pack(source, folder / name)
        write_adapter([stage / "adapter" for stage in trained_stages], folder / ADAPTER)
        trained = AutoModelForCausalLM.from_pretrained(last, dtype=torch.float32).eval()
        ids = trained_ids(config)
        rows = trained.get_input_embeddings().weight[ids].detach().to(torch.bfloat16).contiguous()
        save_file({"ids": ids, "rows": rows}, folder / ROWS)
        _compare(trained, adapted_model(str(run / "base"), folder).float().eval())
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    logger.info("%s has %.1f MB", output, size / 1e6)


def trained_ids(config) -> torch.LongTensor:
    """Ids (n,) of the new tokens that the character reads or writes: all but speech codes."""
    spans = [span for name, span in config.modalities.items() if name != "speech"]
    codes = [i for span in spans for i in range(span["first_id"], span["first_id"] + span["size"])]
    return torch.tensor(sorted({*config.markers.values(), *codes}))


def _pack(source: Path, output: Path) -> None:
    """Weights packed, and a configuration whose code is the package's."""
    output.mkdir()
    save_file(pack(load_file(source / "model.safetensors")), output / PACKED)
    config = read_json(source / "config.json")
    config.pop("auto_map", None)
    write_json(output / "config.json", config)


def write_adapter(adapters: list[Path], output: Path) -> None:
    """One LoRA adapter that adds what several add after another: their matrices side by side, in bfloat16.

    Raises:
        ValueError: adapters of different scales.
    """
    configs = [read_json(adapter / "adapter_config.json") for adapter in adapters]
    scales = {config["lora_alpha"] / config["r"] for config in configs}
    if len(scales) > 1:
        raise ValueError(f"the adapters have the scales {sorted(scales)}, expected one")
    weights = [load_file(adapter / "adapter_model.safetensors") for adapter in adapters]
    names = [name for name in weights[0] if "lora_" in name]
    joined = {
        name: torch.cat([each[name] for each in weights], dim=0 if "lora_A" in name else 1).to(torch.bfloat16)
        for name in names
    }
    output.mkdir()
    save_file(joined, output / "adapter_model.safetensors", metadata={"format": "pt"})
    rank = sum(config["r"] for config in configs)
    config = {**configs[0], "r": rank, "lora_alpha": int(rank * scales.pop()), "inference_mode": True}
    config |= {"trainable_token_indices": None, "modules_to_save": None, "base_model_name_or_path": None}
    write_json(output / "adapter_config.json", config)


@torch.no_grad()
def _compare(trained, packaged) -> None:
    known = trained_ids(trained.config)
    known = torch.cat([torch.arange(int(known.min())), known])
    ids = known[torch.randint(0, len(known), (1, 64), generator=torch.Generator().manual_seed(0))]
    a, b = (model(input_ids=ids).logits[..., known] for model in (trained, packaged))
    error = float((a - b).abs().mean() / a.std())
    logger.info("packaged against trained: logits differ by %.4f of their spread", error)
    if error > DIFFERENCE:
        raise ValueError(f"the packaged parts give another model: logits differ by {error:.3f} of their spread")
