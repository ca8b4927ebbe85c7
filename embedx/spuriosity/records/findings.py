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
from embedx.spuriosity.records import tunings as _tunings
from embedx.spuriosity.records.discovery import Discovery
from embedx.spuriosity.records.gaps import Measured
from embedx.spuriosity.records.panel import FILE as PANELS
from embedx.spuriosity.records.panel import Panel, Panels


@dataclass(frozen=True, eq=False)
class Findings:
    """The parts of an analysis that there are, keyed by (class code, feature) where they are of a pair.

    missing  {what is not there: the command that makes it}
    """

    discovery: Discovery
    panels: Mapping[tuple[int, int], Panel]
    annotations: Mapping[tuple[int, int], Annotation]
    measured: Measured
    tuning: tuple[Mapping[str, Any], ...]
    missing: Mapping[str, str]

    @classmethod
    def load(cls, folder: Path, notice: Notice) -> Findings:
        """Everything below `folder`; all but the discovery may be missing.

        Raises `SpuriosityError` for what is damaged or of other classes, `ProvenanceError` for what is of another
        network: the numbers of features mean nothing there.
        """
        discovery, missing = Discovery.load(folder), {}
        steps = {PANELS: "panels", annotations.FILE: "annotate", gap.FILE: "gap", _tunings.FILE: "tune"}
        there = {name: (folder / name).is_file() for name in steps}
        missing = {name: f"embedx spuriosity {step}" for name, step in steps.items() if not there[name]}
        panels = _panels(folder, discovery) if there[PANELS] else {}
        if panels and (bare := [c for c in discovery.candidates if (c.label, c.feature) not in panels]):
            notice(
                f"note: {PANELS} is of another discovery: {len(bare):,} of {len(discovery.candidates):,} features have "
                "no panel; draw them with `embedx spuriosity panels`"
            )
        said = annotations.read(folder / annotations.FILE, notice) if there[annotations.FILE] else ()
        annotations.check(said, discovery.weights)
        for a in said:
            _same_class(discovery, a.class_index, a.class_name, annotations.FILE, "annotate")
        measured = Measured.load(folder).alike() if there[gap.FILE] else Measured()
        for g in measured.models:
            for c in g.classes:
                _same_class(discovery, c.label, c.name, gap.FILE, "gap")
        pairs = {(a.class_index, a.feature): a for a in said if a.feature is not None}
        tuning = tuple(_tunings.load(folder / _tunings.FILE)["models"]) if there[_tunings.FILE] else ()
        for file, of in (
            (gap.FILE, [g.dataset for g in measured.models]),
            (_tunings.FILE, [t["dataset"] for t in tuning]),
        ):
            if odd := [name for name in of if name != discovery.dataset]:
                raise SpuriosityError(f"{folder / file} is of {odd[0]}, expected {discovery.dataset}; make it again")
        return cls(discovery, panels, pairs, measured, tuning, missing)

    def label(self, pair: tuple[int, int]) -> str:
        """What a feature was called: "core", "spurious", "unsure"; "" where nobody has looked."""
        said = self.annotations.get(pair)
        return said.label if said else ""

    def gaps(self, label: int) -> list[tuple[Gaps, Any]]:
        """(model, `ClassGap`) of every model that has a gap of the class."""
        return [(g, c) for g in self.measured.models for c in g.classes if c.label == label]


def _panels(folder: Path, discovery: Discovery) -> dict[tuple[int, int], Panel]:
    found = Panels.load(folder)
    if found.weights != discovery.weights:
        raise ProvenanceError(
            f"{folder / PANELS} was drawn with weights {found.weights[:12]}, the features were discovered in weights "
            f"{discovery.weights[:12]}; draw the panels again with `embedx spuriosity panels`"
        )
    for p in found.panels:
        _same_class(discovery, p.label, p.class_name, PANELS, "panels")
    return {(p.label, p.feature): p for p in found.panels}


def _same_class(discovery: Discovery, label: int, name: str, file: str, step: str) -> None:
    known = discovery.classes[label] if 0 <= label < len(discovery.classes) else None
    if known != name:
        raise SpuriosityError(
            f"{file} calls class {label} {name!r}, and the discovery calls it {known!r}; run `embedx spuriosity "
            f"{step}` again"
        )


def core_features(discovery: Discovery, said: Sequence[Annotation]) -> dict[int, tuple[int, ...]]:
    """{class: its discovered features that nobody calls spurious, the most important first}."""
    spurious = annotations.spurious(said)
    return {c: tuple(x.feature for x in of if x.feature not in spurious.get(c, ())) for c, of in discovery.of.items()}
