"""Token datasets: their columns, how they are written as a `load_dataset`-able folder, and how they are loaded safely.

A folder holds `<config>/<split>-00000-of-00001.parquet` and a `README.md` whose header names the configs and the
fingerprint of the codec that made the codes. Codes of another codec are plausible numbers without meaning, so loading
them for a processor with other codecs is refused. The parts are `token_schema`, `token_writing`, `token_card` and
`token_loading`.
"""

from ..fingerprints import codec_fingerprint
from .token_loading import card_codecs, is_local, load_tokens, split_names
from .token_schema import CODECS_OF, SCHEMAS, fingerprints
from .token_writing import write_token_dataset

__all__ = [
    "CODECS_OF",
    "SCHEMAS",
    "card_codecs",
    "codec_fingerprint",
    "fingerprints",
    "is_local",
    "load_tokens",
    "split_names",
    "write_token_dataset",
]
