"""The answer grammar for engines that know requests and their tokens, but no batch with a prompt in common."""

from __future__ import annotations

import torch

from ...modeling.solami.configuration_solami import require_layout
from ..grammar import AnswerGrammar

MOST_SECONDS = {"motion": 10.0, "speech": None}
"""Of an answer; speech is bounded by the number of tokens alone."""


def grammar_of(config, tokenizer, answer_format: str, interleaved: bool, max_new_tokens: int) -> AnswerGrammar:
    """What an answer of a checkpoint may consist of.

    Args:
        config: of the model, with the layout.
        tokenizer: of the checkpoint, whose special tokens are no text.
        answer_format: one of `answers.FORMATS`; "text", "motion" and "speech" are the outputs of the tasks.
        interleaved: whether body, hand and speech come in chunks of equal time.
        max_new_tokens: tokens of the longest answer.
    """
    require_layout(config)
    return AnswerGrammar(
        config,
        answer_format,
        interleaved=interleaved,
        min_seconds=0,  # a nod and a "no" are answers
        max_seconds=MOST_SECONDS,
        max_new_tokens=max_new_tokens,
        not_text={*tokenizer.all_special_ids, *range(len(tokenizer), config.vocab_size)},
        **({"max_text_tokens": None} if answer_format == "text" else {}),
    )


def answers_so_far(grammar: AnswerGrammar, rows: list[list[int]]) -> torch.LongTensor:
    """Ids (B, T) of answers of different lengths as the grammar reads them: behind a role marker, padded left."""
    pad, begin = grammar.markers["pad"], grammar.markers["mmgpt"]
    width = max(map(len, rows), default=0)
    padded = [[pad] * (width - len(row)) + [begin, *row] for row in rows]
    return torch.tensor(padded, dtype=torch.long).view(len(rows), width + 1)


__all__ = ["MOST_SECONDS", "answers_so_far", "grammar_of"]
