"""The columns of token datasets, and the codecs that their codes depend on."""

from __future__ import annotations

from pathlib import Path

from datasets import Features, List, Value

from ..fingerprints import codec_fingerprint

_codes = List(Value("int16"))
_motion = {"body": _codes, "hand": _codes, "trans": _codes}
SCHEMAS = {
    "motion": Features(
        id=Value("string"),
        text=List(Value("string")),
        **_motion,
        partner_id=Value("string"),
        num_frames=Value("int32"),
        source=Value("string"),
    ),
    "speech": Features(
        id=Value("string"),
        turns=List({"text": Value("string"), "speech": _codes, "speaker": Value("string")}),
        source=Value("string"),
    ),
    "chat": Features(
        id=Value("string"),
        topic=Value("string"),
        character=Value("string"),
        turns=List(
            {
                "role": Value("string"),
                "text": Value("string"),
                "motion_text": Value("string"),
                **_motion,
                "speech": _codes,
            }
        ),
        source=Value("string"),
    ),
}
CODECS_OF = {"motion": ("motion",), "speech": ("speech",), "chat": ("motion", "speech")}
COLUMNS = {
    "motion": "`body`, `hand` (7.5 codes/s; no `hand` codes of a bound codec), `trans` (one), `text` (captions), "
    "`partner_id`, `num_frames` (30/s)",
    "speech": "`turns` of `text`, `speech` (codes), `speaker`",
    "chat": "`topic`, `character`, `turns` of `role`, `text`, `motion_text`, `body`, `hand`, `trans`, `speech`",
}


def schema(config: str, highest_speech_code: int = 0) -> Features:
    """The columns of a config; speech codes take 32 bits where a codec has more than 16 can count (X-Codec 2)."""
    if config == "motion" or highest_speech_code < 1 << 15:
        return SCHEMAS[config]
    wide = {**SCHEMAS[config]["turns"].feature, "speech": List(Value("int32"))}
    return Features({**SCHEMAS[config], "turns": List(wide)})


def schema_for(config: str, processor) -> Features:
    """The columns of a config whose codes a processor makes."""
    if config == "motion":
        return SCHEMAS[config]
    codec = processor.speech_codec.config
    return schema(config, codec.lm_levels * codec.codebook_size - 1)


def fingerprints(processor, config: str) -> dict[str, str]:
    """Fingerprints of the codecs that the codes of a dataset config depend on."""
    return {name: codec_fingerprint(getattr(processor, f"{name}_codec")) for name in CODECS_OF[config]}


def codec_sources(processor, config: str) -> dict[str, dict[str, str]]:
    """Codec -> `{"id", "revision"}` as far as known: where the codecs of a dataset config were loaded from."""
    found = {}
    for name in CODECS_OF[config]:
        config_of = getattr(processor, f"{name}_codec").config
        origin = {"id": getattr(config_of, "_name_or_path", ""), "revision": getattr(config_of, "_commit_hash", None)}
        if Path(origin["id"]).exists():  # a folder's place on this machine is nobody's business
            origin["id"] = Path(origin["id"]).resolve().name if origin["id"] else ""
        found[name] = {key: str(value) for key, value in origin.items() if value}
    return found
