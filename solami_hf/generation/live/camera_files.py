"""MediaPipe's files, by which the live page sees a body: loaded once from npm, checked, and served by name.

`@mediapipe/holistic` (Apache-2.0) carries its WebAssembly and models. Nothing of it is part of this package.
"""

import base64
import hashlib
import io
import logging
import os
import tarfile
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from huggingface_hub.constants import HF_HOME, HF_HUB_OFFLINE

from ...processing.files.output_folder import atomic_folder

logger = logging.getLogger(__name__)

VERSION = "0.5.1675471629"
CDN = f"https://cdn.jsdelivr.net/npm/@mediapipe/holistic@{VERSION}/"
FILES = {
    "holistic.js": "text/javascript",
    "holistic.binarypb": "application/octet-stream",
    "holistic_solution_packed_assets.data": "application/octet-stream",
    "holistic_solution_packed_assets_loader.js": "text/javascript",
    "holistic_solution_simd_wasm_bin.js": "text/javascript",
    "holistic_solution_simd_wasm_bin.wasm": "application/wasm",
    "holistic_solution_wasm_bin.js": "text/javascript",
    "holistic_solution_wasm_bin.wasm": "application/wasm",
    "pose_landmark_full.tflite": "application/octet-stream",
}
"""What the page may ask for, and its media type."""
_BYTES = 52_558_610
_SHA512 = "qY+cxtDeSOvVtevrLgnodiwXYaAtPi7dHZtNv/bUCGEjFicAOYtMmrZSqMmbPkTB2+4jLnPF1vgshkAqQRSYAw=="


def camera_folder(cache: str | Path | None = None) -> Path:
    """The folder of `FILES` (54 MB), loaded on first use from npm's registry, or from that in `npm_config_registry`,
    and kept in `cache`, by default `solami_hf` below the Hub's cache (`HF_HOME`). Raises OSError: it cannot be loaded;
    ValueError: the registry's address is not https, or it gave another file than the one that is known."""
    output = Path(cache or Path(HF_HOME) / "solami_hf") / f"mediapipe-holistic-{VERSION}"
    if output.is_dir():
        return output
    registry = os.environ.get("npm_config_registry") or "https://registry.npmjs.org"
    source = f"{registry.rstrip('/')}/@mediapipe/holistic/-/holistic-{VERSION}.tgz"
    if not source.startswith("https://"):
        raise ValueError(f"npm_config_registry is {registry}, expected an address that begins with https://")
    if HF_HUB_OFFLINE:
        raise OSError(f"{output} is not there, and HF_HUB_OFFLINE forbids to load it from {source}")
    logger.info("loading %s (%d MB), once, into %s", source, _BYTES // 10**6, output)
    try:
        with urlopen(source, timeout=60) as answer:
            data = answer.read(_BYTES + 1)
    except (URLError, TimeoutError) as error:
        raise OSError(f"{source} cannot be loaded ({error}); --camera cdn leaves it to the browser") from error
    if hashlib.sha512(data).digest() != base64.b64decode(_SHA512):
        raise ValueError(f"{source} is not the file that is known ({len(data)} bytes); nothing of it is kept")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive, atomic_folder(output) as folder:
        for name in FILES:
            (folder / name).write_bytes(archive.extractfile(f"package/{name}").read())
    return output
