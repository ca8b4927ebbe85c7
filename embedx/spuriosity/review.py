"""What to look at again: images that may be labelled wrongly, or show several objects.

Two kinds, listed in this order, and within either the most suspicious first: by the probability that the head leaves
to the label, the smallest first, ties by spuriosity, the largest first, then by id.

    negative gap  the most spurious images, k as in `gaps.json`, of the classes that the model gets right less often
                  where their cue is present. Of a class counts that the 95 % interval of its gap lies below 0; classes
                  whose interval includes 0 are left out unless asked for
    confident     other images, of any class, of which the head gives another class than the label a probability of at
                  least `CONFIDENT`

Beside an image stands the class that the most spurious images of its class are taken for, and the feature that pulls
them there (`collisions`); and a preview of what is left of it when it is cropped to the core features of its class,
with what the head says of that: the label again speaks for a second object in the picture, another class for a wrong
label. Probabilities are the head's own. It was fitted on train, where it is surer than elsewhere.

`review.csv` has a row per image with the fields of `Flag`, empty where there is nothing to say; `review.html` shows
those that were drawn. After Moayeri et al., "Spuriosity Rankings", NeurIPS 2023, section 5 and appendix H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import SpuriosityError
from embedx.evaluation.model import Model, ModelName
from embedx.evaluation.records import alone
from embedx.files import write_text
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.features.activations import Progress, silent, stream
from embedx.spuriosity.features.image_inspection import ImageInspector
from embedx.spuriosity.measures.collisions import Collision
from embedx.spuriosity.measures.gaps import Gaps
from embedx.spuriosity.pages.previews import draw, tidy
from embedx.spuriosity.records.findings import core_features
from embedx.spuriosity.records.flags import FILE, NEGATIVE, SURE, Flag, counts, require, save
from embedx.spuriosity.records.gaps import Measured
from embedx.spuriosity.records.ranking import Ranking
from embedx.spuriosity.records.review_check import ReviewCheck
from embedx.store import FeatureCache

PAGE = "review.html"
CONFIDENT = 0.9


@dataclass(frozen=True)
class ReviewSettings:
    """What to list.

    splits     of the images
    confident  probability of another class than the label from which an image of any class is listed
    every      also classes with a negative gap whose interval includes 0
    """

    splits: tuple[str, ...] = SPLITS
    confident: float = CONFIDENT
    every: bool = False

    def __post_init__(self) -> None:
        if not 0.5 < self.confident <= 1:
            raise SpuriosityError(f"confident is {self.confident:g}, expected a probability above 0.5, up to 1")


def review(
    analysis: Analysis,
    model: str | ModelName = "",
    settings: ReviewSettings = ReviewSettings(),
    *,
    images: int = 60,
    device: str = "cpu",
    weights: Path | None = None,
    progress: Progress = silent,
) -> tuple[Flag, ...]:
    """List the images to look at again; write review.csv and review.html.

    model   whose answers count, as `BACKBONE[=HEAD]`, one that `gap` measured; by default the backbone that ranks
    images  pictures of either kind in the gallery; 0: none. device, weights: as for `ImageInspector.open`
    Raises `SpuriosityError` for a model that was not measured and a table to which somebody has added columns,
    `ProvenanceError` for gaps by another ranking, and as `pages.previews.draw` does.
    """
    folder, manifest = analysis.folder, analysis.manifest
    require(folder)
    measured, ranking = Measured.load(folder), analysis.ranking()
    measured.check(ranking, folder)
    (name,) = analysis.names([model] if model else [])
    gaps, pulls = measured.of(name)
    judge, cache = analysis.model(name), analysis.cache_of(name.backbone)
    flags = queue(manifest, cache, judge, ranking, gaps, pulls, settings, progress)
    with alone(folder / FILE, analysis.notice):
        if images and flags:
            own = judge if cache.path == analysis.cache.path else None
            flags = _drawn(analysis, flags, images, own, (device, weights), progress)
        save(folder, flags, analysis.notice)
        gallery(folder, flags, manifest.name, analysis.backbone)
        tidy(folder, flags)
    return tuple(flags)


def _drawn(
    analysis: Analysis,
    flags: list[Flag],
    images: int,
    model: Model | None,
    place: tuple[str, Path | None],
    progress: Progress,
) -> list[Flag]:
    """The flags with pictures, by the features of the backbone that ranks, on a device with its weights."""
    discovery, entries = analysis.discovery(), analysis.annotations()
    lens = ImageInspector.open(analysis.workspace, analysis.manifest, analysis.cache, *place)
    cores = core_features(discovery, entries)
    return draw(lens, flags, cores, analysis.folder, images=images, model=model, progress=progress)


@dataclass(frozen=True, eq=False)
class _Answers:
    """What a head says of the n rows of a manifest; -1 and NaN for rows that were not asked for or have no features.

    best (n, m) codes of the m most probable classes, chances (n, m) theirs, of_label (n,) that of the label
    """

    best: np.ndarray
    chances: np.ndarray
    of_label: np.ndarray


def queue(
    manifest: Manifest,
    cache: FeatureCache,
    model: Model,
    ranking: Ranking,
    gaps: Gaps,
    pulls: Sequence[Collision] = (),
    settings: ReviewSettings = ReviewSettings(),
    progress: Progress = silent,
) -> list[Flag]:
    """The images to look at, in their order, without pictures.

    cache, model  the features and the model that was measured; gaps, pulls: its gaps and collisions, of any split
    """
    wanted = np.isin(manifest.splits, [SPLITS.index(s) for s in settings.splits])
    answers = _answers(manifest, cache, model, wanted, progress)
    answered = answers.best[:, 0] >= 0
    high = answered & np.isin(manifest.labels, suspects(gaps, settings)) & end(ranking, gaps.k)
    with np.errstate(invalid="ignore"):
        wrong = answered & ~high & (answers.best[:, 0] != manifest.labels)
        sure = wrong & (answers.chances[:, 0] >= settings.confident)
    score = np.nan_to_num(ranking.scores, nan=-np.inf)
    listed = []
    for reason, rows in ((NEGATIVE, np.flatnonzero(high)), (SURE, np.flatnonzero(sure))):
        listed += [(reason, int(i)) for i in rows[np.lexsort((-score[rows], answers.of_label[rows]))]]
    ranked = _sizes(ranking)
    of_class = {c.label: c for c in gaps.classes}
    flags = []
    for place, (reason, i) in enumerate(listed, 1):
        label = int(manifest.labels[i])
        facts = _row(manifest, answers, i) | _collides(pulls, label, int(answers.best[i, 0]), reason)
        if ranking.positions[i] >= 0:
            facts |= {"spuriosity": float(ranking.scores[i]), "position": int(ranking.positions[i])}
            facts["ranked"] = int(ranked[i])
        if c := of_class.get(label):
            facts |= {"gap": c.gap.value, "gap_low": c.gap.low, "gap_high": c.gap.high, "gap_n": c.gap.n}
            facts["holm"] = float(c.holm)
        flags.append(Flag(place, reason, **facts))
    return flags


def _answers(manifest: Manifest, cache: FeatureCache, model: Model, wanted: np.ndarray, progress: Progress) -> _Answers:
    n, m = len(manifest), min(3, len(manifest.classes))
    best, chances, of_label = np.full((n, m), -1), np.full((n, m), np.nan), np.full(n, np.nan)
    for rows, X in model.blocks(stream(manifest, cache, wanted, progress)):
        p = model.probabilities(X)
        best[rows] = np.argsort(-p, axis=1, kind="stable")[:, :m]
        chances[rows] = np.take_along_axis(p, best[rows], axis=1)
        of_label[rows] = p[np.arange(len(rows)), manifest.labels[rows]]
    return _Answers(best, chances, of_label)


def _sizes(ranking: Ranking) -> np.ndarray:
    """(n,) ranked rows of the class and split of every row."""
    key = ranking.labels * len(SPLITS) + ranking.splits
    return np.bincount(key[ranking.positions >= 0], minlength=int(key.max(initial=0)) + 1)[key]


def suspects(gaps: Gaps, settings: ReviewSettings) -> list[int]:
    """The classes whose most spurious rows are listed."""
    return [c.label for c in gaps.classes if c.gap.high < 0 or (settings.every and c.gap.value < 0)]


def end(ranking: Ranking, k: float, *, most: bool = True) -> np.ndarray:
    """(n,) bool: the k most, or least, spurious rows of each class and split, a number or a fraction, at most half."""
    sizes, places = _sizes(ranking), ranking.positions
    ends = np.floor(k * sizes + 1e-9).astype(np.int64) if isinstance(k, float) else np.full(len(sizes), k)
    ends = np.minimum(np.maximum(ends, 1), sizes // 2)
    return (places >= 0) & (places >= sizes - ends if most else places < ends)


def _row(manifest: Manifest, answers: _Answers, i: int) -> dict[str, Any]:
    label, names = int(manifest.labels[i]), manifest.classes
    best, chances = answers.best[i].tolist(), answers.chances[i].tolist()
    facts: dict[str, Any] = {
        "id": str(manifest.ids[i]), "split": SPLITS[manifest.splits[i]], "label": label, "class_name": names[label],
        "label_probability": float(answers.of_label[i]), "predicted": best[0], "predicted_name": names[best[0]],
        "probability": chances[0], "second_name": names[best[1]], "second_probability": chances[1],
    }  # fmt: skip
    if len(best) > 2:
        facts |= {"third_name": names[best[2]], "third_probability": chances[2]}
    return facts


def _collides(pulls: Sequence[Collision], label: int, predicted: int, reason: str) -> dict[str, Any]:
    """The collision with the class that the row is taken for; for one of the most spurious rows else the commonest."""
    mine = [c for c in pulls if c.label == label]
    c = next((c for c in mine if c.other == predicted), mine[0] if mine and reason == NEGATIVE else None)
    if c is None:
        return {}
    pull = {} if c.pull is None else asdict(c.pull)
    return {"other": c.other, "other_name": c.other_name, **pull}


def gallery(folder: Path, flags: Sequence[Flag], title: str, backbone: str, check: ReviewCheck | None = None) -> Path:
    """Write `review.html` beside the table: what was drawn, as it stands by itself; check: of these flags, if any."""
    from embedx.spuriosity.pages.page import page

    text = page(
        "review.html.j2", title=title, backbone=backbone, flags=flags, counts=counts(flags), check=check, link=None
    )
    write_text(folder / PAGE, text)
    return folder / PAGE
