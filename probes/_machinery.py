"""What every linear head shares: the estimator contract, standardisation, and weightings averaged into one head.

A head of this family is a way to weight the training rows. The rest, from the standardised features to the
coefficients, is the same for all and lives here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from probes._solver import Problem, solve

GRID = tuple(float(c) for c in np.logspace(-5, 1, 13))


class LinearHead(ClassifierMixin, BaseEstimator, ABC):
    """A linear classifier on standardised features, L2-regularised; scikit-learn's contract with `groups` added.

    For each weighting w of the rows that the head asks for, with z the standardised features:

        min over W, b:   1/2 ||W||^2  +  C * sum_i w_i * loss(W z_i + b, y_i)

    with the logistic loss for two classes and the softmax cross-entropy for more; b is not penalised. The head is the
    mean of the solutions. `C` means what it means in `sklearn.linear_model.LogisticRegression`.

    Parameters
    C             inverse strength of regularisation, > 0
    standardize   bring every feature to mean 0 and variance 1 on the training rows (constant features stay as they are)
    tol, max_iter largest component of the mean gradient at which a solution counts as found; most L-BFGS iterations
    random_state  seed of the heads that draw rows

    Fitted values: `classes_`, `mean_` and `scale_` (d,), `coef_` (1 or k, d) on standardised features, `intercept_`,
    `n_iter_`, `converged_`, `gradient_` (largest gradient component at the solution, its certificate).
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """What `fit` needs beyond X and y: empty, or {"groups"}."""
    supervision: ClassVar[str] = "none"
    """Supervision beyond the class labels that fitting uses, in words."""
    random: ClassVar[bool] = False
    """Whether the result depends on `random_state`."""

    classes_: np.ndarray
    mean_: np.ndarray
    scale_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    n_iter_: int
    converged_: bool
    gradient_: float

    def __init__(
        self,
        C: float = 1.0,
        standardize: bool = True,
        tol: float = 1e-6,
        max_iter: int = 2000,
        random_state: int | None = None,
    ) -> None:
        self.C = C
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    @abstractmethod
    def _weightings(self, y: np.ndarray, groups: np.ndarray | None, rng: np.random.RandomState) -> np.ndarray:
        """(m, n) weights of the training rows, one row per fit; y and groups are codes from 0."""

    def fit(self, X: Any, y: Any, *, groups: Any = None) -> Self:
        """Fit on X (n, d) and labels y (n,); `groups` (n,) for the heads that need it. Returns self.

        Raises `ValueError` when groups are needed and missing, when there is one class only, or for non-finite X.
        """
        return self._filled(self._fitted(X, y, groups, [self.C])[0])

    def path(self, X: Any, y: Any, Cs: Sequence[float], *, groups: Any = None) -> list[Self]:
        """Fitted copies of this head, one for each value of C; the fits share all preparation and one solve."""
        fits = self._fitted(X, y, groups, Cs)
        return [cast("Self", clone(self)).set_params(C=C)._filled(fit) for C, fit in zip(Cs, fits, strict=True)]

    def decision_function(self, X: Any) -> np.ndarray:
        """(n,) logit of the second class for two classes, (n, k) logits for more."""
        check_is_fitted(self, "coef_")
        X = np.asarray(validate_data(self, X, reset=False, dtype=[np.float64, np.float32]))
        # Folding the standardisation into the coefficients saves a copy of X.
        coef = self.coef_ / self.scale_
        logits = X @ coef.T.astype(X.dtype) + (self.intercept_ - coef @ self.mean_).astype(X.dtype)
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, k) class probabilities in the order of `classes_`."""
        logits = self.decision_function(X).astype(np.float64)
        if logits.ndim == 2:
            return softmax(logits, axis=1)
        return np.column_stack([expit(-logits), expit(logits)])

    def predict(self, X: Any) -> np.ndarray:
        """(n,) predicted labels."""
        logits = self.decision_function(X)
        return self.classes_[(logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(axis=1)]

    def _filled(self, fit: Mapping[str, Any]) -> Self:
        for name, value in fit.items():
            setattr(self, name, value)
        return self

    def _fitted(self, X: Any, y: Any, groups: Any, Cs: Sequence[float]) -> list[dict[str, Any]]:
        """The fitted attributes for each C."""
        if "groups" in self.needs and groups is None:
            raise ValueError(f"{type(self).__name__} needs the group of every training row: fit(X, y, groups=...)")
        if not all(C > 0 for C in Cs):
            raise ValueError(f"C must be positive, found {min(Cs)}")
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        classes, codes = np.unique(column_or_1d(y), return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"only one class ({classes[0]!r}) among the training rows; a classifier needs two")
        if groups is not None:
            groups = np.unique(column_or_1d(groups), return_inverse=True)[1]
            check_consistent_length(y, groups)
        scaler = StandardScaler(with_mean=self.standardize, with_std=self.standardize).fit(X)
        Z = np.asarray(scaler.transform(X))
        weightings = self._weightings(codes, groups, check_random_state(self.random_state))
        problems = [Problem(w, float(C)) for w in weightings for C in Cs]
        solutions = solve(Z, codes, problems, tol=self.tol, max_iter=self.max_iter)
        d = X.shape[1]
        shared = {
            "classes_": classes, "n_features_in_": d,
            "mean_": scaler.mean_ if self.standardize else np.zeros(d),
            "scale_": scaler.scale_ if self.standardize else np.ones(d),
        }  # fmt: skip
        if (names := getattr(self, "feature_names_in_", None)) is not None:
            shared["feature_names_in_"] = names
        return [
            shared
            | {
                "coef_": np.mean([s.coef for s in mine], axis=0),
                "intercept_": np.mean([s.intercept for s in mine], axis=0),
                "n_iter_": max(s.iterations for s in mine),
                "converged_": all(s.converged for s in mine),
                "gradient_": max(s.gradient for s in mine),
            }
            for mine in (solutions[c :: len(Cs)] for c in range(len(Cs)))
        ]


def inverse_frequency(codes: np.ndarray) -> np.ndarray:
    """(n,) weights n / (k * n_c) for rows of code c, k codes occurring: equal mass for every code, mean 1."""
    counts = np.bincount(codes)
    return len(codes) / (np.count_nonzero(counts) * counts[codes])


def balanced_draws(codes: np.ndarray, draws: int, rng: np.random.RandomState) -> np.ndarray:
    """(draws, n) of 0 and 1: each draw takes, without replacement, as many rows of every code as the rarest has."""
    if draws < 1:
        raise ValueError(f"draws must be at least 1, found {draws}")
    members = [np.flatnonzero(codes == c) for c in np.unique(codes)]
    size = min(map(len, members))
    taken = np.zeros((draws, len(codes)))
    for draw in taken:
        for rows in members:
            draw[rng.choice(rows, size, replace=False)] = 1
    return taken
