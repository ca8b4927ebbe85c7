"""Prompts as vectors: the text towers of backbones, cached with their prompts in the format of feature caches.

`class_prompts` makes of them what the text heads take.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedx import plugins
from embedx.data.manifest import UNWRITABLE, Manifest, ids_digest
from embedx.data.status import Status
from embedx.errors import BackboneError, ExtractionError, HeadError, UnknownName
from embedx.extract.backbones import split_name
from embedx.extract.encoding import processor
from embedx.files import locked
from embedx.plugins.outside import digest
from embedx.probes import Prompts
from embedx.store import CacheWriter, FeatureCache, Header, Rows
from embedx.store.header import require
from embedx.workspace import Workspace

if TYPE_CHECKING:
    from embedx.extractors import TextTower


@dataclass(frozen=True, eq=False)
class Texts:
    """Features of prompts, in the order asked for.

    features  (n, dim) float32, projected and not normalised
    computed  how many prompts were not cached; `cached` are all that the file holds now
    """

    path: Path
    features: np.ndarray
    computed: int
    cached: int
    licence: str


def text_features(workspace: Workspace, spec: str, prompts: Sequence[str], weights: Path | None = None) -> np.ndarray:
    """(n, dim) features of prompts in their order, computed only where they are not cached; see `texts`."""
    return texts(workspace, spec, prompts, weights).features


def class_prompts(
    workspace: Workspace, manifest: Manifest, cache: FeatureCache, prompts: Mapping[str, Sequence[str]]
) -> Prompts:
    """One vector per class, the mean of the unit vectors of its prompts, and the projection that the cache holds.

    Prompts of values of an attribute are texts of what is spurious; those of the groups of a class differ in nothing
    else, and all pairs of them are kept. Raises `UnknownName` for a prompt of none of these, `HeadError` for a class
    without a prompt, and `BackboneError` where the backbone has no text tower, or a projection that is more than a
    matrix.
    """
    values = [v for a in manifest.grouping for v in manifest.values[a] if v not in manifest.classes]
    groups = manifest.group_names if manifest.groups is not None else ()
    for label in prompts:
        if label not in (known := (*manifest.classes, *values, *groups)):
            raise UnknownName(f"prompt for {label!r}, which is no class: {plugins.nearest(label, known)}")
    if lost := [label for label in manifest.classes if not prompts.get(label)]:
        raise HeadError(f"no prompt for class {lost[0]!r}; give one with --prompt {lost[0]!r}=TEXT")
    name, spec = cache.header.backbone, str(cache.header.provenance.get("spec", cache.header.backbone))
    if "projection_bias" in cache.extras:
        raise BackboneError(f"{name}: its projection has a bias, which text heads cannot take; use a ViT pair of clip")
    asked = [label for label in (*manifest.classes, *dict.fromkeys(values), *groups) if prompts.get(label)]
    words = [text for label in asked for text in prompts[label]]
    vectors = text_features(workspace, spec if name == spec else f"{name}={spec}", words)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ends = np.cumsum([len(prompts[label]) for label in asked])
    of = dict(zip(asked, np.split(vectors, ends[:-1]), strict=True))
    means = np.stack([of[label].mean(axis=0) for label in manifest.classes])
    spurious = [of[v] for v in dict.fromkeys(values) if v in of]
    each = len(groups) // len(manifest.classes)
    pairs = [
        pair
        for start in range(0, len(groups), max(each, 1))
        for pair in combinations([v for g in groups[start : start + each] for v in of.get(g, ())], 2)
    ]
    return Prompts(
        means, cache.extras.get("projection"), spurious=np.concatenate(spurious) if spurious else None,
        pairs=np.array(pairs) if pairs else None,
    )  # fmt: skip


def texts(workspace: Workspace, spec: str, prompts: Sequence[str], weights: Path | None = None) -> Texts:
    """Look prompts up in the cache of a backbone, `[NAME=]FAMILY:MODEL` or a short name, and add what is missing.

    Raises `BackboneError` for a backbone without a text tower, `ExtractionError` for a prompt that is blank, too long
    or no plain text, `ProvenanceError` where the cache was made by another tower.
    """
    name, spec = split_name(spec)
    wanted = _checked(prompts)
    path = workspace.texts(name)
    tower = load_tower(spec, weights)
    vectors, _ = _read(path, name, tower)
    missing = wanted - vectors.keys()
    if missing:
        with locked(path):  # what others have added since is read again, and stays
            vectors, alike = _read(path, name, tower)
            missing = wanted - vectors.keys()
            todo = sorted(missing if alike or not missing else wanted | vectors.keys())
            if todo:
                vectors |= dict(zip(todo, _encoded(tower, todo), strict=True))
                _write(path, _header(name, tower, sorted(vectors)), vectors)
    features = np.stack([vectors[prompt] for prompt in prompts])
    return Texts(path, features, len(missing), len(vectors), tower.licence)


def _read(path: Path, name: str, tower: TextTower) -> tuple[dict[str, np.ndarray], bool]:
    """The cached prompts, and whether they were computed under the conditions of here and now."""
    if not path.exists():
        return {}, True
    cache = FeatureCache.open_complete(path)
    require(cache.header, _header(name, tower, list(cache.ids)), path, conditions=False)
    alike = cache.header.provenance["conditions"] == _conditions(tower)
    return dict(zip(cache.ids, cache.features(), strict=True)), alike


def load_tower(spec: str, weights: Path | None = None) -> TextTower:
    """The text tower of `FAMILY:MODEL` or a short name.

    Raises `UnknownName` for an unknown family and `BackboneError` for a tower that cannot be had.
    """
    _, spec = split_name(spec)
    outside = plugins.OUTSIDE if spec.startswith(plugins.OUTSIDE) else ""
    family, _, model = spec.removeprefix(outside).partition(":")
    try:
        plugin = plugins.load(plugins.BACKBONES, outside + family)
    except UnknownName as error:
        raise UnknownName(f"{error}; for prompts use a pair of clip, such as clip-vit-b16") from error
    make = getattr(plugin, "texts", None)
    if make is None or not model:
        raise BackboneError(f"{spec} has no text tower; use a pair of clip, such as clip-vit-b16")
    try:
        tower = make(model, weights)
        return replace(tower, code=digest(plugin.__name__)) if outside else tower
    except (ValueError, LookupError, OSError) as error:
        raise BackboneError(f"backbone {spec}: {error}") from error


def _checked(prompts: Sequence[str]) -> set[str]:
    if isinstance(prompts, str):
        raise TypeError("prompts is one text, expected a sequence of texts")
    if not len(prompts):
        raise ExtractionError("there are no prompts; give at least one")
    for number, prompt in enumerate(prompts, 1):
        if not prompt.strip():
            raise ExtractionError(f"prompt {number} of {len(prompts)} is blank; write something or leave it out")
        if UNWRITABLE.search(prompt):
            raise ExtractionError(
                f"prompt {number} of {len(prompts)} is {prompt[:60]!a}, expected UTF-8 text without control characters"
            )
    return set(prompts)


def _encoded(tower: TextTower, prompts: list[str]) -> np.ndarray:
    try:
        features = tower.encode(prompts)
    except ValueError as error:
        raise ExtractionError(f"{tower.spec}: {error}") from error
    if len(bad := np.flatnonzero(~np.isfinite(features).all(1))):
        raise ExtractionError(
            f"{tower.spec}: the features of {prompts[bad[0]]!r} are not finite; fetch the weights again"
        )
    return features


def _header(name: str, tower: TextTower, prompts: list[str]) -> Header:
    provenance = {
        "spec": tower.spec,
        "identity": tower.identity,
        "conditions": _conditions(tower),
        "licence": tower.licence,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    n = len(prompts)
    return Header(name, tower.dim, "float32", ids_digest(prompts), 0, n, n, provenance)


def _conditions(tower: TextTower) -> dict[str, Any]:
    import torch

    from embedx import __version__

    libraries = {"embedx": __version__, "torch": str(torch.__version__), **tower.libraries}
    return {"device": "cpu", "processor": processor(), "threads": torch.get_num_threads(), "libraries": libraries}


def _write(path: Path, header: Header, vectors: dict[str, np.ndarray]) -> None:
    prompts = sorted(vectors)
    hashes = [np.frombuffer(hashlib.sha256(p.encode()).digest(), np.uint8) for p in prompts]
    status = np.full(len(prompts), Status.OK, np.uint8)
    with CacheWriter(path, header, prompts) as writer:
        writer.append(Rows(prompts, np.stack([vectors[p] for p in prompts]), status, np.stack(hashes)))
