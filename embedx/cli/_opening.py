"""A prepared dataset as commands take it up: with a word on all that the user should know before any figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedx.data.manifest import Manifest
    from embedx.workspace import Workspace


def opened(workspace: Workspace, dataset: str, backbones: Sequence[str] = (), *, all_cached: bool = False) -> Manifest:
    """The manifest of a prepared dataset.

    Told on standard error: edits by hand, words that look alike, and for the backbones named (`all_cached`: where none
    is named for every one) how many images have changed since they were extracted.
    """
    from embedx.cli._output import remark
    from embedx.data.prepare import open_prepared
    from embedx.extract.outdated import outdated_caches

    manifest, remarks = open_prepared(workspace, dataset)
    names = backbones or (workspace.backbones(manifest.name) if all_cached else ())
    for line in (*remarks, *outdated_caches(workspace, manifest, tuple(dict.fromkeys(names)))):
        remark(f"note: {line}")
    return manifest
