"""What every head shares: the estimator contract, standardisation, grids of settings fitted together.

A head says how it is fitted (`_fits`); the rest, from the arguments to the attributes, is the same for all and lives
here.
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
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from . import _rows
from ._data import Data, HeldOut, steering
from ._declarations import HELD_OUT_NEEDS, ChosenBy, Need, Partition, check_head
from ._errors import FitError, about_the_data
from ._features import Features
from ._fit import Fit, check_fits, check_logits
from ._logits import Affine, probabilities
from ._once import Memory
from ._outlying import warn_of_outlying
from ._parameters import LADDERS, check_parameters
from ._prompts import Prompts, checked
from ._supervision import On, Supervision
from ._variants import DEFAULT, PUBLISHED, Published


class Head(ClassifierMixin, BaseEstimator, ABC):
    """A classifier on frozen features; scikit-learn's contract with `groups`, `held_out` and `prompts` added.

    Parameters every head has: `standardize` (bring every feature to mean 0 and variance 1 on the rows that are fitted;
    constant features stay as they are), `random_state`, the seed of heads that draw rows, and `variant`: "default", or
    "published" for what the authors' code computes.
    Fitted values every head has: `classes_`, `n_features_in_`, `mean_` and `scale_` (d,), `converged_`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    """What `fit` needs beyond X and y."""
    supervision: ClassVar[tuple[Supervision, ...]] = ()
    """The supervision beyond the class labels of the rows that are fitted."""
    fits_on: ClassVar[On] = On.TRAIN
    """The split whose rows are X."""
    chosen_by: ClassVar[ChosenBy] = ChosenBy.AVERAGE
    """What its authors choose its settings by on validation."""
    partition: ClassVar[Partition] = Partition.GROUPS
    """What the `groups` of `fit` are."""
    published: ClassVar[Published | None] = None
    """What `variant="published"` computes and how the default departs from it; None where nobody published
    the head, or it does not follow its authors to the letter."""
    random: ClassVar[bool] = False
    """Whether the result depends on `random_state`."""
    grid: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Published or default settings to choose among, the strongest regularisation first."""
    grows: ClassVar[Mapping[str, tuple[float, float]]] = LADDERS
    """How far the grid goes on where the best setting is at its edge: {parameter: (smallest, largest)}."""
    tried_with: ClassVar[Mapping[str, Any]] = {}
    """Parameters while settings are tried, where that is cheaper; the chosen one is fitted again without them."""

    stored: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Of a head that is not linear: the fitted arrays, float64, that its predictions depend on beside mean and scale,
    and their shapes in words, of which "k" and "d" count classes and features. A file holds them; empty: it cannot."""

    _attributes: ClassVar[tuple[str, ...]] = ("standardize", "random_state")
    """What `__init__` of every such head sets, whether it takes it as a parameter or not."""

    classes_: np.ndarray
    mean_: np.ndarray
    scale_: np.ndarray
    converged_: bool

    variant: str = "default"
    """Of heads from elsewhere whose `__init__` does not take it."""

    def __init__(self, standardize: bool = True, random_state: int | None = None, variant: str = "default") -> None:
        self.standardize = standardize
        self.random_state = random_state
        self.variant = variant

    def __init_subclass__(cls, **keywords: Any) -> None:
        """What was published is the head itself: one that is made from it has to say so of its own."""
        super().__init_subclass__(**keywords)
        if "published" not in vars(cls):
            cls.published = None

    @classmethod
    def settings_of(cls, variant: str) -> tuple[Mapping[str, Any], ...]:
        """The settings to choose among, of a variant: those of the authors for "published" where they have others."""
        own = cls.published.grid if cls.published and variant == PUBLISHED else None
        return cls.grid if own is None else own

    @abstractmethod
    def _fits(self, data: Data, variants: Sequence[Any]) -> list[Fit]:
        """One fit for each variant: heads of this class whose parameters differ.

        Raises `FitError` for data or parameters that the head cannot be fitted with.
        """

    def _published_fits(self, data: Data, variants: Sequence[Any]) -> list[Fit]:
        """The same as the authors compute it; for heads whose default departs from that."""
        return self._fits(data, variants)

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
        them; all are checked as X and y are. `clusters` (n,) says which rows are of one subject: heads that
        draw rows then draw subjects, and those that part rows keep each subject in one part.

        Warns (`ConvergenceWarning`) where `converged_` is False, and of rows a million spreads away from the others.
        Raises `FitError` (a `ValueError`) when something needed is missing, for a parameter out of range, when there is
        one class only, and for values that are missing or infinite; `ContractError` (a `TypeError`) for a head whose
        declarations, or whose fit, are not what they have to be.
        """
        check_head(type(self))
        check_parameters(self)
        data = self._checked(X, y, groups, [] if held_out is None else [held_out], prompts, spuriosity, clusters)
        self._filled(data, self._checked_fits(data, [self])[0])
        if not self.converged_:
            warnings.warn(self._unsettled(), ConvergenceWarning, stacklevel=2)
        return self

    def path(  # noqa: PLR0913
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
        starts: Sequence[Any] = (),
        memory: Memory | None = None,
    ) -> list[Self]:
        """Fitted copies of this head, one for each of `settings` (by default the grid): parameters that differ.

        X may be `Features`, which several heads then share; `held_out` may be a list, of one for each of the settings.
        `starts` are heads fitted on the same rows, or None, one for each: where the method allows it, it goes on from
        them, which changes how long it takes, not what is found. `memory`, a dictionary that calls on the same rows
        share, keeps what first stages found, which then is not computed again.
        All fits share one solve where the method allows it. A fit that did not converge says so in `converged_` only.
        """
        check_head(type(self))
        given = self.settings_of(self.variant) if settings is None else settings
        variants = [cast("Self", clone(self)).set_params(**s) for s in given]
        for v in variants:
            check_parameters(v)
        if held_out is None or isinstance(held_out, HeldOut):
            each = [held_out] * len(variants) if held_out else []
        else:
            each = list(held_out)
            with about_the_data():
                check_consistent_length(each, variants)
        data = self._checked(X, y, groups, each, prompts, spuriosity, clusters)
        linear = [(h.coef_, h.intercept_) if isinstance(h, LinearHead) else None for h in starts]
        data = replace(data, starts=linear, memory={} if memory is None else memory)
        return [v._filled(data, f) for v, f in zip(variants, self._checked_fits(data, variants), strict=True)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, k) class probabilities in the order of `classes_`.

        Raises `ContractError` where `decision_function` returned no array of the shape that it has to.
        """
        return probabilities(self._logits(X))

    def predict(self, X: Any) -> np.ndarray:
        """(n,) predicted labels. Raises `ContractError` as `predict_proba` does."""
        logits = self._logits(X)
        return self.classes_[(logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(axis=1)]

    def _logits(self, X: Any) -> np.ndarray:
        """What `decision_function` returns, its shape checked."""
        logits, k, n = self.decision_function(X), len(self.classes_), len(np.asarray(X))
        check_logits(type(self).__name__, logits, (n,) if k == 2 else (n, k))
        return logits

    def _unsettled(self) -> str:
        """The warning of a fit that did not converge."""
        diagnostics = {name: getattr(self, f"{name}_", None) for name in ("n_iter", "gradient", "gap")}
        words = [f"{name} {value:.4g}" for name, value in diagnostics.items() if value is not None]
        return (
            f"{type(self).__name__} did not converge ({', '.join(words) or 'values that are not finite'}): its "
            "coefficients are not the minimum; raise max_iter or tol, take a smaller C, or standardize the features"
        )

    def _checked_fits(self, data: Data, variants: Sequence[Self]) -> list[Fit]:
        linear = (1 if data.k == 2 else data.k, data.features.d) if isinstance(self, LinearHead) else None
        fits: dict[int, Fit] = {}
        for variant, fit in ((DEFAULT, self._fits), (PUBLISHED, self._published_fits)):
            mine = [i for i, v in enumerate(variants) if v.variant == variant]
            if not mine:
                continue
            made = fit(data.of_variants(mine), [variants[i] for i in mine])
            check_fits(type(self).__name__, made, len(mine), linear)
            fits |= zip(mine, made, strict=True)
        return [fits[i] for i in range(len(variants))]

    def _filled(self, data: Data, fit: Fit) -> Self:
        """This head with the attributes that the data decide, and those of the fit."""
        shared = {
            "classes_": data.classes, "n_features_in_": data.features.d,
            "mean_": data.features.mean, "scale_": data.features.scale,
        }  # fmt: skip
        if data.names is not None:
            shared["feature_names_in_"] = data.names
        for name, value in {**shared, **fit.attributes}.items():
            setattr(self, name, value)
        return self

    def _rows(self, X: Any) -> np.ndarray:
        """X as an array of this head's width."""
        check_is_fitted(self, "classes_")
        with about_the_data():
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
        with about_the_data():
            if isinstance(X, Features):
                y = column_or_1d(y)
                check_consistent_length(X.X, y)
            else:
                X, y = validate_data(self, X, cast("Any", y), dtype=[np.float64, np.float32])
            check_classification_targets(y)
            labels = column_or_1d(y)
        if isinstance(X, Features):
            features = X
        else:
            features = Features.standardize(X) if self.standardize else Features.identity(X)
            warn_of_outlying(features.X, (features.mean, features.scale) if self.standardize else None)
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise FitError(f"only one class ({classes[0]!r}) among the training rows; a classifier needs two")
        occurring = None
        if groups is not None:
            occurring, groups = np.unique(_rows.labels(groups, "groups", len(codes)), return_inverse=True)
        if clusters is not None:
            clusters = np.unique(_rows.labels(clusters, "clusters", len(codes)), return_inverse=True)[1]
        scores = None if spuriosity is None else _rows.numbers(spuriosity, "spuriosity", len(codes))
        steers, at = steering(held_out, features, classes, occurring)
        for h in held_out if not isinstance(X, Features) else ():
            with about_the_data("held_out.X"):  # the names of its columns
                validate_data(self, cast("Any", h.X), reset=False, skip_check_array=True)
        text = None if prompts is None else checked(prompts, len(classes), features.d)
        names = getattr(self, "feature_names_in_", None)
        return Data(features, codes, classes, groups, steers, text, scores, clusters, at, names)

    def _refuse_lacking(self, groups: Any, held_out: Sequence[HeldOut], prompts: Any, spuriosity: Any) -> None:
        """Raise `FitError` for what is needed and not given; `TypeError` for held-out rows of another kind."""
        name = type(self).__name__
        if Need.GROUPS in self.needs and groups is None:
            raise FitError(f"{name} needs the group of every training row: fit(X, y, groups=...)")
        if odd := [h for h in held_out if not isinstance(h, HeldOut)]:
            raise TypeError(f"held_out must be HeldOut(X, y, groups), found {type(odd[0]).__name__}")
        if self.needs & HELD_OUT_NEEDS and not held_out:
            raise FitError(f"{name} needs rows that are not fitted: fit(X, y, held_out=HeldOut(X, y, groups))")
        if Need.HELD_OUT_GROUPS in self.needs and any(h.groups is None for h in held_out):
            raise FitError(f"{name} needs the group of every held-out row: fit(X, y, held_out=HeldOut(X, y, groups))")
        if Need.PROMPTS in self.needs and prompts is None:
            raise FitError(
                f"{name} needs the text features of every class: fit(X, y, prompts=Prompts(text, projection))"
            )
        if Need.SPURIOUS_PROMPTS in self.needs and prompts.spurious is None:
            raise FitError(
                f"{name} needs the text features of what is spurious: fit(X, y, prompts=Prompts(..., spurious=...))"
            )
        if Need.SPURIOSITY in self.needs and spuriosity is None:
            raise FitError(f"{name} needs every row's spuriosity, NaN where there is none: fit(X, y, spuriosity=...)")


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
    """The fitted numbers of a head that is only W z + b, else None."""
    ways = ("decision_function", "predict", "predict_proba")
    plain = isinstance(head, LinearHead) and all(getattr(type(head), w) is getattr(LinearHead, w) for w in ways)
    return head.affine if plain else None
