"""`embedx extract`: images through frozen backbones into feature caches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from embedx.cli._options import pairs

if TYPE_CHECKING:
    from embedx.extract import Extraction, ExtractionSettings
    from embedx.workspace import Workspace


def _part(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    i, slash, n = value.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and int(i) < int(n)):
        raise click.BadParameter(f"{value!r} is not i/N with i from 0 to N-1, such as 0/16")
    return int(i), int(n)


@click.command("extract")
@click.argument("dataset")
@click.option("-b", "--backbone", "backbones", multiple=True, required=True, metavar="[NAME=]FAMILY:MODEL",
              help="Repeatable: an image is decoded once for all backbones. See `embedx list backbones`.")  # fmt: skip
@click.option("-r", "--root", help="Where the dataset's files lie; needed the first time.")
@click.option("-O", "--option", "options", multiple=True, callback=pairs, metavar="KEY=VALUE",
              help="Option of the dataset, repeatable, such as the columns of a table; of every one: alike=fold takes "
              "one spelling for values that look alike (Land, land), alike=keep says they are meant.")  # fmt: skip
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE[#NAME]",
              help="Local weights for the one backbone named; NAME is one of several state dicts.")  # fmt: skip
@click.option("--device", default="auto", show_default=True,
              help="cpu, cuda, cuda:1, or several with commas, a process each; auto: all GPUs.")  # fmt: skip
@click.option("--precision", type=click.Choice(["auto", "float32", "float16"]), default="auto", show_default=True,
              help="float16 is automatic mixed precision, on CUDA only, where auto takes it.")  # fmt: skip
@click.option("--decode", type=click.Choice(["exact", "fast"]), default="exact", show_default=True,
              help="fast resizes several times as fast, and pixels may be a level or two of 255 apart.")  # fmt: skip
@click.option("--compile", "compiled", is_flag=True, help="Compile the networks: worth it for long runs.")
@click.option("--batch-size", type=click.IntRange(1), default=None, show_default="32; on a GPU what fits, at most 256",
              help="Images per forward pass; halved when memory does not suffice.")  # fmt: skip
@click.option("--workers", type=click.IntRange(0), default=None, show_default="cores, at most 16 a device",
              help="Processes that decode; 0: none.")  # fmt: skip
@click.option("--shard-rows", type=click.IntRange(1), default=1024, show_default=True,
              help="Rows per shard: what a kill can cost.")  # fmt: skip
@click.option("--max-bad", type=click.FloatRange(0, 1), default=0.01, show_default=True,
              help="Share of rows that may fail before it is an error.")  # fmt: skip
@click.option("--shard", "part", callback=_part, metavar="i/N",
              help="Only the i-th of N parts (from 0), without the merge: for Slurm arrays.")  # fmt: skip
@click.option("--merge", "merge_only", is_flag=True, help="Only merge what the parts have computed.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
              help="ray: shards are tasks of a Ray cluster that shares the cache folder.")  # fmt: skip
@click.option("--ray-address", help="Of a running cluster; without it a cluster on this machine.")
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbones: tuple[str, ...],
    root: str | None,
    options: dict[str, str],
    weights: Path | None,
    device: str,
    precision: Literal["auto", "float32", "float16"],
    decode: Literal["exact", "fast"],
    compiled: bool,
    batch_size: int | None,
    workers: int | None,
    shard_rows: int,
    max_bad: float,
    part: tuple[int, int] | None,
    merge_only: bool,
    engine: Literal["local", "ray"],
    ray_address: str | None,
) -> None:
    """Write one feature cache per backbone for DATASET.

    DATASET is a dataset prepared before, or one of `embedx list datasets` with its --root, or NAME=SOURCE to call it
    something else. What is cached already is not done again; a run that was killed goes on where it was.

    \b
    Example:
      embedx extract waterbirds --root waterbird_complete95_forest2water2 -b timm:resnet50.tv_in1k
      embedx extract birds=csv --root birds.csv -O path=file -O label=species -O attributes=place -b raw:32x32
      embedx extract pets=folder --root pets -b mine=timm:resnet18 --weights mine.safetensors
      embedx extract pets -b resnet50 --shard $SLURM_ARRAY_TASK_ID/16
      embedx extract pets -b resnet50 --merge
    """
    from embedx.cli._output import progress, remark
    from embedx.data.prepare import prepare
    from embedx.extract import ExtractionSettings, extract_features

    settings = ExtractionSettings(
        weights, device, precision, decode, compiled, batch_size, workers, shard_rows, max_bad, part, merge_only,
        engine, ray_address,
    )  # fmt: skip
    _refuse_contradictions(settings, backbones)
    manifest, remarks = prepare(workspace, dataset, root, options)
    for line in remarks:
        remark(f"note: {line}")
    with progress(f"extract {manifest.name}", "images") as bar:
        results = extract_features(
            manifest, backbones, workspace, settings, progress=bar, notice=remark,
            looking=lambda done, total: bar(done, total, "looking for changed files"),
        )  # fmt: skip
    _tell(results, part, merge_only)


def _refuse_contradictions(settings: ExtractionSettings, backbones: tuple[str, ...]) -> None:
    """A usage error for options that do not go together, before any work."""
    from embedx.errors import BackboneError
    from embedx.extract.backbones import by_name

    on_ray = settings.engine == "ray"
    contradictions = {
        "--weights goes with exactly one --backbone; extract the others in a command of their own":
            settings.weights is not None and len(backbones) > 1,
        "--shard computes and --merge merges; give one of them": settings.merge_only and settings.part,
        "--ray-address goes with --engine ray": settings.ray_address and not on_ray,
        "--shard is for schedulers that know no shards; Ray shares them out by itself": settings.part and on_ray,
    }  # fmt: skip
    for message, contradictory in contradictions.items():
        if contradictory:
            raise click.UsageError(message)
    try:
        by_name(backbones)
    except BackboneError as error:
        raise click.UsageError(str(error)) from error


def _tell(results: list[Extraction], part: tuple[int, int] | None, merge_only: bool) -> None:
    """What became of each backbone, and which rows failed."""
    from embedx.cli._output import remark

    for result in results:
        what = f"{result.computed:,} of {result.rows:,} rows extracted"
        if part:
            what = f"part {part[0]} of {part[1]}: {what}"
        elif merge_only and result.written:
            what = f"{result.rows:,} rows merged"
        elif not result.computed:
            what = "complete already, nothing extracted"
        click.echo(f"{result.path}: {what}")
        if result.bad:
            remark(
                f"note: {result.backbone}: {len(result.bad):,} of {result.rows:,} rows failed; probes leave them out:"
            )
            for row_id, reason in result.bad[:20]:
                remark(f"  {row_id}: {reason}")
            if len(result.bad) > 20:
                remark(f"  … and {len(result.bad) - 20:,} more: `embedx show {result.path}` lists all")
