"""Facts about the model in a folder, for its card: formats and rates, sizes, codecs, voices."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, parse_local_safetensors_file_metadata

from ..processing.files.folder_or_hub import hub_id
from .cards import model_card
from .repository_files import CODECS, EVALUATOR, MODEL_FOLDERS, read_json

_ANSWERS = {
    "motion_speech": "motion and speech",
    "text_motion_speech": "text, then motion and speech",
    "text_motion": "text, then motion; a talker says the text",
}
_MOTION = "SMPL-X without face, {:g} frames a second"
_SPEECH = "mono, {:g} kHz"


def card_of_folder(folder: str | Path, model_id: str | None = None, **sections: Any) -> str:
    """The card of a model, adapter, codec or acoustic model, from what lies in its folder, as `save_pretrained` wrote
    it. `model_id` is the Hub id, by default the folder's name. `sections` of `cards.model_card` (`training`,
    `results`, `eval_results`, `limits`, `license`, ...) come before what the folder says. Raises ValueError: see
    `model_card`; or a file that is no JSON."""
    folder = Path(folder)
    config, adapter = read_json(folder / "config.json"), read_json(folder / "adapter_config.json")
    if adapter and not config:
        kind, found = "adapter", _adapter(adapter)
    else:
        kind = {**CODECS, EVALUATOR: "evaluator"}.get(config.get("model_type"), "model")
        found = _READERS[kind](folder, config)
        kind = "motion_filler" if config.get("modality") == "motion" else kind
    facts = {**found["facts"], "weights": _weights(folder)}
    found["facts"] = {name: value for name, value in facts.items() if value not in (None, "", [])}
    return model_card(model_id or folder.resolve().name, kind=kind, **{**found, **sections})


def _weights(folder: Path) -> str:
    """Number and dtype of the weights, from the heads of the files."""
    counts = Counter()
    for path in folder.glob("*.safetensors"):
        counts.update(parse_local_safetensors_file_metadata(path).parameter_count)
    counts.pop("BOOL", None)
    return f"{counts.total() / 1e6:.4g} million, {', '.join(sorted(counts))}" if counts else ""


_TICK = "ticks of {seconds} s: {character} of the character, then {partner} of the partner; {max_ticks} at a time"


def _model(folder: Path, config: Mapping) -> dict:
    """A language model with its processor. Stock configs of other decoders carry the same layout as ours."""
    sizes = {name: span["size"] for name, span in (config.get("modalities") or {}).items()}
    rates, levels = config.get("frame_rates") or {}, config.get("speech_levels", 1)
    formats = {"speech": _SPEECH.format(config.get("sampling_rate", 16000) / 1000)}
    formats |= dict.fromkeys(("body", "hand"), _MOTION.format(config.get("fps", 30)))
    formats["trans"] = "where the user stands and faces"
    hearing = config.get("hearing", "codes")
    verbs = {"speech": "says" if hearing == "transcript" else "hears"}
    rates = {name: rates.get(name, "1 a motion") for name in formats if name in sizes}
    rows = [(verbs.get(name, "sees"), name, formats[name], rate, sizes[name]) for name, rate in rates.items()]
    if sizes and hearing != "codes":
        rows.insert(0, ("hears", "words", "the user's speech as a recogniser writes it down", "", ""))
    answer, interleaved = config.get("answer_format"), config.get("interleaved")
    order = ", in chunks of equal time" if interleaved else ""
    if sizes and answer:
        rows.append(("answers", _ANSWERS.get(answer, answer) + order, "of the same formats", "", ""))
    processor = read_json(folder / "processor_config.json")
    facts = {
        "architecture": (config.get("architectures") or [None])[0],
        "answer format": f"`{answer}`{order}" if answer else None,
        "two at once": _TICK.format(**duplex) if (duplex := config.get("duplex")) else None,
        "layers": config.get("num_hidden_layers") or config.get("n_layer"),
        "width": config.get("hidden_size") or config.get("n_embd"),
        "context": config.get("max_position_embeddings") or config.get("n_positions"),
        "vocabulary": config.get("vocab_size"),
        "levels of speech codes": levels if levels > 1 else None,
        "characters": ", ".join(known["name"] for known in (processor.get("characters") or {}).values()),
        "voices": ", ".join(sorted(read_json(folder / "voices" / "voices.json"))),
    }
    return {"modalities": rows, "facts": facts, "codecs": _codecs(folder, config.get("codecs") or {})}


def _codecs(folder: Path, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """Codec -> what it is and its fingerprint; they lie in subfolders, so this repository's revision is theirs."""
    found = {}
    for name in MODEL_FOLDERS:
        if config := read_json(folder / name / "config.json"):
            fingerprint = fingerprints.get(name.removesuffix("_codec"))
            marked = f", fingerprint `{fingerprint}`" if fingerprint else ""
            found[name.replace("_", " ")] = f"`{name}/` of the same revision, {config.get('model_type')}{marked}"
    return found


_REPRESENTATIONS = {
    "local_rotation": "rotations relative to the parent",
    "global_rotation": "rotations relative to the pelvis",
    "joints": "positions relative to the pelvis",
}


def _motion_codec(folder: Path, _) -> dict:
    from ..modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig

    config = SolamiMotionVQConfig.from_pretrained(folder)
    form, sizes = _MOTION.format(config.fps), config.modality_sizes
    rows = [("both ways", part, form, config.frame_rate, sizes[part]) for part in config.parts]
    place = ("place and facing", "of one person, as another sees it", "1 a motion", config.transform_code_num)
    rows.append(("both ways", *place))
    parts = " and ".join(config.parts)
    facts = {
        "quantizer": {"ema": "codebooks of moving averages", "fsq": "finite scalar quantization"}[config.quantizer],
        "levels": f"{config.num_levels}, of which the language model reads level 0" if config.num_levels > 1 else None,
        "body and hand": "bound: the body's codes tell both" if config.bound else "a tokenizer and codebook each",
        "sees joints as": _REPRESENTATIONS[config.representation],
        f"width, {parts}": ", ".join(str(getattr(config, f"{part}_width")) for part in config.parts),
        f"codebook width, {parts}": ", ".join(str(getattr(config, f"{part}_code_dim")) for part in config.parts),
        "streaming": "yes, its convolutions look back only" if config.causal else "no, it reads whole clips",
        "statistics": "inside, as buffers of the model",
    }
    return {"modalities": rows, "facts": facts}


def _speech_codec(folder: Path, _) -> dict:
    from ..modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig

    config = SolamiSpeechCodecConfig.from_pretrained(folder)
    form = f"{_SPEECH.format(config.sampling_rate / 1000)}, {config.num_quantizers} levels"
    direction = "both ways" if config.bidirectional else "forwards"
    facts = {
        "levels for the language model": config.lm_levels,
        "samples of a code": config.hop_length,
        "filters, latent width": f"{config.num_filters}, {config.hidden_size}",
        "encoder's LSTM": f"{config.num_lstm_layers} layers, {direction}",
    }
    rates = (f"{config.frame_rate:g} of each level", f"{config.codebook_size} of each level")
    return {"modalities": [("both ways", "speech", form, *rates)], "facts": facts}


def _acoustic_model(folder: Path, _) -> dict:
    from ..modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig

    config = SolamiSoundStormConfig.from_pretrained(folder)
    reads, writes = "level 0 of speech, all levels of a voice", f"levels 1 to {config.num_quantizers - 1}"
    if config.modality == "motion":
        reads, writes = "level 0 of motion", "the levels above it"
    rows = [
        ("reads", reads, "codes", "", config.num_semantic_codes),
        ("writes", writes, "codes", "", f"{config.codebook_size} of each level"),
    ]
    facts = {"layers": config.num_hidden_layers, "width": config.hidden_size}
    facts[f"longest prompt and {config.modality}"] = f"{config.max_frames} frames"
    return {"modalities": rows, "facts": facts}


def _talker(folder: Path, _) -> dict:
    from ..modeling.talker.configuration_talker import SolamiTalkerConfig

    config = SolamiTalkerConfig.from_pretrained(folder)
    rows = [
        ("reads", "text", f"{len(config.alphabet)} characters", "", ""),
        ("writes", "level 0 of speech", "codes", config.frame_rate, config.codebook_size),
    ]
    layers = f"{config.num_encoder_layers} over characters, {config.num_decoder_layers} over frames"
    facts = {"layers": layers, "width": config.hidden_size}
    return {"modalities": rows, "facts": facts}


def _lips(folder: Path, _) -> dict:
    from ..modeling.face.configuration_lips import SolamiLipsConfig

    config = SolamiLipsConfig.from_pretrained(folder)
    rows = [
        ("reads", "level 0 of speech", "codes", config.frame_rate, config.codebook_size),
        ("reads", "sound", f"{config.num_mels} log-mels at {config.sampling_rate} Hz", config.frame_rate, ""),
        ("writes", "visemes", "probabilities", config.frame_rate, len(config.visemes)),
    ]
    return {"modalities": rows, "facts": {"layers, width": f"{config.num_layers}, {config.hidden_size}"}}


def _evaluator(folder: Path, config: Mapping) -> dict:
    """Its measure on held-out pairs stands beside what the same says of shuffled captions and changed motions."""
    form = f"SMPL-X joints in metres, {config['fps']:g} frames a second, up to {config['max_frames']} frames"
    rows = [("reads", "motion", form, "", ""), ("reads", "captions", "English text", "", "")]
    rows.append(("writes", "embeddings", f"{config['embedding_size']} numbers of length 1", "1 a motion or text", ""))
    truth = config.get("ground_truth") or {}
    names = {"": "real motions", "shuffled_": "shuffled captions", "jittered_": "jittered motions",
             "round_trip_": "motions through a codec and back"}  # fmt: skip
    results = [
        EvalResult(
            task_type="feature-extraction", dataset_type="custom", dataset_name="held-out motions with captions",
            metric_type=f"{row}r_precision_1", metric_name=f"R-precision 1, {told}",
            metric_value=truth[f"{row}r_precision_1"],
            metric_args={"low": truth[f"{row}low"], "high": truth[f"{row}high"], "count": truth["motions"]},
        )
        for row, told in names.items() if f"{row}r_precision_1" in truth
    ]  # fmt: skip
    facts = {
        "motion encoder": f"{config['num_hidden_layers']} layers of width {config['hidden_size']}",
        "sentence encoder": f"{config['text_config'].get('model_type')}, not trained here",
    }
    return {"modalities": rows, "facts": facts, "eval_results": results}


def _adapter(config: Mapping) -> dict:
    base, targets = config.get("base_model_name_or_path"), config.get("target_modules")
    facts = {
        "method": config.get("peft_type"),
        "rank, alpha": f"{config['r']}, {config.get('lora_alpha')}" if config.get("r") else None,
        "layers": ", ".join(sorted(targets)) if isinstance(targets, list) else targets,
        "trained whole": ", ".join(config.get("modules_to_save") or []),
        "rows of new tokens": "trained" if config.get("trainable_token_indices") else None,
        "of the base at revision": config.get("revision"),
    }
    # A folder of this machine is no base that others have.
    return {"facts": facts, "base_model": hub_id(base) if isinstance(base, str) else None}


_READERS = {
    "model": _model,
    "motion_codec": _motion_codec,
    "speech_codec": _speech_codec,
    "acoustic_model": _acoustic_model,
    "talker": _talker,
    "lips": _lips,
    "evaluator": _evaluator,
}
