"""Is a good embedding enough? The plain head against the best group-aware head, on the same test rows, per backbone.

The difference of the two smallest group accuracies is held against a margin: `embedx.statistics.Pairs` says how, and
`benchmarks/README.md` how often that errs, by simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedx import html
from embedx.evaluation.runs import Run, unpack
from embedx.statistics import Interval, Pairs, holm

MARGIN = 0.02
ERROR = 0.05


@dataclass(frozen=True)
class Verdict:
    """What the test rows say about one backbone.

    plain, rival  names of the plain head, chosen without group labels, and of the best group-aware head (by validation)
    difference    worst group of the rival minus worst group of the plain head, as a fraction, with its 95 % interval
    margin        up to which the plain head may fall behind and still suffice
    p_suffices    of "the difference is at least the margin", p_not of "the difference is at most the margin"; adjusted
                  over backbones (Holm)
    verdict       "suffices", "does not suffice" or "undecided"
    """

    backbone: str
    plain: str
    rival: str
    difference: Interval
    margin: float
    p_suffices: float
    p_not: float
    verdict: str

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

    The rival is the head with the best worst group on the validation rows that chose it, on average over its seeds;
    test rows have no part in that. A head of several seeds counts with its mean correctness on each row.
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
    by_head: dict[str, list[Run]] = {}
    for run in candidates:
        if run.uses_groups and run.validation_worst_group is not None:
            by_head.setdefault(run.head, []).append(run)
    if not plain or not by_head:
        return None
    rival = max(by_head, key=lambda head: np.mean([r.validation_worst_group or 0.0 for r in by_head[head]]))
    sizes = np.array([g.n for g in plain[0].metrics.groups])
    a, b = (np.mean([unpack(r.correct, sizes.sum()) for r in of], axis=0) for of in (plain, by_head[rival]))
    pairs = Pairs.of(a, b, sizes)
    p_suffices, p_not = pairs.p_values(margin)
    word = _word(p_suffices, p_not)
    return Verdict(backbone, plain[0].head, rival, pairs.difference(), margin, p_suffices, p_not, word)


def _word(p_suffices: float, p_not: float) -> str:
    if p_suffices <= ERROR:
        return "suffices"
    return "does not suffice" if p_not <= ERROR else "undecided"
