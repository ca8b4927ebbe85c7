"""PPA: a head blind to the text, its errors as groups, a head for balanced groups (Zhu et al. 2025)."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression


def fit(
    U: np.ndarray, y: np.ndarray, text: np.ndarray, *, C: float, biased_C: float, tau: float
) -> tuple[np.ndarray, np.ndarray]:
    """(W, b) on image features U (n, p) beside the text vectors (k, p), of two classes the second less the first.

    The offset tau ln beta is put into the logits by a free intercept, from which it is taken off afterwards.
    """
    k = len(text)
    P = np.eye(U.shape[1]) - text.T @ np.linalg.inv(text @ text.T) @ text
    biased = LogisticRegression(C=biased_C, tol=1e-10, max_iter=50000).fit(U @ P, y)
    F = biased.decision_function(U @ P)
    F = np.column_stack([np.zeros(len(F)), F]) if k == 2 else F
    F = F - np.log([np.mean(y == c) for c in range(k)])
    groups = [(c, int(f.argmax() != c)) for c, f in zip(y, F, strict=True)]
    names = sorted(set(groups))
    model = LogisticRegression(C=C, tol=1e-10, max_iter=50000).fit(U, [names.index(g) for g in groups])
    W, b = model.coef_, model.intercept_
    if len(names) == 2:
        W, b = np.concatenate([-W, W]) / 2, np.concatenate([-b, b]) / 2
    b = b - tau * np.log([groups.count(g) / len(y) for g in names])
    W, b = (np.array([np.mean([v for v, g in zip(part, names, strict=True) if g[0] == c], axis=0) for c in range(k)])
            for part in (W, b))  # fmt: skip
    return (W[1:] - W[:1], b[1:] - b[:1]) if k == 2 else (W, b)
