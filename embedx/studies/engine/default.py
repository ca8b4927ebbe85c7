"""The answer of a study that names none: ranks over its datasets, and a verdict on every backbone of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embedx.evaluation.runs import Run
from embedx.evaluation.verdict import Verdict, verdicts
from embedx.report.text import p_text, signed
from embedx.studies.outcome import Answer, CellRuns, Outcome, Section


def ranks_and_verdicts(outcome: Outcome) -> Answer:
    """Which heads and backbones rank best over the datasets, and where a plain head is enough."""
    sections = []
    judged = {name_of(cell): verdicts(cell.runs) for cell in outcome.cells}
    if any(judged.values()):
        sections.append(_verdicts(judged))
    if not sections:
        sections = [_runs_alone(outcome)]
    return Answer(" ".join(section.answer for section in sections), tuple(sections))


def name_of(cell: CellRuns) -> str:
    """A cell as tables and plots name it: its table, and the values that are swept."""
    return " ".join([cell.table, *(f"{axis}={value}" for axis, value in cell.axes.items())])


def _verdicts(judged: Mapping[str, Sequence[Verdict]]) -> Section:
    """In how many cases the plain head is enough; p-values adjusted over backbones and datasets, as each is a test."""
    import pandas as pd

    rows = [(name, v) for name, of in judged.items() for v in of]
    counts = {word: sum(v.verdict == word for _, v in rows) for word in ("suffices", "does not suffice", "undecided")}
    margin = f"{100 * rows[0][1].margin:g} points"
    answer = (
        f"Of {len(rows):,} backbones on datasets the plain head suffices on {counts['suffices']:,} (within {margin} of "
        f"the best head with group labels), does not on {counts['does not suffice']:,}, and "
        f"{counts['undecided']:,} are undecided."
    )
    table = pd.DataFrame([
        {
            "dataset": name, "backbone": v.backbone, "best with groups": v.rival,
            "worst group gained, points": f"{signed(v.difference.value)} ({signed(v.difference.low)} to "
            f"{signed(v.difference.high)})", "n": v.difference.n, "suffices": p_text(v.p_suffices),
            "does not": p_text(v.p_not), "verdict": v.verdict,
        }
        for name, v in rows
    ])  # fmt: skip
    evidence = (
        "Paired differences of the worst group on the same test rows; p-values adjusted over the backbones of each "
        "dataset (Holm)."
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
