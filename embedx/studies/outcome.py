"""What a study comes to: the runs of all its cells, and the answer that is read off them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embedx.data.manifest import Manifest
from embedx.evaluation.runs import Runs
from embedx.store import FeatureCache, open_cache
from embedx.studies.study import Study
from embedx.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CellRuns:
    """One dataset of a study, and the runs on it.

    table  key of the table that it is of
    axes   {option: value} of those that are swept
    """

    table: str
    axes: Mapping[str, Any]
    manifest: Manifest
    runs: Runs
    workspace: Workspace

    def cache(self, backbone: str) -> FeatureCache:
        """The features of a backbone."""
        return open_cache(self.workspace, self.manifest, backbone)


@dataclass(frozen=True)
class Outcome:
    """All runs of a study.

    frame  one row a run: `table`, `dataset`, every axis as a column (`data.seed` where a run has one of that name),
           then as `embedx.runs_frame` has it; the figures of test also without their prefix: `worst_group`,
           `worst_group_low`, `worst_group_high`, `worst_group_n`;
           parameters of heads that are swept as columns of their own
    """

    study: Study
    frame: pd.DataFrame
    cells: tuple[CellRuns, ...]


@dataclass(frozen=True)
class Section:
    """One question of a study, its answer, and what supports it.

    answer    in words, with n and interval; its first sentence is the short of it
    evidence  the test: its name, the statistic, p or an interval; empty where the answer only tells what was run
    plots     (title, SVG text or a matplotlib figure)
    tables    (title, data), figures as they are to be shown
    """

    question: str
    answer: str
    evidence: str = ""
    plots: tuple[tuple[str, Any], ...] = ()
    tables: tuple[tuple[str, pd.DataFrame], ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a study found: in a few sentences, and question by question."""

    summary: str
    sections: tuple[Section, ...] = field(default=())

    @classmethod
    def of(cls, *sections: Section) -> Answer:
        """The answer whose summary is the first sentence of each section."""
        firsts = (section.answer.partition(". ")[0].removesuffix(".") for section in sections)
        return cls(" ".join(f"{first}." for first in firsts), sections)
