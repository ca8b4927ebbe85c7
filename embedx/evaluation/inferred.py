"""How well the groups that a head inferred by itself agree with the true ones, on the rows that it was fitted on.

Heads know the classes, so what is judged is the partition class x inferred code, and each class is judged by itself:
agreement between classes is a gift. With n_ij the rows of cell i (a class and a code) that are of true group j:

    ARI         adjusted Rand index (Hubert and Arabie 1985) within each class, mean over the rows; 1: the same
                partition, 0: as if drawn. A class of which one side has one part only, and the other more, counts 0
    agreement   max over one-to-one matchings m of cells to groups of sum_i n_{i m(i)} / n: the accuracy of the best
                matching (Kuhn and Munkres). Classes alone, without any code, reach `classes_alone`
    minority    rows of true groups that are smaller than the mean group of their class; found are the rows in cells
                that are smaller than the mean cell of their class. Recall: how many of the minority are found;
                precision: how many of those found are of the minority
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedx.errors import HeadError
from embedx.statistics import Interval, Sample


@dataclass(frozen=True)
class InferredGroups:
    """Inferred groups against the true ones; intervals are Wilson's.

    cells          class x inferred code that occur, `groups` true groups that occur
    ari            adjusted Rand index within classes, mean over the rows
    agreement      share of rows that the best one-to-one matching of cells and groups puts right
    classes_alone  the same for classes without any code
    recall         share of the minority that is found; None without a minority
    precision      share of what is found that is of the minority; None when nothing is
    """

    cells: int
    groups: int
    ari: float
    agreement: Interval
    classes_alone: float
    recall: Interval | None
    precision: Interval | None


def inferred_groups(
    codes: np.ndarray, y: np.ndarray, groups: np.ndarray, clusters: np.ndarray | None = None
) -> InferredGroups:
    """Judge inferred codes (n,) by true groups (n,), each within one class of y (n,); clusters (n,) as `Sample`'s."""
    cells = np.unique(np.column_stack([y, codes]), axis=0, return_inverse=True)[1].ravel()
    truth = np.unique(groups, return_inverse=True)[1]
    minority, found = _rare(truth, y), _rare(cells, y)
    both, matched = Sample(minority & found, clusters), _matched(cells, truth)
    return InferredGroups(
        cells=int(cells.max()) + 1,
        groups=int(truth.max()) + 1,
        ari=_ari_within(cells, truth, y),
        agreement=Sample(matched, clusters).proportion(),
        classes_alone=float(_matched(y, truth).mean()),
        recall=both.take(minority).proportion() if minority.any() else None,
        precision=both.take(found).proportion() if found.any() and minority.any() else None,
    )


def inferred_by(
    head: object, name: str, y: np.ndarray, groups: np.ndarray, clusters: np.ndarray | None = None
) -> InferredGroups | None:
    """What the fitted head inferred, `inferred_groups_`, against the groups of its rows; None where it inferred none.

    Raises `HeadError` where these are not one whole number for each of the rows.
    """
    codes = getattr(head, "inferred_groups_", None)
    if codes is None:
        return None
    codes = np.asarray(codes)
    if codes.shape != y.shape or codes.dtype.kind not in "iub":
        raise HeadError(
            f"head {name!r}: inferred_groups_ is an array {codes.dtype} {codes.shape}, expected a whole number for "
            f"each of the {len(y):,} rows that are fitted"
        )
    return inferred_groups(codes, y, groups, clusters)


def _ari_within(cells: np.ndarray, truth: np.ndarray, y: np.ndarray) -> float:
    from sklearn.metrics import adjusted_rand_score

    classes, sizes = np.unique(y, return_counts=True)
    scores = [adjusted_rand_score(truth[y == c], cells[y == c]) for c in classes]
    return float(np.average(scores, weights=sizes))


def _matched(cells: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) whether a row's cell and group are matched."""
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((int(cells.max()) + 1, int(truth.max()) + 1), dtype=np.int64)
    np.add.at(table, (cells, truth), 1)
    matched = np.zeros(table.shape, dtype=bool)
    matched[linear_sum_assignment(table, maximize=True)] = True
    return matched[cells, truth]


def _rare(parts: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) whether a row's part is smaller than the mean part of its class."""
    sizes, rare = np.bincount(parts), np.zeros(len(y), dtype=bool)
    for c in np.unique(y):
        own = np.unique(parts[y == c])
        rare |= np.isin(parts, own[sizes[own] < sizes[own].mean()])
    return rare
