"""Coverage of two 95 % intervals for the worst group: exact (ours) and percentile bootstrap, by simulation.

`python -m benchmarks.intervals` prints the table of `docs/intervals.md`.
"""

from __future__ import annotations

import click
import numpy as np

from embedx.evaluation.metrics import minimum, resample

CASES = (
    ((0.75,) * 4, 320), ((0.9,) * 4, 100), ((0.75,) * 8, 50), ((0.9,) * 20, 30), ((0.99,) * 4, 20),
    ((0.85, 0.9, 0.9, 0.9), 320), ((0.6, 0.9, 0.9, 0.9), 320),
)  # fmt: skip


@click.command()
@click.option("--repetitions", default=2000, show_default=True)
def main(repetitions: int) -> None:
    """Simulate and print."""
    print("| true accuracies | n per group | exact: coverage, width | bootstrap: coverage, width |")
    print("|---|---|---|---|")
    for accuracy, n in CASES:
        rng, each, truth = np.random.default_rng(0), np.full(len(accuracy), n), min(accuracy)
        found: dict[str, list[tuple[bool, float]]] = {"exact": [], "bootstrap": []}
        for repetition in range(repetitions):
            correct = rng.binomial(each, accuracy)
            exact = minimum(correct, each)
            drawn = (resample(correct, each, repetition, replicates=1000) / each).min(axis=1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            found["exact"].append((exact.low <= truth <= exact.high, exact.high - exact.low))
            found["bootstrap"].append((low <= truth <= high, high - low))
        cells = [f"{100 * np.mean([c for c, _ in f]):.1f} %, {np.mean([w for _, w in f]):.3f}" for f in found.values()]
        name = f"{len(accuracy)} x {accuracy[0]}" if len(set(accuracy)) == 1 else ", ".join(map(str, accuracy))
        print(f"| {name} | {n} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
