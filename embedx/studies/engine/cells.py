"""The cells of a study: one prepared dataset each, with the backbones, heads and rules that are run on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedx import plugins
from embedx.errors import StudyError
from embedx.evaluation.heads import HeadRequest
from embedx.studies.study import Study, Table, combinations, requests
from embedx.workspace import slug

LONGEST = 100
"""Letters of a dataset's name; file systems take 255 bytes, and a backbone's may stand beside it."""


@dataclass(frozen=True)
class Cell:
    """One dataset of a study, and what is run on it.

    table    key of the table that it is of
    dataset  name under which it is prepared
    source   dataset plug-in, or the name of a prepared dataset
    options  of the source, in words
    axes     {option: value} of those that are swept
    rules    selection rules; None: as the authors of each head do
    """

    table: str
    dataset: str
    source: str
    root: str
    options: Mapping[str, str]
    axes: Mapping[str, Any]
    backbones: tuple[str, ...]
    heads: tuple[str | HeadRequest, ...]
    rules: tuple[str | None, ...]
    seeds: int
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its folder of results, and in messages."""
        return slug(_short("-".join([self.table, *(f"{key}-{word(value)}" for key, value in self.axes.items())])))

    @property
    def asked(self) -> str:
        """As `prepare` takes it: a source that is a plug-in with the name for it."""
        return self.dataset if self.dataset == self.source else f"{self.dataset}={self.source}"


def cells(study: Study) -> tuple[Cell, ...]:
    """The cells of a study, table by table, in all combinations of what is swept.

    Raises `StudyError` for two cells that would write one cache, or one folder of results.
    """
    found: dict[str, Cell] = {}
    folders: dict[str, Cell] = {}
    for key, table in study.tables().items():
        for axes in combinations(table.axes):
            cell = _cell(key, table, axes)
            before = found.setdefault(cell.dataset, cell)
            if (before.source, before.root, before.options) != (cell.source, cell.root, cell.options):
                raise StudyError(
                    f"{before.name} and {cell.name} would write one cache, {cell.dataset}, from different data; give "
                    f'one of the tables {before.table!r}, {cell.table!r} a name of its own, such as name = "{key}"'
                )
            if other := folders.get(cell.name):
                raise StudyError(
                    f"two cells of the table {key!r} would write one folder, {cell.name}: {dict(other.axes)} and "
                    f"{dict(cell.axes)}; write their values differently"
                )
            folders[cell.name] = cell
    return tuple(folders.values())


def word(value: Any) -> str:
    """A value of TOML as the command line has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(key: str, table: Table, axes: Mapping[str, Any]) -> Cell:
    options = {name: word(value) for name, value in (dict(table.options) | dict(axes)).items()}
    plugin = table.source in plugins.names(plugins.DATASETS) or table.source.startswith(plugins.OUTSIDE)
    shown = {name: word(value) for name, value in axes.items()} if table.name else options
    base = table.name or table.source.removeprefix(plugins.OUTSIDE)
    dataset = slug(_short("-".join([base, *(f"{name}-{text}" for name, text in shown.items())])))
    return Cell(
        table=key, dataset=dataset if plugin else table.source, source=table.source, root=table.root, options=options,
        axes=dict(axes), backbones=table.backbones, heads=requests(table.heads), rules=table.select_by or (None,),
        seeds=table.seeds, prompts=table.prompts,
    )  # fmt: skip


def _short(name: str) -> str:
    """A name of at most `LONGEST` letters; of a longer one the end is a digest of it."""
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
