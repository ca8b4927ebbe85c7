"""Full-batch gradient descent from the original head, all candidates of a sweep at once.

The loss of a candidate is the mean cross-entropy of its n images, plus the pull. Its gradient by W lies in the span of
the images, so does every change of W: dW = V' B' with B (d, r) an orthonormal basis of that span, r = min(n, d), and
V (r, k). So the descent runs in r coordinates, and logits of other rows change by a product of rank r. In orthonormal
coordinates gradient descent is what it is in all d: same steps, same norms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from embedx.errors import HeadError
from embedx.extract.encoding import kept_memory, threads
from embedx.repair.settings import Restraint
from embedx.repair.start import Start

if TYPE_CHECKING:
    import torch

ROUNDING = 1e-6
CELLS = 1 << 20
"""Numbers in the logits of one batch of candidates, which then stay in the processor's cache."""
SMALL = 1 << 25
"""Multiplications of a product that one thread does sooner than several that have to wait for each other."""
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Draw:
    """The rows of one candidate, in the coordinates of the head.

    Z      (n, d) images that are fitted on, y (n,) their labels; the first `kept` of them are the retention images
    Z_val  (v, d) images that stop the descent, y_val (v,) their labels
    """

    Z: torch.Tensor
    y: torch.Tensor
    kept: int
    Z_val: torch.Tensor
    y_val: torch.Tensor

    @cached_property
    def basis(self) -> torch.Tensor | None:
        """(d, r) orthonormal; None where the images may span all of the space, whose own coordinates then do."""
        import torch

        n, d = self.Z.shape
        return torch.linalg.qr(self.Z.T.double())[0].float() if n < d else None

    def coordinates(self, Z: torch.Tensor) -> torch.Tensor:
        """(m, r) of rows Z (m, d)."""
        return Z if self.basis is None else Z @ self.basis


@dataclass(frozen=True, eq=False)
class Try:
    """A candidate before its descent."""

    draw: Draw
    rate: float
    pull: Restraint

    @property
    def size(self) -> int:
        """Numbers in the coordinates of its rows."""
        n, d = self.draw.Z.shape
        return (n + len(self.draw.y_val)) * min(n, d)


@dataclass(frozen=True, eq=False)
class Change:
    """What the descent of a candidate came to.

    V         (r, k): the change of W is (B V)', see `Draw.basis`; beta (k,) the change of b
    steps     that it took
    reached   whether the validation images of the concept came to the threshold
    accuracy  of these, in the end
    """

    draw: Draw
    V: torch.Tensor
    beta: torch.Tensor
    steps: int
    reached: bool
    accuracy: float

    @property
    def weight(self) -> np.ndarray:
        """(k, d) float64 change of W."""
        V = self.V.double()
        return (V if self.draw.basis is None else self.draw.basis.double() @ V).T.numpy()


def descend(
    start: Start,
    tries: Sequence[Try],
    threshold: float,
    steps: int,
    progress: Progress = lambda done, total, what: None,
) -> list[Change]:
    """The change of every candidate: V - rate x gradient, step by step, until its own validation images stop it.

    threshold  of the accuracy on `Z_val`, which is looked at before every step; steps: how many there are at most
    Candidates of as many rows are computed in one batch. Raises `HeadError` where the numbers of one overflow.
    """
    found: dict[int, Change] = {}
    for batch in _batches(tries, len(start.b)):
        together = [tries[i] for i in batch]
        with kept_memory("cpu"), threads("cpu", threads_for(len(batch) * together[0].size * len(start.b))):
            for place, change in _batch(start, together, threshold, steps):
                found[batch[place]] = change
        progress(len(found), len(tries), "descent")
    return [found[i] for i in range(len(tries))]


def _batches(tries: Sequence[Try], k: int) -> Iterator[list[int]]:
    """Places of candidates of equal shapes, as many as `CELLS` allow."""
    alike: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for i, one in enumerate(tries):
        alike[len(one.draw.y), len(one.draw.y_val), one.draw.kept].append(i)
    for (n, v, _), places in alike.items():
        size = max(1, CELLS // ((n + v) * k))
        yield from (places[at : at + size] for at in range(0, len(places), size))


def _batch(start: Start, tries: Sequence[Try], threshold: float, steps: int) -> Iterator[tuple[int, Change]]:
    """(place, change) of candidates of equal shapes, in the order in which they stop."""
    import torch

    draws, (n, kept) = [t.draw for t in tries], (len(tries[0].draw.y), tries[0].draw.kept)
    all_rows = [torch.cat([d.Z, d.Z_val]) for d in draws]
    C = torch.stack([d.coordinates(Z) for d, Z in zip(draws, all_rows, strict=True)])
    fixed = torch.stack([torch.addmm(start.b, Z, start.W.T) for Z in all_rows])
    own = torch.softmax(fixed[:, :kept], -1) if any(t.pull.kind == "kl" for t in tries) else None
    y, y_val = torch.stack([d.y for d in draws]), torch.stack([d.y_val for d in draws])
    rate = torch.tensor([t.rate for t in tries])[:, None, None]
    l2, kl = (
        torch.tensor([t.pull.strength if t.pull.kind == kind else 0.0 for t in tries])[:, None, None]
        for kind in ("l2", "kl")
    )
    V, beta = torch.zeros(len(tries), C.shape[2], fixed.shape[2]), torch.zeros(len(tries), 1, fixed.shape[2])
    places = torch.arange(len(tries))
    for step in range(steps + 1):
        logits = torch.baddbmm(fixed, C, V).add_(beta)
        right = (logits[:, n:].argmax(-1) == y_val).sum(-1)
        reached = right >= threshold * y_val.shape[1] - ROUNDING
        for i in torch.nonzero(reached | (step == steps)).ravel().tolist():
            _require_finite(V[i], tries[int(places[i])])
            change = V[i].clone(), beta[i, 0].clone(), step, bool(reached[i]), int(right[i]) / y_val.shape[1]
            yield int(places[i]), Change(draws[int(places[i])], *change)
        if (going := torch.nonzero(~reached).ravel()).numel() < len(places):
            C, fixed, y, y_val, rate, l2, kl, V, beta, places, logits = (
                a[going] for a in (C, fixed, y, y_val, rate, l2, kl, V, beta, places, logits)
            )
            own = None if own is None else own[going]
        if step == steps or not len(places):
            return
        R = torch.softmax(logits[:, :n], -1)
        pulled = None if own is None else (R[:, :kept] - own).mul_(kl / max(kept, 1))
        R.scatter_add_(2, y[..., None], torch.full_like(y[..., None], -1.0, dtype=R.dtype)).div_(n)
        if pulled is not None:
            R[:, :kept] += pulled
        V.mul_(1 - rate * l2).baddbmm_(C[:, :n].mT, R.mul_(rate), alpha=-1)
        beta.mul_(1 - rate * l2).sub_(R.sum(1, keepdim=True))


def threads_for(products: int) -> int | None:
    """How many threads so many multiplications are worth; None: all."""
    return 1 if products < SMALL else None


def _require_finite(V: torch.Tensor, one: Try) -> None:
    if not bool(V.isfinite().all()):
        raise HeadError(
            f"the descent with learning rate {one.rate:g} and pull {one.pull} overflows; name smaller ones "
            "(--lr, --pull)"
        )
