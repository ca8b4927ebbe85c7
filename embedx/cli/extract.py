"""`embedx extract`: images through frozen backbones into feature caches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from embedx.home import Home


def _pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    if wrong := [v for v in values if "=" not in v]:
        raise click.BadParameter(f"{wrong[0]!r} is not KEY=VALUE")
    return dict(v.split("=", 1) for v in values)


@click.command("extract")
@click.argument("dataset")
@click.option("-b", "--backbone", "backbones", multiple=True, required=True, metavar="[NAME=]FAMILY:MODEL",
              help="Repeatable: an image is decoded once for all backbones. See `embedx list backbones`.")  # fmt: skip
@click.option(
    "-r", "--root", type=click.Path(path_type=Path), help="Where the dataset's files lie; needed the first time."
)
@click.option("-O", "--option", "options", multiple=True, callback=_pairs, metavar="KEY=VALUE",
              help="Option of the dataset, repeatable, such as the columns of a table.")  # fmt: skip
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights for the one backbone named.")
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...; auto takes CUDA when there is one."
)
@click.option("--precision", type=click.Choice(["float32", "float16"]), default="float32", show_default=True,
              help="float16 is automatic mixed precision, on CUDA only.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images per forward pass.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=None,
    show_default="cores, at most 8",
    help="Processes that decode; 0: none.",
)
@click.option(
    "--shard-rows",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Rows per shard: what a kill can cost.",
)
@click.option("--max-bad", type=click.FloatRange(0, 1), default=0.01, show_default=True,
              help="Share of rows that may fail before it is an error.")  # fmt: skip
@click.pass_obj
def command(
    home: Home,
    dataset: str,
    backbones: tuple[str, ...],
    root: Path | None,
    options: dict[str, str],
    weights: Path | None,
    device: str,
    precision: Literal["float32", "float16"],
    batch_size: int,
    workers: int | None,
    shard_rows: int,
    max_bad: float,
) -> None:
    """Write one feature cache per backbone for DATASET.

    DATASET is a dataset prepared before, or one of `embedx list datasets` with its --root, or NAME=SOURCE to call it
    something else. What is cached already is not done again; a run that was killed goes on where it was.

    \b
    Example:
      embedx extract waterbirds --root waterbird_complete95_forest2water2 -b timm:resnet50.tv_in1k
      embedx extract birds=csv --root birds.csv -O path=file -O label=species -O attributes=place -b raw:32x32
      embedx extract pets=folder --root pets -b mine=timm:resnet18 --weights mine.safetensors
    """
    if weights is not None and len(backbones) > 1:
        raise click.UsageError(
            "--weights goes with exactly one --backbone; extract the others in a command of their own"
        )

    import time

    from embedx.catalog import prepare, root_of
    from embedx.cli._output import progress, remark
    from embedx.errors import BackboneError
    from embedx.extract import Settings, extract, load_backbone

    manifest, remarks = prepare(home, dataset, root, options)
    for line in remarks:
        remark(f"note: {line}")
    names = _named(backbones)
    place = _device(device)
    loaded = {name: load_backbone(spec, weights) for name, spec in names.items()}
    try:
        loaded = {name: b.placed(place, precision) for name, b in loaded.items()}
    except (ValueError, RuntimeError) as error:
        raise BackboneError(str(error).partition("\n")[0]) from error
    for name, b in loaded.items():
        if any(mark in b.licence.lower() for mark in ("-nc", "noncommercial", "non-commercial")):
            remark(f"note: {name} is licensed for non-commercial use only ({b.licence})")
    began = time.perf_counter()
    with progress(f"extract {manifest.name}", "images") as bar:
        if workers is None:
            workers = min(8, os.cpu_count() or 1)
        settings = Settings(place, batch_size, workers, shard_rows, max_bad, bar)
        results = extract(manifest, root_of(home, manifest), loaded, home, settings)
    seconds = time.perf_counter() - began
    for result in results:
        what = (
            f"{result.computed:,} of {result.rows:,} rows extracted"
            if result.computed
            else "complete already, nothing extracted"
        )
        click.echo(f"{result.path}: {what}")
        if result.bad:
            remark(
                f"note: {result.backbone}: {len(result.bad):,} of {result.rows:,} rows failed; probes leave them out:"
            )
            for row_id, reason in result.bad[:20]:
                remark(f"  {row_id}: {reason}")
            if len(result.bad) > 20:
                remark(f"  … and {len(result.bad) - 20:,} more: `embedx show {result.path}` lists all")
    if done := max(r.computed for r in results):
        remark(f"{done:,} images in {seconds:.1f} s: {done / seconds:.0f} images/s")


def _named(backbones: tuple[str, ...]) -> dict[str, str]:
    """{name of the cache: spec} of the backbones as written, each named once."""
    from embedx.extract.backbones import split_name

    names = dict(map(split_name, backbones))
    if len(names) < len(set(backbones)):
        raise click.UsageError("two backbones have the same name; NAME in -b NAME=FAMILY:MODEL must differ")
    if not all(names):
        raise click.UsageError("a backbone has an empty name; NAME in -b NAME=FAMILY:MODEL must not be empty")
    return names


def _device(device: str) -> str:
    import torch

    from embedx.errors import BackboneError

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise BackboneError(f"no device {device!r}; use cpu, cuda or cuda:N") from error
    if kind not in ("cpu", "cuda"):
        raise BackboneError(f"device {device!r} is not supported; use cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise BackboneError(
            f"--device {device}, but torch {torch.__version__} sees no CUDA device here; use --device cpu"
        )
    return device
