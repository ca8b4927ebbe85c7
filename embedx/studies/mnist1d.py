"""The answers of the study of MNIST-1D with a spurious spike: how far, how much, why, and whether attention helps.

All accuracies are of clean test signals, which every cell shares; heads are compared on the same signals, by the worst
class (`embedx.statistics.Pairs`), and p-values are Holm's within a section. Runs that differ in the seed of the data
count with their mean on each signal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx.datasets.mnist1d import MINORITY, training_rows
from embedx.report.drawing import COLOURS, MARKERS
from embedx.report.text import p_text, signed
from embedx.report.tsne import project
from embedx.statistics import Interval, holm
from embedx.studies._others import beside_others
from embedx.studies._reweighting import GAMMA, Confidence, Reweighting, diagnosed
from embedx.studies._signals import Gain, Reading, frame_of, readings
from embedx.studies.drawing import lines
from embedx.studies.outcome import Answer, Outcome, Section

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ERROR = 0.05
GAINS = "Gains over the plain head"
NEW_DATA = "dfr"
"""The head that is fitted on clean signals; the others are fitted on the training signals."""
ON_A_MAP = 400
"""Training signals on a map."""


def answer(outcome: Outcome) -> Answer:
    """The four questions, and our figures beside those of others; where a table was not run its section is left out."""
    writers: dict[str, Callable[[Outcome], Section]] = {
        "probability": _how_much_noise, "retrain": _how_much_data, "weights": _why_reweighting_fails,
        "attention": _attention, "reference": beside_others,
    }  # fmt: skip
    run = {cell.table for cell in outcome.cells}
    sections = [write(outcome) for table, write in writers.items() if table in run]
    return Answer.of(*sections)


def _how_much_noise(outcome: Outcome) -> Section:
    found = {axis: readings(outcome.cells, axis) for axis in ("probability", "size")}
    compared = Compared.of(found)
    strengths = sorted({r.axes["probability"] for r in found["probability"]})
    most = [r for r in found["probability"] if r.axes["probability"] == strengths[-1]]
    best, plain = max(most, key=lambda r: r.worst_class.value), next(r for r in most if r.head == "plain")
    clean = next((r for r in found["probability"] if r.head == "plain" and r.axes["probability"] == 0), None)
    old, new = (
        _in_words(compared, found, strengths, lambda r, new=new: (r.head == NEW_DATA) == new) for new in (False, True)
    )
    text = (
        f"Heads fitted on the training signals alone are surely better than the plain head at {old}; the head fitted "
        f"again on clean signals ({NEW_DATA}) at {new}. With a spike in {100 * strengths[-1]:g} % of the training "
        f"signals the plain head has a worst class of {_figure(plain.worst_class)}, the best head ({best.head}) of "
        f"{_figure(best.worst_class)}"
        + (f"; on clean signals plain has {_figure(clean.worst_class)}." if clean else ".")
    )
    plots: list[tuple[str, Any]] = [
        ("Spikes in more training signals", lines(frame_of(found["probability"]), "probability", "worst_class"))
    ]
    if found["size"]:
        plots.append(("Larger spikes", lines(frame_of(found["size"]), "size", "worst_class")))
    plots.append(("Training signals, clean and with spikes (t-SNE)", _maps()))
    return Section(
        "How much spurious noise can be added before nothing helps?", text, compared.evidence, tuple(plots),
        ((GAINS, compared.table),),
    )  # fmt: skip


def _in_words(
    compared: Compared,
    found: Mapping[str, Sequence[Reading]],
    strengths: Sequence[float],
    counts: Callable[[Reading], bool],
) -> str:
    """At which probabilities and sizes some head of a kind surely helps."""
    sure = [(axis, reading.axes[axis]) for axis, reading in compared.sure if counts(reading)]
    words = [f"{100 * s:g} %" for s in strengths if ("probability", s) in sure]
    sizes = [f"{s:g}" for s in sorted({r.axes["size"] for r in found["size"]}) if ("size", s) in sure]
    told = f"spikes in {', '.join(words)} of them" if words else "no share of spikes"
    return told + (f" and at size {', '.join(sizes)}" if sizes else ", and at no size" if found["size"] else "")


def _how_much_data(outcome: Outcome) -> Section:
    found = {table: readings(outcome.cells, table) for table in ("retrain", "network")}
    compared = Compared.of(found)
    parts = [_enough(of[0].backbone, table, compared) for table, of in found.items() if of]
    first = "; ".join(first for first, _ in parts)
    text = f"{first[0].upper()}{first[1:]}. {' '.join(rest for _, rest in parts)}"
    frame = frame_of([r for of in found.values() for r in of])
    frame["retrain"] = [s if s == MINORITY else f"{100 * s:g}" for s in frame["retrain"]]
    plot = lines(frame, "retrain", "worst_class", panels="backbone", xlabel="clean signals, % of 4,000")
    return Section(
        "How much data is needed to train again with, at random or of the minority alone?", text, compared.evidence,
        (("Clean signals to fit on again", plot),), ((GAINS, compared.table),),
    )  # fmt: skip


def _enough(backbone: str, table: str, compared: Compared) -> tuple[str, str]:
    """The least data that surely helps; then the most that was tried, and the minority."""
    mine = [(r, gain, p < ERROR) for (t, r), gain, p in compared.cases if t == table]
    drawn = sorted((r.axes["retrain"], i) for i, (r, _, _) in enumerate(mine) if r.axes["retrain"] != MINORITY)
    sure = next(((share, *mine[i]) for share, i in drawn if mine[i][2]), None)
    if sure is None:
        text = "no number of clean signals surely helps"
    else:
        share, reading, gain, _ = sure
        text = (
            f"{100 * share:g} % as many clean signals as training signals are the fewest that surely help "
            f"({_points(gain.interval)}, to a worst class of {_figure(reading.worst_class)})"
        )
    most, at = drawn[-1]
    rest = f"On {backbone} {100 * most:g} % give {_figure(mine[at][0].worst_class)}"
    for reading, gain, helps in mine:
        if reading.axes["retrain"] == MINORITY:
            rest += (
                f"; the training signals without a spike alone give {_figure(reading.worst_class)}, "
                f"{'surely' if helps else 'not surely'} better than plain on the others ({_points(gain.interval)})"
            )
    return f"on {backbone} {text}", rest + "."


def _why_reweighting_fails(outcome: Outcome) -> Section:
    import pandas as pd

    cells = [cell for cell in outcome.cells if cell.table == "weights"]
    backbones = dict.fromkeys(run.backbone for run in cells[0].runs)
    found = {backbone: diagnosed(cells, backbone) for backbone in backbones}
    compared = Compared.of({"weights": readings(outcome.cells, "weights")})
    confidences = [confidence for of, _ in found.values() for confidence in of]
    areas = ", ".join(f"{_auroc(c.auroc)} {c.estimates} on {c.backbone}" for c in confidences)
    rows = pd.DataFrame([_confidence_row(c) for c in confidences])
    return Section(
        "Why does reweighting perform poorly here?",
        f"Weights hardly move a head that is right on all that it is fitted on: {_moved(found.values())}. "
        + " ".join(_why(*of) for of in found.values()),
        "chance (AUROC) that AFR's first head is less sure of a training signal without a spike than of one with: "
        f"{areas}; Wilson's interval for as many rows as the rarer kind has", (),
        ((f"AFR's first head, and weights exp(-{GAMMA:g} p) by it", rows), (GAINS, compared.table)),
    )  # fmt: skip


def _moved(found: Iterable[tuple[Sequence[Confidence], Reweighting]]) -> str:
    return "; ".join(
        f"on {w.backbone}, {100 * w.training_accuracy:.1f} % right in training, RWG's head and the plain one have a "
        f"cosine of {w.cosine:.2f}" for _, w in found
    )  # fmt: skip


def _why(confidences: Sequence[Confidence], weighed: Reweighting) -> str:
    inside, outside = confidences
    return (
        f"On {weighed.backbone} RWG's weights are worth {100 * weighed.effective:.0f} % of the signals; its head is "
        "hardly regularised. AFR's first head gives signals that it was fitted on a confidence of "
        f"{inside.without:.2f} without a spike and {inside.with_spike:.2f} with one: its weights are worth "
        f"{100 * inside.effective:.0f} % of them, {100 * inside.minority_weight:.0f} % on the "
        f"{100 * inside.minority:.0f} % without a spike. Held-out signals "
        f"it gives {outside.without:.2f} and {outside.with_spike:.2f}; the weights are worth "
        f"{100 * outside.effective:.0f} %, {100 * outside.minority_weight:.0f} % on those without a spike."
    )


def _auroc(area: Interval) -> str:
    return f"{area.value:.2f} ({area.low:.2f}–{area.high:.2f}, n = {area.n})"


def _confidence_row(c: Confidence) -> dict[str, Any]:
    return {
        "backbone": c.backbone, "estimates": c.estimates, "confidence with a spike": c.with_spike,
        "without": c.without, "effective share of rows": c.effective,
        "weight of those without %": 100 * c.minority_weight, "their share %": 100 * c.minority,
    }  # fmt: skip


def _attention(outcome: Outcome) -> Section:
    of = readings(outcome.cells, "attention")
    compared = Compared.of({"attention": of})
    sure = [reading.head for _, reading in compared.sure]
    told = ", ".join(f"{reading.head} {_points(gain.interval)}" for (_, reading), gain, _ in compared.cases)
    plain = next(reading for reading in of if reading.head == "plain")
    helps = f"surely helps with {' and '.join(sure)}" if sure else "does not surely help"
    text = (
        f"Attention to the worst of the ten classes {helps}. The plain head's worst class is at "
        f"{_figure(plain.worst_class)}; gained: {told}."
    )
    return Section(
        "Does more attention to the group with the worst accuracy help?", text, compared.evidence,
        (("Attention to the worst class", lines(frame_of(of), "head", "worst_class", by="backbone")),),
        ((GAINS, compared.table),),
    )  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """Every head beside the plain one of the same data and backbone: (table, reading), its gain, its adjusted p."""

    cases: tuple[tuple[tuple[str, Reading], Gain, float], ...]

    @classmethod
    def of(cls, found: Mapping[str, Sequence[Reading]]) -> Compared:
        """All readings of {table: readings}; p-values are adjusted over all of them."""
        cases = [(table, reading) for table, of in found.items() for reading in of if reading.head != "plain"]
        gains = [reading.over(_plain_beside(found[table], reading)) for table, reading in cases]
        return cls(tuple(zip(cases, gains, holm([gain.p for gain in gains]), strict=True)))

    @property
    def sure(self) -> list[tuple[str, Reading]]:
        """Those that are better than the plain head."""
        return [case for case, _, p in self.cases if p < ERROR]

    @property
    def evidence(self) -> str:
        """The test, in words."""
        return (
            "gain of the worst class over the plain head on the same 1,000 clean test signals, a paired test of two "
            f"minima; p adjusted over {len(self.cases)} comparisons (Holm), “surely” where it is below {ERROR:g}"
        )

    @property
    def table(self) -> pd.DataFrame:
        """One row a reading, as a page shows it."""
        import pandas as pd

        return pd.DataFrame([
            {
                **reading.axes, "backbone": reading.backbone, "head": reading.head, "seeds": reading.seeds,
                "average %": 100 * reading.average.value, "worst class %": _figure(reading.worst_class),
                "gained, points": _points(gain.interval), "p": p_text(p),
                "average gained, points": _points(gain.average),
            }
            for (_, reading), gain, p in self.cases
        ])  # fmt: skip


def _plain_beside(of: Sequence[Reading], reading: Reading) -> Reading:
    return next(r for r in of if (r.head, r.backbone, r.axes) == ("plain", reading.backbone, reading.axes))


def _figure(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} % ({100 * interval.low:.1f}–{100 * interval.high:.1f}, n = {interval.n})"


def _points(interval: Interval) -> str:
    return f"{signed(interval.value)} ({signed(interval.low)} to {signed(interval.high)})"


def _maps() -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="tight")
    for ax, (title, probability) in zip(figure.subplots(1, 2), (("clean", 0.0), ("spikes in 90 %", 0.9)), strict=True):
        x, y = (part[:ON_A_MAP] for part in training_rows(probability, 2.0))
        at = project(x)
        for digit in np.unique(y):
            ax.plot(
                *at[y == digit].T,
                ls="",
                marker=MARKERS[digit],
                color=COLOURS[digit % len(COLOURS)],
                ms=3,
                mew=0,
                label=str(digit),
            )
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=9, fontweight="bold", loc="left")
    return figure
