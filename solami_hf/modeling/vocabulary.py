"""The token strings of the modalities, and how a vocabulary is extended by them.

The strings are those of SOLAMI (CVPR 2025) and AnyGPT, so that a tokenizer which already has some of them (AnyGPT-base
has the speech tokens) keeps its ids. Every code of a modality is one token, and the codes of a modality have
consecutive ids: `first_id + code`, so rendering and parsing are plain arithmetic.
"""

from __future__ import annotations

MODALITY_FORMATS = {"speech": "<🗣️{}>", "body": "<🕺{}>", "hand": "<🤚{}>", "trans": "<🔀{}>"}
DEFAULT_SIZES = {"speech": 1024, "body": 512, "hand": 512, "trans": 256}

# The role markers carry their colon and space: text after them is then tokenized alike with and without an answer.
MARKERS = {
    "pad": "<pad>",
    "human": "[Human]: ",
    "mmgpt": "[MMGPT]: ",
    "eoh": "<eoh>",
    "eos": "<eos>",
    "eot": "<eot>",
    "sosp": "<sosp>",
    "eosp": "<eosp>",
    "sobo": "<sobo>",
    "eobo": "<eobo>",
    "soha": "<soha>",
    "eoha": "<eoha>",
}
BRACKETS = {"speech": ("sosp", "eosp"), "body": ("sobo", "eobo"), "hand": ("soha", "eoha")}


def check_sizes(sizes: dict[str, int] | None) -> dict[str, int]:
    """Code counts of all four modalities, defaults filled in; ValueError for an unknown name or a count below 1."""
    sizes = {**DEFAULT_SIZES, **(sizes or {})}
    unknown = set(sizes) - set(MODALITY_FORMATS)
    if unknown:
        raise ValueError(f"unknown modalities {sorted(unknown)}; expected among {sorted(MODALITY_FORMATS)}")
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"modality {name!r} needs a positive number of codes, got {size!r}")
    return sizes


def build_layout(sizes: dict[str, int] | None, first_id: int) -> tuple[dict, dict]:
    """`(modalities, markers)` of a vocabulary whose new tokens begin at `first_id`: markers first, then the codes.

    `modalities` maps a name to `{"first_id", "size"}`, `markers` maps a name of `MARKERS` to its id.
    """
    markers = {name: first_id + i for i, name in enumerate(MARKERS)}
    start, modalities = first_id + len(markers), {}
    for name, size in check_sizes(sizes).items():
        modalities[name] = {"first_id": start, "size": size}
        start += size
    return modalities, markers


def extend_tokenizer(tokenizer, sizes: dict[str, int] | None = None) -> tuple[dict, dict]:
    """Adds the markers and modality tokens to `tokenizer`, in place, and returns the layout they have there.

    Tokens that exist already keep their ids. Modality tokens are ordinary (not special) tokens, otherwise
    `skip_special_tokens=True` would drop them. Works for the tokenizer of any decoder (Llama, GPT-2, Qwen, ...).

    Returns:
        `(modalities, markers)` as in `build_layout`.

    Raises:
        ValueError: when the tokenizer has a modality's tokens already, but not with consecutive ids.
    """
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
