"""What a model, a backbone with a head, predicts on the rows of one split; read in blocks, so that any cache will do.

A head is one that was saved, a name, which is fitted as `embedx probe` fits it, or `PRETRAINED`, the classifier that
came with the backbone. One backbone may rank the rows and any other answer on them: answers carry ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedx.compare import probe_cache
from embedx.errors import HeadError, SplitError
from embedx.home import Home
from embedx.manifest import SPLITS, Manifest
from embedx.saved import SavedHead, savable
from embedx.select import in_words
from embedx.spuriosity.activations import stream
from embedx.store import FeatureCache
from probes._machinery import Head, LinearHead

PRETRAINED = "pretrained"
"""The name of the classifier that is stored beside the features of a backbone."""


@dataclass(frozen=True, eq=False)
class Answers:
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
    """Logits weight @ x + bias of features x as they are cached: weight (k, d), bias (k,), in the order of the classes.

    The one logit w @ x + b of a head for two classes counts half for the second class and half against the first.
    """

    weight: np.ndarray
    bias: np.ndarray

    @classmethod
    def of_head(cls, head: LinearHead) -> Linear:
        return cls._of(*head.folded())

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
        weight = head.arrays["coef"] / head.arrays["scale"]
        whole = cls._of(weight, head.arrays["intercept"] - weight @ head.arrays["mean"])
        at = [head.classes.index(name) for name in manifest.classes]
        return cls(whole.weight[at], whole.bias[at])

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
        return cls._of(weight, np.zeros(k) if bias is None else bias)

    @classmethod
    def _of(cls, weight: np.ndarray, bias: np.ndarray) -> Linear:
        if len(weight) == 1:
            weight, bias = (np.concatenate([-part, part]) / 2 for part in (weight, bias))
        return cls(weight.astype(np.float64), bias.astype(np.float64))

    def predictor(self) -> Callable[[np.ndarray], np.ndarray]:
        """X (n, d) -> (n,) codes, in single precision."""
        weight, bias = self.weight.T.astype(np.float32), self.bias.astype(np.float32)
        return lambda X: (X.astype(np.float32, copy=False) @ weight + bias).argmax(axis=1)


def answers(
    manifest: Manifest,
    cache: FeatureCache,
    head: SavedHead | str,
    split: str = "test",
    *,
    prompts: Mapping[str, Sequence[str]] | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> Answers:
    """What a head on a backbone predicts on one split; what is odd about a fit is told through `notice`.

    head     a saved head, `PRETRAINED`, or the name of a head, which is fitted on train and chosen on validation;
             fitting takes the features of these rows into memory, the others read no more than a block at a time
    prompts  {class: texts}, for the heads that need them

    Raises `ProvenanceError` or `HeadError` for a head that is not of this backbone or not for these classes, and
    `SplitError` for a split without usable rows.
    """
    name, predict = predictor_of(manifest, cache, head, prompts, notice)
    wanted = manifest.splits == SPLITS.index(split)
    blocks = [(rows, predict(X.astype(np.float32, copy=False))) for rows, X in stream(manifest, cache, wanted)]
    if not blocks:
        raise SplitError(f"{manifest.name}: the {split} split has no usable row in {cache.path}; choose another split")
    rows, predicted = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Answers(
        manifest.name, cache.header.backbone, name, split, manifest.classes, manifest.ids[rows],
        manifest.labels[rows], predicted, int(np.count_nonzero(wanted)) - len(rows),
    )  # fmt: skip


def fitted(
    manifest: Manifest,
    cache: FeatureCache,
    name: str,
    prompts: Mapping[str, Sequence[str]] | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> Head:
    """The head of that name as `embedx probe` fits and chooses it."""
    home = Home(cache.path.parents[1])  # where the features of prompts lie as well
    run, head = probe_cache(home, manifest, cache, name, prompts=prompts, notice=notice)[0]
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
    model = fitted(manifest, cache, head, prompts)
    if not (isinstance(model, LinearHead) and savable(model)):
        raise HeadError(f"head {head!r} is not linear, so it has no weight for each feature; name a linear head")
    return Linear.of_head(model)


def predictor_of(
    manifest: Manifest,
    cache: FeatureCache,
    head: SavedHead | str,
    prompts: Mapping[str, Sequence[str]] | None,
    notice: Callable[[str], None] = lambda text: None,
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """The name of a head, and what it makes of features (n, d): codes (n,)."""
    if isinstance(head, SavedHead):
        return str(head.run["head"]), linear(manifest, cache, head).predictor()
    if head == PRETRAINED:
        return head, linear(manifest, cache, head).predictor()
    model = fitted(manifest, cache, head, prompts, notice)
    return head, Linear.of_head(model).predictor() if isinstance(model, LinearHead) and savable(
        model
    ) else model.predict
