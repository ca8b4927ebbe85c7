"""The plots of a repair: what it costs and what it brings, over N, over images, and against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from embedx.repair.records import Outcome, RepairRecord
from embedx.report.drawing import GREY, INK, legend, looks_of, svg_of
from embedx.statistics import mean_of_draws

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, HIGH = 3.4, 2.5
Value = Callable[[Outcome], float]
CURVES: dict[str, tuple[str, Value]] = {
    "top1": ("top-1, other rows (%)", lambda o: 100 * o.figures.top1.value),
    "top5": ("top-5, other rows (%)", lambda o: 100 * o.figures.top5.value),
    "kl": ("KL(p0 || p), mean (nats)", lambda o: o.moved.kl),
    "others": ("other images of the class (%)", lambda o: 100 * o.figures.others.value if o.figures.others else 0.0),
    "concept": ("images of the concept (%)", lambda o: 100 * o.figures.concept.value),
    "said_target": ("others said to be it (%)", lambda o: 100 * o.figures.said_target.value),
}
"""{name: axis and value}, each drawn over N."""


def plots(record: RepairRecord) -> dict[str, str]:
    """{name: SVG text} of every plot that the record can fill."""
    names = [n for n in CURVES if n != "others" or record.before.others is not None]
    drawn = {f"{name}_over_classes": over_classes(record, name) for name in names}
    if len(record.settings.shots) > 1:
        drawn["concept_over_shots"] = over_shots(record)
    return drawn | {"front": front(record)}


def over_classes(record: RepairRecord, name: str) -> str:
    """A value against N, a line for each learning rate, with the shots and the pull that were chosen."""
    values = sorted({o.setting.classes for o in record.outcomes})
    return _lines(record, name, "N: classes that are kept with one image each", values, "classes")


def over_shots(record: RepairRecord) -> str:
    """Accuracy on the concept against its images that were fitted on, with the N and the pull that were chosen."""
    values = sorted({o.setting.shots for o in record.outcomes})
    return _lines(record, "concept", "images of the concept that are fitted on", values, "shots")


def front(record: RepairRecord) -> str:
    """Repair against retention: every setting, its mean over seeds; what lies on the front is joined."""
    top1 = [(s, _mean(record, s, "top1"), _mean(record, s, "concept")) for s in record.grid]
    looks = looks_of(f"{rate:g}" for rate in sorted(record.settings.rates))

    def draw(ax: Axes) -> None:
        for setting, x, y in top1:
            look: dict[str, Any] = looks[f"{setting.rate:g}"] | {"ms": 4.5, "alpha": 0.8}
            ax.plot([x], [y], **look)
        best = _undominated([(x, y) for _, x, y in top1])
        ax.plot([x for x, _ in best], [y for _, y in best], color=GREY, lw=1, zorder=0)
        x, y = next((x, y) for s, x, y in top1 if s == record.chosen)
        ax.plot([x], [y], "o", ms=12, mfc="none", mec=INK, mew=1.2)
        ax.plot([100 * record.before.top1.value], [100 * record.before.concept.value], "+", ms=11, mew=1.8, color=INK)
        for control in record.bias_only[:1]:
            ax.plot([100 * control.top1.value], [100 * control.concept.value], "x", ms=8, mew=1.8, color=INK)
        ax.set_xlabel(f"top-1, other rows (%), n = {record.before.top1.n:,}")
        ax.set_ylabel(f"concept (%), n = {record.before.concept.n:,}")

    return small_plot(draw, {f"rate {name}": look for name, look in looks.items()})


def _lines(record: RepairRecord, name: str, x_label: str, values: Sequence[int], axis: str) -> str:
    label, value = CURVES[name]
    looks = looks_of(f"{rate:g}" for rate in sorted(record.settings.rates))
    before = {
        "top1": record.before.top1, "top5": record.before.top5, "concept": record.before.concept,
        "others": record.before.others, "said_target": record.before.said_target,
    }.get(name)  # fmt: skip

    def draw(ax: Axes) -> None:
        for i, (rate, look) in enumerate(looks.items()):
            fixed = {"shots": record.chosen.shots, "classes": record.chosen.classes, "pull": record.chosen.pull}
            points = []
            for at, x in enumerate(values):
                want = fixed | {axis: x}
                of = [o for o in record.outcomes if f"{o.setting.rate:g}" == rate
                      and all(getattr(o.setting, k) == v for k, v in want.items())]  # fmt: skip
                points.append((at + 0.07 * (i - (len(looks) - 1) / 2), mean_of_draws([value(o) for o in of])))
            for at, m in points:
                ax.plot([at, at], [m.low, m.high], color=look["color"], lw=0.9)
            ax.plot([at for at, _ in points], [m.value for _, m in points], **look | {"ms": 5, "ls": "-", "lw": 1.1})
        if before is not None:
            ax.axhline(100 * before.value, color=GREY, lw=1, ls="--")
        ax.set_xticks(range(len(values)), [f"{v:,}" for v in values])
        ax.set_xlabel(x_label)
        ax.set_ylabel(label)

    return small_plot(draw, {f"rate {name}": look for name, look in looks.items()})


def _mean(record: RepairRecord, setting: Any, name: str) -> float:
    return mean_of_draws([CURVES[name][1](o) for o in record.of(setting)]).value


def _undominated(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both, from the left to the right."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, reverse=True):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best[::-1]


def small_plot(draw: Callable[[Axes], None], looks: dict[str, dict[str, Any]]) -> str:
    """A small plot as SVG text; looks: {name: look} of its legend."""

    def figure() -> Figure:
        from matplotlib.figure import Figure

        out = Figure(figsize=(WIDE, HIGH))
        ax = out.add_axes((0, 0, 1, 1))
        draw(ax)
        ax.grid()
        legend(out, looks, 1)
        return out

    return svg_of(figure)
