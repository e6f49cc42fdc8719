"""Word error rate of transcripts of generated speech."""

import datasets
import evaluate
import jiwer
from solami_hf.metrics import metric_base
from solami_hf.metrics import motion_math
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

CITATION = """\
@misc{radford2022whisper,
  title = {Robust Speech Recognition via Large-Scale Weak Supervision},
  author = {Radford, Alec and others},
  year = {2022},
  note = {arXiv 2212.04356; the text normaliser of its appendix C}
}
"""

INPUTS = """\
predictions: list of transcripts; None where there is none.
references: list of the texts that should have been said.
mode: "corrected" (default), or "upstream" for the original's way: raw text, averaged over utterances.
"""


class SpeechWer(metric_base.DirectMetric):
    """See README.md beside this file."""

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="Word error rate of transcripts of generated speech. Lower is better.",
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions, references, mode="corrected"):
        motion_math.check_mode(mode)
        pairs = [(said, text) for said, text in zip(predictions, references, strict=True) if said is not None]
        if not pairs:
            raise ValueError("`predictions` holds no transcript, expected at least one that is not None")
        if mode == "corrected":
            normalize = EnglishTextNormalizer({})
            pairs = [(normalize(said), normalize(text)) for said, text in pairs]
            for said, text in pairs:
                if not any(character.isalnum() for character in text):
                    raise ValueError(f"a reference is empty (its prediction is {said!r}), expected at least one word")
            wer = jiwer.wer([text for _, text in pairs], [said for said, _ in pairs])
        else:
            wer = sum(jiwer.wer(text, said) for said, text in pairs) / len(pairs)
        return {"wer": float(wer), **motion_math.counts(predictions, mode)}
