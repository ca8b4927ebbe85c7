"""How strongly every image shows the spurious cues of its class: its spuriosity, and its place among its like.

    s_c(x) = mean over i in S(c) of (r_i(x) - mu_ic) / sigma_ic

S(c) are the features that are spurious for class c, r_i(x) their values, mu and sigma their mean and standard deviation
(of the population, ddof = 0) over the rows labelled c, right or wrong. Low: the cue is absent; high: it is present
(Moayeri et al., NeurIPS 2023, section 4.1). Which rows mu and sigma are of, the paper leaves open:

    "train"      the training rows of the class, for the rows of every split: scores of all splits compare
    "per-split"  for each split its own rows, as in the paper's code

A ranking lies beside the cache: `NAME.spuriosity.csv` with the columns id, label, split, spuriosity, position (the last
two empty for a row without score), and `NAME.spuriosity.json` that says what it is of, with the SHA-256 of the table.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from embedx import plugins
from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import ProvenanceError, SpuriosityError, UnknownName
from embedx.evaluation.records import date
from embedx.files import locked, write_text
from embedx.spuriosity.annotations import Cues
from embedx.spuriosity.annotations.votes import Rule
from embedx.spuriosity.features.activations import Progress, columns, silent, table
from embedx.spuriosity.records.ranking_document import KIND, Document
from embedx.store import FeatureCache
from embedx.workspace import Workspace

SUFFIX = ".spuriosity.csv"
STATISTICS = ("train", "per-split")
AGAIN = "run `embedx spuriosity rank` again"

SUPERVISION = {
    "mturk": "the published votes on features",
    "local": "votes of people on features",
    "auto:attribute": "known attributes of training images",
    "auto:mask": "masks of training images",
    "auto:text": "cue phrases and answers on validation",
}
"""What an annotation took, by its source."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Spuriosity of the n rows of a manifest.

    backbone    whose features rank, or "text:..."; weights: SHA-256 of what made them
    ids         (n,) in the order of the manifest; labels (n,) and splits (n,) codes
    scores      (n,) float64, NaN for a row that has none: its class has no cue, or it could not be extracted
    statistics  the rows of mu and sigma: "train" or "per-split"
    cues        {class: its cues in words}; features: {class: S(c)}, empty for a ranking by words
    dropped     {class: features left out for a standard deviation of 0, in any of the splits}
    classes     names of the classes, in the order of their codes
    sources     who said which features are spurious: the sources of `annotations.Annotation`
    min_votes   the rule that the cues follow from, where another than that of the annotations was asked for
    """

    dataset: str
    backbone: str
    weights: str
    ids: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    scores: np.ndarray
    statistics: str
    cues: Mapping[int, tuple[str, ...]]
    dropped: Mapping[int, tuple[int, ...]]
    classes: tuple[str, ...] = ()
    features: Cues = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    min_votes: Rule | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that a gap or a tuned head follows from: the rows, their order, and what ranked them."""
        facts = [self.dataset, self.backbone, self.weights, self.classes, [str(i) for i in self.ids]]
        found = hashlib.sha256(json.dumps(facts).encode())
        for array, kind in ((self.labels, np.int64), (self.splits, np.int64), (self.scores, np.float64)):
            found.update(np.ascontiguousarray(array, dtype=kind).tobytes())
        return found.hexdigest()

    @property
    def again(self) -> str:
        """The command that makes it."""
        return _command(self.dataset, self.backbone)

    @property
    def supervision(self) -> str:
        """What the choice of cues took, in words."""
        return f"by {' and '.join(SUPERVISION[s] for s in self.sources)}" if self.sources else ""

    @cached_property
    def positions(self) -> np.ndarray:
        """(n,) place of each row within its class and split, 0 the least spurious, equal scores by id; -1 for NaN."""
        found = np.full(len(self.scores), -1, dtype=np.int64)
        rows = np.flatnonzero(~np.isnan(self.scores))
        key = self.labels[rows] * len(SPLITS) + self.splits[rows]
        order = rows[np.lexsort((self.scores[rows], key))]  # stable, and ids rise with the rows
        sizes = np.bincount(key)
        found[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return found

    @classmethod
    def of_scores(
        cls,
        manifest: Manifest,
        values: np.ndarray,
        *,
        backbone: str,
        weights: str,
        cues: Mapping[int, Sequence[str]],
        statistics: str = "train",
        sources: Sequence[str] = (),
    ) -> Ranking:
        """A ranking by any numbers that grow with the cue, such as the similarity of an image to a text.

        values  (n,) or (n, m), one column per cue of a row's class, NaN where there is none; standardised within the
                class as features are. Classes that are not in `cues` are not ranked
        """
        values = values.reshape(len(manifest), -1).astype(np.float64)
        values[~np.isin(manifest.labels, list(cues))] = np.nan
        scores, _ = standardised(manifest, values, statistics)
        words = {c: tuple(w) for c, w in cues.items()}
        facts = {"statistics": statistics, "cues": words, "dropped": {}, "sources": tuple(sources)}
        return cls._of(manifest, backbone, weights, scores, **facts)

    @classmethod
    def _of(cls, manifest: Manifest, backbone: str, weights: str, scores: np.ndarray, **facts: Any) -> Ranking:
        return cls(
            manifest.name, backbone, weights, manifest.ids, manifest.labels, manifest.splits, scores,
            classes=manifest.classes, **facts,
        )  # fmt: skip

    def check(self, cache: FeatureCache) -> None:
        """Refuse a cache of other weights than those that ranked: `ProvenanceError`."""
        found = str(cache.header.identity.get("weights", ""))
        if found != self.weights:
            raise ProvenanceError(
                f"the ranking of {self.dataset} was made with weights {self.weights[:16]} of {self.backbone}, and "
                f"{cache.path} holds features of weights {found[:16]}; {AGAIN}"
            )

    def save(self, path: Path) -> None:
        """Write the table and the JSON beside it, each whole or not at all, the JSON last: it vouches for both.

        A kill between the two leaves a table without JSON, which is refused.
        """
        import pandas as pd

        places = self.positions
        frame = pd.DataFrame({
            "id": self.ids,
            "label": np.asarray(self.classes, dtype=object)[self.labels],
            "split": np.asarray(SPLITS, dtype=object)[self.splits],
            "spuriosity": self.scores,
            "position": pd.array(places, dtype="Int64"),
        })  # fmt: skip
        frame.loc[places < 0, "position"] = pd.NA
        text = frame.to_csv(index=False, lineterminator="\n")
        document = Document(
            self.dataset, self.backbone, self.weights, self.statistics, len(self.ids), self.classes, self.cues,
            self.features, self.dropped, self.sources, self.min_votes, hashlib.sha256(text.encode()).hexdigest(),
        )  # fmt: skip
        with locked(path):  # two processes that rank at once would leave the table of one and the JSON of the other
            path.with_suffix(".json").unlink(missing_ok=True)
            write_text(path, text)
            KIND.write(path.with_suffix(".json"), document)

    @classmethod
    def load(cls, path: Path, manifest: Manifest, cache: FeatureCache | None = None) -> Ranking:
        """Read a ranking and join it to a manifest by id; rows that the manifest has no longer are left out.

        cache  the one that is to be of the same weights as the ranking
        Raises `SpuriosityError` for what is missing, foreign or damaged, and where the manifest is of another dataset,
        has other rows, or labels or splits changed since; `ProvenanceError` for a cache of other weights.
        """
        facts, frame = _read(path)
        if facts.dataset != manifest.name:
            raise SpuriosityError(f"{path} ranks {facts.dataset}, expected {manifest.name}; {AGAIN}")
        at = frame.index.get_indexer(manifest.ids)
        if len(lost := np.flatnonzero(at < 0)):
            raise SpuriosityError(
                f"{path} was made from another manifest: {len(lost):,} of the {len(manifest):,} rows of "
                f"{manifest.name} are not in it (for example {manifest.ids[lost[0]]}); {AGAIN}"
            )
        frame = frame.iloc[at]
        for name, words, codes in (("label", manifest.classes, manifest.labels), ("split", SPLITS, manifest.splits)):
            now = np.asarray(words, dtype=object)[codes]
            if len(odd := np.flatnonzero(frame[name].to_numpy() != now)):
                raise SpuriosityError(
                    f"{path}: {manifest.ids[odd[0]]} has {name} {frame[name].iloc[odd[0]]!r} in it and "
                    f"{now[odd[0]]!r} in the manifest ({len(odd):,} such rows); {AGAIN}"
                )
        if facts.classes != manifest.classes:
            raise SpuriosityError(f"{path}: the manifest has other classes now, or in another order; {AGAIN}")
        scores = frame["spuriosity"].to_numpy(np.float64)
        found = cls._of(
            manifest, facts.backbone, facts.weights, scores, statistics=facts.statistics, cues=facts.cues,
            features=facts.features, dropped=facts.dropped, sources=facts.sources, min_votes=facts.min_votes,
        )  # fmt: skip
        if cache is not None:
            found.check(cache)
        return found


def _command(dataset: str, backbone: str) -> str:
    words = f"annotate {dataset} -b BACKBONE --from text=FILE" if backbone.startswith("text:") else ""
    return f"`embedx spuriosity {words or f'rank {dataset} -b {backbone}'}`"


def place(workspace: Workspace, dataset: str, backbone: str) -> Path:
    """Where the ranking of a dataset by a backbone lies: beside the cache."""
    cache = workspace.cache(dataset, backbone)
    return cache.with_name(cache.name.removesuffix(cache.suffix) + SUFFIX)


def replaced(path: Path, manifest: Manifest, fresh: Ranking) -> str:
    """What is to be said where a ranking takes the place of another one at `path`; empty where it is the same."""
    try:
        before = Ranking.load(path, manifest)
    except (SpuriosityError, OSError):  # none, or of rows that there are no longer: what was made by it says so itself
        return ""
    if before.digest == fresh.digest:
        return ""
    return (
        f"note: {path} of {date(path)} ranked otherwise and is replaced; gaps and tuned heads that go by it are out of "
        f"date: `embedx spuriosity gap` and `tune` measure them again"
    )


def beside(workspace: Workspace, manifest: Manifest, backbone: str) -> Ranking | None:
    """The ranking to use with a backbone: its own, else the only one of the dataset; None where that leaves none."""
    own, found = (
        place(workspace, manifest.name, backbone),
        sorted(workspace.dataset(manifest.name).glob(f"[!.]*{SUFFIX}")),
    )
    if own not in found and len(found) != 1:
        return None
    return Ranking.load(own if own in found else found[0], manifest)


def rank(
    manifest: Manifest,
    cache: FeatureCache,
    cues: Cues,
    *,
    statistics: str = "train",
    words: Mapping[int, Sequence[str]] | None = None,
    sources: Sequence[str] = (),
    min_votes: Rule | None = None,
    progress: Progress = silent,
) -> Ranking:
    """Rank by the features that are spurious for each class, in one pass over the cache.

    words    {class: its cues in words}, by default "feature 17"
    sources  who said so, of those of annotations; min_votes: the rule that `cues` follow from, where one was given
    Raises `SpuriosityError` when there is nothing to rank by, or for a class or feature that does not exist, and
    `UnknownName` for other statistics.
    """
    k, dim = len(manifest.classes), cache.header.dim
    cues = {c: tuple(dict.fromkeys(features)) for c, features in sorted(cues.items()) if features}
    if not cues:
        raise SpuriosityError(
            f"no class of {manifest.name} has a spurious feature, so there is nothing to rank by; annotate features "
            "with `embedx spuriosity annotate`"
        )
    for c, features in cues.items():
        if not 0 <= c < k:
            raise SpuriosityError(f"cues for class {c}, and {manifest.name} has {k:,} classes, counted from 0")
        if odd := [i for i in features if not 0 <= i < dim]:
            raise SpuriosityError(
                f"class {manifest.classes[c]!r} has feature {odd[0]} as a cue, and {cache.path} has {dim:,} features, "
                "counted from 0; annotate the features of this backbone"
            )
    listed = [cues.get(c, ()) for c in range(k)]
    ranked = np.isin(manifest.labels, list(cues))
    values = columns(manifest, cache, table(listed), ranked, progress)
    scores, dead = standardised(manifest, values, statistics)
    dropped = {c: tuple(listed[c][j] for j in sorted(js)) for c, js in sorted(dead.items())}
    said = {c: tuple((words or {}).get(c) or (f"feature {i}" for i in features)) for c, features in cues.items()}
    weights = str(cache.header.identity.get("weights", ""))
    return Ranking._of(
        manifest, cache.header.backbone, weights, scores, statistics=statistics, cues=said, dropped=dropped,
        features=cues, sources=tuple(sources), min_votes=min_votes,
    )  # fmt: skip


def standardised(
    manifest: Manifest, values: np.ndarray, statistics: str = "train"
) -> tuple[np.ndarray, dict[int, set[int]]]:
    """(n,) mean of the z-scores of values (n, m) within classes, NaN for rows without; {class: its dead columns}.

    A column that is the same for all rows that mu and sigma are of has no z-score: it is dropped there. The rows of a
    class that has no column left have no score, and neither has a row that lacks a number which its class has.
    Raises `SpuriosityError` for a class that has no training row to take mu and sigma from.
    """
    if statistics not in STATISTICS:
        raise UnknownName(f"unknown statistics {statistics!r}: {plugins.nearest(statistics, STATISTICS)}")
    scores, dead = np.full(len(values), np.nan), {}
    rows = np.flatnonzero(~np.isnan(values).all(axis=1))
    rows = rows[np.argsort(manifest.labels[rows], kind="stable")]
    known, starts = np.unique(manifest.labels[rows], return_index=True)
    for c, here in zip(known.tolist(), np.split(rows, starts[1:]), strict=True):
        used = np.flatnonzero(~np.isnan(values[here]).all(axis=0))
        X, split = values[here][:, used].astype(np.float64), manifest.splits[here]
        whole = ~np.isnan(X).any(axis=1)
        for s in range(len(SPLITS)):
            source = X[whole & (split == (s if statistics == "per-split" else SPLITS.index("train")))]
            mine = whole & (split == s)
            if not mine.any():
                continue
            if not len(source):
                raise SpuriosityError(
                    f"class {manifest.classes[c]!r} has no usable training row to take mean and deviation from; add "
                    'some, or use the statistics "per-split"'
                )
            alive = source.min(axis=0) < source.max(axis=0)
            if not alive.all():
                dead.setdefault(c, set()).update(used[~alive].tolist())
            if alive.any():
                z = (X[mine][:, alive] - source[:, alive].mean(axis=0)) / source[:, alive].std(axis=0)
                scores[here[mine]] = z.mean(axis=1)
    return scores, dead


def _read(path: Path) -> tuple[Document, Any]:
    """The JSON and the table, indexed by id, of a ranking."""
    import pandas as pd

    document = path.with_suffix(".json")
    if not path.is_file():
        raise SpuriosityError(f"{path} does not exist; make it with `{KIND.command}`")
    facts, data = KIND.read(document), path.read_bytes()
    if facts.sha256 not in ("", hashlib.sha256(data).hexdigest()):
        raise SpuriosityError(
            f"{path} is not the table that {document.name} was written for: one of them was edited, copied or "
            f"replaced without the other; make both again with {_command(facts.dataset, facts.backbone)}"
        )
    try:
        frame = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, encoding="utf-8").set_index("id")
        # Python's own conversion, which brings every number back to the last bit.
        frame["spuriosity"] = [float(x) if x else np.nan for x in frame["spuriosity"]]
        missing = [n for n in ("label", "split", "spuriosity") if n not in frame]
    except (ValueError, KeyError, AttributeError) as error:
        raise SpuriosityError(f"{path} is no ranking ({str(error).partition(chr(10))[0]}); {AGAIN}") from error
    if missing or facts.rows != len(frame) or not frame.index.is_unique:
        raise SpuriosityError(f"{path} is damaged or was edited: its rows or columns are not those written; {AGAIN}")
    return facts, frame
