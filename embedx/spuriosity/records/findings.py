"""What the folder of an analysis holds, read together and checked to be of one network and one set of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedx.errors import ProvenanceError, SpuriosityError
from embedx.evaluation.records import Notice
from embedx.spuriosity import annotations
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.measures import gaps as gap
from embedx.spuriosity.measures.gaps import Gaps
from embedx.spuriosity.measures.tuned import Tuning
from embedx.spuriosity.records import flags, review_check
from embedx.spuriosity.records import tunings as _tunings
from embedx.spuriosity.records.discovery import Discovery
from embedx.spuriosity.records.flags import Flag
from embedx.spuriosity.records.gaps import Measured
from embedx.spuriosity.records.panel import FILE as PANELS
from embedx.spuriosity.records.panel import Panel, Panels
from embedx.spuriosity.records.review_check import ReviewCheck

STEPS = {
    PANELS: "panels", annotations.FILE: "annotate", gap.FILE: "gap", _tunings.FILE: "tune", flags.FILE: "review",
}  # fmt: skip
"""The files beside the discovery, and the step that makes each."""


@dataclass(frozen=True, eq=False)
class Findings:
    """The parts of an analysis that there are, keyed by (class code, feature) where they are of a pair.

    Each file is read once.
    missing  {what is not there: the command that makes it}
    check    of these flags against real labels, where there is one
    """

    discovery: Discovery
    panels: Mapping[tuple[int, int], Panel]
    annotations: Mapping[tuple[int, int], Annotation]
    measured: Measured
    tuning: tuple[Tuning, ...]
    flags: tuple[Flag, ...]
    missing: Mapping[str, str]
    check: ReviewCheck | None = None

    @classmethod
    def load(cls, folder: Path, notice: Notice) -> Findings:
        """Everything below `folder`; all but the discovery may be missing.

        Raises `SpuriosityError` for what is damaged or of other classes, `ProvenanceError` for what is of another
        network: the numbers of features mean nothing there.
        """
        discovery = Discovery.load(folder)
        made = {name for name in STEPS if (folder / name).is_file()}
        panels = _panels(folder, discovery) if PANELS in made else {}
        if panels and (bare := [c for c in discovery.candidates if (c.label, c.feature) not in panels]):
            notice(
                f"note: {PANELS} is of another discovery: {len(bare):,} of {len(discovery.candidates):,} features have "
                "no panel; draw them with `embedx spuriosity panels`"
            )
        measured = _measured(folder, discovery) if gap.FILE in made else Measured()
        return cls(
            discovery, panels, _annotations(folder, discovery, notice) if annotations.FILE in made else {}, measured,
            _tuning(folder, discovery) if _tunings.FILE in made else (),
            tuple(flags.load(folder)) if flags.FILE in made else (),
            {name: f"embedx spuriosity {step}" for name, step in STEPS.items() if name not in made},
            review_check.load(folder, notice),
        )  # fmt: skip

    def label(self, pair: tuple[int, int]) -> str:
        """What a feature was called: "core", "spurious", "unsure"; "" where nobody has looked."""
        annotation = self.annotations.get(pair)
        return annotation.label if annotation else ""

    def gaps(self, label: int) -> list[tuple[Gaps, Any]]:
        """(model, `ClassGap`) of every model that has a gap of the class."""
        return [(g, c) for g in self.measured.models for c in g.classes if c.label == label]


def _panels(folder: Path, discovery: Discovery) -> dict[tuple[int, int], Panel]:
    drawn = Panels.load(folder)
    if drawn.weights != discovery.weights:
        raise ProvenanceError(
            f"{folder / PANELS} was drawn with weights {drawn.weights[:12]}, the features were discovered in weights "
            f"{discovery.weights[:12]}; draw the panels again with `embedx spuriosity panels`"
        )
    for p in drawn.panels:
        _same_class(discovery, p.label, p.class_name, PANELS)
    return {(p.label, p.feature): p for p in drawn.panels}


def _annotations(folder: Path, discovery: Discovery, notice: Notice) -> dict[tuple[int, int], Annotation]:
    entries = annotations.read(folder / annotations.FILE, notice)
    annotations.check(entries, discovery.weights)
    for a in entries:
        _same_class(discovery, a.class_index, a.class_name, annotations.FILE)
    return {(a.class_index, a.feature): a for a in entries if a.feature is not None}


def _measured(folder: Path, discovery: Discovery) -> Measured:
    measured = Measured.load(folder).alike()
    for g in measured.models:
        _same_dataset(discovery, g.dataset, folder / gap.FILE)
        for c in g.classes:
            _same_class(discovery, c.label, c.name, gap.FILE)
    return measured


def _tuning(folder: Path, discovery: Discovery) -> tuple[Tuning, ...]:
    models = _tunings.load(folder / _tunings.FILE).models
    for model in models:
        _same_dataset(discovery, model.dataset, folder / _tunings.FILE)
    return models


def _same_dataset(discovery: Discovery, dataset: str, file: Path) -> None:
    if dataset != discovery.dataset:
        raise SpuriosityError(f"{file} is of {dataset}, expected {discovery.dataset}; make it again")


def _same_class(discovery: Discovery, label: int, name: str, file: str) -> None:
    expected = discovery.classes[label] if 0 <= label < len(discovery.classes) else None
    if expected != name:
        raise SpuriosityError(
            f"{file} calls class {label} {name!r}, and the discovery calls it {expected!r}; run `embedx spuriosity "
            f"{STEPS[file]}` again"
        )


def core_features(discovery: Discovery, entries: Sequence[Annotation]) -> dict[int, tuple[int, ...]]:
    """{class: its discovered features that nobody calls spurious, the most important first}."""
    spurious = annotations.spurious(entries)
    return {c: tuple(x.feature for x in of if x.feature not in spurious.get(c, ())) for c, of in discovery.of.items()}
