"""What many changed heads say of the same rows: logits of the original head once, and of each change a product of low
rank on top, block by block, so that no block leaves the processor's cache before all is read off it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedx.extract.encoding import kept_memory, threads
from embedx.repair.descent import Change, Progress, silent, threads_for
from embedx.repair.start import Start

if TYPE_CHECKING:
    import torch

BLOCK = 1 << 19
"""Logits of one head in a block."""
TOGETHER = 64
"""Heads whose answers are computed in one pass over the rows."""


@dataclass(frozen=True, eq=False)
class Answers:
    """A head on n rows.

    rank      (n,) classes with a larger logit than the row's own label has: 0 where it is right, below 5 in the top 5
    said      (n,) the class that it predicts
    forward   (n,) KL(p0 || p) in nats, p0 the predictions of the original head; reverse: KL(p || p0)
    """

    rank: np.ndarray
    said: np.ndarray
    forward: np.ndarray
    reverse: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """(n,) bool."""
        return self.rank == 0

    def take(self, rows: np.ndarray) -> Answers:
        """Some of the rows."""
        return Answers(self.rank[rows], self.said[rows], self.forward[rows], self.reverse[rows])


def original(start: Start, Z: torch.Tensor, y: torch.Tensor) -> tuple[Answers, torch.Tensor]:
    """Answers of the head that is repaired, and its logits (n, k)."""
    import torch

    logits = torch.addmm(start.b, Z, start.W.T)
    rank, said = _read(logits, y)
    still = np.zeros(len(y), np.float32)
    return Answers(rank, said, still, still), logits


def answers(
    start: Start,
    changes: Sequence[Change],
    Z: torch.Tensor,
    y: torch.Tensor,
    progress: Progress = silent,
) -> list[Answers]:
    """Answers of every changed head on rows Z (n, d) with labels y (n,)."""
    found: list[Answers] = []
    for at in range(0, len(changes), TOGETHER):
        with kept_memory("cpu"), threads("cpu", threads_for(min(BLOCK, len(y) * len(start.b)) * Z.shape[1])):
            found += _together(start, changes[at : at + TOGETHER], Z, y)
        progress(len(found), len(changes), "report")
    return found


def _together(start: Start, changes: Sequence[Change], Z: torch.Tensor, y: torch.Tensor) -> list[Answers]:
    import torch

    n, m, rows = len(y), len(changes), max(1, BLOCK // len(start.b))
    rank, said = np.empty((m, n), np.int32), np.empty((m, n), np.int32)
    forward, reverse = np.empty((m, n), np.float32), np.empty((m, n), np.float32)
    for begin in range(0, n, rows):
        part = slice(begin, begin + rows)
        own = torch.log_softmax(torch.addmm(start.b, Z[part], start.W.T), -1)
        p, labels = own.exp(), y[part]
        entropy = torch.linalg.vecdot(p, own)
        seen: dict[int, torch.Tensor] = {}
        for i, change in enumerate(changes):
            if id(change.draw) not in seen:
                seen[id(change.draw)] = change.draw.coordinates(Z[part])
            logits = torch.addmm(own + change.beta, seen[id(change.draw)], change.V)
            rank[i, part], said[i, part] = _read(logits, labels)
            forward[i, part], reverse[i, part] = _divergences(p, own, entropy, logits)
    return [Answers(*of) for of in zip(rank, said, forward, reverse, strict=True)]


def _read(logits: torch.Tensor, y: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(rank of the label, predicted class) of each row."""
    # numpy's largest of a row is several times as fast as torch's; only rows that are wrong have a rank to count.
    numbers, labels = logits.numpy(), y.numpy()
    said, rank = numbers.argmax(1), np.zeros(len(labels), np.int32)
    wrong = np.flatnonzero(said != labels)
    above = numbers[wrong] > numbers[wrong, labels[wrong]][:, None]
    # Of equal logits the first counts as predicted, so a label behind its equal is not right.
    rank[wrong] = np.maximum(above.view(np.uint8).sum(1, dtype=np.int32), 1)
    return rank, said


def _divergences(
    p: torch.Tensor, own: torch.Tensor, entropy: torch.Tensor, logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(p || q) and KL(q || p) of each row, q the softmax of the logits, own the logarithm of p."""
    import torch

    largest = logits.amax(-1, keepdim=True)
    moved = torch.from_numpy(np.einsum("ij,ij->i", p.numpy(), logits.numpy()))
    q = (logits - largest).exp_()
    total = q.sum(-1)
    log_total = total.log() + largest[:, 0]
    back = torch.from_numpy(np.einsum("ij,ij->i", q.numpy(), logits.sub_(own).numpy()))
    return (entropy - moved + log_total).clamp_(min=0), (back / total - log_total).clamp_(min=0)
