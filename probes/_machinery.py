"""What every head shares: the estimator contract, standardisation, grids of settings fitted in one solve.

A head says how its training rows are weighted, or more generally which problems it solves (`_fits`); the rest, from
the features to the coefficients, is the same for all and lives here.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self, cast

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from . import _rows
from ._data import Data, HeldOut, steering
from ._features import Features
from ._logits import Affine, probabilities
from ._outlying import warn_of_outlying
from ._parameters import check_parameters
from ._problem import Problem, Solution
from ._prompts import Prompts, checked
from ._solver import solve

CS = tuple(float(c) for c in np.logspace(-5, 1, 13))

Fit = dict[str, Any]
"""The fitted attributes of one head, by name."""


class Head(ClassifierMixin, BaseEstimator, ABC):
    """A classifier on frozen features; scikit-learn's contract with `groups`, `held_out` and `prompts` added.

    Parameters every head has: `standardize` (bring every feature to mean 0 and variance 1 on the rows that are fitted;
    constant features stay as they are) and `random_state`, the seed of heads that draw rows.
    Fitted values every head has: `classes_`, `n_features_in_`, `mean_` and `scale_` (d,), `converged_`.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """What `fit` needs beyond X and y: of "groups", "held_out", "held_out groups", "prompts", "spuriosity"."""
    supervision: ClassVar[str] = "none"
    """Supervision beyond the class labels of the rows that are fitted, in words."""
    fits_on: ClassVar[str] = "train"
    """The split whose rows are X: "train" or "val"."""
    chosen_by: ClassVar[str] = "average"
    """What its authors choose its settings by on validation: "average", "spuriosity", or "worst-group" if there are."""
    random: ClassVar[bool] = False
    """Whether the result depends on `random_state`."""
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Published or default settings to choose among, the strongest regularisation first."""
    tried_with: ClassVar[Mapping[str, Any]] = {}
    """Parameters while settings are tried, where that is cheaper; the chosen one is fitted again without them."""

    classes_: np.ndarray
    mean_: np.ndarray
    scale_: np.ndarray
    converged_: bool

    def __init__(self, standardize: bool = True, random_state: int | None = None) -> None:
        self.standardize = standardize
        self.random_state = random_state

    @abstractmethod
    def _fits(self, data: Data, variants: Sequence[Any]) -> list[Fit]:
        """The fitted attributes of each variant: heads of this class whose parameters differ."""

    @abstractmethod
    def decision_function(self, X: Any) -> np.ndarray:
        """(n,) logit of the second class for two classes, (n, k) logits for more."""

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        groups: Any = None,
        held_out: HeldOut | None = None,
        prompts: Prompts | None = None,
        spuriosity: Any = None,
        clusters: Any = None,
    ) -> Self:
        """Fit on X (n, d) and labels y (n,).

        `groups` (n,), `held_out`, `prompts` and `spuriosity` (n,), NaN for rows without, are for the heads that need
        them; all of them are looked at as X and y are. `clusters` (n,) says which rows are of one subject: heads that
        draw rows then draw subjects, and those that part rows keep each subject in one part.

        Warns (`ConvergenceWarning`) where `converged_` is False, and of rows a million spreads away from the others.
        Raises `ValueError` when something needed is missing, for a parameter out of range, when there is one class
        only, and for values that are missing or infinite.
        """
        check_parameters(self)
        data = self._checked(X, y, groups, [] if held_out is None else [held_out], prompts, spuriosity, clusters)
        self._filled(self._attributes(data, [self])[0])
        if not self.converged_:
            warnings.warn(self._unsettled(), ConvergenceWarning, stacklevel=2)
        return self

    def path(
        self,
        X: Any,
        y: Any,
        settings: Sequence[Mapping[str, Any]] | None = None,
        *,
        groups: Any = None,
        held_out: HeldOut | Sequence[HeldOut] | None = None,
        prompts: Prompts | None = None,
        spuriosity: Any = None,
        clusters: Any = None,
    ) -> list[Self]:
        """Fitted copies of this head, one for each of `settings` (by default the grid): parameters that differ.

        X may be `Features`, which several heads then share; `held_out` may be a list, of one for each of the settings.
        All fits share one solve where the method allows it. What did not converge says so in `converged_` alone.
        """
        variants = [cast("Self", clone(self)).set_params(**s) for s in (self.grid if settings is None else settings)]
        for v in variants:
            check_parameters(v)
        if held_out is None or isinstance(held_out, HeldOut):
            each = [held_out] * len(variants) if held_out else []
        else:
            each = list(held_out)
            check_consistent_length(each, variants)
        data = self._checked(X, y, groups, each, prompts, spuriosity, clusters)
        return [v._filled(f) for v, f in zip(variants, self._attributes(data, variants), strict=True)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, k) class probabilities in the order of `classes_`."""
        return probabilities(self.decision_function(X))

    def predict(self, X: Any) -> np.ndarray:
        """(n,) predicted labels."""
        logits = self.decision_function(X)
        return self.classes_[(logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(axis=1)]

    def _unsettled(self) -> str:
        """What a fit that did not converge says."""
        known = {name: getattr(self, f"{name}_", None) for name in ("n_iter", "gradient", "gap")}
        told = [f"{name} {value:.4g}" for name, value in known.items() if value is not None]
        return (
            f"{type(self).__name__} did not converge ({', '.join(told) or 'values that are not finite'}): its "
            "coefficients are not the minimum; raise max_iter or tol, take a smaller C, or standardize the features"
        )

    def _filled(self, fit: Fit) -> Self:
        for name, value in fit.items():
            setattr(self, name, value)
        return self

    def _attributes(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        shared: Fit = {
            "classes_": data.classes, "n_features_in_": data.features.d,
            "mean_": data.features.mean, "scale_": data.features.scale,
        }  # fmt: skip
        if (names := getattr(self, "feature_names_in_", None)) is not None:
            shared["feature_names_in_"] = names
        return [shared | fit for fit in self._fits(data, variants)]

    def _rows(self, X: Any) -> np.ndarray:
        """X as an array of this head's width."""
        check_is_fitted(self, "classes_")
        return np.asarray(validate_data(self, X, reset=False, dtype=[np.float64, np.float32]))

    def _checked(
        self,
        X: Any,
        y: Any,
        groups: Any,
        held_out: Sequence[HeldOut] = (),
        prompts: Prompts | None = None,
        spuriosity: Any = None,
        clusters: Any = None,
    ) -> Data:
        self._refuse_lacking(groups, held_out, prompts, spuriosity)
        if y is not None:
            _rows.refuse_missing(y, "y")
        if isinstance(X, Features):
            features, y = X, column_or_1d(y)
            check_consistent_length(features.X, y)
        else:
            X, y = validate_data(self, X, cast("Any", y), dtype=[np.float64, np.float32])
            features = Features.standardize(X) if self.standardize else Features.identity(X)
            warn_of_outlying(features.X, (features.mean, features.scale) if self.standardize else None)
        check_classification_targets(y)
        classes, codes = np.unique(column_or_1d(y), return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"only one class ({classes[0]!r}) among the training rows; a classifier needs two")
        known = None
        if groups is not None:
            known, groups = np.unique(_rows.labels(groups, "groups", len(codes)), return_inverse=True)
        if clusters is not None:
            clusters = np.unique(_rows.labels(clusters, "clusters", len(codes)), return_inverse=True)[1]
        scores = None if spuriosity is None else _rows.numbers(spuriosity, "spuriosity", len(codes))
        distinct = {id(h): h for h in held_out}
        held = {i: steering(h, features, classes, known) for i, h in distinct.items()}
        for h in distinct.values() if not isinstance(X, Features) else ():
            with _rows.named("held_out.X"):  # the names of its columns
                validate_data(self, cast("Any", h.X), reset=False, skip_check_array=True)
        return Data(
            features, codes, classes, groups, [held[id(h)] for h in held_out],
            None if prompts is None else checked(prompts, len(classes), features.d), scores, clusters,
        )  # fmt: skip

    def _refuse_lacking(self, groups: Any, held_out: Sequence[HeldOut], prompts: Any, spuriosity: Any) -> None:
        """Raise `ValueError` for what is needed and not given; `TypeError` for held-out rows of another kind."""
        name = type(self).__name__
        if "groups" in self.needs and groups is None:
            raise ValueError(f"{name} needs the group of every training row: fit(X, y, groups=...)")
        if odd := [h for h in held_out if not isinstance(h, HeldOut)]:
            raise TypeError(f"held_out must be HeldOut(X, y, groups), found {type(odd[0]).__name__}")
        if self.needs & {"held_out", "held_out groups"} and not held_out:
            raise ValueError(f"{name} needs rows that are not fitted: fit(X, y, held_out=HeldOut(X, y, groups))")
        if "held_out groups" in self.needs and any(h.groups is None for h in held_out):
            raise ValueError(f"{name} needs the group of every held-out row: fit(X, y, held_out=HeldOut(X, y, groups))")
        if "prompts" in self.needs and prompts is None:
            raise ValueError(
                f"{name} needs the text features of every class: fit(X, y, prompts=Prompts(text, projection))"
            )
        if "spuriosity" in self.needs and spuriosity is None:
            raise ValueError(f"{name} needs every row's spuriosity, NaN where there is none: fit(X, y, spuriosity=...)")


class LinearHead(Head):
    """A head of the form W z + b on standardised features z: `coef_` (1 or k, d) and `intercept_`."""

    coef_: np.ndarray
    intercept_: np.ndarray

    def decision_function(self, X: Any) -> np.ndarray:
        """(n,) logit of the second class for two classes, (n, k) logits for more; see `Affine.logits`."""
        X = self._rows(X)  # refuses what is not fitted, or not of its width
        logits = self.affine.logits(X)
        return logits[:, 0] if len(self.classes_) == 2 else logits

    @property
    def affine(self) -> Affine:
        """The fitted numbers: all that a prediction depends on."""
        return Affine(self.coef_, self.intercept_, self.mean_, self.scale_)

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """(W, b) of the same classifier on features that are not standardised: its weights, not a way to predict."""
        return self.affine.folded


def affine_of(head: Any) -> Affine | None:
    """The numbers of a head that is W z + b and nothing else, else None."""
    ways = ("decision_function", "predict", "predict_proba")
    plain = isinstance(head, LinearHead) and all(getattr(type(head), w) is getattr(LinearHead, w) for w in ways)
    return head.affine if plain else None


class ConvexHead(LinearHead):
    """A linear classifier, regularised, that solves one convex problem per weighting of the rows and averages them.

    For each weighting w that the head asks for, with z the standardised features:

        min over W, b:   R(W)  +  C * sum_i w_i * loss(W z_i + b, y_i)

    with the logistic loss for two classes and the softmax cross-entropy for more, R(W) = 1/2 ||W||^2 (`penalty` "l2")
    or ||W||_1 ("l1"); b is not penalised. The head is the mean of the solutions. `C` means what it means in
    `sklearn.linear_model.LogisticRegression`.

    Parameters
    C             inverse strength of regularisation, > 0; infinite: no penalty, as scikit-learn has it
    penalty       "l2" or "l1"
    tol, max_iter largest component of the mean (sub-)gradient at which a solution counts as found (see `Problem`); most
                  iterations
    standardize, random_state as in `Head`

    Fitted values beyond those of `LinearHead`: `n_iter_`, `converged_`, `gradient_` (largest component of the
    (sub-)gradient at the solution, its certificate).
    """

    grid: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"C": C} for C in CS)
    tried_with: ClassVar[Mapping[str, Any]] = {"tol": 1e-4}  # scikit-learn's default
    n_iter_: int
    gradient_: float

    def __init__(
        self,
        C: float = 1.0,
        penalty: str = "l2",
        standardize: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        random_state: int | None = None,
    ) -> None:
        super().__init__(standardize=standardize, random_state=random_state)
        self.C = C
        self.penalty = penalty
        self.tol = tol
        self.max_iter = max_iter

    def _weightings(self, data: Data) -> np.ndarray:
        """(m, n) weights of the training rows, one row per problem. Heads that weight otherwise override `_fits`."""
        raise NotImplementedError(f"{type(self).__name__} defines neither _weightings nor _fits; a head needs one")

    def _problem(self, weights: np.ndarray) -> Problem:
        """The convex problem of one weighting under this head's parameters."""
        return Problem(weights, float(self.C), penalty=self.penalty, tol=self.tol, max_iter=self.max_iter)

    def _fits(self, data: Data, variants: Sequence[Any]) -> list[Fit]:
        known: dict[tuple[Any, ...], np.ndarray] = {}
        for v in variants:
            if v._draws_like() not in known:
                known[v._draws_like()] = v._weightings(data)
        return weighted_fits(data, variants, [known[v._draws_like()] for v in variants])

    def _draws_like(self) -> tuple[Any, ...]:
        """The parameters that decide the weighting: all but those of the problem."""
        rest = self.get_params().items()
        return tuple(sorted((k, repr(v)) for k, v in rest if k not in ("C", "penalty", "tol", "max_iter")))

    def _generator(self) -> np.random.RandomState:
        return check_random_state(self.random_state)


def weighted_fits(
    data: Data,
    variants: Sequence[ConvexHead],
    weightings: Sequence[np.ndarray],
    guesses: Sequence[Fit] | None = None,
) -> list[Fit]:
    """One fit per variant: the mean of the solutions for its (m, n) weightings, from `guesses`; all in one solve."""
    rows = {id(ws): list(ws) for ws in weightings}  # problems of one weighting share it, which the solver makes use of
    problems = [v._problem(w) for v, ws in zip(variants, weightings, strict=True) for w in rows[id(ws)]]
    if guesses is not None:
        near = [(g["coef_"], g["intercept_"]) for g, ws in zip(guesses, weightings, strict=True) for _ in ws]
        problems = [replace(p, guess=g) for p, g in zip(problems, near, strict=True)]
    solutions = iter(solve(data.features, data.y, problems))
    return [averaged([next(solutions) for _ in ws]) for ws in weightings]


def averaged(solutions: Sequence[Solution]) -> Fit:
    """The mean head, as sure as the least sure of its parts."""
    return {
        "coef_": np.mean([s.coef for s in solutions], axis=0),
        "intercept_": np.mean([s.intercept for s in solutions], axis=0),
        "n_iter_": max(s.iterations for s in solutions),
        "converged_": all(s.converged for s in solutions),
        "gradient_": max(s.gradient for s in solutions),
    }


def inverse_frequency(codes: np.ndarray) -> np.ndarray:
    """(n,) weights n / (k * n_c) for rows of code c, k codes occurring: equal mass for every code, mean 1."""
    counts = np.bincount(codes)
    return len(codes) / (np.count_nonzero(counts) * counts[codes])
