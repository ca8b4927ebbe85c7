"""Is a good embedding enough? The plain head against the best of all group-aware heads, on the same test rows.

The difference of the smallest group accuracies is held against a margin: `embedx.statistics.Pairs` says how, and
`benchmarks/README.md` how often that errs, by simulation. No validation row has a part in it. Where test rows come in
clusters, groups count for the rows that they are worth: `paired_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from embedx import html
from embedx.evaluation.runs import Run, unpack, unpack_codes
from embedx.statistics import Interval, Pairs, Truth, best_of, holm, paired_rows

MARGIN = 0.02
ERROR = 0.05
BEYOND = 0.04
"""How far above the margin the difference lies whose power is told."""


@dataclass(frozen=True)
class Gain:
    """What one group-aware head gains over the plain head, and the p-values of it alone, without any correction.

    difference  worst group of the rival minus worst group of the plain head, as a fraction, with its 95 % interval
    p_suffices  of "the difference is at least the margin", p_not of "the difference is at most the margin"
    """

    rival: str
    difference: Interval
    p_suffices: float
    p_not: float


@dataclass(frozen=True)
class Power:
    """How often test sets of these sizes decide, were the rates that were found true but for the rivals' level.

    none        share in which "suffices" is found where the best rival gains nothing; None where none can gain that
    difference  a gain beyond the margin, and `found` the share in which "does not suffice" is found where it is true
    """

    none: float | None
    difference: float
    found: float | None


@dataclass(frozen=True)
class Verdict:
    """What the test rows say about one backbone.

    plain       name of the plain head, chosen without group labels
    rival       name of the group-aware head that gains most on test
    difference  worst group of the best group-aware head minus worst group of the plain head, as a fraction, with a 95 %
                interval that allows for the best being picked by the same rows
    margin      up to which the plain head may fall behind and still suffice
    p_suffices  of "the difference is at least the margin", p_not of "the difference is at most the margin"; adjusted
                over rivals and over backbones (Holm)
    verdict     "suffices", "does not suffice" or "undecided"
    gains       of every group-aware head, the largest first
    validated   the group-aware head with the best worst group on the validation rows that chose it, as information;
                empty where that is not known
    by_rule     {selection rule: the verdict if it had chosen the plain head}, of other rules than the one that did
    level       error of each direction on this backbone alone, as it is corrected over backbones
    groups      names of the groups that test holds
    drawn       what is taken as independent draws, in words: "rows", "subjects (patient)"
    truth       the rates that were found, to plan with
    """

    backbone: str
    plain: str
    rival: str
    difference: Interval
    margin: float
    p_suffices: float
    p_not: float
    verdict: str
    gains: tuple[Gain, ...] = ()
    validated: str = ""
    by_rule: Mapping[str, str] = field(default_factory=dict)
    level: float = ERROR
    groups: tuple[str, ...] = ()
    drawn: str = "rows"
    truth: Truth | None = field(default=None, repr=False, compare=False)

    @cached_property
    def power(self) -> Power | None:
        """What these test rows can find; None without the rates."""
        if self.truth is None:
            return None
        apart = self.margin + BEYOND
        none, some = self.truth.shifted(0.0), self.truth.shifted(apart)
        return Power(
            none and none.found(self.margin, self.level)[0], apart, some and some.found(self.margin, self.level)[1]
        )

    @cached_property
    def rows_needed(self) -> Mapping[str, int] | None:
        """{group: rows to add} with which four in five test sets would decide, were the rates that were found true.

        None without the rates, and where the difference lies so close to the margin that no such number does.
        """
        more = None if self.truth is None else self.truth.rows_needed(self.margin, self.level)
        return None if more is None else {name: int(n) for name, n in zip(self.groups, more, strict=True) if n}

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, the difference with its interval, and both p-values."""
        d = self.difference
        return html.facts(
            f"{self.backbone}: is the plain head enough?",
            {
                "verdict": f"{self.plain} {self.verdict}" if self.verdict != "undecided" else self.verdict,
                "gains most with group labels": self.rival,
                "worst group gained, points": f"{100 * d.value:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})",
                "rows of the smaller worst group": f"{d.n:,}",
                "margin, points": f"{100 * self.margin:g}",
                "p suffices": f"{self.p_suffices:.3g}",
                "p does not": f"{self.p_not:.3g}",
                **{f"chosen by {rule}": word for rule, word in self.by_rule.items()},
            },
        )


def verdicts(runs: Sequence[Run], margin: float = MARGIN) -> list[Verdict]:
    """One verdict for every backbone that has a plain head chosen without group labels and a group-aware head.

    The plain head suffices where every group-aware head gains less than the margin, and does not where some head gains
    more. A head of several seeds counts with its mean correctness on each row.
    """
    cases = [case for name in dict.fromkeys(run.backbone for run in runs) if (case := _case(runs, name)) is not None]
    words = {rule: _judged([c for c in cases if rule in c.by_rule], margin, rule) for rule in _rules(cases)}
    return [
        replace(_of(case, margin), p_suffices=a, p_not=b, verdict=word, level=ERROR / len(cases),
                by_rule={rule: of[case.backbone][2] for rule, of in words.items() if case.backbone in of})
        for case, (a, b, word) in zip(cases, _judged(cases, margin).values(), strict=True)
    ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Case:
    """What is compared on one backbone: correctness (n,) of the plain head, by other rules too, and of every rival."""

    backbone: str
    run: Run
    plain: np.ndarray
    by_rule: Mapping[str, np.ndarray]
    rivals: Mapping[str, np.ndarray]
    sizes: np.ndarray
    clusters: np.ndarray | None
    validated: str

    def pairs(self, rule: str = "") -> Pairs:
        """The plain head, as it was chosen or as a rule would have, against all rivals."""
        first = self.by_rule[rule] if rule else self.plain
        return Pairs.of(first, np.stack([*self.rivals.values()]), self.sizes, *self._worth(first))

    @property
    def truth(self) -> Truth:
        """The rates that were found."""
        return Truth.of(self.plain, np.stack([*self.rivals.values()]), self.sizes, *self._worth(self.plain))

    def _worth(self, first: np.ndarray) -> tuple[np.ndarray, ...]:
        """What the rows of each group are worth; nothing where they are independent."""
        if self.clusters is None:
            return ()
        return paired_rows(first, np.stack([*self.rivals.values()]), self.sizes, self.clusters)


def _case(runs: Sequence[Run], backbone: str) -> _Case | None:
    """None where there is nothing to compare."""
    candidates = [run for run in runs if run.backbone == backbone and run.correct]
    plain = [run for run in candidates if run.head == "plain" and not run.uses_groups]
    rivals: dict[str, list[Run]] = {}
    for run in candidates:
        if run.uses_groups:
            rivals.setdefault(run.head, []).append(run)
    if not plain or not rivals:
        return None
    sizes = np.array([g.n for g in plain[0].metrics.groups])
    rules = [rule for rule in plain[0].by_rule if all(rule in run.by_rule for run in plain)]
    return _Case(
        backbone, plain[0], _mean([run.correct for run in plain], sizes),
        {rule: _mean([run.by_rule[rule] for run in plain], sizes) for rule in rules},
        {head: _mean([run.correct for run in of], sizes) for head, of in rivals.items()}, sizes,
        unpack_codes(plain[0].clusters) if plain[0].clusters else None, _validated(rivals),
    )  # fmt: skip


def _rules(cases: Sequence[_Case]) -> list[str]:
    """Those that another choice of the plain head is known by."""
    return list(dict.fromkeys(rule for case in cases for rule in case.by_rule))


def _judged(cases: Sequence[_Case], margin: float, rule: str = "") -> dict[str, tuple[float, float, str]]:
    """{backbone: p-values, adjusted over the backbones, and the verdict}, of the plain head as a rule chooses it."""
    each = [best_of(*case.pairs(rule).p_values(margin)) for case in cases]
    enough, short = (holm([float(p[i]) for p in each]) for i in range(2))
    return {case.backbone: (a, b, _word(a, b)) for case, a, b in zip(cases, enough, short, strict=True)}


def _of(case: _Case, margin: float) -> Verdict:
    """The verdict as if there were no other backbone."""
    pairs = case.pairs()
    each = pairs.p_values(margin)
    p_suffices, p_not = (float(p) for p in best_of(*each))
    gains = [Gain(*of) for of in zip(case.rivals, pairs.differences(), *(p.tolist() for p in each), strict=True)]
    gains.sort(key=lambda gain: -gain.difference.value)
    return Verdict(
        case.backbone, case.run.head, gains[0].rival, pairs.difference(), margin, p_suffices, p_not,
        _word(p_suffices, p_not), tuple(gains), case.validated,
        groups=tuple(g.name for g in case.run.metrics.groups if g.n),
        drawn=case.run.drawn, truth=case.truth,
    )  # fmt: skip


def _mean(packed: Sequence[str], sizes: np.ndarray) -> np.ndarray:
    """(n,) mean correctness over the seeds of every test row, in the order of groups."""
    return np.mean([unpack(correct, int(sizes.sum())) for correct in packed], axis=0)


def _validated(rivals: dict[str, list[Run]]) -> str:
    """The rival that is best on validation, on average over its seeds."""
    scores = {
        head: np.mean(known)
        for head, runs in rivals.items()
        if (known := [run.validation_worst_group for run in runs if run.validation_worst_group is not None])
    }
    return max(scores, key=lambda head: scores[head]) if scores else ""


def _word(p_suffices: float, p_not: float) -> str:
    if p_suffices <= ERROR:
        return "suffices"
    return "does not suffice" if p_not <= ERROR else "undecided"
