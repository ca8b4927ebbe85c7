"""Why reweighting fails: what the weights of RWG and AFR are worth, and whom the first head of AFR is unsure of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedx.evaluation.split import Part, join
from embedx.probes.afr import attention
from embedx.probes.plain import Plain
from embedx.probes.reweighted import Reweighted
from embedx.statistics import Interval, auroc_interval
from embedx.studies._signals import CLEAN, SEED
from embedx.studies.outcome import CellRuns

WEAK = 10.0
"""C of heads that are fitted nearly without regularisation, as networks are."""
GAMMA = 10.0
"""Of AFR's weights exp(-gamma p): the best on Waterbirds in its article."""
FIRST = 0.8
"""Share of each class that AFR's first head is fitted on."""


@dataclass(frozen=True)
class Confidence:
    """What a first head says of rows that AFR is to reweight, and what the weights are worth.

    estimates  "in-sample": it was fitted on these rows too; "held-out": it was not
    with_spike, without  mean probability of the row's own label
    minority_weight      share of the weights on rows without a spike; `minority` is their share of the rows
    effective  (sum w)^2 / sum w^2, as a share of the rows
    auroc      chance that a row without a spike is given less confidence than one with a spike
    """

    backbone: str
    estimates: str
    with_spike: float
    without: float
    minority: float
    minority_weight: float
    effective: float
    auroc: Interval


@dataclass(frozen=True)
class Reweighting:
    """RWG beside the plain head, both nearly without regularisation; of several seeds the means.

    effective  (sum w)^2 / sum w^2 of its weights, as a share of the rows
    training_accuracy  of the plain head
    cosine     of the two heads' weights
    """

    backbone: str
    effective: float
    training_accuracy: float
    cosine: float


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows to reweight: their confidence (n,), their weight (n,), and whether they are without a spike (n,)."""

    p: np.ndarray
    w: np.ndarray
    clean: np.ndarray


def diagnosed(cells: Sequence[CellRuns], backbone: str) -> tuple[list[Confidence], Reweighting]:
    """Both, on the training rows of cells that differ in their seed; rows of all seeds are taken together."""
    rows: dict[str, list[_Rows]] = {"in-sample": [], "held-out": []}
    weighings = []
    for cell in cells:
        part, clean = _train(cell, backbone)
        plain = Plain(C=WEAK).fit(part.X, part.y)
        first, second = _parted(part.y, int(cell.axes.get(SEED, 0)))
        held_out = Plain(C=WEAK).fit(part.X[first], part.y[first])
        for estimates, head in (("in-sample", plain), ("held-out", held_out)):
            y = part.y[second]
            p = head.predict_proba(part.X[second])[np.arange(len(y)), y]
            rows[estimates].append(_Rows(p, attention(p, y, GAMMA, balanced=True), clean[second]))
        weighings.append(_weighed(plain, part))
    return [_confidence(backbone, estimates, of) for estimates, of in rows.items()], Reweighting(
        backbone, *(float(x) for x in np.mean(weighings, axis=0))
    )


def _train(cell: CellRuns, backbone: str) -> tuple[Part, np.ndarray]:
    """The training rows, and which are without a spike."""
    split = join(cell.manifest, cell.cache(backbone))
    return split.train, split.train.attributes["spike"] == split.values["spike"].index(CLEAN)


def _parted(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the first part, the same share of each class, and those of the second."""
    rng, first = np.random.default_rng(seed), np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        first[rows[: round(FIRST * len(rows))]] = True
    return np.flatnonzero(first), np.flatnonzero(~first)


def _confidence(backbone: str, estimates: str, parts: Sequence[_Rows]) -> Confidence:
    p, w, clean = (np.concatenate([getattr(part, name) for part in parts]) for name in ("p", "w", "clean"))
    return Confidence(
        backbone, estimates, with_spike=float(p[~clean].mean()), without=float(p[clean].mean()),
        minority=float(clean.mean()), minority_weight=float(w[clean].sum() / w.sum()),
        effective=float(np.mean([_effective(part.w) for part in parts])), auroc=auroc_interval(clean, -p),
    )  # fmt: skip


def _weighed(plain: Plain, part: Part) -> tuple[float, float, float]:
    weighted = Reweighted(C=WEAK).fit(part.X, part.y, groups=part.groups)
    a, b = plain.coef_.ravel(), weighted.coef_.ravel()
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return _effective(1 / np.bincount(part.groups)[part.groups]), float(plain.score(part.X, part.y)), cosine


def _effective(w: np.ndarray) -> float:
    return float(w.sum() ** 2 / (w**2).sum() / len(w))
