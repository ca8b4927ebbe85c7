"""Study `scale`: does the plain head catch up with group-aware ones as the embedding gets better, and where?

Quality is no outcome of the comparison: it is how well the label can be told apart on validation rows, of which every
scan lies over both backgrounds (`_separability`); what is compared are heads fitted to training rows, on test rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx.data.digits import deck
from embedx.evaluation.split import join
from embedx.evaluation.verdict import ERROR, MARGIN
from embedx.extractors.tiny import grade
from embedx.report.drawing import FAINT, INK, legend, looks_of, svg_of
from embedx.report.text import p_text, signed
from embedx.statistics import Correlation, Interval, holm, spearman
from embedx.studies._catching_up import Gap, certified, crossing, gaps
from embedx.studies._separability import separability
from embedx.studies.outcome import Answer, CellRuns, Outcome, Section

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LABEL, LEAD = "label told apart", "lead of the label"
LEVERS = {"features": "capacity", "pictures": "pre-training size", "textures": "diversity"}


@dataclass(frozen=True)
class Embedding:
    """One backbone: how well it tells the label apart, and the background, each where the other does not go with it."""

    backbone: str
    label: Interval
    background: Interval


@dataclass(frozen=True)
class Strength:
    """The gaps at one correlation of label and background, embeddings from the worst to the best."""

    correlation: float
    gaps: tuple[Gap, ...]
    embeddings: tuple[Embedding, ...]

    @property
    def quality(self) -> np.ndarray:
        """(n,) how well each embedding tells the label apart."""
        return np.array([e.label.value for e in self.embeddings])

    @property
    def predictors(self) -> dict[str, np.ndarray]:
        """{name: (n,)} of what may go with the gap, how well label and background are told apart; label minus it."""
        background = np.array([e.background.value for e in self.embeddings])
        lead = self.quality - background
        return {LABEL: self.quality, "background told apart": background, LEAD: lead}

    @property
    def values(self) -> np.ndarray:
        """(n,) the gaps."""
        return np.array([gap.value for gap in self.gaps])


def answer(outcome: Outcome) -> Answer:
    """The gap against quality at every strength, where it closes, and what makes the quality."""
    embeddings = _embeddings(outcome.cells)
    strengths = _strengths(outcome.cells, embeddings)
    sections = (_falls(strengths), _closes(strengths), _levers(strengths))
    return Answer.of(*sections)


def _embeddings(cells: Sequence[CellRuns]) -> dict[str, Embedding]:
    """Every backbone once, from the worst to the best; validation is the same in all cells."""
    scan_of = {card.id: card.scan for card in deck()}
    found: dict[str, Embedding] = {}
    for cell in cells:
        for backbone in dict.fromkeys(run.backbone for run in cell.runs if run.backbone not in found):
            val = join(cell.manifest, cell.cache(backbone)).val
            scans = np.array([scan_of[i] for i in val.ids])
            (background,) = val.attributes.values()
            found[backbone] = Embedding(
                backbone, separability(val.X, val.y, scans), separability(val.X, background, scans)
            )
    return dict(sorted(found.items(), key=lambda item: item[1].label.value))


def _strengths(cells: Sequence[CellRuns], embeddings: dict[str, Embedding]) -> list[Strength]:
    """Cells that differ in the draw only are one strength; tables of other backbones add theirs."""
    correlations = sorted({cell.axes["correlation"] for cell in cells})
    found = []
    for correlation in correlations:
        here = [cell for cell in cells if cell.axes["correlation"] == correlation]
        tables = dict.fromkeys(cell.table for cell in here)
        of = {gap.backbone: gap for t in tables for gap in gaps([cell.runs for cell in here if cell.table == t])}
        order = [name for name in embeddings if name in of]
        found.append(Strength(correlation, tuple(of[n] for n in order), tuple(embeddings[n] for n in order)))
    return found


def _falls(strengths: Sequence[Strength]) -> Section:
    measured = [{name: spearman(x.tolist(), s.values.tolist()) for name, x in s.predictors.items()} for s in strengths]
    adjusted = iter(holm([c.p for of in measured for c in of.values() if c is not None]))
    rows, falling = [], dict[str, list[str]]()
    for s, of in zip(strengths, measured, strict=True):
        at = f"{100 * s.correlation:g} %"
        row: dict[str, Any] = {"correlation": at, "embeddings": len(s.gaps)}
        row["gap from, points"], row["to"] = signed(s.values.min()), signed(s.values.max())
        for name, c in of.items():
            p = None if c is None else next(adjusted)
            row[f"rho with the {name}"] = "–" if c is None or p is None else _rho(c, p)
            if c is not None and p is not None and p <= ERROR and c.rho < 0:
                falling.setdefault(name, []).append(at)
        rows.append(row)
    words = [f"with the {name} at {', '.join(falling[name])}" for name in falling]
    text = (
        f"The gap between the best group-aware head and the plain one falls {'; '.join(words)} correlation."
        if words else "The gap falls with none of the qualities measured, at no strength."
    )  # fmt: skip
    return Section(
        "Does the gap close as the embedding gets better?", text,
        "Spearman's rank correlation over embeddings, p adjusted over all (Holm). The lead of the label, how much "
        "better it is told apart than the background, was added after first figures had been seen: what it shows is to "
        "be tested anew.",
        (("gap against quality", _against_quality(strengths)),),
        (("Rank correlations of the gap", _frame(rows)), ("Every embedding", _every(strengths))),
    )  # fmt: skip


def _rho(c: Correlation, p: float) -> str:
    interval = "" if c.low is None or c.high is None else f" ({c.low:+.2f} to {c.high:+.2f})"
    return f"{c.rho:+.2f}{interval}, {p_text(p)}".replace("-", "−")


def _closes(strengths: Sequence[Strength]) -> Section:
    rows, words = [], []
    for s in strengths:
        passed = certified([gap.closed for gap in s.gaps], list(s.quality))
        where, lead = (crossing(s.predictors[name], s.values) for name in (LABEL, LEAD))
        best = s.gaps[-1]
        rows.append({
            "correlation, %": f"{100 * s.correlation:g}",
            "mean gap falls to the margin at, %": _place(where.value, where.low, where.high),
            "at a lead of, points": _place(lead.value, lead.low, lead.high),
            "caught up, of": f"{sum(gap.closed for gap in s.gaps)} of {len(s.gaps)}",
            "from the best down": len(passed),
            "down to a quality of, %": f"{100 * s.quality[passed[-1]]:.1f}" if passed else "–",
            "gap on the best, points": _interval(best),
        })  # fmt: skip
        caught = (
            f"on the {len(passed)} best of {len(s.gaps)} embeddings, down to a quality of "
            f"{100 * s.quality[passed[-1]]:.0f} %" if passed else
            f"on none for sure: on the best of {len(s.gaps)} (quality {100 * s.quality[-1]:.0f} %) the gap is "
            f"{_interval(best)} points"
        )  # fmt: skip
        words.append(f"at {100 * s.correlation:g} % {caught}")
    return Section(
        "At which quality does the plain head catch up?",
        f"Within {100 * MARGIN:g} points of the best group-aware head it is, {'; '.join(words)}.",
        "95 % intervals of the paired difference, over test rows and draws together, against the margin; embeddings "
        "tested from the best down (quality is measured on other rows), until the first that fails, which errs with "
        "2.5 % at most in all. The place where the mean gap falls to the margin is by isotonic regression, its "
        "interval by drawing embeddings with replacement.",
        (), (("Where the gap closes", _frame(rows)),),
    )  # fmt: skip


def _levers(strengths: Sequence[Strength]) -> Section:
    """What makes the quality of the small networks, as far as they were trained."""
    hardest = strengths[-1]
    named = [(grade(g.backbone.partition(":")[2]), e, g) for g, e in zip(hardest.gaps, hardest.embeddings, strict=True)
             if g.backbone.startswith("tiny:w")]  # fmt: skip
    trained = [(n, e, g) for n, e, g in named if n is not None and n.pictures]
    columns = {"features": [n.width for n, _, _ in trained], "pictures": [n.pictures for n, _, _ in trained],
               "textures": [n.textures for n, _, _ in trained]}  # fmt: skip
    quality, gap = [e.label.value for _, e, _ in trained], [g.value for *_, g in trained]
    found = {(lever, of): c for lever, values in columns.items() for of, y in (("quality", quality), ("gap", gap))
             if (c := spearman(values, y)) is not None}  # fmt: skip
    adjusted = dict(zip(found, holm([c.p for c in found.values()]), strict=True))
    rows = [
        {"lever": LEVERS[lever], "levels": len(set(values)),
         **{f"rho with the {of}": _rho(found[lever, of], adjusted[lever, of]) if (lever, of) in found else "–"
            for of in ("quality", "gap")}}
        for lever, values in columns.items()
    ]  # fmt: skip
    helps = [LEVERS[lever] for lever, of in found if of == "quality" and adjusted[lever, of] <= ERROR
             and found[lever, of].rho > 0]  # fmt: skip
    text = f"Of the trained networks (n = {len(trained)}), quality rises with {' and '.join(helps)}." if helps else (
        f"With {len(trained)} trained networks no lever shows by itself."
    )  # fmt: skip
    return Section(
        "What makes the quality: capacity, size or diversity of the pre-training?", text,
        f"Spearman's rank correlation over the trained small networks, gaps at {100 * hardest.correlation:g} %, p "
        "adjusted over all (Holm).", (), (("Levers", _frame(rows)),),
    )  # fmt: skip


def _every(strengths: Sequence[Strength]) -> pd.DataFrame:
    rows = []
    for s in strengths:
        for gap, e in zip(s.gaps, s.embeddings, strict=True):
            rows.append({
                "correlation, %": f"{100 * s.correlation:g}", "embedding": gap.backbone,
                "label told apart, %": _percent(e.label), "background told apart, %": _percent(e.background),
                "plain, worst group %": f"{100 * gap.plain:.1f}", "best group-aware": gap.rival,
                "its worst group %": f"{100 * gap.best:.1f}", "gap, points": _interval(gap), "n": gap.n,
                "draws": gap.draws, "caught up": "yes" if gap.closed else "no",
            })  # fmt: skip
    return _frame(rows)


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows)


def _percent(x: Interval) -> str:
    return f"{100 * x.value:.1f} ({100 * x.low:.1f}–{100 * x.high:.1f})"


def _interval(gap: Gap) -> str:
    return f"{signed(gap.value)} ({signed(gap.low)} to {signed(gap.high)})"


def _place(value: float, low: float, high: float) -> str:
    """Where the gap falls to the margin; beyond the best embedding where it does not."""
    value_text, low_text, high_text = (
        f"{100 * x:.1f}".replace("-", "−") if np.isfinite(x) else "never" for x in (value, low, high)
    )  # fmt: skip
    return value_text if value_text == low_text == high_text else f"{value_text} ({low_text} to {high_text})"


def _against_quality(strengths: Sequence[Strength]) -> str:
    def draw() -> Figure:
        from matplotlib.figure import Figure

        columns = min(3, len(strengths))
        rows = -(-len(strengths) // columns)
        figure = Figure(figsize=(3.1 * columns, 2.7 * rows), layout="tight")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        kinds = dict.fromkeys(_kind(e.backbone) for s in strengths for e in s.embeddings)
        looks = looks_of(kinds)
        for s, ax in zip(strengths, grid.flat, strict=False):
            for gap, e in zip(s.gaps, s.embeddings, strict=True):
                look = looks[_kind(e.backbone)]
                x, y = 100 * e.label.value, 100 * gap.value
                ax.plot([x, x], [100 * gap.low, 100 * gap.high], color=look["color"], lw=0.8)
                ax.plot([100 * e.label.low, 100 * e.label.high], [y, y], color=look["color"], lw=0.8)
                ax.plot([x], [y], **{**look, "ms": 5})
            ax.axhline(100 * MARGIN, color=INK, lw=0.8, ls="--")
            ax.axhline(0, color=INK, lw=0.8)
            ax.grid(color=FAINT)
            ax.set_title(f"correlation {100 * s.correlation:g} %", fontsize=9, fontweight="bold", loc="left")
        for ax in list(grid.flat)[len(strengths) :]:
            ax.set_visible(False)
        for i, ax in enumerate(grid.flat):
            if i + columns >= len(strengths):
                ax.set_xlabel("label told apart (%)")
                ax.tick_params(labelbottom=True)
        for ax in grid[:, 0]:
            ax.set_ylabel("gap of the worst group (points)")
        legend(figure, looks, columns)
        return figure

    return svg_of(draw)


def _kind(backbone: str) -> str:
    """What a marker stands for: the family, and of the small networks the number of pictures."""
    family, _, model = backbone.partition(":")
    named = grade(model) if family == "tiny" else None
    if named is None:
        return family
    return f"{named.pictures:,} pictures" if named.pictures else "untrained"
