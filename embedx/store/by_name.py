"""The caches of a dataset by the names of their backbones."""

from __future__ import annotations

from collections.abc import Sequence

from embedx import plugins
from embedx.data.manifest import Manifest
from embedx.errors import CacheError
from embedx.store.reader import FeatureCache
from embedx.workspace import Workspace, slug


def open_cache(workspace: Workspace, manifest: Manifest, backbone: str) -> FeatureCache:
    """One backbone's features. Raises `CacheError` that names the cached backbones when there are none of this one."""
    cached = workspace.backbones(manifest.name)
    if slug(backbone) not in cached:
        raise CacheError(
            f"{manifest.name} has no features of {backbone!r}: {plugins.nearest(slug(backbone), cached)}; "
            f"make them with `embedx extract {manifest.name} -b {backbone}`"
        )
    cache = FeatureCache.open_complete(workspace.cache(manifest.name, backbone))
    if slug(cache.header.backbone) != slug(backbone):
        raise CacheError(
            f"{cache.path} holds features of {cache.header.backbone!r}, not of {backbone!r}: the file was renamed or "
            f"copied; call it {slug(cache.header.backbone)}.h5 again"
        )
    return cache


def open_caches(workspace: Workspace, manifest: Manifest, backbones: Sequence[str] = ()) -> dict[str, FeatureCache]:
    """{backbone: its features}, once each, however often it is named; without names of every cached backbone.

    Raises `CacheError` where one of them, or any at all, is missing.
    """
    names = backbones or workspace.backbones(manifest.name)
    if not names:
        raise CacheError(
            f"{manifest.name} has no feature cache yet; make one with `embedx extract {manifest.name} -b BACKBONE`"
        )
    caches = [open_cache(workspace, manifest, name) for name in names]
    return {cache.header.backbone: cache for cache in caches}
