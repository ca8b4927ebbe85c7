"""Prepared datasets and how they come to be: a plug-in reads a folder, the manifest is kept in the cache folder."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from embedx import plugins
from embedx.data import manifest as manifests
from embedx.data.manifest import ALIKE, MEMBERS, Kept, Manifest, Origin, alike, folded
from embedx.data.sources import Source, open_source
from embedx.errors import ManifestError, UnknownName
from embedx.files import locked
from embedx.workspace import Workspace, slug

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:")  # of a bucket or hub; a single letter before the colon is a drive
EDITED = "{}: manifest.csv was edited since it was prepared; results use it as it is now"
LISTED = 5  # values that look alike in the remarks; `embedx data check` lists all


def open_prepared(workspace: Workspace, name: str) -> tuple[Manifest, list[str]]:
    """The manifest of a prepared dataset, and remarks for the user: that it was edited by hand, that values look alike.

    Raises `UnknownName` with the nearest names when nothing of that name was prepared.
    """
    if slug(name) not in workspace.datasets():
        datasets = {*workspace.datasets(), *plugins.names(plugins.DATASETS)}
        if name in datasets:
            raise ManifestError(
                f"dataset {name!r} is not prepared in {workspace.path}: run `embedx extract {name}` first"
            )
        raise UnknownName(f"unknown dataset {name!r}: {plugins.nearest(name, datasets)}")
    manifest, edited = manifests.load(workspace.dataset(name))
    manifest = replace(manifest, name=slug(name))  # a folder that was copied or renamed is a dataset of its own
    return manifest, _remarks(manifest, edited=edited)


def prepare(
    workspace: Workspace, dataset: str, root: str | Path | None, options: Mapping[str, str]
) -> tuple[Manifest, list[str]]:
    """The manifest of `dataset`, written `NAME`, `SOURCE` or `NAME=SOURCE`, and remarks for the user.

    NAME     a dataset prepared before
    SOURCE   a dataset plug-in, which reads `root` with `options` (further arguments of its `read`, as words); `root` is
             an existing path, but for plug-ins with ADDRESS = True, which take it as written

    The option `alike` goes with every plug-in: `fold` takes the commonest spelling for values that look alike, `keep`
    says that they are meant. A root given again reads again, so that the manifest follows the files; a manifest edited
    by hand is kept where the plug-in reads what it read before. What cannot be done is refused: raises `UnknownName`
    or `ManifestError`. Any number of processes may prepare one dataset at once.
    """
    name, _, source = dataset.rpartition("=")
    plugin = source in plugins.names(plugins.DATASETS) or source.startswith(plugins.OUTSIDE)
    if not name and slug(source) in workspace.datasets() and not plugin:
        return _reuse(workspace, source, root, options)
    if not plugin:
        datasets = {*workspace.datasets(), *plugins.names(plugins.DATASETS)}
        raise UnknownName(f"unknown dataset {source!r}: {plugins.nearest(source, datasets)}")
    module = plugins.load(plugins.DATASETS, source)
    if (
        not name
        and slug(source) in workspace.datasets()
        and root is None
        and not options
        and not (hasattr(module, "make") and _made_here(workspace.dataset(source)))
    ):
        return _reuse(workspace, source, None, {})
    return _keep(workspace, _read(workspace, name, source, module, root, options))


def source_of(workspace: Workspace, manifest: Manifest) -> Source:
    """Where the bytes of the manifest's rows come from. Raises `ManifestError` when their index is another one's."""
    folder = workspace.dataset(manifest.name).resolve()  # as other processes and machines may start in other folders
    manifests.check_members(folder)
    return open_source(manifest.root or str(folder / "images"), folder / MEMBERS)


def _made_here(folder: Path) -> bool:
    """Whether a prepared dataset is of images that embedx made, or has lost what would say so."""
    try:
        return manifests.read(folder).manifest.root is None
    except manifests.Lost as lost:
        return lost.facts.root is None


def _remarks(manifest: Manifest, *, edited: bool = False) -> list[str]:
    """What there is to say of a manifest, after what was said when it was read."""
    alike_values = alike(manifest)
    lines = [*manifest.remarks, *map(str, alike_values[:LISTED])]
    if alike_values:
        more = (
            f"{len(alike_values) - LISTED:,} more values look alike: "
            if len(alike_values) > LISTED
            else "alike values: "
        )
        lines.append(
            f"{more}-O {ALIKE}=fold, when the dataset is prepared, takes the commonest spelling for all of them, and "
            f"-O {ALIKE}=keep says that they are meant"
        )
    return [EDITED.format(manifest.name)] * edited + [f"{manifest.name}: {line}" for line in lines]


def _reuse(
    workspace: Workspace, name: str, root: str | Path | None, options: Mapping[str, str]
) -> tuple[Manifest, list[str]]:
    """The rows prepared before; a root says that their files have moved."""
    manifest, remarks = open_prepared(workspace, name)
    before = manifest.origin.options if manifest.origin else {}
    if other := [key for key, word in options.items() if before.get(key) != word]:
        raise ManifestError(
            f"dataset {name!r} is prepared already and {', '.join(other)} was an option of its making; "
            f"leave it out, or read the files again with {name}=SOURCE --root and all options"
            + (f" (before: embedx extract {manifest.origin.command(manifest.name)})" if manifest.origin else "")
        )
    if root is None:
        return manifest, remarks
    if ADDRESS.match(str(root)):
        place = str(root)
    elif _existing(root).is_dir():
        place = str(_existing(root).resolve())
    else:
        raise ManifestError(f"--root {root} is no folder; name the folder that the files of {name!r} lie in")
    with manifests.alone(workspace.dataset(name)):
        return manifests.amend(workspace.dataset(name), manifest, root=place), remarks


def _keep(workspace: Workspace, fresh: Manifest) -> tuple[Manifest, list[str]]:
    """Save a manifest just read, unless that would lose edits or another dataset's rows."""
    folder = workspace.dataset(fresh.name)
    with manifests.alone(folder):
        kept = _before(folder, fresh)
        if kept is None:
            manifests.save(fresh, folder)
            return fresh, _of_reading(fresh)
        before = kept.manifest
        if kept.edited and fresh.digest in (kept.prepared, before.digest):  # what was read then, or what it was made
            manifest = manifests.amend(
                folder, replace(before, name=fresh.name), root=fresh.root, version=fresh.version, source=fresh.source,
                licence=fresh.licence, expected=fresh.expected, origin=fresh.origin, members=fresh.members,
            )  # fmt: skip
            with_remarks = replace(manifest, remarks=(*fresh.remarks, *before.remarks, *manifest.differences()))
            return manifest, _remarks(with_remarks, edited=True)
        if kept.edited:
            raise _both_cannot_hold(folder, kept, fresh)
        if before.root != fresh.root and before.ids_digest != fresh.ids_digest:
            raise _taken(folder, fresh, before.root)
        manifests.save(fresh, folder, over=kept.table)
        other = fresh.origin.differences(before.origin) if fresh.origin and before.origin else []
        anew = other and fresh.digest != before.digest
        return fresh, [f"{fresh.name}: prepared anew, with {'; '.join(other)}"] * bool(anew) + _of_reading(fresh)


def _of_reading(fresh: Manifest) -> list[str]:
    return _remarks(replace(fresh, remarks=(*fresh.remarks, *fresh.differences())))


def _before(folder: Path, fresh: Manifest) -> Kept | None:
    """What was prepared there before; None where there is nothing that could be lost."""
    if not (folder / manifests.FACTS).exists():
        if (folder / manifests.TABLE).exists() and not manifests.is_table_of(fresh, folder):
            raise ManifestError(
                f"{folder / manifests.TABLE} is there without {manifests.FACTS}, which would say what it is; move it "
                "away, or put the other file back"
            )
        return None
    try:
        return manifests.read(folder)
    except manifests.Lost as lost:
        if lost.facts.root != fresh.root and lost.facts.digest != fresh.digest:
            raise _taken(folder, fresh, lost.facts.root) from lost
        return None


def _taken(folder: Path, fresh: Manifest, root: str | None) -> ManifestError:
    source = fresh.origin.dataset if fresh.origin else "SOURCE"
    return ManifestError(
        f"the name {fresh.name!r} is taken by other rows, from {root or 'images that embedx made'}; call the dataset "
        f"under {fresh.root} something else with NAME={source}, or delete {folder}"
    )


def _both_cannot_hold(folder: Path, kept: Kept, fresh: Manifest) -> ManifestError:
    """Of a table edited by hand, and a plug-in that now reads something else than what was edited."""
    before = kept.manifest
    other = fresh.origin.differences(before.origin) if fresh.origin and before.origin else []
    by_hand = f"{folder / manifests.TABLE} was edited by hand"
    way_out = (
        f"both cannot hold: `embedx extract {fresh.name}` uses the edited table; or move it away, give the same "
        "command again, and bring the edits over"
    )
    if other:
        return ManifestError(
            f"{by_hand}, and what is asked for is not what it was prepared with ({'; '.join(other)}); {way_out}"
        )
    now, then = {*fresh.ids}, {*before.ids}
    if now != then:
        counted = f"{len(now - then):,} rows are new and {len(then - now):,} are gone"
        return ManifestError(
            f"{by_hand} and the files have changed too; move the edited file away, prepare again, and bring the edits "
            f"over ({counted}; `embedx extract {fresh.name}` uses the edited table as it is)"
        )
    return ManifestError(
        f"{by_hand}, and the labels, splits or attributes read from {fresh.root} are not those it was prepared with "
        f"either; {way_out}"
    )


def _read(
    workspace: Workspace,
    name: str,
    source: str,
    plugin: ModuleType,
    root: str | Path | None,
    options: Mapping[str, str],
) -> Manifest:
    """Let the plug-in `source` read its files, generating them first where that is what it does."""
    if not hasattr(plugin, "read"):
        raise ManifestError(f"{source} is no dataset: it has no function read(root, ...) that returns a Manifest")
    if (choice := options.get(ALIKE)) not in (None, "fold", "keep"):
        raise ManifestError(f"-O {ALIKE}={choice}: expected fold, for one spelling, or keep, when they are meant")
    # A column can be named as the cluster of any dataset; a plug-in that knows the option reads the column itself.
    cluster = "" if "cluster" in inspect.signature(plugin.read).parameters else options.get("cluster", "")
    ours = {ALIKE, *(["cluster"] if cluster else [])}
    arguments = _arguments(plugin.read, source, {key: word for key, word in options.items() if key not in ours})
    generated = hasattr(plugin, "make") and root is None
    if generated:
        root = workspace.dataset(name or source) / "images"
        with locked(root):  # of several processes one draws, the others find it done
            wanted = inspect.signature(plugin.make).parameters
            plugin.make(root, **{key: value for key, value in arguments.items() if key in wanted})
    if root is None:
        raise ManifestError(f"dataset {source!r} needs its files: say where they lie with --root")
    as_written = getattr(plugin, "ADDRESS", False)
    try:
        manifest = plugin.read(str(root) if as_written else _existing(root), **arguments)
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{source}: {root} cannot be read ({error})") from error
    if not isinstance(manifest, Manifest):
        raise ManifestError(
            f"{source} is no dataset: its read returned {type(manifest).__name__}, expected a Manifest; make it with "
            "embedx.data.manifest.build"
        )
    if cluster:
        manifest = manifests.clustered(manifest, cluster)
    # What was generated lies in the cache folder, wherever that may be moved.
    place = None if generated else str(root) if not Path(root).exists() else str(Path(root).resolve())
    manifest = replace(
        manifest, name=slug(name or manifest.name), root=None if generated else manifest.root,
        origin=Origin(source, place, dict(options)),
    )  # fmt: skip
    return folded(manifest) if choice == "fold" else manifest


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
