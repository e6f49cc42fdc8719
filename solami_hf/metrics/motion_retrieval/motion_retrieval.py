"""Whether generated motions are found by their texts, in the embeddings of a trained text-motion evaluator."""

import datasets
from solami_hf.metrics.evaluator_features import (
    GALLERY,
    beats,
    chances_to_find,
    distances,
    frechet,
    load_evaluator,
    shuffled_order,
    with_interval,
)
from solami_hf.metrics.metric_base import JOINTS, DirectMetric
from solami_hf.metrics.motion_math import FPS, both_sides, counts

RANKS = (1, 2, 3)

INPUTS = """\
predictions: list of joint positions, each (T, 55, 3) in metres, y up, SMPL-X joint order; None where there is none.
references: as many real motions in the same form.
texts: the captions.
evaluator: folder or Hub id of an evaluator of `solami train-evaluator`.
labels: what motions are the same if it is equal; the texts when None. gallery: motions to choose from.
"""


class MotionRetrieval(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate, numpy
    >>> from solami_hf.metrics import folder_of
    >>> class Heights:  # an evaluator that knows how high somebody stands
    ...     ground_truth = {"beats_shuffled": True}
    ...     def embed_motions(self, motions, fps):
    ...         angles = numpy.array([motion[..., 1].mean() for motion in motions])
    ...         return numpy.stack([numpy.cos(angles), numpy.sin(angles)], axis=1)
    ...     def embed_texts(self, texts):
    ...         return numpy.stack([numpy.cos([*map(float, texts)]), numpy.sin([*map(float, texts)])], axis=1)
    >>> real = [numpy.full((8, 55, 3), height) for height in (0.0, 0.5, 1.0, 1.5)]
    >>> inputs = {"references": real, "texts": ["0.0", "0.5", "1.0", "1.5"], "evaluator": Heights()}
    >>> metric = evaluate.load(folder_of("motion_retrieval"))
    >>> result = metric.compute(predictions=real, **inputs)
    >>> result["r_precision_1"], result["shuffled_r_precision_1"], round(result["fid"], 6)
    (1.0, 0.0, 0.0)
    >>> metric.compute(predictions=real[::-1], **inputs)["r_precision_1"]
    0.0
    """

    description = "R-precision, distance and FID of motions in a text-motion evaluator's embeddings. Higher is better."
    citation = "Petrovich, Black, Varol: TMR, ICCV 2023, arXiv 2305.00976"
    inputs = INPUTS
    columns = {"predictions": JOINTS, "references": JOINTS, "texts": datasets.Value("string")}

    def _compute(self, predictions, references, texts, evaluator=None, labels=None, gallery=GALLERY, mode="corrected",
                 fps=FPS, reference_fps=None, **loading):  # fmt: skip
        made, real, fps = both_sides(predictions, references, mode, fps, reference_fps)
        labels = _checked(texts, labels)
        if not isinstance(gallery, int) or gallery < 2:
            raise ValueError(f"`gallery` is {gallery!r}, expected at least 2 motions to choose from")
        evaluator = load_evaluator(evaluator, **loading)
        said, real = evaluator.embed_texts(texts), evaluator.embed_motions(real, fps)
        truth = chances_to_find(said, real, labels, max(RANKS), gallery)
        chance = chances_to_find(said[shuffled_order(labels)], real, labels, max(RANKS), gallery)
        if not beats(truth[:, 0], chance[:, 0]):
            raise ValueError(
                f"the evaluator finds these references with their texts no better than with shuffled ones (R@1 "
                f"{truth[:, 0].mean():.3f} and {chance[:, 0].mean():.3f} of {len(real)}), so it cannot judge others"
            )
        present = [i for i, motion in enumerate(predictions) if motion is not None]
        made = evaluator.embed_motions(made, fps)
        found = chances_to_find(said[present], made, [labels[i] for i in present], max(RANKS), gallery)
        first, low, high = with_interval(found[:, 0])
        rows = {"": found, "reference_": truth, "shuffled_": chance}
        return {
            "r_precision_1": first,
            "low": low,
            "high": high,
            **{f"{row}r_precision_{k}": float(all_[:, k - 1].mean()) for row, all_ in rows.items() for k in RANKS},
            "mm_dist": float(distances(said[present], made).diagonal().mean()),
            "reference_mm_dist": float(distances(said, real).diagonal().mean()),
            "fid": frechet(made, real),
            "gallery": min(gallery, len(present)),
            **counts(predictions, mode),
        }


def _checked(texts, labels):
    """The labels, by default the texts."""
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"`texts[{i}]` is {text!r}, expected the caption of a motion")
    if labels is not None and len(labels) != len(texts):
        raise ValueError(f"got {len(labels)} `labels` and {len(texts)} `texts`, expected as many")
    return list(texts if labels is None else labels)
