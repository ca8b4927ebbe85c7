"""What is wrong with a study beyond its types: names that do not exist, axes without values, code from outside."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from embedx import plugins
from embedx.errors import EmbedxError
from embedx.evaluation.heads import ALL
from embedx.evaluation.selection import RULES
from embedx.extract.backbones import by_name
from embedx.extractors import ALIASES
from embedx.studies.engine.frame import FIGURES, MEASURES, column_of
from embedx.studies.study import Study, Table, requests
from embedx.workspace import Workspace

EVERYWHERE = ("alike", "cluster")
"""Options that every dataset takes."""
ANSWERS = Path(__file__).parents[1]
"""Where the modules lie that read answers off runs."""
PARTS = ("study", "outcome", "drawing")
"""Modules there that are none of these."""


def problems(study: Study, plugins_allowed: bool, workspace: Workspace) -> Iterator[tuple[tuple[str, ...], str]]:
    """(keys that lead there, what is wrong) of all that the types do not say."""
    if not study.datasets:
        yield ("datasets",), "it has no table of datasets; add one, such as [datasets.demo] with a source"
    if study.answer and study.answer not in (modules := _answers()):
        yield ("answer",), f"unknown answer {study.answer!r}: {plugins.nearest(study.answer, modules)}"
    if study.seeds < 1:
        yield ("seeds",), f"seeds is {study.seeds}, expected a whole number from 1"
    yield from _asked((), study, plugins_allowed)
    for key, table in study.datasets.items():
        place = ("datasets", key)
        yield from _of_source((*place, "source"), table.source, plugins_allowed, workspace)
        yield from _of_options(place, table)
        if table.seeds < 0:
            yield (*place, "seeds"), f"seeds is {table.seeds}, expected a whole number from 1"
        yield from _asked(place, table, plugins_allowed)
        if not (table.backbones or study.backbones):
            yield place, f"the datasets {key!r} have no backbone; add backbones = [...] to the study or the table"
    columns = {*map(column_of, study.axes), "backbone", "head", "dataset", "table", "seed"}
    for i, plot in enumerate(study.plots):
        for name, value in (("x", plot.x), ("by", plot.by), ("panels", plot.panels)):
            if value and value not in columns:
                yield ("plots", str(i), name), f"unknown axis {value!r}: {plugins.nearest(value, columns)}"
        if plot.y not in (figures := (*FIGURES, *MEASURES)):
            yield ("plots", str(i), "y"), f"unknown figure {plot.y!r}: {plugins.nearest(plot.y, figures)}"
        if plot.table and plot.table not in study.datasets:
            yield (
                ("plots", str(i), "table"),
                f"unknown table {plot.table!r}: {plugins.nearest(plot.table, study.datasets)}",
            )


def _asked(
    place: tuple[str, ...], asked: Study | Table, plugins_allowed: bool
) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with backbones, heads and rules."""
    for problem in _of_backbones(asked.backbones, plugins_allowed):
        yield (*place, "backbones"), problem
    for head in asked.heads:
        if problem := _of_head(head, plugins_allowed):
            yield (*place, "heads"), problem
    for rule in asked.select_by:
        if rule not in RULES:
            yield (*place, "select-by"), f"unknown selection rule {rule!r}: {plugins.nearest(rule, RULES)}"


def _of_backbones(backbones: Sequence[str], plugins_allowed: bool) -> Iterator[str]:
    families = {*plugins.names(plugins.BACKBONES), *ALIASES}
    for backbone in backbones:
        name = backbone.partition("=")[2] or backbone
        family = name if name in ALIASES else name.partition(":")[0]
        if name.startswith(plugins.OUTSIDE):
            if not plugins_allowed:
                yield _not_allowed(name)
        elif family not in families:
            yield f"unknown backbone {name!r}: {plugins.nearest(family, families)}"
    try:
        if backbones:
            by_name(backbones)
    except EmbedxError as error:
        yield str(error)


def _of_head(head: str | dict[str, Any], plugins_allowed: bool) -> str:
    """Empty where nothing is wrong."""
    name = head if isinstance(head, str) else head.get("head")
    if not isinstance(name, str):
        return 'a head with parameters reads {head = "afr", gamma = [1.0, 4.0]}; found no name'
    if name.startswith(plugins.OUTSIDE) and not plugins_allowed:
        return _not_allowed(name)
    try:
        if name != ALL:
            requests([head if isinstance(head, dict) else {"head": name}])
    except EmbedxError as error:
        return str(error)
    return ""


def _of_source(
    place: tuple[str, ...], source: str, plugins_allowed: bool, workspace: Workspace
) -> Iterator[tuple[tuple[str, ...], str]]:
    if source.startswith(plugins.OUTSIDE):
        if not plugins_allowed:
            yield place, _not_allowed(source)
    elif source not in (sources := {*plugins.names(plugins.DATASETS), *workspace.datasets()}):
        yield place, f"unknown dataset {source!r}: {plugins.nearest(source, sources)}"


def _of_options(place: tuple[str, ...], table: Table) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with the options of a source and their values."""
    for key, values in table.axes.items():
        if not values:
            yield (*place, "options", key), f"the axis {key!r} has no value"
        if len({str(v) for v in values}) < len(values):
            yield (*place, "options", key), f"the axis {key!r} has a value twice"
    if table.source not in plugins.names(plugins.DATASETS):
        if table.options:
            yield (*place, "options"), f"{table.source!r} is prepared already and takes no options; name its source"
        return
    takes = [*list(inspect.signature(plugins.load(plugins.DATASETS, table.source).read).parameters)[1:], *EVERYWHERE]
    for key in table.options:
        if key not in takes:
            yield (
                (*place, "options", key),
                f"dataset {table.source!r} has no option {key!r}: {plugins.nearest(key, takes)}",
            )


def _not_allowed(name: str) -> str:
    return f"{name!r} is code outside embedx, which a file may not start by itself; allow it with --plugins"


def _answers() -> tuple[str, ...]:
    return tuple(sorted({path.stem for path in ANSWERS.glob("[!_]*.py")} - {*PARTS}))
