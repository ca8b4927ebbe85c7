"""`embedx study`: a whole experiment from one file, and its answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

FEW = 3
"""Backbones that a table of what is to be done names."""

if TYPE_CHECKING:
    from embedx.studies.engine.forecast import Forecast
    from embedx.studies.outcome import Answer
    from embedx.workspace import Workspace


@click.command("study")
@click.argument("study", metavar="[NAME|FILE.toml]", required=False)
@click.option("--init", "example", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.toml",
              help="Write a commented example to start from, and do nothing else.")  # fmt: skip
@click.option("--small", is_flag=True, help="The reduced form that the study says.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and about how long and large that is.")
@click.option("--jobs", type=click.IntRange(1),
              help="Cells at a time, each in a process with its share of the cores. Default: 1 on a GPU, else one a "
              "core, at most 4.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="As of `embedx extract`.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
              help="ray: a cell is a task of a Ray cluster that shares the cache and the results.")  # fmt: skip
@click.option("--ray-address", help="Of a running cluster; without it a cluster on this machine.")
@click.option("--plugins", "plugins_allowed", is_flag=True,
              help="The file may name plug-ins (py:package.module), whose code then runs.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Default: results/studies/NAME, with -small for the reduced form.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    study: str | None,
    example: Path | None,
    small: bool,
    dry_run: bool,
    jobs: int | None,
    device: str,
    engine: Literal["local", "ray"],
    ray_address: str | None,
    plugins_allowed: bool,
    out: Path | None,
) -> None:
    """Run a study: every dataset, backbone and head that its file asks for, then its answer.

    Without a name it lists the studies that ship. What is finished is kept: a study that was stopped, or whose file was
    edited, does only what is missing.

    \b
    Example:
      embedx study
      embedx study mnist1d --small
      embedx study --init mine.toml
      embedx study mine.toml --dry-run
    """
    from embedx.cli._output import progress, remark
    from embedx.studies.engine.cells import cells
    from embedx.studies.engine.conduct import conduct, folder_of
    from embedx.studies.engine.file import read
    from embedx.studies.engine.forecast import forecast
    from embedx.studies.engine.run import RunSettings

    if ray_address and engine != "ray":
        raise click.UsageError("--ray-address goes with --engine ray")
    if example is not None:
        _write_example(example)
        return
    if study is None:
        _list()
        return
    asked = read(study, small=small, plugins_allowed=plugins_allowed, workspace=workspace)
    folder = out or folder_of(asked, small=small)
    if dry_run:
        _show_forecast(forecast(cells(asked), workspace, folder, folder_of(asked, small=True)))
        return
    settings = RunSettings(jobs, device, engine, ray_address)
    with progress(f"study {asked.name}", "cells") as bar:
        answer = conduct(asked, workspace, folder, settings, small=small, progress=bar, notice=remark)
    _show_answer(asked.question, answer)
    click.echo(f"wrote {folder / 'report.html'}, study.json, runs.csv and plots/ in {folder}")


def _list() -> None:
    from embedx.cli._output import show_table
    from embedx.studies.engine.file import names, read

    show_table("", [("study", False), ("question", False)], [(name, read(name).question) for name in names()])


def _write_example(path: Path) -> None:
    from embedx.errors import StudyError
    from embedx.files import write_text
    from embedx.studies.engine.file import EXAMPLE

    if path.suffix != ".toml":
        raise click.UsageError(f"{path} does not end in .toml, as the file of a study does")
    if path.exists():
        raise StudyError(f"{path} exists; name another file, or move it away")
    write_text(path, EXAMPLE.read_text(encoding="utf-8"))
    click.echo(f"wrote {path}; run it with: embedx study {path}")


def _show_answer(question: str, answer: Answer) -> None:
    click.echo(f"{question}\n{answer.summary}")
    for section in answer.sections:
        click.echo(f"\n{section.question}\n  {section.answer}")
        if section.evidence:
            click.echo(f"  evidence: {section.evidence}")
    click.echo()


def _backbones(f: Forecast) -> str:
    """Those to extract: by name where they are few."""
    if len(f.extract) <= FEW:
        return ", ".join(f.extract) or "–"
    return f"{len(f.extract)} of {len(f.cell.backbones)} backbones"


def _show_forecast(cells: list[Forecast]) -> None:
    from embedx.cli._output import show_table

    def text(value: float | None, unit: str, scale: float = 1) -> str:
        return "unknown" if value is None else f"{value / scale:,.1f} {unit}"

    rows = [
        (f.cell.name, "unknown" if f.rows is None else f"{f.rows:,}", "yes" if f.prepared else "no",
         _backbones(f), "by the data" if f.fit is None else f"{f.fit:,}", text(f.seconds, "s"),
         text(f.bytes, "MB", 1e6))
        for f in cells
    ]  # fmt: skip
    headings = ("cell", "rows", "prepared", "to extract", "fits at most", "about", "caches")
    show_table("", [(h, h in ("rows", "fits at most", "about", "caches")) for h in headings], rows)
    known = [f for f in cells if f.seconds is not None]
    seconds, size = sum(f.seconds or 0 for f in known), sum(f.bytes or 0 for f in known)
    if len(known) == len(cells):
        click.echo(f"about {seconds / 60:,.1f} minutes one after the other, and {size / 1e6:,.1f} MB of caches")
    else:
        click.echo(
            f"{len(cells) - len(known):,} of {len(cells):,} cells: unknown, as no cell of their table is through; "
            "--small runs the reduced form, by which it can be told"
        )
