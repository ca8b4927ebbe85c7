"""Prepared datasets and how they come to be: a plug-in reads a folder, the manifest is kept in the cache folder."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from embedx import manifest as manifests
from embedx import plugins
from embedx.errors import ManifestError, UnknownName
from embedx.home import Home, slug
from embedx.manifest import MEMBERS, Manifest
from embedx.sources import Source, open_source

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:")  # of a bucket or hub; a single letter before the colon is a drive
EDITED = "{}: manifest.csv was edited since it was prepared; results use it as it is now"


def open_prepared(home: Home, name: str) -> tuple[Manifest, bool]:
    """The manifest of a prepared dataset, and whether it was edited by hand since.

    Raises `UnknownName` with the nearest names when nothing of that name was prepared.
    """
    if slug(name) not in home.datasets():
        known = {*home.datasets(), *plugins.names(plugins.DATASETS)}
        if name in known:
            raise ManifestError(f"dataset {name!r} is not prepared in {home.path}: run `embedx extract {name}` first")
        raise UnknownName(f"unknown dataset {name!r}: {plugins.nearest(name, known)}")
    manifest, edited = manifests.load(home.dataset(name))
    return replace(manifest, name=slug(name)), edited  # a folder that was copied or renamed is a dataset of its own


def prepare(
    home: Home, dataset: str, root: str | Path | None, options: Mapping[str, str]
) -> tuple[Manifest, list[str]]:
    """The manifest of `dataset`, written `NAME`, `SOURCE` or `NAME=SOURCE`, and remarks for the user.

    NAME     a dataset prepared before
    SOURCE   a dataset plug-in, which reads `root` with `options` (further arguments of its `read`, as words); `root` is
             an existing path, but for plug-ins with ADDRESS = True, which take it as written

    A root given again reads again, so that the manifest follows the files; a manifest edited by hand is kept as long
    as the ids agree. Raises `UnknownName` or `ManifestError`.
    """
    name, _, source = dataset.rpartition("=")
    plugin = source in plugins.names(plugins.DATASETS) or source.startswith(plugins.OUTSIDE)
    if not name and slug(source) in home.datasets() and not plugin:
        return _reuse(home, source, root, options)
    if not plugin:
        known = {*home.datasets(), *plugins.names(plugins.DATASETS)}
        raise UnknownName(f"unknown dataset {source!r}: {plugins.nearest(source, known)}")
    module = plugins.load(plugins.DATASETS, source)
    if not name and slug(source) in home.datasets() and root is None and not options and not hasattr(module, "make"):
        return _reuse(home, source, None, {})
    return _keep(home, _read(home, name, source, module, root, options), source)


def source_of(home: Home, manifest: Manifest) -> Source:
    """Where the bytes of the manifest's rows come from."""
    folder = home.dataset(manifest.name).resolve()  # as other processes and machines may start in other folders
    return open_source(manifest.root or str(folder / "images"), folder / MEMBERS)


def _reuse(home: Home, name: str, root: str | Path | None, options: Mapping[str, str]) -> tuple[Manifest, list[str]]:
    """The rows prepared before; a root says that their files have moved."""
    if options:
        raise ManifestError(
            f"dataset {name!r} is prepared already and {', '.join(options)} was an option of its making; "
            f"leave it out, or read the files again with {name}=SOURCE --root and all options"
        )
    manifest, edited = open_prepared(home, name)
    if root is not None and ADDRESS.match(str(root)):
        manifest = manifests.move(home.dataset(name), manifest, str(root))
    elif root is not None:
        if not _existing(root).is_dir():
            raise ManifestError(f"--root {root} is no folder; name the folder that the files of {name!r} lie in")
        manifest = manifests.move(home.dataset(name), manifest, str(_existing(root).resolve()))
    return manifest, [EDITED.format(manifest.name)] * edited


def _keep(home: Home, fresh: Manifest, source: str) -> tuple[Manifest, list[str]]:
    """Save a manifest just read, unless that would lose edits or another dataset's rows."""
    folder = home.dataset(fresh.name)
    if all((folder / file).exists() for file in ("manifest.json", "manifest.csv")):
        before, edited = open_prepared(home, fresh.name)
        if edited and before.ids_digest == fresh.ids_digest:
            manifests.save_members(fresh, folder)
            return manifests.move(folder, before, fresh.root), [EDITED.format(fresh.name)]
        if edited:
            raise ManifestError(
                f"{folder / 'manifest.csv'} was edited by hand and the files have changed too; "
                "move the edited file away, prepare again, and bring the edits over"
            )
        if before.root != fresh.root and before.ids_digest != fresh.ids_digest:
            raise ManifestError(
                f"the name {fresh.name!r} is taken by other rows, from {before.root}; call the dataset under "
                f"{fresh.root} something else with NAME={source}, or delete {folder}"
            )
    manifests.save(fresh, folder)
    return fresh, [f"{fresh.name}: {line}" for line in (*fresh.remarks, *fresh.differences())]


def _read(
    home: Home, name: str, source: str, plugin: ModuleType, root: str | Path | None, options: Mapping[str, str]
) -> Manifest:
    """Let the plug-in `source` read its files, generating them first where that is what it does."""
    if not hasattr(plugin, "read"):
        raise ManifestError(f"{source} is no dataset: it has no function read(root, ...) that returns a Manifest")
    # A column can be named as the cluster of any dataset; a plug-in that knows the option reads the column itself.
    cluster = "" if "cluster" in inspect.signature(plugin.read).parameters else options.get("cluster", "")
    arguments = _arguments(plugin.read, source, {k: v for k, v in options.items() if k != "cluster" or not cluster})
    generated = hasattr(plugin, "make") and root is None
    if generated:
        root = home.dataset(name or source) / "images"
        plugin.make(root)
    if root is None:
        raise ManifestError(f"dataset {source!r} needs its files: say where they lie with --root")
    try:
        as_written = getattr(plugin, "ADDRESS", False)
        manifest = plugin.read(str(root) if as_written else _existing(root), **arguments)
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{source}: {root} cannot be read ({error})") from error
    if cluster:
        manifest = manifests.clustered(manifest, cluster)
    # What was generated lies in the cache folder, wherever that may be moved.
    return replace(manifest, name=slug(name or manifest.name), root=None if generated else manifest.root)


def _existing(root: str | Path) -> Path:
    if not Path(root).exists():
        raise ManifestError(f"--root {root} does not exist; say where the dataset's files lie")
    return Path(root)


def _arguments(read: Callable[..., Manifest], source: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Options given as words, bound to the plug-in's keyword parameters; tuples are written with commas."""
    parameters = dict(list(inspect.signature(read).parameters.items())[1:])
    if unknown := [key for key in options if key not in parameters]:
        raise UnknownName(f"dataset {source!r} has no option {unknown[0]!r}: {plugins.nearest(unknown[0], parameters)}")
    return {
        key: tuple(filter(None, word.split(","))) if isinstance(parameters[key].default, tuple) else word
        for key, word in options.items()
    }
