"""`embedx predict`: a saved head on the cached features of any dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.data.manifest import Manifest
    from embedx.evaluation.model import Model
    from embedx.store import FeatureCache
    from embedx.workspace import Workspace


@click.command("predict")
@click.argument("head", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("dataset")
@click.option("-b", "--backbone", help="The cache to read; default: that of the backbone the head was fitted on.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path),
              help="The table to write. Default: results/DATASET/predictions/HEAD.csv.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace a table that holds other predictions.")
@click.pass_obj
def command(
    workspace: Workspace, head: Path, dataset: str, backbone: str | None, out: Path | None, overwrite: bool
) -> None:
    """Apply HEAD, a file that `embedx probe -o` saved, to the cached features of DATASET.

    Writes a table with the id, the split, the prediction and the probability of each class, with all its digits. The
    features have to be of the very backbone, weights and transform that the head was fitted on.

    \b
    Example:
      embedx probe demo -b tiny:broad --head group-balanced -o results/heads
      embedx predict results/heads/demo.tiny-broad.group-balanced.0.safetensors demo
    """
    import filecmp

    from embedx.cli._opening import opened
    from embedx.cli._output import remark
    from embedx.errors import HeadError
    from embedx.evaluation import saved
    from embedx.files import landing, locked
    from embedx.store import open_cache
    from embedx.workspace import slug

    model = saved.load_model(head, remark)
    manifest = opened(workspace, dataset, [backbone or model.name.backbone])
    cache = open_cache(workspace, manifest, backbone or model.name.backbone)
    out = out or Path("results") / slug(manifest.name) / "predictions" / f"{head.stem}.csv"
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out), landing(out) as temporary:
        written, lost = _write(temporary, model, manifest, cache)
        same = out.exists() and filecmp.cmp(temporary, out, shallow=False)
        if out.exists() and not same and not overwrite:
            raise HeadError(f"{out} holds other predictions; name another file with -o, or replace it with --overwrite")
    if lost:
        remark(f"note: {lost:,} rows were left out because they could not be extracted")
    click.echo(f"{out} holds these {written:,} rows already" if same else f"wrote {out}: {written:,} rows")


def _write(path: Path, model: Model, manifest: Manifest, cache: FeatureCache) -> tuple[int, int]:
    """How many rows of the manifest are in the table, and how many have no features."""
    import csv

    from embedx.data.manifest import SPLITS
    from embedx.data.status import Status

    splits, written, lost = dict(zip(manifest.ids, manifest.splits, strict=True)), 0, 0
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "split", "prediction", *(f"p:{c}" for c in model.classes)])
        for ids, status, proba in model.apply(cache):
            for row_id, how, p in zip(ids, status, proba, strict=True):
                if row_id in splits and how != Status.OK:
                    lost += 1
                elif row_id in splits:
                    prediction = model.classes[int(p.argmax())]
                    table.writerow([row_id, SPLITS[splits[row_id]], prediction, *p.tolist()])
                    written += 1
    return written, lost
