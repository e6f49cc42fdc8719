"""Whether a character's body reacts to its partner: `solami evaluate duplex CHECKPOINT --data TOKENS`.

Of held-out `duplex` rows, the log-likelihood of the body codes that somebody really showed while listening, given
what the true partner did, and given what the same person of other rows did at that time (shuffled). Both read the same
past of the listener, so the difference is what the partner tells. Above 0 the true partner explains the body better.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ...processing.datasets.duplex import DuplexFormat, DuplexRenderer
from ...processing.datasets.token_dataset import load_tokens
from ...processing.files.text_files import write_json, write_text
from .intervals import Ratio, difference, summarize
from .tables import Table, as_html, as_markdown

REACTION = 3  # ticks after the partner's last word in which a reaction still counts as listening
SHUFFLES = 3
_BATCH = 16


def listening_ticks(row: Mapping, character: int, ticks: int, seconds: float) -> np.ndarray:
    """True (ticks,) where the partner talks, or did up to `REACTION` ticks before, and the character does not; by the
    row's `talks`. All where they are not told."""
    heard = np.zeros((2, ticks), dtype=bool)
    for person, told in enumerate(row["people"]):
        for start, end in told["talks"] or ():
            heard[person, int(start / seconds) : int(np.ceil(end / seconds))] = True
    if not heard.any():
        return np.ones(ticks, dtype=bool)
    late = [np.append(np.zeros(n, dtype=bool), heard[1 - character])[:ticks] for n in range(REACTION + 1)]
    return np.any(late, 0) & ~heard[character]


@torch.no_grad()
def body_likelihood(model, renderer: DuplexRenderer, pairs: Sequence[tuple], most: int) -> list[np.ndarray]:
    """Log-likelihood in nats of the character's body codes of each tick (ticks,), for pairs of `streams`. Pieces of
    `most` ticks overlap by half; a tick is taken from the piece in which it has most of the past."""
    config, jobs = renderer.format, []
    if "body" not in config.character:
        raise ValueError(f"the character has {', '.join(config.character)} here, expected body among them")
    for number, (character, _) in enumerate(pairs):
        last = max(0, len(character) - most)
        jobs += [(number, start) for start in [*range(0, last, max(1, most // 2)), last]]
    found = [np.zeros(len(character)) for character, _ in pairs]
    filled = [0] * len(pairs)
    for first in range(0, len(jobs), _BATCH):
        some = jobs[first : first + _BATCH]
        rows = [renderer.write(*(s[start : start + most] for s in pairs[n]))["input_ids"] for n, start in some]
        ids = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(row) for row in rows], batch_first=True)
        ids = ids.to(model.device)
        scores = model(input_ids=ids[:, :-1]).logits.float().log_softmax(-1)
        scores = scores.gather(2, ids[:, 1:, None])[..., 0].cpu().numpy()
        for (number, start), row, nats in zip(some, rows, scores, strict=True):
            ticks = (len(row) - 1) // config.tokens
            # Behind the marker come the body's codes: column p of `nats` is the token in place p + 1
            body = nats[: ticks * config.tokens].reshape(ticks, config.tokens)[:, : config.sizes["body"]].sum(1)
            found[number][filled[number] : start + ticks] = body[filled[number] - start :]
            filled[number] = start + ticks
    return found


def listening(
    model, rows: Sequence[Mapping], masks: Mapping[str, Mapping] | None = None, seed: int = 0
) -> dict[str, dict]:
    """`{kind of ticks: {"true", "shuffled", "difference", "rows_better", "rows", "codes"}}`: nats of a body code, with
    95 % bootstrap intervals over rows; the difference is paired. The model was trained on `duplex` rows, so that its
    `config.duplex` says what a tick holds, and how many it has seen; `rows` of a `duplex` token dataset are two or
    more (else ValueError). `masks`: kind -> (row id, character) -> ticks (T,) to look at; by default `listening` by
    `listening_ticks`. `seed` is of which partners are exchanged, and of the bootstrap."""
    if len(rows) < 2:
        raise ValueError(f"a shuffled partner needs at least two rows, got {len(rows)}")
    renderer = DuplexRenderer(model.config, DuplexFormat.of(model.config))
    most, rng = model.config.duplex["max_ticks"], np.random.default_rng(seed)
    views = [[renderer.streams(row, person) for row in rows] for person in (0, 1)]
    shifts = 1 + rng.permutation(len(rows) - 1)[:SHUFFLES]
    found: dict[str, list[tuple]] = {}
    for person, streams in enumerate(views):
        nats = []
        for shift in (0, *shifts):
            partners = [streams[(i + shift) % len(rows)][1] for i in range(len(rows))]
            pairs = [(own, other[np.arange(len(own)) % len(other)]) for (own, _), other in zip(streams, partners)]  # noqa: B905
            nats.append(body_likelihood(model, renderer, pairs, most))
        for i, row in enumerate(rows):
            seen = {kind: known.get((row["id"], person)) for kind, known in (masks or {}).items()}
            if masks is None:
                seen = {"listening": listening_ticks(row, person, len(nats[0][i]), renderer.format.seconds)}
            for kind, mask in seen.items():
                if mask is not None and (ticks := np.flatnonzero(mask[: len(nats[0][i])])).size:
                    true, *others = (told[i][ticks].sum() for told in nats)
                    codes = len(ticks) * renderer.format.sizes["body"]
                    found.setdefault(kind, []).append((row["id"], true, np.mean(others), codes))
    if not found:
        raise ValueError("no tick to look at: nobody listens in these rows")
    return {kind: _figures(told, seed) for kind, told in found.items()}


def _figures(told: list[tuple], seed: int) -> dict:
    names, true, shuffled, codes = zip(*told, strict=True)
    gain: dict[str, float] = {}
    for name, one, other, _ in told:
        gain[name] = gain.get(name, 0.0) + one - other
    true, shuffled = Ratio(names, true, codes), Ratio(names, shuffled, codes)
    figures = {"true": summarize([true], seed), "shuffled": summarize([shuffled], seed)}
    figures["difference"] = difference([true], [shuffled], seed)
    figures["rows_better"] = sum(float(g) > 0 for g in gain.values())
    return {**figures, "rows": len(gain), "codes": int(sum(codes))}


def evaluate_duplex(checkpoints: Sequence[str], data: str, output: Path, seed: int = 0) -> None:
    """Writes `listening` of checkpoints on the test split of a token dataset, as tables and JSON."""
    from transformers import AutoModelForCausalLM

    from ...processing.processing_solami import SolamiProcessor

    found, lines = [], []
    for checkpoint in checkpoints:
        model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
        if not getattr(model.config, "duplex", None):
            raise ValueError(f"{checkpoint} was not trained on duplex rows; `solami sft --rows duplex` does that")
        rows = list(load_tokens(data, "duplex", "test", SolamiProcessor.from_pretrained(checkpoint)))
        found.append({"model": Path(checkpoint).name, **(one := listening(model, rows, seed=seed)["listening"])})
        cells = [f"{part['mean']:.3f} [{part['low']:.3f}, {part['high']:.3f}]" for part in list(one.values())[:3]]
        lines.append((found[-1]["model"], [*cells, f"{one['rows_better']} of {one['rows']}", str(one["codes"])]))
    columns = ["true partner", "shuffled partner", "difference", "rows better with the true one", "body codes"]
    notes = ["On the test split, with 95 % intervals over rows. A body that reacts has a difference above 0."]
    tables = [Table("Listening: nats of a body code", columns, lines, notes)]
    write_json(output / "evaluation.json", {"kind": "duplex", "evaluations": found})
    write_text(output / "evaluation.md", as_markdown(tables))
    write_text(output / "evaluation.html", as_html("Listening", tables))
