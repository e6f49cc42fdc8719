"""Similarity of captions of motions to captions by people: BLEU, ROUGE-L, CIDEr, BERTScore."""

import datasets
import numpy as np
import sacrebleu
from pycocoevalcap.cider.cider import Cider
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize
from solami_hf.metrics.metric_base import DirectMetric
from solami_hf.metrics.motion_math import check_mode, counts

SCORES = ("bleu", "rouge_l", "cider", "bertscore")
BERT, BERT_LAYER = "roberta-large", 17  # the layer that Zhang et al. 2020 found best for this model

TEXT = datasets.Value("string")

INPUTS = """\
predictions: list of captions; None where there is none.
references: for each a caption, or a list of captions, by people.
scores: which of "bleu", "rouge_l", "cider" (default: these three) and "bertscore" to compute.
model_id, layer: Hub id or folder of BERTScore's model, and which of its layers to compare.
mode: "corrected" (default), or "upstream" for the original's way: the references scored against themselves.
"""


class MotionCaption(DirectMetric):
    """See README.md beside this file.

    >>> import evaluate
    >>> from solami_hf.metrics import folder_of
    >>> caption = evaluate.load(folder_of("motion_caption"))
    >>> people = [["a person waves the left hand", "someone is waving"], ["a man walks in a circle"]]
    >>> result = caption.compute(predictions=["a person waves a hand", "a man runs in a circle"], references=people)
    >>> {name: round(result[name], 3) for name in ("bleu_1", "bleu_4", "rouge_l", "cider")}
    {'bleu_1': 0.747, 'bleu_4': 0.0, 'rouge_l': 0.78, 'cider': 2.931}
    """

    description = "BLEU, ROUGE-L, CIDEr and BERTScore of captions of motions. Higher is better."
    inputs = INPUTS
    columns = [{"predictions": TEXT, "references": datasets.List(TEXT)}, {"predictions": TEXT, "references": TEXT}]

    def _compute(
        self,
        predictions,
        references,
        mode="corrected",
        scores=SCORES[:3],
        model_id=BERT,
        layer=None,
        revision=None,
        device="cpu",
    ):
        check_mode(mode)
        unknown = [score for score in scores if score not in SCORES]
        if unknown or not scores:
            raise ValueError(f"`scores` is {scores!r}, expected some of: {', '.join(SCORES)}")
        people = [_captions(given, f"references[{i}]") for i, given in enumerate(references)]
        present = [i for i, caption in enumerate(predictions) if caption is not None]
        if not present:
            raise ValueError("every item of `predictions` is None, expected at least one caption")
        for i in present:
            if not isinstance(predictions[i], str):
                raise ValueError(f"`predictions[{i}]` is {type(predictions[i]).__name__}, expected a caption")
        people = [people[i] for i in present]
        # The original hands the references to its scorer on both sides, whatever was generated.
        made = [captions[0] for captions in people] if mode == "upstream" else [predictions[i] for i in present]
        words, people_words = [_words(text) for text in made], [[_words(text) for text in row] for row in people]
        result = {}
        if "bleu" in scores:
            result |= {"bleu_1": bleu(words, people_words, 1), "bleu_4": bleu(words, people_words, 4)}
        if "rouge_l" in scores:
            result["rouge_l"] = rouge_l(words, people_words)
        if "cider" in scores:
            result["cider"] = cider(words, people_words)
        if "bertscore" in scores:
            result |= {"bertscore": bertscore(made, people, model_id, layer, revision, device), "model": model_id}
        return {**result, **counts(predictions, mode)}


def _captions(given, name):
    """A reference as a list of captions, each with a word."""
    captions = [given] if isinstance(given, str) else list(given) if isinstance(given, list | tuple) else []
    if not captions or any(not isinstance(caption, str) or not _words(caption) for caption in captions):
        raise ValueError(
            f"`{name}` is {given!r}, expected a caption or a list of captions with at least one word each"
        )
    return captions


def _words(text):
    """Lower case words and numbers without punctuation, with blanks between them: the same for every score."""
    return " ".join(tokenize(text, None))


def bleu(made, people, order):
    """Corpus BLEU of word n-grams up to `order`, 0 to 1 (Papineni et al. 2002, sacrebleu), without smoothing."""
    most = max(len(row) for row in people)
    columns = [[row[i] if i < len(row) else None for row in people] for i in range(most)]
    metric = sacrebleu.BLEU(max_ngram_order=order, tokenize="none", smooth_method="none", force=True)
    return min(metric.corpus_score(made, columns).score / 100, 1.0)


def rouge_l(made, people):
    """Mean F1 of longest common subsequences with the best reference, 0 to 1 (Lin 2004, rouge_score)."""
    scorer, pairs = RougeScorer(["rougeL"]), zip(made, people, strict=True)
    return float(np.mean([scorer.score_multi(row, text)["rougeL"].fmeasure for text, row in pairs]))


def cider(made, people):
    """CIDEr-D, 0 to 10 (Vedantam et al. 2015, pycocoevalcap). Raises ValueError: all references are alike, so that no
    word is rarer than another."""
    if len({tuple(sorted(row)) for row in people}) < 2:
        raise ValueError(
            "CIDEr weighs words by how few references hold them, and here all references are the same: expected at "
            "least 2 different ones, or leave 'cider' out of `scores`"
        )
    score, _ = Cider().compute_score(dict(enumerate(people)), {i: [text] for i, text in enumerate(made)})
    return float(score)


def bertscore(made, people, model_id, layer, revision, device):
    """Mean F1 of greedily matched token embeddings with the best reference (Zhang et al. 2020, bert_score). A caption
    without a word scores 0."""
    from bert_score import score
    from huggingface_hub import snapshot_download
    from transformers import AutoConfig

    if layer is None:
        layers = AutoConfig.from_pretrained(model_id, revision=revision).num_hidden_layers
        layer = BERT_LAYER if model_id == BERT else layers
    folder = model_id if revision is None else snapshot_download(model_id, revision=revision)
    spoken = [i for i, caption in enumerate(made) if _words(caption)]
    total = 0.0
    if spoken:
        texts, references = [made[i] for i in spoken], [people[i] for i in spoken]
        _, _, f1 = score(texts, references, model_type=folder, num_layers=layer, device=device)
        total = float(f1.sum())
    return total / len(made)
