"""How long a character takes to answer, turn after turn: the original's way and ours in one run.

    python benchmarks/generation.py [--turns 12] [--seconds 2] [--stream_seconds 4]
    python benchmarks/generation.py --only_decoding [--seconds 2] [--layers 30] [--cpu_time] [--ways onnx ...]

A dialogue of 12 turns with a Llama of 110M random weights in fp32 and a context of 2,048 tokens, which it outgrows.
The original reads the whole dialogue at every turn and, once that with 600 new tokens is more than the context, drops
the oldest round; ours is `DialogueSession` with the answer grammar. Both say the same number of tokens, one sequence
at a time, and theirs keeps our answers in its history, so that both read the same. `prefill` is the time to the first
token, summed over the turns; `answer` that to the last. `answer_beams` is the last turn as the original searches it,
with five beams, over our single sequence. `grammar_overhead` is the grammar's share of a decoding step, below 1.
`first_audio` and `first_motion` are those of `generation_streaming.py`, `folder_throughput` that of
`generation_folder.py`, `compiled`, `sliced_head`, `bfloat16`, `int8`, `int8_compiled` and `onnx` those of
`generation_decoding.py`. The last line is one JSON object of ratios, theirs over ours but for that share: above 1 is
faster.
"""

import argparse
import json
import logging
import statistics
import time

import generation_decoding
import generation_folder
import generation_streaming
import timing
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from solami_hf.demo.corpus.dialogues import load_dialogues
from solami_hf.demo.tiny_model import train_tokenizer
from solami_hf.generation import AnswerGrammar, DialogueSession, SolamiPipeline
from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.modeling.solami.modeling_solami import SolamiForCausalLM
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.processing.processing_solami import SolamiProcessor
from solami_hf.processing.rendering import drop_oldest_rounds

CONTEXT, LONGEST, VOCABULARY, BEAMS = 2048, 600, 32_000, 5
USER_MOTION, USER_SPEECH = 25, 150  # codes of a turn of 3 s
STEPS = 300

logger = logging.getLogger(__name__)


class FirstToken:
    """A streamer that notes when the first token was there."""

    def __init__(self):
        self.calls, self.begin, self.seconds = 0, time.perf_counter(), 0.0

    def put(self, value):
        """The prompt comes first, then each token."""
        self.calls += 1
        if self.calls == 2:
            self.seconds = time.perf_counter() - self.begin

    def end(self):
        """Nothing is left to do."""


def make_processor(tokenizer) -> SolamiProcessor:
    """Codecs so small that they cost nothing."""
    sizes = {f"{part}_{key}": 16 for part in ("body", "hand") for key in ("code_dim", "width")}
    motion = SolamiMotionVQModel(SolamiMotionVQConfig(**sizes))
    speech = SolamiSpeechCodecModel(SolamiSpeechCodecConfig(num_filters=4, hidden_size=16, semantic_size=8))
    return SolamiProcessor(tokenizer, motion, speech)


def small_llama() -> LlamaConfig:
    """110M weights."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
    )


def make_pipeline(seconds: float, make_processor=make_processor, config: LlamaConfig | None = None) -> SolamiPipeline:
    """A pipeline of random weights whose answers all last so long."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([character.system for character in load_dialogues()])
    processor, config = make_processor(tokenizer), config or small_llama()
    model = SolamiForCausalLM.from_backbone(LlamaForCausalLM(config), tokenizer).eval()
    weights = sum(weight.numel() for weight in model.parameters())
    logger.info("%.0fM weights, %d rows in the head", weights / 1e6, model.config.vocab_size)
    pipeline = SolamiPipeline(model, processor, max_new_tokens=LONGEST)
    bounds = {"min_seconds": seconds, "max_seconds": seconds, "max_new_tokens": LONGEST}
    grammar = AnswerGrammar(model.config, interleaved=processor.interleaved, **bounds)
    pipeline.grammar = lambda *args, **kwargs: grammar
    return pipeline


def user_turn() -> dict:
    """Three seconds of random codes."""
    codes = {name: torch.randint(0, 512, (USER_MOTION,)).tolist() for name in ("body", "hand")}
    motion = {"type": "motion", "motion": {**codes, "trans": [int(torch.randint(0, 256, ()))]}}
    speech = {"type": "audio", "audio": {"codes": torch.randint(0, 1024, (USER_SPEECH,)).tolist()}}
    return {"role": "user", "content": [motion, speech]}


def our_turn(session: DialogueSession, user: dict) -> tuple[float, float]:
    """Seconds to the first token and to the last."""
    first, begin = FirstToken(), time.perf_counter()
    reply = session.answer(user, decode=False, streamer=first)
    if not reply.valid:
        raise RuntimeError(f"an answer within the grammar is not valid: {reply.answer.reason}")
    return first.seconds, time.perf_counter() - begin


@torch.inference_mode()
def their_turn(pipeline: SolamiPipeline, messages: list[dict], tokens: int, **settings) -> tuple[float, float]:
    """Seconds to the first token and to the last of a plain `generate` that reads everything."""
    render, limit = pipeline.processor.renderer.chat, CONTEXT - LONGEST
    first, begin = FirstToken(), time.perf_counter()
    kept = drop_oldest_rounds(messages, lambda m: len(render(m, add_generation_prompt=True)["input_ids"]) <= limit)
    ids = torch.tensor(render(kept, add_generation_prompt=True)["input_ids"])[None]
    streamer = {} if settings else {"streamer": first}
    length = {"min_new_tokens": tokens, "max_new_tokens": tokens}
    pipeline.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **length, **streamer, **settings
    )
    return first.seconds, time.perf_counter() - begin


def dialogue(pipeline: SolamiPipeline, turns: int) -> dict[str, float]:
    """All turns, each in both ways, one after the other."""
    session = DialogueSession(pipeline, system=load_dialogues()[0].system)
    ours, theirs, read = [], [], []
    our_turn(session.fork(), user_turn())  # warm
    for _ in range(turns):
        messages = session.messages + [user_turn()]
        ours.append(our_turn(session, messages[-1]))
        tokens = len(session._rounds[-1].answer_ids)
        read.append(session.prefilled_tokens)
        theirs.append(their_turn(pipeline, messages, tokens))
    logger.info("tokens read a turn: %s; %d said a turn", read, tokens)
    beams = their_turn(pipeline, messages, tokens, num_beams=BEAMS)[1]
    timing.log_header()
    (their_first, their_last), (our_first, our_last) = (zip(*times, strict=True) for times in (theirs, ours))
    timing.log_row("time to the first token, median turn", their_first, our_first)
    timing.log_row("time to the last token, median turn", their_last, our_last)
    late = turns // 2
    decode = [[b - a for a, b in times] for times in (theirs, ours)]
    timing.log_row(f"between, a token of {tokens}", *([t / tokens for t in times] for times in decode))
    return {
        "prefill": timing.log_row("prefill, sum of the turns", [sum(their_first)], [sum(our_first)]),
        "prefill_late": timing.log_row(
            "prefill, sum of the later half", [sum(their_first[late:])], [sum(our_first[late:])]
        ),
        "answer": timing.log_row("answers, sum of the turns", [sum(their_last)], [sum(our_last)]),
        "answer_beams": timing.log_row(f"last answer, {BEAMS} beams of theirs", [beams], [our_last[-1]]),
        "step_seconds": statistics.median(decode[1]) / tokens,
    }


def grammar_overhead(pipeline: SolamiPipeline, step: float) -> float:
    """The grammar's share of a decoding step: its call late in an answer behind a long prompt."""
    grammar, config = pipeline.grammar(), pipeline.model.config
    prompt = torch.randint(0, 300, (1, CONTEXT - LONGEST))
    prompt[0, -1] = config.markers["mmgpt"]
    answer = [config.markers["sobo"], *[config.modalities["body"]["first_id"]] * 8]
    ids, scores = torch.cat([prompt, torch.tensor([answer])], 1), torch.randn(1, VOCABULARY)
    for _ in range(20):
        grammar(ids, scores)
    times = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        grammar(ids, scores)
        times.append(time.perf_counter() - begin)
    share = statistics.median(times) / step
    logger.info("grammar: %.3f ms of a step of %.1f ms", 1000 * statistics.median(times), 1000 * step)
    return share


def main(argv: list[str] | None = None) -> None:
    """Runs the dialogue and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=12, help="rounds of the dialogue")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each answer")
    parser.add_argument("--stream_seconds", type=float, default=4.0, help="length of an answer that is streamed")
    parser.add_argument("--only_decoding", action="store_true", help="only the ways of decoding a 135M model")
    parser.add_argument("--layers", type=int, default=30, help="of that model")
    parser.add_argument("--cpu_time", action="store_true", help="for it, CPU time instead of time on the wall")
    parser.add_argument("--ways", nargs="+", default=generation_decoding.WAYS, choices=generation_decoding.WAYS)
    args = parser.parse_args(argv)
    timing.show_results(logger, generation_decoding.logger, generation_streaming.logger, generation_folder.logger)
    results = {} if args.only_decoding else dialogues(args)
    pipeline = make_pipeline(args.seconds, config=generation_decoding.smollm(args.layers))
    results |= generation_decoding.rows(pipeline, user_turn(), args.cpu_time, args.ways)
    print(json.dumps({name: float(f"{value:.4g}") for name, value in results.items()}))


def dialogues(args: argparse.Namespace) -> dict[str, float]:
    """Everything but the ways of decoding."""
    pipeline = make_pipeline(args.seconds)
    results = dialogue(pipeline, args.turns)
    results["grammar_overhead"] = grammar_overhead(pipeline, results.pop("step_seconds"))
    pipeline = make_pipeline(args.stream_seconds, generation_streaming.make_processor)
    results |= generation_streaming.rows(pipeline, [user_turn() for _ in range(4)])
    results["folder_throughput"] = generation_folder.folder_throughput(make_pipeline(generation_folder.SECONDS))
    return results


if __name__ == "__main__":
    main()
