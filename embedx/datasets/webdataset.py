"""WebDataset: images and labels side by side in tar archives, read where they lie, on disk or at any fsspec address.

`--root` is a folder, an archive, or a pattern such as `data/train-{000..010}.tar` or `s3://bucket/data/*.tar`. Members
whose names agree up to the first dot are one row: `0001.jpg`, `0001.cls`. Where a value stands is written `EXT`, the
text of the member with that extension, or `json:KEY`, a value in the member `.json` (`json:meta.KEY` goes deeper):
`-O label=json:species -O attributes=json:place`. Labels are in `cls` by default; `-O cluster=json:patient` says which
rows are of one subject. The split is said by the archive's name (`train-000.tar`, `val/000.tar`), by `-O split=train`
for all, or by `-O split=json:fold`. Where a row has several images, or a `.npy` vector, `-O image=EXT` names the member
to take.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple, cast

from embedx.data.left_out import HIDDEN, LeftOut
from embedx.data.manifest import RESERVED, UNWRITABLE, Manifest, build
from embedx.data.sources.archives import listed, open_archive, plainly, remote
from embedx.datasets import csv, folder
from embedx.datasets._fields import Field, fill, parse
from embedx.datasets._members import Member, Members, table
from embedx.errors import ManifestError

ADDRESS = True
IMAGES = ("jpg", "jpeg", "png", "webp", "ppm", "pgm", "bmp", "gif", "tif", "tiff", "jp2")
SPELLINGS = {**csv.SPELLINGS, **folder.SPELLINGS}
KEY = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)")
META = re.compile(r"__[^/]*__($|/)")
LONGEST = 1024  # bytes of a name; all rows of the index have room for the longest one
CONNECTIONS = 8
FEW = 20  # extensions named in a message
TROUBLES = 5  # archives named one by one
JOINED = "is several archives joined to one; all of them are read"


class Row(NamedTuple):
    """The image of a sample, and the values of the columns read from its other members."""

    member: Member
    values: tuple[str, ...]


def read(
    root: str, label: str = "cls", split: str = "", attributes: tuple[str, ...] = (), cluster: str = "", image: str = ""
) -> Manifest:
    """The manifest of all archives. Raises `ManifestError` for an archive or an option that cannot be used.

    Keys that lack an image or a value are left out and counted in the remarks.
    """
    fields = [parse("label", label), *(parse("attributes", a) for a in attributes)]
    fields += [parse("cluster", cluster)] if cluster else []
    names = ["label", *(f.keys[-1] if f.keys else f.extension for f in fields[1:])]
    if cluster and names[-1] in (*names[:-1], *RESERVED):  # such as patient.id
        names[-1] = ".".join(fields[-1].keys) or names[-1]
    if twice := [n for n in names if names.count(n) > 1 or n in RESERVED[::2]]:
        raise ManifestError(f"two columns would be called {twice[0]!r}; take other attributes")
    subject = names[-1] if cluster else ""
    if split and split.lower() not in SPELLINGS:
        fields, names = [*fields, parse("split", split)], [*names, "split"]
    left_out, endings = LeftOut(), set[str]()
    base, archives = listed(root, left_out)
    columns: dict[str, list[str]] = {"id": [], "split": [], **{n: [] for n in names}}
    members: list[Member] = []
    troubles: list[str] = []
    one = partial(_archive, base, fields=fields, image=image.lower().removeprefix("."))
    for archive, (rows, without, extensions, trouble) in zip(archives, _each(base, one, archives), strict=True):
        split_word = "" if "split" in names or not rows else split or _split(archive)
        for row in rows:
            columns["id"].append(f"{archive}/{row.member.name}")
            for name, value in zip(names, row.values, strict=True):
                columns[name].append(value)
            if split_word:
                columns["split"].append(split_word)
            members.append(row.member)
        troubles += [f"{archive} {trouble}; {len(rows):,} rows of it are kept"] * bool(trouble)
        left_out.merge(without)
        endings |= extensions if len(endings) < FEW else set()
    more = len(troubles) - TROUBLES
    troubles[TROUBLES:] = [f"so {more:,} more archives: joined to one, damaged, or not whole"] * (more > 0)
    remarks = [*troubles, *left_out.remarks()]
    if not members:
        raise ManifestError(
            f"{root} holds no row ({'; '.join(remarks) or 'the archives are empty'}); members found: "
            f"{', '.join(sorted(endings)) or 'none'}; name them with -O image=EXT -O label=EXT or json:KEY"
        )
    columns["split"] = [SPELLINGS.get(s.strip().lower(), s) for s in columns["split"]]
    name = PurePosixPath(base).name
    return build(
        name, columns, source=f"WebDataset {name}", root=base, members=table(columns["id"], members),
        remarks=tuple(remarks), cluster=subject,
    )  # fmt: skip


def _each(base: str, one: Any, archives: list[str]) -> Iterable[Any]:
    """Archives one after the other, or, where a request takes its time, several at once; results in order."""
    if not remote(base):
        yield from map(one, archives)
        return
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        yield from pool.map(one, archives)


def _archive(base: str, archive: str, fields: list[Field], image: str) -> tuple[list[Row], LeftOut, set[str], str]:
    """The rows of one archive, what was left out, the extensions found, and what is wrong with it."""
    images: dict[str, Member] = {}
    values: dict[str, list[str | None]] = {}
    left_out, extensions, seen = LeftOut(), set[str](), set[tuple[str, str]]()
    read_in = {f.extension for f in fields}
    with plainly(f"{base}/{archive}"), open_archive(base, archive) as file:
        members = Members(file, f"{base}/{archive}")
        for member in members:
            if not (match := _named(member.name, archive, left_out)):
                continue
            key, extension = match[1], match[2].lower()
            if len(extensions) < FEW:
                extensions.add(extension)
            row = values.setdefault(key, [None] * len(fields))
            if extension == image if image else extension in IMAGES:
                if key in images:
                    _twice(f"{base}/{archive}", images[key].name, member.name, joined=members.joined)
                images[key] = member
            if extension in read_in:
                if (key, extension) in seen:
                    _twice(f"{base}/{archive}", member.name, member.name, joined=members.joined)
                seen.add((key, extension))
                fill(row, fields, extension, members.small(member))
    for what, (n, examples) in members.left_out.items():
        left_out.add(what, *(f"{archive}/{e}" for e in examples), n=n)
    rows = []
    for key, row in values.items():
        if key not in images:
            left_out.add("keys without an image", f"{archive}/{key}")
        elif None in row:
            left_out.add(f"keys without a {fields[row.index(None)]} that can be read", f"{archive}/{key}")
        else:
            rows.append(Row(images[key], cast("tuple[str, ...]", tuple(row))))
    trouble = members.trouble or JOINED * members.joined
    return rows, left_out, extensions, trouble


def _named(name: str, archive: str, left_out: LeftOut) -> re.Match[str] | None:
    """Key and extension of a member; None for one that belongs to no row, which is counted."""
    if META.match(name) or left_out.passes_over(name, under=f"{archive}/", hidden=False):
        return None
    match = KEY.fullmatch(name)
    if not match:
        hidden = name.rpartition("/")[2].startswith(".")
        left_out.add(HIDDEN if hidden else "members without an extension", f"{archive}/{name}")
    elif not _safe(name):
        left_out.add("members, their names cannot be ids", f"{archive}/{name}"[:80])
        return None
    return match


def _twice(archive: str, first: str, second: str, *, joined: bool) -> None:
    if first == second and joined:
        raise ManifestError(f"{archive} is several archives joined to one, which hold {first!r} twice; keep them apart")
    if first == second:
        raise ManifestError(f"{archive} holds {first!r} twice; write it again with every member once")
    raise ManifestError(f"{archive} holds {first!r} and {second!r} for one row; say which with -O image=EXT")


def _safe(name: str) -> bool:
    unsafe = name.startswith("/") or ".." in name.split("/") or UNWRITABLE.search(name)
    return not unsafe and len(name.encode()) <= LONGEST


def _split(archive: str) -> str:
    """The split that an archive's name says, else the nearest folder's above it."""
    for part in reversed(archive.split("/")):
        words = {SPELLINGS[w] for w in re.split("[^a-z]+", part.lower()) if w in SPELLINGS}
        if len(words) == 1:
            return words.pop()
        if words:
            break
    raise ManifestError(
        f"{archive}: the name says no split; expected one like train-000.tar or val/000.tar, or say it with "
        "-O split=train or -O split=json:KEY"
    )
