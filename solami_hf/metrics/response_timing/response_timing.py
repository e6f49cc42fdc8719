"""When a character answers in a dialogue: delay, overlap, and back-channels in the right places."""

import datasets
import numpy as np
from solami_hf.metrics.metric_base import DirectMetric
from solami_hf.metrics.motion_math import check_corrected

INPUTS = """\
predictions: list of dialogues, each the character's utterances as (start, end) in seconds; None where there is none.
references: when the character should have spoken, in the same form.
partners: when the other person spoke.
backchannel_seconds: longest back-channel. tolerance: seconds by which one may be early or late.
"""
PAUSE = 0.2  # seconds of silence that do not end a turn
SPEECH = datasets.List(datasets.List(datasets.Value("float32")))


class ResponseTiming(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate
    >>> from solami_hf.metrics import folder_of
    >>> user, real = [(0.0, 4.0), (8.0, 10.0)], [(2.0, 2.4), (4.2, 7.0), (10.3, 12.0)]  # an "mhm", then two answers
    >>> late = [(4.7, 7.0), (10.7, 12.0)]
    >>> metric = evaluate.load(folder_of("response_timing"))
    >>> result = metric.compute(predictions=[late], references=[real], partners=[user])
    >>> [round(result[name], 3) for name in ("delay", "reference_delay", "delay_error", "overlap", "backchannel_f1")]
    [0.7, 0.25, 0.45, 0.0, 0.0]
    """

    description = "Delay, overlap and back-channels of a character's answers. Best near the references' own."
    citation = "Stivers et al.: Universals and cultural variation in turn-taking in conversation, PNAS 2009"
    inputs = INPUTS
    columns = {"predictions": SPEECH, "references": SPEECH, "partners": SPEECH}

    def _compute(self, predictions, references, partners, mode="corrected", backchannel_seconds=1.0, tolerance=0.5):
        check_corrected(mode)
        for name, value in (("backchannel_seconds", backchannel_seconds), ("tolerance", tolerance)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"`{name}` is {value!r}, expected seconds, 0 or more")
        present = [i for i, dialogue in enumerate(predictions) if dialogue is not None]
        if not present:
            raise ValueError("every item of `predictions` is None, expected at least one dialogue")
        users = [turns_of(checked(partners[i], f"partners[{i}]")) for i in range(len(partners))]
        for i, user in enumerate(users):
            if not len(user):
                raise ValueError(f"`partners[{i}]` is empty, expected somebody to answer to")
        real = [checked(spoken, f"references[{i}]") for i, spoken in enumerate(references)]
        made = {i: checked(predictions[i], f"predictions[{i}]") for i in present}
        ours = [measures(made[i], users[i], backchannel_seconds) for i in present]
        theirs = [measures(real[i], users[i], backchannel_seconds) for i in range(len(real))]
        delays, real_delays = (np.array([d for row in rows for d in row["delays"]]) for rows in (ours, theirs))
        if not len(real_delays):
            raise ValueError("nobody answers in `references`, expected at least one turn with an answer")
        by_turn = [
            abs(row["answers"][turn] - theirs[i]["answers"][turn])
            for i, row in zip(present, ours, strict=True)
            for turn in row["answers"].keys() & theirs[i]["answers"].keys()
        ]
        turns = sum(len(users[i]) for i in present)
        pairs = [(row["backchannels"], theirs[i]["backchannels"]) for i, row in zip(present, ours, strict=True)]
        f1, precision, recall = matched(pairs, tolerance)
        wrong = [(a, pairs[i - 1][1]) for i, (a, _) in enumerate(pairs)]
        return {
            "delay": float(np.median(delays)) if len(delays) else None,
            "reference_delay": float(np.median(real_delays)),
            "delay_error": float(np.mean(by_turn)) if by_turn else None,
            "answered": len(delays) / turns,
            "overlap": share_of(ours),
            "reference_overlap": share_of(theirs),
            "backchannel_f1": f1,
            "backchannel_precision": precision,
            "backchannel_recall": recall,
            "shuffled_backchannel_f1": matched(wrong, tolerance)[0] if len(pairs) > 1 else None,
            "num_backchannels": sum(len(b) for _, b in pairs),
            "valid": len(present) / len(predictions),
            "num_predictions": len(predictions),
            "mode": mode,
        }


def checked(spoken, name: str) -> np.ndarray:
    """Utterances (n, 2) in seconds, in order of time. Raises ValueError: for what are no pairs of finite numbers, an
    end before its start, and utterances that overlap."""
    try:
        rows = np.asarray(spoken, np.float64).reshape(-1, 2) if len(spoken) else np.zeros((0, 2))
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` is {spoken!r}, expected utterances as (start, end) in seconds") from None
    if not np.isfinite(rows).all() or (rows < 0).any() or (rows[:, 1] <= rows[:, 0]).any():
        raise ValueError(f"`{name}` has an utterance that is no (start, end) in seconds, with 0 <= start < end")
    rows = rows[np.argsort(rows[:, 0])]
    if (rows[1:, 0] < rows[:-1, 1] - 1e-6).any():
        raise ValueError(f"`{name}` has utterances that overlap each other: one speaker says one thing at a time")
    return rows


def turns_of(utterances: np.ndarray) -> np.ndarray:
    """Utterances with less than `PAUSE` between them as one."""
    if not len(utterances):
        return utterances
    new = np.append(True, utterances[1:, 0] - utterances[:-1, 1] >= PAUSE)
    return np.stack([utterances[new, 0], utterances[np.append(new[1:], True), 1]], axis=1)


def measures(spoken: np.ndarray, user: np.ndarray, longest: float) -> dict:
    """Delays of the answers by turn, starts of back-channels, seconds of both at once, and of the user. A back-channel
    is at most `longest` and begins and ends within a turn of the user. The answer to a turn is the first other
    utterance that begins after the turn has begun and before the next one does; its delay counts from the turn's end,
    so that it is negative where the character interrupts."""
    inside = [((user[:, 0] < a) & (b < user[:, 1])).any() and b - a <= longest for a, b in spoken]
    backchannels, rest = spoken[np.array(inside, bool), 0], spoken[~np.array(inside, bool)]
    ends = np.append(user[1:, 0], np.inf)
    answers = {}
    for turn, ((start, end), until) in enumerate(zip(user, ends, strict=True)):
        after = rest[(rest[:, 0] >= start) & (rest[:, 0] < until), 0]
        if len(after):
            answers[turn] = after[0] - end
    both = sum(np.clip(np.minimum(b, user[:, 1]) - np.maximum(a, user[:, 0]), 0, None).sum() for a, b in rest)
    spent = (user[:, 1] - user[:, 0]).sum()
    found = {"answers": answers, "delays": [*answers.values()], "backchannels": backchannels}
    return {**found, "both": both, "user": spent}


def share_of(rows: list[dict]) -> float:
    """Share of the users' time in which the character talks too, back-channels aside."""
    return float(sum(row["both"] for row in rows) / sum(row["user"] for row in rows))


def matched(pairs: list[tuple[np.ndarray, np.ndarray]], tolerance: float) -> tuple[float | None, float, float]:
    """F1, precision and recall of times that meet others one to one, within the tolerance; F1 is None without any."""
    hits = 0
    for made, real in pairs:
        i = j = 0
        while i < len(made) and j < len(real):
            near = bool(abs(made[i] - real[j]) <= tolerance + 1e-9)
            hits += near
            earlier = bool(made[i] < real[j])
            i, j = i + (near or earlier), j + (near or not earlier)
    given, wanted = sum(len(a) for a, _ in pairs), sum(len(b) for _, b in pairs)
    f1 = 2 * hits / (given + wanted) if given + wanted else None
    return f1, hits / given if given else 0.0, hits / wanted if wanted else 0.0
