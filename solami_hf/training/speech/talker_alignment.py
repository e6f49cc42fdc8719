"""Which frames of speech a character is said in, learnt from codes and texts alone: no other recogniser, no lexicon.

A small network learns to read the characters off the codes by CTC (https://doi.org/10.1145/1143844.1143891), and
`torchaudio.functional.forced_align` finds the most probable way through each clip. CTC names a character in one frame
and says "nothing new" in the others; for the way, that blank is allowed between two equal characters only, so that
every frame goes to the character that it is most like.
"""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from ...modeling.talker.modeling_talker import TalkerConvolution
from ...processing.batching import map_in_batches, pad_right

logger = logging.getLogger(__name__)

_BLANK_COST = 30.0  # nats that a frame of blank costs
_BATCH_FRAMES = 6000
_WARM_UP = 50  # steps


class CodeReader(nn.Module):
    """Reads characters off codes: an embedding, the talker's convolutional layers, each of which sees two frames
    more on either side, and a linear layer. Characters have the ids 1 to `characters`; 0 is CTC's blank."""

    def __init__(self, codebook_size: int, characters: int, size: int = 192, layers: int = 6):
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, size)
        self.layers = nn.ModuleList(TalkerConvolution(size, 2 * size, 5) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, characters + 1)

    def forward(self, codes: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Codes and their mask (batch, frames), padding behind, to log probabilities (batch, frames, ids)."""
        hidden = self.embedding(codes)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return self.head(self.norm(hidden)).float().log_softmax(-1)


def can_align(codes: np.ndarray, ids: list[int]) -> bool:
    """True if a clip has a frame for each character, and one between two equal ones."""
    return 0 < len(ids) <= len(codes) - sum((first == second for first, second in zip(ids, ids[1:], strict=False)))


def train_reader(
    codes: list[np.ndarray],
    texts: list[list[int]],
    codebook_size: int,
    characters: int,
    steps: int,
    learning_rate: float = 2e-3,
    seed: int = 0,
    device="cpu",
    bf16: bool = False,
    size: int = 192,
) -> CodeReader:
    """Learns to read clips: of each its codes (frames,) and the ids of its characters, 1 to `characters` (see
    `can_align`), in `steps` of about 2 minutes of speech; `size` is the reader's width."""
    torch.manual_seed(seed)
    reader = CodeReader(codebook_size, characters, size).to(device).train()
    optimizer = torch.optim.AdamW(reader.parameters(), learning_rate, betas=(0.9, 0.98))
    pace = {"total_steps": max(2, steps), "pct_start": min(0.3, _WARM_UP / max(1, steps))}
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, **pace)
    rng, batches = np.random.default_rng(seed), []
    progress = tqdm(range(steps), desc="learning to align", unit="step")
    for _ in progress:
        batches = batches or _batches([len(clip) for clip in codes], rng)
        batch = batches.pop()
        padded, mask = pad_right([torch.from_numpy(codes[index].astype(np.int64)) for index in batch])
        targets = [torch.tensor(texts[index]) for index in batch]
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            scores = reader(padded.to(device), mask.to(device))
        lengths = torch.tensor([len(target) for target in targets])
        loss = F.ctc_loss(
            scores.transpose(0, 1), torch.cat(targets).to(device), mask.sum(1), lengths, zero_infinity=True
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    if steps:
        logger.info("the reader of codes has come to a CTC loss of %.3f nats a character", loss.item())
    return reader.eval()


def _batches(lengths: list[int], rng: np.random.Generator) -> list[list[int]]:
    """Clips of like length together, about 6,000 frames in each batch, in random order."""
    order = np.argsort(np.array(lengths) * rng.uniform(0.9, 1.1, len(lengths)))
    batches, frames = [[]], 0
    for index in order.tolist():
        if frames and frames + lengths[index] > _BATCH_FRAMES:
            batches.append([])
            frames = 0
        batches[-1].append(index)
        frames += lengths[index]
    rng.shuffle(batches)
    return batches


@torch.no_grad()
def align(reader: CodeReader, codes: list[np.ndarray], texts: list[list[int]]) -> list[np.ndarray]:
    """Frames of each character, of each clip an integer array (characters,) that sums to the clip's frames; `codes`
    and `texts` as in `train_reader`."""
    from torchaudio.functional import forced_align

    device = reader.head.weight.device

    def scores_of(batch: list[np.ndarray]) -> list[torch.Tensor]:
        padded, mask = pad_right([torch.from_numpy(clip.astype(np.int64)) for clip in batch])
        scores = reader(padded.to(device), mask.to(device)).float()
        scores[..., 1:] = scores[..., 1:].log_softmax(-1)
        scores[..., 0] = -_BLANK_COST
        return [row[real] for row, real in zip(scores.cpu(), mask, strict=True)]

    scores = map_in_batches(
        codes, len, 64, scores_of, progress=lambda batches: tqdm(batches, desc="aligning", unit="batch"),
        most_steps=_BATCH_FRAMES,
    )  # fmt: skip
    found = []
    for clip, ids in zip(scores, texts, strict=True):
        path = forced_align(clip[None], torch.tensor([ids], dtype=torch.int32), blank=0)[0][0]
        found.append(frames_of_path(path.numpy(), ids))
    return found


def frames_of_path(path: np.ndarray, ids: list[int]) -> np.ndarray:
    """Frames of each character (characters,) of a way (frames,) of ids, in which 0 goes to the character before it, at
    the start to the first one."""
    begins = (path != 0) & (path != np.concatenate([[0], path[:-1]]))
    begins[: np.argmax(path != 0) + 1] = False  # the first character has all up to here
    begins[0] = True
    counts = np.diff([*np.flatnonzero(begins), len(path)])
    if len(counts) != len(ids):
        raise ValueError(f"a way of {len(counts)} characters, expected {len(ids)}")
    return counts
