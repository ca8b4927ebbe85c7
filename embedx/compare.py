"""Fit, choose, report: one head on one split, and every head on every backbone."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embedx import plugins, runs
from embedx.errors import CacheError, HeadError
from embedx.home import Home, slug
from embedx.manifest import Manifest
from embedx.metrics import evaluate
from embedx.runs import Run
from embedx.select import choose, rule_named
from embedx.split import Split, join
from embedx.store import FeatureCache
from probes._machinery import GRID, LinearHead

STANDARD = ("plain", "class-balanced", "reweighted", "group-balanced")


def load_head(name: str) -> type[LinearHead]:
    """The class of a head: in `probes/group_balanced.py` that is `GroupBalanced`. Raises `UnknownName`."""
    module = plugins.load(plugins.HEADS, name)
    stem = name.removeprefix(plugins.OUTSIDE).rpartition(".")[2]
    title = "".join(part.capitalize() for part in stem.replace("-", "_").split("_"))
    head = getattr(module, title, None)
    if not (inspect.isclass(head) and issubclass(head, LinearHead)):
        raise HeadError(
            f"head {name!r}: {module.__name__} holds no LinearHead named {title}; a head is named for its file"
        )
    return head


def check(head: str, kind: type[LinearHead], split: Split) -> None:
    """Refuse a head whose needs the data do not meet, before any work: `HeadError`."""
    if "groups" in kind.needs and not split.has_groups:
        raise HeadError(
            f"head {head!r} needs groups, and {split.dataset} has no attribute that forms any; "
            "add a column to manifest.csv and name it under `grouping` in manifest.json, or use plain or class-balanced"
        )


def default_rule(kind: type[LinearHead]) -> str:
    """Choose by what the head knows anyway: by the worst group where it needs groups, else by the average."""
    return "worst-group" if "groups" in kind.needs else "average"


def probe(
    split: Split,
    head: str,
    *,
    rule: str | None = None,
    seed: int = 0,
    parameters: Mapping[str, Any] | None = None,
    grid: Sequence[float] = GRID,
) -> Run:
    """Fit `head` on train for every C of the grid, choose one on validation, report it on test.

    rule  name of the selection rule; by default `default_rule`
    Raises `UnknownName`, `HeadError` or `SplitError` before fitting, `HeadError` when fitting fails.
    """
    kind = load_head(head)
    check(head, kind, split)
    chooser = rule_named(rule or default_rule(kind), split)
    began = time.perf_counter()
    Cs = sorted(grid)
    groups = {"groups": split.train.groups} if "groups" in kind.needs else {}
    try:
        heads = kind(random_state=seed, **(parameters or {})).path(split.train.X, split.train.y, Cs, **groups)
    except ValueError as error:
        raise HeadError(f"head {head!r} on {split.backbone}: {error}") from error
    shares = np.bincount(split.train.groups, minlength=len(split.group_names)) / len(split.train)
    best, scores = choose(chooser, [h.predict(split.val.X) for h in heads], split.val, shares, split.train)
    fitted = time.perf_counter()
    metrics = evaluate(
        split.test.y, heads[best].predict_proba(split.test.X), split.test.groups, classes=split.classes,
        group_names=split.group_names, group_labels=split.group_labels, train_shares=shares, seed=seed,
    )  # fmt: skip
    used = [kind.supervision] * (kind.supervision != "none")
    used += ["group labels on validation, to choose"] * chooser.uses_groups
    return Run(
        dataset=split.dataset, backbone=split.backbone, dim=split.train.X.shape[1], head=head,
        parameters=heads[best].get_params(), selection=chooser.name, validation_score=scores[best],
        supervision="; ".join(used) or "none", configurations=len(heads), converged=bool(heads[best].converged_),
        seed=seed, rows={"train": len(split.train), "val": len(split.val), "test": len(split.test)},
        left_out=split.left_out, inputs=dict(split.facts), versions=runs.versions(),
        timings={"fit": fitted - began, "evaluate": time.perf_counter() - fitted}, metrics=metrics,
    )  # fmt: skip


def open_cache(home: Home, manifest: Manifest, backbone: str) -> FeatureCache:
    """One backbone's features. Raises `CacheError` that names the cached backbones when there are none of this one."""
    cached = home.backbones(manifest.name)
    if slug(backbone) not in cached:
        raise CacheError(
            f"{manifest.name} has no features of {backbone!r}: {plugins.nearest(slug(backbone), cached)}; "
            f"make them with `embedx extract {manifest.name} -b {backbone}`"
        )
    cache = FeatureCache.open_complete(home.cache(manifest.name, backbone))
    if slug(cache.header.backbone) != slug(backbone):
        raise CacheError(
            f"{cache.path} holds features of {cache.header.backbone!r}, not of {backbone!r}: the file was renamed or "
            f"copied; call it {slug(cache.header.backbone)}.h5 again"
        )
    return cache


def compare(
    home: Home,
    manifest: Manifest,
    backbones: Sequence[str],
    heads: Sequence[str],
    *,
    rule: str | None = None,
    seeds: int = 1,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> list[Run]:
    """Every head on every backbone; heads that draw rows once per seed, the others once.

    Everything that can be refused is refused before the first fit.
    """
    kinds = {head: load_head(head) for head in heads}
    opened = [open_cache(home, manifest, backbone) for backbone in backbones]
    caches = {cache.header.backbone: cache for cache in opened}  # once each, however often it was named
    for cache in caches.values():
        outline = join(manifest, cache, features=False)
        for head, kind in kinds.items():
            check(head, kind, outline)
            rule_named(rule or default_rule(kind), outline)
    plan = [(b, h, s) for b in caches for h in kinds for s in range(seeds if kinds[h].random else 1)]
    results: list[Run] = []
    split = None
    for done, (backbone, head, seed) in enumerate(plan):
        progress(done, len(plan), f"{backbone}  {head}")
        if split is None or split.backbone != backbone:
            split = join(manifest, caches[backbone])
        results.append(probe(split, head, rule=rule, seed=seed))
    progress(len(plan), len(plan), "")
    return results


def standard_heads(manifest: Manifest) -> tuple[str, ...]:
    """The heads that `compare` runs by default: all the standard ones that the data can feed."""
    return tuple(h for h in STANDARD if manifest.groups is not None or "groups" not in load_head(h).needs)
