"""The token strings of the modalities, and how a vocabulary is extended by them.

The strings are those of SOLAMI (CVPR 2025) and AnyGPT, so that a tokenizer which already has some of them (AnyGPT-base
has the speech tokens) keeps its ids. Every code of a modality is one token, and the codes of a modality have
consecutive ids: `first_id + code`, so rendering and parsing are plain arithmetic.

Speech is level 0 of the paper's codec. Where the language model reads more levels of a codec, they are written frame
by frame, level 0 first, and each level has a range of its own: code `c` of level `q` is speech code
`q * codebook_size + c`. So one code never means two sounds, and a code shows whether it stands in its place.
"""

import numpy as np

MODALITY_FORMATS = {"speech": "<🗣️{}>", "body": "<🕺{}>", "hand": "<🤚{}>", "trans": "<🔀{}>"}
DEFAULT_SIZES = {"speech": 1024, "body": 512, "hand": 512, "trans": 256}

# The role markers carry their colon and space: text after them is then tokenized alike with and without an answer.
MARKERS = {"pad": "<pad>", "human": "[Human]: ", "mmgpt": "[MMGPT]: "} | {
    name: f"<{name}>" for name in ("eoh", "eos", "eot", "sosp", "eosp", "sobo", "eobo", "soha", "eoha")
}
BRACKETS = {"speech": ("sosp", "eosp"), "body": ("sobo", "eobo"), "hand": ("soha", "eoha")}


def check_sizes(sizes: dict[str, int] | None) -> dict[str, int]:
    """Code counts of all modalities, defaults filled in; ValueError for an unknown name or a count below 1. `hand` may
    be 0, and is left out then: the codes of a bound motion codec are all `body` codes."""
    sizes = {**DEFAULT_SIZES, **(sizes or {})}
    unknown = set(sizes) - set(MODALITY_FORMATS)
    if unknown:
        raise ValueError(f"unknown modalities {sorted(unknown)}; expected among {sorted(MODALITY_FORMATS)}")
    if sizes["hand"] == 0:
        del sizes["hand"]
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"modality {name!r} needs a positive number of codes, got {size!r}")
    return sizes


def flatten_levels(codes, codebook_size: int) -> np.ndarray:
    """Codes of a speech codec (levels, frames) as the language model's speech codes (frames * levels,)."""
    codes = np.asarray(codes, dtype=np.int64)
    return (codes + codebook_size * np.arange(len(codes))[:, None]).T.reshape(-1)


def split_levels(codes, levels: int, codebook_size: int) -> np.ndarray:
    """The language model's speech codes (frames * levels,) as codes of the codec (levels, frames). Raises
    ValueError: no code, not whole frames, or a code outside the range of its level."""
    codes = np.asarray(codes)
    if codes.ndim != 1 or codes.size == 0 or codes.dtype.kind not in "iu":
        raise ValueError(
            f"speech codes are {codes.dtype} of shape {codes.shape}, expected at least one code, integers (n,)"
        )
    codes = codes.astype(np.int64)
    if len(codes) % levels:
        raise ValueError(f"{len(codes)} speech codes are no whole frames of {levels} levels; pass all of an answer")
    frames = (codes.reshape(-1, levels) - codebook_size * np.arange(levels)).T
    if frames.min() < 0 or frames.max() >= codebook_size:
        ranges = f"0 to {codebook_size - 1}"
        ranges += "" if levels == 1 else f" in level 0 and {codebook_size} higher in each further level, by turns"
        raise ValueError(
            f"speech codes run from {codes.min()} to {codes.max()} and must be {ranges}; they were probably made by "
            "another codec, or are token ids"
        )
    return frames


def build_layout(sizes: dict[str, int] | None, first_id: int) -> tuple[dict, dict]:
    """`(modalities, markers)` of a vocabulary whose new tokens begin at `first_id`: markers first, then the codes.
    `modalities` maps a name to `{"first_id", "size"}`, `markers` maps a name of `MARKERS` to its id."""
    markers = {name: first_id + i for i, name in enumerate(MARKERS)}
    start, modalities = first_id + len(markers), {}
    for name, size in check_sizes(sizes).items():
        modalities[name] = {"first_id": start, "size": size}
        start += size
    return modalities, markers


def extend_tokenizer(tokenizer, sizes: dict[str, int] | None = None) -> tuple[dict, dict]:
    """Adds the markers and modality tokens to `tokenizer`, in place, and returns the layout they have there. Tokens
    that exist already keep their ids. Modality tokens are ordinary (not special) tokens, otherwise
    `skip_special_tokens=True` would drop them. Works for the tokenizer of any decoder (Llama, GPT-2, Qwen, ...).
    Returns `(modalities, markers)` as in `build_layout`. Raises ValueError: when the tokenizer has a modality's tokens
    already, but not with consecutive ids."""
    from tokenizers import AddedToken

    sizes = check_sizes(sizes)
    strings = list(MARKERS.values())
    for name, size in sizes.items():
        strings += [MODALITY_FORMATS[name].format(code) for code in range(size)]
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in strings])
    ids = dict(zip(strings, tokenizer.convert_tokens_to_ids(strings), strict=True))
    modalities = {}
    for name, size in sizes.items():
        first_id = ids[MODALITY_FORMATS[name].format(0)]
        if ids[MODALITY_FORMATS[name].format(size - 1)] != first_id + size - 1:
            raise ValueError(
                f"the tokenizer has {name} tokens whose ids are not consecutive; start from a tokenizer that has all "
                f"{size} of them in a row, or none"
            )
        modalities[name] = {"first_id": first_id, "size": size}
    if tokenizer.pad_token is None:
        tokenizer.pad_token = MARKERS["pad"]
    tokenizer.eos_token = MARKERS["eos"]
    return modalities, {name: ids[text] for name, text in MARKERS.items()}
