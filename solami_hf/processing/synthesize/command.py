"""The command: plans, scripts, motions, speech, and the manifest folder that comes out."""

import importlib
import logging
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ...command_line import option, parse_arguments
from ..files.folder_or_hub import with_sources
from ..files.output_folder import writing_to
from ..files.text_files import write_json, write_json_lines
from .asking import Asked, ask_in_parallel
from .lines import write_line_by_line
from .motions import Match, Motion, MotionMatcher, TextEncoder, bring_motion, read_motions
from .scripts import Character, Plan, draw_plans, read_characters, read_topics, write_script
from .writers import Answer, CachedWriter, EndpointError, WriterSettings, content_hash, open_writer

logger = logging.getLogger(__name__)
MISSING_MOTION = ("keep", "reject")
CAPTION_HINTS = 30  # shown to the writing model as examples


@dataclass
class SynthesizeArguments(WriterSettings):
    """Arguments of `solami prepare chat --synthesize`."""

    motions: str = option(..., "Captioned motions: what `solami prepare motion` reads or writes.")
    output: str = option(..., "Manifest folder to write; `solami prepare chat` makes tokens of it.")
    num_dialogues: int = option(100, "Dialogues to write; can be raised in a later run.")
    topics: str | None = option(None, "Text file, one topic a line, or a YAML list.")
    characters: str | None = option(None, "YAML, id: {name, system, voice}.")
    min_rounds: int = option(2, "Fewest rounds of a dialogue.")
    max_rounds: int = option(5, "Most rounds of a dialogue.")
    max_words: int = option(40, "Most words of a line.")
    test_share: float = option(0.0, "Share of topics for testing, with test motions.")
    seed: int = option(0, "Seed of plans, requests, choices and speech.")
    line_by_line: bool = option(False, "A local model answers authored lines, for small ones that write no JSON.")
    encoder: str | None = option(None, "Text encoder (folder or Hub id) for captions; hashed TF-IDF without one.")
    top_k: int = option(8, "Motions that come into question for a line.")
    min_similarity: float = option(0.3, "Least cosine of description and caption; 0.4 to 0.5 fits sentence encoders.")
    max_repeats: int = option(2, "Lines in a row that may use the same motion.")
    missing_motion: str = option("keep", "keep: a line without a near motion has none; reject: no dialogue, either.")
    tts: str | None = option(
        None,
        "module:function, called with text, voice and seed, giving (samples, rate), such as "
        "solami_hf.processing.audio.speech_voices:speak. Without it the lines have no sound.",
    )
    user_voices: list[str] = option(["slt", "kal16"], "Voices of the users, one a dialogue by lot.")

    def __post_init__(self):
        if self.missing_motion not in MISSING_MOTION:
            raise ValueError(f"missing_motion is {self.missing_motion!r}, expected one of {', '.join(MISSING_MOTION)}")
        super().__post_init__()
        for name in ("max_words", "top_k", "max_repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.line_by_line and not self.local_model:
            raise ValueError("line_by_line needs a local_model, which answers many lines at once")
        if self.tts and not self.user_voices:
            raise ValueError("tts needs user_voices: name at least one voice for the user's lines")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    program, description = "solami prepare chat --synthesize MOTIONS", sys.modules[__package__].__doc__
    (args,) = parse_arguments([SynthesizeArguments], argv, program, description, words=["motions"])
    with writing_to(args.output):
        report = synthesize(args)
    logger.info("wrote %s to %s", ", ".join(f"{value} {name}" for name, value in report.items()), args.output)
    return 0


def synthesize(args: SynthesizeArguments, writer=None) -> dict:
    """Writes the manifest folder of synthetic dialogues, with the `writer` that the arguments name unless one is given
    (see `writers.CachedWriter` for what it must have).

    Returns the report: dialogues per split, what was rejected, requests sent and answered from the cache, tokens (of
    this run's requests, and of all answers), lines with and without motion, their mean similarity, lines spoken.
    Raises FileNotFoundError: no motions, topics or characters where the arguments say; ValueError: arguments that do
    not fit, no usable motion, or no dialogue could be used; OSError: the endpoint refuses everything, or fails for
    dialogue after dialogue.
    """
    args = with_sources(args, "local_model", "encoder", bare=["local_model", "encoder"])
    characters = read_characters(args.characters)
    speak = _speak(args, characters)
    rounds = args.min_rounds, args.max_rounds
    topics = read_topics(args.topics)
    plans = draw_plans(topics, characters, args.num_dialogues, rounds, args.test_share, args.seed)
    motions = {split: read_motions(args.motions, split) for split in sorted({plan.split for plan in plans})}
    if any(motion.path is None for some in motions.values() for motion in some):
        told = "%s holds tokens, no motion files: turns get a motion_id, for `solami prepare chat --motion_tokens %s`"
        logger.info(told, args.motions, args.motions)
    folder = Path(args.output)
    cached = CachedWriter(writer or open_writer(args), folder / "cache" / "answers")
    scripts = _write_scripts(args, cached, plans, motions)
    maker = _DialogueMaker(args, motions, speak)
    rows, rejected = maker.make(plans, scripts)
    write_json_lines(folder / "rejected.jsonl", rejected, ensure_ascii=False)
    if not rows:
        raise ValueError(f"no dialogue could be used, see {folder}/rejected.jsonl; the first: {rejected[0]['reason']}")
    write_json_lines(folder / "manifest.jsonl", rows, ensure_ascii=False)
    report = _report(rows, rejected, [answer for script in scripts for answer in script.answers], maker.spoken)
    write_json(folder / "report.json", report)
    return report


def _speak(args: SynthesizeArguments, characters: list[Character]) -> Callable | None:
    if not args.tts:
        logger.warning("no tts is named: the dialogues will have words and motions, but no sound")
        return None
    voiceless = [character.id for character in characters if not character.voice]
    if voiceless:
        raise ValueError(f"tts needs a voice for every character; without one: {', '.join(voiceless)}")
    return load_callable(args.tts)


def load_callable(name: str) -> Callable:
    """The function that `module:function` names; modules of the working directory are found too. Raises ValueError:
    the name has another form, or there is no such module or function."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"tts is {name!r}, expected module:function")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"tts {name!r} cannot be loaded: {error}") from error
    if not callable(found):
        raise ValueError(f"tts {name!r} is no function")
    return found


def _write_scripts(args, cached: CachedWriter, plans: list[Plan], motions: dict[str, list[Motion]]) -> list[Asked]:
    """The script of each plan, in order; what the endpoint failed on has a reason."""
    if args.line_by_line:
        return write_line_by_line(plans, cached, args.attempts, args.max_words)

    def write(plan: Plan) -> Asked:
        rng = random.Random(f"{plan.seed} hints")
        shown = rng.sample(motions[plan.split], min(CAPTION_HINTS, len(motions[plan.split])))
        hints = list(dict.fromkeys(rng.choice(motion.captions) for motion in shown))
        return write_script(plan, cached.complete, hints, args.attempts, args.max_words)

    results = ask_in_parallel(plans, write, cached.close, args.concurrency, "write", "dialogue")
    return [Asked(reason=f"endpoint: {r}") if isinstance(r, EndpointError) else r for r in results]


class _DialogueMaker:
    """Scripts to manifest rows: motions, voices and files."""

    def __init__(self, args: SynthesizeArguments, motions: dict[str, list[Motion]], speak: Callable | None):
        self.args, self.speak, self.spoken, self.folder = args, speak, 0, Path(args.output)
        embed = TextEncoder(args.encoder, self.folder / "cache" / "embeddings") if args.encoder else None
        settings = args.top_k, args.min_similarity, args.max_repeats
        self.matchers = {split: MotionMatcher(some, embed, *settings) for split, some in motions.items()}

    def make(self, plans: list[Plan], scripts: list[Asked]) -> tuple[list[dict], list[dict]]:
        """Rows of the manifest, and what was rejected with reasons; both in the order of the plans."""
        wanted = {split: [] for split in self.matchers}
        for plan, script in zip(plans, scripts, strict=True):
            wanted[plan.split] += [line["motion"] for line in _lines(script)]
        near = {split: matcher.nearest(wanted[split]) for split, matcher in self.matchers.items()}
        rows, rejected, seen = [], [], {}
        bar = tqdm(plans, desc="motions and speech", unit="dialogue", disable=None)
        for plan, script in zip(bar, scripts, strict=True):
            reason = script.reason
            if script.value is not None:
                said = " ".join(line["say"].casefold() for line in _lines(script))
                first = seen.setdefault(said, plan.id)
                try:
                    if first != plan.id:
                        raise ValueError(f"it says the same as {first}")
                    rows.append(self._row(plan, script, near[plan.split]))
                    continue
                except (ValueError, FileNotFoundError) as error:
                    reason = str(error)
            answers = [answer.text for answer in script.answers]
            base = {"id": plan.id, "topic": plan.topic, "character": plan.character.id}
            rejected.append({**base, "reason": reason, "answers": answers})
        return rows, rejected

    def _row(self, plan: Plan, script: Asked, near: dict) -> dict:
        rng = random.Random(f"{plan.seed} row")
        matches = [self._match(line["motion"], near, plan.split, rng) for line in _lines(script)]
        voices = {"user": rng.choice(self.args.user_voices) if self.speak else "", "assistant": plan.character.voice}
        turns = [{"role": "system", "text": plan.character.system}]
        for index, (line, match) in enumerate(zip(_lines(script), matches, strict=True)):
            role = ("user", "assistant")[index % 2]
            turn = {"role": role, "text": line["say"], "emotion": line["emotion"], "script_motion": line["motion"]}
            if match is not None:
                turn.update(motion_id=match.motion.id, motion_text=match.caption)
                turn["similarity"] = round(match.similarity, 4)
                if match.motion.path is not None:
                    turn["motion"] = bring_motion(match.motion, self.folder)
            if self.speak:
                turn.update(audio=self._say(line["say"], voices[role]), voice=voices[role])
            turns.append(turn)
        row = {"id": plan.id, "split": plan.split, "source": f"synthetic: {plan.topic}", "topic": plan.topic}
        return {**row, "title": script.value["title"], "character": plan.character.id, "turns": turns}

    def _match(self, description: str, near: dict, split: str, rng: random.Random) -> Match | None:
        matcher = self.matchers[split]
        if not description:
            return None
        match = matcher.choose(near[description], rng)
        if match is None and self.args.missing_motion == "reject":
            if near[description]:
                raise ValueError(f"the only motion near {description!r} was used {matcher.max_repeats} times in a row")
            raise ValueError(f"no motion is near {description!r} (similarity {matcher.min_similarity} or more)")
        return match

    def _say(self, text: str, voice: str) -> str:
        """The file of a spoken line, relative to the folder; each line is spoken once."""
        from ..audio.waveforms import write_audio

        tts, seed = self.args.tts, self.args.seed
        path = f"wav/{content_hash([tts, voice, seed, text])[:24]}.wav"
        if not (self.folder / path).is_file():
            try:
                samples, rate = self.speak(text=text, voice=voice, seed=seed)
                write_audio(self.folder / path, samples, rate)
            except ImportError as error:
                raise OSError(f"tts {tts} cannot run: {error}") from error
            except Exception as error:  # whatever a foreign function raises, it must not cost the other dialogues
                reason = f"{type(error).__name__}: {error}"
                raise ValueError(f"the voice {voice!r} could not speak {text!r}: {reason}") from error
            self.spoken += 1
        return path


def _lines(script: Asked) -> list[dict]:
    """The lines of a script in order, the user's and the character's in turn."""
    rounds = script.value["rounds"] if script.value else []
    return [turn[who] for turn in rounds for who in ("user", "character")]


def _report(rows: list[dict], rejected: list[dict], answers: list[Answer], spoken: int) -> dict:
    fresh = [answer for answer in answers if not answer.cached]
    turns = [turn for row in rows for turn in row["turns"] if turn["role"] != "system"]
    similarities = [turn["similarity"] for turn in turns if "similarity" in turn]
    return {
        "train": sum(row["split"] == "train" for row in rows),
        "test": sum(row["split"] == "test" for row in rows),
        "rejected": len(rejected),
        "answers": len(answers),
        "answers_from_cache": len(answers) - len(fresh),
        "prompt_tokens": sum(answer.prompt_tokens for answer in answers),
        "completion_tokens": sum(answer.completion_tokens for answer in answers),
        "prompt_tokens_this_run": sum(answer.prompt_tokens for answer in fresh),
        "completion_tokens_this_run": sum(answer.completion_tokens for answer in fresh),
        "lines": len(turns),
        "lines_without_motion": len(turns) - len(similarities),
        "lines_without_near_motion": sum(bool(t["script_motion"]) and "similarity" not in t for t in turns),
        "mean_similarity": round(sum(similarities) / max(1, len(similarities)), 4),
        "spoken_this_run": spoken,
    }
