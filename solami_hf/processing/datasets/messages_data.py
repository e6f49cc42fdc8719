"""Dialogues as `messages`, for trainers that render them with the chat template themselves.

    solami prepare messages TOKENS --processor FOLDER --output DIR
    trl sft --model_name_or_path FOLDER --dataset_name DIR --assistant_only_loss true --trust_remote_code true ...

The template marks the character's answers, so `assistant_only_loss` trains on what `solami sft` trains on (tested).
Our own trainers do not need this: they render the codes directly, which is far quicker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Features, List, Value
from huggingface_hub import DatasetCard, DatasetCardData

from ...command_line import parse_arguments
from ..files.folder_or_hub import model_source
from ..files.output_folder import atomic_folder
from .split_hygiene import leaking_ids
from .tasks import chat_messages, text_block
from .token_dataset import fingerprints, load_tokens, split_names, write_parquet

logger = logging.getLogger(__name__)
_codes = List(Value("int32"))
MESSAGES = Features(
    id=Value("string"),
    messages=List(
        {
            "role": Value("string"),
            "content": List(
                {
                    "type": Value("string"),
                    "text": Value("string"),
                    "motion": {"trans": _codes, "body": _codes, "hand": _codes},
                    "audio": {"codes": _codes},
                }
            ),
        }
    ),
)


@dataclass
class MessagesArguments:
    """Arguments of `solami prepare messages`."""

    source: str = field(metadata={"help": "Token dataset with chat (also accepted as the word after messages)."})
    processor: str = field(metadata={"help": "Folder or hub id of the SolamiProcessor that made it."})
    output: str = field(metadata={"help": "Folder to write; it must not exist yet."})
    answer_format: str | None = field(default=None, metadata={"help": "By default the processor's."})


def main(argv: list[str]) -> int:
    """Entry point of `solami prepare messages`; returns the exit code."""
    from ..processing_solami import SolamiProcessor

    (args,) = parse_arguments([MessagesArguments], argv, "solami prepare messages TOKENS", words=["source"])
    processor = SolamiProcessor.from_pretrained(model_source("processor", args.processor))
    counts = write_messages(args.source, processor, args.output, args.answer_format)
    logger.info("wrote %s dialogues to %s", ", ".join(f"{n} {split}" for split, n in counts.items()), args.output)
    return 0


def write_messages(
    data: str | Path, processor, output: str | Path, answer_format: str | None = None
) -> dict[str, int]:
    """Writes the dialogues of a token dataset as a `load_dataset`-able folder with the columns `id` and `messages`.

    Left out are training dialogues that would leak from held-out ones, and those without an answer or with what cannot
    be rendered; they are counted in the log.

    Args:
        data: folder or hub id of a token dataset with `chat`.
        processor: a `SolamiProcessor` with the codecs that made the codes; its characters' prompts stand in for
            missing ones.
        output: the folder to write, whole or not at all.
        answer_format: by default the processor's.

    Returns:
        split -> number of dialogues.

    Raises:
        FileNotFoundError: no such data. FileExistsError: there is something at `output`.
        ValueError: codes of another codec or a split of which nothing is left.
    """
    counts, answer_format = {}, answer_format or processor.answer_format
    splits = split_names(data, "chat")
    if not splits:
        raise FileNotFoundError(f"{data} has no chat tokens; run `solami prepare chat`")
    with atomic_folder(output) as folder:
        for split in splits:
            leaking = leaking_ids(data, "chat") if split == "train" else set()
            rows = load_tokens(data, "chat", split, processor, streaming=True)
            kept = _Kept(processor, answer_format, leaking)
            write_parquet(folder / "messages" / f"{split}-00000-of-00001.parquet", kept.of(rows), MESSAGES)
            kept.log(f"{data}, {split}")
            if not kept.count:
                raise ValueError(f"no {split} dialogue of {data} can be written, see the log for the reasons")
            counts[split] = kept.count
        (folder / "README.md").write_text(_card(counts, fingerprints(processor, "chat")), encoding="utf-8")
    return counts


class _Kept:
    """Dialogues that can be trained on, and how many were not."""

    def __init__(self, processor, answer_format: str, leaking: set[str]):
        self.renderer, self.answer_format, self.leaking = processor.renderer, answer_format, leaking
        self.systems = {name: character["system"] for name, character in processor.characters.items()}
        self.count, self.left_out = 0, []

    def of(self, rows) -> Iterator[dict]:
        """`{"id", "messages"}` of the rows of a `chat` dataset."""
        for row in rows:
            try:
                messages = self._messages(row)
                reason = self._problem(row, messages)
            except ValueError as error:
                reason = str(error)
            if reason:
                self.left_out.append((row["id"], reason))
                continue
            self.count += 1
            yield {"id": row["id"], "messages": messages}

    def log(self, what: str) -> None:
        """Says what was left out."""
        if self.left_out:
            logger.warning("%s: %d dialogues are left out, such as %s", what, len(self.left_out), self.left_out[:3])

    def _messages(self, row: dict) -> list[dict]:
        has_system = any(turn["role"] == "system" for turn in row["turns"])
        system = None if has_system else self.systems.get(row["character"])
        messages = chat_messages(row, self.answer_format, system, self.renderer.hearing)
        return [
            {**m, "content": [text_block(m["content"])] if isinstance(m["content"], str) else m["content"]}
            for m in messages
        ]

    def _problem(self, row: dict, messages: list[dict]) -> str | None:
        if row["id"] in self.leaking:
            return "it would leak from a held-out one"
        trained = (self.renderer.chat(messages)["labels"] >= 0).any()
        return None if trained else "the character never speaks"


def _card(counts: dict[str, int], codecs: dict[str, str]) -> str:
    files = [{"split": split, "path": f"messages/{split}-*.parquet"} for split in counts]
    data = DatasetCardData(
        tags=["solami", "motion", "speech"], configs=[{"config_name": "messages", "data_files": files}]
    )
    data.codecs = codecs
    return str(
        DatasetCard(
            f"---\n{data.to_yaml()}\n---\n\n# Dialogues for SOLAMI\n\n`messages` with text, motion and audio as codes "
            "of the codecs named above, for the chat template of a SolamiProcessor.\n"
        )
    )
