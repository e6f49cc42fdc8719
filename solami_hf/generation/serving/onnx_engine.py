"""The language model of a checkpoint on ONNX Runtime, with weights of 8 bits: several times as many tokens a second on
a CPU, and nearly the same answers.

    pipeline = SolamiPipeline.from_pretrained(engine="onnx")        # or: solami serve --engine onnx

onnxruntime-genai's builder, which knows many families of decoders, converts the weights, once for each checkpoint; the
file is kept below the Hub's cache. Sessions keep the keys and values themselves, as for other models: attention reads
them from tensors with room to grow (`cache.GrowingLayer`), and writes the new ones there.
"""

import json
import logging
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from huggingface_hub.constants import HF_HOME
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from ...modeling.solami.backbones import model_fingerprint
from ...processing.files.output_folder import atomic_folder
from ..cache import CACHE, GrowingLayer, growing
from ..loading import torch_threads

logger = logging.getLogger(__name__)

PRECISIONS = ("int8", "int4", "fp32")
"""Of the weights: 8 or 4 bits in blocks of 32 with a scale each, or float32."""
MODEL_FILE = "model.onnx"
_NEEDED = ("onnxruntime", "onnxruntime_genai", "onnx", "onnx_ir")


class OnnxLanguageModel(PreTrainedModel, GenerationMixin):
    """A decoder in a folder that `export_onnx` wrote, as `generate` and sessions take one: on the CPU, in float32 but
    for its weights, and one row at once; of several threads one waits for the other."""

    main_input_name = "input_ids"

    def __init__(self, config, folder: str | Path):
        import onnxruntime

        # What attention is asked for is of no use here, but would be looked for
        super().__init__(type(config).from_dict(config.to_dict(), attn_implementation="eager"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(Path(folder) / MODEL_FILE, options, ["CPUExecutionProvider"])
        source = torch.tensor(list(Path(folder).name.encode()), dtype=torch.uint8)
        self.register_buffer("source", source)  # by which `model_fingerprint` tells models apart
        self._binding, self._bound, self._alone = self.session.io_binding(), [], threading.Lock()
        self._takes = {given.name for given in self.session.get_inputs()}
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._no_states = torch.empty(1, heads, 0, size)

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """That of logits, keys and values."""
        return torch.float32

    def generate(self, *args, **kwargs):
        """As transformers', PyTorch's own operations on one thread: the engine's threads stay awake between steps, on
        the cores that more of them would need."""
        with torch_threads(1):
            return super().generate(*args, **kwargs)

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        cache: DynamicCache | None = None,
        **unused,
    ) -> CausalLMOutputWithPast:
        """Logits (1, 1, vocab) of the token behind the last of `input_ids` (1, T); a cache, under either of
        transformers' names, has what came before, and the new keys and values after. Raises ValueError: several rows,
        a row with padding, a cache that is not dynamic, or sliding windows."""
        cache = past_key_values if cache is None else cache
        cache = DynamicCache() if cache is None else cache
        if len(input_ids) != 1 or (attention_mask is not None and not attention_mask.all()):
            raise ValueError(
                f"{len(input_ids)} rows, or a padded one; with engine='onnx' a model reads one whole row at once: "
                "leave num_beams out, and batches to SolamiPipeline.respond"
            )
        if type(cache) is not DynamicCache:
            raise ValueError(f"engine='onnx' writes to a DynamicCache, not to a {type(cache).__name__}")
        past, new = int(cache.get_seq_length()), input_ids.shape[1]
        inputs = {
            "input_ids": input_ids.contiguous(),
            "attention_mask": torch.ones(1, past + new, dtype=torch.long),
            "position_ids": torch.arange(past, past + new)[None],
        }
        logits = torch.empty(1, 1, self.config.vocab_size)
        while len(cache.layers) < self.config.num_hidden_layers:
            cache.layers.append(cache.layer_class_to_replicate())
        if not all(isinstance(layer, GrowingLayer) for layer in growing(cache).layers):
            raise ValueError("engine='onnx' is for full attention, but this model has sliding windows")
        states = [layer.grow(new, self._no_states, self._no_states) for layer in cache.layers]
        with self._alone:
            for name in self._takes & inputs.keys():
                _bind(self._binding.bind_input, name, inputs[name])
            _bind(self._binding.bind_output, "logits", logits)
            self._bind_states(states)
            self.session.run_with_iobinding(self._binding)
        return CausalLMOutputWithPast(logits=logits, **{CACHE: cache})

    def _bind_states(self, states: list[tuple[torch.Tensor, ...]]) -> None:
        """Keys and values are read and written where they lie; from step to step that is mostly the same place."""
        places = [(whole.data_ptr(), whole.shape) for layer in states for whole in layer]
        if places == self._bound:
            return
        for number, layer in enumerate(states):
            for name, whole in zip(("key", "value"), layer, strict=True):
                _bind(self._binding.bind_input, f"past_key_values.{number}.{name}", whole)
                _bind(self._binding.bind_output, f"present.{number}.{name}", whole)
        self._bound = places


def _bind(bind, name: str, tensor: torch.Tensor) -> None:
    kind = np.int64 if tensor.dtype == torch.long else np.float32
    bind(name, "cpu", 0, kind, tuple(tensor.shape), tensor.data_ptr())


def onnx_model(model: PreTrainedModel, tokenizer, precision: str = "int8", cache=None) -> OnnxLanguageModel:
    """A language model on ONNX Runtime; its file is made on first use, in half a minute for 135M weights, and kept in
    `cache`, by default `solami_hf` below the Hub's cache (`HF_HOME`). Raises ValueError: as `export_onnx`."""
    _check(precision)
    name = f"onnx-{precision}-{model_fingerprint(model)}"
    folder = Path(cache or Path(HF_HOME) / "solami_hf") / name
    if not folder.is_dir():
        logger.info("converting the language model to ONNX, once, in %s", folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        export_onnx(model, tokenizer, folder, precision)
    loaded = OnnxLanguageModel(model.config, folder)
    loaded.generation_config = model.generation_config
    return loaded


def export_onnx(model: PreTrainedModel, tokenizer, folder: str | Path, precision: str = "int8") -> None:
    """Writes a language model as `model.onnx` and its data to a new folder. Raises ValueError: an unknown precision, a
    missing package, or a model that the builder does not convert (its last words are told)."""
    _check(precision)
    with TemporaryDirectory() as plain, atomic_folder(folder) as written:
        model.save_pretrained(plain)
        tokenizer.save_pretrained(plain)
        path = Path(plain) / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["model_type"] == "solami":  # it is a Llama with a layout, which the builder need not know
            config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        config.pop("auto_map", None)
        path.write_text(json.dumps(config), encoding="utf-8")
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", plain, "-o", str(written)]
        command += ["-p", precision, "-e", "cpu", "-c", plain, "--extra_options", "prune_lm_head=true"]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode or not (written / MODEL_FILE).is_file():
            said = built.stderr.strip().splitlines() or ["nothing"]
            raise ValueError(f"{type(model).__name__} cannot be converted to ONNX; the builder says: {said[-1]}")


def _check(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ValueError(f"engine='onnx' needs {' and '.join(missing)}; pip install 'solami_hf[onnx]'")
