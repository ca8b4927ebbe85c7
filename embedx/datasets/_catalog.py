"""Prepared datasets and how they come to be: a plug-in reads a folder, the manifest is kept in the cache folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedx import manifest as manifests
from embedx import plugins
from embedx.errors import ManifestError, UnknownName
from embedx.home import Home, slug
from embedx.manifest import Manifest

EDITED = "{}: manifest.csv was edited since it was prepared; results use it as it is now"


def open_prepared(home: Home, name: str) -> tuple[Manifest, bool]:
    """The manifest of a prepared dataset, and whether it was edited by hand since.

    Raises `UnknownName` with the nearest names when nothing of that name was prepared.
    """
    if name not in home.datasets():
        known = {*home.datasets(), *plugins.names(plugins.DATASETS)}
        if name in known:
            raise ManifestError(f"dataset {name!r} is not prepared in {home.path}: run `embedx extract {name}` first")
        raise UnknownName(f"unknown dataset {name!r}: {plugins.nearest(name, known)}")
    return manifests.load(home.dataset(name))


def prepare(home: Home, dataset: str, root: Path | None, options: Mapping[str, str]) -> tuple[Manifest, list[str]]:
    """The manifest of `dataset`, written `NAME`, `SOURCE` or `NAME=SOURCE`, and remarks for the user.

    NAME     a dataset prepared before
    SOURCE   a dataset plug-in, which reads `root` with `options` (further arguments of its `read`, as words)

    A root given again reads again, so that the manifest follows the files; a manifest edited by hand is kept as long
    as the ids agree. Raises `UnknownName` or `ManifestError`.
    """
    name, _, source = dataset.rpartition("=")
    generates = source in plugins.names(plugins.DATASETS) and hasattr(plugins.load(plugins.DATASETS, source), "make")
    if (name or source) in home.datasets() and root is None and not options and not generates:
        manifest, edited = open_prepared(home, name or source)
        return manifest, [EDITED.format(manifest.name)] * edited
    if not name and source in home.datasets() and source not in plugins.names(plugins.DATASETS):
        if options:
            raise ManifestError(
                f"dataset {source!r} is prepared already and {', '.join(options)} was an option of its making; "
                f"leave it out, or read the files again with {source}=SOURCE --root and all options"
            )
        manifest, edited = open_prepared(home, source)
        if not _existing(root).is_dir():
            raise ManifestError(f"--root {root} is no folder; name the folder that the files of {source!r} lie in")
        moved = manifests.move(home.dataset(source), manifest, str(_existing(root).resolve()))
        return moved, [EDITED.format(source)] * edited
    fresh = _read(home, name, source, root, options)
    if all((home.dataset(fresh.name) / file).exists() for file in ("manifest.json", "manifest.csv")):
        before, edited = open_prepared(home, fresh.name)
        if edited and before.ids_digest == fresh.ids_digest:
            return manifests.move(home.dataset(fresh.name), before, fresh.root), [EDITED.format(fresh.name)]
        if edited:
            raise ManifestError(
                f"{home.dataset(fresh.name) / 'manifest.csv'} was edited by hand and the files have changed too; "
                "move the edited file away, prepare again, and bring the edits over"
            )
    manifests.save(fresh, home.dataset(fresh.name))
    return fresh, [f"{fresh.name}: {line}" for line in fresh.differences()]


def _read(home: Home, name: str, source: str, root: Path | None, options: Mapping[str, str]) -> Manifest:
    """Let the plug-in `source` read its files, generating them first where that is what it does."""
    if source not in plugins.names(plugins.DATASETS) and not source.startswith(plugins.OUTSIDE):
        known = {*home.datasets(), *plugins.names(plugins.DATASETS)}
        raise UnknownName(f"unknown dataset {source!r}: {plugins.nearest(source, known)}")
    plugin = plugins.load(plugins.DATASETS, source)
    if not hasattr(plugin, "read"):
        raise ManifestError(f"{source} is no dataset: it has no function read(root, ...) that returns a Manifest")
    arguments = _arguments(plugin.read, source, options)
    generated = hasattr(plugin, "make") and root is None
    if generated:
        root = home.dataset(name or source) / "images"
        plugin.make(root)
    if root is None:
        raise ManifestError(f"dataset {source!r} needs its files: say where they lie with --root")
    try:
        manifest = plugin.read(_existing(root), **arguments)
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{source}: {root} cannot be read ({error})") from error
    # What was generated lies in the cache folder, wherever that may be moved.
    return replace(manifest, name=slug(name or manifest.name), root=None if generated else manifest.root)


def _existing(root: Path | None) -> Path:
    if root is None or not root.exists():
        raise ManifestError(f"--root {root} does not exist; say where the dataset's files lie")
    return root


def root_of(home: Home, manifest: Manifest) -> Path:
    """Folder that the ids are relative to."""
    return Path(manifest.root) if manifest.root else home.path / slug(manifest.name) / "images"


def _arguments(read: Callable[..., Manifest], source: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Options given as words, bound to the plug-in's keyword parameters; tuples are written with commas."""
    parameters = dict(list(inspect.signature(read).parameters.items())[1:])
    if unknown := [key for key in options if key not in parameters]:
        raise UnknownName(f"dataset {source!r} has no option {unknown[0]!r}: {plugins.nearest(unknown[0], parameters)}")
    return {
        key: tuple(filter(None, word.split(","))) if isinstance(parameters[key].default, tuple) else word
        for key, word in options.items()
    }
