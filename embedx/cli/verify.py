"""`embedx verify`: is a feature cache whole, what does a file of weights hold, is a backbone what its library makes?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from embedx.extract.verify import WeightsReport


@click.command("verify")
@click.argument("target")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.safetensors",
              help="Also write the weights as safetensors.")  # fmt: skip
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE[#NAME]",
              help="Local weights for a backbone; NAME is one of several state dicts.")  # fmt: skip
@click.option("--images", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="FOLDER",
              help="Compare on the images below a folder, at most 256, not on those that come along.")  # fmt: skip
@click.option("--decode", type=click.Choice(["exact", "fast"]), default="exact", show_default=True,
              help="How a backbone reads its images; fast need not have equal pixels.")  # fmt: skip
def command(
    target: str, output: Path | None, weights: Path | None, images: Path | None, decode: Literal["exact", "fast"]
) -> None:
    """Read the file TARGET to its end: every damaged block of a feature cache (.h5), or the contents of a file of
    weights. Nothing that a checkpoint holds is executed: only its tensors are read. Of a file with several state dicts
    FILE#NAME means one, here as for --weights.

    Or compare the pixels and features of the backbone TARGET with those that its own library makes of the same images,
    both in float32 on the CPU. How files become RGB images is embedx's own policy, the same for both.

    \b
    Example:
      embedx verify cache/demo/tiny-broad.h5
      embedx verify resnet50_l2_eps3.ckpt -o resnet50_l2_eps3.safetensors
      embedx verify checkpoint-99.pth#state_dict_ema
      embedx verify tiny:broad
      embedx verify timm:resnet50.tv_in1k --weights model.safetensors --images photographs
    """
    from embedx.extract import verify
    from embedx.extractors import split_weights_name

    path = Path(target)
    if not split_weights_name(path)[0].is_file():
        if output is not None:
            raise click.UsageError(f"-o is for files of weights, and there is no file {target}")
        if ":" not in target and ("/" in target or "." in target):
            raise click.UsageError(
                f"there is no file {target}; give a feature cache (.h5), a file of weights, or a backbone"
            )
        _backbone(target, weights, images, decode)
        return
    if weights is not None or images is not None or decode != "exact":
        raise click.UsageError(f"--weights, --images and --decode are for backbones; {target} is a file")
    if path.is_file() and verify.is_cache(path):
        if output is not None:
            raise click.UsageError(f"-o is for files of weights; {target} is a feature cache")
        _cache(path)
        return
    report = verify.inspect_weights(path)
    _weights(report)
    if output is not None:
        verify.convert(report, output)
        click.echo(f"wrote {output}")


def _backbone(spec: str, weights: Path | None, images: Path | None, decode: Literal["exact", "fast"]) -> None:
    from embedx.cli._output import remark
    from embedx.errors import BackboneError
    from embedx.extract import parity

    pictures, remarks = parity.of_folder(images) if images is not None else (parity.bundled(), [])
    for line in remarks:
        remark(f"note: {line}")
    p = parity.compare(spec, pictures, weights, decode)
    if p.remark:
        remark(f"note: {p.remark}")
    click.echo(f"backbone    {p.spec}, {decode} decoding")
    click.echo(f"against     {p.library}, on {p.images:,} images")
    where = f", in {p.pixels_at}" if p.pixels else ""
    click.echo(f"pixels      largest difference {p.pixels:.3g} levels of 255{where}")
    after = ", after the projection" if p.projected else ""
    click.echo(f"features    {p.dim:,}{after}: largest difference {p.features:.2g}, largest feature {p.largest:.3g}")
    click.echo(f"cosine      at least {p.cosine:.8f}, in {p.cosine_at}")
    if faults := p.faults():
        raise BackboneError(
            f"{p.spec} is not what {p.library} makes of it: {'; '.join(faults)}. Use the versions of the libraries "
            "that this embedx was tested with, or report this"
        )
    click.echo("parity      holds")


def _cache(path: Path) -> None:
    from embedx.errors import CacheError
    from embedx.extract.verify import check_cache

    report = check_cache(path)
    h = report.header
    click.echo(f"backbone    {h.backbone}")
    click.echo(f"rows        {h.start:,} to {h.stop:,} of {h.total:,}{'' if h.complete else ' (a shard)'}")
    click.echo(f"features    {h.dim:,} x {h.dtype}")
    click.echo(f"weights     {h.identity.get('weights', 'unknown')}")
    for fault in report.faults:
        click.echo(f"damaged     {fault}")
    for start, stop in report.damaged:
        click.echo(f"damaged     rows {start:,} to {stop:,}")
    if report.faults or report.damaged:
        raise CacheError(
            f"{path}: {len(report.damaged):,} of {report.blocks:,} blocks and {len(report.faults):,} other parts are "
            "damaged; delete the file and extract again"
        )
    click.echo(f"checksums   all {report.blocks:,} blocks fit, and every other array")


def _weights(report: WeightsReport) -> None:
    opened, numbers = report.opened, sum(t.numel() for t in report.state.values())
    click.echo(f"file        {opened.file}, {opened.file.stat().st_size:,} bytes")
    click.echo(f"sha-256     {report.sha256}")
    click.echo(f"format      {opened.format}")
    if opened.wrappers:
        click.echo(f"found under {_listed(opened.wrappers)}; beside it: {_listed(opened.beside) or 'nothing'}")
    for line in report.choice:
        click.echo(f"choice      {line}")
    if opened.prefix:
        click.echo(f"prefix      {opened.prefix}, taken off every name")
    for key in sorted(opened.metadata):
        click.echo(f"metadata    {_listed([key])}: {_listed([opened.metadata[key]])}")
    click.echo(f"tensors     {len(opened.state):,} in the file, {len(report.state):,} of the network")
    click.echo(f"numbers     {numbers:,}" + (f", {report.parameters:,} learnt" if report.parameters else ""))
    click.echo(f"types       {', '.join(f'{n:,} {kind}' for kind, n in report.types.items())}")
    click.echo(f"layout      {report.layout}")
    if not report.architectures:
        click.echo(f"names       {_listed(tuple(report.state))}")
    if report.published_as:
        click.echo(f"published   as {report.published_as}")
    click.echo(f"fingerprint {report.fingerprint}")
    if opened.inert:
        click.echo(f"left inert  {_listed(opened.inert, 20)}")


def _listed(names: tuple[str, ...] | list[str], most: int = 6) -> str:
    """Some names, free of what a terminal would obey: they are a stranger's."""
    shown = ["".join(c if c.isprintable() else "?" for c in n[:80]) for n in names[:most]]
    return ", ".join(shown) + (f", … ({len(names):,} in all)" if len(names) > most else "")
