"""What a head leans on, class by class, as `discovery.json` keeps it; how it is found: `measures/importance.py`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from embedx.errors import ProvenanceError, SpuriosityError
from embedx.evaluation import saved
from embedx.evaluation.metrics import Interval
from embedx.evaluation.records import date
from embedx.files import locked, write_text
from embedx.spuriosity.features.recipes import Recipe
from embedx.store import FeatureCache

FILE = "discovery.json"
FORMAT = "embedx-discovery"
VERSION = 1


@dataclass(frozen=True)
class Candidate:
    """One of the most important features of a class.

    rank       from 1, the most important
    share      of the importance of all features that speak for the class (those above 0)
    gap        accuracy of the head on the n validation rows of the class where the feature is largest, minus that on
               the n where it is smallest; None when the class has fewer than two
    elsewhere  other classes that have the feature among their most important
    """

    label: int
    class_name: str
    feature: int
    rank: int
    importance: float
    share: float
    gap: Interval | None
    n: int
    elsewhere: tuple[int, ...]


@dataclass(frozen=True)
class Discovery:
    """The candidates of all classes, to be looked at and annotated.

    weights    SHA-256 of the backbone's weights: features are numbered by them and by nothing else
    sizes      rows of G_c of every class
    fallbacks  classes without any row predicted (correctly), whose G_c is the rows labelled c instead
    head       file of the head beside `discovery.json`; head_sha256 the digest of its bytes, empty where not known
    stability  {"seeds" | "recipes" | "groupings": {what: mean overlap}}, overlap the Jaccard index of two lists of
               features of a class, 1 when all are the same, its mean over the classes
    """

    dataset: str
    backbone: str
    weights: str
    recipe: str
    grouping: str
    classes: tuple[str, ...]
    sizes: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    stability: Mapping[str, Mapping[str, float]]
    fallbacks: tuple[int, ...] = ()
    head: str = ""
    manifest: str = ""
    fitted: Recipe | None = field(default=None, compare=False, repr=False)
    head_sha256: str = field(default="", compare=False)

    @cached_property
    def of(self) -> Mapping[int, tuple[Candidate, ...]]:
        """The candidates of each class, the most important first."""
        return {c: tuple(x for x in self.candidates if x.label == c) for c in range(len(self.classes))}

    def save(self, folder: Path) -> Path:
        """Write `discovery.json` and, where it was just fitted, the head as `embedx.evaluation.saved` does.

        The head comes first and the discovery, with its digest, last: after a kill between the two an earlier discovery
        does not take the new head for its own.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / FILE):
            digest = self.head_sha256
            if self.fitted is not None:
                digest = hashlib.sha256(self.fitted.save(folder).read_bytes()).hexdigest()
            document = {"format": FORMAT, "version": VERSION}
            document |= {key: getattr(self, key) for key in FIELDS} | {"head_sha256": digest}
            document |= {"candidates": [asdict(x) for x in self.candidates]}
            write_text(folder / FILE, json.dumps(document, indent=1, allow_nan=False) + "\n")
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> Discovery:
        """Read `discovery.json`. Raises `SpuriosityError` for what is missing, foreign, newer or damaged."""
        file = folder / FILE
        if not file.is_file():
            raise SpuriosityError(f"{file} does not exist; run `embedx spuriosity discover` first")
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            if (found := (document.get("format"), document.get("version"))) != (FORMAT, VERSION):
                raise SpuriosityError(f"{file}: expected {FORMAT} version {VERSION}, found {found[0]!r} {found[1]!r}")
            values = {key: document[key] for key in FIELDS}
            values |= {key: tuple(values[key]) for key in ("classes", "sizes", "fallbacks")}
            found = tuple(map(_candidate, document["candidates"]))
            return cls(**values, candidates=found, head_sha256=str(document.get("head_sha256", "")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpuriosityError(
                f"{file} is no discovery ({error}); run `embedx spuriosity discover` again"
            ) from error

    def saved_head(self, folder: Path, notice: Callable[[str], None] = lambda text: None) -> saved.SavedHead:
        """The head that was looked into, from the same folder. Raises `ProvenanceError` for another one of its name."""
        file = folder / self.head
        if self.head_sha256 and file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() != self.head_sha256:
            raise ProvenanceError(
                f"{file} is not the head that {folder / FILE} is of: one of them was replaced without the other; run "
                f"`embedx spuriosity discover {self.dataset} -b {self.backbone}` again"
            )
        return saved.load(file, notice)

    def check(self, cache: FeatureCache) -> None:
        """Refuse features of other weights, whose numbers mean other features: `ProvenanceError`."""
        if (found := weights_of(cache)) != self.weights:
            raise ProvenanceError(
                f"{cache.path} holds features of weights {found[:16]}, expected {self.weights[:16]} ({self.backbone}), "
                "whose features were discovered; run `embedx spuriosity discover` on these features"
            )


def replaced(folder: Path, fresh: Discovery) -> str:
    """What is to be said where a discovery takes the place of another one; empty where it found the same."""
    try:
        before = Discovery.load(folder)
    except SpuriosityError:
        return ""
    if before == fresh:
        return ""
    return (
        f"note: {folder / FILE} of {date(folder / FILE)} ({before.dataset}, {before.backbone}, {before.recipe} head by "
        f"{before.grouping}) found otherwise and is replaced; annotations stay, panels are drawn again with "
        f"`embedx spuriosity panels {fresh.dataset} -b {fresh.backbone}`"
    )


FIELDS = (
    "dataset", "backbone", "weights", "recipe", "grouping", "classes", "sizes", "stability", "fallbacks", "head",
    "manifest",
)  # fmt: skip


def weights_of(cache: FeatureCache) -> str:
    """The fingerprint of the weights that made the features."""
    return str(cache.header.identity.get("weights", ""))


def _candidate(values: Mapping[str, Any]) -> Candidate:
    gap = None if values["gap"] is None else Interval(**values["gap"])
    return Candidate(**{**values, "gap": gap, "elsewhere": tuple(values["elsewhere"])})
