"""Full-batch gradient descent from the original head, for every candidate of a sweep.

The loss of a candidate is the mean cross-entropy of its n images, plus the pull. Its gradient by W lies in the span of
the images Z (n, d), and so does every change of W: dW = A'Z, with A (n, k) the state of the descent, and db = A'1.
Logits of other rows X change by (XZ' + 1) A, so a step needs one product with the Gram matrix of the images, which all
learning rates and pulls share; and its steps are followed in leaps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from embedx.errors import HeadError
from embedx.extract.encoding import kept_memory, threads
from embedx.repair.leaps import Path, Place
from embedx.repair.settings import Restraint
from embedx.repair.start import Start

if TYPE_CHECKING:
    import torch

ROUNDING = 1e-6
TOLERANCE = 1e-5
"""Error of a logit in one leap, as a share of the largest distance of a logit from the mean of its row, or of 1."""
SMALL = 1 << 25
"""Multiplications of a product that one thread does sooner than several that have to wait for each other."""
Progress = Callable[[int, int, str], None]
Stops = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""(...) bool of logits (..., v, k) and labels (v,) of the validation images: whether they stop the descent."""


def silent(done: int, total: int, what: str) -> None:
    """No progress."""


@dataclass(frozen=True)
class Threshold:
    """Stop once this share of the validation images is right."""

    share: float

    def __call__(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """As `Stops`."""
        return (logits.argmax(-1) == y).sum(-1) >= self.share * len(y) - ROUNDING


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

    @property
    def spans(self) -> bool:
        """Whether the images may span all of the space, whose own coordinates are then the shorter ones."""
        return self.Z.shape[0] >= self.Z.shape[1]

    def coordinates(self, X: torch.Tensor) -> torch.Tensor:
        """(m, r) of rows X (m, d), r = min(n, d): a change V (r, k) moves their logits by these times V."""
        return X if self.spans else X @ self.Z.T


@dataclass(frozen=True, eq=False)
class Try:
    """A candidate before its descent."""

    draw: Draw
    rate: float
    pull: Restraint


@dataclass(frozen=True, eq=False)
class Change:
    """What the descent of a candidate came to.

    V         (r, k) in the coordinates of the draw; beta (k,) the change of b
    steps     that it took
    reached   whether the validation images stopped it
    right     (v,) bool, which of these are right in the end
    """

    draw: Draw
    V: torch.Tensor
    beta: torch.Tensor
    steps: int
    reached: bool
    right: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        """(k, d) float64 change of W."""
        V = self.V.double()
        return (V.T if self.draw.spans else V.T @ self.draw.Z.double()).numpy()


def descend(
    start: Start,
    tries: Sequence[Try],
    stops: Stops,
    steps: int,
    progress: Progress = silent,
) -> list[Change]:
    """The change of every candidate: gradient descent, step by step, until its own validation images stop it.

    tries  those of one draw after each other share what can be shared
    stops  is asked before every step; steps: how many there are at most
    Raises `HeadError` where the numbers of one overflow.
    """
    found: list[Change] = []
    with kept_memory("cpu"):
        for _, of in groupby(tries, key=lambda one: id(one.draw)):
            first, *others = of
            ground = Ground.of(start, first.draw)
            with threads("cpu", threads_for(len(first.draw.y) ** 2 * len(start.b))):
                for one in (first, *others):
                    found.append(ground.descended(one, stops, steps))
                    progress(len(found), len(tries), "descent")
    return found


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows whose logits the descent moves.

    Z      (m, d) the rows; fixed (m, k) their logits of the original head
    gram   (m, n) products with the images that are fitted on, plus 1; None where two products with Z cost less
    """

    Z: torch.Tensor
    fixed: torch.Tensor
    images: torch.Tensor
    gram: torch.Tensor | None

    @classmethod
    def of(cls, Z: torch.Tensor, images: torch.Tensor, W: torch.Tensor, b: torch.Tensor) -> Rows:
        """Rows Z and images (n, d) of a head W (k, d), b (k,), all in one precision."""
        import torch

        (m, d), n = Z.shape, len(images)
        gram = (Z @ images.T).add_(1) if m * n <= (m + n) * d else None
        return cls(Z, torch.addmm(b, Z, W.T), images, gram)

    def moved(self, A: torch.Tensor) -> torch.Tensor:
        """(m, k) change of their logits in the state A (n, k)."""
        return self.gram @ A if self.gram is not None else (self.Z @ (self.images.T @ A)).add_(A.sum(0))


@dataclass(frozen=True, eq=False)
class Ground:
    """What the candidates of one draw share.

    fitted  the images; judged: those of validation, in double precision, so that rounding does not move a stop
    own     (kept, k) predictions of the original head
    """

    draw: Draw
    fitted: Rows
    judged: Rows
    own: torch.Tensor

    @classmethod
    def of(cls, start: Start, draw: Draw) -> Ground:
        """The ground of a draw."""
        import torch

        fitted = Rows.of(draw.Z, draw.Z, start.W, start.b)
        judged = Rows.of(draw.Z_val.double(), draw.Z.double(), start.W.double(), start.b.double())
        return cls(draw, fitted, judged, torch.softmax(fitted.fixed[: draw.kept], -1))

    def descended(self, one: Try, stops: Stops, steps: int) -> Change:
        """The change of one candidate. Raises as `descend`."""
        import torch

        draw, fixed = self.draw, self.fitted.fixed
        path = Path(
            look=lambda step, A: self._look(one, step, A), judged_of=lambda A: self.judged.moved(A.double()),
            stops=lambda logits: stops(logits, draw.y_val),
            tolerance=TOLERANCE * max(1.0, float((fixed - fixed.mean(-1, keepdim=True)).abs().max())),
        )  # fmt: skip
        try:
            end, reached = path.followed(torch.zeros_like(self.fitted.fixed), steps)
        except FloatingPointError:
            end, reached = None, False
        if end is None or not all(bool(part.isfinite().all()) for part in (end.A, end.fitted)):
            raise HeadError(
                f"the descent with learning rate {one.rate:g} and pull {one.pull} overflows; name smaller ones "
                "(--lr, --pull)"
            )
        right = (end.judged.argmax(-1) == draw.y_val).numpy()
        return Change(draw, draw.Z.T @ end.A if draw.spans else end.A, end.A.sum(0), end.step, reached, right)

    def _look(self, one: Try, step: int, A: torch.Tensor) -> Place:
        """The place of a step and its state: the next step is -rate x the gradient, as a change of the state."""
        import torch

        draw, n = self.draw, len(self.draw.y)
        logits = self.fitted.moved(A).add_(self.fitted.fixed)
        R = torch.softmax(logits, -1)
        pulled = R[: draw.kept] - self.own if one.pull.kind == "kl" and draw.kept else None
        R.scatter_add_(1, draw.y[:, None], torch.full((n, 1), -1.0)).div_(n)
        if pulled is not None:
            R[: draw.kept].add_(pulled, alpha=one.pull.strength / draw.kept)
        if one.pull.kind == "l2":
            R.add_(A, alpha=one.pull.strength)
        return Place(step, A, R.mul_(-one.rate), logits, self.judged.moved(A.double()).add_(self.judged.fixed))


def threads_for(products: int) -> int | None:
    """How many threads so many multiplications are worth; None: all."""
    return 1 if products < SMALL else None
