"""The files of a repair: the record, one page that opens offline, and its plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from embedx.evaluation.figures import percent
from embedx.html import breakable, environment
from embedx.repair.files import facts, over_seeds, p_value, points, style, written
from embedx.repair.plots import plots
from embedx.repair.records import FILE, KIND, BiasOnly, Figures, Outcome, RepairRecord
from embedx.repair.repair import Repaired
from embedx.repair.settings import Setting
from embedx.report.drawing import inline
from embedx.statistics import Interval

HERE = Path(__file__).parent
PAGE = "repair.html"
VERDICTS = {
    "class": "It learned the class", "concept": "It learned the concept",
    "says the target more": "It says the target more", "no repair": "No repair", "cannot tell": "Cannot tell",
}  # fmt: skip
COLUMNS: dict[str, Callable[[Sequence[Outcome]], str]] = {
    "images": lambda of: str(of[0].setting.shots),
    "N": lambda of: f"{of[0].setting.classes:,}",
    "rate": lambda of: f"{of[0].setting.rate:g}",
    "pull": lambda of: of[0].setting.pull,
    "reached": lambda of: f"{sum(o.reached for o in of)} of {len(of)}",
    "steps": lambda of: f"{median(o.steps for o in of):,g}",
    "concept %": lambda of: _percent([o.figures.concept.value for o in of]),
    "rank": lambda of: f"{median(o.figures.concept_rank for o in of):g}",
    "top-1 %": lambda of: _percent([o.figures.top1.value for o in of]),
    "top-5 %": lambda of: _percent([o.figures.top5.value for o in of]),
    "KL": lambda of: f"{_mean([o.moved.kl for o in of]):.3f}, {_mean([o.moved.kl_95 for o in of]):.3f}",
    "KL back": lambda of: f"{_mean([o.moved.reverse for o in of]):.3f}, {_mean([o.moved.reverse_95 for o in of]):.3f}",
    "lost": lambda of: f"{_mean([o.moved.lost for o in of]):,.1f}",
    "gained": lambda of: f"{_mean([o.moved.gained for o in of]):,.1f}",
    "said to be it %": lambda of: _percent([o.figures.said_target.value for o in of]),
    "others of the class %": lambda of: _percent([o.figures.others.value for o in of if o.figures.others]),
    "worst class %": lambda of: _percent([o.figures.worst_class for o in of]),
    "worst drop, points": lambda of: f"{100 * _mean([o.moved.worst_drop for o in of]):.1f}",
    "‖ΔW‖": lambda of: f"{_mean([o.moved.weight for o in of]):.3g}",
    "‖Δw‖": lambda of: f"{_mean([o.moved.target_weight for o in of]):.3g}",
    "Δb": lambda of: f"{_mean([o.moved.target_bias for o in of]):+.2g}".replace("-", "−"),
    "matched concept %": lambda of: _percent([o.matched.concept.value for o in of]),
    "matched others %": lambda of: _percent([o.matched.others.value for o in of if o.matched.others]),
}
"""The table of all settings: {heading: cell of a setting's outcomes}."""


def publish(repaired: Repaired, folder: Path) -> tuple[Path, Path]:
    """Write `repair.json`, `repair.html`, `plots/*.svg` and the repaired head into a folder; returns page and head.

    Each file lands whole or not at all, and takes the place of that of an earlier repair.
    """
    record, model = repaired.record, repaired.model
    drawn = plots(record)
    file = written(model, folder, "repaired", drawn, {PAGE: page(record, drawn)})
    KIND.write(folder / FILE, record)
    return folder / PAGE, file


def page(record: RepairRecord, drawn: Mapping[str, str]) -> str:
    """The page as text; drawn: {name: SVG text}."""
    templates, answer = environment(HERE), record.answer
    templates.filters |= {"percent": percent, "points": points, "p": p_value, "breakable": breakable}
    gains = {
        "concept: repaired − original": answer.repaired, "concept: repaired − matched bias": answer.concept,
        "other images of the class: repaired − matched bias": answer.others,
        "other rows said to be it: repaired − original": answer.said_target,
    }  # fmt: skip
    steps = {"threshold": f"{record.settings.threshold:g}", "most steps": f"{record.settings.steps:,}"}
    return templates.get_template("page.html.j2").render(
        r=record, settings=record.grid, verdict=VERDICTS[answer.verdict], compared=list(compared(record).items()),
        gains=[(name, gain) for name, gain in gains.items() if gain is not None], style=style(),
        plots={name: inline(svg) for name, svg in drawn.items()}, headings=list(COLUMNS),
        rows=[table_row(record, setting) for setting in record.grid], facts=facts(record, steps),
        reached=sum(o.reached for o in record.of(record.chosen)),
    )  # fmt: skip


def compared(record: RepairRecord) -> dict[str, tuple[Interval | None, ...]]:
    """{head: concept, other images, said to be it, top-1} of what stands beside the original, means over seeds."""
    of = record.of(record.chosen)
    heads: dict[str, Sequence[Figures | BiasOnly]] = {
        "repaired": [o.figures for o in of],
        "bias alone, matched": [o.matched for o in of],
        "bias alone, stopped": record.bias_only,
    }
    return {name: _over_seeds(figures) for name, figures in heads.items()}


def table_row(record: RepairRecord, setting: Setting) -> list[str]:
    """The cells of a setting, as `COLUMNS` has them."""
    return [cell(record.of(setting)) for cell in COLUMNS.values()]


def _over_seeds(heads: Sequence[Figures | BiasOnly]) -> tuple[Interval | None, ...]:
    others = [h.others for h in heads if h.others is not None]
    shares = ([h.concept for h in heads], others, [h.said_target for h in heads], [h.top1 for h in heads])
    return tuple(over_seeds(of) if of else None for of in shares)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(values: Sequence[float]) -> str:
    return percent(_mean(values)) if values else "–"
