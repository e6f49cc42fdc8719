"""How soon a character begins to move and speak: `first_motion` and `first_audio` of `generation.py`.

    python benchmarks/generation_streaming.py [--seconds 4] [--turns 4] [--look_ahead runs/demo]

An interleaved answer in the second turn of a dialogue, with the 110M weights of `generation.py` and codecs of the
paper's sizes, in fp32 and one sequence: from the question to all motion and sound of `DialogueSession.answer`, over
from the same question to the first of `DialogueSession.stream`. Both are ours; the original waits for the whole
answer too, and has it later. `stream_whole` is the whole answer over the whole stream: what streaming costs.
`stream_sound` is the largest difference between the two sounds, as a share of the peak.

With `--look_ahead` and the folder of a demo's run, instead: by how much the joints of its test dialogues' answers are
off for each number of codes that the stream waits for, beside the pelvis.
"""

import logging
import time

import numpy as np
import timing
import torch

from solami_hf.generation import AnswerEnd, AudioPiece, DialogueSession, MotionPiece
from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.modeling.motion_vq.streaming_motion_vq import MotionVQDecoderStream, decoder_reach
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.processing.datasets.token_dataset import load_tokens
from solami_hf.processing.motion.features import features_to_joints
from solami_hf.processing.processing_solami import SolamiProcessor

MOTION_CHUNK = 3  # codes that come together in an interleaved answer

logger = logging.getLogger(__name__)


def make_processor(tokenizer) -> SolamiProcessor:
    """Codecs of the paper's sizes; the voice is turned down to that of a trained one."""
    motion, speech = SolamiMotionVQModel(SolamiMotionVQConfig()), SolamiSpeechCodecModel(SolamiSpeechCodecConfig())
    with torch.no_grad():
        speech.decoder.layers[-1].gain.mul_(0.01)
    return SolamiProcessor(tokenizer, motion.eval(), speech.eval(), interleaved=True)


def streamed(session: DialogueSession, turn: dict) -> tuple[dict, AnswerEnd]:
    """Seconds to the first event of each kind, and the last event."""
    begin, first = time.perf_counter(), {}
    for event in session.stream(turn):
        first.setdefault(type(event), time.perf_counter() - begin)
    return first, event


def rows(pipeline, turns: list[dict]) -> dict[str, float]:
    """The rows, and by how much the media differ; the first turn is what was said before."""
    session = DialogueSession(pipeline, system="You are Ada.")
    session.answer(turns[0])
    whole, times, sound = [], [], []
    for turn in turns[1:]:
        begin = time.perf_counter()
        reply = session.fork().answer(turn)
        whole.append(time.perf_counter() - begin)
        first, end = streamed(session.fork(), turn)
        times.append(first)
        if not np.array_equal(reply.answer.body, end.reply.answer.body) or not reply.valid:
            raise RuntimeError("a streamed answer has other codes than the whole one")
        sound.append(float(np.abs(reply.audio - end.reply.audio).max() / np.abs(reply.audio).max()))
    logger.info("%.1f s of answer, %d turns", end.start, len(whole))
    timing.log_header()
    results = {}
    for name, kind in (("first_motion", MotionPiece), ("first_audio", AudioPiece), ("stream_whole", AnswerEnd)):
        results[name] = timing.log_row(f"whole answer, {name}", whole, [first[kind] for first in times])
    return results | {"stream_sound": max(sound)}


@torch.no_grad()
def look_ahead(run: str) -> dict[str, float]:
    """Millimetres that joints are off on average, the pelvis put in place, for 0, 1, 2, ... codes of look-ahead."""
    model, results = SolamiMotionVQModel.from_pretrained(f"{run}/motion_codec").eval(), {}
    turns = [turn for row in load_tokens(f"{run}/data", "chat", "test") for turn in row["turns"]]
    turns = [turn for turn in turns if turn["role"] == "assistant" and len(turn["body"]) > MOTION_CHUNK]
    codes = [torch.tensor([turn["body"], turn["hand"]])[:, None] for turn in turns]
    whole = [features_to_joints(model.decode(*both).motion_values[0]) for both in codes]
    logger.info(
        "%d answers of %.1f codes; reach %d",
        len(codes),
        np.mean([c.shape[2] for c in codes]),
        decoder_reach(model.config),
    )
    for wait in (0, 1, 2, 3, 4, 6, decoder_reach(model.config)):
        off = []
        for both, expected in zip(codes, whole, strict=True):
            stream = MotionVQDecoderStream(model, wait)
            chunks = [stream.decode(*chunk) for chunk in both.split(MOTION_CHUNK, dim=2)]
            joints = features_to_joints(torch.cat([*chunks, stream.finish()], dim=1)[0])
            difference = (joints - joints[:, :1]) - (expected - expected[:, :1])
            off.append(1000 * difference.norm(dim=-1).mean(dim=1))
        off = torch.cat(off)
        results[str(wait)] = float(off.mean())
        logger.info("%2d codes: %6.2f mm, 95 %% of the frames below %6.2f", wait, off.mean(), off.quantile(0.95))
    return results


def main(argv: list[str] | None = None) -> None:
    """These rows alone."""
    import argparse
    import json

    import generation

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each answer")
    parser.add_argument("--turns", type=int, default=4, help="turns, the first of which is history")
    parser.add_argument("--look_ahead", metavar="RUN", help="folder of a demo's run")
    args = parser.parse_args(argv)
    timing.show_results(logger, generation.logger)
    if args.look_ahead:
        print(json.dumps(look_ahead(args.look_ahead)))
        return
    pipeline = generation.make_pipeline(args.seconds, make_processor)
    results = rows(pipeline, [generation.user_turn() for _ in range(args.turns)])
    print(json.dumps({name: float(f"{value:.4g}") for name, value in results.items()}))


if __name__ == "__main__":
    main()
