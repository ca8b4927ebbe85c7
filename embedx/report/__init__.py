"""The report of a comparison: one HTML page that opens offline, its plots as SVG files, and tables for a paper."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedx.evaluation import runs as records
from embedx.evaluation.records import Notice
from embedx.evaluation.runs import Run, cautions
from embedx.files import locked, write_text
from embedx.report._points import plain
from embedx.workspace import slug

if TYPE_CHECKING:
    from embedx.evaluation.verdict import Verdict
    from embedx.report.scale import Scale
    from embedx.report.verdicts import Answer

HERE = Path(__file__).parent
PAGE, TABLES, PLOTS = "report.html", ("table.tex", "table.md"), "plots"
DRAWN = ("worst_group", "worst_against_average", "group_heatmap", "backbones", "differences", "against_size", "map-*")
"""Names of the plots."""


def write(
    runs: Sequence[Run], folder: Path, *, verdicts: Sequence[Verdict] = (), maps: Sequence[tuple[str, str]] = ()
) -> Path:
    """Write `report.html`, `plots/*.svg`, `table.tex` and `table.md` under `folder`; returns the page.

    verdicts  one per backbone, of heads that are among the runs
    maps      (backbone, SVG text of `embedding_map`), shown in the page and written as `plots/map-BACKBONE.svg`

    Each file lands whole or not at all. Raises `ValueError` without runs, for runs of several datasets, whose groups
    have nothing in common, and for a verdict on heads that are not among the runs.
    """
    files = _files(runs, verdicts, maps)
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_text(folder / name, text)
    return folder / PAGE


def publish(
    runs: Sequence[Run],
    folder: Path,
    *,
    verdicts: Sequence[Verdict] = (),
    maps: Sequence[tuple[str, str]] = (),
    notice: Notice = lambda text: None,
) -> Path:
    """Write the records of a comparison and the report, in place of those that the folder held; returns the page.

    All files are of one comparison, whoever else compares into the folder: one at a time writes them, and those of
    other records are gone before the records change. What another comparison loses by it is told through `notice`.
    """
    files = _files(runs, verdicts, maps)
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    with locked(folder / records.FILE):
        records.require(folder, comparison=True)
        if said := records.replaced(runs, folder):
            notice(said)
        plots = [plot for name in DRAWN for plot in (folder / PLOTS).glob(f"{name}.svg")]
        records.save(runs, folder, comparison=True, views=[folder / PAGE, *(folder / t for t in TABLES), *plots])
        for name, text in files.items():
            write_text(folder / name, text)
    return folder / PAGE


def _files(runs: Sequence[Run], verdicts: Sequence[Verdict], maps: Sequence[tuple[str, str]]) -> dict[str, str]:
    """All files of a report, by their names; the page is the last."""
    if len({run.dataset for run in runs}) != 1:
        raise ValueError(f"a report shows the runs of one dataset, these are of {sorted({r.dataset for r in runs})}")
    from embedx.report import plots, tables
    from embedx.report.scale import against_size, scales
    from embedx.report.verdicts import answers, backbones, differences

    given, sizes = answers(runs, verdicts), scales(runs)
    drawn = {f.__name__: f(runs) for f in (plots.worst_group, plots.worst_against_average, plots.group_heatmap)}
    drawn["backbones"] = backbones(runs, given)
    if given:
        drawn["differences"] = differences(given)
    if any(scale.sizes for scale in sizes):
        drawn["against_size"] = against_size(runs, sizes)
    named = [*drawn.items(), *((f"map-{slug(backbone)}", svg) for backbone, svg in maps)]
    files = {f"{PLOTS}/{name}.svg": svg for name, svg in named}
    files |= {"table.tex": tables.latex(runs), "table.md": tables.markdown(runs)}
    return files | {PAGE: _page(runs, drawn, given, sizes, maps)}


def _page(
    runs: Sequence[Run],
    drawn: dict[str, str],
    given: Sequence[Answer],
    sizes: Sequence[Scale],
    maps: Sequence[tuple[str, str]],
) -> str:
    """The page; everything but our own SVG, style and script is escaped, and its policy runs no script but its own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from embedx.probes import supervision_in_words
    from embedx.report import _rows, published
    from embedx.report._points import count
    from embedx.report.plots import crowded
    from embedx.report.scale import in_words
    from embedx.report.verdicts import reference, worst

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_clean,
    )  # fmt: skip
    shared = _rows.common(runs)
    environment.filters |= {
        "percent": _percent, "sha256": _sha256, "breakable": _breakable, "count": count, "in_words": in_words,
        "supervision": supervision_in_words,
        "groups": _rows.group_rows, "attribute": _rows.attribute,
        "details": lambda spot: _rows.details(spot, shared).items(),
        "worst": lambda spot: _rows.interval_text(_rows.bar(spot, worst)),
    }  # fmt: skip
    rows = _rows.rows(runs)
    known = published.published(runs[0].dataset)
    sources = list(dict.fromkeys(p.source for p in known))
    backbones = list(dict.fromkeys(run.backbone for run in runs))
    return environment.get_template("page.html.j2").render(
        runs=runs,
        rows=rows,
        dataset=runs[0].dataset,
        counts={split: count([run.rows[split] for run in runs]) for split in ("train", "val", "test")},
        backbones=backbones,
        heads=list(dict.fromkeys(run.head for run in runs)),
        supervisions=list(dict.fromkeys(row.supervision for row in rows)),
        seeds=max(row.seeds for row in rows),
        empty=list(dict.fromkeys(g.name for run in runs for g in run.metrics.groups if not g.n)),
        left_out={run.backbone: sum(run.left_out.values()) for run in runs if sum(run.left_out.values())},
        unconverged=sum(not run.converged for run in runs),
        shared_images={s: n for run in runs for s, n in run.shared_images.items() if n},
        shared_subjects={s: (n, run.cluster) for run in runs for s, n in run.shared_subjects.items() if n},
        dropped={s: n for run in runs for s, n in run.dropped.items() if n},
        cautions=cautions(runs),
        attributes=list(dict.fromkeys(name for run in runs for name in run.attributes)),
        crowded=crowded(runs),
        answers=given,
        reference=reference(runs),
        published={
            title: [(p, sources.index(p.source) + 1) for p in known if p.kind == kind]
            for kind, title in published.KINDS.items()
            if any(p.kind == kind for p in known)
        },
        sources=sources,
        marks="" if all(p.traced for p in known) else "†",
        same_test=published.same_test_set(runs[0].dataset, [g.n for g in runs[0].metrics.groups]),
        scales=sizes,
        pretraining={found.name: found for b in backbones if (found := published.pretraining(b))},
        shared=shared,
        plots={name: Markup(_inline(svg)) for name, svg in drawn.items()},  # noqa: S704  matplotlib escapes the texts
        maps=[(name, Markup(_inline(svg))) for name, svg in maps],  # noqa: S704  made by embedding_map
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704  our own file
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),  # noqa: S704  our own file
    )


def _inline(svg: str) -> str:
    """A plot as part of a page: as wide as the page, never wider or much smaller than drawn, in the page's colours."""
    from embedx.report import _drawing

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
        svg = re.sub(f"(fill|stroke): {getattr(_drawing, name.upper())}", rf"\1: var(--{name})", svg)
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
