"""What the page works on: a discovery, its pictures, votes and figures, each read again when its file has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from embedx import journal
from embedx.annotation.effects import Effect, Strip, tuned_gap
from embedx.annotation.votes import Votes
from embedx.errors import EmbedxError, SpuriosityError
from embedx.spuriosity import annotations
from embedx.spuriosity.annotations import Annotation, validations
from embedx.spuriosity.annotations.validations import Validation
from embedx.spuriosity.measures import gaps as gap
from embedx.spuriosity.measures.gaps import ClassGap, Gaps
from embedx.spuriosity.measures.tuned import Tuning
from embedx.spuriosity.panels import record_of
from embedx.spuriosity.records import discovery as discoveries
from embedx.spuriosity.records import flags, tunings
from embedx.spuriosity.records.discovery import Discovery
from embedx.spuriosity.records.flags import Flag
from embedx.spuriosity.records.gaps import Measured
from embedx.spuriosity.records.panel import ONE, Panel
from embedx.statistics import Interval
from embedx.workspace import slug

T = TypeVar("T")


@dataclass(frozen=True)
class PageSettings:
    """How the page is shown.

    annotator  who answers, until another name is given in the page
    blind      hides gaps and what others say, for everybody; else each may choose
    read_only  shows everything and takes nothing
    gold       answers that are known beforehand, by which annotators are measured
    named      whether the name was given for this start, so that one from before does not count
    """

    annotator: str
    blind: bool = False
    read_only: bool = False
    gold: Mapping[tuple[int, int], str] = field(default_factory=dict)
    named: bool = False


@dataclass
class FileValue(Generic[T]):
    """What `load` makes of a file, made again when the file is another; `missing` without the file."""

    path: Path
    load: Callable[[Path], T]
    missing: T
    _stamp: tuple[int, ...] | None = None
    _value: T | None = None

    def get(self) -> T:
        """The value by now. Raises as `load` does."""
        try:
            stat = self.path.stat()
        except OSError:
            self._stamp = self._value = None
            return self.missing
        stamp = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if stamp != self._stamp or self._value is None:
            self._value = self.load(self.path)
            self._stamp = stamp
        return self._value

    def forget(self) -> None:
        """Make it again when it is asked for next."""
        self._stamp = self._value = None


NOTHING = Measured()


class Board:
    """Everything that pages are made of. `refresh` before each request; all else only reads."""

    def __init__(self, folder: Path, settings: PageSettings) -> None:
        self.folder, self.settings = folder, settings
        self._discovery = FileValue(folder / discoveries.FILE, lambda path: Discovery.load(path.parent), None)
        self._measured = FileValue(folder / gap.FILE, lambda path: Measured.load(path.parent).alike(), NOTHING)
        self._tunings = FileValue[tuple[Tuning, ...]](folder / tunings.FILE, lambda path: tunings.load(path).models, ())
        self._flags = FileValue(folder / flags.FILE, lambda path: flags.load(path.parent), list[Flag]())
        self._panels: dict[tuple[int, int], FileValue[Panel | None]] = {}
        self.accuracy: dict[int, Interval] = {}
        self.discovery = self._current()
        self.votes = Votes(folder / annotations.FILE, self.discovery)
        self._checked = FileValue[tuple[Validation, ...]](folder / validations.FILE, self._validations, ())
        self.problems: dict[str, str] = {}
        self._left_out: list[str] = []

    def _current(self) -> Discovery:
        found = self._discovery.get()
        if found is None:
            raise SpuriosityError(
                f"{self.folder / discoveries.FILE} does not exist; make it with `embedx spuriosity discover`"
            )
        return found

    def refresh(self) -> None:
        """Take in what changed on the disk. Raises `SpuriosityError` for a discovery that is gone or damaged."""
        if (found := self._current()) is not self.discovery:
            self.discovery = found
            self.votes = Votes(self.votes.path, found)
            self._panels.clear()
            self._checked.forget()
            self.accuracy = {}
        self.votes.refresh()

    @property
    def of(self) -> str:
        """What tells this discovery, in this folder, from all others: 16 digits."""
        d = self.discovery
        pairs = [(c.label, c.feature) for c in d.candidates]
        facts = [str(self.folder.resolve()), d.dataset, d.backbone, d.weights, d.classes, pairs]
        return hashlib.sha256(repr(facts).encode("utf-8", "replace")).hexdigest()[:16]

    def panel(self, label: int, feature: int) -> Panel | None:
        """The pictures of a pair; None where they are not drawn."""
        if (label, feature) not in self._panels:
            record = self.folder / record_of(label, self.discovery.classes[label], feature)
            self._panels[label, feature] = FileValue(record, ONE.read, None)
        found = self._safe(self._panels[label, feature])
        wanted = next((c for c in self.discovery.of[label] if c.feature == feature), None)
        # Pictures of another discovery, of other weights for one, are none of this feature.
        same = found and wanted and (found.rank, found.importance) == (wanted.rank, wanted.importance)
        return found if same else None

    @property
    def measured(self) -> Measured:
        """The gaps of models, those of this dataset with the split of the first."""
        found = self._safe(self._measured)
        return found if all(g.dataset == self.discovery.dataset for g in found.models) else NOTHING

    def gaps(self, label: int) -> list[tuple[Gaps, ClassGap]]:
        """(model, gap) of each model that was measured on a class; those on the ranking backbone first."""
        found = [(g, c) for g in self.measured.models for c in g.classes if c.label == label]
        return sorted(found, key=lambda pair: slug(pair[0].backbone) != slug(self.discovery.backbone))

    @property
    def tuned(self) -> Tuning | None:
        """The tuning of the model whose gaps come first."""
        models = self.measured.models
        return next((t for t in self._safe(self._tunings) if models and t.model == models[0].model), None)

    def effect(self, label: int, strip: Strip | None) -> Effect | None:
        """What the answers changed for a class as the files have it; None where nothing was measured."""
        measured = self.measured
        if not (gaps := self.gaps(label)):
            return None
        model, before = gaps[0]
        tuned = self.tuned
        after, reason = tuned_gap([tuned] if tuned else [], model.model, label)
        cues = measured.ranking.cues.get(label, ()) if measured.ranking else ()
        return Effect(model.model, tuple(cues), strip, before, after, reason)

    @property
    def flags(self) -> list[Flag]:
        """The queue of the review."""
        return self._safe(self._flags)

    @property
    def validations(self) -> tuple[Validation, ...]:
        """The answers on whether pictures show the same thing."""
        return self._safe(self._checked)

    def validate(self, line: Validation) -> None:
        """Add an answer on whether pictures show the same thing, safe on disk when this returns."""
        journal.append(self.folder / validations.FILE, validations.KIND, line)

    def _validations(self, path: Path) -> tuple[Validation, ...]:
        said: list[str] = []
        found = validations.read(path, self.discovery.weights, said.append, self.discovery.classes)
        self._left_out = said
        return found

    def _safe(self, value: FileValue[T]) -> T:
        """A value, or what stands for a missing one where its file is damaged, which is shown: a page does without."""
        try:
            found = value.get()
        except EmbedxError as error:
            self.problems[str(value.path)] = str(error)
            return value.missing
        self.problems.pop(str(value.path), None)
        return found

    @property
    def notes(self) -> list[str]:
        """What a person should know of the files."""
        return [*self.votes.problems.values(), *self._left_out, *self.problems.values()]

    def role(self, label: int, feature: int) -> str:
        """What all votes together call a feature; "" where nobody has answered."""
        said: Annotation | None = self.votes.of(label, feature)
        return said.label if said else ""
