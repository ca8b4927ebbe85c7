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

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import SpuriosityError
from embedx.evaluation.model import Model
from embedx.evaluation.records import Notice, date
from embedx.files import write_bytes, write_text
from embedx.spuriosity.features.activations import Progress, silent, stream
from embedx.spuriosity.measures.collisions import Collision
from embedx.spuriosity.measures.gaps import Gaps
from embedx.store import FeatureCache

if TYPE_CHECKING:
    from embedx.spuriosity.records.ranking import Ranking

FILE, PAGE = "review.csv", "review.html"
NEGATIVE, SURE = "negative gap", "confident"
CONFIDENT = 0.9


@dataclass(frozen=True)
class Flag:
    """One image.

    place         from 1, the most suspicious
    reason        `NEGATIVE` or `SURE`
    label         code of its class; label_probability of the head for it
    predicted     code of the class that the head takes it for; probability, and those of the next two classes
    spuriosity, position  as in the ranking, 0 the least spurious of the `ranked` images of its class and split
    gap, gap_low, gap_high, gap_n, holm  of its class, where that has one
    other         the class that its class collides with: the predicted one where that is such; else, for `NEGATIVE`,
                  the commonest; feature, towards, own: which feature pulls, and what it adds to either logit
    core_predicted, core_probability  what the head takes the core crop for, and how probable it finds the label there
    core_activation  of the core features here, over that in the training images of the class; mean over these features.
                  Where they hardly see anything, so does the crop
    image, crop   files, where it was drawn
    """

    place: int
    reason: str
    id: str
    split: str
    label: int
    class_name: str
    label_probability: float
    predicted: int
    predicted_name: str
    probability: float
    second_name: str
    second_probability: float
    third_name: str = ""
    third_probability: float | None = None
    spuriosity: float | None = None
    position: int | None = None
    ranked: int | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    gap_n: int | None = None
    holm: float | None = None
    other: int | None = None
    other_name: str = ""
    feature: int | None = None
    towards: float | None = None
    own: float | None = None
    core_predicted: str = ""
    core_probability: float | None = None
    core_activation: float | None = None
    image: str = ""
    crop: str = ""


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


@dataclass(frozen=True, eq=False)
class _Said:
    """What a head says of the n rows of a manifest; -1 and NaN for rows that were not asked for or have no features.

    best (n, m) codes of the m most probable classes, chances (n, m) theirs, of_label (n,) that of the label
    """

    best: np.ndarray
    chances: np.ndarray
    of_label: np.ndarray


def review(
    manifest: Manifest,
    cache: FeatureCache,
    model: Model,
    ranking: Ranking,
    found: Gaps,
    pulls: Sequence[Collision] = (),
    options: ReviewSettings = ReviewSettings(),
    progress: Progress = silent,
) -> list[Flag]:
    """The queue, in its order, without pictures.

    cache, model  the features and the model that was measured; found, pulls: its gaps and collisions, of any split
    """
    wanted = np.isin(manifest.splits, [SPLITS.index(s) for s in options.splits])
    said = _said(manifest, cache, model, wanted, progress)
    known = said.best[:, 0] >= 0
    suspects = [c.label for c in found.classes if c.gap.high < 0 or (options.every and c.gap.value < 0)]
    high = known & np.isin(manifest.labels, suspects) & _high(ranking, found.k)
    with np.errstate(invalid="ignore"):
        sure = known & ~high & (said.best[:, 0] != manifest.labels) & (said.chances[:, 0] >= options.confident)
    score = np.nan_to_num(ranking.scores, nan=-np.inf)
    listed = []
    for reason, rows in ((NEGATIVE, np.flatnonzero(high)), (SURE, np.flatnonzero(sure))):
        listed += [(reason, int(i)) for i in rows[np.lexsort((-score[rows], said.of_label[rows]))]]
    ranked = _sizes(ranking)
    of_class = {c.label: c for c in found.classes}
    flags = []
    for place, (reason, i) in enumerate(listed, 1):
        label = int(manifest.labels[i])
        facts = _row(manifest, said, i) | _collides(pulls, label, int(said.best[i, 0]), reason)
        if ranking.positions[i] >= 0:
            facts |= {"spuriosity": float(ranking.scores[i]), "position": int(ranking.positions[i])}
            facts["ranked"] = int(ranked[i])
        if c := of_class.get(label):
            facts |= {"gap": c.gap.value, "gap_low": c.gap.low, "gap_high": c.gap.high, "gap_n": c.gap.n}
            facts["holm"] = float(c.holm)
        flags.append(Flag(place, reason, **facts))
    return flags


def _said(manifest: Manifest, cache: FeatureCache, model: Model, wanted: np.ndarray, progress: Progress) -> _Said:
    n, m = len(manifest), min(3, len(manifest.classes))
    best, chances, of_label = np.full((n, m), -1), np.full((n, m), np.nan), np.full(n, np.nan)
    for rows, X in model.blocks(stream(manifest, cache, wanted, progress)):
        p = model.probabilities(X)
        best[rows] = np.argsort(-p, axis=1, kind="stable")[:, :m]
        chances[rows] = np.take_along_axis(p, best[rows], axis=1)
        of_label[rows] = p[np.arange(len(rows)), manifest.labels[rows]]
    return _Said(best, chances, of_label)


def _sizes(ranking: Ranking) -> np.ndarray:
    """(n,) ranked rows of the class and split of every row."""
    key = ranking.labels * len(SPLITS) + ranking.splits
    return np.bincount(key[ranking.positions >= 0], minlength=int(key.max(initial=0)) + 1)[key]


def _high(ranking: Ranking, k: float) -> np.ndarray:
    """(n,) bool: the k most spurious rows of each class and split, a number or a fraction, at most half of them."""
    sizes = _sizes(ranking)
    ends = np.floor(k * sizes + 1e-9).astype(np.int64) if isinstance(k, float) else np.full(len(sizes), k)
    ends = np.minimum(np.maximum(ends, 1), sizes // 2)
    return (ranking.positions >= 0) & (ranking.positions >= sizes - ends)


def _row(manifest: Manifest, said: _Said, i: int) -> dict[str, Any]:
    label, names = int(manifest.labels[i]), manifest.classes
    best, chances = said.best[i].tolist(), said.chances[i].tolist()
    facts: dict[str, Any] = {
        "id": str(manifest.ids[i]), "split": SPLITS[manifest.splits[i]], "label": label, "class_name": names[label],
        "label_probability": float(said.of_label[i]), "predicted": best[0], "predicted_name": names[best[0]],
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


def require(folder: Path) -> None:
    """Refuse to replace a table to which somebody has added columns, of notes for instance: `SpuriosityError`."""
    file = folder / FILE
    if not file.is_file():
        return
    heading = next(csv.reader(io.StringIO(file.read_bytes().decode(errors="replace"), newline="")), [])
    if added := [name for name in heading if name not in {f.name for f in fields(Flag)}]:
        raise SpuriosityError(
            f"{file} has a column {added[0]!r} that is not ours, and a new review would replace it; rename the file"
        )


def save(folder: Path, flags: Sequence[Flag], notice: Notice = lambda text: None) -> Path:
    """Write `review.csv`, whole or not at all; that another one is replaced is told."""
    text = io.StringIO()
    table = csv.DictWriter(text, [f.name for f in fields(Flag)])  # its line ends, \r\n, quote either in an id
    table.writeheader()
    table.writerows(asdict(flag) for flag in flags)
    folder.mkdir(parents=True, exist_ok=True)
    file, data = folder / FILE, text.getvalue().encode()
    if file.is_file() and file.read_bytes() != data:
        notice(f"note: {file} of {date(file)} listed other images, or said other things of them, and is replaced")
    write_bytes(file, data)
    return file


def load(folder: Path) -> list[Flag]:
    """Read `review.csv`. Raises `SpuriosityError` for what is missing or no such table."""
    file = folder / FILE
    if not file.is_file():
        raise SpuriosityError(f"{file} does not exist: make it with `embedx spuriosity review`")
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_bytes().decode(), newline="")))
        return [Flag(**{f.name: _value(str(f.type), row[f.name]) for f in fields(Flag)}) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise SpuriosityError(f"{file} is no such table ({error}); run `embedx spuriosity review` again") from error


def _value(kind: str, text: str) -> Any:
    if kind == "str":
        return text
    if not text and "None" in kind:
        return None
    return int(text) if kind.startswith("int") else float(text)


def counts(flags: Sequence[Flag]) -> Mapping[str, int]:
    """How many there are of either kind."""
    return {reason: sum(f.reason == reason for f in flags) for reason in (NEGATIVE, SURE)}


def gallery(folder: Path, flags: Sequence[Flag], title: str, backbone: str) -> Path:
    """Write `review.html` beside the table: what was drawn, as it stands by itself."""
    from embedx.spuriosity.pages.page import page

    text = page("review.html.j2", title=title, backbone=backbone, flags=flags, counts=counts(flags), link=None)
    write_text(folder / PAGE, text)
    return folder / PAGE
