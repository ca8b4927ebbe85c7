"""Prompts of the classes as the vectors that text heads take, for the features of one image-text backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from embedx import plugins
from embedx.data.manifest import Manifest
from embedx.errors import BackboneError, HeadError, UnknownName
from embedx.extract.prompts import text_features
from embedx.probes import Prompts
from embedx.store import FeatureCache
from embedx.workspace import Workspace


def class_prompts(
    workspace: Workspace, manifest: Manifest, cache: FeatureCache, prompts: Mapping[str, Sequence[str]]
) -> Prompts:
    """One vector per class, the mean of the unit vectors of its prompts, and the projection that the cache holds.

    Raises `UnknownName` for a prompt of no class, `HeadError` for a class without a prompt, and `BackboneError` where
    the backbone has no text tower, or a projection that is more than a matrix.
    """
    for label in prompts:
        if label not in manifest.classes:
            raise UnknownName(f"prompt for {label!r}, which is no class: {plugins.nearest(label, manifest.classes)}")
    if lost := [label for label in manifest.classes if not prompts.get(label)]:
        raise HeadError(f"no prompt for class {lost[0]!r}; give one with --prompt {lost[0]!r}=TEXT")
    name, spec = cache.header.backbone, str(cache.header.provenance.get("spec", cache.header.backbone))
    if "projection_bias" in cache.extras:
        raise BackboneError(f"{name}: its projection has a bias, which text heads cannot take; use a ViT pair of clip")
    asked = [text for label in manifest.classes for text in prompts[label]]
    vectors = text_features(workspace, spec if name == spec else f"{name}={spec}", asked)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    of = np.repeat(np.arange(len(manifest.classes)), [len(prompts[label]) for label in manifest.classes])
    means = np.stack([vectors[of == c].mean(axis=0) for c in range(len(manifest.classes))])
    return Prompts(means, cache.extras.get("projection"))
