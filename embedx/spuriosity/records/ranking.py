"""The images of a dataset in the order in which they show the spurious cues of their classes.

A ranking lies beside the cache: `NAME.spuriosity.csv` with the columns id, label, split, spuriosity, position (the last
two empty for a row without score), and `NAME.spuriosity.json` that says what it is of, with the SHA-256 of the table.
How the scores come to be: `measures/scores.py`.
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

from embedx.data.manifest import SPLITS, Manifest, Subjects
from embedx.errors import ProvenanceError, SpuriosityError
from embedx.evaluation.heads import HeadRequest, head_spec, heads_asked, needs_ranking
from embedx.evaluation.records import date
from embedx.files import locked, write_text
from embedx.spuriosity.annotations import Cues
from embedx.spuriosity.annotations.votes import Rule
from embedx.spuriosity.records.ranking_document import KIND, Document
from embedx.store import FeatureCache, open_caches
from embedx.workspace import Workspace

SUFFIX = ".spuriosity.csv"
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
    subjects    whose each row is, where the manifest names a cluster; intervals and p-values then count clusters
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
    subjects: Subjects | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that a gap or a tuned head follows from: rows, order, what ranked them, subjects."""
        facts = [self.dataset, self.backbone, self.weights, self.classes, [str(i) for i in self.ids]]
        sha = hashlib.sha256(json.dumps(facts).encode())
        for array, kind in ((self.labels, np.int64), (self.splits, np.int64), (self.scores, np.float64)):
            sha.update(np.ascontiguousarray(array, dtype=kind).tobytes())
        if self.subjects is not None:
            sha.update(np.ascontiguousarray(self.subjects.codes, dtype=np.int64).tobytes())
        return sha.hexdigest()

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
        places = np.full(len(self.scores), -1, dtype=np.int64)
        rows = np.flatnonzero(~np.isnan(self.scores))
        key = self.labels[rows] * len(SPLITS) + self.splits[rows]
        order = rows[np.lexsort((self.scores[rows], key))]  # stable, and ids rise with the rows
        sizes = np.bincount(key)
        places[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return places

    @classmethod
    def of(cls, manifest: Manifest, backbone: str, weights: str, scores: np.ndarray, **facts: Any) -> Ranking:
        """The rows of a manifest with their scores (n,); the other fields by name."""
        return cls(
            manifest.name, backbone, weights, manifest.ids, manifest.labels, manifest.splits, scores,
            classes=manifest.classes, subjects=manifest.subjects, **facts,
        )  # fmt: skip

    def check(self, cache: FeatureCache) -> None:
        """Refuse a cache of other weights than those that ranked: `ProvenanceError`."""
        weights = str(cache.header.identity.get("weights", ""))
        if weights != self.weights:
            raise ProvenanceError(
                f"the ranking of {self.dataset} was made with weights {self.weights[:16]} of {self.backbone}, and "
                f"{cache.path} holds features of weights {weights[:16]}; {AGAIN}"
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
        ranking = cls.of(
            manifest, facts.backbone, facts.weights, scores, statistics=facts.statistics, cues=facts.cues,
            features=facts.features, dropped=facts.dropped, sources=facts.sources, min_votes=facts.min_votes,
        )  # fmt: skip
        if cache is not None:
            ranking.check(cache)
        return ranking


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
    own, tables = (
        place(workspace, manifest.name, backbone),
        sorted(workspace.dataset(manifest.name).glob(f"[!.]*{SUFFIX}")),
    )
    if own not in tables and len(tables) != 1:
        return None
    return Ranking.load(own if own in tables else tables[0], manifest)


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


def rankings_for(
    workspace: Workspace,
    manifest: Manifest,
    backbones: Sequence[str],
    heads: Sequence[str | HeadRequest],
    rule: str | None = None,
) -> dict[str, Ranking]:
    """{backbone: the ranking to use with it}, for a comparison of which some head may need one; none else.

    backbones, heads, rule  as `compare` takes them
    """
    asked = heads_asked(manifest, heads, prompts=True, ranked=True)
    if not any(needs_ranking(head_spec(head, rule)) for head in asked):
        return {}
    names = open_caches(workspace, manifest, backbones)
    return {name: ranking for name in names if (ranking := beside(workspace, manifest, name)) is not None}
