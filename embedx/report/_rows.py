"""What the tables show: a row per head and backbone, its seeds joined, every figure with spread, interval and n."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from embedx.evaluation.metrics import Interval
from embedx.evaluation.runs import Run
from embedx.probes import supervision_in_words
from embedx.report._points import Bar, Spot, bar, count, joined, spots

FIGURES = ("worst_group", "average", "adjusted_average", "worst_class")


@dataclass(frozen=True)
class Row:
    """One head on one backbone.

    figures   bars in percent by name, those of FIGURES
    whose     the worst group's name, or how often it was which among the seeds
    tried     configurations per seed; `converged` how many of the seeds did
    """

    spot: Spot
    figures: Mapping[str, Bar]
    whose: str
    supervision: str
    selection: str
    tried: str
    converged: int

    @property
    def backbone(self) -> str:
        return self.spot.backbone

    @property
    def head(self) -> str:
        return self.spot.runs[0].head

    @property
    def seeds(self) -> int:
        return len(self.spot.runs)

    @property
    def all_converged(self) -> str:
        if self.seeds == 1:
            return "yes" if self.converged else "no"
        return f"{self.converged} of {self.seeds}"


def rows(runs: Sequence[Run]) -> list[Row]:
    return [_row(spot) for spot in spots(runs)]


def _row(spot: Spot) -> Row:
    first = spot.runs[0]
    return Row(
        spot=spot,
        figures={name: bar(spot, lambda run, name=name: getattr(run.metrics, name)) for name in FIGURES},
        whose=tally([run.metrics.worst_group_name for run in spot.runs]),
        supervision=supervision_in_words(first.supervision), selection=first.selection,
        tried=count([run.configurations for run in spot.runs]), converged=sum(run.converged for run in spot.runs),
    )  # fmt: skip


def tally(values: Sequence[Any]) -> str:
    """`0.1` where all agree, else `0.1 (7), 1.0 (3)`: how many of the seeds have which."""
    found = Counter(str(v) for v in values).most_common()
    return found[0][0] if len(found) == 1 else ", ".join(f"{value} ({n})" for value, n in found)


def group_rows(spot: Spot) -> list[tuple[str, Bar | None, str]]:
    """(name, accuracy in percent or None without test rows, n) of every group, the seeds joined."""
    found = [{group.name: group for group in run.metrics.groups} for run in spot.runs]
    out = []
    for name in found[0]:
        same = [groups[name] for groups in found if name in groups]
        known = [Interval(g.accuracy, g.low, g.high, g.n) for g in same if g.n]  # type: ignore[arg-type]
        out.append((name, joined(known) if known else None, count([g.n for g in same])))
    return out


def attribute(spot: Spot, name: str) -> Bar | None:
    """How well the backbone tells an attribute; None where that was not asked."""
    known = [run.attributes[name] for run in spot.runs if name in run.attributes]
    return joined(known[:1]) if known else None  # a fact of the backbone, the same for every seed


def details(spot: Spot, shared: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Everything else of a row by heading, its seeds joined; facts that all runs of the page share are left out."""
    runs = spot.runs

    def mean(of: Callable[[Run], float | None]) -> str:
        known = [x for run in runs if (x := of(run)) is not None]
        return f"{fmean(known):.4f}" if known else "–"

    gap = bar(spot, lambda run: run.metrics.gap)
    balanced = bar(spot, lambda run: run.metrics.balanced_accuracy)
    further = {
        f"validation score ({runs[0].selection})": mean(lambda run: run.validation_score),
        "gap %": interval_text(gap), "balanced accuracy %": interval_text(balanced),
        "worst class": tally([run.metrics.worst_class_name for run in runs]),
        "log loss": mean(lambda run: run.metrics.log_loss), "calibration error": mean(lambda run: run.metrics.ece),
        "AUROC": mean(lambda run: run.metrics.auroc), "features": tally([run.dim for run in runs]),
        "seeds": ", ".join(str(run.seed) for run in runs), "head is fitted on": tally([run.fits_on for run in runs]),
    }  # fmt: skip
    if any(run.protocol for run in runs):
        further["validation"] = tally([run.protocol for run in runs])
    keys = dict.fromkeys(key for run in runs for key in run.parameters if key != "random_state")
    seconds = dict.fromkeys(key for run in runs for key in run.timings)
    found = {
        "Parameters": {key: tally([run.parameters.get(key) for run in runs]) for key in keys},
        "Choice and further figures on test": further,
        "Seconds, all seeds": {key: f"{sum(run.timings.get(key, 0) for run in runs):.2f}" for key in seconds},
    }
    for title, facts in common(runs).items():
        if own := {key: value for key, value in facts.items() if shared.get(title, {}).get(key) != value}:
            found[title] = own
    return found


def common(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """Rows, inputs and versions of the runs, where they are the same in all of them."""
    kinds: dict[str, Callable[[Run], Mapping[str, Any]]] = {
        "Rows": lambda run: run.rows, "Rows left out": lambda run: run.left_out,
        "Inputs": lambda run: run.inputs, "Versions": lambda run: run.versions,
    }  # fmt: skip
    found = {}
    for title, of in kinds.items():
        values = {key: {str(of(run).get(key)) for run in runs} for key in of(runs[0])}
        found[title] = {key: next(iter(v)) for key, v in values.items() if len(v) == 1}
    return found


def interval_text(b: Bar) -> str:
    spread = "" if b.spread is None else f" ± {b.spread:.1f}"
    return f"{b.mean:.1f}{spread} ({b.low:.1f}–{b.high:.1f}), n = {count(b.rows)}"
