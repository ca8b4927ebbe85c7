"""`embedx probe`: one head on one backbone, group by group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedx.cli._options import prompts as read_prompts

if TYPE_CHECKING:
    from embedx.evaluation.model import Model
    from embedx.workspace import Workspace


@click.command("probe")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="A cached backbone.")
@click.option(
    "--head",
    default="plain",
    show_default=True,
    help='See `embedx list heads`; with parameters: "jtt variant=published upweight=50".',
)
@click.option("--select-by", "rule", metavar="RULE",
              help="How settings are chosen on validation: average, adjusted-average, balanced, worst-class, "
              "worst-group, worst-inferred-group, spuriosity-halves. Default: as the head's authors do.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Repeat a head that draws rows.")
@click.option("--prompt", "prompts", metavar="CLASS=TEXT", multiple=True, callback=read_prompts,
              help="Prompt for a class, an attribute's value or a group, repeatable: for heads of text.")  # fmt: skip
@click.option("--drop-leaks", "drop_leaks", is_flag=True,
              help="Leave out of train what is in val or test too, and of val what is in test: images with the same "
              "bytes, and those of one subject where the dataset names a cluster.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for runs.json, runs.csv and the fitted head, which `embedx predict` applies.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbone: str,
    head: str,
    rule: str | None,
    seeds: int,
    prompts: dict[str, tuple[str, ...]],
    drop_leaks: bool,
    out: Path | None,
) -> None:
    """Fit one head on the cached features of one backbone; report every group of the test split.

    \b
    Example:
      embedx probe demo -b tiny:broad --head group-balanced
    """
    from embedx.cli._opening import opened
    from embedx.cli._output import progress, remark
    from embedx.evaluation import runs
    from embedx.evaluation.heads import head_spec, needs_ranking
    from embedx.evaluation.probe import probe_cache
    from embedx.spuriosity.records.ranking import beside
    from embedx.store import open_cache

    manifest = opened(workspace, dataset, [backbone])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # before the work, in case it cannot be written
        runs.require(out, comparison=False)
    cache = open_cache(workspace, manifest, backbone)
    spec = head_spec(head, rule)
    ranking = beside(workspace, manifest, backbone) if needs_ranking(spec) else None
    with progress("probe", "heads") as bar:
        bar(0, 1, head)
        models = probe_cache(
            workspace, manifest, cache, head, rule=rule, seeds=seeds, prompts=prompts or None, ranking=ranking,
            drop_leaks=drop_leaks, notice=remark,
        )  # fmt: skip
    _show(models, dict.fromkeys(key for setting in spec.kind.grid for key in setting), told=seeds > 1)
    if out is not None:
        click.echo(f"wrote {_written(models, out)} in {out}")


def _show(models: Sequence[Model], settings: Iterable[str], *, told: bool) -> None:
    """Each model group by group, with its settings that were chosen and, if `told`, its seed; and all in one table."""
    from embedx.cli._output import remark, show_runs, show_table
    from embedx.evaluation.figures import interval, percent
    from embedx.evaluation.runs import independent

    results = [model.record for model in models]
    for run in results:
        rows = [(g.name, str(g.n), str(g.correct), percent(g.accuracy), interval(g)) for g in run.metrics.groups]
        chosen = {key: run.parameters[key] for key in settings}
        words = [
            f"{key} = {value:g}" if isinstance(value, float) else f"{key} = {value}" for key, value in chosen.items()
        ]
        if told:
            words.append(f"seed {run.seed}")
        title = "  ".join([run.dataset, run.backbone, run.head, *words])
        columns = (("test group", False), ("n", True), ("correct", True), ("accuracy %", True), ("95 % interval", True))
        show_table(title, columns, rows, caption=f"95 % intervals, {independent([run])}")
    show_runs("Summary", results)
    if lost := sum(results[0].left_out.values()):
        remark(f"note: {lost:,} rows were left out because they could not be extracted")


def _written(models: Sequence[Model], out: Path) -> str:
    """Write the records and, of heads that are a few arrays, the models; the names of the files."""
    from embedx.cli._output import remark
    from embedx.evaluation import runs, saved

    runs.add([model.record for model in models], out, remark)
    files = ["runs.json", "runs.csv"]
    for model in models:
        run = model.record
        if not saved.can_be_saved(model):
            remark(f"note: {run.head} is more than a few arrays, and cannot be saved")
            break
        if (out / saved.file_name(run)).exists():
            remark(f"note: the {run.head} of {run.dataset} that was in {out} (seed {run.seed}) is replaced")
        files.append(saved.save_model(model, out).name)
    return f"{', '.join(files[:-1])} and {files[-1]}"
