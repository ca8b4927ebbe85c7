"""The page of a study: its answer first, then each question with plots and tables, then all runs, then what was run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedx.evaluation.runs import cautions
from embedx.html import breakable, environment
from embedx.report.drawing import inline, svg_of
from embedx.report.text import count
from embedx.studies.drawing import mean_of
from embedx.studies.engine.frame import SEED, column_of
from embedx.studies.engine.record import StudyRecord
from embedx.studies.outcome import Answer, Outcome

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).parent
STYLE = HERE.parents[1] / "report" / "page.css"
FIGURE = re.compile(r"(?:[-−+–<>=.,%()\d\s]|\b(?:to|never|[np])\b)+")
"""A number with what belongs to it: its interval, n or p."""
FIGURES = {"worst_group": "worst group %", "average": "average %", "adjusted_average": "adj. average %"}


@dataclass(frozen=True)
class Table:
    """A table as a page shows it; `numbers` are the columns set to the right."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int]


def page(record: StudyRecord, outcome: Outcome, answer: Answer, plots: Sequence[tuple[str, str]]) -> str:
    """The page as text.

    plots  (title, SVG text) of those that the study asks for
    """
    from markupsafe import Markup

    digests = {f"manifest of {name}": cell.digest for name, cell in record.cells.items()}
    templates = environment(HERE)
    templates.filters |= {"breakable": breakable}
    return templates.get_template("study.html.j2").render(
        name=record.study, small=record.small, question=record.question, summary=answer.summary, failed=record.failed,
        sections=[
            {
                "question": section.question, "answer": section.answer, "evidence": section.evidence,
                "plots": [(title, inline(svg_text(plot))) for title, plot in section.plots],
                "tables": [(title, shown(data)) for title, data in section.tables],
            }
            for section in answer.sections
        ],
        plots=[(title, inline(svg)) for title, svg in plots],
        cautions=cautions([run for cell in outcome.cells for run in cell.runs]),
        runs=shown(summary_table(outcome)), cells=shown(_cells(record)),
        asked=json.dumps(record.asked, indent=1, ensure_ascii=False),
        facts={"study": record.digest, **record.versions, **digests},
        style=Markup(STYLE.read_text(encoding="utf-8")),  # noqa: S704
    )  # fmt: skip


def svg_text(plot: Any) -> str:
    """A plot as SVG text, whether it comes as that or as a matplotlib figure."""
    return plot if isinstance(plot, str) else svg_of(lambda: plot)


def shown(data: pd.DataFrame) -> Table:
    """A frame as a page shows it: numbers to the right, floats with up to four digits."""
    from pandas.api.types import is_numeric_dtype

    def text(value: Any) -> str:
        if value is None or (isinstance(value, float) and isnan(value)):
            return "–"
        if isinstance(value, float):  # a whole number where a column has gaps, too
            return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
        return str(value)

    rows = tuple(tuple(map(text, row)) for row in data.itertuples(index=False, name=None))
    numbers = {
        i for i, name in enumerate(data.columns)
        if is_numeric_dtype(data[name]) or all(FIGURE.fullmatch(row[i]) for row in rows)
    }  # fmt: skip
    return Table(tuple(map(str, data.columns)), rows, frozenset(numbers))


def summary_table(outcome: Outcome) -> pd.DataFrame:
    """One row for every cell, backbone, head and rule: figures of test as means over seeds with their intervals.

    Cells that differ in the seed of their data are one.
    """
    import pandas as pd

    frame = outcome.frame
    axes = dict.fromkeys(column_of(axis) for cell in outcome.cells for axis in cell.axes if axis != SEED)
    keys = ["table", *axes, "backbone", "head", "selection"]
    rows = []
    for values, part in frame.groupby(keys, sort=False, dropna=False):
        row: dict[str, Any] = dict(zip(keys, values if isinstance(values, tuple) else (values,), strict=True))
        for name, heading in FIGURES.items():
            mean = mean_of(part, name)
            n = count(part[f"{name}_n"].tolist())
            row[heading] = f"{100 * mean.value:.1f} ({100 * mean.low:.1f}–{100 * mean.high:.1f}), n = {n}"
        row["supervision"], row["seeds"] = part["supervision"].iloc[0], len(part)
        rows.append(row)
    return pd.DataFrame(rows)


def _cells(record: StudyRecord) -> pd.DataFrame:
    import pandas as pd

    def megabytes(caches: Mapping[str, Any]) -> str:
        return f"{sum(cache.bytes for cache in caches.values()) / 1e6:,.1f}"

    return pd.DataFrame([
        {
            "cell": name, "dataset": cell.dataset, "rows": cell.rows, "backbones": ", ".join(cell.caches),
            "caches (MB)": megabytes(cell.caches), "runs": cell.runs, "fits (s)": f"{cell.seconds:.1f}",
        }
        for name, cell in record.cells.items()
    ])  # fmt: skip
