"""The report of a comparison: one HTML page that opens offline, and its plots as SVG files."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedx.files import write_text
from embedx.report._points import count, plain, spots
from embedx.runs import Run


def write(runs: Sequence[Run], folder: Path) -> Path:
    """Write `report.html` and `plots/*.svg` under `folder`, each whole or not at all; returns the page.

    Raises `ValueError` without runs and for runs of several datasets, whose groups have nothing in common.
    """
    if len({run.dataset for run in runs}) != 1:
        raise ValueError(f"a report shows the runs of one dataset, these are of {sorted({r.dataset for r in runs})}")
    from embedx.report import plots

    drawn = {f.__name__: f(runs) for f in (plots.worst_group, plots.worst_against_average, plots.group_heatmap)}
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for name, svg in drawn.items():
        write_text(folder / "plots" / f"{name}.svg", svg)
    page = folder / "report.html"
    write_text(page, _page(runs, drawn))
    return page


def _page(runs: Sequence[Run], drawn: dict[str, str]) -> str:
    """The page; everything but our own SVG is escaped, and its policy runs no script but its own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_clean,
    )  # fmt: skip
    environment.filters |= {"percent": _percent, "sha256": _sha256, "breakable": _breakable}
    return environment.get_template("page.html.j2").render(
        runs=runs,
        dataset=runs[0].dataset,
        rows={split: count([run.rows[split] for run in runs]) for split in ("train", "val", "test")},
        backbones=list(dict.fromkeys(run.backbone for run in runs)),
        heads=list(dict.fromkeys(run.head for run in runs)),
        supervisions=list(dict.fromkeys(run.supervision for run in runs)),
        seeds=max(len(spot.runs) for spot in spots(runs)),
        seeded=any(run.seed for run in runs),
        empty=list(dict.fromkeys(g.name for run in runs for g in run.metrics.groups if not g.n)),
        left_out={run.backbone: sum(run.left_out.values()) for run in runs if sum(run.left_out.values())},
        unconverged=sum(not run.converged for run in runs),
        plots={name: Markup(_inline(svg)) for name, svg in drawn.items()},  # noqa: S704  matplotlib escapes the texts
    )


def _inline(svg: str) -> str:
    """A plot as part of a page: as wide as the page, never wider or much smaller than drawn, in the page's colours."""
    from embedx.report import plots

    svg = svg[svg.index("<svg") :]
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1])  # type: ignore[index]  always there
    svg = re.sub(
        r'width="[\d.]+pt"',
        f'role="img" style="min-width: {0.85 * width:.0f}pt; max-width: {1.2 * width:.0f}pt"',
        svg,
        count=1,
    )
    svg = re.sub(r' height="[\d.]+pt"', "", svg, count=1)
    for name in ("ink", "faint", "paper"):
        svg = re.sub(f"(fill|stroke): {getattr(plots, name.upper())}", rf"\1: var(--{name})", svg)
    return svg


def _clean(value: Any) -> Any:
    return plain(value) if type(value) is str else value  # not Markup, which is our own


def _breakable(name: str) -> Any:
    """A name that may be broken after its separators."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_.:/-])", plain(name)))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _sha256(text: str) -> str:
    """Of a script, as a Content-Security-Policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
