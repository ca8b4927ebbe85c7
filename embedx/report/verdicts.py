"""What the comparison answers, backbone by backbone: the verdicts in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedx.evaluation.verdict import ERROR, Verdict
from embedx.report.results import HeadResult, result_of
from embedx.report.text import p_text, points, signed

TITLES = {
    "suffices": "The plain head suffices",
    "does not suffice": "The plain head does not suffice",
    "undecided": "Undecided",
}


@dataclass(frozen=True)
class StatedVerdict:
    """A verdict with what it is about: the results of the plain head and of its rival on one backbone."""

    verdict: Verdict
    plain: HeadResult
    rival: HeadResult

    @property
    def title(self) -> str:
        """The answer as a heading."""
        return TITLES[self.verdict.verdict]

    @property
    def sentence(self) -> str:
        """The verdict in words that hold for its three values, with figures and p-value."""
        v, d = self.verdict, self.verdict.difference
        of = f", of {len(v.gains)} heads with group labels the one that gains most," if len(v.gains) > 1 else ""
        gain = (
            f"{v.rival}{of} is {points(abs(d.value))} {'better' if d.value >= 0 else 'worse'} than {v.plain} "
            f"on the worst group (95 % interval of the difference: {signed(d.low)} to {signed(d.high)})"
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

    @property
    def validated(self) -> str:
        """What the head gains that validation would pick among those with group labels, where that is another one."""
        v = self.verdict
        found = next((gain for gain in v.gains if gain.rival == v.validated != v.rival), None)
        if found is None:
            return ""
        d = found.difference
        word = (
            f"less than the margin, by itself ({p_text(found.p_suffices)})" if found.p_suffices <= ERROR
            else f"more than the margin, by itself ({p_text(found.p_not)})" if found.p_not <= ERROR
            else "on which side of the margin, the test rows do not tell"
        )  # fmt: skip
        return f"Validation would pick {found.rival}: {signed(d.value)} ({signed(d.low)} to {signed(d.high)}), {word}."


def stated(results: Mapping[str, Sequence[HeadResult]], verdicts: Sequence[Verdict]) -> tuple[StatedVerdict, ...]:
    """Every verdict with its two heads. Raises `ValueError` for a verdict on what is not among the results."""
    statements = []
    for verdict in verdicts:
        heads = results.get(verdict.backbone, ())
        plain = result_of(heads, verdict.plain, groups=False)
        rival = result_of(heads, verdict.rival, groups=True)
        if plain is None or rival is None:
            raise ValueError(
                f"the verdict on {verdict.backbone} is of {verdict.plain} and {verdict.rival}, and the runs do not "
                "hold both; give the runs it was made of"
            )
        statements.append(StatedVerdict(verdict, plain, rival))
    return tuple(statements)
