"""The decoding loop of answers: each step computes the rows of the head that may come next, and may be compiled.

transformers' own loop computes all rows, and compiles on GPUs only. This one is given to `generate` as
`custom_generate`. With a `StaticCache` all steps have the same shapes, so that one graph serves them.
"""

import torch
from transformers import CompileConfig, LlamaForCausalLM, StaticCache

from .cache import CACHE
from .grammar import AnswerGrammar


def decode(
    model,
    input_ids: torch.LongTensor,
    logits_processor,
    stopping_criteria,
    generation_config,
    streamer=None,
    pad: int = 0,
    sliced_by: AnswerGrammar | None = None,
    **inputs,
) -> torch.LongTensor:
    """Greedy or sampled ids with the prompt, (B, T); a `custom_generate` of `model.generate`, which prepares most
    arguments.

    With a `StaticCache`, steps are compiled where `compile_config` is given, on a GPU always; not with
    `disable_compile`. The prompt never is, as its length is another each time. The head of others than Llama's class
    is computed whole, and one that is quantised, adapted or moved between devices. The cache among `inputs` may hold
    the beginning of the prompts `input_ids` (B, T); `pad` is the id behind the end of a row; `sliced_by` the grammar,
    where nothing else looks at the logits.
    """
    compiled = isinstance(inputs[CACHE], StaticCache) and not generation_config.disable_compile
    compiled &= generation_config.compile_config is not None or model.device.type != "cpu"
    network, logits_of = _network_and_head(model, sliced_by)
    known = int(inputs[CACHE].get_seq_length())
    new = {"next_sequence_length": input_ids.shape[1] - known, "is_first_iteration": True}
    logits = logits_of(network, input_ids, model.prepare_inputs_for_generation(input_ids, **new, **inputs))
    if compiled:  # of the same network and settings, the graphs of the last answer are found again
        settings = generation_config.compile_config or CompileConfig()
        network = torch.compile(network.__call__, **settings.to_dict())
    running = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
    while True:
        scores = logits_processor(input_ids, logits.to(input_ids.device, torch.float32, copy=True))
        if generation_config.do_sample:
            tokens = torch.multinomial(scores.softmax(-1), 1)[:, 0]
        else:
            tokens = scores.argmax(-1)
        tokens = tokens.where(running, pad)
        input_ids = torch.cat([input_ids, tokens[:, None]], 1)
        if streamer is not None:
            streamer.put(tokens.cpu())
        running &= ~stopping_criteria(input_ids, scores)
        if not running.any():
            break
        if inputs.get("position_ids") is not None:
            inputs["position_ids"] = inputs["position_ids"][:, -1:] + 1
        if (mask := inputs.get("attention_mask")) is not None:
            inputs["attention_mask"] = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        last = model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **inputs)
        logits = logits_of(network, input_ids, last)
    if streamer is not None:
        streamer.end()
    return input_ids


def _network_and_head(model, grammar: AnswerGrammar | None):
    """The network that a step runs, and a function of it, all ids (B, T) and the inputs of the last ones, that gives
    the logits (B, vocab) of the next."""
    head = model.get_output_embeddings()
    # The logits of other classes may be scaled, and accelerate replaces the forward of what it moves
    plain = isinstance(model, LlamaForCausalLM) and type(head) is torch.nn.Linear and "forward" not in vars(head)
    if not plain:
        return model, lambda network, ids, inputs: network(**inputs, return_dict=True).logits[:, -1]
    if grammar is not None:
        rows = grammar.media_rows(head.out_features)
        rows = rows if isinstance(rows, slice) else rows.to(head.weight.device)
        some, bias = head.weight[rows], None if head.bias is None else head.bias[rows]

    def logits_of(network, ids, inputs):
        inputs.pop("logits_to_keep", None)
        hidden = network(**inputs, return_dict=True).last_hidden_state[:, -1]
        if grammar is None or not grammar.is_past_text(ids[:, -1]):
            return head(hidden)
        found = torch.nn.functional.linear(hidden, some, bias)
        logits = found.new_full((len(hidden), head.out_features), float("-inf"))
        logits[:, rows] = found
        return logits

    return model.base_model, logits_of
