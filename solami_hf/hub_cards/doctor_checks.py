"""Checks of `solami doctor` for each kind of repository, save its code: each check gives findings, or none."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import soundfile
from safetensors import safe_open

from ..processing.files.folder_or_hub import hub_id
from ..processing.hub_upload import Finding, files_of
from .croissant import check_croissant
from .repository_files import KINDS, read_json

_ONE_SAVE = "put back config and tokenizer of one and the same checkpoint"


def check_vocabulary(folder: Path) -> Iterator[Finding]:
    """Layout of the config against the tokenizer's ids, the rows of embedding and head, and the codecs' sizes."""
    from transformers import AutoConfig, AutoTokenizer

    from ..modeling.solami.configuration_solami import require_layout
    from ..modeling.solami.vocabulary import MARKERS, MODALITY_FORMATS
    from ..processing.datasets.duplex import DuplexFormat

    config = AutoConfig.from_pretrained(folder)
    require_layout(config)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.get_vocab()
    for name, span in config.modalities.items():
        first, last = (MODALITY_FORMATS[name].format(i) for i in (0, span["size"] - 1))
        here = (ids.get(first), ids.get(last))
        wanted = (span["first_id"], span["first_id"] + span["size"] - 1)
        if here != wanted:
            told = f"{first} to {last} are {here[0]} to {here[1]} in the tokenizer, {wanted[0]} to {wanted[1]} here"
            yield Finding("config.json", f"modalities.{name}: {told}", _ONE_SAVE)
        if MODALITY_FORMATS[name].format(span["size"]) in ids:
            told = f"modalities.{name} has {span['size']} codes, but the tokenizer has more"
            yield Finding("config.json", told, _ONE_SAVE)
    for name, text in MARKERS.items():
        if config.markers.get(name) != ids.get(text):
            told = f"markers.{name} is {config.markers.get(name)}, but the tokenizer has {text!r} as {ids.get(text)}"
            yield Finding("config.json", told, _ONE_SAVE)
    if duplex := getattr(config, "duplex", None):
        try:
            fits = DuplexFormat.of(config).to_dict()["sizes"] == duplex.get("sizes")
        except ValueError:
            fits = False
        if not fits:
            told = f"duplex.sizes are {duplex.get('sizes')}, which the modalities and frame_rates do not give"
            yield Finding("config.json", told, "train with `solami sft --rows duplex` again")
    yield from _weights(folder, config, len(tokenizer))
    yield from _ends(folder, config)


def _weights(folder: Path, config, tokens: int) -> Iterator[Finding]:
    """Weights against the shapes that the config asks for; the vocabulary's rows are the ones that go wrong."""
    import torch
    from transformers import AutoModelForCausalLM

    if tokens > config.vocab_size:
        told = f"vocab_size is {config.vocab_size}, but the tokenizer has {tokens} tokens"
        yield Finding("config.json", told, "model.resize_token_embeddings(len(tokenizer)), and save it again")
    shapes = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.state_dict().items():
        if name in shapes and shapes[name] != tuple(weight.shape):
            told = f"{name} has the shape {shapes[name]}, but config.json asks for {tuple(weight.shape)}"
            yield Finding("model.safetensors", told, "put back weights and config of one checkpoint")
    tied = set(getattr(model, "all_tied_weights_keys", None) or {}) if config.tie_word_embeddings else set()
    gone = sorted(set(model.state_dict()) - set(shapes) - tied)
    if gone and config.model_type == "solami":
        told = f"{len(gone)} weights are missing, such as {gone[0]}"
        yield Finding("model.safetensors", told, "save the whole model again")


def _ends(folder: Path, config) -> Iterator[Finding]:
    """Checks that generate and layout agree on the end of an answer, config and processor on its format."""
    from ..modeling.solami.configuration_solami import FORMAT_FIELDS, SolamiConfig

    eos = config.markers.get("eos")
    path = folder / "generation_config.json"
    known = read_json(path).get("eos_token_id") if path.is_file() else eos
    if eos not in (known if isinstance(known, list) else [known]):
        told = f"eos_token_id is {known}, but <eos> is {eos}"
        yield Finding("generation_config.json", told, f"set it to {eos}; answers would never end")
    processor = read_json(folder / "processor_config.json")
    usual = SolamiConfig()  # for configs of before a field
    for name in FORMAT_FIELDS:
        ours, theirs = getattr(config, name, getattr(usual, name)), processor.get(name)
        if theirs not in (None, ours):
            told = f"{name} is {ours}, but the processor's is {theirs}"
            yield Finding("config.json", told, "set both to what the model was trained on")


def check_codecs(folder: Path) -> Iterator[Finding]:
    """The codecs load, have statistics, fit the layout, and are those of the training data and the voices."""
    from transformers import AutoConfig

    from ..modeling.solami.configuration_solami import require_layout
    from ..modeling.speech_codec.codec_interface import codec_fingerprint
    from ..processing.processing_solami import SolamiProcessor

    config, processor = AutoConfig.from_pretrained(folder), SolamiProcessor.from_pretrained(folder)
    require_layout(config)
    motion, speech = processor.motion_codec, processor.speech_codec
    yield from _statistics(motion, "motion_codec/")
    yield from _sizes(config, motion.config, speech.config)
    prints = {"motion": codec_fingerprint(motion), "speech": codec_fingerprint(speech)}
    for name, trained_with in (getattr(config, "codecs", None) or {}).items():
        if prints.get(name) != trained_with:
            told = f"its fingerprint is {prints.get(name)}, but the model was trained with {trained_with}"
            yield Finding(f"{name}_codec/", told, "put back the codec that made the training data")
    for name, entry in processor.voices.entries.items():
        if entry["codec"] != prints["speech"]:
            told = f"voice {name!r} was made by the codec {entry['codec']}, the folder has {prints['speech']}"
            yield Finding("voices/voices.json", told, "add it again with `solami add-voice --overwrite true`")
        processor.voices.codes(name)
    for name, character in processor.characters.items():
        if character.get("voice") not in (None, *processor.voices.names):
            told = f"character {name!r} speaks with the voice {character['voice']!r}, which is not there"
            yield Finding("processor_config.json", told, "add it with `solami add-voice`")
    acoustic = processor.acoustic_model
    if acoustic is not None and acoustic.config.num_quantizers != speech.config.num_quantizers:
        told = f"makes {acoustic.config.num_quantizers} levels, the speech codec has {speech.config.num_quantizers}"
        yield Finding("acoustic_model/", told, "train one on this codec with `solami train-soundstorm`")
    filler = processor.motion_filler
    if filler is not None:
        made = (filler.config.num_quantizers, filler.config.codebook_size)
        needed = (len(motion.config.parts) * motion.config.num_levels, motion.config.body_code_num)
        if made != needed:
            told = "makes {} rows of {} codes, the motion codec has {} of {}".format(*made, *needed)
            remedy = "train one on this codec with `solami train-soundstorm --modality motion`"
            yield Finding("motion_filler/", told, remedy)


def _sizes(config, motion, speech) -> Iterator[Finding]:
    for name, size in {**motion.modality_sizes, "speech": speech.lm_levels * speech.codebook_size}.items():
        span = config.modalities.get(name, {}).get("size", 0)
        # A tokenizer may have more speech tokens than the codec has codes, as AnyGPT's has.
        if span < size or (span > size and name != "speech"):
            told = f"modalities.{name} has {span} codes, but the codec has {size}"
            yield Finding("config.json", told, "put back the codec that the model was trained with")
    rates = {"fps": (config.fps, motion.fps), "sampling_rate": (config.sampling_rate, speech.sampling_rate)}
    rates["speech_levels"] = (config.speech_levels, speech.lm_levels)
    for name, (ours, theirs) in rates.items():
        if ours != theirs:
            yield Finding("config.json", f"{name} is {ours}, but the codec's is {theirs}", f"set it to {theirs}")


def check_codec(folder: Path) -> Iterator[Finding]:
    """A codec on its own loads, and has statistics where it needs them."""
    from transformers import AutoModel

    codec = AutoModel.from_pretrained(folder)
    if codec.config.model_type == "solami_motion_vq":
        yield from _statistics(codec, "")


def _statistics(codec, inside: str) -> Iterator[Finding]:
    """Mean and spread that a motion codec normalises by: there, finite, and not those of one that was given none."""
    remedy = "train it with `solami train-motion-vq`, or convert it with its mean and std files"
    for part in ("", "transform_"):
        mean, std = getattr(codec, f"{part}mean"), getattr(codec, f"{part}std")
        if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
            told = f"{part}mean or {part}std is not finite or not positive"
            yield Finding(f"{inside}model.safetensors", told, remedy)
        elif (mean == 0).all() and (std == 1).all():
            told = f"{part}mean is all 0 and {part}std all 1: it was given no statistics"
            # The original's transform tokenizer has none.
            yield Finding(f"{inside}model.safetensors", told, remedy, is_note=bool(part))


def check_template(folder: Path) -> Iterator[Finding]:
    """The chat template gives the ids that the processor renders, and marks what is trained on."""
    from ..processing.answers import FORMATS
    from ..processing.processing_solami import SolamiProcessor

    processor = SolamiProcessor.from_pretrained(folder)
    motion = {"body": [0, 1], "hand": [1, 0], "trans": [0]}
    motion = {name: codes for name, codes in motion.items() if name in processor.modalities}
    body, sound = {"type": "motion", "motion": motion}, {"type": "audio", "audio": {"codes": [0, 1]}}
    words, (told, parts) = [{"type": "text", "text": "Hello there!"}], FORMATS[processor.answer_format]
    user = [*(words if processor.hearing != "codes" else []), body, sound]
    answer = [*(words if told else []), body, *([sound] if "speech" in parts else [])]
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": user},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "And now?"},
    ]
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    ours = processor.apply_chat_template(messages, **options)
    theirs = processor.apply_chat_template(messages, chat_template=processor.chat_template, **options)
    remedy = "delete chat_template.jinja and save the processor again, or train with this template"
    for name, what in (("input_ids", "ids"), ("assistant_masks", "spans to train on")):
        if list(ours[name][0]) != list(theirs[name][0]):
            yield Finding("chat_template.jinja", f"it gives other {what} than the processor renders", remedy)
            return


def check_card(folder: Path, kind: str, repo_id: str | None = None) -> Iterator[Finding]:
    """The card's head is read by the Hub, and says a licence; nothing of a template is left in it."""
    import yaml
    from huggingface_hub import RepoCard

    path = folder / "README.md"
    if not path.is_file():
        return  # told among the files
    text = path.read_text(encoding="utf-8")
    try:
        data = RepoCard(text, ignore_metadata_errors=False).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        yield Finding("README.md", f"its head is not what the Hub reads ({error})", "write it as YAML between ---")
        return
    if leftover := re.search(r"\{\{.*?\}\}|\{%.*?%\}|\bTODO\b|\[More Information Needed\]", text):
        yield Finding("README.md", f"holds {leftover[0]!r}", "fill it in, or take the line out")
    if not data.get("license"):
        remedy = "add `license:` to its head; it must allow what codecs, base and data allow"
        yield Finding("README.md", "names no licence", remedy, is_note=True)
    if kind == "adapter" and not data.get("base_model"):
        yield Finding("README.md", "names no base_model", "add `base_model: OWNER/NAME` to its head")
    if repo_id is not None:
        try:
            RepoCard(text).validate(repo_type=KINDS[kind])
        except ValueError as error:
            yield Finding("README.md", f"the Hub refuses its head: {error}", "change that field")


def check_adapter(folder: Path) -> Iterator[Finding]:
    """An adapter names a base that others have, and its weights are there."""
    base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if hub_id(base or "") is None:
        told = f"base_model_name_or_path is {base!r}, which others do not have"
        yield Finding("adapter_config.json", told, "push it with --base OWNER/NAME")
    with safe_open(folder / "adapter_model.safetensors", framework="numpy") as file:
        if not list(file.keys()):
            yield Finding("adapter_model.safetensors", "it is empty", "save the adapter again")


def check_dataset(folder: Path) -> Iterator[Finding]:
    """Checks the card's configs and codecs against the files and their columns."""
    import pyarrow.parquet as pq

    from ..processing.datasets.token_dataset import CODECS_OF, SCHEMAS, card_data

    if not (folder / "README.md").is_file():
        return  # told among the files
    data = card_data(folder)
    configs = {entry["config_name"]: entry["data_files"] for entry in data.get("configs") or []}
    if not configs:
        told = "names no configs, so load_dataset may mix its files"
        yield Finding("README.md", told, "`solami prepare` writes it")
    for config, entries in configs.items():
        for entry in entries:
            files = sorted(folder.glob(entry["path"]))
            if not files:
                told = f"config {config}, split {entry['split']}: there is no {entry['path']}"
                yield Finding("README.md", told, f"run `solami prepare {config}` again")
            for path in files if config in SCHEMAS else ():
                if gone := set(SCHEMAS[config]) - set(pq.read_schema(path).names):
                    name = str(path.relative_to(folder))
                    yield Finding(name, f"lacks the columns {sorted(gone)}", "prepare it again")
        if lost := set(CODECS_OF.get(config, ())) - set(data.get("codecs") or {}):
            told = f"does not say which {' and '.join(sorted(lost))} codec made the codes of {config}"
            yield Finding("README.md", told, "`solami prepare` writes `codecs:`; codes mean nothing without")


GROUP_BYTES = 300_000_000
"""Most that the Hub's viewer reads of a file without a page index, by its error TooBigContentError."""


def check_viewer(folder: Path) -> Iterator[Finding]:
    """The Hub's viewer can read the files, and the sound and bodies of the preview are such."""
    import pyarrow.parquet as pq

    for name in (name for name in files_of(folder) if name.endswith(".parquet")):
        path, data = folder / name, pq.read_metadata(folder / name)
        groups = [data.row_group(number) for number in range(data.num_row_groups)]
        for group in groups:
            if group.total_byte_size > GROUP_BYTES and not group.column(0).has_offset_index:
                told = f"has {group.total_byte_size / 1e6:.0f} MB in a row group, and no page index to read a part by"
                yield Finding(name, told, "`solami prepare` writes smaller ones, with an index")
                break
        for row in pq.read_table(path).to_pylist() if path.parent == folder / "preview" else ():
            remedy = "make it again with `solami push dataset --preview CHECKPOINT`"
            try:
                if row.get("audio"):
                    soundfile.info(io.BytesIO(row["audio"]["bytes"]))
            except soundfile.LibsndfileError as error:
                yield Finding(name, f"the sound of {row['id']} cannot be read ({error})", remedy)
            mesh = (row.get("mesh") or {}).get("bytes")
            if mesh is not None and (mesh[:4], mesh[8:12]) != (b"glTF", len(mesh).to_bytes(4, "little")):
                yield Finding(name, f"the body of {row['id']} is no whole glb file", remedy)


def check_evaluator(folder: Path) -> Iterator[Finding]:
    """An evaluator and its tokenizer load, and what it measured on held-out pairs lets metrics score with it."""
    from transformers import AutoModel, AutoTokenizer

    from ..modeling.motion_evaluator.evaluator_scores import Evaluator

    evaluator = Evaluator(AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    truth, said = evaluator.ground_truth, evaluator.embed_texts(["a person waves"])
    if abs((said**2).sum() - 1) > 1e-3:
        yield Finding("model.safetensors", "makes no embedding of a caption", "save the evaluator again")
    if not truth.get("beats_shuffled"):
        told = "finds held-out motions no better than by chance" if truth else "was measured on no held-out pairs"
        yield Finding("config.json", f"{told}, so metrics refuse it", "train it longer, or on more data with a split")


def check_metric(folder: Path) -> Iterator[Finding]:
    """The module that `evaluate` loads is there, has the folder's name, and imports no neighbour that is missing."""
    card = folder / "README.md"
    modules = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.py") if path.name != "app.py"}
    if not any("evaluate" in text and "_info" in text for text in modules.values()):
        yield Finding("*.py", "no module of evaluate is here", "push it with `solami push metric`")
        return
    for name, text in modules.items():
        for needed in re.findall(r"^\s*from \.(\w+) import", text, re.MULTILINE):
            if f"{needed}.py" not in modules:
                yield Finding(name, f"imports {needed}.py, which is missing", "push it with `solami push metric`")
    if card.is_file() and "sdk: gradio" not in card.read_text(encoding="utf-8"):
        yield Finding("README.md", "is no card of a Space", "add `sdk: gradio` and `app_file: app.py`")


CHECKS: dict[str, dict[str, Callable[[Path], Iterator[Finding]]]] = {
    "checkpoint": {"vocabulary": check_vocabulary, "codecs": check_codecs, "chat template": check_template},
    "codec": {"codec": check_codec},
    "adapter": {"adapter": check_adapter},
    "evaluator": {"evaluator": check_evaluator},
    "dataset": {"data set": check_dataset, "viewer": check_viewer, "croissant": check_croissant},
    "metric": {"metric": check_metric},
    "space": {},
}
