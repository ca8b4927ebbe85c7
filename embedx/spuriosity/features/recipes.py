"""Heads to discover features with, by name, and their weights on features that are not standardised.

pretrained  the classification head that the backbone was published with, as its cache stores it; nothing is fitted
convex      the plain head, its strength chosen on validation, as `embedx probe` does: no seed changes it
paper       Adam, learning rate 0.1, L2 penalty 0.003, 20 epochs on raw features (Moayeri et al. 2023, appendix E.1)
code        momentum 0.9, learning rate 0.01, no penalty, 20 epochs on raw features, as the paper's code does

The paper leaves the batch open; both take 128 rows, as the code does. Both keep the last epoch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state

from embedx import plugins
from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import UnknownName
from embedx.evaluation import runs
from embedx.evaluation.evaluate import Evaluator
from embedx.evaluation.head_spec import HeadSpec, check
from embedx.evaluation.metrics import evaluate
from embedx.evaluation.model import PRETRAINED, Model, pretrained
from embedx.evaluation.runs import Run
from embedx.evaluation.split import join, outline
from embedx.probes import Data, Fit, FitError, LinearHead
from embedx.probes.plain import Plain
from embedx.spuriosity.features.activations import Progress, silent, stream
from embedx.store import FeatureCache

if TYPE_CHECKING:
    import torch

BATCH, EPOCHS = 128, 20


class Descent(LinearHead):
    """A softmax layer after a fixed number of epochs of a named optimiser; torch's initial weights, drawn by seed.

    The loss is the mean cross-entropy of a batch. Two classes are two rows of weights that are fitted, and kept as
    their difference, which is all that a prediction depends on.
    """

    random = True
    optimiser: ClassVar[str]
    settings: ClassVar[Mapping[str, float]]

    def __init__(self, standardize: bool = False, random_state: int | None = None) -> None:
        super().__init__(standardize=standardize, random_state=random_state)

    def _fits(self, data: Data, variants: Sequence[Any]) -> list[Fit]:
        return [v._descend(data) for v in variants]

    def _descend(self, data: Data) -> Fit:
        import torch

        seed = int(check_random_state(self.random_state).randint(2**31))
        draw, d = torch.Generator().manual_seed(seed), data.features.d
        y, bound = torch.from_numpy(data.y), d**-0.5
        W, b = (
            torch.empty(shape, dtype=data.features.dtype).uniform_(-bound, bound, generator=draw).requires_grad_()
            for shape in ((data.k, d), (data.k,))
        )
        steps: torch.optim.Optimizer = getattr(torch.optim, self.optimiser)([W, b], **self.settings)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(y), generator=draw).split(BATCH):
                steps.zero_grad()
                logits = torch.nn.functional.linear(data.features.take(rows.numpy()), W, b)
                torch.nn.functional.cross_entropy(logits, y[rows]).backward()
                steps.step()
        coef, intercept = (x.detach().double().numpy() for x in (W, b))
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise FitError("the weights grew beyond all bounds; features this large need the recipe convex")
        return Fit(True, *_one_row(coef, intercept))  # it ends after its epochs, whatever the gradient


class Paper(Descent):
    """The recipe of the paper. Its L2 penalty is part of the gradient that Adam scales, as torch does it."""

    optimiser = "Adam"
    settings: ClassVar[Mapping[str, float]] = {"lr": 0.1, "weight_decay": 0.003}


class Code(Descent):
    """The recipe of the paper's code."""

    optimiser = "SGD"
    settings: ClassVar[Mapping[str, float]] = {"lr": 0.01, "momentum": 0.9}


FITTED: Mapping[str, type[LinearHead]] = {"convex": Plain, "paper": Paper, "code": Code}
RECIPES = (PRETRAINED, *FITTED)


def fit(
    manifest: Manifest, cache: FeatureCache, wanted: Mapping[str, Sequence[int]], progress: Progress = silent
) -> list[Model]:
    """The models of some recipes for some seeds each; a recipe that draws nothing is there once.

    Every class of the manifest has its weights; the head is named for its recipe.

    Raises `UnknownName`, `HeadError` when there is no pretrained head or a fit fails, `SplitError` when a class has no
    training or test row.
    """
    for name in wanted:
        if name not in RECIPES:
            raise UnknownName(f"unknown recipe {name!r}: {plugins.nearest(name, RECIPES)}")
    models: list[Model] = []
    bench: Evaluator | None = None
    for done, (name, seeds) in enumerate(wanted.items()):
        progress(done, len(wanted), name)
        if name == PRETRAINED:
            models.append(_pretrained(manifest, cache, progress))
            continue
        bench = bench or Evaluator(join(replace(manifest, grouping=()), cache))  # groups are not used
        entry = HeadSpec(name, FITTED[name], "average")
        check(entry, bench.split)
        made = bench.runs_and_heads(entry, seeds if entry.repeats else seeds[:1])
        models += [Model.of(head, run, cache, manifest.classes) for run, head in made]
    return models


def _pretrained(manifest: Manifest, cache: FeatureCache, progress: Progress) -> Model:
    """The stored head, judged on the test rows; they and the validation rows are read in blocks."""
    began, h = time.perf_counter(), cache.header
    stored, split = pretrained(manifest, cache), outline(manifest, cache).split
    right = [stored.predict(X) == manifest.labels[rows] for rows, X in stream(manifest, cache, _of(manifest, "val"))]
    test = stream(manifest, cache, _of(manifest, "test"), progress)
    proba = np.concatenate([stored.probabilities(X) for _, X in test])
    shares = np.bincount(split.train.groups, minlength=len(split.group_names)) / len(split.train)
    metrics = evaluate(
        split.test.y, proba, split.test.groups, classes=split.classes, group_names=split.group_names,
        group_labels=split.group_labels, train_shares=shares, clusters=split.test.repeated,
    )  # fmt: skip
    order = np.argsort(split.test.groups, kind="stable")
    hits = (proba.argmax(axis=1) == split.test.y)[order]
    run = Run(
        dataset=manifest.name, backbone=h.backbone, dim=h.dim, head=PRETRAINED, parameters={}, selection="none",
        validation_score=float(np.concatenate(right).mean()), supervision=(), configurations=0, converged=True,
        seed=0, rows={"train": 0, "val": len(split.val), "test": len(split.test)}, left_out=split.left_out,
        inputs=dict(split.facts), versions=runs.versions(), metrics=metrics, correct=runs.pack(hits),
        timings={"fit": 0.0, "evaluate": time.perf_counter() - began}, cluster=split.cluster, subjects=split.subjects,
        clusters="" if split.test.repeated is None else runs.pack_codes(split.test.repeated[order]),
        protocol="as published with the backbone; nothing was fitted",
    )  # fmt: skip
    return replace(stored, run=run)


def _of(manifest: Manifest, split: str) -> np.ndarray:
    return manifest.splits == SPLITS.index(split)


def _one_row(W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of two rows their difference: how heads keep two classes."""
    return (W[1:] - W[:1], b[1:] - b[:1]) if len(W) == 2 else (W, b)
