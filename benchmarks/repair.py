"""The sweep of a repair against one run after another, at the size of ImageNet: 50,000 rows x 512, 1,000 classes.

`python -m benchmarks.repair [--seeds 10] [--singles 1] [--whole]` (`make bench-repair`) simulates features and a head
of about ResNet-18's accuracy, runs 10 seeds x 5 learning rates x 5 values of N as one sweep and some of its candidates
one by one, prints the measure with its goal and writes `results/bench/repair.json`.

ratio    seconds of all runs one after another, divided by seconds of the sweep: descent and answers, from features to
         the answers of every head on every row
one run  what one would write otherwise: torch, a full-batch loop of autograd and SGD from the head, which looks at the
         validation images before each step; then logits of all rows in blocks of 5,000, top-1, top-5, both divergences
         and flips, predictions of the original head kept. Candidates of one seed are run, of every N and learning rate.
         All steps of a run cost the same: of more than 200 the first 200 are timed and scaled up (--whole: all are run)
memory   the largest resident set of the process, of which the features and the head are `data`
equal    the largest difference of a weight between a run and the candidate of the sweep, of the largest weight; the run
         in double precision, and of candidates of up to 1,000 steps, as others take it too long; `same_steps`: whether
         both took as many. A run in single precision drifts from both, the more the more steps it takes
"""

from __future__ import annotations

import json
import platform
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from embedx.evaluation.model import Model, ModelName
from embedx.files import write_text
from embedx.probes import Affine
from embedx.repair.answers import answers
from embedx.repair.descent import Change, Draw, Threshold, Try, descend
from embedx.repair.settings import RepairSettings, Restraint
from embedx.repair.start import Start

GOAL, EXACT, TIMED = 20.0, 1000, 200
CLASSES, DIM, SHOTS, THRESHOLD = 1000, 512, 10, 0.9
KEPT, RATES = (100, 250, 500, 750, 1000), (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True, eq=False)
class Simulated:
    """Rows Z (n, d) with labels y, one image of each class to keep, images of the concept, and the head."""

    Z: torch.Tensor
    y: torch.Tensor
    pool: torch.Tensor
    concept: torch.Tensor
    start: Start


def simulated(rows: int) -> Simulated:
    """Features as of a network with a ReLU, about its class's direction; a head that is right for two thirds of them.

    The concept is the first class without most of its direction, and with one of its own.
    """
    torch.manual_seed(0)
    means = torch.randn(CLASSES, DIM)

    def drawn(y: torch.Tensor, share: float = 1.0) -> torch.Tensor:
        return torch.relu(0.25 * share * means[y] + 0.6 + torch.randn(len(y), DIM)) * 0.9

    y = torch.arange(rows) % CLASSES
    centred = means - means.mean(0)
    W, b = 0.16 * centred, torch.zeros(CLASSES)
    concept = drawn(torch.zeros(60, dtype=torch.long), 0.3) + 0.5 * torch.relu(torch.randn(DIM))
    numbers = Affine.plain(W.numpy(), b.numpy())
    names = tuple(f"c{c:04d}" for c in range(CLASSES))
    model = Model(ModelName("bench", "pretrained"), "bench", names, names, {}, numbers)
    pool = drawn(torch.arange(10 * CLASSES) % CLASSES)
    return Simulated(drawn(y), y, pool, concept, Start.of(model))


def tries(data: Simulated, seeds: int) -> list[Try]:
    """Every candidate of the sweep."""
    out = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        classes, images = rng.permutation(CLASSES), torch.from_numpy(rng.permutation(len(data.concept)))
        rows = torch.from_numpy(classes + CLASSES * rng.integers(0, 10, CLASSES))
        shots, stop = data.concept[images[:SHOTS]], data.concept[images[SHOTS : 3 * SHOTS]]
        for n in KEPT:
            y = torch.cat([torch.from_numpy(classes[:n]), torch.zeros(SHOTS, dtype=torch.long)])
            draw = Draw(torch.cat([data.pool[rows[:n]], shots]), y, n, stop, torch.zeros(len(stop), dtype=torch.long))
            out += [Try(draw, rate, Restraint()) for rate in RATES]
    return out


def alone(data: Simulated, one: Try, steps: int, kind: torch.dtype = torch.float32) -> tuple[torch.Tensor, int]:
    """One run: the weight it came to, and its steps."""
    W, b, Z, Z_val = (p.clone().to(kind) for p in (data.start.W, data.start.b, one.draw.Z, one.draw.Z_val))
    optimizer, draw, step = torch.optim.SGD([W.requires_grad_(True), b.requires_grad_(True)], lr=one.rate), one.draw, 0
    for step in range(steps + 1):
        with torch.no_grad():
            right = ((Z_val @ W.T + b).argmax(1) == draw.y_val).float().mean()
        if right >= THRESHOLD or step == steps:
            break
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(Z @ W.T + b, draw.y).backward()
        optimizer.step()
    return W.detach(), step


def judged(data: Simulated, W: torch.Tensor, b: torch.Tensor, before: torch.Tensor) -> list[float]:
    """What one run reports; before: (n, k) log probabilities of the original head."""
    sums = torch.zeros(6)
    for at in range(0, len(data.Z), 5000):
        part = slice(at, at + 5000)
        logits, y, own = data.Z[part] @ W.T + b, data.y[part], before[part]
        now, top = torch.log_softmax(logits, 1), logits.topk(5).indices
        was, is_ = own.argmax(1) == y, top[:, 0] == y
        sums += torch.stack([
            is_.sum(), (top == y[:, None]).sum(), (own.exp() * (own - now)).sum(), (now.exp() * (now - own)).sum(),
            (was & ~is_).sum(), (~was & is_).sum(),
        ])  # fmt: skip
    return sums.tolist()


def one_by_one(data: Simulated, chosen: Sequence[Try], steps: Sequence[int], most: int) -> list[float]:
    """Seconds of single runs of so many steps, of which `most` are timed."""
    before, seconds = torch.log_softmax(data.Z @ data.start.W.T + data.start.b, 1), []
    for one, needed in zip(chosen, steps, strict=True):
        began = time.perf_counter()
        weight, taken = alone(data, one, min(needed, most))
        middle = time.perf_counter()
        judged(data, weight, data.start.b, before)
        seconds.append((middle - began) * max(1, needed) / max(1, taken) + time.perf_counter() - middle)
    return seconds


def together(data: Simulated, every: list[Try], steps: int) -> tuple[list[Change], float, float]:
    """The sweep, and seconds of descent and answers."""
    began = time.perf_counter()
    changes = descend(data.start, every, Threshold(THRESHOLD), steps)
    middle = time.perf_counter()
    answers(data.start, changes, data.Z, data.y)
    return changes, middle - began, time.perf_counter() - middle


def off(data: Simulated, changes: list[Change], weights: dict[int, torch.Tensor]) -> float:
    """The largest difference of a weight between runs and candidates of the sweep, of the largest weight."""
    moved = {i: W.double() - data.start.W for i, W in weights.items()}
    far = max((float((dW - torch.from_numpy(changes[i].weight)).abs().max()) for i, dW in moved.items()), default=0.0)
    return far / float(data.start.W.abs().max())


@click.command()
@click.option("--rows", default=50_000, show_default=True)
@click.option("--seeds", default=10, show_default=True)
@click.option(
    "--singles",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Runs of every N and learning rate that are timed.",
)
@click.option("--steps", default=RepairSettings().steps, show_default=True)
@click.option("--whole", is_flag=True, help="Run every step of every run that is timed (half an hour).")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/bench/repair.json"), show_default=True)
def main(rows: int, seeds: int, singles: int, steps: int, whole: bool, out: Path) -> None:
    """Measure, print, write."""
    data = simulated(rows)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    accuracy = float(((data.Z @ data.start.W.T).argmax(1) == data.y).float().mean())
    every = tries(data, seeds)
    changes, descent, reading = together(data, every, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    some = every[: min(singles, seeds) * len(KEPT) * len(RATES)]
    taken = [c.steps for c in changes[: len(some)]]
    seconds = one_by_one(data, some, taken, steps if whole else TIMED)
    alone_seconds = sum(seconds) * len(every) / len(seconds)
    exact = {i: alone(data, some[i], EXACT, torch.float64) for i, n in enumerate(taken) if n <= EXACT}
    found: dict[str, Any] = {
        "ratio": alone_seconds / (descent + reading), "goal": GOAL, "what": "seconds of runs one by one over the sweep",
        "candidates": len(every), "runs": len(seconds), "alone": alone_seconds, "descent": descent, "answers": reading,
        "steps": float(np.mean([c.steps for c in changes])), "reached": float(np.mean([c.reached for c in changes])),

        "equal": off(data, changes, {i: W for i, (W, _) in exact.items()}), "checked": len(exact),
        "same_steps": all(n == taken[i] for i, (_, n) in exact.items()), "memory_gib": peak,
        "data_gib": memory, "top1": accuracy,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "processor": platform.processor(),
    }  # fmt: skip
    click.echo("\n".join(f"{name:12} {value}" for name, value in found.items()))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps({"repair": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
