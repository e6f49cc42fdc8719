"""Continuous batching: transformers' `generate_batch` machinery with the answer grammar in it.

An answer that ends makes room for the next one at once, and nothing is padded. It is made for GPUs with a paged
attention kernel. Without one every token attends to the tokens of all requests under a mask, and nothing is won: 17
answers of the demo's model on one CPU core took 6.8 s, in padded batches 6.2 s, with the same codes. So folder runs
batch continuously on GPUs and pad on CPUs, unless told otherwise (`GenerateArguments.batching`). It was run on CPUs
only.
"""

import time

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

from ..grammar import AnswerGrammar, answers_so_far

_WAY_OUT = "use --batching padded"


class GrammarOfRequests(ContinuousBatchingLogitsProcessor):
    """An `AnswerGrammar` for the requests of continuous batching, which come and go and share no prompt. Where the
    grammar stands follows from a request's own ids, so that nothing has to be kept between the steps."""

    supported_kwargs: dict = {}
    ignored_kwargs: tuple = ()

    def __init__(self, grammar: AnswerGrammar):
        self.grammar, self._ids = grammar, torch.zeros(0, 1, dtype=torch.long)

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """The grammar needs no numbers on the device."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list) -> torch.Tensor:
        """Notes the answers so far, in the order of the rows to come."""
        # A request that had to give up its cache for a while carries its first tokens in its prompt: they are here too
        rows = [request.state.to_generation_output().generated_tokens for request in requests_with_new_token]
        self._ids = answers_so_far(self.grammar, rows)
        return torch.zeros(len(rows), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """`scores (B, vocab)` with what may not come next at minus infinity."""
        count = len(self._ids)  # rows behind are padding
        if not count:  # a step that only reads prompts
            return scores
        return torch.cat([self.grammar(self._ids, scores[:count]), scores[count:]])


def generate_continuously(
    model, prompts: list[list[int]], grammar: AnswerGrammar | None, max_new_tokens: int, **sampling
) -> tuple[list[list[int]], list[list[float]]]:
    """Answers to prompts of any lengths, which end with the character's role marker; each answer is ended by `<eos>`.
    `grammar` says what an answer may consist of, None for anything; `sampling` is `do_sample`, `temperature`, `top_p`.
    Returns the answers, and for each of their tokens the seconds from the call until it was there. Raises
    RuntimeError: a request failed."""
    ids = {name: getattr(model.config, name) for name in ("eos_token_id", "pad_token_id")}
    config = GenerationConfig(max_new_tokens=max_new_tokens, **ids, **sampling)
    begin, attention = time.perf_counter(), model.config._attn_implementation
    # The grammar reads ids on the host between the steps, which neither graphs nor steps in advance allow
    room = {}
    if model.device.type != "cuda":  # for a few answers at a time; by default it would take most of the memory
        pages = (max(map(len, prompts)) + max_new_tokens) // 32 + 2
        room = {"page_size": 32, "num_blocks": 16 * pages, "max_batch_tokens": 256}
    options = ContinuousBatchingConfig(use_cuda_graph=False, use_async_batching=False, **room)
    manager = model.init_continuous_batching(generation_config=config, continuous_batching_config=options)
    if grammar is not None:
        processors = manager.logit_processor
        processors.logits_processor.insert(0, GrammarOfRequests(grammar))
        processors.tensors_required, processors.do_processing = processors.tensors_required + 1, True
    found: dict = {}
    manager.start()
    try:
        names = manager.add_requests(inputs=prompts, max_new_tokens=max_new_tokens, record_timestamps=True)
        while len(found) < len(names):
            result = manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                found[result.request_id] = result
            elif result is None and not manager.is_running():
                raise RuntimeError(f"continuous batching ended after {len(found)} of {len(names)} answers; {_WAY_OUT}")
    finally:
        manager.stop(block=True)
        model.set_attn_implementation(attention)
    if failed := [result.error for result in found.values() if result.error]:
        raise RuntimeError(f"{len(failed)} of {len(names)} answers failed: {failed[0]}; {_WAY_OUT}")
    ordered = [found[name] for name in names]
    times = [[moment - begin for moment in result.timestamps] for result in ordered]
    return [list(result.generated_tokens) for result in ordered], times
