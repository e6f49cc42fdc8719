"""The captioned motions that dialogues may use, and which of them lies nearest to what a script describes.

Captions become unit vectors, and a matrix product compares them with descriptions: exact, and with 120,000 captions of
384 values about 100 MFLOP a description, so no approximate index is needed. Without a text encoder the vectors are
hashed TF-IDF over words and pieces of words, which needs no weights and no network, but knows no synonyms.
"""

import logging
import os
import random
import re
import shutil
import zlib
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import scipy.sparse
from tqdm import tqdm

from ..batching import map_in_batches
from ..files.atomic_write import atomic_write
from .writers import content_hash

logger = logging.getLogger(__name__)
CLOSE = 0.02  # similarities that differ by less count as equal
_BLOCK = 128  # descriptions compared at once


@dataclass(frozen=True)
class Motion:
    """A motion that dialogues may use."""

    id: str
    captions: tuple[str, ...]  # what it shows
    path: Path | None = None  # None when it is known by its tokens only
    start: float = 0.0  # seconds of the piece of the file
    end: float | None = None  # None is the end of the file


def read_motions(source: str | Path, split: str) -> list[Motion]:
    """The motions of a split: of a folder or manifest that `solami prepare motion` reads, or of a prepared token
    dataset (`motion/*.parquet`, or a Hub id). Those without caption, or whose file is missing or outside the
    folder, are passed over with a warning. Raises FileNotFoundError: no such folder, config or split; ValueError:
    no usable motion of the split."""
    if Path(source).exists() and not any(Path(source).glob("motion/*.parquet")):
        motions = _motions_of_files(Path(source), split)
    else:
        from ..datasets.token_dataset import load_tokens

        rows = load_tokens(source, "motion", split).select_columns(["id", "text"])
        motions = [Motion(row["id"], _captions(row)) for row in rows]
    usable = [motion for motion in motions if motion.captions]
    if len(usable) < len(motions):
        count = len(motions) - len(usable)
        logger.warning("%d %s motions of %s have no caption or no file; they are not used", count, split, source)
    if not usable:
        raise ValueError(f"{source} has no usable {split} motion; each needs a caption and a file in the folder")
    return usable


def _motions_of_files(source: Path, split: str) -> list[Motion]:
    """The motions of a folder, without captions where there is no file."""
    from ..datasets.layouts.find_layout import find_layout, read_rows, root_of
    from ..datasets.prepare_rows import files_of, is_inside

    motions, root = [], root_of(source)
    for row in read_rows(source, "motion", find_layout(source, "motion")):
        if isinstance(row, dict) and isinstance(row.get("id"), str) and (row.get("split") or "train") == split:
            found = [file for file in files_of("motion", row) if is_inside(file.name)]
            found = [(root / file.name, file.start, file.end) for file in found if (root / file.name).is_file()]
            motions.append(Motion(row["id"], _captions(row), *found[0]) if found else Motion(row["id"], ()))
    return motions


def _captions(row: dict) -> tuple[str, ...]:
    text = row.get("text") or ()
    text = [text] if isinstance(text, str) else text
    return tuple(dict.fromkeys(" ".join(t.split()) for t in text if isinstance(t, str) and t.strip()))


def bring_motion(motion: Motion, folder: Path) -> str:
    """Links (or copies) a motion's file into the manifest folder, or writes the piece that it is; gives the path in
    it. Raises ValueError: a piece of a file that cannot be read, or that begins behind its end."""
    slug = re.sub(r"[^A-Za-z0-9-]+", "_", motion.id)[:60]
    name = f"motion/{slug}-{content_hash(motion.id)[:8]}"
    if motion.start or motion.end is not None:
        return _cut(motion, folder, f"{name}.npz")
    path = f"{name}{motion.path.suffix.lower()}"
    with atomic_write(folder / path) as temporary:
        try:
            os.link(motion.path.resolve(), temporary)
        except OSError:  # another file system
            shutil.copyfile(motion.path, temporary)
    return path


def _cut(motion: Motion, folder: Path, path: str) -> str:
    from ..motion.motion_io import read_motion, write_motion

    whole = read_motion(motion.path)
    start, end = (None if t is None else round(t * whole.fps) for t in (motion.start, motion.end))
    if start >= whole.num_frames:
        raise ValueError(f"{motion.path} lasts {whole.duration:.2f} s, but {motion.id} begins at {motion.start:g} s")
    write_motion(folder / path, replace(whole, transl=whole.transl[start:end], poses=whole.poses[start:end]))
    return path


@dataclass(frozen=True)
class Match:
    """A motion, its caption that fits, and the cosine of both."""

    motion: Motion
    caption: str
    similarity: float


class HashedTfidf:
    """English texts as sparse unit vectors (N, 2^18): stems of words and their pieces, rare ones counting more. Half
    of a word's weight is its stem, half the pieces of 3 and 4 letters, so that relatives of a word are near. Words
    that say nothing about a movement are passed over; a text of only such words is a vector of zeros."""

    size = 1 << 18

    def __init__(self, texts: list[str]):
        counts = self._counts(texts)
        self.weights = np.log((1 + len(texts)) / (1 + counts.getnnz(axis=0))) + 1

    def __call__(self, texts: list[str]) -> scipy.sparse.csr_matrix:
        weighted = self._counts(texts).multiply(self.weights[None]).tocsr()
        norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).reshape(-1))
        return (scipy.sparse.diags(1 / np.maximum(norms, 1e-12)) @ weighted).tocsr().astype(np.float32)

    def _counts(self, texts: list[str]) -> scipy.sparse.csr_matrix:
        rows, columns, values = [], [], []
        for row, text in enumerate(texts):
            features: dict[int, float] = {}
            for word in re.findall(r"\w+", text.casefold()):
                for column, value in _word_features(word, self.size):
                    features[column] = max(features.get(column, 0.0), value)
            rows += [row] * len(features)
            columns += features.keys()
            values += features.values()
        return scipy.sparse.csr_matrix((values, (rows, columns)), shape=(len(texts), self.size), dtype=np.float64)


@lru_cache(100_000)
def _word_features(word: str, size: int) -> tuple[tuple[int, float], ...]:
    if word in _SAYS_NOTHING:
        return ()
    stem = _stem(word)
    framed = f"<{stem}>"
    pieces = [f"~{framed[i : i + n]}" for n in (3, 4) for i in range(len(framed) - n + 1)]
    weights = [(stem, 1.0), *((piece, max(1, len(pieces)) ** -0.5) for piece in pieces)]
    return tuple((zlib.crc32(name.encode("utf-8", "replace")) % size, weight) for name, weight in weights)


def _stem(word: str) -> str:
    """A word without its usual English endings: wave, waves, waved and waving all become wav."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


_SAYS_NOTHING = frozenset(
    "a an the this that these those he she it they we you i him her them his its their your my is are be been being "
    "was were has have had do does did and or but while as then so very of to in on at by for from with into onto "
    "person people someone somebody man woman human figure character actor visitor subject".split()
)


class TextEncoder:
    """Texts as unit vectors (N, D) float32 of any encoder of the Hub (a folder or Hub id, such as
    `sentence-transformers/all-MiniLM-L6-v2`): the mean over its last hidden states. The vectors of long lists are kept
    in the folder `cache`."""

    def __init__(self, model: str, cache: str | Path | None = None, batch_size: int = 64):
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.name, self.cache, self.batch_size = model, None if cache is None else Path(cache), batch_size
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model = AutoModel.from_pretrained(model).eval()
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, texts: list[str]) -> np.ndarray:
        path = None if self.cache is None else self.cache / f"{content_hash([self.name, texts])}.npy"
        if path is not None and path.is_file():
            return np.load(path, allow_pickle=False)
        progress = partial(tqdm, desc="embed", unit="batch", disable=None)
        vectors = np.stack(map_in_batches(texts, len, self.batch_size, self._encode_batch, progress))
        if path is not None:
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, vectors, allow_pickle=False)
        return vectors

    def _encode_batch(self, texts: list[str]) -> np.ndarray:
        import torch

        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        batch = batch.to(self.model.device)
        with torch.inference_mode():
            hidden = self.model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1).clamp(min=1), dim=-1).cpu().numpy()


class MotionMatcher:
    """Finds motions by description, and keeps one from being used by more than `max_repeats` lines in a row.
    `embed(texts)` gives unit vectors, one a row; None fits a `HashedTfidf` to the captions. `top_k` motions come into
    question for a description, and those that tie with the last one; below the cosine `min_similarity` a motion is
    none for it."""

    def __init__(self, motions: list[Motion], embed=None, top_k=8, min_similarity=0.3, max_repeats=2):
        self.motions, self.top_k, self.min_similarity, self.max_repeats = motions, top_k, min_similarity, max_repeats
        self.captions = [caption for motion in motions for caption in motion.captions]
        self.starts = np.cumsum([0] + [len(motion.captions) for motion in motions])
        self.embed = HashedTfidf(self.captions) if embed is None else embed
        self.vectors = self.embed(self.captions)
        self.recent: list[str | None] = []

    def nearest(self, descriptions: list[str]) -> dict[str, list[Match]]:
        """For each distinct description the motions that come into question, the best first."""
        wanted, found = list(dict.fromkeys(descriptions)), {}
        for start in range(0, len(wanted), _BLOCK):
            block = wanted[start : start + _BLOCK]
            scores = self.embed(block) @ self.vectors.T
            scores = scores.toarray() if scipy.sparse.issparse(scores) else np.asarray(scores)
            found.update((text, self._best(row)) for text, row in zip(block, scores, strict=True))
        return found

    def _best(self, scores: np.ndarray) -> list[Match]:
        by_motion = np.maximum.reduceat(scores, self.starts[:-1])
        last = np.partition(by_motion, -min(self.top_k, len(by_motion)))[-min(self.top_k, len(by_motion))]
        chosen = np.flatnonzero(by_motion >= max(last - 1e-6, self.min_similarity))
        matches = []
        for index in chosen[np.argsort(-by_motion[chosen], kind="stable")]:
            caption = self.starts[index] + int(scores[self.starts[index] : self.starts[index + 1]].argmax())
            matches.append(Match(self.motions[index], self.captions[caption], float(by_motion[index])))
        return matches

    def choose(self, matches: list[Match], rng: random.Random) -> Match | None:
        """One of the best that is not used up, by lot among equals; None when there is none."""
        last = self.recent[-self.max_repeats :]
        used_up = last[0] if len(last) == self.max_repeats and len(set(last)) == 1 else None
        free = [match for match in matches if match.motion.id != used_up]
        equals = [match for match in free if match.similarity >= free[0].similarity - CLOSE]
        match = rng.choice(equals) if equals else None
        self.recent = [*last, match.motion.id if match else None]
        return match
