"""`solami generate`: answers to many inputs as a results folder, the six pretraining tasks and whole dialogues.

    solami generate --task t2m --checkpoint CKPT --input captions.txt --output RESULTS
    solami generate --task s2t --checkpoint CKPT --input recordings/ --output RESULTS
    solami generate --task m2t --checkpoint CKPT --input TOKENS --split test --output RESULTS
    solami generate --task chat --checkpoint CKPT --input DIALOGUES --output RESULTS --repetitions 5 --temperature 0.8

| task | from | to | plain inputs |
|---|---|---|---|
| t2m, t2s | text | motion, speech | .txt with a line each; .json or .jsonl of strings or {"id", "text"} |
| m2t, m2m | motion | text, a partner's motion | .npz, .npy, .bvh, a folder of them, .json(l) of {"id", "motion"} |
| s2t, s2s | speech | transcript, an answer | .wav, .mp3, .opus, ..., a folder of them, .json(l) of {"id", "audio"} |
| chat | dialogues | the character's answers | |

INPUT may also be a token dataset of `solami prepare` (a folder or a Hub id) or a folder that it reads, with
manifest.jsonl for example; their references go into the results. RESULTS gets results.jsonl with a row an answer
(texts, codes, validity, seed, latency, references), run.json, a card that makes it load with
`datasets.load_dataset(RESULTS)`, and the answers' motions and sounds as media/**.npz and .wav.

Answers are generated in batches, each input --repetitions times with seeds --seed, --seed + 1, ... Stopped at any
time, the same command goes on: no answer is lost and none is there twice. An input that cannot be used costs no other:
its row says why, and the exit code is 1. --conditions are for chat: see `solami_hf.generation.folder.jobs`.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import Literal

from ...command_line import option, parse_arguments
from ...processing.files.folder_or_hub import model_source
from ...processing.files.output_folder import writing_to

logger = logging.getLogger(__name__)
TASKS = ("t2m", "m2t", "m2m", "t2s", "s2t", "s2s", "chat")
PACKAGED = "the packaged character"


@dataclass
class LoadingArguments:
    """A model and how it is loaded."""

    checkpoint: str | None = option(
        None,
        "Folder or hub id of a checkpoint with its codecs, or of an adapter; by default the packaged "
        "character (needs solami_hf[character]).",
    )
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = option("float32", "Of the language model.")
    load_in_8bit: bool = option(False, "Linear layers in 8 bits (needs solami_hf[qlora]), on a CPU too.")
    engine: Literal["torch", "onnx"] = option(
        "torch", "onnx: ONNX Runtime with weights of 8 bits, for CPUs (needs solami_hf[onnx])."
    )
    device_map: str | None = option(None, "auto, cpu, cuda, cuda:1, ...: where accelerate puts the layers.")
    base: str | None = option(None, "The model of an adapter, where it has moved since.")
    merge_adapter: bool = option(False, "Add an adapter to its base's weights; faster.")
    asr: str | None = option(
        None,
        "Folder or hub id that recognises users' speech, where the checkpoint reads words; by default "
        "Whisper tiny.en (needs solami_hf[eval]), and of the input of `solami generate` the words that it has.",
    )
    face: bool = option(True, "Give answers a face; it stands in the npz of their motion.")

    def load_pipeline(self, max_new_tokens: int):
        """The `SolamiPipeline`; FileNotFoundError and ValueError as `SolamiPipeline.from_pretrained`."""
        from ..pipeline import SolamiPipeline

        placed = {} if self.device_map is None else {"device_map": self.device_map}
        return SolamiPipeline.from_pretrained(
            None if self.checkpoint is None else model_source("checkpoint", self.checkpoint),
            dtype=self.dtype,
            max_new_tokens=max_new_tokens,
            quantization="int8" if self.load_in_8bit else None,
            base=self.base,
            merge=self.merge_adapter,
            asr=self.asr,
            face=self.face,
            engine=None if self.engine == "torch" else self.engine,
            **placed,
        )


@dataclass
class TalkingArguments(LoadingArguments):
    """A model, and how the answers of a session are drawn."""

    temperature: float | None = option(None, "0 answers greedily; by default as the checkpoint's config says.")
    top_p: float = option(1.0, "Nucleus, when the temperature is above 0.")
    max_new_tokens: int = option(600, "Longest answer in tokens.")
    seed: int = option(0, "For sampling.")

    @property
    def sampling(self) -> dict:
        """Keyword arguments of a session's answers; ValueError for numbers out of their range."""
        from ..settings import Decoding

        return Decoding(self.max_new_tokens, self.temperature, self.top_p).sampling


@dataclass
class GenerateArguments(LoadingArguments):
    """Arguments of `solami generate`."""

    task: Literal[TASKS] = option(..., "t2m, m2t, m2m, t2s, s2t, s2s, or chat.", kw_only=True)
    input: str = option(..., "File, folder, token dataset or Hub id, see above.", kw_only=True)
    output: str = option(..., "Results folder; an unfinished one is continued.", kw_only=True)
    split: str = option("test", "Of a token dataset or manifest.")
    repetitions: int = option(1, "Answers to each input; can be raised in a later run.")
    seed: int = option(0, "Of the first repetition.")
    conditions: list[str] = option(["given"], "chat: of given, own_history, no_history, other_audio, other_motion.")
    temperature: float = option(0.0, "0 answers greedily.")
    top_p: float = option(1.0, "Nucleus, when the temperature is above 0.")
    max_new_tokens: int = option(600, "Longest answer in tokens.")
    batch_size: int = option(32, "Files encoded, and answers generated, together; 1 for a live turn's latency.")
    batching: Literal["auto", "padded", "continuous"] = option(
        "auto", "continuous: as one ends the next begins; auto: that on a GPU, else padded."
    )
    instruction: str | None = option(None, "Words of the prompt; by default a phrasing of the task, drawn by seed.")
    voice: str | None = option(None, "chat: one of the checkpoint's voices for all answers.")
    media: bool = option(True, "Write motions and sounds; codes are in the results anyway.")

    def __post_init__(self):
        from .jobs import CONDITIONS

        if self.repetitions < 1 or self.batch_size < 1:
            raise ValueError(
                f"repetitions is {self.repetitions} and batch_size {self.batch_size}, expected at least 1 of each"
            )
        if self.engine == "onnx" and self.batching == "continuous":
            raise ValueError("with --engine onnx inputs are answered in turn; leave --batching continuous out")
        unknown = [name for name in self.conditions if name not in CONDITIONS]
        if unknown or not self.conditions or len(set(self.conditions)) < len(self.conditions):
            raise ValueError(f"conditions is {self.conditions}, expected some of {', '.join(CONDITIONS)}, each once")
        if self.task != "chat" and (self.conditions != ["given"] or self.voice):
            raise ValueError(f"conditions and voice are for --task chat, got them for {self.task}")
        if self.task == "chat" and self.instruction:
            raise ValueError("instruction is for the one-shot tasks; a dialogue has its own system prompt")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    (args,) = parse_arguments([GenerateArguments], argv, "solami generate", __doc__)
    counts = generate(args)
    logger.info(
        "%d answers, %d of them valid, %d inputs that could not be used: %s",
        *(counts["answers"], counts["valid"], counts["errors"], args.output),
    )
    return 1 if counts["errors"] else 0


def generate(args: GenerateArguments, pipeline=None) -> dict:
    """Answers all inputs and writes or completes the results folder, with a loaded `SolamiPipeline` or that of the
    arguments. Returns `{"answers", "valid", "errors"}`, counted over the whole folder. Raises FileNotFoundError: no
    checkpoint or no input there; ValueError: no usable input at all, codes of another codec, an unknown voice, or a
    folder of another run; OSError: nothing can be written to the folder, or another process is writing to it."""
    with writing_to(args.output):
        return _generate(args, pipeline)


def _generate(args: GenerateArguments, pipeline) -> dict:
    from ...processing.datasets.results import key_of
    from ..results_writer import ResultsWriter
    from ..settings import Decoding
    from .folder_run import run_folder
    from .jobs import in_batches

    decoding = Decoding(args.max_new_tokens, args.temperature, args.top_p, args.batching)
    pipeline = pipeline or args.load_pipeline(args.max_new_tokens)
    if args.media:
        _check_media(pipeline.processor, args.task, args.voice)
    seeds = list(range(args.seed, args.seed + args.repetitions))
    inputs, stages = _stages(args, pipeline, seeds)
    batches = in_batches(stages, args.batch_size)
    settings = _settings(args, pipeline, seeds, inputs, decoding)
    keys = [[key_of(job.columns) for job in batch] for batch in batches]
    with ResultsWriter(args.output, settings, keys) as writer:
        return run_folder(pipeline, batches, writer, decoding, args.media)


def _stages(args: GenerateArguments, pipeline, seeds: list[int]):
    """The inputs, and their jobs stage by stage."""
    from ...processing.datasets.layouts.find_layout import root_of
    from ..hearing import dialogues_in_words
    from ..inputs import read_dialogues, read_items
    from .jobs import dialogue_jobs, task_jobs

    if args.task == "chat":
        dialogues = read_dialogues(args.input, pipeline.processor, args.split, args.batch_size)
        if args.asr and pipeline.processor.hearing != "codes":
            if not any(file.get("audio") for dialogue in dialogues for file in dialogue.files):
                raise ValueError(
                    f"asr recognises recordings, and {args.input} has none; leave it out, or give a manifest"
                )
            dialogues_in_words(dialogues, root_of(args.input), pipeline.asr)
        return dialogues, dialogue_jobs(pipeline, dialogues, seeds, args.conditions, args.max_new_tokens, args.voice)
    items = read_items(args.task, args.input, pipeline.processor, args.split, args.batch_size)
    return items, task_jobs(pipeline, args.task, items, seeds, args.instruction, args.max_new_tokens)


def _check_media(processor, task: str, voice: str | None) -> None:
    """Fails now, not after hours, when what is to be written cannot be made."""
    from ..inputs import kinds_of

    target = "chat" if task == "chat" else kinds_of(task)[1]
    if target in ("motion", "chat"):
        processor.motion_codec.eval()
    if target in ("audio", "chat"):
        processor.speech_codec.eval()
        for name in {voice, *(known.get("voice") for known in processor.characters.values())} - {None}:
            processor.voices.prompt(name, processor.speech_codec)


def _settings(args: GenerateArguments, pipeline, seeds: list[int], inputs: list, decoding) -> dict:
    """Contents of `run.json`, which a later run must share to go on."""
    from ...modeling.solami.backbones import model_fingerprint
    from ...modeling.speech_codec.codec_interface import codec_fingerprint
    from ..inputs import left_out

    processor, config = pipeline.processor, pipeline.model.config
    told = json.dumps([vars(entry) for entry in inputs], default=_listed)
    batching = "continuous" if decoding.is_continuous(pipeline.model) else "padded"
    codecs = {name: codec_fingerprint(getattr(processor, f"{name}_codec")) for name in ("motion", "speech")}
    same = ("task", "input", "split", "conditions", "batch_size", "instruction", "voice", "media")
    return {
        **{name: getattr(args, name) for name in same},
        "checkpoint": args.checkpoint or PACKAGED,
        "model": model_fingerprint(pipeline.model),
        "inputs": hashlib.sha256(told.encode()).hexdigest()[:16],
        "items": len(inputs),
        "left_out": left_out(args.task, args.input) if args.task != "chat" else [],
        "seeds": seeds,
        "decoding": {**vars(decoding), "batching": batching},
        "answer_format": processor.answer_format,
        **({} if processor.hearing == "codes" else {"hearing": processor.hearing, "asr": args.asr}),
        "codecs": codecs,
        **{name: getattr(config, name) for name in ("fps", "sampling_rate", "frame_rates", "speech_levels")},
    }


def _listed(value):
    return value.tolist() if hasattr(value, "tolist") else str(value)
