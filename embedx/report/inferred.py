"""The groups that heads inferred by themselves, beside the true ones: a row for each head that inferred any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from embedx.evaluation.inferred import InferredGroups
from embedx.report.results import HeadResult, SeedMean
from embedx.report.text import count, mean_interval_n
from embedx.statistics import Interval

HEADINGS = (
    "backbone", "head", "cells", "ARI within classes", "agreement %", "classes alone %", "minority found %",
    "of what is found, minority %",
)  # fmt: skip


def rows(results: Sequence[HeadResult]) -> list[tuple[str, ...]]:
    """What `HEADINGS` say of every result, its seeds joined; those without inferred groups are left out."""
    return [row for result in results if (row := _row(result))]


def _row(result: HeadResult) -> tuple[str, ...]:
    of = [run.inferred for run in result.runs if run.inferred is not None]
    if not of:
        return ()
    scores = [x.ari for x in of]
    ari = f"{fmean(scores):.3f}" + (f" ({min(scores):.3f}–{max(scores):.3f} by seed)" if len(of) > 1 else "")
    return (
        result.backbone, result.name, count([x.cells for x in of]), ari, _mean(of, lambda x: x.agreement),
        f"{100 * fmean(x.classes_alone for x in of):.1f}", _mean(of, lambda x: x.recall),
        _mean(of, lambda x: x.precision),
    )  # fmt: skip


def _mean(of: Sequence[InferredGroups], figure: Callable[[InferredGroups], Interval | None]) -> str:
    """Mean over the seeds that have the figure; a dash where none has."""
    figures = [x for one in of if (x := figure(one)) is not None]
    return mean_interval_n(SeedMean.of(figures)) if figures else "–"
