"""What a model, a backbone with a head, predicts on the rows of one split; read in blocks, so that any cache will do.

A head is one that was saved, a name, which is fitted as `embedx probe` fits it, or `PRETRAINED`, the classifier that
came with the backbone. One backbone may rank the rows and any other answer on them: answers carry ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import HeadError, SplitError
from embedx.evaluation.probe import probe_cache
from embedx.evaluation.saved import SavedHead
from embedx.evaluation.selection import in_words
from embedx.probes import Affine, Head, NotFinite, affine_of, predicted_codes, probabilities
from embedx.spuriosity.features.activations import stream
from embedx.store import FeatureCache
from embedx.workspace import Workspace

PRETRAINED = "pretrained"
"""The name of the classifier that is stored beside the features of a backbone."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of one model on the rows of one split that could be extracted.

    head       its name
    ids        (n,) in the order of the manifest
    y          (n,) labels, codes of `classes`; `predicted` (n,) likewise
    left_out   rows of the split that could not be extracted
    """

    dataset: str
    backbone: str
    head: str
    split: str
    classes: tuple[str, ...]
    ids: np.ndarray
    y: np.ndarray
    predicted: np.ndarray
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.y)

    @property
    def correct(self) -> np.ndarray:
        """(n,) bool."""
        return self.predicted == self.y

    @property
    def model(self) -> str:
        """Backbone and head, as the command line spells them."""
        return f"{self.backbone}={self.head}"


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear head on features x as they are cached, for the k classes of a manifest.

    numbers  the head's own, in its own order of classes; predictions come from nowhere else
    order    (k,) the manifest's code of each of its classes
    """

    numbers: Affine
    order: np.ndarray

    @classmethod
    def of(cls, numbers: Affine) -> Linear:
        """A head whose classes are in the order of the manifest."""
        k = len(numbers.coef)
        return cls(numbers, np.arange(2 if k == 1 else k))

    @classmethod
    def raw(cls, weight: np.ndarray, bias: np.ndarray) -> Linear:
        """Logits weight @ x + bias, weight (k, d) and bias (k,); of two rows only the difference is kept."""
        if len(weight) == 2:
            weight, bias = (part[1:].astype(np.float64) - part[:1] for part in (weight, bias))
        return cls.of(Affine.plain(weight, bias))

    @property
    def turned(self) -> Affine:
        """The numbers in the order of the manifest's classes."""
        n = self.numbers
        if len(n.coef) > 1:
            back = np.argsort(self.order)
            return replace(n, coef=n.coef[back], intercept=n.intercept[back])
        return n if self.order[1] else replace(n, coef=-n.coef, intercept=-n.intercept)

    @cached_property
    def weight(self) -> np.ndarray:
        """(k, d) what one unit of every feature adds to the logit of every class.

        The one logit of a head for two classes counts half for the second class and half against the first.
        """
        return _halves(self.turned.folded[0])

    @cached_property
    def bias(self) -> np.ndarray:
        """(k,) logits where all features are 0."""
        return _halves(self.turned.folded[1])

    @classmethod
    def of_saved(cls, head: SavedHead, manifest: Manifest, cache: FeatureCache) -> Linear:
        """In the manifest's order of classes. Raises `ProvenanceError` or `HeadError` for another backbone or data."""
        head.check(cache)
        if set(head.classes) != set(manifest.classes):
            odd = sorted(set(head.classes) ^ set(manifest.classes))
            raise HeadError(
                f"the saved head tells {len(head.classes):,} classes of {head.dataset}, {manifest.name} has "
                f"{len(manifest.classes):,} ({odd[0]!r} is in one only); fit a head on {manifest.name}"
            )
        return cls(head.numbers, np.array([manifest.classes.index(name) for name in head.classes]))

    @classmethod
    def pretrained(cls, manifest: Manifest, cache: FeatureCache) -> Linear:
        """The classifier that came with the backbone. Raises `HeadError` where there is none for as many classes."""
        extras, k = cache.extras, len(manifest.classes)
        if "head/weight" not in extras:
            raise HeadError(
                f"{cache.header.backbone} has no classifier of its own in {cache.path}; name a head, such as plain"
            )
        weight, bias = extras["head/weight"], extras.get("head/bias")
        if len(weight) != k:
            raise HeadError(
                f"the classifier of {cache.header.backbone} tells {len(weight):,} classes, {manifest.name} has {k:,}; "
                "it answers only on the classes it was trained on, in their order; name a head, such as plain"
            )
        bias, expected = np.zeros(k) if bias is None else bias, ((k, cache.header.dim), (k,))
        if (weight.shape, bias.shape) != expected or not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise HeadError(
                f"the classifier in {cache.path} has weights {weight.shape} and a bias {bias.shape}, or some are not "
                f"finite; expected finite {expected[0]} and {expected[1]}: name a head, such as plain"
            )
        return cls.raw(weight, bias)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) codes of features (n, d). Raises `HeadError` for features without logits, like `probabilities`."""
        with _told():
            return self.order[predicted_codes([self.numbers], X)[0]]

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """(n, k) of features (n, d)."""
        with _told():
            own = probabilities(self.numbers.logits(X))
        out = np.empty_like(own)
        out[:, self.order] = own
        return out


def answers(
    manifest: Manifest,
    cache: FeatureCache,
    head: SavedHead | str,
    split: str = "test",
    *,
    prompts: Mapping[str, Sequence[str]] | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> Predictions:
    """What a head on a backbone predicts on one split; what is odd about a fit is told through `notice`.

    head     a saved head, `PRETRAINED`, or the name of a head, which is fitted on train and chosen on validation;
             fitting takes the features of these rows into memory, the others read no more than a block at a time
    prompts  {class: texts}, for the heads that need them

    Raises `ProvenanceError` or `HeadError` for a head that is not of this backbone or not for these classes, and
    `SplitError` for a split without usable rows.
    """
    name, model = model_of(manifest, cache, head, prompts, notice)
    wanted = manifest.splits == SPLITS.index(split)
    blocks = ((rows, X.astype(np.float32, copy=False)) for rows, X in stream(manifest, cache, wanted))
    if not isinstance(model, Linear):  # all rows at once, as `embedx probe` asks it: blocks might round otherwise
        blocks = [tuple(map(np.concatenate, zip(*whole, strict=True)))] if (whole := list(blocks)) else []
    blocks = [(rows, model.predict(X)) for rows, X in blocks]
    if not blocks:
        raise SplitError(f"{manifest.name}: the {split} split has no usable row in {cache.path}; choose another split")
    rows, predicted = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Predictions(
        manifest.name, cache.header.backbone, name, split, manifest.classes, manifest.ids[rows],
        manifest.labels[rows], predicted, int(np.count_nonzero(wanted)) - len(rows),
    )  # fmt: skip


def _halves(of_one: np.ndarray) -> np.ndarray:
    return np.concatenate([-of_one, of_one]) / 2 if len(of_one) == 1 else of_one


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except NotFinite as error:
        raise HeadError(str(error)) from error


def fitted(
    manifest: Manifest,
    cache: FeatureCache,
    name: str,
    prompts: Mapping[str, Sequence[str]] | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> Head:
    """The head of that name as `embedx probe` fits and chooses it."""
    workspace = Workspace(cache.path.parents[1])  # where the features of prompts lie as well
    run, head = probe_cache(workspace, manifest, cache, name, prompts=prompts, notice=notice)[0]
    for line in in_words(run.selection, run.barely_seen):
        notice(f"note: {line}")
    return head


def linear(
    manifest: Manifest, cache: FeatureCache, head: SavedHead | str, prompts: Mapping[str, Sequence[str]] | None = None
) -> Linear:
    """The weights of a head, given as for `answers`. Raises `HeadError` for one that is fitted and not linear."""
    if isinstance(head, SavedHead):
        return Linear.of_saved(head, manifest, cache)
    if head == PRETRAINED:
        return Linear.pretrained(manifest, cache)
    numbers = affine_of(fitted(manifest, cache, head, prompts))
    if numbers is None:
        raise HeadError(f"head {head!r} is not linear, so it has no weight for each feature; name a linear head")
    return Linear.of(numbers)


def model_of(
    manifest: Manifest,
    cache: FeatureCache,
    head: SavedHead | str,
    prompts: Mapping[str, Sequence[str]] | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> tuple[str, Linear | Head]:
    """The name of a head, and the head: `predict` makes codes (n,) of features (n, d)."""
    if isinstance(head, SavedHead) or head == PRETRAINED:
        return head if isinstance(head, str) else str(head.run["head"]), linear(manifest, cache, head)
    model = fitted(manifest, cache, head, prompts, notice)
    numbers = affine_of(model)
    return head, model if numbers is None else Linear.of(numbers)
