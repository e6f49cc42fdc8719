"""Decides if a name means a folder of this machine or a repository on the Hub: one rule for every command.

`hf://owner/name` is a repository (also `hf://datasets/owner/name`, as huggingface_hub writes it). Any other name is a
folder if it is there; if it is written as a path (begins with `/`, `.` or `~`, ends with a slash, has more or less
than one slash, or what no id has); or if its first part is a folder here, so that a slip in `runs/tokens` is told as
one. What is left, `owner/name`, is read from the Hub. It is never written there: what a command makes goes into a
folder, unless `hf://` asks for the Hub.
"""

import logging
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import HFValidationError, validate_repo_id

logger = logging.getLogger(__name__)
HUB = "hf://"
_KINDS = ("datasets", "models", "spaces")  # no owners: `models/sft` is a folder


def hub_id(name: str | Path) -> str | None:
    """The id `owner/name` of the repository that a name means, None for a path of this machine, there or not.
    Raises ValueError: `hf://` with something else than `owner/name` behind it."""
    text = str(name)
    if text.startswith(HUB):
        return _explicit(text)
    written_as_path = isinstance(name, Path) or text[:1] in "/.~" or text.count("/") != 1 or not _is_repo_id(text)
    return None if written_as_path or os.path.exists(text) or os.path.isdir(text.split("/")[0]) else text


def check_source(what: str, name: str | Path, bare: bool = False) -> str | None:
    """The id of the repository that will be read for a name, None of a folder that is there; the former is logged.
    `what` (`model`, `token dataset`) is for messages; if `bare`, a name without an owner that is no folder, such as
    `gpt2`, is a repository too. Raises FileNotFoundError: a folder that is not there; ValueError: see [`hub_id`]."""
    found, text = hub_id(name), os.path.expanduser(str(name))
    if found is None and os.path.exists(text):
        return None
    if found is None and bare and "/" not in text and _is_repo_id(text):
        found = text
    if found is None:
        raise FileNotFoundError(f"no such {what} folder: {text}{_hint(name)}")
    logger.info("reading the %s %s from the Hub", what, found)
    return found


def model_source(what: str, name: str | Path, bare: bool = False) -> str:
    """Argument of `from_pretrained` for a name: a folder, with `~` put in, or a repository id; see [`check_source`].
    Of a repository whose id is a folder here too, which `from_pretrained` would take, it is the folder in the
    cache."""
    found = check_source(what, name, bare)
    if found is None:
        return os.path.expanduser(str(name))
    return snapshot_download(found) if os.path.exists(found) else found


def with_sources(args, *names: str, bare: Collection[str] = ()):
    """Arguments (a dataclass) with the [`model_source`] of some; those that are None stay, `bare` as there."""
    given = {name: value for name in names if (value := getattr(args, name))}
    return replace(args, **{name: model_source(name, value, name in bare) for name, value in given.items()})


def output_hub_id(name: str | Path) -> str | None:
    """The repository that an output is pushed to, None where it is a folder; which one is logged. Raises
    ValueError: see [`hub_id`]."""
    if str(name).startswith(HUB):
        found = _explicit(str(name))
        logger.info("the output will be pushed to the Hub repository %s", found)
        return found
    logger.info("the output is the folder %s%s", name, _hint(name) if hub_id(name) else "")
    return None


def push_target(argument: str, name: str) -> str:
    """The repository id of a name that can mean no folder. Raises ValueError: it is no `owner/name`, or a path of
    this machine."""
    found = hub_id(name)
    if found is None:
        raise ValueError(f"`{argument}` is {name!r}, expected OWNER/NAME{_hint(name)}")
    return found


def require_login(api: HfApi, repo_id: str) -> None:
    """ValueError when nobody is logged in, who could push to a repository."""
    try:
        api.whoami()
    except (LocalTokenNotFoundError, HfHubHTTPError) as error:
        raise ValueError(
            f"{repo_id} is a Hub repository, but the Hub does not know you ({error}); log in with `hf auth login`, or "
            "name a folder"
        ) from error


def _explicit(text: str) -> str:
    found = text.removeprefix(HUB)
    if found.count("/") == 2 and found.split("/")[0] in _KINDS:
        found = found.split("/", 1)[1]
    if found.count("/") != 1 or not _is_repo_id(found):
        raise ValueError(f"{text!r} names no repository, expected hf://OWNER/NAME")
    return found


def _hint(name: str | Path) -> str:
    """Address of the repository of that name, where there can be one."""
    text = str(name)
    possible = text.count("/") == 1 and text[0] not in "/.~" and _is_repo_id(text)
    return f"; for the Hub repository of that name write {HUB}{text}" if possible else ""


def _is_repo_id(text: str) -> bool:
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.split("/")[0] not in _KINDS
