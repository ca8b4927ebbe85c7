"""The files of a report, and the records beside them: all of one comparison, each whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from embedx.evaluation import runs as records
from embedx.evaluation.records import Notice
from embedx.evaluation.runs import Run
from embedx.evaluation.verdict import Verdict
from embedx.files import locked, write_text
from embedx.report import plots, tables, verdict_plots
from embedx.report.comparison import Comparison
from embedx.report.page import page
from embedx.report.scale import against_size
from embedx.workspace import slug

PAGE, TABLES, PLOTS = "report.html", ("table.tex", "table.md"), "plots"
DRAWN = ("worst_group", "worst_against_average", "group_heatmap", "backbones", "differences", "against_size", "map-*")
"""Names of the plots."""


def write(
    runs: Sequence[Run],
    folder: Path,
    *,
    verdicts: Sequence[Verdict] | None = None,
    maps: Mapping[str, str] | None = None,
) -> Path:
    """Write `report.html`, `plots/*.svg`, `table.tex` and `table.md` under `folder`; returns the page.

    verdicts  one per backbone, of heads that are among the runs; by default those that the runs give
    maps      {backbone: SVG text of `embedding_map`}, shown in the page and written as `plots/map-BACKBONE.svg`

    Each file lands whole or not at all. Raises `ValueError` without runs, for runs of several datasets, whose groups
    have nothing in common, and for a verdict or a map of what is not among the runs.
    """
    files = _files(Comparison.of(runs, verdicts, maps))
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_text(folder / name, text)
    return folder / PAGE


def publish(
    runs: Sequence[Run],
    folder: Path,
    *,
    verdicts: Sequence[Verdict] | None = None,
    maps: Mapping[str, str] | None = None,
    notice: Notice = lambda text: None,
) -> Path:
    """Write the records of a comparison and the report, in place of those that the folder held; returns the page.

    All files are of one comparison, whoever else compares into the folder: one at a time writes them, and those of
    other records are gone before the records change. What another comparison loses by it is told through `notice`.
    Arguments and errors are those of `write`; `ResultsError` for a folder of single runs.
    """
    files = _files(Comparison.of(runs, verdicts, maps))
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    with locked(folder / records.FILE):
        records.require(folder, comparison=True)
        if loss := records.replaced(runs, folder):
            notice(loss)
        old_plots = [plot for name in DRAWN for plot in (folder / PLOTS).glob(f"{name}.svg")]
        views = [folder / PAGE, *(folder / table for table in TABLES), *old_plots]
        records.save(runs, folder, comparison=True, views=views)
        for name, text in files.items():
            write_text(folder / name, text)
    return folder / PAGE


def _files(comparison: Comparison) -> dict[str, str]:
    """All files of a report, by their names; the page is the last."""
    drawn = {
        draw.__name__: draw(comparison)
        for draw in (plots.worst_group, plots.worst_against_average, plots.group_heatmap, verdict_plots.backbones)
    }
    if comparison.verdicts:
        drawn["differences"] = verdict_plots.differences(comparison)
    if any(scale.sizes for scale in comparison.scales):
        drawn["against_size"] = against_size(comparison)
    maps = {f"map-{slug(backbone)}": svg for backbone, svg in comparison.maps.items()}
    files = {f"{PLOTS}/{name}.svg": svg for name, svg in (drawn | maps).items()}
    files |= {"table.tex": tables.latex(comparison), "table.md": tables.markdown(comparison)}
    return files | {PAGE: page(comparison, drawn)}
