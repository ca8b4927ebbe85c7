"""What a study is: a question, and the grid of datasets, backbones, heads and seeds that is run to answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from embedx.evaluation.heads import HeadRequest

Head = str | dict[str, Any]
Option = str | int | float | bool | list[str | int | float | bool]


@dataclass(frozen=True)
class Table:
    """A dataset of a study, or several: those of all combinations of the options that are lists.

    source     dataset plug-in, or the name of a prepared dataset
    root       where its files lie, for a source that does not make them
    name       of the prepared dataset, which the options that are swept are added to; default: the source with its
               options, so that studies that ask for the same share caches
    options    of the source; a list is an axis
    prompts    {class: texts}, for the heads that need them
    backbones, heads, seeds, select_by  in the place of those of the study
    """

    source: str
    root: str = ""
    name: str = ""
    options: dict[str, Option] = field(default_factory=dict)
    prompts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    backbones: tuple[str, ...] = ()
    heads: tuple[Head, ...] = ()
    seeds: int = 0
    select_by: tuple[str, ...] = ()

    @property
    def axes(self) -> dict[str, list[Any]]:
        """{option: its values} of those that are swept."""
        return {key: value for key, value in self.options.items() if isinstance(value, list)}


@dataclass(frozen=True)
class Plot:
    """A plot of figures against an axis, a line for each of several things, with intervals over seeds.

    title   above it
    x       an axis, or "backbone", "head", "dataset"
    y       a figure of the runs, such as worst_group
    by      what has a line each: "head", "backbone", or another axis
    panels  what has a panel each; empty: one panel for all
    table   of which table of datasets; empty: of all that have the axis
    """

    x: str
    title: str = ""
    y: str = "worst_group"
    by: str = "head"
    panels: str = ""
    table: str = ""


@dataclass(frozen=True)
class Study:
    """A question, and what is run to answer it.

    name       of the file, without its ending
    question   one sentence
    datasets   {name of the study's own: what is prepared}
    backbones, heads, seeds, select_by  of every table that does not say its own; without heads the standard ones
    plots      beside those that the answer draws
    answer     module of `embedx.studies` that reads the answer off the runs; empty: ranks and verdicts
    small      what the reduced form puts in the place of other keys
    """

    question: str
    datasets: dict[str, Table]
    name: str = ""
    answer: str = ""
    backbones: tuple[str, ...] = ()
    heads: tuple[Head, ...] = ()
    seeds: int = 1
    select_by: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    small: dict[str, Any] = field(default_factory=dict)

    def tables(self) -> dict[str, Table]:
        """The tables, with what the study says for all of them filled in."""
        return {
            key: replace(
                table, backbones=table.backbones or self.backbones, heads=table.heads or self.heads,
                seeds=table.seeds or self.seeds, select_by=table.select_by or self.select_by,
            )
            for key, table in self.datasets.items()
        }  # fmt: skip

    @property
    def axes(self) -> tuple[str, ...]:
        """All that is swept: options of datasets and parameters of heads."""
        heads = (head for table in self.tables().values() for head in table.heads if isinstance(head, dict))
        of_heads = (key for head in heads for key, value in head.items() if isinstance(value, list))
        return tuple(dict.fromkeys([*(a for t in self.datasets.values() for a in t.axes), *of_heads]))


def requests(heads: Sequence[Head]) -> tuple[str | HeadRequest, ...]:
    """The heads of a table, those of swept parameters one by one. Raises as `HeadRequest.of`."""
    asked: list[str | HeadRequest] = []
    for head in heads:
        if isinstance(head, str):
            asked.append(head)
            continue
        swept = {key: value if isinstance(value, list) else [value] for key, value in head.items() if key != "head"}
        asked += [HeadRequest.of(head["head"], parameters) for parameters in combinations(swept)]
    return tuple(dict.fromkeys(asked))


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """One value of every axis, in all combinations, the last axis turning fastest."""
    chosen: list[dict[str, Any]] = [{}]
    for axis, values in axes.items():
        chosen = [{**one, axis: value} for one in chosen for value in values]
    return chosen
