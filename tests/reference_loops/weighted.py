"""Weighted rows, stopped early: ERM, and RWY, SUBY, RWG, SUBG of Idrissi et al. 2022."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .rows import Rows, at, descend, length


def walk(rows: Rows, v: np.ndarray, stops: set[int]) -> dict[int, np.ndarray]:
    """{steps: head} down sum_i v_i loss_i / sum_i v_i, from zero."""
    A, v = rows.matrix, v / v.sum()
    share = torch.from_numpy(v)
    zero = torch.zeros(A.shape[1], dtype=torch.float64)
    return at(descend(lambda t: (share * rows.losses(t, A)).sum(), zero, length(A, v)), stops)


def _stopped(rows: Rows, v: np.ndarray, settings: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
    heads = walk(rows, v, {s["steps"] for s in settings})
    return [heads[s["steps"]] for s in settings]


def inverse(codes: np.ndarray) -> np.ndarray:
    """(n,) 1 / rows of the same code."""
    return 1 / np.bincount(codes)[codes]


def subsample(codes: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """As many rows of every code as the rarest has."""
    size = np.bincount(codes)[np.unique(codes)].min()
    return np.concatenate([rng.choice(np.flatnonzero(codes == c), size, replace=False) for c in np.unique(codes)])


def plain(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """Every row counts the same."""
    return _stopped(train, np.ones(len(train.y)), settings)


def class_balanced(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """Every class counts the same."""
    return _stopped(train, inverse(train.y), settings)


def reweighted(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """Every group counts the same."""
    return _stopped(train, inverse(train.groups), settings)


def class_subsampled(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """One draw of classes of one size."""
    rows = train.take(subsample(train.y, np.random.RandomState(seed)))
    return _stopped(rows, np.ones(len(rows.y)), settings)


def group_balanced(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """One draw of groups of one size."""
    rows = train.take(subsample(train.groups, np.random.RandomState(seed)))
    return _stopped(rows, np.ones(len(rows.y)), settings)
