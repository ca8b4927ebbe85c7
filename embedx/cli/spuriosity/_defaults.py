"""What several steps take where nothing is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedx.manifest import Manifest
    from embedx.saved import SavedHead
    from embedx.store import FeatureCache


def default_head(manifest: Manifest, cache: FeatureCache, folder: Path) -> SavedHead | str:
    """What answers on a backbone where no head is named."""
    from embedx.errors import HeadError
    from embedx.spuriosity.answers import PRETRAINED, Linear
    from embedx.spuriosity.discover import FILE, Discovery

    if (folder / FILE).is_file():
        discovery = Discovery.load(folder)
        if (discovery.dataset, discovery.backbone) == (manifest.name, cache.header.backbone) and discovery.head:
            return discovery.saved_head(folder)
    try:
        Linear.pretrained(manifest, cache)
    except HeadError:
        return "plain"
    return PRETRAINED
