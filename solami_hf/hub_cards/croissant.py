"""A data set's Croissant metadata, `croissant.json`: which files make which records, for catalogues and loaders.

The form is https://docs.mlcommons.org/croissant/docs/croissant-spec.html, 1.1; `mlcroissant validate --jsonld
FOLDER/croissant.json` checks it. The Hub makes its own of a data set that is there.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Audio, Features, List, Mesh, Value

from ..processing.datasets.token_dataset import card_data
from ..processing.files.text_files import write_json
from ..processing.hub_upload import Finding
from .repository_files import read_json

FILE = "croissant.json"
_TERMS = "arrayShape column extract field fileSet includes isArray jsonPath recordSet source subField transform"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}
_TYPES = {"bool": "sc:Boolean"}


def write_croissant(folder: str | Path, repo_id: str) -> None:
    """Writes `folder/croissant.json` of a data set from the configs of its card and the columns of their files."""
    if (made := croissant(Path(folder), f"https://huggingface.co/datasets/{repo_id}"))["recordSet"]:
        write_json(Path(folder) / FILE, made, indent=1)


def croissant(folder: Path, url: str) -> dict:
    """The metadata of a data set folder with the address `url`: a set of files and one of records for each config.
    ValueError where the card names a config that has no files."""
    card, files, records = card_data(folder), [], []
    for entry in card.get("configs") or []:
        config, given = entry["config_name"], entry["data_files"]  # by split, or as the Hub's short form has it
        patterns = [given] if isinstance(given, str) else [f if isinstance(f, str) else f["path"] for f in given]
        found = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
        if not found:
            raise ValueError(f"the card of {folder} names the config {config}, which has no files")
        columns = Features.from_arrow_schema(pq.read_schema(found[0]))
        files.append(
            {"@type": "cr:FileSet", "@id": f"files-{config}", "name": f"files-{config}", "includes": patterns,
             "encodingFormat": "application/x-parquet"}
        )  # fmt: skip
        fields = [_field(f"{config}/{name}", f"files-{config}", name, kind) for name, kind in columns.items()]
        records.append({"@type": "cr:RecordSet", "@id": config, "name": config, "field": fields})
    name, licences = url.rsplit("/", 1)[-1], card.get("license")
    return {
        "@context": _CONTEXT, "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": name, "description": f"{name}: {', '.join(r['name'] for r in records)} of speech and motion.",
        "url": url, **({"license": licences} if licences else {}), "distribution": files, "recordSet": records,
    }  # fmt: skip


def _field(place: str, files: str, column: str, kind, path: tuple[str, ...] = ()) -> dict:
    """A column, or what lies at `path` in it; sound and meshes are the bytes of their files."""
    made, depth = {"@type": "cr:Field", "@id": place, "name": place}, 0
    while isinstance(kind, List):
        depth, kind = depth + 1, kind.feature
    if depth:
        made |= {"isArray": True, "arrayShape": ",".join(["-1"] * depth)}
    if isinstance(kind, dict):
        inner = [_field(f"{place}/{name}", files, column, below, (*path, name)) for name, below in kind.items()]
        return {**made, "subField": inner}
    if isinstance(kind, Audio | Mesh):
        kind, path = Value("binary"), (*path, "bytes")
    dtype = kind.dtype or ""
    source = {"fileSet": {"@id": files}, "extract": {"column": column}}
    steps = [{"jsonPath": name} for name in path]
    kind = f"cr:{dtype.title()}" if dtype.startswith(("int", "float")) else _TYPES.get(dtype, "sc:Text")
    return {**made, "dataType": kind, "source": {**source, **({"transform": steps} if steps else {})}}


def check_croissant(folder: Path) -> Iterator[Finding]:
    """The metadata, where there is such a file, is that of the card and the files."""
    if (folder / FILE).is_file() and (said := read_json(folder / FILE)) != croissant(folder, said.get("url") or ""):
        yield Finding(FILE, "is not what the card and the files say", "push the data set again, which writes it anew")
