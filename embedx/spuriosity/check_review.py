"""Whether a review finds what is labelled wrongly, by a table of the labels that images really have.

What counts, and which orders are set beside each other, says `measures.label_noise`. Probabilities: the review's own
order takes those of its model, on train too, where the model was fitted: that order is what a user gets. Confident
learning asks for probabilities of rows that no model saw: on val and test it takes the model's own as well (a model
that was fitted on val, as `dfr` is, saw these), on train those of a cross-validated plain head
(`features.held_out`); where the training rows are too many for that, it says nothing of them. Its thresholds are of all
rows of these splits, whether or not their real labels are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import SpuriosityError
from embedx.evaluation.model import Model, ModelName
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.features.activations import Progress, silent, stream
from embedx.spuriosity.features.held_out import affordable, cross_validated
from embedx.spuriosity.measures import label_noise
from embedx.spuriosity.measures.confident_learning import suspicion
from embedx.spuriosity.measures.label_noise import Group, ScoredRows
from embedx.spuriosity.real_labels.table import RealLabels
from embedx.spuriosity.records import review_check
from embedx.spuriosity.records.flags import NEGATIVE, SURE, Flag
from embedx.spuriosity.records.gaps import Measured
from embedx.spuriosity.records.ranking import Ranking
from embedx.spuriosity.records.review_check import FOLDS, HEAD, ReviewCheck
from embedx.spuriosity.review import ReviewSettings, end, gallery, suspects
from embedx.store import FeatureCache

TRAIN = SPLITS.index("train")


def check_review(
    analysis: Analysis,
    flags: Sequence[Flag],
    real: RealLabels,
    model: str | ModelName = "",
    settings: ReviewSettings | None = None,
    *,
    progress: Progress = silent,
) -> ReviewCheck:
    """Judge what `review` has just listed with the same model and settings; write review-check.json and review.html.

    flags  that it returned; real: from `read_real_labels`
    Raises `SpuriosityError` for a table that knows no row of these splits, and as `review` does.
    """
    settings = settings or ReviewSettings()
    folder, manifest, ranking = analysis.folder, analysis.manifest, analysis.ranking()
    measured = Measured.load(folder)
    measured.check(ranking, folder)
    (name,) = analysis.names([model] if model else [])
    gaps, _ = measured.of(name)
    splits = checked_splits(real, manifest, settings.splits)
    at = _asked(analysis.cache_of(name.backbone), manifest, analysis.model(name), splits, progress)
    scored, places = _scored(manifest, ranking, at, flags, real, suspects(gaps, settings))
    low = end(ranking, gaps.k, most=False) & np.isin(manifest.labels, suspects(gaps, settings))
    listed, inside = real.listed, np.isin(manifest.splits, [SPLITS.index(s) for s in splits])
    there = np.zeros(len(manifest), dtype=bool)
    there[at.rows] = True
    check = ReviewCheck(
        manifest.name, analysis.backbone, str(name), review_check.digest(folder), real.file, real.sha256, real.form,
        splits, at.source, len(places), int((inside & listed & ~real.known).sum()), int((inside & ~listed).sum()),
        int((inside & real.known & ~there).sum()), label_noise.parts(scored),
        label_noise.classes(scored, manifest.classes), _groups(scored, places, manifest, flags, low),
    )  # fmt: skip
    review_check.save(folder, check, analysis.notice)
    gallery(folder, flags, manifest.name, analysis.backbone, check)
    return check


def checked_splits(real: RealLabels, manifest: Manifest, wanted: Sequence[str]) -> tuple[str, ...]:
    """Those of the splits of which a table knows rows. Raises `SpuriosityError` for none."""
    known = {s: int(real.known[manifest.splits == code].sum()) for code, s in enumerate(SPLITS)}
    if splits := tuple(s for s in SPLITS if s in wanted and known[s]):
        return splits
    elsewhere = ", ".join(f"{n:,} of {s}" for s, n in known.items() if n)
    raise SpuriosityError(
        f"{real.file} knows the real labels of no row of {', '.join(wanted)} of {manifest.name}, and of {elsewhere}; "
        "review these with --split"
    )


@dataclass(frozen=True, eq=False)
class _Answers:
    """Probabilities of m rows: own (m,) that of the label by the model, unseen (m, k) by a head that did not see them.

    rows    (m,) of the manifest, rising; source: {split: whose the unseen ones are}
    judged  (m,) bool: rows that have unseen ones
    """

    rows: np.ndarray
    own: np.ndarray
    unseen: np.ndarray
    judged: np.ndarray
    source: dict[str, str]


def _asked(
    cache: FeatureCache, manifest: Manifest, model: Model, splits: Sequence[str], progress: Progress
) -> _Answers:
    """Probabilities of all rows of the splits that have features."""
    wanted = np.isin(manifest.splits, [SPLITS.index(s) for s in splits])
    train = wanted & (manifest.splits == TRAIN)
    own, kept = np.full(len(manifest), np.nan), []
    for rows, X in model.blocks(stream(manifest, cache, wanted, progress)):
        p = model.probabilities(X)
        own[rows] = p[np.arange(len(rows)), manifest.labels[rows]]
        kept.append((rows[~train[rows]], p[~train[rows]].astype(np.float32)))
    source = {s: HEAD for s in splits if s != "train"}
    if train.any():
        source["train"] = FOLDS if affordable(manifest, cache) else "none"
        if source["train"] == FOLDS:
            kept.append(cross_validated(manifest, cache, model, progress))
    rows = np.flatnonzero(~np.isnan(own))
    place = np.full(len(manifest), -1)
    place[rows] = np.arange(len(rows))
    unseen = np.zeros((len(rows), len(manifest.classes)), dtype=np.float32)
    judged = np.zeros(len(rows), dtype=bool)
    for of, p in kept:
        unseen[place[of]], judged[place[of]] = p, True
    return _Answers(rows, own[rows], unseen, judged, {s: source[s] for s in splits})


def _scored(
    manifest: Manifest,
    ranking: Ranking,
    at: _Answers,
    flags: Sequence[Flag],
    real: RealLabels,
    classes: Sequence[int],
) -> tuple[ScoredRows, np.ndarray]:
    """The rows whose real labels are known, with the scores of every order; and where they are in the manifest."""
    labels, place = manifest.labels[at.rows], {row: i for i, row in enumerate(manifest.ids)}
    queue = np.zeros(len(manifest), dtype=np.int64)
    for flag in flags:
        queue[place[flag.id]] = flag.place
    queue = queue[at.rows]
    confident, probability = np.full(len(labels), np.nan), np.full(len(labels), np.nan)
    suspected, j = np.zeros(len(labels), dtype=bool), at.judged
    if j.any():
        confident[j], suspected[j] = suspicion(labels[j], at.unseen[j])
        probability[j] = 1 - at.unseen[np.flatnonzero(j), labels[j]].astype(np.float64)
    scores = {
        label_noise.REVIEW: np.where(queue > 0, 2 - queue / (1 + len(flags)), 1 - at.own),
        label_noise.CONFIDENT: confident,
        label_noise.PROBABILITY: probability,
        label_noise.SPURIOSITY: np.where(
            np.isin(labels, classes) & (ranking.positions[at.rows] >= 0), ranking.scores[at.rows], np.nan
        ),
    }
    known = np.flatnonzero(real.known[at.rows])
    number = real.number[at.rows]
    rows = ScoredRows(
        labels, manifest.splits[at.rows], real.wrong[at.rows], np.where(number < 0, -1, number > 1), queue > 0,
        suspected, scores,
    )  # fmt: skip
    if not len(known):
        raise SpuriosityError(f"no row whose real labels {real.file} knows has features; extract {manifest.name} again")
    return rows.take(known), at.rows[known]


def _groups(
    rows: ScoredRows, places: np.ndarray, manifest: Manifest, flags: Sequence[Flag], low: np.ndarray
) -> tuple[Group, ...]:
    """Kinds of rows, as the paper sets them beside each other."""
    ids = manifest.ids[places]
    of = {reason: np.isin(ids, [f.id for f in flags if f.reason == reason]) for reason in (NEGATIVE, SURE)}
    kinds = {
        "all": np.ones(len(ids), dtype=bool),
        "flagged": rows.flagged,
        f"flagged: {NEGATIVE}, the most spurious": of[NEGATIVE],
        "the least spurious of the same classes": low[places],
        f"flagged: {SURE}": of[SURE],
        "not flagged": ~rows.flagged,
    }
    return tuple(g for name, chosen in kinds.items() if (g := label_noise.group(name, rows, chosen)) is not None)
