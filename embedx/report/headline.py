"""What the data say, in one sentence that needs no statistics: on top of the report and of the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from embedx.evaluation.limits import Limit
from embedx.evaluation.verdict import Verdict
from embedx.report.results import HeadResult, result_of
from embedx.report.text import points, signed
from embedx.report.verdicts import rounded


def headline(
    dataset: str, results: Mapping[str, Sequence[HeadResult]], verdicts: Sequence[Verdict], limits: Sequence[Limit]
) -> str:
    """About the backbone on which the plain head is best on validation; empty without a plain head."""
    plain = {name: head for name, of in results.items() if (head := result_of(of, "plain", groups=False)) is not None}
    if not plain:
        return ""
    backbone = max(plain, key=lambda name: _validated(plain[name]))
    own, among = plain[backbone], f", by validation the best of {len(plain)} backbones," if len(plain) > 1 else ""
    right = f"{own.worst_group.mean:.0f} % of its weakest group ({own.worst_group_name})"
    verdict = next((v for v in verdicts if v.backbone == backbone), None)
    if any(limit.backbone == backbone for limit in limits):
        return (
            f"On {dataset} the embedding is the limit: with {backbone}{among} no head, with group labels or without, "
            "does much better than chance on its weakest group; take another backbone before anything else."
        )
    if verdict is None:
        return (
            f"On {dataset} a plain classifier on {backbone}{among} gets {own.average.mean:.0f} % of all test images "
            f"right and {right}; whether group labels would help was not asked."
        )
    margin, d = points(verdict.margin), verdict.difference
    if verdict.verdict == "suffices":
        return (
            f"On {dataset} a good embedding is enough: on {backbone}{among} a plain classifier that never saw a group "
            f"label gets {right} right, and no head with group labels gains {margin} on it."
        )
    if verdict.verdict == "does not suffice":
        return (
            f"On {dataset} the embedding alone is not enough: on {backbone}{among} a plain classifier gets {right} "
            f"right, and group labels add {100 * max(d.low, 0):.0f} to {100 * d.high:.0f} points ({verdict.rival})."
        )
    return (
        f"On {dataset} the test images do not tell whether a good embedding is enough: on {backbone}{among} a plain "
        f"classifier gets {right} right, and what group labels add lies between {signed(d.low)} and {signed(d.high)} "
        f"points{_more(verdict)}."
    )


def _more(verdict: Verdict) -> str:
    """How many further test images would tell, all groups together; empty where that is not known."""
    if verdict.truth is None:
        return ""
    if verdict.rows_needed is None:
        return f", too close to {points(verdict.margin)} for any reasonable number of test images to tell"
    more = sum(verdict.rows_needed.values())
    return f"; about {rounded(more):,} more test images would tell" if more else "; another draw of as many may tell"


def _validated(result: HeadResult) -> float:
    """Its worst group on validation, without groups its score there, on average over its seeds."""
    return fmean(
        run.validation_score if run.validation_worst_group is None else run.validation_worst_group
        for run in result.runs
    )
