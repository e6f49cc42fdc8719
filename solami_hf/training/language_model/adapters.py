"""Training a part of a language model: LoRA on frozen or quantised (QLoRA) weights, or only the new tokens' rows.

All of it is PEFT's, so what a run saves in `adapter/` and its checkpoints loads with PEFT too. References: LoRA
(arXiv 2106.09685), QLoRA (2305.14314).
"""

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ...modeling.solami.backbones import allow_cache
from ...modeling.solami.configuration_solami import require_layout
from ...processing.files.folder_or_hub import hub_id

ALL_LINEAR = "all-linear"
# Words of `lora_modules_to_save` that are no names of layers.
EMBEDDINGS, NEW_TOKENS, NONE = "embeddings", "new_tokens", "none"


def check_adapter_arguments(args) -> None:
    """ValueError where the arguments contradict one another."""
    if args.trainable not in ("all", "new_tokens"):
        raise ValueError(f"trainable is {args.trainable!r}, expected all or new_tokens; LoRA is use_peft: true")
    if args.use_peft and args.trainable != "all":
        raise ValueError(f"use_peft and trainable: {args.trainable} exclude one another; leave one of them out")
    if args.load_in_4bit and args.load_in_8bit:
        raise ValueError("load_in_4bit and load_in_8bit exclude one another; leave one of them out")
    if args.trained == "all" and (args.bits or args.frozen_dtype != "float32"):
        raise ValueError(
            f"load_in_4bit, load_in_8bit and frozen_dtype {args.frozen_dtype} are for weights that are not trained; "
            "set use_peft: true or trainable: new_tokens too"
        )
    if args.embedding_learning_rate is not None and not (args.use_peft and args.embedding_learning_rate > 0):
        raise ValueError(
            f"embedding_learning_rate is {args.embedding_learning_rate} and use_peft {args.use_peft}; expected a "
            "learning rate above 0 with use_peft: true, or none"
        )
    words = set(args.lora_modules_to_save)
    if NONE in words and len(words) > 1 or {EMBEDDINGS, NEW_TOKENS} <= words:
        raise ValueError(
            f"lora_modules_to_save is {args.lora_modules_to_save}; give {EMBEDDINGS}, {NEW_TOKENS}, {NONE} or names "
            "of layers"
        )


def loading_options(args) -> dict:
    """Keyword arguments of `from_pretrained` for what is to be trained: dtype and quantisation. Raises ValueError:
    quantisation is asked for and bitsandbytes is not installed."""
    options = {"dtype": getattr(torch, args.frozen_dtype)}
    if args.attn_implementation is not None:
        options["attn_implementation"] = args.attn_implementation
    if not args.bits:
        return options
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"weights in {args.bits} bits need bitsandbytes; pip install 'solami_hf[qlora]'")
    from transformers import BitsAndBytesConfig

    has_bf16 = not torch.cuda.is_available() or torch.cuda.is_bf16_supported()
    config = BitsAndBytesConfig(
        load_in_8bit=args.load_in_8bit,
        load_in_4bit=args.load_in_4bit,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if has_bf16 else torch.float16,
    )
    return options | {"quantization_config": config}


def add_adapters(model: PreTrainedModel, args) -> PreTrainedModel:
    """The model with what `args` (`LanguageModelArguments`) have trained of it, itself where that is all; else a
    `PeftModel` whose trained weights are in float32, whatever the frozen ones are in. A model whose embedding is
    its head keeps it so. Raises ValueError: a layer that the model does not have, or rows of a head with a bias."""
    if args.trained == "all":
        return model
    from peft import TrainableTokensConfig, get_peft_model, prepare_model_for_kbit_training

    if args.bits:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if args.use_peft:
        config = _lora(model, args)
    else:
        rows = {"target_modules": _row_layers(model), "token_indices": new_token_ids(model.config)}
        config = TrainableTokensConfig(**rows, task_type="CAUSAL_LM")
    saved = list(getattr(config, "modules_to_save", None) or [])
    model = get_peft_model(model, config)
    if config.base_model_name_or_path and os.path.isdir(config.base_model_name_or_path):
        # What is loaded with the adapter later, from any folder
        config.base_model_name_or_path = os.path.abspath(config.base_model_name_or_path)
    if saved:
        # PEFT takes a tied head out, and would not tie it again when it reads the adapter of a GPT-2
        config.modules_to_save = saved
    if args.bits or args.frozen_dtype != "float32":
        for weight in model.parameters():
            # Norms and biases are small, and not every kernel takes them in another dtype than its input
            if weight.is_floating_point() and (weight.requires_grad or weight.ndim < 2):
                weight.data = weight.data.float()
    return model


def set_rate_beside_lora(optimizer: torch.optim.Optimizer, model: PreTrainedModel, rate: float) -> None:
    """Trains what is no LoRA matrix (embedding and head, or their new rows) at the learning rate `rate`. To be called
    before the optimizer's scheduler is made, which then takes the same share of both rates."""
    rest = {weight for name, weight in model.named_parameters() if weight.requires_grad and "lora_" not in name}
    for group in list(optimizer.param_groups):
        beside = [weight for weight in group["params"] if weight in rest]
        group["params"] = [weight for weight in group["params"] if weight not in rest]
        if beside:
            optimizer.add_param_group({**group, "params": beside, "lr": rate})


def load_merged(adapter: str | Path, base: str | Path | None = None) -> PreTrainedModel:
    """A base model in float32 with an adapter (folder or hub id) merged into it, whatever the base was quantised or
    cast to in training; `base` is by default the one that the adapter names. Raises FileNotFoundError: no such
    base; ValueError: the base has no modality tokens, or the adapter does not fit it."""
    from peft import PeftConfig, PeftModel

    base = str(base or PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path)
    if not Path(base).is_dir() and hub_id(base) is None:
        raise FileNotFoundError(f"{adapter} was trained on {base}, which is not there; say where it is with --base")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    require_layout(model.config)
    allow_cache(model)
    try:
        return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except RuntimeError as error:
        raise ValueError(f"{adapter} does not fit {base}, it was trained on another model ({error})") from error


def new_token_ids(config) -> list[int]:
    """Ids of all modality tokens and markers of a config, in order; ValueError without any."""
    require_layout(config)
    spans = [range(span["first_id"], span["first_id"] + span["size"]) for span in config.modalities.values()]
    return sorted(set(config.markers.values()).union(*spans))


def _lora(model, args):
    from peft import LoraConfig

    options, ends = {}, _ends(model)
    if NEW_TOKENS in args.lora_modules_to_save:
        options["trainable_token_indices"] = dict.fromkeys(_row_layers(model), new_token_ids(model.config))
    words = (word for word in args.lora_modules_to_save if word not in (NEW_TOKENS, NONE))
    saved = [name for word in words for name in (ends if word == EMBEDDINGS else [word])]
    targets = list(args.lora_target_modules)
    _check_names(model, "lora_modules_to_save", saved)
    if targets == [ALL_LINEAR]:
        targets = ALL_LINEAR
    else:
        _check_names(model, "lora_target_modules", targets)
    return LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=targets,
        modules_to_save=saved or None,
        # Or embedding and head would be trained apart and no longer be one after merging
        ensure_weight_tying=_is_tied(model) and bool(set(saved) & set(ends)),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
        **options,
    )


def _ends(model) -> list[str]:
    """Names of embedding and head within the modules that hold them."""
    names = {module: name.rpartition(".")[2] for name, module in model.named_modules()}
    return [names[model.get_input_embeddings()], names[model.get_output_embeddings()]]


def _is_tied(model) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _row_layers(model) -> list[str]:
    """The layers of which single rows are trained; a tied head follows its embedding."""
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise ValueError(
            f"the head of {model.config.model_type} has a bias, which PEFT leaves out where it trains single rows; "
            f"use lora_modules_to_save: [{EMBEDDINGS}]"
        )
    return _ends(model)[:1] if _is_tied(model) else _ends(model)


def _check_names(model, argument: str, names: list[str]) -> None:
    """ValueError for a name that no layer ends with; PEFT leaves such names out."""
    layers = [f".{name}" for name, _ in model.named_modules()]
    if missing := [name for name in names if not any(layer.endswith(f".{name}") for layer in layers)]:
        linear = {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, (torch.nn.Linear, Conv1D))}
        raise ValueError(
            f"{argument}: no layer of this {model.config.model_type} is called {' or '.join(missing)}; its linear "
            f"layers are {', '.join(sorted(linear))}, and lora_target_modules: [{ALL_LINEAR}] takes all but the head"
        )
