"""The plots of a repair of groups: what k images of each group bring and cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from embedx.repair.groups.records import GroupFigures, GroupOutcome, GroupRepairRecord
from embedx.repair.groups.settings import GroupSetting
from embedx.repair.plots import small_plot
from embedx.report.drawing import looks_of
from embedx.statistics import mean_of_draws

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Value = Callable[[GroupOutcome], float]
ACCURACIES: dict[str, Callable[[GroupFigures], float]] = {
    "adjusted average": lambda f: 100 * f.adjusted_average.value,
    "worst group": lambda f: 100 * f.worst_group.value,
}


def plots(record: GroupRepairRecord) -> dict[str, str]:
    """{name: SVG text} of every plot."""
    chosen = {of.setting.shots: of.setting for of in record.by_shots}
    by_rate = {
        f"rate {rate:g}": {
            s.shots: s for s in record.grid if s.rate == rate and s.pull == record.chosen.pull
        } for rate in sorted(record.settings.rates)
    }  # fmt: skip
    worst = ACCURACIES["worst group"]
    return {
        "accuracy_over_shots": _over_shots(
            record, "test rows (%)", {name: (chosen, _of(value)) for name, value in ACCURACIES.items()},
            {name: value(record.before) for name, value in ACCURACIES.items()},
        ),
        "flips_over_shots": _over_shots(
            record, f"rows of {record.before.average.n:,}",
            {"right to wrong": (chosen, lambda o: o.lost), "wrong to right": (chosen, lambda o: o.gained)}, {},
        ),
        "rates_over_shots": _over_shots(
            record, "worst group (%)", {name: (of, _of(worst)) for name, of in by_rate.items()},
            dict.fromkeys(by_rate, worst(record.before)),
        ),
    }  # fmt: skip


def _of(value: Callable[[GroupFigures], float]) -> Value:
    return lambda outcome: value(outcome.figures)


def _over_shots(
    record: GroupRepairRecord, label: str, lines: Mapping[str, tuple[Mapping[int, GroupSetting], Value]],
    before: Mapping[str, float],
) -> str:  # fmt: skip
    """A value against k, with its interval over seeds, a line each; dashed: that of the original head."""
    looks, values = looks_of(lines), record.settings.shots

    def draw(ax: Axes) -> None:
        for i, (name, (settings, value)) in enumerate(lines.items()):
            look, aside = looks[name], 0.07 * (i - (len(lines) - 1) / 2)
            means = [mean_of_draws([value(o) for o in record.of(settings[k])]) for k in values]
            for at, m in enumerate(means):
                ax.plot([at + aside] * 2, [m.low, m.high], color=look["color"], lw=0.9)
            ax.plot([at + aside for at in range(len(means))], [m.value for m in means],
                    **look | {"ms": 5, "ls": "-", "lw": 1.1})  # fmt: skip
            if name in before:
                ax.axhline(before[name], color=look["color"], lw=1, ls="--")
        ax.set_xticks(range(len(values)), [f"{k:,}" for k in values])
        ax.set_xlabel("k: images of each group")
        ax.set_ylabel(label)

    return small_plot(draw, looks)
