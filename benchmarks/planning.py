"""Whether the rows that a verdict asks for are those that decide, by simulation.

`python -m benchmarks.planning` prints the table of `benchmarks/README.md`. The rows come from normal draws of rates
that are taken as true (`embedx.statistics.Truth`); here test sets of these rates are drawn answer by answer, with as
many rows, and the number at which four in five decide is looked for in them. Then the rates are those that a test set
shows, as a user has them: how far the rows asked for then lie from those that the truth asks for.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import click
import numpy as np

from benchmarks.verdict import CASES, CORRELATIONS, SIZES, draw, joint, pairs
from embedx.evaluation.verdict import ERROR, MARGIN
from embedx.statistics import Truth
from embedx.statistics.planning import POWER


def truth(plain: np.ndarray, rival: np.ndarray, sizes: Sequence[int], correlation: float) -> Truth:
    """What the simulation draws from, as it is."""
    both, p, r = joint(plain, rival, correlation)[:, 0], plain, rival
    spread = np.sqrt(p * (1 - p) * r * (1 - r))
    together = np.divide(both - p * r, spread, out=np.zeros_like(p), where=spread > 0)
    matrix = np.stack([np.stack([np.ones_like(p), together]), np.stack([together, np.ones_like(p)])])
    return Truth(np.array(sizes, float), np.stack([p, r]), np.moveaxis(matrix, -1, 0), 1)


def decided(
    plain: np.ndarray, rival: np.ndarray, sizes: np.ndarray, correlation: float, side: int, repetitions: int
) -> float:
    """Share of test sets that say on which side of the margin the difference lies."""
    found = pairs(draw(plain, rival, sizes.astype(int).tolist(), correlation, repetitions))
    return float(found.refuted(MARGIN, ERROR)[side].mean())


def by_drawing(
    plain: np.ndarray, rival: np.ndarray, told: np.ndarray, sizes: np.ndarray, correlation: float, repetitions: int
) -> float:
    """By what the rows of the groups that get some are to be multiplied so that just `POWER` of test sets decide."""
    side, grows = int(rival.min() - plain.min() > MARGIN), told > sizes

    def share(factor: float) -> float:
        return decided(plain, rival, np.where(grows, told * factor, sizes), correlation, side, repetitions)

    low, high = 0.4, 2.5
    while high / low > 1.02:
        half = np.sqrt(low * high)
        low, high = (low, half) if share(half) >= POWER else (half, high)
    return float(np.sqrt(low * high))


def from_test_sets(p: np.ndarray, r: np.ndarray, sizes: Sequence[int], correlation: float, sets: int) -> np.ndarray:
    """(undecided,) rows asked for by what a test set shows / those that the truth asks for; infinite where none do."""
    needed = truth(p, r, sizes, correlation).rows_needed(MARGIN, ERROR)
    assert needed is not None
    cells, ratios = draw(p, r, sizes, correlation, sets), []
    for one in cells[~np.any(pairs(cells).refuted(MARGIN, ERROR), axis=0)]:
        both, plain, rival, _ = (one + 0.25).T / (one.sum(axis=1) + 1)
        a, b = both + plain, both + rival
        seen = (both - a * b) / np.sqrt(a * (1 - a) * b * (1 - b))
        matrix = np.moveaxis(np.array([[np.ones_like(seen), seen], [seen, np.ones_like(seen)]]), -1, 0)
        asked = Truth(np.array(sizes, float), np.stack([a, b]), matrix, 1).rows_needed(MARGIN, ERROR)
        ratios.append(np.inf if asked is None else (asked + sizes).max() / (needed + sizes).max())
    return np.array(ratios)


@click.command()
@click.option("--groups", multiple=True, type=click.Choice([*SIZES]), help="Sizes of the groups; default: all.")
@click.option("--repetitions", default=2000, show_default=True)
@click.option("--sets", default=100, show_default=True, help="Test sets whose rates are taken for the truth.")
def main(groups: tuple[str, ...], repetitions: int, sets: int) -> None:
    """Simulate and print: one line per dataset, pattern and difference, the mean over correlations."""
    click.echo("| groups | true accuracies | D | decided as it is | rows of a group asked for | decided with them "
               "| rows asked for / rows that just do |")  # fmt: skip
    click.echo("|---|---|---|---|---|---|---|")
    ratios = []
    for name in groups or SIZES:
        repeat = len(SIZES[name]) // 4
        for (case, plain, above), difference in itertools.product(CASES, (0.0, 0.06)):
            p = np.tile(plain, repeat)
            r = np.tile(above, repeat) + p.min() + difference
            if r.max() > 1:
                continue
            lines = [_line(p, r, np.array(SIZES[name]), c, repetitions) for c in CORRELATIONS]
            if not (known := [line for line in lines if line is not None]):
                continue
            before, rows, after, factor = (np.array(x) for x in zip(*known, strict=True))
            ratios += [1 / f for f in factor]
            said = f"{rows.min():,.0f} to {rows.max():,.0f}"
            click.echo(
                f"| {name} | {case} | {100 * difference:g} | {100 * before.mean():.0f} % | {said} | "
                f"{100 * after.mean():.0f} % | {1 / factor.max():.2f} to {1 / factor.min():.2f} |"
            )
    click.echo(f"\nRows asked for are {min(ratios):.2f} to {max(ratios):.2f} of the rows that just do, in "
               f"{len(ratios)} scenarios that are not decided already.")  # fmt: skip
    for case, plain, above in CASES[:2]:
        p = np.array(plain)
        found = from_test_sets(p, np.array(above) + p.min(), SIZES["Waterbirds"], 0.6, sets)
        quartiles = ", ".join(f"{x:.1f}" for x in np.quantile(found, [0.25, 0.5, 0.75], method="nearest"))
        click.echo(f"By the rates of test sets (Waterbirds, {case}, D = 0), {len(found)} of {sets} undecided, the "
                   f"largest group asked for is, in quartiles, {quartiles} times what the truth asks for.")  # fmt: skip


def _line(
    p: np.ndarray, r: np.ndarray, sizes: np.ndarray, correlation: float, repetitions: int
) -> tuple[float, float, float, float] | None:
    """Decided before, most rows of a group, decided with them, and the factor; None where enough decide as it is."""
    plan, side = truth(p, r, sizes.tolist(), correlation), int(r.min() - p.min() > MARGIN)
    more = plan.rows_needed(MARGIN, ERROR)
    if more is None or not more.any():
        return None
    told = sizes + more
    before, after = (decided(p, r, n, correlation, side, repetitions) for n in (sizes, told))
    return before, float(told[more > 0].max()), after, by_drawing(p, r, told, sizes, correlation, repetitions)


if __name__ == "__main__":
    main()
