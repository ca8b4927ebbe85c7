"""By words: cue phrases through an image-text backbone; which of them does a model lean on, and in which class?

For a row x of class c in the space of the text, u(x), t_j and n_c of length 1 (image, phrase j, name of the class):

    s_j(x) = u(x) . (t_j - (t_j . n_c) n_c)

the similarity to the phrase with the direction of the class name taken out, or "water" would find the best otters
instead of the wet ones. A phrase is a cue of c for a model where the accuracy on the k rows of the largest s_j, minus
that on the k of the smallest, is above zero beyond chance: p by all orders of the class's rows (exact,
`statistics.random_ranking`; where subjects have several of them, by `measures.clustered`), adjusted over all phrases
and classes together (Benjamini and Hochberg). Cues of a class whose order is nearly the same (Spearman's correlation of
s_j over the class's rows) are one cue, under the phrase with the largest gap. Phrases without a gap are no cues; a gap
below zero is kept apart: there the cue belongs to another class. Beside each phrase stand random directions of the same
space; where the model shares it, a phrase whose gap they reach as well is no cue. All that was tested is kept.

The gap decides on the split that the model answered, validation: report the gap of the ranking on another, test.

A cue in words is no feature: its annotations have feature null, the phrase as `cue`, the identity of the image-text
backbone, and templates and figures in the evidence. They have rankings of their own, made here, and their own file.
After Moayeri et al., "Spuriosity Rankings", NeurIPS 2023, appendix G, which gives no procedure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from embedx.data.manifest import Manifest
from embedx.errors import BackboneError, SpuriosityError
from embedx.extract import prompts as prompting
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.annotations.automatic.directions import Control
from embedx.spuriosity.annotations.automatic.words import Words, similar
from embedx.spuriosity.features.activations import Progress, silent, stream
from embedx.spuriosity.measures.clustered import ClusteredGap
from embedx.spuriosity.measures.gaps import K
from embedx.spuriosity.measures.predictions import Predictions
from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.spuriosity.measures.scores import rank_by_scores
from embedx.spuriosity.records.ranking import Ranking
from embedx.statistics import Interval, benjamini_hochberg, difference, proportion, random_ranking, rank_correlations
from embedx.store import FeatureCache
from embedx.workspace import Workspace

SOURCE = "auto:text"
FILE = "text-cues.jsonl"
NAME = "text:"
CUE, CLASS = ("a photo with {}",), ("a photo of a {}",)
"""Templates of cue phrases and of class names; the vector of several is the mean of their unit vectors."""
ALPHA, ALIKE = 0.05, 0.9
SYNSET = re.compile(r"^n\d{8}(\s+|$)")


@dataclass(frozen=True)
class Cue:
    """One phrase in one class, for one model.

    n, k      rows of the class that the model answered, and how many at each end
    gap       accuracy on the k rows most like the phrase minus that on the k least like it
    p         chance of one as far from 0 in a random order; adjusted: over all phrases and classes
    verdict   "cue", "same as another" (then `of` is the other phrase), "no gap", "reversed", a gap below zero, or "as
              random directions", in the space of the model
    merged    other phrases that this one stands for
    among     chance of a gap as far from 0 of a random direction; None where none were drawn
    without   the gap without the head's own direction, where the model shares the space; None elsewhere, and where
              nothing is left of the phrase
    """

    label: int
    class_name: str
    phrase: str
    n: int
    k: int
    gap: Interval
    p: float
    adjusted: float
    verdict: str
    of: str = ""
    merged: tuple[str, ...] = ()
    among: float | None = None
    without: Interval | None = None


def words(
    workspace: Workspace,
    manifest: Manifest,
    cache: FeatureCache,
    phrases: Sequence[str],
    templates: Sequence[str] = CUE,
    class_templates: Sequence[str] = CLASS,
) -> Words:
    """The vectors of phrases and class names by the text tower of the cache's backbone; see `prompting`.

    Raises `SpuriosityError` for phrases or templates that cannot be used, `BackboneError` for a backbone without text.
    """
    phrases = tuple(dict.fromkeys(p.strip() for p in phrases if p.strip()))
    if not phrases:
        raise SpuriosityError("there are no cue phrases; write some, one a line, such as: water")
    for template in (*templates, *class_templates):
        if template.count("{}") != 1:
            raise SpuriosityError(f"the template {template!r} has no single {{}}, expected one place for the phrase")
    asked = {label: [t.format(spoken(label)) for t in class_templates] for label in manifest.classes}
    names = prompting.class_prompts(workspace, manifest, cache, asked)
    name, spec = cache.header.backbone, str(cache.header.provenance.get("spec", cache.header.backbone))
    prompts = [t.format(p) for p in phrases for t in templates]
    vectors = prompting.text_features(workspace, spec if name == spec else f"{name}={spec}", prompts)
    means = _unit(vectors).reshape(len(phrases), len(templates), -1).mean(axis=1)
    return Words(phrases, _unit(means), _unit(names.text), names.projection, tuple(templates), tuple(class_templates))


def similarity(manifest: Manifest, cache: FeatureCache, words: Words, progress: Progress = silent) -> np.ndarray:
    """(n, t) float32: s_j of every row; NaN for a row that is not ok, and where a phrase is the name of the class."""
    similarities = np.full((len(manifest), len(words.phrases)), np.nan, dtype=np.float32)
    for rows, X in stream(manifest, cache, None, progress):
        similarities[rows] = similar(X, manifest.labels[rows], words, words.cues)
    return similarities


def scan(
    manifest: Manifest,
    values: np.ndarray,
    words: Words,
    answers: Predictions,
    *,
    k: float = K,
    alpha: float = ALPHA,
    alike: float = ALIKE,
    control: Control | None = None,
) -> tuple[Cue, ...]:
    """Every phrase in every class, by `similarity` values (n, t) and the answers of a model on one split.

    control  random directions to set the phrases beside; where the model shares their space, p is the larger of that
             by a random order and that of a random direction

    Raises `SpuriosityError` where no phrase can be ordered in any class, `SplitError` for answers of other rows.
    """
    every = range(len(manifest.classes))
    tests = _every_gap(manifest, values, words, answers, k)
    if not tests:
        raise SpuriosityError("no phrase is anything but the name of a class; write cues, not classes")
    by_order = adjusted = benjamini_hochberg([c.p for c in tests])
    if control is not None:
        tests = [replace(c, among=control.p_value(c.label, c.gap.value)) for c in tests]
    if control is not None and control.without is not None:
        left = {(c.label, c.phrase): c.gap for c in _every_gap(manifest, control.without, words, answers, k)}
        tests = [replace(c, without=left.get((c.label, c.phrase))) for c in tests]
        adjusted = benjamini_hochberg([max(c.p, c.among or 0.0) for c in tests])
    judged = [
        replace(c, adjusted=float(q), verdict=_verdict(c, q, p, alpha))
        for c, q, p in zip(tests, adjusted, by_order, strict=True)
    ]
    cues: list[Cue] = []
    for label in every:
        cues += _merged(manifest, values, words, [c for c in judged if c.label == label], alike)
    return tuple(cues)


def annotated(
    manifest: Manifest,
    cache: FeatureCache,
    words: Words,
    cues: Sequence[Cue],
    answers: Predictions,
    control: Control | None = None,
) -> tuple[Annotation, ...]:
    """All that `scan` tested, with what it follows from: cues are spurious, the label of everything else is unsure."""
    facts = {
        "model": answers.model, "split": answers.split, "tests": len(cues), "templates": list(words.templates),
        "class_templates": list(words.class_templates),
        "control": None if control is None else {"tests": control.tests, "beyond": control.beyond},
    }  # fmt: skip
    annotations: list[Annotation] = []
    for c in cues:
        evidence = {
            **facts, "prompts": [t.format(c.phrase) for t in words.templates],
            "class_prompts": [t.format(spoken(c.class_name)) for t in words.class_templates],
            "n": c.n, "k": c.k, "gap": asdict(c.gap), "p": c.p, "adjusted": c.adjusted, "among": c.among,
            "merged": list(c.merged), "verdict": c.verdict, "of": c.of, "without": c.without and asdict(c.without),
        }  # fmt: skip
        annotations.append(Annotation(
            dataset=manifest.name, backbone=cache.header.backbone, weights=str(cache.header.identity["weights"]),
            class_index=c.label, class_name=c.class_name, feature=None, source=SOURCE, cue=c.phrase,
            label="spurious" if c.verdict == "cue" else "unsure", evidence={"text": evidence},
        ))  # fmt: skip
    return tuple(annotations)


def ranking(
    manifest: Manifest, cache: FeatureCache, words: Words, values: np.ndarray, cues: Mapping[int, Sequence[str]]
) -> Ranking:
    """The rows of every class by the phrases that are its cues, {class: phrases}, by `similarity` values (n, t)."""
    at = {phrase: j for j, phrase in enumerate(words.phrases)}
    mine = np.full((len(manifest), max(map(len, cues.values()), default=0)), np.nan)
    for label, phrases in cues.items():
        rows = np.flatnonzero(manifest.labels == label)
        mine[rows, : len(phrases)] = values[rows][:, [at[p] for p in phrases]]
    if not mine.size:
        raise SpuriosityError("no class has a cue in words, so there is nothing to rank by; try other phrases")
    weights = str(cache.header.identity["weights"])
    return rank_by_scores(
        manifest, mine, backbone=NAME + cache.header.backbone, weights=weights, cues=cues, sources=["auto:text"]
    )


def spoken(class_name: str) -> str:
    """A class as one says it: `n02281406 sulphur butterfly` is a sulphur butterfly, `fire_truck` a fire truck."""
    return SYNSET.sub("", class_name).replace("_", " ").strip() or class_name


def _every_gap(manifest: Manifest, values: np.ndarray, words: Words, answers: Predictions, k: float) -> list[Cue]:
    """Every phrase in every class that it orders, not judged yet."""
    every, tests = range(len(manifest.classes)), []
    for j, phrase in enumerate(words.phrases):
        if np.isfinite(values[:, j]).any():
            by = rank_by_scores(
                manifest, values[:, [j]], backbone=NAME, weights="", cues=dict.fromkeys(every, (phrase,))
            )
            tests += _gaps(manifest, RankedRows.of(by, [answers]), phrase, k)
    return tests


def _gaps(manifest: Manifest, order: RankedRows, phrase: str, k: float) -> list[Cue]:
    """One phrase in every class that it orders."""
    sides = order.places(k)
    high, low = (side[0] for side in order.tails(sides))
    tests: list[Cue] = []
    for c, label in enumerate(order.labels.tolist()):
        m, n, right = int(sides[c]), int(order.sizes[c]), int(order.totals[0, c])
        top, bottom = (proportion(int(side[c]), m) for side in (high, low))
        if order.clusters is not None and order.clustered(c):
            one = ClusteredGap(order, order.clusters, sides, np.eye(len(sides))[c] / m)
            gap = one.ends()[2]
            p = one.null().p(gap.value)
        else:
            gap, p = difference(top, bottom), random_ranking(n, right, m).p_value(int(high[c] - low[c]))
        tests.append(Cue(label, manifest.classes[label], phrase, n, m, gap, p, p, "no gap"))
    return tests


def _verdict(cue: Cue, adjusted: float, by_order: float, alpha: float) -> str:
    if adjusted > alpha:
        return "no gap" if by_order > alpha else "as random directions"
    return "cue" if cue.gap.value > 0 else "reversed"


def _merged(manifest: Manifest, values: np.ndarray, words: Words, cues: Sequence[Cue], alike: float) -> list[Cue]:
    """The same cues of one class, the largest gap first; of those that order the class alike, one stays a cue."""
    cues = sorted(cues, key=lambda c: (-c.gap.value, c.p))
    kept = [c for c in cues if c.verdict == "cue"]
    if len(kept) < 2:
        return cues
    X = values[manifest.labels == kept[0].label][:, [words.phrases.index(c.phrase) for c in kept]]
    R = rank_correlations(X[np.isfinite(X).all(axis=1)])
    of: dict[int, int] = {}
    for j in range(len(kept)):
        first = next((i for i in range(j) if i not in of and R[i, j] >= alike), None)
        if first is not None:
            of[j] = first
    merged = {kept[i].phrase: tuple(kept[j].phrase for j in of if of[j] == i) for i in set(of.values())}
    same = {kept[j].phrase: kept[i].phrase for j, i in of.items()}
    return [
        replace(c, verdict="same as another", of=same[c.phrase])
        if c.verdict == "cue" and c.phrase in same
        else replace(c, merged=merged.get(c.phrase, ()))
        for c in cues
    ]


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not norms.all():
        raise BackboneError("the text tower gives a vector of zeros; compute the prompts again")
    return vectors.astype(np.float64) / norms
