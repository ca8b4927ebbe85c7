"""What a head leans on, class by class, as `discovery.json` keeps it; how it is found: `measures/importance.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from embedx.documents import Kind
from embedx.errors import ProvenanceError, SpuriosityError
from embedx.evaluation import saved
from embedx.evaluation.model import Model
from embedx.evaluation.records import date
from embedx.files import locked
from embedx.statistics import Interval
from embedx.store import FeatureCache

FILE = "discovery.json"


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


@dataclass(frozen=True, kw_only=True)
class Document:
    """What `discovery.json` holds.

    weights    SHA-256 of the backbone's weights: features are numbered by them and by nothing else
    recipe     how the head came to be; grouping: the training rows G_c: by "label", "predicted" or "correct"
    classes    names of the classes, in the order of their codes
    sizes      rows of G_c of every class
    fallbacks  classes without any row predicted (correctly), whose G_c is the rows labelled c instead
    head       file of the head beside `discovery.json`; head_sha256: digest of its bytes, empty where not known
    manifest   digest of the manifest
    candidates of all classes, to be looked at and annotated
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
    stability: Mapping[str, Mapping[str, float]]
    fallbacks: tuple[int, ...] = ()
    head: str = ""
    manifest: str = ""
    head_sha256: str = field(default="", compare=False)
    candidates: tuple[Candidate, ...]


KIND = Kind(Document, FILE, "embedx spuriosity discover", SpuriosityError, "embedx-discovery", 1)


@dataclass(frozen=True, kw_only=True)
class Discovery(Document):
    """The candidates of all classes, and the head that was `fitted` to find them, where it just was."""

    fitted: Model | None = field(default=None, compare=False, repr=False)

    @cached_property
    def of(self) -> Mapping[int, tuple[Candidate, ...]]:
        """The candidates of each class, the most important first."""
        found: dict[int, list[Candidate]] = {c: [] for c in range(len(self.classes))}
        for candidate in self.candidates:
            found[candidate.label].append(candidate)
        return {c: tuple(of) for c, of in found.items()}

    def save(self, folder: Path) -> Path:
        """Write `discovery.json` and, where it was just fitted, the head as `embedx.evaluation.saved` does.

        The head comes first and the discovery, with its digest, last: after a kill between the two an earlier discovery
        does not take the new head for its own.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / FILE):
            digest = self.head_sha256
            if self.fitted is not None:
                digest = hashlib.sha256(saved.save_model(self.fitted, folder).read_bytes()).hexdigest()
            KIND.write(folder / FILE, replace(self, head_sha256=digest))
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> Discovery:
        """Read `discovery.json`. Raises `SpuriosityError` for what is missing, foreign, newer or damaged."""
        return cls(**vars(KIND.read(folder / FILE)))

    def saved_head(self, folder: Path, notice: Callable[[str], None] = lambda text: None) -> Model:
        """The model that was looked into, from the same folder. Raises `ProvenanceError` for another of its name."""
        file = folder / self.head
        if self.head_sha256 and file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() != self.head_sha256:
            raise ProvenanceError(
                f"{file} is not the head that {folder / FILE} is of: one of them was replaced without the other; run "
                f"`embedx spuriosity discover {self.dataset} -b {self.backbone}` again"
            )
        return saved.load_model(file, notice)

    def check(self, cache: FeatureCache) -> None:
        """Refuse features of other weights, whose numbers mean other features: `ProvenanceError`."""
        if (weights := weights_of(cache)) != self.weights:
            raise ProvenanceError(
                f"{cache.path} holds features of weights {weights[:16]}, expected {self.weights[:16]} "
                f"({self.backbone}), whose features were discovered; run `embedx spuriosity discover` on these features"
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


def weights_of(cache: FeatureCache) -> str:
    """The fingerprint of the weights that made the features."""
    return str(cache.header.identity.get("weights", ""))
