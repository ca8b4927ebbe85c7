"""Coverage of two 95 % intervals for the worst group: exact (ours) and percentile bootstrap, by simulation.

`python -m benchmarks.intervals` prints the table of `benchmarks/README.md`.
"""

from __future__ import annotations

import click
import numpy as np

from embedx.statistics import minimum
from embedx.statistics.minima import bootstrap_minimum

CASES = (
    ((0.75,) * 4, 320), ((0.9,) * 4, 100), ((0.75,) * 8, 50), ((0.9,) * 20, 30), ((0.99,) * 4, 20),
    ((0.85, 0.9, 0.9, 0.9), 320), ((0.6, 0.9, 0.9, 0.9), 320),
)  # fmt: skip
KINDS = ("exact", "bootstrap")


@click.command()
@click.option("--repetitions", default=2000, show_default=True)
def main(repetitions: int) -> None:
    """Simulate and print."""
    print("| true accuracies | n per group | exact: coverage, width | bootstrap: coverage, width |")
    print("|---|---|---|---|")
    for accuracy, n in CASES:
        rng, each, truth = np.random.default_rng(0), np.full(len(accuracy), n), min(accuracy)
        covered: dict[str, list[bool]] = {kind: [] for kind in KINDS}
        widths: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for repetition in range(repetitions):
            correct = rng.binomial(each, accuracy)
            bootstrap = bootstrap_minimum(correct, each, np.random.default_rng(repetition), replicates=1000)
            for kind, interval in (("exact", minimum(correct, each)), ("bootstrap", bootstrap)):
                covered[kind].append(interval.low <= truth <= interval.high)
                widths[kind].append(interval.high - interval.low)
        cells = [f"{100 * np.mean(covered[kind]):.1f} %, {np.mean(widths[kind]):.3f}" for kind in KINDS]
        name = f"{len(accuracy)} x {accuracy[0]}" if len(set(accuracy)) == 1 else ", ".join(map(str, accuracy))
        print(f"| {name} | {n} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
