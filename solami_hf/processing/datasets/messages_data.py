"""Dialogues as `messages`, for trainers that render them with the chat template themselves.

    solami prepare messages TOKENS --processor FOLDER --output DIR
    trl sft --model_name_or_path FOLDER --dataset_name DIR --assistant_only_loss true --trust_remote_code true ...

The template marks the character's answers, so `assistant_only_loss` trains on what `solami sft` trains on (tested).
Our own trainers do not need this: they render the codes directly, which is far quicker.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets import Features, List, Value

from ...command_line import option, parse_arguments
from ..files.folder_or_hub import model_source
from ..files.output_folder import atomic_folder
from ..files.text_files import write_text
from .split_hygiene import leaking_ids
from .tasks import chat_messages, text_block
from .token_dataset import TAGS, card_text, config_entry, fingerprints, load_tokens, split_names, write_parquet

logger = logging.getLogger(__name__)
_text, _codes = Value("string"), List(Value("int32"))
_media = {"motion": {"trans": _codes, "body": _codes, "hand": _codes}, "audio": {"codes": _codes}}
MESSAGES = Features(
    id=_text, messages=List({"role": _text, "content": List({"type": _text, "text": _text, **_media})})
)


@dataclass
class MessagesArguments:
    """Arguments of `solami prepare messages`."""

    source: str = option(..., "Token dataset with chat (also accepted as the word after messages).")
    processor: str = option(..., "Folder or hub id of the SolamiProcessor that made it.")
    output: str = option(..., "Folder to write; it must not exist yet.")
    answer_format: str | None = option(None, "By default the processor's.")


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
    """Writes the dialogues of a token dataset as a `load_dataset`-able folder with the columns `id` and `messages`,
    whole or not at all. Returns split -> number of dialogues.

    Left out are training dialogues that would leak from held-out ones, and those without an answer or with what cannot
    be rendered; they are counted in the log. `data` is the folder or hub id of a token dataset with `chat`; the
    processor has the codecs that made the codes, and its characters' prompts stand in for missing ones;
    `answer_format` is by default its own. Raises FileNotFoundError: no such data; FileExistsError: there is something
    at `output`; ValueError: codes of another codec or a split of which nothing is left.
    """
    counts, answer_format = {}, answer_format or processor.answer_format
    splits = split_names(data, "chat")
    if not splits:
        raise FileNotFoundError(f"{data} has no chat tokens; run `solami prepare chat`")
    with atomic_folder(output) as folder:
        for split in splits:
            leaking = leaking_ids(data, "chat") if split == "train" else set()
            rows, left_out = load_tokens(data, "chat", split, processor, streaming=True), []
            dialogues = _dialogues(rows, processor, answer_format, leaking, left_out)
            counts[split] = write_parquet(folder / "messages" / f"{split}-00000-of-00001.parquet", dialogues, MESSAGES)
            if left_out:
                told = "%s, %s: %d dialogues are left out, such as %s"
                logger.warning(told, data, split, len(left_out), left_out[:3])
            if not counts[split]:
                raise ValueError(f"no {split} dialogue of {data} can be written, see the log for the reasons")
        configs, codecs = [config_entry("messages", counts)], fingerprints(processor, "chat")
        write_text(folder / "README.md", card_text(_CARD, tags=TAGS, configs=configs, codecs=codecs))
    return counts


_CARD = """# Dialogues for SOLAMI

`messages` with text, motion and audio as codes of the codecs named above, for the chat template of a SolamiProcessor.
"""


def _dialogues(rows, processor, answer_format: str, leaking: set[str], left_out: list) -> Iterator[dict]:
    """`{"id", "messages"}` of the rows that can be trained on; id and reason of the others go into `left_out`."""
    systems = {name: character["system"] for name, character in processor.characters.items()}
    for row in rows:
        system = None if any(turn["role"] == "system" for turn in row["turns"]) else systems.get(row["character"])
        try:
            messages = chat_messages(row, answer_format, system, processor.hearing)
            for message in messages:
                if isinstance(message["content"], str):
                    message["content"] = [text_block(message["content"])]
            if row["id"] in leaking:
                raise ValueError("it would leak from a held-out one")
            if not (processor.renderer.chat(messages)["labels"] >= 0).any():
                raise ValueError("the character never speaks")
        except ValueError as error:
            left_out.append((row["id"], str(error)))
        else:
            yield {"id": row["id"], "messages": messages}
