"""Whether a mouth moves when it should: onsets, curves, and the loudness of the speech."""

import datasets
import numpy as np
from solami_hf.metrics.lip_math import LEAST, MISSED, checked, correlation, curves, loudness, onset_errors, opening
from solami_hf.metrics.metric_base import DirectMetric, check_list
from solami_hf.metrics.motion_math import FPS, check_fps, counts

CITATION = """\
@article{cohen1993modeling,
  title = {Modeling Coarticulation in Synthetic Visual Speech},
  author = {Cohen, Michael M. and Massaro, Dominic W.},
  journal = {Models and Techniques in Computer Animation},
  year = {1993}
}
"""

INPUTS = """\
predictions: list of faces, each (T, 52): ARKit's curves, 0 to 1, in Apple's order; None where there is none.
references: list of the same number of faces; lengths may differ within a pair.
fps: frames a second. audio: list of sounds (samples,), for `loudness_correlation`. sampling_rate: theirs, Hz.
"""


class LipSync(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> face = numpy.zeros((60, 52))
    >>> face[10:20, 17] = face[40:50, 17] = 0.6  # the jaw opens twice
    >>> late = numpy.roll(face, 3, axis=0)  # by a tenth of a second
    >>> result = evaluate.load(folder_of("lip_sync")).compute(predictions=[late], references=[face])
    >>> {name: round(result[name], 3) for name in ("lip_sync", "missed", "curve_error", "num_onsets")}
    {'lip_sync': 100.0, 'missed': 0.0, 'curve_error': 0.12, 'num_onsets': 2}
    """

    description = "Error of the mouth's onsets, ms, with curves and loudness. Lower is better."
    citation = CITATION
    inputs = INPUTS
    columns = dict.fromkeys(("predictions", "references"), datasets.List(datasets.List(datasets.Value("float32"))))

    def _compute(self, predictions, references, mode="corrected", fps=FPS, audio=None, sampling_rate=16000):
        if mode != "corrected":
            raise ValueError(f"`mode` is {mode!r}, expected 'corrected': the original has no faces")
        fps = check_fps(fps)
        if audio is not None:
            check_list(audio, "audio")
            if len(audio) != len(predictions):
                raise ValueError(f"got {len(audio)} `audio` and {len(predictions)} `predictions`, expected as many")
            if not sampling_rate > 0:
                raise ValueError(f"`sampling_rate` is {sampling_rate!r}, expected more than 0 Hz")
        errors, extra, gaps, opened, wanted, loud = [], 0, [], [], [], []
        for i, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
            reference = checked(reference, f"references[{i}]")
            if prediction is None:
                continue
            prediction = checked(prediction, f"predictions[{i}]")
            count = min(len(prediction), len(reference))
            mouths = [curves(face[:count]) for face in (prediction, reference)]
            moving = np.maximum(*mouths).max(axis=0) >= LEAST
            gaps.append(np.abs(mouths[0] - mouths[1])[:, moving].mean(axis=1))
            found, more = onset_errors(*mouths, fps)
            errors, extra = errors + found, extra + more
            opened.append(opening(prediction[:count]))
            wanted.append(opening(reference[:count]))
            if audio is not None:
                loud.append(loudness(audio[i], sampling_rate, fps, count, f"audio[{i}]"))
        if not errors:
            raise ValueError("no mouth of `references` with a prediction moves, expected at least one that speaks")
        errors, gaps, opened, wanted = np.array(errors), *(np.concatenate(x) for x in (gaps, opened, wanted))
        heard = {} if audio is None else {"loudness_correlation": correlation(opened, np.concatenate(loud))}
        return {
            "lip_sync": float(np.median(errors)),
            "mean_onset_error": float(errors.mean()),
            "missed": float((errors >= MISSED).mean()),
            "extra": extra / len(errors),
            "curve_error": float(np.nanmean(gaps)),
            "opening_correlation": correlation(opened, wanted),
            **heard,
            "num_onsets": len(errors),
            "num_frames": len(opened),
            **counts(predictions, mode),
        }
