"""Is a good embedding enough? The plain head against the best of all group-aware heads, on the same test rows.

The difference of the smallest group accuracies is held against a margin: `embedx.statistics.Pairs` says how, and
`benchmarks/README.md` how often that errs, by simulation. No validation row has a part in it. Where test rows come in
clusters, groups count for the rows that they are worth: `paired_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedx import html
from embedx.evaluation.runs import Run, unpack, unpack_codes
from embedx.statistics import Interval, Pairs, best_of, holm, paired_rows

MARGIN = 0.02
ERROR = 0.05


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

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, the difference with its interval, and both p-values."""
        d = self.difference
        return html.facts(
            f"{self.backbone}: is the plain head enough?",
            {
                "verdict": f"{self.plain} {self.verdict}" if self.verdict != "undecided" else self.verdict,
                "best head with group labels": self.rival,
                "worst group gained, points": f"{100 * d.value:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})",
                "rows of the smaller worst group": f"{d.n:,}",
                "margin, points": f"{100 * self.margin:g}",
                "p suffices": f"{self.p_suffices:.3g}",
                "p does not": f"{self.p_not:.3g}",
            },
        )


def verdicts(runs: Sequence[Run], margin: float = MARGIN) -> list[Verdict]:
    """One verdict for every backbone that has a plain head chosen without group labels and a group-aware head.

    The plain head suffices where every group-aware head gains less than the margin, and does not where some head gains
    more. A head of several seeds counts with its mean correctness on each row.
    """
    unadjusted = [v for backbone in dict.fromkeys(run.backbone for run in runs) if (v := _of(runs, backbone, margin))]
    enough, short = (holm([getattr(v, name) for v in unadjusted]) for name in ("p_suffices", "p_not"))
    return [
        replace(v, p_suffices=a, p_not=b, verdict=_word(a, b))
        for v, a, b in zip(unadjusted, enough, short, strict=True)
    ]


def _of(runs: Sequence[Run], backbone: str, margin: float) -> Verdict | None:
    """The verdict as if there were no other backbone; None where there is nothing to compare."""
    candidates = [run for run in runs if run.backbone == backbone and run.correct]
    plain = [run for run in candidates if run.head == "plain" and not run.uses_groups]
    rivals: dict[str, list[Run]] = {}
    for run in candidates:
        if run.uses_groups:
            rivals.setdefault(run.head, []).append(run)
    if not plain or not rivals:
        return None
    sizes = np.array([g.n for g in plain[0].metrics.groups])
    first, others = _hits(plain, sizes), np.stack([_hits(of, sizes) for of in rivals.values()])
    whose = plain[0].clusters
    worth = paired_rows(first, others, sizes, unpack_codes(whose)) if whose else ()
    pairs = Pairs.of(first, others, sizes, *worth)
    each = pairs.p_values(margin)
    p_suffices, p_not = (float(p) for p in best_of(*each))
    gains = [Gain(*of) for of in zip(rivals, pairs.differences(), *(p.tolist() for p in each), strict=True)]
    gains.sort(key=lambda gain: -gain.difference.value)
    return Verdict(
        backbone, plain[0].head, gains[0].rival, pairs.difference(), margin, p_suffices, p_not,
        _word(p_suffices, p_not), tuple(gains), _validated(rivals),
    )  # fmt: skip


def _hits(runs: Sequence[Run], sizes: np.ndarray) -> np.ndarray:
    """(n,) mean correctness over the seeds of every test row, in the order of groups."""
    return np.mean([unpack(run.correct, int(sizes.sum())) for run in runs], axis=0)


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
