"""LISA: SGD on rows between rows of one label or of one attribute (Yao et al. 2022)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .rows import Rows


def heads(train: Rows, held_out: Rows, settings: Sequence[Mapping[str, Any]], seed: int) -> list[np.ndarray]:
    """All on one way."""
    way = fit(train.Z, train.y, train.attribute, {s["steps"] for s in settings}, np.random.RandomState(seed))
    return [np.append(*way[s["steps"]]) for s in settings]


def fit(
    X: np.ndarray, y: np.ndarray, attribute: np.ndarray, stops: set[int], rng: np.random.RandomState, *,
    alpha: float = 2.0, same_label: float = 0.5,
) -> dict[int, tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """{steps: (W, b)} after some steps of 32 mixtures, at rate 1e-3 with momentum 0.9 and weight decay 1e-4."""
    k, d = len(set(y)), X.shape[1]
    groups = list(zip(y, attribute, strict=True))
    rows_of = {g: [i for i in range(len(y)) if groups[i] == g] for g in sorted(groups)}
    pairs, likely = [], []
    for g in rows_of:
        for h in rows_of:
            for shared, weight in ((0, same_label), (1, 1 - same_label)):
                if g[shared] == h[shared] and g != h:
                    sizes = Counter(other[shared] for other in rows_of)
                    values = sum(size > 1 for size in sizes.values())
                    size = sizes[g[shared]]
                    pairs.append((g, h))
                    likely.append(weight / values / (size * (size - 1)))
    W, b = np.split(rng.uniform(-1, 1, (k, d + 1)) / np.sqrt(d), [d], axis=1)
    b, vW, vb = b[:, 0], np.zeros_like(W), np.zeros(k)
    found = {}
    for step in range(1, max(stops) + 1):
        drawn = [pairs[i] for i in rng.choice(len(pairs), 32, p=likely)]
        places = rng.randint([[len(rows_of[g]) for g, _ in drawn], [len(rows_of[h]) for _, h in drawn]])
        shares = rng.beta(alpha, alpha, 32)
        gW, gb = 1e-4 * W, 1e-4 * b
        for (g, h), p, q, s in zip(drawn, *places, shares, strict=True):
            i, j = rows_of[g][p], rows_of[h][q]
            x = s * X[i] + (1 - s) * X[j]
            e = np.exp(W @ x + b - (W @ x + b).max())
            r = e / e.sum() - s * np.eye(k)[y[i]] - (1 - s) * np.eye(k)[y[j]]
            gW, gb = gW + np.outer(r, x) / 32, gb + r / 32
        vW, vb = 0.9 * vW + gW, 0.9 * vb + gb
        W, b = W - 1e-3 * vW, b - 1e-3 * vb
        if step in stops:
            found[step] = (W[1:] - W[:1], b[1:] - b[:1]) if k == 2 else (W, b)
    return found
