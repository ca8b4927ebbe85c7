"""Models: a backbone with a head on its cached features, its classes and its identity; and how models are named.

A model comes from a fit by name (`probe.fit`, as `embedx probe` does it), from a file (`saved.load_model`), from the
cache of a backbone that has a classifier of its own (`pretrained`), or from a recipe of `embedx spuriosity discover`.
Predictions of a linear head come from its numbers as they were fitted and from nothing else: the same bits in any block
size, in any order of classes, before and after it was saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from embedx.data.manifest import Manifest
from embedx.data.status import Status
from embedx.documents import shown
from embedx.errors import HeadError, ProvenanceError, UnknownName
from embedx.evaluation.runs import Run
from embedx.probes import Affine, Head, NotFinite, affine_of, predicted_codes, probabilities
from embedx.store import FeatureCache

PRETRAINED = "pretrained"
"""The head of a model whose classifier came with the backbone, stored beside its features."""
SUFFIX = ".safetensors"
"""How the name of a saved head's file ends."""


@dataclass(frozen=True, order=True)
class ModelName:
    """`BACKBONE[=HEAD]`, as people type it and as commands print it.

    backbone  name of a cache, which holds no "="
    head      name of a head, `pretrained`, a recipe of `discover`, or the path of a saved head, which may hold "=";
              empty: that of the backbone's analysis, see `embedx.spuriosity.models`

    Raises `UnknownName` for a backbone that is none. `ModelName.parse(str(name)) == name`.
    """

    backbone: str
    head: str = ""

    def __post_init__(self) -> None:
        if not self.backbone.strip() or "=" in self.backbone:
            raise UnknownName(
                f"{self.backbone!r} is no backbone of a model; expected BACKBONE or BACKBONE=HEAD, such as "
                "tiny:broad=plain, where BACKBONE is the name of a cache"
            )
        if self.head.endswith(SUFFIX):
            object.__setattr__(self, "head", str(Path(self.head)))  # one name for ./FILE and FILE

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """The name that a text spells: what stands before the first "=" is the backbone. Raises `UnknownName`."""
        backbone, _, head = text.partition("=")
        return cls(backbone, head)

    def __str__(self) -> str:
        return f"{self.backbone}={self.head}" if self.head else self.backbone

    @property
    def file(self) -> Path | None:
        """The file of a saved head; None for a head by name."""
        return Path(self.head) if self.head.endswith(SUFFIX) else None

    @property
    def short(self) -> str:
        """The head in one word, for the names of files: of a saved one the name of its file, without folder and suffix.

        Records of earlier versions call saved heads so.
        """
        return self.head if self.file is None else self.file.stem


@dataclass(frozen=True, eq=False)
class Model:
    """A head on the features of one backbone, as they are cached.

    name      backbone and head
    dataset   it was fitted on
    classes   (k,) names, in the order of the codes and probabilities that it predicts
    outputs   the same names in the order of the head's own outputs
    identity  what decides the backbone's features
    numbers   of a linear head, in the order of `outputs`; None for any other
    fitted    the head as scikit-learn knows it; None for one that was not fitted here. One that is not linear predicts
              with it
    run       the record that it came with; None where there is none, or one of an early version
    """

    name: ModelName
    dataset: str
    classes: tuple[str, ...]
    outputs: tuple[str, ...]
    identity: Mapping[str, Any]
    numbers: Affine | None
    fitted: Head | None = None
    run: Run | None = None

    @classmethod
    def of(cls, head: Head, run: Run, cache: FeatureCache, classes: tuple[str, ...]) -> Model:
        """A head that was fitted on a cache, to the codes of `classes`."""
        name = ModelName(run.backbone, run.head)
        return cls(name, run.dataset, classes, classes, identity_of(cache), affine_of(head), head, run)

    @property
    def dim(self) -> int:
        """Features that a row has."""
        return len(self.numbers.mean) if self.numbers is not None else len(self._crooked.mean_)

    @property
    def linear(self) -> Affine:
        """`numbers`, where there are any. Raises `HeadError` for a head that is not linear."""
        if self.numbers is None:
            raise HeadError(
                f"head {self.name.head!r} is not linear, so it has no weight for each feature; name a linear head, "
                "such as plain"
            )
        return self.numbers

    @property
    def record(self) -> Run:
        """`run`, where there is one. Raises `HeadError`."""
        if self.run is None:
            raise HeadError(
                f"{self.name} has no record of the run that it came from; `embedx probe` and `embedx spuriosity "
                "discover` make heads with one"
            )
        return self.run

    @cached_property
    def codes(self) -> np.ndarray:
        """(k,) the place in `classes` of each of the head's outputs."""
        place = {name: i for i, name in enumerate(self.classes)}
        return np.array([place[name] for name in self.outputs])

    @property
    def affine(self) -> Affine:
        """The numbers of a linear head in the order of `classes`, to fit on from. Raises as `linear`."""
        numbers = self.linear
        if len(numbers.coef) > 1:
            back = np.argsort(self.codes)
            return replace(numbers, coef=numbers.coef[back], intercept=numbers.intercept[back])
        return numbers if self.codes[1] else replace(numbers, coef=-numbers.coef, intercept=-numbers.intercept)

    @cached_property
    def weight(self) -> np.ndarray:
        """(k, d) what one unit of every feature, as it is cached, adds to the logit of every class.

        The one logit of a head for two classes counts half for the second class and half against the first. Raises as
        `linear`.
        """
        return _halves(self.affine.folded[0])

    @cached_property
    def bias(self) -> np.ndarray:
        """(k,) logits where all features are 0. Raises as `linear`."""
        return _halves(self.affine.folded[1])

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) codes of `classes` for features X (n, d). Raises `HeadError` for rows whose features are no numbers."""
        with _told():
            if self.numbers is not None:
                return self.codes[predicted_codes([self.numbers], X)[0]]
            return self.codes[self._crooked.predict(_single(X))]

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """(n, k) probabilities of `classes` for features X (n, d), those of the head's `predict_proba`.

        Raises `HeadError` for rows whose features are no numbers.
        """
        with _told():
            return self._probabilities(X)

    def blocks(self, blocks: Iterable[tuple[np.ndarray, ...]]) -> Iterator[tuple[np.ndarray, ...]]:
        """Blocks of rows, arrays of equal length, as the model takes them: one that is not linear, all rows at once.

        For it was chosen by what it predicts for all of them together; for parts it might round otherwise.
        """
        if self.numbers is None:
            together = list(blocks)
            blocks = [tuple(map(np.concatenate, zip(*together, strict=True)))] if together else []
        yield from blocks

    def apply(self, cache: FeatureCache) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Blocks of (ids (m,), status (m,), probabilities (m, k)) of all rows of a cache, which is checked first.

        Rows that could not be extracted have NaN. Raises `ProvenanceError` as `check` does, and `HeadError` that names
        rows whose features are no numbers.
        """
        self.check(cache)
        parts = ((np.asarray(rows.ids), rows.status, rows.features) for rows in cache.chunks())
        for raw_ids, status, X in self.blocks(parts):
            ids = np.array([i.decode() for i in raw_ids], dtype=object)
            usable, proba = np.flatnonzero(status == Status.OK), np.full((len(ids), len(self.classes)), np.nan)
            try:
                proba[usable] = self._probabilities(X[usable])
            except NotFinite as error:
                names = ", ".join(ids[usable[error.rows[:5]]])
                raise HeadError(
                    f"{cache.path}: the features of {len(error.rows):,} rows of a block give no finite logits "
                    f"({names}); extract these images again"
                ) from error
            yield ids, status, proba

    def check(self, cache: FeatureCache) -> None:
        """Refuse features of another backbone, of other weights or another transform: `ProvenanceError`."""
        expected, actual = dict(self.identity) | {"dim": self.dim}, identity_of(cache) | {"dim": cache.header.dim}
        wrong = [
            f"{key} is {shown(actual.get(key))}, expected {shown(expected.get(key))}"
            for key in sorted({*expected, *actual})
            if actual.get(key) != expected.get(key)
        ]
        if wrong:
            raise ProvenanceError(
                f"{cache.path} does not hold the features that the head was fitted on ({self.name.backbone}): "
                f"{'; '.join(wrong)}; extract the dataset with that backbone, or fit a head on these features"
            )

    def for_manifest(self, manifest: Manifest, cache: FeatureCache) -> Model:
        """The same model with the classes of a manifest, in their order, for the features of a cache.

        Raises `ProvenanceError` as `check` does, and `HeadError` for other classes.
        """
        self.check(cache)
        if set(self.outputs) != set(manifest.classes):
            odd = sorted(set(self.outputs) ^ set(manifest.classes))
            raise HeadError(
                f"{self.name} tells {len(self.outputs):,} classes of {self.dataset}, {manifest.name} has "
                f"{len(manifest.classes):,} ({odd[0]!r} is in one only); fit a head on {manifest.name}"
            )
        return replace(self, classes=manifest.classes)

    @property
    def _crooked(self) -> Head:
        """The fitted head of a model without numbers."""
        assert self.fitted is not None
        return self.fitted

    def _probabilities(self, X: np.ndarray) -> np.ndarray:
        """As `probabilities`; raises `NotFinite`."""
        if self.numbers is not None:
            own = probabilities(self.numbers.logits(X))
        else:
            own = self._crooked.predict_proba(_single(X))
        proba = np.empty_like(own)
        proba[:, self.codes] = own
        return proba


def pretrained(manifest: Manifest, cache: FeatureCache) -> Model:
    """The classifier that came with the backbone. Raises `HeadError` where there is none for as many classes."""
    backbone, extras, k = cache.header.backbone, cache.extras, len(manifest.classes)
    if "head/weight" not in extras:
        raise HeadError(f"{backbone} has no classifier of its own in {cache.path}; name a head, such as plain")
    weight, bias = extras["head/weight"], extras.get("head/bias")
    if len(weight) != k:
        raise HeadError(
            f"the classifier of {backbone} tells {len(weight):,} classes, {manifest.name} has {k:,}; "
            "it answers only on the classes it was trained on, in their order; name a head, such as plain"
        )
    bias, expected = np.zeros(k) if bias is None else bias, ((k, cache.header.dim), (k,))
    if (weight.shape, bias.shape) != expected or not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise HeadError(
            f"the classifier in {cache.path} has weights {weight.shape} and a bias {bias.shape}, or some are not "
            f"finite; expected finite {expected[0]} and {expected[1]}: name a head, such as plain"
        )
    if k == 2:  # of two rows only the difference counts, which is how heads keep two classes
        weight, bias = (part[1:].astype(np.float64) - part[:1] for part in (weight, bias))
    name, classes = ModelName(backbone, PRETRAINED), manifest.classes
    return Model(name, manifest.name, classes, classes, identity_of(cache), Affine.plain(weight, bias))


def identity_of(cache: FeatureCache) -> dict[str, Any]:
    """What decides a backbone's features; the version of the dataset does not."""
    return {key: value for key, value in cache.header.identity.items() if key != "dataset_version"}


def _single(X: np.ndarray) -> np.ndarray:
    """Features in the precision in which heads are fitted."""
    return X.astype(np.float32, copy=False)


def _halves(of_one: np.ndarray) -> np.ndarray:
    return np.concatenate([-of_one, of_one]) / 2 if len(of_one) == 1 else of_one


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except NotFinite as error:
        raise HeadError(str(error)) from error
