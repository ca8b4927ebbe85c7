"""What a study would do, and about how long and large that is, by what its cells that are through have taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from embedx.data.prepare import open_prepared
from embedx.errors import EmbedxError, StudyError
from embedx.evaluation import runs as records
from embedx.evaluation.heads import HeadRequest
from embedx.extract.backbones import by_name
from embedx.studies.engine.cells import Cell
from embedx.studies.engine.record import CELL, CellRecord
from embedx.studies.engine.run import CELLS
from embedx.workspace import Workspace


@dataclass(frozen=True)
class Forecast:
    """What is to be done for one cell; None where nothing tells.

    rows     of its dataset, by the manifest where it is `prepared`, else by other cells of its table
    extract  backbones without a feature cache
    fit      heads on backbones, by every rule and seed, without a run
    seconds  about how long; `bytes` about how much more on the disk
    """

    cell: Cell
    prepared: bool
    rows: int | None
    extract: tuple[str, ...]
    fit: int | None
    seconds: float | None
    bytes: float | None


@dataclass(frozen=True)
class Rates:
    """Of the cells of a table that are through: mean rows; seconds a row, of extraction and of one fit; bytes a row."""

    rows: float
    extract: float
    fit: float
    bytes: Mapping[str, float]

    @classmethod
    def of(cls, through: Sequence[CellRecord]) -> Rates | None:
        """Their means; None without any cell."""
        if not through:
            return None
        made = [cache for one in through for cache in one.caches.values() if cache.rows]
        sizes: dict[str, list[float]] = {}
        for one in through:
            for name, cache in one.caches.items():
                sizes.setdefault(name, []).append(cache.bytes / one.rows)
        return cls(
            rows=fmean(one.rows for one in through),
            extract=fmean(c.seconds / c.rows for c in made) if made else 0.0,
            fit=fmean(one.seconds / (one.runs * one.rows) for one in through),
            bytes={name: fmean(values) for name, values in sizes.items()},
        )


def forecast(cells: Sequence[Cell], workspace: Workspace, folder: Path, small: Path) -> list[Forecast]:
    """One for each cell; reads records and manifests, and does no work.

    folder  of the study's results, `small` of those of its reduced form: their cells tell how long things take
    """
    through = [*_records(folder), *_records(small)]
    forecasts = []
    for cell in cells:
        alike = Rates.of([record for record in through if record.table == cell.table])
        forecasts.append(
            _of(cell, workspace, folder, alike or Rates.of(through), None if alike is None else alike.rows)
        )
    return forecasts


def _records(folder: Path) -> list[CellRecord]:
    """The cells of a folder that are through."""
    found = []
    for path in sorted(folder.glob(f"{CELLS}/*/{CELL.file}")):
        try:
            found.append(CELL.read(path))
        except StudyError:
            continue  # of another version, or damaged: made again with its cell
    return found


def _of(cell: Cell, workspace: Workspace, folder: Path, rates: Rates | None, likely: float | None) -> Forecast:
    """`likely` are the rows that other cells of the table have; a rate is one of these, or else of all cells."""
    rows = _rows(cell, workspace)
    prepared = rows is not None
    if rows is None and likely is not None:
        rows = round(likely)
    names = tuple(by_name(cell.backbones))
    extract = tuple(name for name in names if not (prepared and workspace.cache(cell.dataset, name).exists()))
    fit = _fits_left(cell, names, folder) if prepared and not extract else _fits(cell, names)
    seconds = size = None
    if rates is not None and rows is not None and fit is not None:
        seconds = rows * (rates.extract * bool(extract) + rates.fit * fit)
        if all(name in rates.bytes for name in extract):
            size = rows * sum(rates.bytes[name] for name in extract)
    return Forecast(cell, prepared, rows, extract, fit, seconds, size)


def _rows(cell: Cell, workspace: Workspace) -> int | None:
    """Rows of a dataset that is prepared with the options that are asked for; else None."""
    try:
        manifest, _ = open_prepared(workspace, cell.dataset)
    except EmbedxError:
        return None
    asked = dict(cell.options)
    return None if manifest.origin and asked and dict(manifest.origin.options) != asked else len(manifest)


def _fits(cell: Cell, names: Sequence[str]) -> int | None:
    """An upper bound: not every head takes several seeds. None for the standard heads, of which the data decide."""
    return len(names) * len(cell.heads) * len(cell.rules) * cell.seeds if cell.heads else None


def _fits_left(cell: Cell, names: Sequence[str], folder: Path) -> int | None:
    """Those of which the folder of the cell holds no run."""
    try:
        runs = records.load(folder / CELLS / cell.name / records.FILE)
    except EmbedxError:
        return _fits(cell, names)
    finished = {(run.backbone, run.head) for run in runs}
    labels = [head.label if isinstance(head, HeadRequest) else head for head in cell.heads]
    return sum((name, label) not in finished for name in names for label in labels) * len(cell.rules) * cell.seeds
