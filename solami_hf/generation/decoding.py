"""How answers are drawn: greedily or by chance, in padded or continuous batches."""

from __future__ import annotations

from dataclasses import dataclass

BATCHING = ("auto", "padded", "continuous")


@dataclass
class Decoding:
    """How answers are drawn.

    Attributes:
        max_new_tokens: tokens of the longest.
        temperature: 0 for greedy answers.
        top_p: nucleus.
        batching: `padded` batches of `generate`, `continuous` batching, or `auto`: continuous on a GPU.
    """

    max_new_tokens: int = 600
    temperature: float = 0.0
    top_p: float = 1.0
    batching: str = "auto"

    def __post_init__(self):
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise ValueError(
                f"temperature is {self.temperature}, top_p {self.top_p} and max_new_tokens {self.max_new_tokens}; "
                "expected 0 or more, above 0 up to 1, and at least 1"
            )
        if self.batching not in BATCHING:
            raise ValueError(f"batching is {self.batching!r}, expected one of {', '.join(BATCHING)}")

    @property
    def sampling(self) -> dict:
        """Keyword arguments of `generate`."""
        if self.temperature == 0:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p}

    def is_continuous(self, model) -> bool:
        """Whether a model's answers are batched continuously."""
        return self.batching == "continuous" or (self.batching == "auto" and model.device.type == "cuda")


__all__ = ["BATCHING", "Decoding"]
