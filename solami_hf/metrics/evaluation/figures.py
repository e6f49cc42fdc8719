"""The figures of one repetition: from pairs and the measured parts to estimates with what a bootstrap needs.

Every figure is that of the `evaluate` module of its metric. FID and diversity are computed from the features that the
parts hold, by the same functions as in their modules, because a bootstrap needs them hundreds of times.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from .. import motion_math
from .answer_pairs import PARTS, Pair
from .intervals import Estimate, OfSets, Ratio
from .parts import Part, Parts

FRAME_FIGURES = ("mpjpe", "pa_mpjpe", "bone_angle", "rotation_error", "angle_error")
TIMES = {name: f"{name}_seconds" for name in ("first_audio", "first_motion", "first_token")}
FID_DRAWS, CAPTION_DRAWS = 100, 50
CIDER_REFERENCES = 5
"""Different captions that CIDEr needs at least, so that a draw of them still has rare and common words."""


def parts_of(pairs: Iterable[Pair], with_sound: bool = True) -> list[Part]:
    """Measurements needed for the figures of the pairs."""
    found = []
    for pair in pairs:
        if pair.motion:
            found += [Part("motion", (pair.motion,)), Part("feet", (pair.motion,))]
        if pair.reference_motion:
            found.append(Part("motion", (pair.reference_motion,)))
        if pair.motion and pair.reference_motion:
            found.append(Part("likeness", (pair.motion, pair.reference_motion)))
        if pair.audio and with_sound:
            found.append(Part("sound", (pair.audio,)))
            if pair.reference_audio:
                found.append(Part("voices", (pair.audio, pair.reference_audio)))
    return found


class Figures:
    """Figures of the measured parts of a task's pairs, of `results.PARTS`; `left_out` is what could not be judged,
    with the reason. `compute(metric, **inputs)` is that of the `evaluate` modules; `lines` are all that are hoped for
    in a chat; `bert` is `model_id` (and `layer`) of BERTScore's model; without it there is no BERTScore."""

    def __init__(
        self, task: str, parts: Parts, compute: Callable, lines: Sequence[str] = (), bert: dict | None = None
    ):
        self.task, self.parts, self.compute = task, parts, compute
        self.lines, self.bert = list(lines), bert or {}
        self.left_out: dict[str, str] = {}

    def of(self, pairs: list[Pair], scale_of: list[Pair] | None = None) -> dict[str, Estimate]:
        """The estimates by name of one repetition; a figure that cannot be had for these pairs is left out, with a
        reason. FID and diversity are scaled by the references of `scale_of`, `pairs` when None: one scale for all
        rows of a table, because half of a few references may hardly have any spread to divide by."""
        kinds = PARTS[self.task]
        self._scale_of = pairs if scale_of is None else scale_of
        flags = [pair.valid for pair in pairs]
        share = self.compute("answer_validity", predictions=flags)["valid"]
        found: dict[str, Estimate] = {"valid": Ratio([p.item for p in pairs], flags, value=share)}
        groups = [self._motion] if "motion" in kinds else []
        groups += [self._sound] if "audio" in kinds else []
        groups += {"m2t": [self._captions], "s2t": [self._transcripts], "chat": [self._lines]}.get(self.task, [])
        for group in groups:
            try:
                found.update({name: estimate for name, estimate in group(pairs) if estimate.count})
            except (ImportError, ValueError) as error:  # one reference that cannot be judged costs no other figure
                self.left_out[str(error)] = "figures"
        return found

    def right(self, pairs: list[Pair]) -> dict[str, Estimate]:
        """Shares of right answers and of well-formed ones; all that is asked of a control."""
        found = dict(self._lines(pairs))
        return {**found, "valid": Ratio([pair.item for pair in pairs], [pair.valid for pair in pairs])}

    def said(self, pair: Pair) -> str | None:
        """Words of an answer: its text, or what speech recognition hears where it has none."""
        if pair.text is not None or not pair.audio:
            return pair.text
        return self._value("sound", pair.audio).get("transcript")

    def _value(self, what: str, *media) -> dict:
        value = self.parts[Part(what, media)]
        if "error" in value:
            self.left_out[value["error"]] = what
            return {}
        return value

    def _values(self, what: str, pairs, *sides: str) -> list[tuple[str, dict]]:
        """Items and values of the pairs that have all these media, as far as they can be judged."""
        media = [(pair.item, [getattr(pair, side) for side in sides]) for pair in pairs]
        values = [(item, self._value(what, *some)) for item, some in media if all(some)]
        return [(item, value) for item, value in values if value]

    def _motion(self, pairs):
        yield from self._sets(pairs)
        likeness = self._values("likeness", pairs, "motion", "reference_motion")
        for name in FRAME_FIGURES:
            yield name, _weighted([(item, value[name], value["frames"]) for item, value in likeness])
        yield "accel", _weighted([(item, value["accel"], value["frames"] - 2) for item, value in likeness])
        feet = self._values("feet", pairs, "motion")
        # Each as its module weighs it: steps on the floor, frames, frames that have a third difference.
        steps = [(item, v["foot_skating"], v["contact"] * (v["num_frames"] - 1)) for item, v in feet]
        yield "foot_skating", _weighted(steps)
        yield "penetration", _weighted([(item, v["penetration"], v["num_frames"]) for item, v in feet])
        yield "jitter", _weighted([(item, v["jitter"], v["num_frames"] - 3) for item, v in feet])

    def _sets(self, pairs):
        rows, made = self._kinetic([pair for pair in pairs if pair.reference_motion], "motion")
        all_rows, real = self._kinetic(pairs, "reference_motion")
        if len(rows) < 2 or len(all_rows) < 2:
            return
        # The original leaves out both sides of a pair without a prediction; the modules compare with all references.
        both = self._kinetic([p for p in pairs if p.motion and self._value("motion", p.motion)], "reference_motion")[1]
        if len(both) == len(made):
            yield "fid_upstream", OfSets(rows, made, both, fid_upstream, draws=0)
        # The references' scale for both sides. It stays the same in all draws, because a draw that repeats a few
        # references would hardly have any spread to divide by.
        scale = self._kinetic(self._scale_of, "reference_motion")[1]
        made, real = (motion_math.standardize(side, scale) for side in (made, real))
        yield "fid", OfSets(rows, made, real, motion_math.frechet_distance, FID_DRAWS, all_rows)
        yield "diversity", mean_distance(rows, made)

    def _kinetic(self, pairs, side: str) -> tuple[list[str], np.ndarray]:
        """Items and features of the motions of one side that are there and can be judged."""
        found = self._values("motion", pairs, side)
        return [item for item, _ in found], np.array([value["kinetic"] for _, value in found])

    def _sound(self, pairs):
        heard = [(pair, self._value("sound", pair.audio).get("transcript")) for pair in pairs if pair.audio]
        heard = [(pair, said) for pair, said in heard if said is not None]
        yield "wer", self._wer([(p.item, said, p.reference_texts[0]) for p, said in heard if p.reference_texts])
        if self.task == "chat":
            yield "wer_own", self._wer([(p.item, said, p.text) for p, said in heard if p.text])
        alike = self._values("voices", pairs, "audio", "reference_audio")
        yield "similarity", _mean([(item, value["similarity"]) for item, value in alike])

    def _wer(self, rows: list[tuple[str, str, str]]) -> Ratio:
        counted = word_errors([said for _, said, _ in rows], [text for _, _, text in rows])
        kept = [i for i, (_, words) in enumerate(counted) if words]  # of "Hmm." the normalisation leaves nothing
        if not kept:
            return Ratio([], [])
        items, said, texts = zip(*(rows[i] for i in kept), strict=True)
        errors, words = counted[kept].T
        value = self.compute("speech_wer", predictions=list(said), references=list(texts))["wer"]
        return Ratio(items, errors, words, value)

    def _transcripts(self, pairs):
        rows = [(p.item, p.text, p.reference_texts[0]) for p in pairs if p.text is not None and p.reference_texts]
        yield "wer", self._wer(rows)

    def _captions(self, pairs):
        rows = [(p.item, p.text, list(p.reference_texts)) for p in pairs if p.text is not None and p.reference_texts]
        if not rows:
            return
        items, captions, people = (list(column) for column in zip(*rows, strict=True))

        def score(index, name: str, scores: str) -> float:
            some = {"predictions": [captions[i] for i in index], "references": [people[i] for i in index]}
            return self.compute("motion_caption", **some, scores=(scores,), **self.bert)[name]

        def of_sets(name: str, scores: str, draws: int):
            column = np.arange(len(items))[:, None]
            return name, OfSets(items, column, column, lambda a, b: score(a[:, 0], name, scores), draws)

        # ROUGE-L is a mean over captions, the others are not.
        yield "rouge_l", Ratio(items, [score([i], "rouge_l", "rouge_l") for i in range(len(items))])
        yield of_sets("bleu_1", "bleu", CAPTION_DRAWS)
        yield of_sets("bleu_4", "bleu", CAPTION_DRAWS)
        if len({tuple(sorted(row)) for row in people}) > CIDER_REFERENCES:
            yield of_sets("cider", "cider", CAPTION_DRAWS)
        if self.bert:
            yield of_sets("bertscore", "bertscore", 0)

    def _lines(self, pairs):
        """Of all answers: one that is malformed, or that nothing is heard of, is wrong."""
        hoped = [pair for pair in pairs if pair.reference_texts]
        said = [self.said(pair) for pair in hoped]
        if not hoped or all(text is None for text in said):
            return
        items, texts = [pair.item for pair in hoped], [pair.reference_texts for pair in hoped]
        yield "right_line", Ratio(items, [right_line(s, t) for s, t in zip(said, texts, strict=True)])
        near = [s is not None and nearest_line(s, self.lines) in t for s, t in zip(said, texts, strict=True)]
        yield "nearest_line", Ratio(items, near)


def fid_upstream(made: np.ndarray, real: np.ndarray) -> float:
    """As in `motion_fid`, the original's way."""
    return motion_math.frechet_distance(*(motion_math.standardize_upstream(side) for side in (made, real)))


def mean_distance(rows: Sequence[str], features: np.ndarray) -> Ratio:
    """Mean distance over all pairs of rows, as in `motion_diversity`. It varies as the mean of each row's distance to
    the others does, twice over (Hoeffding 1948, on U-statistics), so that no draw needs the matrix of distances
    again."""
    own = motion_math.distances_to_others(features)
    return Ratio(rows, 2 * own - own.mean(), value=float(own.mean()))


def multimodality(repetitions: Sequence[Sequence[Pair]], parts: Parts) -> Ratio:
    """Mean distance of the motions of one prompt over the repetitions, as in `motion_multimodality`."""
    made: dict[tuple, list] = {}
    real, items = [], {}
    for pair in (pair for pairs in repetitions for pair in pairs if pair.motion and pair.reference_motion):
        values = [parts[Part("motion", (medium,))] for medium in (pair.motion, pair.reference_motion)]
        if not any("error" in value for value in values):
            made.setdefault(pair.key, []).append(values[0]["kinetic"])
            real.append(values[1]["kinetic"])
            items[pair.key] = pair.item
    several = [key for key, rows in made.items() if len(rows) > 1]
    if not several:
        return Ratio([], [])
    scale = np.array(real)
    spread = [motion_math.diversity(motion_math.standardize(np.array(made[key]), scale)) for key in several]
    return Ratio([items[key] for key in several], spread)


def latency(pairs: list[Pair], parts: Parts) -> dict[str, Estimate]:
    """Seconds to the first sound, the first motion and the end, and the real-time factor: seconds for one of media."""
    found = {
        name: _mean([(p.item, p.row[column]) for p in pairs if p.row[column] is not None])
        for name, column in TIMES.items()
    }
    timed = [pair for pair in pairs if pair.row["seconds"] is not None]
    totals = [(p, p.row["seconds"] + (p.row["decode_seconds"] or 0.0)) for p in timed]
    found["total"] = _mean([(pair.item, seconds) for pair, seconds in totals])
    lasting = []
    for pair, seconds in totals:
        media = (("motion", pair.motion), ("sound", pair.audio))
        lengths = [parts[Part(what, (m,))].get("seconds") for what, m in media if m]
        if any(lengths):
            lasting.append((pair.item, seconds, max(filter(None, lengths))))
    if lasting:
        items, seconds, media = zip(*lasting, strict=True)
        found["real_time_factor"] = Ratio(items, seconds, media)
    return {name: estimate for name, estimate in found.items() if estimate.count}


def _mean(rows: list[tuple[str, float]]) -> Ratio:
    return Ratio([item for item, _ in rows], [value for _, value in rows])


def _weighted(rows: list[tuple[str, float, float]]) -> Ratio:
    return Ratio([r[0] for r in rows], [r[1] * r[2] for r in rows], [r[2] for r in rows])


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def right_line(said: str | None, hoped: Sequence[str]) -> bool:
    """True if what was said has the words of one of the lines that were hoped for."""
    return said is not None and any(words_of(said) == words_of(text) for text in hoped)


def nearest_line(said: str, lines: Sequence[str]) -> str:
    """The line that is nearest to what was said, by letters (Levenshtein's distance over the longer length)."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import extractOne

    choices = [" ".join(words_of(line)) for line in lines]
    return lines[extractOne(" ".join(words_of(said)), choices, scorer=Levenshtein.normalized_distance)[2]]


def word_errors(transcripts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Errors and words of each sentence, (sentences, 2), after Whisper's text normalisation."""
    import jiwer

    from ..asr import english_normalizer

    normalize = english_normalizer()
    rows = []
    for said, text in zip(transcripts, texts, strict=True):
        result = jiwer.process_words(normalize(text), normalize(said))
        errors = result.substitutions + result.deletions + result.insertions
        rows.append((errors, result.hits + result.substitutions + result.deletions))
    return np.array(rows).reshape(-1, 2)
