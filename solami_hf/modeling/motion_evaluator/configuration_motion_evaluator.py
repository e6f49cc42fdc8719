"""Configuration of the text-motion evaluator."""

from transformers import AutoConfig, PreTrainedConfig

# A saved folder carries its code, so it loads with `trust_remote_code` where the package is not installed.
_AUTO_MAP = {
    "AutoConfig": "configuration_motion_evaluator.SolamiMotionEvaluatorConfig",
    "AutoModel": "modeling_motion_evaluator.SolamiMotionEvaluatorModel",
}
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "embedding_size", "max_frames")


class SolamiMotionEvaluatorConfig(PreTrainedConfig):
    """Sizes of a [`SolamiMotionEvaluatorModel`].

    Args:
        text_config (`PreTrainedConfig` or `dict`): of the sentence encoder, which does not learn; None is BERT's.
        hidden_size (`int`): width of the motion encoder.
        num_hidden_layers (`int`): its layers with attention, over every fourth frame.
        num_attention_heads (`int`): attention heads of such a layer.
        embedding_size (`int`): width of the embeddings.
        dropout (`float`): in the motion encoder, in training.
        fps (`float`): frames a second of the motions.
        max_frames (`int`): longest motion.
        ground_truth (`dict`): what training measured on held-out pairs. Metrics refuse an evaluator without
            `beats_shuffled`.
        initializer_range (`float`): standard deviation of fresh weights.

    Raises ValueError: a size that is not positive, heads that do not divide the width, dropout outside [0, 1).
    """

    model_type = "solami_motion_evaluator"
    sub_configs = {"text_config": AutoConfig}

    text_config: dict | PreTrainedConfig | None = None
    hidden_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    embedding_size: int = 64
    dropout: float = 0.1
    fps: float = 30.0
    max_frames: int = 1200
    ground_truth: dict | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size is {self.hidden_size}, expected a multiple of the {self.num_attention_heads} heads"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, expected at least 0 and below 1")
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = AutoConfig.for_model(**(self.text_config or {"model_type": "bert"}))
        super().__post_init__(**{"auto_map": dict(_AUTO_MAP), **kwargs})
