"""The grammar as vLLM's logits processor, against its interface as documented (vLLM itself is not here)."""

import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from solami_hf.generation.serving import vllm_grammar


@pytest.fixture
def served(talker, tmp_path, monkeypatch):
    """The processor as vLLM makes it for a served folder."""

    class AdapterLogitsProcessor:
        def __init__(self, vllm_config, device, is_pin_memory):
            self.made_with = (device, is_pin_memory)

    for name in ("vllm", "vllm.v1", "vllm.v1.sample"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    module = ModuleType("vllm.v1.sample.logits_processor")
    module.AdapterLogitsProcessor = AdapterLogitsProcessor
    monkeypatch.setitem(sys.modules, module.__name__, module)
    talker.processor.tokenizer.save_pretrained(tmp_path)
    model = SimpleNamespace(hf_config=talker.model.config, tokenizer=str(tmp_path))
    yield vllm_grammar.SolamiLogitsProcessor(SimpleNamespace(model_config=model), torch.device("cpu"), False)
    vllm_grammar.__dict__.pop("SolamiLogitsProcessor", None)


def params(name=None, max_tokens=40):
    return SimpleNamespace(extra_args=None if name is None else {"solami_answer": name}, max_tokens=max_tokens)


@torch.inference_mode()
def generated(talker, processor, prompt, steps=40):
    """What an engine does with a request: it calls the processor with the output so far."""
    output = []
    while len(output) < steps and talker.model.config.eos_token_id not in output:
        logits = talker.model(torch.tensor([prompt + output])).logits[0, -1]
        logits = logits if processor is None else processor(output, logits)
        output.append(int(logits.argmax()))
    return output


def test_answers_are_those_of_generate(talker, served):
    for name in ("text_motion_speech", "motion_speech", "motion", "speech", "text"):
        prompt = talker.chat_prompt([{"role": "user", "content": "hi"}])
        ids = generated(talker, served.new_req_logits_processor(params(name)), prompt)
        (expected,) = talker.generate_prompts([prompt], name)
        assert ids == expected and talker.processor.parse_response(ids, name).valid


def test_requests_choose(talker, served):
    assert served.is_argmax_invariant() is False and served.made_with == (torch.device("cpu"), False)
    assert served.new_req_logits_processor(params()) is None
    one, two = (served.new_req_logits_processor(params("motion")) for _ in range(2))
    assert one is two
    served.validate_params(params("motion"))
    with pytest.raises(ValueError, match="solami_answer is 'dance', expected one of"):
        served.validate_params(params("dance"))


def test_without_vllm_only_the_class_is_missing():
    with pytest.raises(ModuleNotFoundError, match="vllm"):
        vllm_grammar.SolamiLogitsProcessor  # noqa: B018
    with pytest.raises(AttributeError):
        vllm_grammar.Other  # noqa: B018


def test_the_regular_expression_takes_what_the_grammar_lets_pass(talker):
    config, tokenizer = talker.model.config, talker.processor.tokenizer
    for name in ("motion_speech", "motion", "speech"):
        (ids,) = talker.generate_prompts([talker.chat_prompt([{"role": "user", "content": "hi"}])], name)
        written = tokenizer.decode(ids[: ids.index(config.eos_token_id)])
        pattern = vllm_grammar.answer_regex(config, name)
        assert re.fullmatch(pattern, written) and not re.fullmatch(pattern, written[:-3])
    with_text = vllm_grammar.answer_regex(config, "text_motion_speech")
    assert re.fullmatch(with_text, "Hello.<eot><sobo><🕺1><eobo><soha><🤚3><eoha><sosp><🗣️5><eosp>")
    config.interleaved = True
    with pytest.raises(ValueError, match="no regular expression"):
        vllm_grammar.answer_regex(config, "motion_speech")
