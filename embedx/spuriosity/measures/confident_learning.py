"""Confident learning: which labels are wrong, by the probabilities of a model that did not see the rows.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021, section 3.
Of n rows with labels y and probabilities p (n, k):

    threshold t_j        mean of p_j over the rows labelled j: the self-confidence of the class
    confident joint C_ij  rows labelled i of which j is the most probable of the classes with p_j >= t_j; a row without
                         such a class is not counted
    off the diagonal      rows counted in C_ij, i != j: their labels are taken for wrong

Their rank: the normalized margin, p of the label minus the largest p of another class, the smallest first. Rows on the
diagonal, or not counted, follow in the same order, so that every row has a place.

The package of the authors, cleanlab, differs in a detail: where several classes are above their thresholds it takes the
most probable of all classes, whether or not that one is above its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 4096
"""Rows that are looked at together, so that no second table of probabilities is made."""
ROUNDING = 1e-9
"""A mean of equal probabilities may lie above them by as much."""


@dataclass(frozen=True, eq=False)
class ConfidentJoint:
    """What is counted of n rows and k classes.

    thresholds  (k,); infinite for a class without rows
    guess       (n,) the class that a row is counted for, -1 for none
    counts      (k, k) rows by label and guess
    """

    thresholds: np.ndarray
    guess: np.ndarray
    counts: np.ndarray


def confident_joint(labels: np.ndarray, p: np.ndarray) -> ConfidentJoint:
    """The confident joint of labels (n,) and probabilities p (n, k), which may be in single precision."""
    n, k = p.shape
    sizes = np.bincount(labels, minlength=k)
    own = p[np.arange(n), labels].astype(np.float64)
    thresholds = np.full(k, np.inf)
    np.divide(np.bincount(labels, weights=own, minlength=k), sizes, out=thresholds, where=sizes > 0)
    guess = np.empty(n, dtype=np.int64)
    for start in range(0, n, BLOCK):
        part = p[start : start + BLOCK]
        above = np.where(part >= thresholds - ROUNDING, part, -1)
        guess[start : start + BLOCK] = np.where(above.max(axis=1) >= 0, above.argmax(axis=1), -1)
    counted = guess >= 0
    counts = np.bincount(labels[counted] * k + guess[counted], minlength=k * k).reshape(k, k)
    return ConfidentJoint(thresholds, guess, counts)


def normalized_margin(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """(n,) p of the label minus the largest p of another class, from -1 to 1."""
    margin = np.empty(len(labels))
    for start in range(0, len(labels), BLOCK):
        others, given = p[start : start + BLOCK].astype(np.float64), labels[start : start + BLOCK]
        own = others[np.arange(len(given)), given]
        others[np.arange(len(given)), given] = -1
        margin[start : start + BLOCK] = own - others.max(axis=1)
    return margin


def off_diagonal(labels: np.ndarray, joint: ConfidentJoint) -> np.ndarray:
    """(n,) bool: the rows whose labels are taken for wrong."""
    return (joint.guess >= 0) & (joint.guess != labels)


def suspicion(labels: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) scores, the most suspicious row the highest, and (n,) bool: rows whose labels are taken for wrong."""
    wrong = off_diagonal(labels, confident_joint(labels, p))
    return (1 - normalized_margin(labels, p)) / 2 + wrong, wrong
