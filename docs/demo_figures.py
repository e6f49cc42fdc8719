"""Writes a demo run's figures into README (those with a target) and docs/validation.md (all), between their marks.

python docs/demo_figures.py runs/demo
"""

import argparse
import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
FIGURES = yaml.safe_load((ROOT / "solami_hf" / "demo" / "figures.yaml").read_text(encoding="utf-8"))


def rows(metrics: dict, with_target: bool) -> list[str]:
    """The Markdown table of a run's figures with their 95 % intervals, where they have any."""
    lines = ["| | measured | 95 % | asked for |", "|---|---|---|---|"]
    for name, figure in FIGURES.items():
        wanted = [
            f"{key.replace('_', ' ')} {figure[key]}{figure['unit']}"
            for key in ("at_least", "at_most")
            if key in figure
        ]
        if name in metrics and (wanted or not with_target):
            low, high = metrics.get("intervals", {}).get(name, ("", ""))
            bounds = f"{low:.1f} to {high:.1f}" if low != "" else ""
            lines.append(f"| {figure['name']} | {metrics[name]:.1f}{figure['unit']} | {bounds} | {''.join(wanted)} |")
    return lines


def fill(page: Path, mark: str, lines: list[str]) -> None:
    """Puts lines between the marks of a page."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    text = page.read_text(encoding="utf-8")
    found = re.compile(f"{begin}.*?{end}", re.DOTALL)
    if not found.search(text):
        raise ValueError(f"{page} has no {begin} ... {end}")
    page.write_text(found.sub(lambda _: "\n".join([begin, *lines, end]), text), encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="Folder of a demo run, for example runs/demo.")
    report = json.loads((parser.parse_args().run / "report.json").read_text(encoding="utf-8"))
    metrics, stages = report["metrics"], report["stages"].values()
    minutes = sum(stage["seconds"] for stage in stages) / 60
    memory = max(stage["peak_memory_mb"] for stage in stages) / 1024
    counts = ", ".join(f"{count} {name}" for name, count in metrics.get("counts", {}).items())
    told = f"One run: {minutes:.1f} minutes after installation, {memory:.1f} GB at most. Counted over {counts}."
    fill(ROOT / "README.md", "demo figures: short", rows(metrics, with_target=True))
    fill(ROOT / "docs" / "validation.md", "demo figures", [told, "", *rows(metrics, with_target=False)])


if __name__ == "__main__":
    main()
