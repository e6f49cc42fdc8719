"""`solami merge ADAPTER_OR_RUN --output DIR`: an adapter and the model that it was trained on become one folder.

ADAPTER_OR_RUN is a run's folder, one of its checkpoints, or any folder or hub id with PEFT's `adapter_config.json`.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..command_line import option, parse_arguments
from ..hub_cards.cards import model_card
from ..hub_cards.repository_files import adapter_folder
from ..processing.files.folder_or_hub import hub_id
from ..processing.files.output_folder import atomic_folder
from ..processing.files.text_files import read_json, write_text
from .language_model.adapters import load_merged

logger = logging.getLogger(__name__)


@dataclass
class MergeArguments:
    """Arguments of `solami merge`."""

    adapter: str = option(..., "Run folder, checkpoint or adapter (also accepted as the first word).")
    output: str = option(..., "Folder to write; it must not exist yet.")
    base: str | None = option(None, "The model that it was trained on, where it has moved since.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    (args,) = parse_arguments([MergeArguments], argv, "solami merge", words=["adapter"])
    merge(args.adapter, args.output, args.base)
    logger.info("wrote %s", args.output)
    return 0


def merge(adapter: str | Path, output: str | Path, base: str | Path | None = None) -> None:
    """Writes model (float32), processor with its codecs, and card as one folder, whole or not at all. `adapter` is the
    folder of a run, of one of its checkpoints or of an adapter, or the hub id of an adapter; `base`, by default the
    one that it names, the folder or hub id of the model that it was trained on. Raises FileNotFoundError: no adapter
    there, or its base is gone; FileExistsError: there is something at `output`; ValueError: the adapter does not fit
    the base, or neither of them has a processor."""
    from peft import PeftConfig

    from ..modeling.solami.configuration_solami import follow_formats
    from ..processing.processing_solami import SolamiProcessor

    found = str(hub_id(str(adapter)) or adapter_folder(adapter))
    with atomic_folder(output) as folder:
        base = str(base or PeftConfig.from_pretrained(found).base_model_name_or_path)
        model = load_merged(found, base)
        run = Path(found).parent
        beside = [path for path in (Path(found), run) if (path / "processor_config.json").is_file()]
        processor = SolamiProcessor.from_pretrained(beside[0] if beside else base)
        if not beside and (run / "training_args.json").is_file():  # of a run that has not finished
            told = read_json(run / "training_args.json")["command"]
            for name in ("answer_format", "hearing"):
                setattr(processor, name, told.get(name) or getattr(processor, name))
        follow_formats(model.config, processor)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        if run in beside[:1] and (run / "README.md").is_file():
            shutil.copyfile(run / "README.md", folder / "README.md")
        else:  # folders of this machine are told by their names only
            names = (Path(path).resolve().name if Path(path).exists() else path for path in (found, base))
            facts = dict(zip(("adapter", "merged into"), names, strict=True))
            write_text(folder / "README.md", model_card(Path(output).resolve().name, training=facts))
