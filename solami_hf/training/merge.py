"""`solami merge ADAPTER_OR_RUN --output DIR`: an adapter and the model that it was trained on become one folder.

ADAPTER_OR_RUN is a run's folder, one of its checkpoints, or any folder or hub id with PEFT's `adapter_config.json`.
"""

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from ..command_line import parse_arguments
from ..hub_cards.cards import model_card
from ..hub_cards.repository_files import adapter_folder
from ..processing.files.folder_or_hub import hub_id
from ..processing.files.output_folder import atomic_folder
from ..processing.files.text_files import read_json
from .language_model.adapters import load_merged

logger = logging.getLogger(__name__)


@dataclass
class MergeArguments:
    """Arguments of `solami merge`."""

    adapter: str = field(metadata={"help": "Run folder, checkpoint or adapter (also accepted as the first word)."})
    output: str = field(metadata={"help": "Folder to write; it must not exist yet."})
    base: str | None = field(
        default=None, metadata={"help": "The model that it was trained on, where it has moved since."}
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    (args,) = parse_arguments([MergeArguments], argv, "solami merge", words=["adapter"])
    merge(args.adapter, args.output, args.base)
    logger.info("wrote %s", args.output)
    return 0


def merge(adapter: str | Path, output: str | Path, base: str | Path | None = None) -> None:
    """Writes model (float32), processor with its codecs, and card as one folder, whole or not at all.

    Args:
        adapter: folder of a run, of one of its checkpoints or of an adapter, or the hub id of an adapter.
        base: folder or hub id of the model that the adapter was trained on; by default the one that it names.

    Raises:
        FileNotFoundError: no adapter there, or its base is gone. FileExistsError: there is something at `output`.
        ValueError: the adapter does not fit the base, or neither of them has a processor.
    """
    from peft import PeftConfig

    from ..modeling.solami.configuration_solami import follow_formats
    from ..processing.processing_solami import SolamiProcessor

    found = str(hub_id(str(adapter)) or adapter_folder(adapter))
    with atomic_folder(output) as folder:
        base = str(base or PeftConfig.from_pretrained(found).base_model_name_or_path)
        model = load_merged(found, base)
        beside = [path for path in (Path(found), Path(found).parent) if (path / "processor_config.json").is_file()]
        processor = SolamiProcessor.from_pretrained(beside[0] if beside else base)
        if not beside:  # of a run that has not finished
            told = _told(Path(found).parent)
            for name in ("answer_format", "hearing"):
                setattr(processor, name, told.get(name) or getattr(processor, name))
        follow_formats(model.config, processor)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        run = Path(found).parent
        if run in beside[:1] and (run / "README.md").is_file():
            shutil.copyfile(run / "README.md", folder / "README.md")
        else:
            (folder / "README.md").write_text(_card(Path(output).resolve().name, found, base), encoding="utf-8")


def _told(run: Path) -> dict:
    """A run's arguments, where it has written them."""
    path = run / "training_args.json"
    return read_json(path)["command"] if path.is_file() else {}


def _card(name: str, adapter: str, base: str) -> str:
    """Provenance of the merged model; folders of this machine are told by their names only."""
    adapter, base = (Path(path).resolve().name if Path(path).exists() else path for path in (adapter, base))
    return model_card(name, training={"adapter": adapter, "merged into": base})
