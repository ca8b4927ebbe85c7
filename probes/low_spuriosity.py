"""Low-spuriosity: a head tuned on the rows of each class that show its spurious cues the least.

Moayeri et al. 2023, "Spuriosity Rankings: Sorting Data to Measure and Mitigate Biases" (NeurIPS 2023), section 4.3 and
appendix F. The ranking may come from another backbone than the features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from ._data import Data
from ._declarations import ChosenBy, Need
from ._draws import spread
from ._errors import FitError
from ._features import Features
from ._fit import Fit
from ._head import LinearHead
from ._inference import logits_of
from ._once import content, once
from ._problem import Problem, Solution
from ._solver import solve
from ._supervision import Labels, Supervision
from ._variants import Published

ROWS = ("lowest", "random", "misclassified", "highest")
CLASSES = ("ranked", "all")
RECIPES = ("convex", "sgd")
PULLS = tuple(float(c) for c in np.logspace(-7, 1, 33))


class LowSpuriosity(LinearHead):
    """theta = (W, b) near theta_0 that fits the m tuning rows: k of every class that has a ranking.

    recipe "convex":   min over theta:   sum_i loss(W z_i + b, y_i)  +  1 / (2 C) ||theta - theta_0||^2
    recipe "sgd":      `epochs` passes of stochastic gradient descent from theta_0 on the mean loss over shuffled
                       batches, plus pull / 2 ||theta - theta_0||^2; the published code's numbers are the defaults

    z are the features of all training rows, standardised, or as they are with `standardize=False` (as in the published
    code; descent, unlike prediction, depends on the scale). Every class keeps its output, whether it is tuned or not.
    A path over C leads from theta_0 to a head of the tuning rows alone; a path over `epochs` is the trajectory of one
    descent, with 0 the untouched head: `front()` has the settings of either.

    Parameters
    C             convex: inverse strength of the pull to theta_0, > 0
    k             tuning rows of a class: a number (published: 100) or, below 1, a share of its ranked rows; never more
                  than half of them, so that the lowest are not the highest
    rows          which: "lowest" spuriosity, or a baseline: "random", "highest", or "misclassified": those that theta_0
                  gets wrong, k at random when there are more, filled up with random others when there are fewer
    classes       "ranked": rows of classes with a ranking only; "all": of the others too, random ones where the choice
                  goes by spuriosity
    start         theta_0 as (coef (1 or k, d), intercept (1 or k,)) on features as they are, which is what `folded()`
                  of a linear head returns, or with (mean (d,), scale (d,)) behind them on features brought to those,
                  which keeps all digits of a head far from 0; None: a plain head fitted on all training rows
    first_C       of that plain head
    recipe        "convex" or "sgd"
    epochs, lr, momentum, batch, pull    sgd
    tol, max_iter convex: as in `ConvexHead`
    standardize, random_state as in `Head`; the seed draws random rows and shuffles

    Fitted values beyond those of `LinearHead`: `tuning_rows_` (m,), which rows of X were tuned on, in order;
    `moved_`, ||theta - theta_0||; `n_iter_`, iterations or steps; `converged_`, for "sgd" whether all is finite, as it
    is defined by its steps.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.SPURIOSITY})
    supervision: ClassVar[tuple[Supervision, ...]] = (Supervision(Labels.SPURIOSITY),)
    chosen_by: ClassVar[ChosenBy] = ChosenBy.SPURIOSITY
    random: ClassVar[bool] = True
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"C": C} for C in PULLS)

    published: ClassVar[Published | None] = Published(
        "solved; the authors take epochs of stochastic steps, on features as they are (standardize=False)",
        tuple({"epochs": epochs} for epochs in range(21)),
    )

    tuning_rows_: np.ndarray
    moved_: float
    n_iter_: int

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        C: float = 1e-3,
        k: float = 100,
        rows: str = "lowest",
        classes: str = "ranked",
        start: tuple[np.ndarray, ...] | None = None,
        first_C: float = 0.01,
        recipe: str = "convex",
        epochs: int = 20,
        lr: float = 1e-3,
        momentum: float = 0.9,
        batch: int = 128,
        pull: float = 0.0,
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
        variant: str = "default",
    ) -> None:
        super().__init__(standardize=standardize, random_state=random_state, variant=variant)
        self.C = C
        self.k = k
        self.rows = rows
        self.classes = classes
        self.start = start
        self.first_C = first_C
        self.recipe = recipe
        self.epochs = epochs
        self.lr = lr
        self.momentum = momentum
        self.batch = batch
        self.pull = pull
        self.tol = tol
        self.max_iter = max_iter

    def front(self) -> list[dict[str, Any]]:
        """Settings of this recipe from hardly tuned to tuned the most, for `path`."""
        if self.recipe == "sgd":
            return [{"epochs": epochs} for epochs in range(self.epochs + 1)]
        return [dict(setting) for setting in self.grid]

    def _published_fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        return self._fits(data, [cast("Self", clone(v)).set_params(recipe="sgd") for v in variants])

    def _fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        for v in variants:
            v._check()
        starts, at = _starts(data, variants)

        def draw(i: int) -> tuple[np.ndarray, np.random.RandomState]:
            rng = check_random_state(variants[i].random_state)
            return tuning_rows(data, variants[i], starts[at[i]], rng), rng

        drawn, run = once([v._run(start) for v, start in zip(variants, at, strict=True)], draw)
        classes = [tuple(np.unique(data.y[rows])) for rows, _ in drawn]
        solutions: dict[int, Solution] = {}
        convex = [i for i, v in enumerate(variants) if v.recipe == "convex"]
        for some in dict.fromkeys(classes[run[i]] for i in convex):
            mine = [i for i in convex if classes[run[i]] == some]
            given = [(variants[i], run[i], at[i]) for i in mine]
            solutions |= zip(mine, _pulled(data, given, [rows for rows, _ in drawn], starts), strict=True)
        runs: dict[int, list[int]] = {}
        for i, v in enumerate(variants):
            if v.recipe == "sgd":
                runs.setdefault(run[i], []).append(i)
        for place, mine in runs.items():
            v, (rows, rng), start = variants[mine[0]], drawn[place], starts[at[mine[0]]]
            epochs = [variants[i].epochs for i in mine]
            solutions |= zip(mine, _descended(data, v, rows, start, rng, epochs), strict=True)
        return [_fit(solutions[i], starts[at[i]], drawn[run[i]][0]) for i in range(len(variants))]

    def _run(self, start: int) -> tuple[Any, ...]:
        """What variants have in common that share their drawn rows and, with "sgd", their steps."""
        rest = {k: v for k, v in self.get_params().items() if k not in ("C", "epochs", "start", "tol", "max_iter")}
        return start, *rest.values()

    def _check(self) -> None:
        named = {"rows": ROWS, "classes": CLASSES, "recipe": RECIPES}
        for name, choices in named.items():
            if getattr(self, name) not in choices:
                words = ", ".join(map(repr, choices[:-1]))
                raise FitError(f"{name} must be {words} or {choices[-1]!r}, found {getattr(self, name)!r}")
        if not self.k > 0:
            raise FitError(f"k must be positive, found {self.k}")
        if self.k > 1 and not float(self.k).is_integer():
            raise FitError(f"k must be a whole number of rows, or a share below 1, found {self.k}")
        for name, least in {"epochs": 0, "batch": 1, "pull": 0, "momentum": 0}.items():
            if not getattr(self, name) >= least:
                raise FitError(f"{name} must be at least {least}, found {getattr(self, name)}")


def size_of(k: float, ranked: int) -> int:
    """How many of `ranked` rows of a class are its lowest: k, or the share k below 1; at most half, at least one."""
    wanted = round(k * ranked) if k < 1 else int(k)
    return max(1, min(wanted, ranked // 2))


def tuning_rows(data: Data, head: LowSpuriosity, start: Solution, rng: np.random.RandomState) -> np.ndarray:
    """Which rows `head` tunes on, in order. Ties in spuriosity go by the order of the rows."""
    scores = data.known_spuriosity()
    wrong = None
    if head.rows == "misclassified":
        wrong = logits_of(data.features, [start])[0].argmax(axis=1) != data.y
    taken: list[np.ndarray] = []
    for c in range(data.k):
        members = np.flatnonzero(data.y == c)
        ranked = members[~np.isnan(scores[members])]
        if not len(ranked) and head.classes == "ranked":
            continue
        pool = ranked if len(ranked) else members
        size = size_of(head.k, len(pool))
        if head.rows in ("lowest", "highest") and len(ranked):
            order = ranked[np.argsort(scores[ranked], kind="stable")]
            taken.append(order[:size] if head.rows == "lowest" else order[len(order) - size :])
            continue
        clusters = data.clusters
        mixed = rng.permutation(pool) if clusters is None else spread(pool, clusters[pool], len(pool), rng)
        if wrong is not None:  # the wrong ones first, in either part at random
            mixed = mixed[np.argsort(~wrong[mixed], kind="stable")]
        taken.append(mixed[:size])
    return np.sort(np.concatenate(taken))


def _starts(data: Data, variants: Sequence[LowSpuriosity]) -> tuple[list[Solution], list[int]]:
    """(solutions, at): theta_0 in the standardisation of the features, equal ones once, and which is each variant's."""
    plain = list(dict.fromkeys((v.first_C, v.tol, v.max_iter) for v in variants if v.start is None))
    problems = [Problem(0, float(C), tol=tol, max_iter=most) for C, tol, most in plain]
    fitted = solve(data.features, data.y, np.ones((1, len(data.y))), problems)

    def start(i: int) -> Solution:
        v = variants[i]
        return fitted[plain.index((v.first_C, v.tol, v.max_iter))] if v.start is None else _given(data, v.start)

    def key(v: LowSpuriosity) -> Any:
        if v.start is None:
            return v.first_C, v.tol, v.max_iter
        return content(*(np.asarray(part, np.float64) for part in v.start))

    return once([key(v) for v in variants], start)


def _given(data: Data, start: tuple[np.ndarray, ...]) -> Solution:
    """A given head in the standardisation of the features; of two outputs for two classes, their difference."""
    W, b, *how = (np.asarray(part, np.float64) for part in start)
    d, features = data.features.d, data.features
    mean, scale = how or (np.zeros(d), np.ones(d))
    if mean.shape != (d,) or scale.shape != (d,) or not (np.isfinite(mean).all() and (scale > 0).all()):
        raise FitError(f"start has mean {mean.shape} and scale {scale.shape}, expected finite {(d,)}, scales above 0")
    if data.k == 2 and W.shape == (2, data.features.d) and b.shape == (2,):
        W, b = W[1:] - W[:1], b[1:] - b[:1]
    outputs = 1 if data.k == 2 else data.k
    if W.shape != (outputs, data.features.d) or b.shape != (outputs,):
        raise FitError(
            f"start is a head of coefficients {W.shape} and intercepts {b.shape}, expected "
            f"{(outputs, data.features.d)} and {(outputs,)}; take one of these features and {data.k} classes"
        )
    if not (np.isfinite(W).all() and np.isfinite(b).all()):
        raise FitError("start holds values that are not finite; take a head that was fitted")
    ratio = W * (features.scale / scale)  # 1 where the head was fitted in the same standardisation
    return Solution(ratio, b + (W / scale) @ (features.mean - mean), 0, 0.0, converged=True)


def _pulled(
    data: Data, given: Sequence[tuple[LowSpuriosity, int, int]], drawn: Sequence[np.ndarray], starts: Sequence[Solution]
) -> list[Solution]:
    """The convex heads of variants whose tuning rows are of the same classes, in one solve.

    given  each variant, and the places of its rows among those drawn and of its theta_0 among the starts
    """
    union = np.unique(np.concatenate([drawn[i] for i in dict.fromkeys(place for _, place, _ in given)]))
    part = Features.identity(data.features.take(union).cpu().numpy(), data.features.device)
    # The solver counts classes up to the last that occurs, so a class that occurs has to be the last.
    y, last = data.y[union], data.k - 1
    order = np.arange(data.k)
    order[[y.max(), last]] = last, y.max()

    def turned(coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if data.k > 2:
            return coef[order], intercept[order]
        return (coef, intercept) if order[1] == 1 else (-coef, -intercept)

    weightings, of = once([place for _, place, _ in given], lambda i: np.isin(union, drawn[given[i][1]]).astype(float))
    anchors = [turned(s.coef, s.intercept) for s in starts]
    problems = [
        Problem(w, float(v.C), tol=v.tol, max_iter=v.max_iter, anchor=start, anchored_intercept=True)
        for w, (v, _, start) in zip(of, given, strict=True)
    ]
    return [
        Solution(*turned(s.coef, s.intercept), s.iterations, s.gradient, s.converged)
        for s in solve(part, order[y], weightings, problems, anchors=anchors)
    ]


def _descended(
    data: Data,
    head: LowSpuriosity,
    rows: np.ndarray,
    start: Solution,
    rng: np.random.RandomState,
    wanted: Sequence[int],
) -> list[Solution]:
    """One descent on the mean loss, and where it is after each number of epochs wanted.

    Two classes have two outputs here, as in the published code; one would move half as far.
    """
    import torch

    Z = data.features.take(rows)
    Z = torch.cat([Z, torch.ones_like(Z[:, :1])], dim=1)
    truth = torch.nn.functional.one_hot(torch.from_numpy(data.y[rows]), data.k).to(Z)
    first = np.column_stack([start.coef, start.intercept])
    first = np.concatenate([-first / 2, first / 2]) if data.k == 2 else first
    origin = torch.from_numpy(first).to(Z)
    theta, speed = origin.clone(), torch.zeros_like(origin)
    steps = math.ceil(len(rows) / head.batch)
    solutions: dict[int, Solution] = {}
    for epoch in range(max(wanted) + 1):
        if epoch in wanted:
            at = theta.double().cpu().numpy()
            at = at[1:] - at[:1] if data.k == 2 else at
            fine = start.converged and bool(np.isfinite(at).all())
            solutions[epoch] = Solution(at[:, :-1].copy(), at[:, -1].copy(), epoch * steps, math.nan, fine)
        if epoch == max(wanted):
            break
        order = torch.from_numpy(rng.permutation(len(rows))).to(Z.device)
        for part in order.split(head.batch):
            z = Z[part]
            off = torch.softmax(z @ theta.T, dim=1) - truth[part]
            slope = off.T @ z / len(part) + head.pull * (theta - origin)
            speed = head.momentum * speed + slope
            theta -= head.lr * speed
    return [solutions[epochs] for epochs in wanted]


def _fit(solution: Solution, start: Solution, rows: np.ndarray) -> Fit:
    moved = np.sum((solution.coef - start.coef) ** 2) + np.sum((solution.intercept - start.intercept) ** 2)
    more = {"n_iter_": solution.iterations, "tuning_rows_": rows, "moved_": float(np.sqrt(moved))}
    return Fit(solution.converged and start.converged, solution.coef, solution.intercept, more)
