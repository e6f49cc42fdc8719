"""What the Hub demands of a card's YAML head, as far as our cards use it: huggingface.co/docs/hub, "model cards".

The Hub's own validator is not to be had offline; these are its documented rules, written anew.
"""

from __future__ import annotations

import re

import yaml

_LICENCES = """apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd
bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0
cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 gpl gpl-2.0 gpl-3.0
agpl-3.0 lgpl lgpl-2.1 lgpl-3.0 lgpl-lr mpl-2.0 odc-by odbl openrail++ osl-3.0 pddl ms-pl isc zlib unlicense wtfpl
ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma
deepfloyd-if-license bigcode-openrail-m bigscience-bloom-rail-1.0 ncsa ofl-1.1 postgresql lppl-1.3c grok2-community
apple-ascl apple-amlr h-research fair-noncommercial-research-license intel-research unknown other""".split()
_SPACE_KEYS = ("title", "sdk", "emoji", "colorFrom", "colorTo")
_COLORS = "red yellow green blue indigo purple pink gray".split()
_REPO = re.compile(r"[\w.-]+(/[\w.-]+)?")


def faults(content: str, kind: str) -> list[str]:
    """What is wrong with a card of a `model`, `dataset` or `space`; empty when nothing is."""
    head = re.match(r"\s*---\s*\n(.*?)\n---\s*(\n|$)", content, re.DOTALL)
    if head is None:
        return []
    try:
        data = yaml.safe_load(head[1]) or {}
    except yaml.YAMLError as error:
        return [f"the head is no YAML: {error}"]
    if not isinstance(data, dict):
        return ["the head must be a mapping"]
    found = []
    for name, check in _CHECKS.items():
        if data.get(name) is not None:
            values = data[name] if isinstance(data[name], list) else [data[name]]
            found += [f'"{name}" has {value!r}' for value in values if not check(value)]
    if "other" in _listed(data.get("license")) and not data.get("license_name"):
        found.append('"license_name" is required when "license" is "other"')
    return found + (_space(data) if kind == "space" else []) + _results(data.get("model-index"))


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]


_CHECKS = {
    "license": lambda value: value in _LICENCES,
    "language": lambda value: isinstance(value, str) and re.fullmatch(r"[a-z]{2,3}(-[A-Za-z]+)?|code", value),
    "tags": lambda value: isinstance(value, str) and value,
    "library_name": lambda value: isinstance(value, str) and re.fullmatch(r"[\w.-]+", value),
    "pipeline_tag": lambda value: isinstance(value, str) and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value),
    "base_model": lambda value: isinstance(value, str) and _REPO.fullmatch(value),
    "datasets": lambda value: isinstance(value, str) and _REPO.fullmatch(value),
    "configs": lambda value: isinstance(value, dict) and {"config_name", "data_files"} <= set(value),
    "pretty_name": lambda value: isinstance(value, str) and value,
}


def _space(data: dict) -> list[str]:
    found = [f'a Space needs "{name}"' for name in _SPACE_KEYS[:2] if not data.get(name)]
    found += [f'"{n}" must be one of {_COLORS}' for n in _SPACE_KEYS[3:] if data.get(n) not in (None, *_COLORS)]
    return found + (['"sdk" must be gradio, docker or static'] if data.get("sdk") not in _SDKS else [])


_SDKS = ("gradio", "docker", "static", None)


def _results(index) -> list[str]:
    found = []
    for model in index or []:
        if not model.get("name"):
            found.append('"model-index" has an entry without a name')
        for result in model.get("results") or []:
            if not result.get("task", {}).get("type"):
                found.append('"model-index" has a result without a task type')
            if not {"type", "name"} <= set(result.get("dataset") or {}):
                found.append('"model-index" has a result without a dataset type and name')
            if any("type" not in metric or "value" not in metric for metric in result.get("metrics") or [{}]):
                found.append('"model-index" has a metric without type and value')
    return found
