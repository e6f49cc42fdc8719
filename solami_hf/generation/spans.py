"""Motion spans that fit together: as many hand codes as body codes, whatever the model would prefer."""

from __future__ import annotations

import torch
from transformers import LogitsProcessor


class EqualMotionSpans(LogitsProcessor):
    """Holds the hand span of a generated motion to the length of its body span, and both to a longest duration.

    Body and hand are codes of the same frames, so spans of different length mean nothing. The model chooses the length
    of the body span and every code; within the hand span `<eoha>` is possible only, and then certainly, when as many
    codes stand there as in the body span. Everything else is left to the model.

    Args:
        config: anything with `modalities` and `markers` (`SolamiConfig`).
        max_seconds: a body span that has not ended by then is ended.
        frame_rate: codes per second.
    """

    def __init__(self, config, max_seconds: float = 10.0, frame_rate: float = 7.5):
        if not max_seconds > 0:
            raise ValueError(f"max_seconds must be above 0, got {max_seconds}")
        self.markers, hand = config.markers, config.modalities["hand"]
        self.hand_ids = slice(hand["first_id"], hand["first_id"] + hand["size"])
        self.max_codes = max(1, int(max_seconds * frame_rate))

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """`scores (B, vocab)` with what may not come next at minus infinity, for `input_ids (B, T)`."""
        last = {name: self._last(input_ids, name) for name in ("sobo", "eobo", "soha", "eoha")}
        newest = input_ids.shape[1] - 1
        hand_codes, body_codes = newest - last["soha"], last["eobo"] - last["sobo"] - 1
        in_hand = (last["soha"] > last["eoha"]) & (last["eobo"] > last["sobo"])
        self._only(scores, in_hand & (hand_codes < body_codes), self.hand_ids)
        self._only(scores, in_hand & (hand_codes >= body_codes), self.markers["eoha"])
        too_long = (last["sobo"] > last["eobo"]) & (newest - last["sobo"] >= self.max_codes)
        self._only(scores, too_long, self.markers["eobo"])
        return scores

    def _last(self, input_ids: torch.Tensor, name: str) -> torch.Tensor:
        """Place of the last such marker in each row, -1 without one."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        return torch.where(input_ids == self.markers[name], places, -1).amax(dim=1)

    @staticmethod
    def _only(scores: torch.Tensor, rows: torch.Tensor, ids) -> None:
        """In the given rows, everything but `ids` becomes impossible."""
        if rows.any():
            forbidden = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)
            forbidden[ids] = False
            scores[rows[:, None] & forbidden] = float("-inf")
