"""The settings of an answer: a call's own, then those of its `generation_config`, the pipeline and the checkpoint."""

import copy
from dataclasses import dataclass

from transformers import GenerationConfig

from .cache import CACHE

_OF_CHECKPOINT = ("num_beams", "num_return_sequences", "cache_implementation", "stop_strings")
"""Settings that are read before `generate`, which takes all others that nobody gave from the checkpoint by itself."""


def generate_options(model, max_new_tokens: int, generate_kwargs: dict) -> dict:
    """Keyword arguments of `model.generate` whose settings are all in `generation_config`. A cache is used unless the
    call says otherwise: what a checkpoint says of it is left over from training, and only slows down. The result's
    length is `max_new_tokens` where `generate_kwargs` (settings, a `GenerationConfig` as `generation_config`,
    `logits_processor`, `streamer`, ...) do not say it. Raises ValueError: an option of another type, or one that
    answers have no room for."""
    options = {name: value for name, value in generate_kwargs.items() if value is not None}
    settings, ours = GenerationConfig(), model.generation_config
    if (given := options.pop("generation_config", settings)) is not settings:
        if not isinstance(given, GenerationConfig):
            raise ValueError(f"generation_config must be a GenerationConfig, got {type(given).__name__}")
        unknown = vars(given).keys() - vars(settings).keys() - vars(ours).keys()
        if unknown := sorted(name for name in unknown if name[0] != "_"):
            raise ValueError(f"generation_config has {', '.join(unknown)}, which `generate` does not know; a typo?")
        settings = copy.deepcopy(given)
    _refuse_several(options.get("num_return_sequences"))  # before transformers has words of its own for it
    options = settings.update(**options)
    for name in ("logits_processor", "stopping_criteria"):
        if not isinstance(options.get(name, []), list):
            raise ValueError(f"{name} must be a list, got {type(options[name]).__name__}; put it into one")
    if settings.max_new_tokens is None and settings.max_length not in (None, ours.max_length):
        raise ValueError(f"max_length={settings.max_length} counts the prompt too; say max_new_tokens=... instead")
    settings.update(defaults_only=True, max_new_tokens=max_new_tokens, use_cache=True)
    for name in _OF_CHECKPOINT:
        if getattr(settings, name) is None:
            setattr(settings, name, getattr(ours, name))
    _refuse_several(settings.num_return_sequences)
    if "past_key_values" in options:
        options[CACHE] = options.pop("past_key_values")
    if not settings.use_cache and CACHE in options:
        raise ValueError(f"{CACHE} and use_cache=False exclude each other; leave one of them out")
    return {**options, "generation_config": settings}


def _refuse_several(answers: int | None) -> None:
    if answers not in (None, 1):
        raise ValueError(
            f"num_return_sequences is {answers}, but there is one answer a turn; for several, repeat the prompt or "
            "conversation, or fork() the session"
        )


BATCHING = ("auto", "padded", "continuous")


@dataclass
class Decoding:
    """Sampling and batching of answers."""

    max_new_tokens: int = 600  # of the longest
    temperature: float | None = 0.0  # 0 is greedy; None is what the checkpoint's generation config says, else greedy
    top_p: float = 1.0  # nucleus
    batching: str = "auto"  # padded batches of `generate`, continuous batching, or auto: continuous on a GPU

    def __post_init__(self):
        if (self.temperature or 0) < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise ValueError(
                f"temperature is {self.temperature}, top_p {self.top_p} and max_new_tokens {self.max_new_tokens}; "
                "expected 0 or more, above 0 up to 1, and at least 1"
            )
        if self.batching not in BATCHING:
            raise ValueError(f"batching is {self.batching!r}, expected one of {', '.join(BATCHING)}")

    @property
    def sampling(self) -> dict:
        """Keyword arguments of `generate`."""
        if self.temperature is None:
            return {}
        if self.temperature == 0:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p}

    def is_continuous(self, model) -> bool:
        """True if a model's answers are batched continuously."""
        return self.batching == "continuous" or (self.batching == "auto" and model.device.type == "cuda")
