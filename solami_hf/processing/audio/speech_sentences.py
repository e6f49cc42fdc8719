"""Short everyday English sentences for training and measuring the small speech codec.

The templates with their slots lie in `speech_sentences.json`, authored for this package. They speak of greetings,
movements, feelings, food, journeys and of the six worlds of the demo's characters, so that the codec hears all common
sounds of the language in many neighbourhoods.
"""

import json
import random
import re
from pathlib import Path

_AUTHORED = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
SLOTS: dict[str, list[str]] = _AUTHORED["slots"]
TEMPLATES: list[str] = _AUTHORED["templates"]


def sentences(count: int, seed: int = 0) -> list[str]:
    """`count` different sentences in random order, the same for the same seed; ValueError for too many or none."""
    if count < 1:
        raise ValueError(f"count is {count}, expected at least 1")
    generator = random.Random(seed)
    found: dict[str, None] = {}
    for attempt in range(40 * count):
        # Templates take turns, so that none is rare.
        found.setdefault(fill(TEMPLATES[attempt % len(TEMPLATES)], generator))
        if len(found) == count:
            result = list(found)
            generator.shuffle(result)
            return result
    raise ValueError(f"count is {count}, the templates yield only about {len(found)} different sentences")


def fill(template: str, generator: random.Random) -> str:
    """One sentence from a template like "Please {move}."; slots may hold slots."""
    while "{" in template:
        template = re.sub(r"\{(\w+)\}", lambda match: generator.choice(SLOTS[match.group(1)]), template)
    template = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])(?!uniform|useful)", r"\1n ", template)
    template = re.sub(r"(x|ch)s\b", r"\1es", template)  # boxes, watches
    return template[0].upper() + template[1:]
