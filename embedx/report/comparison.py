"""The comparison as one value: runs grouped once, for the plots, the page and the tables alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from embedx import html
from embedx.evaluation.limits import Limit, limits
from embedx.evaluation.runs import Run
from embedx.evaluation.verdict import Verdict, verdicts
from embedx.report.headline import headline
from embedx.report.published import Published, published
from embedx.report.results import HeadResult, SeedMean, by_backbone, result_of
from embedx.report.scale import Scale, scales
from embedx.report.text import mean_interval_n
from embedx.report.verdicts import StatedVerdict, stated

REFERENCE = "plain"
CROWD = 8
"""Heads of which each still gets a cross."""


@dataclass(frozen=True)
class Comparison:
    """The runs of one dataset as a report shows them.

    results     {backbone: its heads, seeds joined}, both in the order of their first run
    verdicts    with the results that they are of
    limits      backbones on which no head is good
    reference   the head that stands for its backbone: the plain one, or without it the first
    standing    {backbone: worst group of the reference head}, of those that have it
    scales      sizes of the backbones against their worst groups
    published   what was published for the dataset
    maps        {backbone: SVG text of its `embedding_map`}
    """

    runs: tuple[Run, ...]
    results: Mapping[str, tuple[HeadResult, ...]]
    verdicts: tuple[StatedVerdict, ...]
    reference: str
    standing: Mapping[str, SeedMean]
    scales: tuple[Scale, ...]
    published: tuple[Published, ...]
    limits: tuple[Limit, ...] = ()
    maps: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, runs: Sequence[Run], answers: Sequence[Verdict] | None = None, maps: Mapping[str, str] | None = None
    ) -> Comparison:
        """Group runs, and take together all that is shown of them.

        answers  verdicts on heads that are among the runs, one per backbone; by default those that the runs give
        Raises `ValueError` without runs, for runs of several datasets, whose groups have nothing in common, and for a
        verdict or a map of what is not among the runs.
        """
        if len(datasets := {run.dataset for run in runs}) != 1:
            raise ValueError(f"a report shows the runs of one dataset, these are of {sorted(datasets)}")
        results, maps = by_backbone(runs), maps or {}
        if strange := set(maps) - set(results):
            raise ValueError(f"there is a map of {min(strange)}, and the runs are of {', '.join(results)}")
        reference = REFERENCE if any(run.head == REFERENCE for run in runs) else runs[0].head
        own = {backbone: result_of(heads, reference, groups=False) for backbone, heads in results.items()}
        standing = {backbone: result.worst_group for backbone, result in own.items() if result is not None}
        return cls(
            runs=tuple(runs), results=results, reference=reference, standing=standing, scales=scales(standing),
            verdicts=stated(results, verdicts(runs) if answers is None else answers),
            published=published(runs[0].dataset), limits=tuple(limits(runs)),
            maps={backbone: maps[backbone] for backbone in results if backbone in maps},
        )  # fmt: skip

    @property
    def dataset(self) -> str:
        """The one that all runs are of."""
        return self.runs[0].dataset

    @cached_property
    def headline(self) -> str:
        """What the data say in a sentence."""
        return headline(self.dataset, self.results, [v.verdict for v in self.verdicts], self.limits)

    @property
    def backbones(self) -> list[str]:
        """In the order of their first run."""
        return list(self.results)

    @cached_property
    def rows(self) -> list[HeadResult]:
        """All results, backbone by backbone."""
        return [result for heads in self.results.values() for result in heads]

    @cached_property
    def heads(self) -> list[str]:
        """Names of the heads, without the rules that chose them."""
        return list(dict.fromkeys(run.head for run in self.runs))

    @cached_property
    def group_names(self) -> list[str]:
        """Of every group of any run."""
        return list(dict.fromkeys(group.name for run in self.runs for group in run.metrics.groups))

    @property
    def seeds(self) -> int:
        """Of the head that has most."""
        return max(result.seeds for result in self.rows)

    @property
    def crowded(self) -> bool:
        """Whether there are too many heads for a cross each."""
        return len({result.name for result in self.rows}) > CROWD

    def _repr_html_(self) -> str:
        """What a notebook shows: the worst group and the average of every result."""
        headings = ("backbone", "head", "worst group %", "worst group", "average %", "supervision", "seeds")
        rows = [
            (r.backbone, r.name, mean_interval_n(r.worst_group), r.worst_group_name, mean_interval_n(r.average),
             r.supervision, r.seeds)
            for r in self.rows
        ]  # fmt: skip
        title = f"{self.dataset}: test split, 95 % intervals in brackets"
        return html.table(headings, rows, caption=title, numbers={"worst group %", "average %", "seeds"})
