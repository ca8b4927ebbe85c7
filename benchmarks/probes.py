"""How much faster heads are fitted together than in a loop over scikit-learn, to an equal or lower objective.

`python -m benchmarks.probes [--repeats 3] [--only NAME]` (`make bench-probes`) prints every measure with its goal, then
how cost grows, and writes `results/bench/probes.json`: `{measure: {"ratio", "goal", "runs"}}`, medians of runs side by
side.

Features have a power-law spectrum, as real embeddings have: normal columns scaled by j^-0.6, rotated, then
max(0, 20 x + 0.5), standardised; labels are the sign (or the largest) of a few directions plus noise. Both sides get
the same float32 matrix, on which scikit-learn is faster than on float64; it is timed on float64 as well. Loops of many
values of C are timed on some, evenly spaced from the first to the last, and extrapolated.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from embedx.data.prepare import open_prepared
from embedx.evaluation.choice import Scored
from embedx.evaluation.probe import probe
from embedx.evaluation.selection import RULES, scored
from embedx.evaluation.split import Part, Split, join
from embedx.files import write_text
from embedx.probes import CS as CONVEX_CS
from embedx.probes import Features, Problem, balanced_draws, solve
from embedx.probes.dfr import Dfr
from embedx.store import open_cache
from embedx.workspace import Workspace

CS = tuple(float(C) for C in np.logspace(-5, 1, 64))
CHOOSING = ("average", "worst-group")
FINEST_LOOP = 1e-8
"""Tolerance beyond which scikit-learn's loop is given up, whatever its choice loses."""
ABOVE = 1e-6
"""How far, relatively, an objective may lie above scikit-learn's and count as equal: rounding of float32."""


def drawn(n: int, d: int, k: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) float32 and y (n,) of the make described above."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d), dtype=np.float32) * np.arange(1, d + 1, dtype=np.float32) ** np.float32(-0.6)
    X = np.maximum(0, 20 * (X @ np.linalg.qr(rng.standard_normal((d, d)))[0].astype(np.float32)) + np.float32(0.5))
    X -= X.mean(0)
    X /= X.std(0)
    return X, labels(X, k, rng)


def labels(X: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) the sign of the sum of 8 directions, or the largest of k, each of variance 1, plus normal noise."""
    directions = 8 if k == 2 else k
    scores = X @ rng.standard_normal((X.shape[1], directions), dtype=np.float32)
    scores /= scores.std(0)
    if k == 2:
        return (scores.sum(1) / np.sqrt(directions) + rng.standard_normal(len(X)) > 0).astype(int)
    return (scores + rng.standard_normal((len(X), k))).argmax(1)


def objective(X: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: Any, C: float, penalty: str) -> float:
    """R(W) + C * sum of losses, in float64."""
    F = np.concatenate([X[i : i + 4096].astype(np.float64) @ coef.T.astype(np.float64) for i in range(0, len(X), 4096)])
    F += intercept
    F = np.column_stack([np.zeros(len(F)), F]) if F.shape[1] == 1 else F
    size = np.abs(coef).sum() if penalty == "l1" else 0.5 * (coef.astype(np.float64) ** 2).sum()
    return float(size + C * np.sum(np.asarray(logsumexp(F, axis=1)) - F[np.arange(len(F)), y]))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def path(
    n: int, d: int, k: int, Cs: Sequence[float], count: int, doubles: bool = True
) -> Callable[[int], dict[str, float]]:
    """`against_a_loop` on drawn data; `count` values of C are timed."""
    return lambda seed: against_a_loop(*drawn(n, d, k, seed), Cs, count, doubles)


def against_a_loop(X: np.ndarray, y: np.ndarray, Cs: Sequence[float], count: int, doubles: bool) -> dict[str, float]:
    """All of Cs together, from the raw matrix to coefficients on it, against `LogisticRegression` one by one."""
    ours, found = timed(lambda: fitted(X, y, Cs))
    chosen = sorted({round(i) for i in np.linspace(0, len(Cs) - 1, count)})
    ratios = {}
    for name, matrix in (("float32", X), *((("float64", X.astype(np.float64)),) if doubles else ())):
        spent = 0.0
        for i in chosen:
            model = LogisticRegression(C=Cs[i], max_iter=5000)
            spent += timed(lambda model=model, matrix=matrix: model.fit(matrix, y))[0]
            theirs, mine = (objective(X, y, W, b, Cs[i], "l2") for W, b in ((model.coef_, model.intercept_), found[i]))
            if mine > theirs * (1 + ABOVE):
                raise SystemExit(f"C = {Cs[i]:g}: objective {mine}, scikit-learn's {theirs}: not equal or lower")
        ratios[name] = spent * len(Cs) / len(chosen) / ours
    return ratios | {"seconds": ours}


def fitted(X: np.ndarray, y: np.ndarray, Cs: Sequence[float]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(coef, intercept) on X of every C; X is standardised on the way, as it is already, so that C means the same."""
    features = Features.standardize(X)
    solutions = solve(features, y, np.ones((1, len(y))), [Problem(0, C) for C in Cs])
    if not all(s.converged for s in solutions):
        raise SystemExit("a fit did not converge")
    return [(s.coef, s.intercept) for s in solutions]


def even(seed: int) -> dict[str, float]:
    """DFR where every second row of a class is of its other group: draws take nearly all rows."""
    X, label = drawn(1199, 2048, 2, seed)
    return deep_feature_reweighting(X, label, 2 * label + (np.random.RandomState(seed).uniform(size=1199) < 0.5), seed)


def uneven(seed: int) -> dict[str, float]:
    """DFR with the counts of Waterbirds' validation: draws take 133 rows of each group."""
    X, label = drawn(4 * 1199, 2048, 2, seed)
    groups = 2 * label + (np.random.RandomState(seed).uniform(size=len(label)) < 0.5)
    rows = np.concatenate([np.flatnonzero(groups == g)[:n] for g, n in enumerate((467, 466, 133, 133))])
    return deep_feature_reweighting(X[rows], label[rows], groups[rows], seed)


def deep_feature_reweighting(X: np.ndarray, label: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, float]:
    """The whole DFR protocol at the size of Waterbirds' validation: tuned on a half, 20 balanced refits, averaged."""
    rng = np.random.RandomState(seed)
    half = rng.permutation(len(label)) < len(label) // 2
    Cs = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
    first = balanced_draws(groups[half], 1, rng)
    draws = balanced_draws(groups, 20, rng)

    def protocol(fit: Callable[..., list[tuple[np.ndarray, np.ndarray]]]) -> tuple[float, list[Any]]:
        heads = fit(X[half], label[half], first, Cs, Dfr.tried_with["tol"])
        W, b = np.concatenate([w for w, _ in heads]), np.concatenate([b for _, b in heads])
        hits = (X[~half] @ W.T.astype(X.dtype) + b > 0) == label[~half, None]
        worst = np.min([hits[groups[~half] == g].mean(axis=0) for g in range(4)], axis=0)
        C = Cs[int(np.argmax(worst))]
        refits = fit(X, label, draws, [C], Dfr().tol)
        np.mean([c for c, _ in refits], axis=0)
        return C, refits

    def together(X: np.ndarray, y: np.ndarray, masks: np.ndarray, Cs: Sequence[float], tol: float) -> list[Any]:
        features = Features.standardize(X)
        solutions = solve(
            features, y, masks, [Problem(i, C, penalty="l1", tol=tol) for i in range(len(masks)) for C in Cs]
        )
        return [(s.coef / features.scale, s.intercept - s.coef @ (features.mean / features.scale)) for s in solutions]

    def loop(X: np.ndarray, y: np.ndarray, masks: np.ndarray, Cs: Sequence[float], _: float) -> list[Any]:
        scaler = StandardScaler().fit(X)
        Z = scaler.transform(X)
        found = []
        for m in masks:
            for C in Cs:
                model = LogisticRegression(l1_ratio=1, solver="liblinear", C=C, random_state=0).fit(Z[m > 0], y[m > 0])
                coef = model.coef_ / scaler.scale_
                found.append((coef, model.intercept_ - coef @ scaler.mean_))
        return found

    ours, (mine, refits) = timed(lambda: protocol(together))
    theirs, (other, others) = timed(lambda: protocol(loop))
    if mine == other:
        scaler = StandardScaler().fit(X)
        Z = np.asarray(scaler.transform(X))
        for m, (a, b) in zip(draws, zip(refits, others, strict=True), strict=True):
            rows = m > 0
            value, bound = (
                objective(Z[rows], label[rows], c * scaler.scale_, i + c @ scaler.mean_, mine, "l1") for c, i in (a, b)
            )
            if value > bound * (1 + ABOVE):
                raise SystemExit(f"DFR: objective {value}, liblinear's {bound}: not equal or lower")
    return {"float64": theirs / ours, "seconds": ours}


def choice(d: int) -> Callable[[int], dict[str, float]]:
    """What `probe` chooses for plain, by the average and by the worst group, against a loop over scikit-learn.

    Rows have Waterbirds' counts and very different lengths, 2 % of the labels of train are wrong. What a choice loses,
    in points, is measured on the exact solutions (1e-10, float64): by them, how much worse the chosen C is than the
    best. scikit-learn is timed at the coarsest tolerance, from its default on, at which it loses no more than ours.
    """

    def measure(seed: int) -> dict[str, float]:
        split = shortcut(d, seed)
        features, y, ones = Features.standardize(split.train.X), split.train.y, np.ones((1, len(split.train)))
        _ = features.tensor, features.radius  # what both sides are given
        ours, runs = timed(lambda: {rule: probe(split, "plain", rule=rule)[0] for rule in CHOOSING})
        Cs = sorted({*CONVEX_CS, *(run.parameters["C"] for run in runs.values())})
        Z = features.of(split.val.X).numpy()

        def worth(heads: Sequence[tuple[np.ndarray, Any]]) -> dict[str, Scored]:
            codes = np.array([Z @ W[0] + b[0] > 0 for W, b in heads]).astype(int)
            return {r: scored(RULES[r], codes, split.val, np.ones(4) / 4, split.train) for r in CHOOSING}

        found = solve(features, y, ones, [Problem(0, C, tol=1e-10, max_iter=20_000) for C in Cs])
        exact = worth([(s.coef, s.intercept) for s in found])

        def lost(places: Mapping[str, int]) -> float:
            return 100 * float(sum(exact[r].scores.max() - exact[r].scores[i] for r, i in places.items()))

        mine = lost({rule: Cs.index(run.parameters["C"]) for rule, run in runs.items()})
        result, tol, matrix = {"lost": mine, "seconds": ours}, 1e-4, features.tensor.numpy()
        while True:

            def loop(tol: float = tol) -> list[tuple[np.ndarray, Any]]:
                models = [LogisticRegression(C=C, tol=tol, max_iter=20_000).fit(matrix, y) for C in CONVEX_CS]
                return [(m.coef_, m.intercept_) for m in models]

            theirs, heads = timed(loop)
            other = lost({r: Cs.index(CONVEX_CS[w.best]) for r, w in worth(heads).items()})
            result.setdefault("lost by scikit-learn", other)
            if other <= mine + 1e-9 or tol < FINEST_LOOP:
                return {"float32": theirs / ours, **result, "its -log10 tol": -float(np.log10(tol))}
            tol /= 10

    return measure


def shortcut(d: int, seed: int) -> Split:
    """Two classes and a shortcut, by Waterbirds' counts."""
    rng, parts = np.random.default_rng(seed), []
    core, spurious = rng.standard_normal((2, d), dtype=np.float32) / np.float32(d**0.5)
    counts = {"train": (3498, 184, 56, 1057), "val": (467, 466, 133, 133), "test": (225, 225, 64, 64)}
    for name, of_group in counts.items():
        groups = np.repeat(np.arange(4), of_group)
        y, place = np.divmod(groups, 2)
        X = rng.standard_normal((len(y), d), dtype=np.float32)
        X *= np.exp(0.7 * rng.standard_normal((len(y), 1), dtype=np.float32))
        X += np.outer(6 * y - 3, core) + np.outer(8 * place - 4, spurious)
        label = np.where(rng.uniform(size=len(y)) < 0.02 * (name == "train"), 1 - y, y)
        parts.append(Part(np.array([f"{name}{i}" for i in range(len(y))]), X.astype(np.float32), label, groups))
    names = tuple("abcd")
    train, val, test = parts
    return Split(
        "shortcut", "drawn", train, val, test, ("a", "b"), names, np.array([0, 0, 1, 1]), has_groups=True, left_out={}
    )


def demo(seed: int) -> dict[str, float]:
    """The demo's real features (its widest network), 64 values of C."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "embedx", "--cache", folder, "extract", "demo", "-b", "tiny:broad"]
        subprocess.run(line, check=True, capture_output=True)
        workspace = Workspace(Path(folder))
        manifest, _ = open_prepared(workspace, "demo")
        train = join(manifest, open_cache(workspace, manifest, "tiny:broad")).train
    X = StandardScaler().fit_transform(train.X)
    return against_a_loop(X, train.y, CS, len(CS), doubles=True)


def growth(repeats: int) -> dict[str, Any]:
    """Seconds of ours as one of n, d, classes and problems grows, and the slope of log seconds over log size."""
    sizes: dict[str, tuple[tuple[int, ...], Callable[[int], tuple[int, int, int, int]]]] = {
        "n": ((1000, 2000, 4000, 8000, 16000, 32000), lambda v: (v, 1024, 2, 16)),
        "d": ((256, 512, 1024, 2048, 4096), lambda v: (5000, v, 2, 16)),
        "classes": ((2, 5, 10, 20, 50, 100), lambda v: (5000, 512, v, 4)),
        "problems": ((1, 4, 16, 64, 256), lambda v: (5000, 1024, 2, v)),
    }
    curves = {}
    for name, (values, shape) in sizes.items():
        seconds = []
        for value in values:
            n, d, k, problems = shape(value)
            X, y = drawn(n, d, k)
            Cs = [float(C) for C in np.logspace(-5, 1, problems)] if problems > 1 else [0.01]
            seconds.append(
                statistics.median(timed(lambda X=X, y=y, Cs=Cs: fitted(X, y, Cs))[0] for _ in range(repeats))
            )
        exponent = float(np.polyfit(np.log(values), np.log(seconds), 1)[0])
        curves[name] = {"sizes": values, "seconds": seconds, "exponent": exponent}
        print(
            f"{name:9} exponent {exponent:.2f}   "
            + "  ".join(f"{v}: {t:.2f} s" for v, t in zip(values, seconds, strict=True))
        )
    return curves


@click.command()
@click.option("--repeats", default=3, show_default=True, help="Seeds of each measure; of DFR three times as many.")
@click.option("--only", multiple=True, help="Measures to run, by name; the others stay as they are in the file.")
@click.option("--out", type=click.Path(path_type=Path), default="results/bench/probes.json", show_default=True)
@click.option("--curves/--no-curves", "draw", default=True, show_default=True, help="How cost grows, after the ratios.")
def main(repeats: int, only: tuple[str, ...], out: Path, draw: bool) -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")  # scikit-learn's on convergence
    works: dict[str, tuple[Callable[[int], dict[str, float]], float, str]] = {
        "waterbirds": (path(4795, 2048, 2, CS, 8), 40, "(a) 64 values of C, n = 4,795, d = 2,048, 2 classes"),
        "forty thousand": (path(40_000, 2048, 2, CS, 5), 90, "(b) the same, n = 40,000"),
        "celeba": (path(162_770, 2048, 2, CS, 3, doubles=True), 90, "(c) the same, n = 162,770"),
        "dfr": (even, 10, "(d) the whole DFR protocol, against liblinear; groups of nearly equal size"),
        "dfr uneven": (uneven, 10, "(d) the same with the counts of Waterbirds' groups"),
        "ten classes": (path(4795, 2048, 10, CS[::4], 4), 10, "(e) 16 values of C, 10 classes"),
        "hundred classes": (path(4795, 2048, 100, CS[::4], 3), 4, "(e) 16 values of C, 100 classes"),
        "choice": (choice(2048), 1, "(f) plain by two rules with Waterbirds' counts, until settled, d = 2,048"),
        "choice narrow": (choice(512), 1, "(f) the same, d = 512"),
        "demo": (demo, 0, "(g) the demo's features, 64 values of C"),
    }
    if unknown := set(only) - works.keys():
        raise click.UsageError(f"no measure {min(unknown)!r}; there are {', '.join(works)}")
    fitted(*drawn(500, 64), CS[:4])  # imports
    out.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    for name in only or works:
        work, goal, what = works[name]
        # Of DFR each seed chooses another C, at which another number of coefficients is left: its ratios vary most.
        runs = [work(seed) for seed in range(repeats * (3 if name.startswith("dfr") else 1))]
        best = "float32" if "float32" in runs[0] else "float64"
        ratios = [r[best] for r in runs]
        report[name] = {"ratio": statistics.median(ratios), "goal": goal, "runs": ratios, "what": what, "all": runs}
        beside = "".join(
            f"; {k} {statistics.median(r[k] for r in runs):.1f}" for k in runs[0] if k not in ("seconds", best)
        )
        seconds = statistics.median(r["seconds"] for r in runs)
        print(
            f"{name:16} {report[name]['ratio']:6.1f} (goal {goal}; {min(ratios):.1f} to {max(ratios):.1f}{beside}) "
            f"ours {seconds:.2f} s  {what}"
        )
        write_text(out, json.dumps(report, indent=1) + "\n")
    if draw and not only:
        machine = {"cores": os.cpu_count(), "machine": platform.processor() or platform.machine()}
        curves = {"machine": machine, "curves": growth(repeats)}
        write_text(out.with_name("probes-curves.json"), json.dumps(curves, indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
