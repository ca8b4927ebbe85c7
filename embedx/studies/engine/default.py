"""The answer of a study that names none: ranks over its datasets, and a verdict on every backbone of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedx.evaluation.runs import Run
from embedx.evaluation.verdict import Verdict, verdicts
from embedx.report.ranks import critical_difference
from embedx.report.text import p_text, signed
from embedx.statistics.across_datasets import LEVEL, ranks_over_datasets
from embedx.studies.outcome import Answer, CellRuns, Outcome, Section


def ranks_and_verdicts(outcome: Outcome) -> Answer:
    """Which heads and backbones rank best over the datasets, and where a plain head is enough."""
    sections = [section for of in ("head", "backbone") if (section := _ranks(outcome, of)) is not None]
    judged = {name_of(cell): verdicts(cell.runs) for cell in outcome.cells}
    if any(judged.values()):
        sections.append(_verdicts(judged))
    if not sections:
        sections = [_runs_alone(outcome)]
    return Answer.of(*sections)


def name_of(cell: CellRuns) -> str:
    """A cell as tables and plots name it: its table, and the values that are swept."""
    return " ".join([cell.table, *(f"{axis}={value}" for axis, value in cell.axes.items())])


def _ranks(outcome: Outcome, of: str) -> Section | None:
    """Heads, or backbones, ranked on every dataset by their worst group on test; None where there is one of either.

    A dataset is the unit: its score is the mean over seeds, rules and what is not ranked. Only those count that have
    runs on every dataset with all others.
    """
    import pandas as pd

    frame = outcome.frame.assign(cell=_cell_names(outcome))
    other = "backbone" if of == "head" else "head"
    grouped: Any = frame.groupby(["cell", of, other], sort=False)["worst_group"]
    scores = grouped.mean().unstack([of, other])
    whole = scores.dropna(axis="columns").T.groupby(level=of, sort=False)
    table = whole.mean().T
    if table.shape[0] < 2 or table.shape[1] < 2:
        return None
    names, ranks = [str(name) for name in table.columns], ranks_over_datasets(table.to_numpy())
    best, last = names[ranks.best_first[0]], names[ranks.best_first[-1]]
    differ = ranks.p < LEVEL
    apart = [pair for pair in ranks.pairs if pair.holm < LEVEL]
    answer = (
        f"Over {ranks.datasets:,} datasets {best} has the best mean rank among {len(names):,} {of}s "
        f"({min(ranks.mean_ranks):.2f}) and {last} the worst ({max(ranks.mean_ranks):.2f}); "
        + ("they differ by more than chance" if differ else "that they differ by more than chance is not shown")
        + f" ({p_text(ranks.p)})."
    )
    pairs = (
        f"{len(ranks.pairs):,} pairs by Wilcoxon’s signed ranks with Holm’s correction: "
        + (f"{len(apart):,} told apart" if apart else "none told apart")
        + (f", as so few datasets cannot: the smallest corrected p is {ranks.least_holm:.2g}" * ranks.too_few_for_pairs)
    )
    evidence = (
        f"Friedman’s test over datasets, by counting the orders of ranks: χ² = {ranks.friedman:.2f}, "
        f"{p_text(ranks.p)} (the least that {ranks.datasets:,} datasets can give: {ranks.least_p:.2g}). {pairs}."
    )
    if len({cell.table for cell in outcome.cells}) < len(outcome.cells):
        evidence += " Cells of one table share images: they are no independent datasets, and p is too small."
    shown = pd.DataFrame([
        {of: names[j], "mean rank": f"{ranks.mean_ranks[j]:.2f}",
         "mean worst group %": f"{100 * table.iloc[:, j].mean():.1f}", "datasets": ranks.datasets}
        for j in ranks.best_first
    ])  # fmt: skip
    plot = (f"Mean ranks of {of}s, joined where no pair is told apart", critical_difference(ranks, names))
    return Section(f"Which {of} ranks best over the datasets?", answer, evidence, (plot,), (("Mean ranks", shown),))


def _cell_names(outcome: Outcome) -> list[str]:
    """Of every row of the frame, whose rows are those of the cells in order."""
    return [name_of(cell) for cell in outcome.cells for _ in cell.runs]


def _verdicts(judged: Mapping[str, Sequence[Verdict]]) -> Section:
    """In how many cases the plain head is enough; p-values adjusted over backbones and datasets, as each is a test."""
    import pandas as pd

    rows = [(name, v) for name, of in judged.items() for v in of]
    counts = {word: sum(v.verdict == word for _, v in rows) for word in ("suffices", "does not suffice", "undecided")}
    margin = f"{100 * rows[0][1].margin:g} points"
    answer = (
        f"Of {len(rows):,} backbones on datasets the plain head suffices on {counts['suffices']:,} (within {margin} of "
        f"the best head with group labels) and does not on {counts['does not suffice']:,}; undecided: "
        f"{counts['undecided']:,}."
    )
    table = pd.DataFrame([
        {
            "dataset": name, "backbone": v.backbone, "gains most with groups": v.rival,
            "worst group gained, points": f"{signed(v.difference.value)} ({signed(v.difference.low)} to "
            f"{signed(v.difference.high)})", "n": v.difference.n, "suffices": p_text(v.p_suffices),
            "does not": p_text(v.p_not), "verdict": v.verdict,
        }
        for name, v in rows
    ])  # fmt: skip
    evidence = (
        "Paired differences of the worst group on the same test rows; p-values allow for the best of all heads with "
        "group labels being met, and are adjusted over the backbones of each dataset (Holm)."
    )
    return Section("Is the plain head enough?", answer, evidence, tables=(("Verdicts", table),))


def _runs_alone(outcome: Outcome) -> Section:
    """Where neither ranks nor verdicts can be had: the best run of every cell, by its worst group on validation."""
    best = [
        max(cell.runs, key=lambda run: (run.validation_worst_group or 0.0, run.validation_score))
        for cell in outcome.cells
    ]
    words = "; ".join(map(_in_words, outcome.cells, best))
    return Section("Which head is best on each dataset, chosen on validation?", f"{words}.")


def _in_words(cell: CellRuns, run: Run) -> str:
    worst = run.metrics.worst_group
    figures = f"{100 * worst.value:.1f} % ({100 * worst.low:.1f}–{100 * worst.high:.1f}, n = {worst.n:,})"
    return f"{name_of(cell)}: {run.head} on {run.backbone}, worst group {figures}"
