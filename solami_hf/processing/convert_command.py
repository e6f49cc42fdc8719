"""`solami convert`: the original's checkpoints to our models, and motion files to other formats.

    solami convert motion-vq --body body.pth --hand hand.pth --transform transform.pth --mean mean.npy --std std.npy \\
        [--transform_mean 0 --transform_std 1] [--set body_activation=gelu ...] --output DIR
    solami convert motion IN OUT [--fps 30] [--up_axis z] [--face FACE.csv] [--names mixamo] [--avatar THEIRS.vrm]
    solami convert lm CHECKPOINT --to llama --output DIR [--dtype bfloat16]

`motion-vq` writes a folder for `AutoModel.from_pretrained`. Sizes are read from the tensors; `--set` says what they
cannot tell. `motion` takes one file (.npz, .npy, .bvh or .txt) and the file to write (.npz, .bvh, .glb, .usda, .vrm,
.vrma; .csv or .json for a face alone), or two folders and `--format`; there, files that cannot be read are listed and
left out, and the exit code is 1. `--avatar` lets somebody's .vrm or .glb move, `--face` takes curves of a file,
`--clear_hands true` leads hands around the figure's skin. `lm` writes a language model with its tokenizer and chat
template as a stock Llama, for vLLM (`solami_hf.generation.serving.vllm_grammar`) and `transformers serve`; the codecs
stay where they are.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from tqdm import tqdm

from ..command_line import option, parse_arguments, take_kind
from .files.atomic_write import atomic_model
from .files.output_folder import atomic_folder, writing_to
from .media_files import READ_SUFFIXES, find_media, tell_left_out, way_out
from .motion.face import read_face
from .motion.formats.face_curves import read_curves, write_curves
from .motion.mesh.contact import hands_off_body
from .motion.motion_io import FACE_ALONE, WRITTEN_SUFFIXES, read_motion, write_motion
from .motion.smplx_motion import SmplxMotion

logger = logging.getLogger(__name__)


@dataclass
class ConvertMotionVQArguments:
    """Arguments of `solami convert motion-vq`."""

    body: str = option(..., "Checkpoint of the body's VQ-VAE.")
    hand: str = option(..., "Checkpoint of the hand's VQ-VAE.")
    transform: str = option(..., "Checkpoint of the transform's VQ-VAE.")
    mean: str = option(..., ".npy file with the means of the features.")
    std: str = option(..., ".npy file with their standard deviations.")
    output: str = option(..., "Model folder to write.")
    transform_mean: str = option("0", ".npy file, or one number, for the transform.")
    transform_std: str = option("1", "Likewise.")
    set: list[str] = option([], "Entries of the configuration that tensors cannot tell, as body_activation=gelu.")


@dataclass
class ConvertMotionArguments:
    """Arguments of `solami convert motion`."""

    source: str = option(..., "Motion file or folder (also accepted as the first word).")
    output: str = option(..., "File or folder to write (also accepted as the second word).")
    fps: float = option(30.0, "Frames a second to write; 0 keeps those of each file.")
    up_axis: str | None = option(None, "y or z, for .npz files that say otherwise.")
    format: str = option("npz", "Format of the files of a folder: npz, bvh, glb, usda, vrm or vrma.")
    face: str | None = option(None, "Curves of the face, .csv or .json, instead of those in an .npz.")
    names: Literal["smplx", "mixamo", "unreal", "vrm"] = option("smplx", "Joints' names in .bvh, .glb and .usda.")
    avatar: str | None = option(None, ".vrm or .glb of a person who is to move.")
    clear_hands: bool = option(False, "Lead hands around the figure's skin that would go through it.")


@dataclass
class ConvertLMArguments:
    """Arguments of `solami convert lm`."""

    source: str = option(..., "Checkpoint folder or hub id (also accepted as the first word).")
    output: str = option(..., "Folder to write; it must not exist yet.")
    to: Literal["llama"] = option("llama", "The architecture to write.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", "Of the weights; auto: as they are.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    kind, argv = take_kind(argv)
    kinds = {"motion-vq": ConvertMotionVQArguments, "motion": ConvertMotionArguments, "lm": ConvertLMArguments}
    if kind not in kinds and not {"-h", "--help"} & set(argv):
        raise ValueError(f"say what to convert: {', '.join(kinds)}; got {kind!r}")
    words = {"motion": ["source", "output"], "lm": ["source"]}.get(kind, [])
    program = f"solami convert {kind or '{motion-vq,motion,lm}'}"
    (args,) = parse_arguments([kinds[kind]] if kind else [], argv, program, __doc__, words=words)
    if kind == "motion":
        more = {"face": args.face, "names": args.names, "avatar": args.avatar, "clear_hands": args.clear_hands}
        bad = convert_motion(args.source, args.output, args.fps or None, args.up_axis, args.format, **more)
        return 1 if bad else 0
    (convert_lm if kind == "lm" else convert_motion_vq_folder)(args)
    return 0


def convert_lm(args: ConvertLMArguments) -> None:
    """Writes a language model as a stock Llama folder, whole or not at all. Raises FileNotFoundError: no checkpoint
    there; FileExistsError: there is something at the output; ValueError: another architecture, or no modality
    tokens."""
    from ..modeling.solami.backbones import convert_lm_to_llama
    from ..modeling.solami.configuration_solami import follow_formats
    from .files.folder_or_hub import model_source
    from .processing_solami import SolamiProcessor

    with atomic_folder(args.output) as folder:
        source = model_source("checkpoint", args.source)
        model = convert_lm_to_llama(source, args.dtype)
        processor = SolamiProcessor.from_pretrained(source)
        follow_formats(model.config, processor)
        model.save_pretrained(folder)
        processor.tokenizer.save_pretrained(folder)
    logger.info("wrote %s", args.output)


def convert_motion_vq_folder(args: ConvertMotionVQArguments) -> None:
    """Writes the model folder of the original's three checkpoints and their statistics. Raises FileNotFoundError,
    ValueError: see `modeling.convert.convert_motion_vq`; or an unknown entry of `set`."""
    from ..modeling.motion_vq.convert_motion_vq import convert_motion_vq

    paths = (args.body, args.hand, args.transform, args.mean, args.std)
    statistics = map(_number_or_path, (args.transform_mean, args.transform_std))
    model = convert_motion_vq(*paths, *statistics, **_parse_entries(args.set))
    config = model.config
    for part in ("body", "hand"):
        logger.info(
            "%s: %d features, width %d, %d residual blocks, %d codes of %d values, %s, norm %s",
            *(part, getattr(config, f"{part}_features_size"), getattr(config, f"{part}_width")),
            *(getattr(config, f"{part}_{name}") for name in ("depth", "code_num", "code_dim", "activation", "norm")),
        )
    logger.info(
        "transform: %d features, hidden layers of %s, %d codes of %d values; %d frames a code",
        *(config.transform_features_size, config.transform_hidden_sizes),
        *(config.transform_code_num, config.transform_code_dim, config.frames_per_code),
    )
    with writing_to(args.output), atomic_model(args.output) as folder:
        model.save_pretrained(folder)
    logger.info("wrote %s", args.output)


def _parse_entries(entries: list[str]) -> dict:
    """Configuration entries of words like `body_activation=gelu`; values as in YAML."""
    from ..modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig

    known = list(SolamiMotionVQConfig.__annotations__)  # without what every configuration of transformers has
    result = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if name not in known or not equals:
            raise ValueError(f"`set` got {entry!r}, expected name=value with a name of {', '.join(known)}.")
        result[name] = yaml.safe_load(value)
    return result


def _number_or_path(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def convert_motion(
    source: str | Path,
    output: str | Path,
    fps: float | None = 30.0,
    up_axis: str | None = None,
    file_format: str = "npz",
    face: str | Path | None = None,
    names: str = "smplx",
    avatar: str | Path | None = None,
    clear_hands: bool = False,
) -> dict[Path, str]:
    """Writes one motion file as another, or those of a folder and of the folders in it.

    `output` is a file whose suffix says the format, or a folder, which gets the names and subfolders of `source`, in
    `file_format`: "npz", "bvh", "glb", "usda", "vrm" or "vrma". `fps` and `up_axis`: see `read_motion`; `names` and
    `avatar`: see `write_motion`. `face` is a .csv or .json file with the curves of a face, for one motion, in place of
    those that an `.npz` holds; `source` may be such a file too, and `output` another; or `output` gets the face of an
    `.npz` alone. `clear_hands` leads hands around the figure's skin, see `mesh.contact.hands_off_body`.

    Returns the files of a folder that could not be converted, with the reason; empty when all could. Raises
    FileNotFoundError: there is no `source`; ValueError: a single file cannot be read or written; a folder without
    motion files, or with itself as `output`.
    """
    source, output = Path(source), Path(output)

    def read(path: Path) -> SmplxMotion:
        motion = read_motion(path, fps, up_axis)
        return hands_off_body(motion) if clear_hands else motion

    if not source.is_dir():
        known = (*WRITTEN_SUFFIXES, *FACE_ALONE)
        if output.suffix.lower() not in known:  # told before a long file is read
            raise ValueError(f"`output` is {output}, expected a file name that ends in {', '.join(known)}.")
        if {source.suffix.lower(), output.suffix.lower()} <= set(FACE_ALONE):
            write_curves(output, read_curves(source))
        else:
            motion = read(source)
            write_motion(output, motion, _face_of(source) if face is None else read_curves(face), names, avatar)
        logger.info("wrote %s", output)
        return {}
    if face is not None:
        raise ValueError(f"`face` is {face}, which is for one motion; `source` is the folder {source}.")
    targets, bad = _plan(source, output, file_format)
    with writing_to(output):
        for path, target in tqdm(targets.items(), desc="convert", unit="file", disable=None):
            try:
                motion = read(path)
            except (ValueError, OSError) as error:
                bad[path] = str(error)
                continue
            try:
                write_motion(target, motion, _face_of(path), names, avatar)
            except ValueError as error:  # a disk that is full is no fault of the file
                bad[path] = str(error)
    for path, reason in bad.items():
        logger.warning("left out %s: %s", path.relative_to(source), reason)
    logger.info("converted %d of %d files to %s", len(targets.keys() - bad), len(targets.keys() | bad), output)
    return bad


def _face_of(path: Path):
    return read_face(path) if path.suffix.lower() == ".npz" else None


def _plan(source: Path, output: Path, file_format: str) -> tuple[dict[Path, Path], dict[Path, str]]:
    """The files of a folder and what each will be written as, and those whose place another one takes."""
    suffix = f".{file_format.lower().removeprefix('.')}"
    if suffix not in WRITTEN_SUFFIXES:
        raise ValueError(f"`format` is {file_format!r}, expected one of {', '.join(WRITTEN_SUFFIXES)}.")
    if output.resolve() == source.resolve():
        raise ValueError(f"`output` is the folder that is read, {source}; give another one.")
    if output.is_file():
        raise ValueError(f"`output` is the file {output}, expected a folder because {source} is one.")
    sources: dict[Path, Path] = {}  # by what they will be written as
    found = find_media(source, "motion", READ_SUFFIXES)
    tell_left_out(found.others, source, "no motion")
    bad = {path: f"cannot be read; {way_out(path)}" for path in found.unread if not _is_in(output, path)}
    for path in found.files:
        if _is_in(output, path):  # what an earlier run wrote
            continue
        target = output / path.relative_to(source).with_suffix(suffix)
        if sources.setdefault(target, path) != path:
            bad[path] = f"{sources[target].name} becomes {target} already; convert one of the two by itself."
    if not sources:
        unread = "; ".join(f"{path.name} {reason}" for path, reason in bad.items())
        raise ValueError(f"{source} holds no motion file ({', '.join(READ_SUFFIXES)}). {unread}".strip())
    return {path: target for target, path in sources.items()}, bad


def _is_in(folder: Path, path: Path) -> bool:
    return folder.resolve() in path.resolve().parents
