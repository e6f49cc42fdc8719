"""The grammar of two people on one clock: which ids may stand in each place of a tick, see `datasets.duplex`."""

import torch
from transformers import LogitsProcessor

from ...processing.datasets.duplex import DuplexFormat


class DuplexGrammar(LogitsProcessor):
    """Forbids every id that cannot stand in its place; `<eos>` may come behind a tick. As in `AnswerGrammar` the place
    follows from the ids alone: how many tokens stand behind the character's last role marker. A row without one begins
    its first tick. `config` is anything with `modalities` and `markers`; `duplex` says what a tick holds, by default
    `DuplexFormat.of(config)`; after `max_ticks` only `<eos>` may come, None leaves it to the number of tokens."""

    def __init__(self, config, duplex: DuplexFormat | None = None, max_ticks: int | None = None):
        self.format, self.max_ticks = duplex or DuplexFormat.of(config), max_ticks
        self._eos, self._begin = config.markers["eos"], config.markers["mmgpt"]
        self._spans, self._allowed = self.format.spans(config), None

    def table(self, size: int, device=None) -> torch.BoolTensor:
        """What may stand in each place of a tick, (tokens + 2, size): behind them a tick's end, and the row's."""
        table = torch.zeros(len(self._spans) + 2, size, dtype=torch.bool)
        for place, (first, end) in enumerate(self._spans):
            table[place, first:end] = True
        table[-2, [self._begin, self._eos]] = True
        table[-1, self._eos] = True
        return table.to(device)

    def places(self, input_ids: torch.LongTensor) -> torch.LongTensor:
        """The row (B,) of the table that says what may follow ids (B, T)."""
        begins, tokens = input_ids == self._begin, self.format.tokens
        behind = torch.arange(input_ids.shape[1], 0, -1, device=input_ids.device)  # tokens from each on
        since = torch.where(begins, behind, input_ids.shape[1] + 1).amin(1)
        place = torch.where(begins.any(1), since.clamp(max=tokens), 0)
        over = (input_ids == self._eos).any(1)
        if self.max_ticks is not None:
            over |= (place == tokens) & (begins.sum(1) >= self.max_ticks)
        return torch.where(over, tokens + 1, place)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """`scores (B, vocab)` with what may not come next at minus infinity, for `input_ids (B, T)`."""
        if self._allowed is None or (self._allowed.shape[1], self._allowed.device) != (scores.shape[1], scores.device):
            self._allowed = self.table(scores.shape[1], scores.device)
        return scores.masked_fill(~self._allowed[self.places(input_ids)], float("-inf"))
