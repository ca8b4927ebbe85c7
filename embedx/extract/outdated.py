"""Which caches are of images that have changed since."""

from __future__ import annotations

from collections.abc import Sequence

from embedx.data.manifest import Manifest
from embedx.data.prepare import source_of
from embedx.data.sources import near
from embedx.errors import EmbedxError
from embedx.extract.kept import outdated
from embedx.store import FeatureCache
from embedx.workspace import Workspace


def outdated_caches(workspace: Workspace, manifest: Manifest, backbones: Sequence[str]) -> list[str]:
    """A line for each cache of which some image has another size or time than when it was extracted.

    Nothing is said of a backbone without a cache, of a damaged cache, nor where sizes and times would take a request
    for every archive: whoever reads the features says what is wrong with them.
    """
    lines, stamps = [], None
    for name in backbones:
        path = workspace.cache(manifest.name, name)
        if not path.exists():
            continue
        try:
            source = source_of(workspace, manifest)
            if not near(source):
                return []
            stamps = source.stamps(manifest.ids) if stamps is None else stamps
            cache = FeatureCache.open_complete(path)
            changed = outdated(manifest.ids, stamps, cache)
        except (EmbedxError, OSError):
            continue
        if len(changed):
            spec = cache.header.provenance.get("spec", "")
            asked = cache.header.backbone + (f"={spec}" if spec not in ("", cache.header.backbone) else "")
            lines.append(
                f"{cache.header.backbone}: {len(changed):,} of {len(manifest):,} images have another size or time than "
                f"when they were extracted (for example {manifest.ids[changed[0]]}); `embedx extract {manifest.name} "
                f"-b {asked}` looks at them again"
            )
    return lines
