"""What the comparison answers, backbone by backbone: the verdicts in words, and the two plots that show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedx.evaluation.runs import Run
from embedx.evaluation.verdict import Verdict
from embedx.report._drawing import COLOURS, FAINT, INK, axes, svg_of
from embedx.report._points import Bar, Spot, bar, count, limits, plain, short, spots
from embedx.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFERENCE = "plain"
GREY = "#858585"  # dark enough on white, light enough on black
TITLES = {
    "suffices": "The plain head suffices",
    "does not suffice": "The plain head does not suffice",
    "undecided": "Undecided",
}


@dataclass(frozen=True)
class Answer:
    """A verdict with what it is about: the plain head's and the rival's spots on one backbone."""

    verdict: Verdict
    plain: Spot
    rival: Spot

    @property
    def title(self) -> str:
        return TITLES[self.verdict.verdict]

    @property
    def sentence(self) -> str:
        """The verdict in words that hold for its three values, with figures and p-value."""
        v, d = self.verdict, self.verdict.difference
        gain = (
            f"{v.rival} is {points(abs(d.value))} {'better' if d.value >= 0 else 'worse'} than {v.plain} on the worst "
            f"group (95 % interval of the difference: {signed(d.low)} to {signed(d.high)})"
        )
        margin = f"the margin of {points(v.margin)}"
        if v.verdict == "suffices":
            return f"{gain}: less than {margin} ({p_text(v.p_suffices)})."
        if v.verdict == "does not suffice":
            return f"{gain}: more than {margin} ({p_text(v.p_not)})."
        return (
            f"{gain}: the test rows do not tell on which side of {margin} the difference lies "
            f"(testing for less: {p_text(v.p_suffices)}; for more: {p_text(v.p_not)})."
        )


def answers(runs: Sequence[Run], verdicts: Sequence[Verdict]) -> list[Answer]:
    """Every verdict with its two heads. Raises `ValueError` for a verdict on what is not among the runs."""
    found = []
    for verdict in verdicts:
        sides = ((verdict.plain, False), (verdict.rival, True))
        pair = [named(spots(runs), verdict.backbone, head, groups=groups) for head, groups in sides]
        if pair[0] is None or pair[1] is None:
            raise ValueError(
                f"the verdict on {verdict.backbone} is of {verdict.plain} and {verdict.rival}, and the runs do not "
                "hold both; give the runs it was made of"
            )
        found.append(Answer(verdict, pair[0], pair[1]))
    return found


def named(found: Sequence[Spot], backbone: str, head: str, *, groups: bool) -> Spot | None:
    """The spot of a head; of a head chosen by several rules the first that uses group labels, or does not."""
    own = [s for s in found if s.backbone == backbone and s.runs[0].head == head]
    return next((s for s in own if s.runs[0].uses_groups == groups), own[0] if own else None)


def reference(runs: Sequence[Run]) -> str:
    """The head that stands for its backbone: the plain one, or without it the first."""
    return REFERENCE if any(run.head == REFERENCE for run in runs) else runs[0].head


def worst(run: Run) -> Interval:
    return run.metrics.worst_group


def points(fraction: float) -> str:
    return f"{100 * fraction:.1f} points"


def signed(fraction: float) -> str:
    return f"{100 * fraction:+.1f}".replace("-", "−")


def p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def backbones(runs: Sequence[Run], given: Sequence[Answer]) -> str:
    """Worst group by backbone: the plain head above its rival, where there is one, and all other heads as ticks."""

    def draw() -> Figure:
        found, head = spots(runs), reference(runs)
        rivals = {a.verdict.backbone: a.rival for a in given}
        names = list(dict.fromkeys(s.backbone for s in found))
        figure, ax = axes(4.6, 2.3 * len(names))
        bars = {(s.backbone, s.head): bar(s, worst) for s in found}
        ax.set_ylim(2.3 * len(names) - 0.5, -0.9)
        for i, backbone in enumerate(names):
            y = 2.3 * i
            here = [s for s in found if s.backbone == backbone]
            marks = [
                (named(here, backbone, head, groups=False), "o", COLOURS[0], y),
                (rivals.get(backbone), "s", COLOURS[1], y + 1),
            ]
            shown = [spot for spot, *_ in marks if spot is not None]
            rest = [bars[backbone, s.head].mean for s in here if s not in shown]
            ax.plot(rest, [y + 0.5] * len(rest), "|", color=GREY, ms=9, mew=1)
            for spot, marker, colour, line in marks:
                if spot is None:
                    continue
                b = bars[backbone, spot.head]
                ax.plot([b.low, b.high], [line, line], color=colour, lw=1.2, marker="|", ms=5)
                ax.plot([b.mean], [line], marker, color=colour, ms=7, mec=INK, mew=0.7)
                ax.text(1.02, line, _figures(spot, b), transform=ax.get_yaxis_transform(), va="center", fontsize=8)
            if i:
                ax.axhline(y - 0.65, color=FAINT, lw=0.7)
        ax.set_yticks([2.3 * i + 0.5 for i in range(len(names))], [short(name, 34) for name in names])
        ax.tick_params(axis="y", labelsize=8, length=0)
        ax.set_xlim(limits(list(bars.values())))
        ax.set_xlabel("worst-group accuracy on test (%)")
        ax.grid(axis="x")
        return figure

    return svg_of(draw)


def differences(given: Sequence[Answer]) -> str:
    """What the rival gains over the plain head on the worst group, with intervals, against the margin."""

    def draw() -> Figure:
        figure, ax = axes(4.6, 1.3 * len(given))
        ax.set_ylim(1.3 * len(given) - 0.5, -0.8)
        low, high = (
            100 * f(getattr(a.verdict.difference, end) for a in given) for f, end in ((min, "low"), (max, "high"))
        )
        margins = sorted({100 * a.verdict.margin for a in given})
        for margin in margins:
            ax.axvline(margin, color=INK, lw=1, ls=(0, (4, 3)))
        ax.axvline(0, color=GREY, lw=0.8)
        for i, answer in enumerate(given):
            d, y = answer.verdict.difference, 1.3 * i
            full = answer.verdict.verdict != "undecided"
            ax.plot([100 * d.low, 100 * d.high], [y, y], color=INK, lw=1.2, marker="|", ms=5)
            ax.plot([100 * d.value], [y], "D", color=INK, ms=6, mfc=INK if full else "none", mew=1.2)
            text = f"{signed(d.value)} ({signed(d.low)} to {signed(d.high)})  {answer.verdict.verdict}"
            ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
        ax.set_yticks([1.3 * i for i in range(len(given))], [short(a.verdict.backbone, 34) for a in given])
        ax.tick_params(axis="y", labelsize=8, length=0)
        pad = 0.05 * (max(high, *margins, 0) - min(low, 0)) + 0.5
        ax.set_xlim(min(low, 0) - pad, max(high, *margins, 0) + pad)
        marked = " and ".join(f"{m:g}" for m in margins)
        ax.set_xlabel(f"rival minus plain, worst group on test (points); dashed: margin of {marked}")
        ax.grid(axis="x")
        return figure

    return svg_of(draw)


def _figures(spot: Spot, b: Bar) -> str:
    spread = "" if b.spread is None else f" ± {b.spread:.1f}"
    return f"{b.mean:.1f}{spread} ({b.low:.1f}–{b.high:.1f})  {short(plain(spot.head), 30)}, n = {count(b.rows)}"
