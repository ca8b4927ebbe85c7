"""What the comparison answers, backbone by backbone: the verdicts in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedx.evaluation.figures import percent
from embedx.evaluation.limits import Limit
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
    def remarks(self) -> list[str]:
        """What these test rows can find, how many more would decide, the verdict by other rules: a sentence each."""
        return [text for text in (power_text(self.verdict), rows_text(self.verdict), rules_text(self.verdict)) if text]

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


def power_text(v: Verdict) -> str:
    """What these test rows can find; empty where that is not known."""
    if (power := v.power) is None:
        return ""
    whats = ((f"a gain of {points(power.difference)}", power.found), ("that there is none", power.none))
    first, *rest = [(what, f"{100 * share:.0f} %") for what, share in whats if share is not None] or [("", "")]
    if not first[0]:
        return ""
    more = "".join(f"; {what}, in {share}" for what, share in rest)
    return f"With these test rows one would find {first[0]} in {first[1]} of cases{more}."


def rows_text(v: Verdict) -> str:
    """How many rows of which groups would decide what is undecided; empty for what is decided, or not known."""
    if v.truth is None or v.verdict != "undecided":
        return ""
    if (rows := v.rows_needed) is None:
        return "No reasonable number of further test rows would decide: what was found lies too close to the margin."
    if not rows:
        return "Of test sets as large, were the rates found the true ones, four in five would decide."
    alike: dict[int, list[str]] = {}
    for group, n in rows.items():
        alike.setdefault(rounded(n), []).append(group)
    named = "; ".join(f"{n:,} {'each ' * (len(names) > 1)}of {', '.join(names)}" for n, names in alike.items())
    return f"Were the rates found true, four in five test sets with about so many more rows would decide: {named}."


def rules_text(v: Verdict) -> str:
    """The verdict if the plain head had been chosen by another rule, in a line; empty where that is not known."""
    by_word: dict[str, list[str]] = {}
    for rule, word in v.by_rule.items():
        by_word.setdefault(word, []).append(rule)
    parts = [f"{word} by {', '.join(rules)}" for word, rules in by_word.items()]
    return f"Had another rule chosen {v.plain}: {'; '.join(parts)}." if parts else ""


def limit_text(limit: Limit) -> str:
    """That the embedding is the limit, and what it tells, in words."""
    told = [f"{name} in {percent(x.value)} %" for name, x in limit.attributes.items()]
    held = (
        f", and the attribute {' and '.join(told)}" if told else "; --attributes says how well it tells the attributes"
    )
    return (
        f"the embedding is the limit: of {limit.heads} heads none gets the worst group above {percent(limit.most)} % "
        f"(best: {limit.head}, {percent(limit.worst_group.value)} %, n = {limit.worst_group.n:,}; chance is "
        f"{percent(limit.chance)} %). It tells the label in {percent(limit.label.value)} % of cases, classes counted "
        f"alike{held}"
    )


def rounded(n: int) -> int:
    """Up to two digits."""
    unit = 10 ** max(len(str(n)) - 2, 0)
    return -(-n // unit) * unit


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
