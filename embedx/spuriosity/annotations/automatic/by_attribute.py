"""By known attributes: a feature that tells an attribute among the images of one class looks at something else.

Within class c, for feature i and value v of an attribute: the chance that a row with v has a larger r_i than a row
without (AUROC; ties count half), and the one-sided p-value of Mann and Whitney's test that it is above one half, which
counts subjects where the manifest names them (`statistics.mann_whitney`). All p-values of an analysis are adjusted
together (Benjamini and Hochberg). Spurious: adjusted p <= alpha, AUROC >= threshold, and v goes with the class: a
larger share of its training rows has v than of the other classes'. So a feature that is strong where the cue of the
class is absent is not taken for a cue. The cue is the value that is told best. Everything else is unsure: that a
feature does not tell the known attributes says nothing of the others.

Attributes must be other than what the label means. The rows are those of training, so this uses attributes there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import SpuriosityError
from embedx.plugins import nearest
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.annotations.automatic import annotation
from embedx.spuriosity.features.activations import Progress, columns, silent, table
from embedx.spuriosity.records.discovery import Discovery
from embedx.statistics import benjamini_hochberg, mann_whitney
from embedx.store import FeatureCache

SOURCE = "auto:attribute"
THRESHOLD, ALPHA = 0.75, 0.05
LEAST = 5
"""Rows with and rows without a value that a test needs."""


@dataclass(frozen=True)
class Told:
    """One feature against one value of an attribute, among the rows of a class: `n` with the value, `others` without.

    adjusted   p, corrected over all tests of the analysis
    elsewhere  share of the rows of other classes with the value; in the class it is n / (n + others)
    """

    attribute: str
    value: str
    auroc: float
    p: float
    adjusted: float
    n: int
    others: int
    elsewhere: float

    @property
    def goes_with_class(self) -> bool:
        """Whether a larger share of the class has the value than of the other classes."""
        return self.n / (self.n + self.others) > self.elsewhere


def by_attribute(
    manifest: Manifest,
    cache: FeatureCache,
    discovery: Discovery,
    attributes: Sequence[str] | None = None,
    *,
    threshold: float = THRESHOLD,
    alpha: float = ALPHA,
    progress: Progress = silent,
) -> tuple[Annotation, ...]:
    """One annotation for every candidate of the discovery.

    attributes  those to look for, by default all of the manifest
    threshold   least AUROC of a feature that is called spurious
    Raises `SpuriosityError` where there is no attribute, none of that name, or no class with enough rows to test, and
    `ProvenanceError` for a cache of other weights.
    """
    discovery.check(cache)
    names = _names(manifest, attributes)
    train = manifest.splits == SPLITS.index("train")
    listed = [[c.feature for c in discovery.of[k]] for k in range(len(manifest.classes))]
    values = columns(manifest, cache, table(listed), train, progress)
    tests = _tests(manifest, values, listed, names)
    annotations: list[Annotation] = []
    for label, features in enumerate(listed):
        for j, candidate in enumerate(discovery.of[label][: len(features)]):
            of_feature = tests[label][j]
            told = [t for t in of_feature if t.adjusted <= alpha and t.auroc >= threshold and t.goes_with_class]
            best = max(told, key=lambda t: t.auroc, default=None)
            evidence = {"threshold": threshold, "alpha": alpha, "tests": [asdict(t) for t in of_feature]}
            verdict, cue = ("unsure", "") if best is None else ("spurious", f"{best.attribute}: {best.value}")
            annotations.append(annotation(discovery, candidate, verdict, SOURCE, evidence, cue))
    return tuple(annotations)


def nearest_miss(annotations: Sequence[Annotation], threshold: float, shown: int = 3) -> str:
    """What is to be said where no feature is called spurious: what it takes, and the features that came nearest."""
    tests = [(t, a) for a in annotations for t in a.evidence["attribute"]["tests"]]
    of_class = [(t, a) for t, a in tests if t["n"] / (t["n"] + t["others"]) > t["elsewhere"]]
    best: dict[tuple[int, int | None], str] = {}
    for t, a in sorted(of_class, key=lambda pair: -pair[0]["auroc"]):
        told = f"{t['attribute']}: {t['value']}, AUROC {t['auroc']:.3f}, adjusted p {t['adjusted']:.2g}"
        best.setdefault((a.class_index, a.feature), f"feature {a.feature} of {a.class_name} ({told})")
    nearest = "; ".join(list(best.values())[:shown])
    return (
        f"note: no feature tells an attribute that goes with its class with an AUROC of {threshold:g} and an adjusted "
        f"p of {ALPHA:g}, so none is called spurious; "
        + (f"nearest: {nearest}; --threshold takes another AUROC" if nearest else "no attribute goes with a class")
    )


def _names(manifest: Manifest, attributes: Sequence[str] | None) -> tuple[str, ...]:
    """The attributes to look for."""
    if not manifest.codes:
        raise SpuriosityError(
            f"{manifest.name} has no attribute; add a column to manifest.csv, or annotate by text, by masks or by hand"
        )
    names = tuple(manifest.codes) if attributes is None else tuple(attributes)
    if unknown := [a for a in names if a not in manifest.codes]:
        raise SpuriosityError(f"{manifest.name} has no attribute {unknown[0]!r}; {nearest(unknown[0], manifest.codes)}")
    return names


def _tests(
    manifest: Manifest, values: np.ndarray, listed: Sequence[Sequence[int]], names: Sequence[str]
) -> list[list[list[Told]]]:
    """By class and place in its list of features: a test for each value that enough of its rows have and lack.

    values  (n, m) features of the training rows, those of the row's class, NaN for other rows
    """
    train = manifest.splits == SPLITS.index("train")
    usable = train & np.isfinite(values).any(axis=1)
    places: list[tuple[int, str, int]] = []
    told: list[tuple[np.ndarray, np.ndarray, int, int]] = []
    for label, features in enumerate(listed):
        rows = np.flatnonzero(usable & (manifest.labels == label))
        X = values[rows, : len(features)]
        clusters = None if manifest.subjects is None else manifest.subjects.codes[rows]
        for name in names:
            codes = manifest.codes[name][rows]
            for v in range(len(manifest.values[name])):
                having = codes == v
                n = int(np.count_nonzero(having))
                if features and min(n, len(rows) - n) >= LEAST:
                    places.append((label, name, v))
                    told.append((*mann_whitney(having, X, clusters), n, len(rows) - n))
    if not told:
        raise SpuriosityError(
            f"no class of {manifest.name} has {LEAST} training rows with and {LEAST} without any value of "
            f"{', '.join(names)}, so nothing can be told; name other attributes, or annotate by hand"
        )
    ends = np.cumsum([len(p) for _, p, _, _ in told])[:-1]
    adjusted = np.split(benjamini_hochberg(np.concatenate([p for _, p, _, _ in told])), ends)
    tests: list[list[list[Told]]] = [[[] for _ in features] for features in listed]
    for (label, name, v), (auroc, p, n, others), q in zip(places, told, adjusted, strict=True):
        elsewhere = manifest.codes[name][train & (manifest.labels != label)] == v
        rest = float(elsewhere.mean()) if len(elsewhere) else 0.0
        for j in range(len(p)):
            test = Told(name, manifest.values[name][v], float(auroc[j]), float(p[j]), float(q[j]), n, others, rest)
            tests[label][j].append(test)
    return tests
