"""From transcripts and cosines to the figures of `speech_quality`, and those as Markdown tables."""

import numpy as np

CONDITIONS = {
    "own": "as it is",
    "all_levels": "all levels",
    "level_0": "level 0 alone",
    "acoustic": "level 0 + acoustic model, own prompt",
    "acoustic_other": "level 0 + acoustic model, prompt of another trained voice",
}
WER_LIMITS = {"all_levels": 0.04, "acoustic": 0.10}  # above the voice's own
PAIRS_LIMIT = 0.9
_DRAWS = 2000


def ratio(parts: np.ndarray, wholes: np.ndarray) -> dict[str, float]:
    """Sum of `parts` over sum of `wholes`, both (n,), with its 95 % interval (bootstrap over the n)."""
    rows = np.random.default_rng(0).integers(len(parts), size=(_DRAWS, len(parts)))
    low, high = np.percentile(parts[rows].sum(1) / wholes[rows].sum(1), (2.5, 97.5))
    values = {"value": parts.sum() / wholes.sum(), "low": low, "high": high}
    return {name: round(float(value), 4) for name, value in values.items()}


def summarize(parts: list[dict[str, np.ndarray]], own: list[dict[str, np.ndarray]]) -> dict:
    """Figures of one condition over voices that said the same n sentences.

    Args:
        parts: of each voice `errors` (n, 2) as from `word_errors`, and, if voices were compared, the cosines `to_own`
            (n,) with the prompt and `to_others` (n, voices) with those of other voices.
        own: the same of the voices without the codec.

    Returns:
        `{"wer", "added", "pairs", "nearest"}` as from `ratio`, and mean cosines `to_own`, `to_others`. `added` is the
        difference to the voices' own error rate, paired by sentence. Sentences are drawn, with all voices together.
    """
    errors, words = np.sum([part["errors"] for part in parts], 0).T
    result: dict = {"wer": ratio(errors, words)}
    if parts[0] is not own[0]:
        result["added"] = ratio(errors - np.sum([part["errors"][:, 0] for part in own], 0), words)
    if "to_others" in parts[0] and parts[0]["to_others"].shape[1]:
        won = np.stack([part["to_own"][:, None] > part["to_others"] for part in parts], 1)  # (n, voices, others)
        for name, wins in (("pairs", won), ("nearest", won.all(2, keepdims=True))):
            size = np.full(len(wins), wins[0].size)
            result[name] = {**ratio(wins.sum((1, 2)), size), "count": int(wins.size)}
        for name in ("to_own", "to_others"):
            result[name] = round(float(np.mean([part[name] for part in parts])), 3)
    return result


def targets(voices: dict[str, dict], together: dict[str, dict]) -> list[dict]:
    """What issue 4 asks of the trained voices: whether they keep it together, and each of them.

    Args:
        voices: name to `{"kind", "conditions": {condition: summary}}`.
        together: condition to the summary of all trained voices.
    """
    wanted = [(condition, "added", limit) for condition, limit in WER_LIMITS.items()]
    wanted += [(condition, "pairs", PAIRS_LIMIT) for condition in ("acoustic", "acoustic_other")]
    rows = []
    for condition, what, limit in wanted:
        if what not in together.get(condition, {}):
            continue
        found = {name: row["conditions"][condition][what] for name, row in voices.items() if row["kind"] == "trained"}
        met = {
            name: bool(figure["value"] >= limit if what == "pairs" else figure["value"] <= limit)
            for name, figure in {"": together[condition][what], **found}.items()
        }
        rows.append({
            "condition": condition, "what": what, "limit": limit, **together[condition][what], "met": met.pop(""),
            "met_by_voice": met,
        })  # fmt: skip
    return rows


def tables(figures: dict) -> str:
    """Markdown: what was asked for, and for trained voices and for others error rates and likeness of voices."""
    voices = figures["voices"]
    trained = {name: row["conditions"] for name, row in voices.items() if row["kind"] == "trained"}
    others = {name: row["conditions"] for name, row in voices.items() if row["kind"] != "trained"}
    if len(trained) > 1:
        trained["together"] = figures["trained"]
    sections = [_target_table(figures["targets"])]
    for title, rows in (("Trained voices", trained), ("Other voices, and real recordings", others)):
        if not rows:
            continue
        listed = [f"{name} ({voices[name]['sentences']})" for name in rows if name in voices]
        sections.append(f"### {title}\n\nClips of each: {', '.join(listed)}.\n")
        sections.append("Word error rate in percent, with 95 % intervals:\n\n" + _matrix(rows, "wer"))
        sections.append("Points of it above the voice's own:\n\n" + _matrix(rows, "added"))
        if any("pairs" in summary for conditions in rows.values() for summary in conditions.values()):
            sections.append(
                "Percent of pairs in which a clip is more like its own prompt than like a prompt of another trained "
                "voice:\n\n" + _matrix(rows, "pairs")
            )
            sections.append("Percent of clips whose own prompt is the nearest of all:\n\n" + _matrix(rows, "nearest"))
    if figures["skipped"]:
        sections.append("Left out: " + "; ".join(f"{name} ({why})" for name, why in figures["skipped"].items()) + "\n")
    return "\n".join(section for section in sections if section)


def _percent(figure: dict) -> str:
    return f"{100 * figure['value']:.1f} ({100 * figure['low']:.1f} to {100 * figure['high']:.1f})"


def _matrix(rows: dict[str, dict], what: str) -> str:
    """A table of voices and conditions, of one figure."""
    columns = [name for name in CONDITIONS if any(what in row.get(name, {}) for row in rows.values())]
    lines = ["| voice | " + " | ".join(CONDITIONS[name] for name in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for voice, row in rows.items():
        cells = [_percent(row[name][what]) if what in row.get(name, {}) else "" for name in columns]
        lines.append(f"| {voice} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _target_table(rows: list[dict]) -> str:
    if not rows:
        return ""
    lines = [
        "| asked of the trained voices | limit | together (95 % interval) | met | not met by |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        name, sign = ("points of WER above the own", "<=") if row["what"] == "added" else ("pairs won, percent", ">=")
        missed = ", ".join(voice for voice, met in row["met_by_voice"].items() if not met) or "none"
        lines.append(
            f"| {CONDITIONS[row['condition']]}: {name} | {sign} {100 * row['limit']:.0f} | {_percent(row)} | "
            f"{'yes' if row['met'] else 'no'} | {missed} |"
        )
    return "\n".join(lines) + "\n"
