"""Parts of the pages of training runs: curves of Trainer's log, and clips to listen to."""

import base64
import io
import math
from pathlib import Path

import jinja2
import numpy as np
import soundfile
import torch

from ..processing.audio.waveforms import limit_loudness
from ..processing.files.text_files import write_text
from ..report.page import Curve, MetricRow

# page.html has no section for sounds of their own: this one stands before its others
_SOUNDS = """<main>
  <section aria-labelledby="sounds-heading">
    <h2 id="sounds-heading">{{ heading }}</h2>
    <p class="section-note">{{ note }}</p>
    {% for title, sounds in clips %}
    <div class="card" style="padding: 16px 20px; margin-bottom: 12px">
      <p style="margin: 0 0 8px">{{ title }}</p>
      <div style="display: flex; flex-wrap: wrap; gap: 16px">
        {% for name, source in sounds %}
        <label><small>{{ name }}</small><br><audio controls preload="none" src="{{ source }}"></audio></label>
        {% endfor %}
      </div>
    </div>
    {% endfor %}
  </section>
"""


def decoded(codec, codes: torch.Tensor) -> np.ndarray:
    """Samples of speech codes (1, levels, frames), their loudness bounded."""
    values = codec.decode(codes.to(codec.device)).audio_values[0, 0].float().cpu().numpy()
    return limit_loudness(np.nan_to_num(values), codec.config.sampling_rate)


def curves_of_log(
    log: list[dict[str, float]], charts: dict[str, tuple[str, ...]], held_out: str = "held-out "
) -> list[Curve]:
    """The charts (title -> label of the y axis, names in the log) that Trainer's log has points for; values that are
    no number are left out. "eval_" in a name is called `held_out`: "eval_loss" is "held-out loss", beside "loss"."""
    curves = []
    for title, (label, *names) in charts.items():
        series = {}
        for name in names:
            points = [(float(row["step"]), float(row[name])) for row in log if name in row]
            if points := [point for point in points if math.isfinite(point[1])]:
                series[name.replace("eval_", held_out).replace("_", " ")] = points
        if series:
            curves.append(Curve(title, "step", label, series))
    return curves


def figures_of(
    evaluation: dict[str, float], figures: dict[str, tuple[str, float, str]], heading: str
) -> list[MetricRow]:
    """The figures (name without "eval_" -> title, factor, meaning) that an evaluation has, as rows of the page's
    table; those that are no number are left out. To the group's heading the step is added."""
    group, rows = f"{heading} at step {evaluation.get('step', 0)}", []
    for name, (title, scale, meaning) in figures.items():
        value = evaluation.get(f"eval_{name}", math.nan)
        if math.isfinite(value):
            rows.append(MetricRow(title, scale * value, meaning=meaning, group=group))
    return rows


def add_sounds(
    page: str | Path, heading: str, note: str, clips: list[tuple[str, dict[str, np.ndarray]]], sampling_rate: int
) -> None:
    """Puts players before the other sections of a page that `write_report` wrote: of each clip a title and its
    versions, name -> float samples (samples,) in [-1, 1] at `sampling_rate` Hz."""
    sources = [(title, [(name, _wav_url(v, sampling_rate)) for name, v in some.items()]) for title, some in clips]
    template = jinja2.Environment(autoescape=True).from_string(_SOUNDS)  # a title must not become markup
    section = template.render(heading=heading, note=note, clips=sources)
    html = Path(page).read_text(encoding="utf-8").replace("<main>\n", section + "\n", 1)
    write_text(page, html)


def _wav_url(samples: np.ndarray, sampling_rate: int) -> str:
    """A 16-bit wav file as a data URL."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), sampling_rate, format="WAV", subtype="PCM_16")
    return "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode("ascii")
