"""`embedx predict`: a saved head on the cached features of any dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedx.home import Home


@click.command("predict")
@click.argument("head", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("dataset")
@click.option("-b", "--backbone", help="The cache to read; default: that of the backbone the head was fitted on.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), default="predictions.csv",
              show_default=True, help="The table to write.")  # fmt: skip
@click.pass_obj
def command(home: Home, head: Path, dataset: str, backbone: str | None, out: Path) -> None:
    """Apply HEAD, a file that `embedx probe -o` saved, to the cached features of DATASET.

    Writes a table with the id, the split, the prediction and the probability of each class. The features have to be
    of the very backbone, weights and transform that the head was fitted on.

    \b
    Example:
      embedx probe demo -b tiny:broad --head group-balanced -o results/heads
      embedx predict results/heads/tiny-broad.group-balanced.0.safetensors demo
    """
    import csv
    import io

    from embedx import saved
    from embedx.catalog import open_prepared
    from embedx.cli._output import remark
    from embedx.compare import open_cache
    from embedx.files import write_text
    from embedx.manifest import SPLITS
    from embedx.status import Status

    fitted = saved.load(head)
    manifest, _ = open_prepared(home, dataset)
    cache = open_cache(home, manifest, backbone or fitted.backbone)
    fitted.check(cache)
    splits = dict(zip(manifest.ids, manifest.splits, strict=True))
    text, lost, written = io.StringIO(), 0, 0
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["id", "split", "prediction", *(f"p:{c}" for c in fitted.classes)])
    for ids, status, proba in fitted.apply(cache):
        for i, row_id in enumerate(ids):
            if row_id not in splits:
                continue
            if status[i] != Status.OK:
                lost += 1
                continue
            prediction = fitted.classes[int(proba[i].argmax())]
            table.writerow([row_id, SPLITS[splits[row_id]], prediction, *(f"{p:.6g}" for p in proba[i])])
            written += 1
    write_text(out, text.getvalue())
    if lost:
        remark(f"note: {lost:,} rows were left out because they could not be extracted")
    click.echo(f"wrote {out}: {written:,} rows")
