"""A character that moves while another person does: its codes of each tick, given all that was there before."""

import numpy as np
import torch

from ...processing.datasets.duplex import DuplexRenderer
from ..cache import CACHE
from .duplex_grammar import DuplexGrammar


@torch.no_grad()
def generate_character(
    model, renderer: DuplexRenderer, begun: list[np.ndarray], partners: list[np.ndarray], window: int,
    temperature: float = 1.0, generator: torch.Generator | None = None,
) -> list[np.ndarray]:  # fmt: skip
    """Ids of the character's ticks beside partners that are known, as they would come live: of each item (T, tokens),
    with those that were given. The model was trained on `duplex` rows of `renderer`. `begun` are, of each item, the
    character's first ticks (n, tokens), as `DuplexRenderer.streams` gives them, n equal; `partners` the partner's
    ticks (T, tokens), T equal. It looks back at `window` ticks at most; half of them are dropped when it is full.
    `temperature` 0 takes the most likely code; `generator` is for sampling."""
    allowed = DuplexGrammar(renderer.layout, renderer.format).table(model.config.vocab_size, model.device)
    partner = torch.as_tensor(np.stack(partners), device=model.device)
    made = list(torch.as_tensor(np.stack(begun), device=model.device).unbind(1))
    marker, size = renderer.layout.markers["mmgpt"], np.stack(begun).shape[2]
    first, cache = 0, None
    while len(made) < partner.shape[1]:
        now = len(made)
        if cache is None or now - first >= window:
            first, cache = max(0, now - (window if cache is None else window // 2)), None
        ticks = range(first, now) if cache is None else [now - 1]
        begin = 0 if cache is None else size - 1  # a tick's last code is not in the cache yet
        known = [torch.cat([made[t], partner[:, t]], 1)[:, begin:] for t in ticks]
        ids = torch.cat([*known, torch.full_like(partner[:, 0, :1], marker)], 1)
        tick = [ids[:, -1]]
        for place in range(1, size):
            output = model(input_ids=ids, **{CACHE: cache}, use_cache=True)
            cache, logits = output[CACHE], output.logits[:, -1].float()
            logits = logits.masked_fill(~allowed[place], float("-inf"))
            if temperature > 0:
                chances = torch.softmax(logits / temperature, -1)
                tick.append(torch.multinomial(chances, 1, generator=generator)[:, 0])
            else:
                tick.append(logits.argmax(-1))
            ids = tick[-1][:, None]
        made.append(torch.stack(tick, 1))
    return list(torch.stack(made, 1).cpu().numpy())
