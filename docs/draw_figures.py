"""Draws the figures of the docs: the tokens of a turn, the three stages, the skeleton.

python docs/draw_figures.py        # writes docs/tokens.svg, docs/stages.svg, docs/skeleton.svg
"""

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
COLOURS = {
    "text": "#e3e6ef",
    "trans": "#f3dc9a",
    "body": "#f5b899",
    "hand": "#eeb3cc",
    "speech": "#b3c8fb",
    "mark": "#f4f5fa",
}
STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#1f2430}.small{font-size:11px;fill:#5b6275}"
    ".mono{font:11px ui-monospace,monospace}.line{stroke:#8a92a6;stroke-width:1.4;fill:none}</style>"
)


def svg(width: int, height: int, parts: list[str]) -> str:
    """A figure on a white card, so that it reads in dark mode too."""
    card = f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join([head, STYLE, card, *parts, "</svg>", ""])


def box(x: float, y: float, width: float, height: float, label: str, colour: str, small: str = "") -> str:
    """A rounded box with a label, and a smaller line below it."""
    middle, text_y = x + width / 2, y + height / 2 + (4 if not small else -3)
    lines = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{colour}" stroke="#c3c8d6"/>']
    lines.append(f'<text x="{middle}" y="{text_y}" text-anchor="middle">{label}</text>')
    if small:
        lines.append(f'<text x="{middle}" y="{text_y + 16}" text-anchor="middle" class="small">{small}</text>')
    return "".join(lines)


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """A line with a head."""
    angle = np.arctan2(y2 - y1, x2 - x1)
    wings = [(x2 - 7 * np.cos(angle + turn), y2 - 7 * np.sin(angle + turn)) for turn in (0.45, -0.45)]
    head = " ".join(f"L{x:.1f} {y:.1f} M{x2} {y2}" for x, y in wings)
    return f'<path class="line" d="M{x1} {y1} L{x2} {y2} {head}"/>'


def tokens() -> str:
    """One user turn and the character's answer, as the language model reads and writes them."""
    body, hand = ("&lt;sobo&gt; body &lt;eobo&gt;", "body", 180), ("&lt;soha&gt; hands &lt;eoha&gt;", "hand", 180)
    speech = "&lt;sosp&gt; speech &lt;eosp&gt;"
    rows = [
        ("[Human]: ", [("place", "trans", 60), body, hand, (speech, "speech", 224), ("&lt;eoh&gt;", "mark", 56)]),
        ("[MMGPT]: ", [body, hand, (speech, "speech", 290), ("&lt;eos&gt;", "mark", 56)]),
    ]
    parts = [box(16, 16, 846, 32, "system prompt: who the character is", COLOURS["text"])]
    for row, (role, blocks) in enumerate(rows):
        x, y = 16, 62 + row * 52
        parts.append(box(x, y, 116, 40, role, COLOURS["text"]))
        x += 122
        for label, kind, width in blocks:
            parts.append(box(x, y, width, 40, f'<tspan class="mono">{label}</tspan>', COLOURS[kind]))
            x += width + 6
    legend = [("trans", "place: 1 a motion"), ("body", "body: 7.5 a second"), ("hand", "hands: 7.5 a second"),
              ("speech", "speech: 50 a second")]  # fmt: skip
    for i, (kind, text) in enumerate(legend):
        x = 140 + i * 180
        parts.append(f'<rect x="{x}" y="172" width="14" height="14" rx="3" fill="{COLOURS[kind]}"/>')
        parts.append(f'<text x="{x + 21}" y="184" class="small">{text}</text>')
    return svg(878, 202, parts)


def stages() -> str:
    """The three stages of training and what each leaves for the next."""
    parts = []
    columns = [
        (
            "1 · tokenizers",
            "captures, recordings",
            "tokenizers of motion and speech",
            "train-motion-vq, train-speech-codec",
            "body",
        ),
        ("2 · pretraining", "six tasks, motion : speech 4 : 6", "decoder language model", "pretrain", "trans"),
        ("3 · instruction tuning", "multi-turn dialogues", "the character", "sft, full or LoRA", "speech"),
    ]
    for i, (title, data, result, command, kind) in enumerate(columns):
        x = 20 + i * 290
        parts.append(f'<text x="{x + 128}" y="30" text-anchor="middle" font-weight="600">{title}</text>')
        parts.append(box(x, 44, 256, 40, data, COLOURS["text"]))
        parts.append(arrow(x + 128, 84, x + 128, 108))
        parts.append(box(x, 108, 256, 52, result, COLOURS[kind], f"solami {command}"))
        if i:
            parts.append(arrow(x - 34, 134, x, 134))
    return svg(876, 180, parts)


def skeleton() -> str:
    """The 55 joints in the rest pose, seen from the front."""
    from solami_hf.modeling.motion_vq.kinematics import SMPLX_PARENTS as parents
    from solami_hf.processing.motion.body import rest_joints

    joints = rest_joints()
    low, high = joints.min(0), joints.max(0)
    scale = 420 / (high[1] - low[1])
    points = [(round(300 + x * scale, 1), round(440 - (y - low[1]) * scale, 1)) for x, y, _ in joints]
    parts = []
    for joint, parent in enumerate(parents):
        if parent >= 0:
            (x1, y1), (x2, y2) = points[parent], points[joint]
            colour = "#c85a8a" if joint >= 25 else "#e07a4b"
            parts.append(
                f'<path d="M{x1} {y1} L{x2} {y2}" stroke="{colour}" stroke-width="3" stroke-linecap="round"/>'
            )
    for joint, (x, y) in enumerate(points):
        parts.append(f'<circle cx="{x}" cy="{y}" r="{2 if joint >= 25 else 4}" fill="#1f2430"/>')
    notes = ["22 body joints: root, spine, limbs", "jaw and eyes: kept still", "2 × 15 finger joints",
             "a frame: 315 features,", "rotations as 6 numbers each"]  # fmt: skip
    parts += [f'<text x="390" y="{250 + 20 * i}" class="small">{note}</text>' for i, note in enumerate(notes)]
    return svg(600, 470, parts)


def main() -> None:
    """Writes the three figures beside this file."""
    for draw in (tokens, stages, skeleton):
        (HERE / f"{draw.__name__}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
