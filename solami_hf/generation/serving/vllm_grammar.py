"""The answer grammar in vLLM, where the language model is served by that engine.

    solami convert lm CHECKPOINT --to llama --output served
    vllm serve served --logits-processors solami_hf.generation.serving.vllm_grammar:SolamiLogitsProcessor

A request asks for the grammar by the format of its answer; without one, vLLM answers freely:

    client.completions.create(model="served", prompt=ids, max_tokens=600, temperature=0.8,
        extra_body={"return_token_ids": True, "vllm_xargs": {"solami_answer": "text_motion_speech"}})

`prompt` are the ids of `SolamiPipeline.chat_prompt(messages)` or `task_prompt(...)`, `processor.parse_response` reads
the answer's ids, and `processor.decode_motion` and `decode_speech` make motion and sound of its codes. Formats are
those of `processing.answers.FORMATS`. In Python it is `LLM("served", logits_processors=[SolamiLogitsProcessor])` with
`SamplingParams(max_tokens=600, extra_args={"solami_answer": "motion_speech"})`.

The class follows vLLM's interface for request-level processors,
`vllm.v1.sample.logits_processor.AdapterLogitsProcessor` (version 1 of its model runner; releases that default to the
next one need VLLM_USE_V2_MODEL_RUNNER=0). It was tested against that interface as documented, not inside of vLLM.

Engines without processors of one's own can take `answer_regex` as structured output
(`extra_body={"structured_outputs": {"regex": ...}}`). A regular expression cannot count, so body and hand may differ
in length, and `parse_response` then says that the answer is not valid.
"""

from ...modeling.solami.configuration_solami import require_layout
from ...modeling.solami.vocabulary import BRACKETS, MARKERS, MODALITY_FORMATS
from ...processing.answers import FORMATS, parts_of
from ..grammar import answers_so_far, grammar_of

ARGUMENT = "solami_answer"


def asked_format(params) -> str | None:
    """The answer format that a request's `SamplingParams` name, None without one; ValueError for an unknown one."""
    name = (getattr(params, "extra_args", None) or {}).get(ARGUMENT)
    if name is not None and name not in FORMATS:
        raise ValueError(f"{ARGUMENT} is {name!r}, expected one of {', '.join(FORMATS)}")
    return name


def _processor_class():
    from transformers import AutoTokenizer
    from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

    class SolamiLogitsProcessor(AdapterLogitsProcessor):
        """The answer grammar of those requests that name an answer format."""

        def __init__(self, vllm_config, device, is_pin_memory):
            super().__init__(vllm_config, device, is_pin_memory)
            model = vllm_config.model_config
            self.config, self.tokenizer = model.hf_config, AutoTokenizer.from_pretrained(model.tokenizer)
            require_layout(self.config)  # not at the first request
            self.processors: dict = {}

        @classmethod
        def validate_params(cls, params):
            """ValueError for a request that names an unknown format."""
            asked_format(params)

        def is_argmax_invariant(self) -> bool:
            """The most likely token may be one that cannot come next."""
            return False

        def new_req_logits_processor(self, params):
            """`(output ids, logits (vocab,)) -> logits` without what may not come next; None where it is not asked."""
            name = asked_format(params)
            if name is None:
                return None
            key = name, params.max_tokens or self.config.max_position_embeddings
            if key not in self.processors:
                interleaved = getattr(self.config, "interleaved", False)
                grammar = grammar_of(self.config, self.tokenizer, name, interleaved, key[1])
                self.processors[key] = lambda output_ids, logits: grammar(
                    answers_so_far(grammar, [list(output_ids)]), logits[None]
                )[0]
            return self.processors[key]

    return SolamiLogitsProcessor


def answer_regex(config, answer_format: str | None = None) -> str:
    """A regular expression of the written answers of a format (by default the config's), but for the equal length
    of body and hand. Raises ValueError: a config without the layout, an interleaved format, which has no such
    expression, or several levels of speech codes, which take turns."""
    has_text, parts = parts_of(config, answer_format)
    if parts and (getattr(config, "interleaved", False) or getattr(config, "speech_levels", 1) > 1):
        raise ValueError("no regular expression tells interleaved answers or levels; use SolamiLogitsProcessor")
    pieces = ["[^<>]+" + (MARKERS["eot"] if parts else "")] if has_text else []
    for name in parts:
        before, after = MODALITY_FORMATS[name].split("{}")
        begin, end = (MARKERS[marker] for marker in BRACKETS[name])
        pieces.append(f"{begin}(?:{before}[0-9]{{1,{len(str(config.modalities[name]['size'] - 1))}}}{after})+{end}")
    return "".join(pieces)


def __getattr__(name: str):
    if name == "SolamiLogitsProcessor":  # vLLM is only there where it is served
        globals()[name] = _processor_class()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
