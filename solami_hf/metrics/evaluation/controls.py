"""Does the model hear and see the user? Right answers, less right answers to another user's sound or motion.

The conditions are those of `solami generate --task chat --conditions ...`.
"""

from __future__ import annotations

from .intervals import difference

SCORES = {"listening": "other_audio", "watching": "other_motion"}
"""Score -> the condition in which the user's sound or motion is taken from somebody else."""
RIGHT = ("right_line", "nearest_line")


def scores(conditions: dict[str, list[list]], figures) -> dict[str, dict]:
    """Listening and watching scores, for each way of telling right answers.

    Args:
        conditions: condition to its repetitions' pairs.
        figures: `figures.Figures`.

    Returns:
        `{"listening": {"right_line": ..., "nearest_line": ...}, "watching": ...}` as far as there are conditions.
    """
    found: dict[str, dict] = {}
    for score, condition in SCORES.items():
        if condition not in conditions or "given" not in conditions:
            continue
        swapped = conditions[condition]
        same = [
            [pair for pair in answers if pair.key in {other.key for other in others}]
            for answers, others in zip(conditions["given"], swapped, strict=False)
        ]
        sides = [[figures.right(pairs) for pairs in side] for side in (same, swapped[: len(same)])]
        for right in RIGHT:
            if same and all(right in estimates for side in sides for estimates in side):
                first, second = ([estimates[right] for estimates in side] for side in sides)
                found.setdefault(score, {})[right] = difference(first, second)
    return found
