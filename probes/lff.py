"""LfF: a head led towards what is easy, and beside it one that attends to what the first finds hard. No group labels.

Nam et al. 2020, "Learning from Failure: Training Debiased Classifier from Biased Classifier" (arXiv 2007.02561).
Two heads are trained together on all rows at once, without noise: same data, same head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ._data import Data
from ._declarations import ChosenBy
from ._errors import FitError
from ._fit import Fit
from ._head import LinearHead
from ._losses import Logistic
from ._operators import Shared, Spectrum
from ._variants import Published

if TYPE_CHECKING:
    from torch import Tensor

STOPS = (3, 5, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 500)
"""Numbers of steps that are tried: the worst group goes up and down along the way."""


class Lff(LinearHead):
    """Gradient steps from zero on mean_i p_i^q grad loss_i (biased head) and mean_i w_i grad loss_i (the head).

    p_i is the biased head's probability of the row's label (p^q grad loss is the gradient of the generalised
    cross-entropy (1 - p^q) / q), and w_i = l_b / (l_b + l_d) with the losses of the biased head and of the head itself.
    Both losses are averaged over the steps, l <- smoothing * l + (1 - smoothing) * loss, and divided by the largest of
    the class. A step is rate / L long, L = (largest eigenvalue of the features' second moment + 1) * 1/4 for two
    classes and 1/2 for more, which bounds the curvature. The number of steps is the regularisation: the more, the less.

    Parameters
    q             0: the biased head is plain; the larger the easier the rows it goes for (published: 0.7)
    steps         gradient steps of both heads
    rate          of a step, at most 1
    momentum      of the steps, in [0, 1)
    smoothing     in [0, 1); published: 0.7; 0 in implementations that take the losses as they are
    class_max     whether losses are divided by the largest of their class; some implementations do not
    standardize, random_state (not used) as in `Head`

    Fitted values beyond those of `LinearHead`: `biased_coef_`, `biased_intercept_`; `weights_` (n,) of the last step;
    `converged_`, whether all is finite: the head is defined by its steps, not as a minimum.
    """

    chosen_by: ClassVar[ChosenBy] = ChosenBy.WORST_GROUP
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"steps": s, "q": q} for s in STOPS for q in (0.3, 0.7))
    published: ClassVar[Published | None] = Published("also with a smaller q", tuple({"steps": s} for s in STOPS))

    biased_coef_: np.ndarray
    biased_intercept_: np.ndarray
    weights_: np.ndarray

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        q: float = 0.7,
        steps: int = 100,
        rate: float = 1.0,
        momentum: float = 0.9,
        smoothing: float = 0.7,
        class_max: bool = True,
        standardize: bool = True,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(standardize=standardize, random_state=random_state, variant=variant)
        self.q = q
        self.steps = steps
        self.rate = rate
        self.momentum = momentum
        self.smoothing = smoothing
        self.class_max = class_max

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        for v in variants:
            v._check()
        paths = list(dict.fromkeys(v._path() for v in variants))  # heads that differ in steps alone share the way
        stops = [{v.steps for v in variants if v._path() == path} for path in paths]
        fits = run(data, paths, stops)
        return [fits[paths.index(v._path()), v.steps] for v in variants]

    def _path(self) -> tuple[float, float, float, float, bool]:
        return self.q, self.rate, self.momentum, self.smoothing, self.class_max

    def _check(self) -> None:
        for name, ok, wanted in (
            ("q", self.q >= 0, "at least 0"),
            ("steps", self.steps >= 1, "at least 1"),
            ("rate", 0 < self.rate <= 1, "above 0 and at most 1"),
            ("momentum", 0 <= self.momentum < 1, "at least 0 and below 1"),
            ("smoothing", 0 <= self.smoothing < 1, "at least 0 and below 1"),
        ):
            if not ok:
                raise FitError(f"{name} must be {wanted}, found {getattr(self, name)}")


def run(
    data: Data, paths: Sequence[tuple[float, float, float, float, bool]], stops: Sequence[Set[int]]
) -> dict[tuple[int, int], Fit]:
    """Take the steps of all paths together: the fit of every stop, by its path's place and its number of steps."""
    import torch

    features, k, n, p = data.features, data.k, data.features.n, len(paths)
    device, dtype, outputs = features.device, features.dtype, 1 if data.k == 2 else data.k
    y = torch.from_numpy(data.y).to(device)
    columns = [torch.tensor(c, dtype=dtype, device=device) for c in zip(*paths, strict=True)]
    q, rate, momentum, smoothing = (c[:, None] for c in columns[:4])
    by_class = columns[4].bool()[:, None]
    bound = (0.25 if k == 2 else 0.5) * (float(Spectrum.of(features).s.max()) + 1)
    rate, momentum = (x.repeat(2, 1)[..., None] for x in (rate / bound, momentum))
    operator = Shared(features, dtype)
    W = torch.zeros((2 * p, outputs, features.d + 1), dtype=dtype, device=device)
    velocity = torch.zeros_like(W)
    mean = weights = None
    fits: dict[tuple[int, int], Fit] = {}
    for step in range(1, 1 + max(s for stop in stops for s in stop)):
        F = operator.forward(W.view(1, -1, features.d + 1))[0].view(2 * p, outputs, n)
        losses = label_losses(F, y)
        mean = losses if mean is None else smoothing.repeat(2, 1) * mean + (1 - smoothing.repeat(2, 1)) * losses
        relative = torch.where(by_class.repeat(2, 1), mean / largest(mean, y, k), mean)
        biased, own = relative[:p], relative[p:]
        weights = biased / (biased + own).clamp_min(torch.finfo(dtype).tiny)
        v = torch.cat([torch.exp(-losses[:p]) ** q, weights]) / n
        R = Logistic(y[None], v[None]).residual(F[None])[0]
        gradient = operator.backward(R.view(1, -1, n)).view(W.shape)
        velocity = momentum * velocity - rate * gradient
        W = W + velocity
        for j, stop in enumerate(stops):
            if step in stop:
                both = W[[j, p + j]].double().cpu().numpy()  # the biased heads come first
                more = {
                    "biased_coef_": both[0, :, :-1], "biased_intercept_": both[0, :, -1],
                    "weights_": weights[j].double().cpu().numpy(),
                }  # fmt: skip
                fits[j, step] = Fit(bool(np.isfinite(both).all()), both[1, :, :-1], both[1, :, -1], more)
    return fits


def label_losses(F: Tensor, y: Tensor) -> Tensor:
    """(p, n) losses of logits (p, k, n), k = 1 for two classes."""
    import torch

    if F.shape[1] == 1:
        return torch.nn.functional.softplus(torch.where(y == 1, -F[:, 0], F[:, 0]))
    return F.logsumexp(1) - F.gather(1, y.expand(len(F), 1, -1))[:, 0]


def largest(values: Tensor, y: Tensor, k: int) -> Tensor:
    """(p, n) the largest of the values (p, n) of each row's class."""
    import torch

    most = values.new_zeros((len(values), k)).scatter_reduce_(1, y.expand(values.shape), values, "amax")
    return most.clamp_min(torch.finfo(values.dtype).tiny).gather(1, y.expand(values.shape))
