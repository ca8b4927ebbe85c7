"""The answers of the study of MNIST-1D with a spurious spike: how far, how much, why, and whether attention helps.

All accuracies are of clean test signals, which every cell shares; heads are compared on the same signals, by the worst
class (`embedx.statistics.Pairs`), and p-values are Holm's within a section. Runs that differ in the seed of the data
count with their mean on each signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx.datasets.mnist1d import MINORITY, training_rows
from embedx.report.drawing import COLOURS
from embedx.report.text import p_text, signed
from embedx.report.tsne import project
from embedx.statistics import Interval
from embedx.studies._reweighting import GAMMA, Confidence, diagnosed
from embedx.studies._signals import Gain, Reading, adjusted, frame_of, readings
from embedx.studies.drawing import lines
from embedx.studies.outcome import Answer, Outcome, Section

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ERROR = 0.05
NEW_DATA = "dfr"
"""The head that is fitted on clean signals; the others are fitted on the training signals."""
ON_A_MAP = 600
"""Training signals on a map."""


def answer(outcome: Outcome) -> Answer:
    """The four sections; those whose tables were not run are left out, and that of the reference runs."""
    writers: dict[str, Callable[[Outcome], Section]] = {
        "probability": _how_much_noise, "retrain": _how_much_data, "weights": _why_reweighting_fails,
        "attention": _attention,
    }  # fmt: skip
    run = {cell.table for cell in outcome.cells}
    sections = [write(outcome) for table, write in writers.items() if table in run]
    return Answer(" ".join(section.answer for section in sections), tuple(sections))


def _how_much_noise(outcome: Outcome) -> Section:
    found = {table: readings(outcome.cells, table) for table in ("probability", "size")}
    cases = [(axis, reading) for axis, of in found.items() for reading in of if reading.head != "plain"]
    gains = [reading.over(_plain_of(found[axis], reading)) for axis, reading in cases]
    p = adjusted(gains)
    helped = [
        (axis, r) for (axis, r), gain, q in zip(cases, gains, p, strict=True) if q < ERROR and gain.interval.value > 0
    ]
    strengths = sorted({r.axes["probability"] for r in found["probability"]})
    lost = {
        kind: [s for s in strengths if not any(a == "probability" and r.axes[a] == s and of(r) for a, r in helped)]
        for kind, of in (("old", lambda r: r.head != NEW_DATA), ("new", lambda r: r.head == NEW_DATA))
    }
    best = max(
        (r for r in found["probability"] if r.axes["probability"] == strengths[-1]), key=lambda r: r.worst_class.value
    )
    clean = _clean_plain(found["probability"])
    text = (
        f"Without new data no head fitted on the training signals is surely better than the plain head at spikes in "
        f"{_shares(lost['old'])} of them{_at_sizes(found['size'], helped)}. Heads fitted again on clean signals help "
        f"{'at every strength' if not lost['new'] else f'except at {_shares(lost["new"])}'}; with a spike in "
        f"{100 * strengths[-1]:g} % of the training signals the best ({best.head}) has a worst class of "
        f"{_figure(best.worst_class)}"
        + (f", where training on clean signals gives {_figure(clean)}." if clean else ".")
    )
    plots = [("Spikes in more training signals", lines(frame_of(found["probability"]), "probability", "worst_class"))]
    if found["size"]:
        plots.append(("Larger spikes", lines(frame_of(found["size"]), "size", "worst_class")))
    plots.append(("Training signals, clean and with spikes (t-SNE)", _maps()))
    return Section(
        "How much spurious noise can be added before nothing helps?", text,
        _evidence("gain of the worst class over the plain head", len(gains)), tuple(plots),
        (("Gains over the plain head", _gains(cases, gains, p)),),
    )  # fmt: skip


def _how_much_data(outcome: Outcome) -> Section:
    tables = [(table, readings(outcome.cells, table)) for table in ("retrain", "network")]
    cases = [(table, r) for table, of in tables for r in of if r.head == NEW_DATA]
    of_table = dict(tables)
    gains = [reading.over(_plain_of(of_table[table], reading)) for table, reading in cases]
    p, texts = adjusted(gains), []
    for table, of in tables:
        mine = [(r, g, q) for (t, r), g, q in zip(cases, gains, p, strict=True) if t == table]
        if not mine:
            continue
        shares = sorted((r.axes["retrain"], g, q, r) for r, g, q in mine if r.axes["retrain"] != MINORITY)
        enough = next(((s, g, r) for s, g, q, r in shares if q < ERROR and g.interval.value > 0), None)
        backbone, last = of[0].backbone, shares[-1]
        texts.append(
            f"On {backbone} " + (
                f"{100 * enough[0]:g} % of the training signals, clean, are the fewest that surely help "
                f"({_points(enough[1].interval)}, to {_figure(enough[2].worst_class)})"
                if enough else "no amount of clean signals surely helps"
            ) + f"; {100 * last[0]:g} % give {_figure(last[3].worst_class)}" + _of_minority(mine)
        )  # fmt: skip
    frame = frame_of([r for _, of in tables for r in of])
    frame["retrain"] = [f"{100 * s:g} %" if s != MINORITY else s for s in frame["retrain"]]
    plot = lines(frame, "retrain", "worst_class", panels="backbone", xlabel="clean signals to fit on again")
    return Section(
        "How much data is needed to train again with, at random or of the minority alone?", " ".join(texts),
        _evidence("gain of the worst class over the plain head", len(gains)), (("Clean signals", plot),),
        (("Gains over the plain head", _gains(cases, gains, p)),),
    )  # fmt: skip


def _of_minority(mine: Sequence[tuple[Reading, Gain, float]]) -> str:
    for reading, gain, p in mine:
        if reading.axes["retrain"] == MINORITY:
            sure = "surely better than" if p < ERROR and gain.interval.value > 0 else "not surely better than"
            return (
                f", and the training signals without a spike alone {_figure(reading.worst_class)}, which is {sure} the "
                f"plain head ({_points(gain.interval)})."
            )
    return "."


def _why_reweighting_fails(outcome: Outcome) -> Section:
    import pandas as pd

    cells = [cell for cell in outcome.cells if cell.table == "weights"]
    backbones = list(dict.fromkeys(run.backbone for run in cells[0].runs))
    found = {backbone: diagnosed(cells, backbone) for backbone in backbones}
    texts, rows = [], []
    for backbone, (confidences, weighed) in found.items():
        inside, outside = confidences
        texts.append(
            f"On {backbone} the plain head is right on {100 * weighed.training_accuracy:.1f} % of its training signals, "
            f"so their weights hardly matter: those of RWG are worth {100 * weighed.effective:.0f} % of the signals, and "
            f"its weights and those of the plain head have a cosine of {weighed.cosine:.2f}. On its own training "
            f"signals AFR's first head is as sure of those without a spike ({inside.without:.2f}) as of the others "
            f"({inside.with_spike:.2f}), so that its weights are nearly equal (worth {100 * inside.effective:.0f} %); on "
            f"signals held out it is not ({outside.without:.2f} and {outside.with_spike:.2f}), and those without a "
            f"spike, {100 * outside.minority:.0f} % of the signals, get {100 * outside.minority_weight:.0f} % of the weight."
        )
        rows += [_confidence_row(c) for c in confidences]
    of = readings(outcome.cells, "weights")
    cases = [("weights", reading) for reading in of if reading.head != "plain"]
    gains = [reading.over(_plain_of(of, reading)) for _, reading in cases]
    first = found[backbones[0]][0]
    evidence = (
        "that a signal without a spike is given less confidence than one with a spike: AUROC "
        + ", ".join(
            f"{c.auroc.value:.2f} ({c.auroc.low:.2f} to {c.auroc.high:.2f}, n = {c.auroc.n}) {c.estimates}"
            for c in first
        )
        + "; Wilson's interval for as many rows as the rarer kind has"
    )
    return Section(
        "Why does reweighting perform poorly here?", " ".join(texts), evidence, (),
        (
            (f"AFR's first head on signals that it is fitted on and on others, weights exp(-{GAMMA:g} p)", pd.DataFrame(rows)),
            ("Gains over the plain head", _gains(cases, gains, adjusted(gains))),
        ),
    )  # fmt: skip


def _confidence_row(c: Confidence) -> dict[str, Any]:
    return {
        "backbone": c.backbone, "estimates": c.estimates, "confidence with a spike": c.with_spike,
        "without": c.without, "effective share of rows": c.effective,
        "weight of those without %": 100 * c.minority_weight, "their share %": 100 * c.minority,
    }  # fmt: skip


def _attention(outcome: Outcome) -> Section:
    of = readings(outcome.cells, "attention")
    cases = [("attention", reading) for reading in of if reading.head != "plain"]
    gains = [reading.over(_plain_of(of, reading)) for _, reading in cases]
    p = adjusted(gains)
    best = max(range(len(gains)), key=lambda i: gains[i].interval.value)
    sure = [reading.head for (_, reading), gain, q in zip(cases, gains, p, strict=True) if q < ERROR]
    told = ", ".join(f"{r.head} {_points(g.interval)}" for (_, r), g in zip(cases, gains, strict=True))
    plain = _plain_of(of, cases[0][1])
    text = (
        f"{'Attention to the worst class surely helps with ' + ', '.join(sure) if sure else 'Attention to the worst class does not surely help'}: "
        f"from {_figure(plain.worst_class)} of the plain head, {told}; the best, {cases[best][1].head}, comes to "
        f"{_figure(cases[best][1].worst_class)}."
    )
    return Section(
        "Does more attention to the group with the worst accuracy help?", text,
        _evidence("gain of the worst class over the plain head", len(gains)),
        (("Attention to the worst class", lines(frame_of(of), "head", "worst_class", by="backbone")),),
        (("Gains over the plain head", _gains(cases, gains, p)),),
    )  # fmt: skip


def _plain_of(of: Sequence[Reading], reading: Reading) -> Reading:
    """The plain head of the same cells and backbone."""
    return next(r for r in of if (r.head, r.backbone, r.axes) == ("plain", reading.backbone, reading.axes))


def _clean_plain(of: Sequence[Reading]) -> Interval | None:
    return next((r.worst_class for r in of if r.head == "plain" and r.axes["probability"] == 0), None)


def _gains(cases: Sequence[tuple[str, Reading]], gains: Sequence[Gain], p: Sequence[float]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([
        {
            **reading.axes, "backbone": reading.backbone, "head": reading.head,
            "clean average %": 100 * reading.average.value, "clean worst class %": _figure(reading.worst_class),
            "gain, points": f"{signed(g.interval.value)} ({signed(g.interval.low)} to {signed(g.interval.high)})",
            "adjusted p": p_text(q), "seeds": reading.seeds,
        }
        for (_, reading), g, q in zip(cases, gains, p, strict=True)
    ])  # fmt: skip


def _figure(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} % ({100 * interval.low:.1f}–{100 * interval.high:.1f}, n = {interval.n})"


def _points(interval: Interval) -> str:
    return f"{signed(interval.value)} points ({signed(interval.low)} to {signed(interval.high)})"


def _shares(shares: Sequence[float]) -> str:
    return ", ".join(f"{100 * s:g} %" for s in shares) if shares else "none"


def _at_sizes(of: Sequence[Reading], helped: Sequence[tuple[str, Reading]]) -> str:
    sizes = sorted({r.axes["size"] for r in of})
    lost = [s for s in sizes if not any(a == "size" and r.axes[a] == s and r.head != NEW_DATA for a, r in helped)]
    return f", nor at spikes of size {', '.join(f'{s:g}' for s in lost)}" if lost else ""


def _evidence(what: str, tests: int) -> str:
    return (
        f"{what}, on the same 1,000 clean test signals: paired test of two minima, p adjusted over {tests} "
        f"{'comparisons' if tests > 1 else 'comparison'} (Holm); “surely” is p < {ERROR:g}"
    )


def _maps() -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="tight")
    for ax, (title, probability) in zip(figure.subplots(1, 2), (("clean", 0.0), ("spikes in 90 %", 0.9)), strict=True):
        x, y = (part[:ON_A_MAP] for part in training_rows(probability, 2.0))
        at = project(x)
        for digit in np.unique(y):
            ax.plot(*at[y == digit].T, f"${digit}$", color=COLOURS[digit % len(COLOURS)], ms=4, mew=0.3)
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=9, fontweight="bold", loc="left")
    return figure
