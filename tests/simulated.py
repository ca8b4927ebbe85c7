"""Features of a made dataset with the group counts of Waterbirds: the attribute is told more easily than the label."""

from __future__ import annotations

import numpy as np

from embedx.evaluation.split import Part, Split

COUNTS = {
    "train": (3498, 184, 56, 1057), "val": (467, 466, 133, 133), "test": (2255, 2255, 642, 642),
}  # fmt: skip
"""Rows of each group, label x attribute, of Waterbirds."""
NAMES = ("landbird/land", "landbird/water", "waterbird/land", "waterbird/water")


def waterbirds(d: int = 64, seed: int = 0, share: float = 1.0) -> Split:
    """Gaussian features: three weak directions tell the label, two strong ones the attribute, the rest is noise.

    share  of the rows of every group that there are
    """
    rng = np.random.default_rng([seed, d])
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    parts = {}
    for name, counts in COUNTS.items():
        groups = np.repeat(np.arange(4), [max(4, round(share * n)) for n in counts])
        y, a = groups // 2, groups % 2
        Z = rng.normal(size=(len(groups), d))
        Z[:, :3] += 1.1 * (2 * y - 1)[:, None]
        Z[:, 3:5] += 1.8 * (2 * a - 1)[:, None]
        order = rng.permutation(len(groups))
        ids = np.array([f"{name}/{i:05d}" for i in range(len(groups))])
        X = (Z @ turn).astype(np.float32)[order]
        parts[name] = Part(ids, X, y[order], groups[order], {"place": a[order]})
    return Split(
        "simulated", f"gaussian:{d}", parts["train"], parts["val"], parts["test"], ("landbird", "waterbird"), NAMES,
        np.array([0, 0, 1, 1]), True, {"train": 0, "val": 0, "test": 0}, {"manifest": "", "weights": ""},
        {"place": ("land", "water")},
    )  # fmt: skip
