"""Everything that needs the layout of the vocabulary asks for it in the same words."""

from types import SimpleNamespace

import pytest
from transformers import LlamaConfig

from solami_hf.generation import AnswerGrammar, SolamiPipeline, parse_answer
from solami_hf.generation.grammar import grammar_of
from solami_hf.generation.serving.vllm_grammar import answer_regex
from solami_hf.modeling.solami.configuration_solami import SolamiConfig, require_layout
from solami_hf.processing.answers import parse_interleaved, parts_of
from solami_hf.processing.rendering import TokenRenderer
from solami_hf.training.language_model.adapters import new_token_ids
from solami_hf.training.language_model.loss_by_modality import LossByModality, SplitLossTrainer

NEEDS_IT = {
    "require_layout": require_layout,
    "AnswerGrammar": AnswerGrammar,
    "AnswerGrammar of speech": lambda config: AnswerGrammar(config, "speech", interleaved=True),
    "grammar_of": lambda config: grammar_of(config, TOKENIZER, "motion_speech", False, 60),
    "answer_regex": answer_regex,
    "parse_answer": lambda config: parse_answer([1, 2], config),
    "parse_answer, interleaved": lambda config: parse_answer([1, 2], config, "text", interleaved=True),
    "parse_interleaved": lambda config: parse_interleaved([1, 2], config),
    "parts_of": parts_of,
    "TokenRenderer": lambda config: TokenRenderer(TOKENIZER, config),
    "SolamiPipeline": lambda config: SolamiPipeline(SimpleNamespace(config=config), None),
    "new_token_ids": new_token_ids,
    "SplitLossTrainer": lambda config: SplitLossTrainer(layout=config),
    "LossByModality": lambda config: LossByModality(
        getattr(config, "modalities", None), getattr(config, "markers", None), 10
    ),
}
TOKENIZER = type("Tokenizer", (list,), {"all_special_ids": []})()


@pytest.mark.parametrize("name", NEEDS_IT)
@pytest.mark.parametrize(
    "config",
    [SolamiConfig(), LlamaConfig(), SolamiConfig(modalities={"body": {"first_id": 0, "size": 4}}), SimpleNamespace()],
    ids=["ours", "plain", "half", "anything"],
)
def test_without_a_layout(name, config):
    with pytest.raises(ValueError, match="has no modality tokens; make a folder that has them with `solami init`"):
        NEEDS_IT[name](config)
