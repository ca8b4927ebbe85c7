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

    manifest, notes = open_prepared(workspace, dataset)
    names = backbones or (workspace.backbones(manifest.name) if all_cached else ())
    for line in (*notes, *_outdated(workspace, manifest, tuple(dict.fromkeys(names)))):
        remark(f"note: {line}")
    return manifest


def _outdated(workspace: Workspace, manifest: Manifest, names: Sequence[str]) -> list[str]:
    """A line for each cache of which some image has another size or time than when it was extracted."""
    from embedx.data.prepare import source_of
    from embedx.data.sources import near
    from embedx.errors import EmbedxError
    from embedx.extract.kept import outdated
    from embedx.store import FeatureCache

    lines, stamps = [], None
    for name in names:
        path = workspace.cache(manifest.name, name)
        if not path.exists():
            continue  # the command itself says so
        try:
            source = source_of(workspace, manifest)
            if not near(source):
                return []  # a request for every archive would take longer than the command
            stamps = source.stamps(manifest.ids) if stamps is None else stamps
            cache = FeatureCache.open_complete(path)
            changed = outdated(manifest.ids, stamps, cache)
        except (EmbedxError, OSError):
            continue  # damaged caches are told by whoever reads them; images may be gone
        if len(changed):
            spec = cache.header.provenance.get("spec", "")
            asked = cache.header.backbone + (f"={spec}" if spec not in ("", cache.header.backbone) else "")
            lines.append(
                f"{cache.header.backbone}: {len(changed):,} of {len(manifest):,} images have another size or time than "
                f"when they were extracted (for example {manifest.ids[changed[0]]}); `embedx extract {manifest.name} "
                f"-b {asked}` looks at them again"
            )
    return lines
