"""The page of a metric's Space on the Hub: JSON lists in, the result and the card out."""

import inspect
import json
from pathlib import Path
from typing import Any


def compute_json(metric: Any, texts: list[str], options: str = "") -> dict[str, Any]:
    """The metric of JSON texts, one for each of its inputs, and a JSON object of options. Raises ValueError: a text
    is no JSON, or the metric refuses what it holds."""
    inputs = {name: json.loads(text or "null") for name, text in zip(metric.input_names(), texts, strict=True)}
    return metric.compute(**inputs, **json.loads(options or "{}"))


def launch(module: str | Path) -> None:
    """Shows the metric of a module file. `module`: path of the module beside its `README.md`."""
    import evaluate
    import gradio

    module = Path(module)
    metric = evaluate.load(str(module))
    card = module.with_name("README.md").read_text(encoding="utf-8").split("---\n", 2)[-1]
    names = [*metric.input_names(), "options"]

    def show(*texts: str) -> str:
        return json.dumps(compute_json(metric, list(texts[:-1]), texts[-1]), indent=2)

    page = gradio.Interface(
        fn=show,
        inputs=[gradio.Textbox(label=f"{name} (JSON)", lines=4) for name in names],
        outputs=gradio.Textbox(label=module.stem),
        description=inspect.cleandoc(metric.description),
        article=card,
        title=module.stem,
    )
    page.launch()
