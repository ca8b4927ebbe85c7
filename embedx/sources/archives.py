"""Tar archives by address: which ones an address names, and any part of one.

Local paths need no further library; `s3://`, `gs://`, `https://` and the like need fsspec and take their credentials
and options from its configuration.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from embedx.errors import ManifestError

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4", ".tar.Z")
MANY = 1_000_000


def remote(address: str) -> bool:
    """Is it an address for fsspec, not a local path?"""
    return "://" in address


def listed(address: str) -> tuple[str, list[str]]:
    """The folder and the archives below it, sorted, that an address names.

    address  a folder (all archives below it), an archive, or a pattern with `*`, `?`, `[…]`, `{000..010}`, `{a,b}`

    Raises `ManifestError` when there is none, or one that is compressed.
    """
    literal = not remote(address) and Path(address).exists()
    special = None if literal else re.search(r"[*?\[{]", address)
    if special:
        base = _above(address[: special.start()])
    else:
        folder = Path(address).is_dir() if literal else not address.endswith((".tar", *COMPRESSED))
        base = address if folder else _above(address)
    if remote(address) and re.search(r":/*$", base):
        raise ManifestError(f"{address}: no folder is named before the archives; write one, like s3://bucket/data")
    with plainly(address):
        find = _far if remote(address) else _near
        names = {n for pattern in ([address] if literal else braces(address)) for n in find(base, pattern)}
    if packed := sorted(n for n in names if n.endswith(COMPRESSED)):
        raise ManifestError(
            f"{address}: {packed[0]} is compressed, so that no image in it can be reached without reading all before "
            "it; unpack it to a plain .tar first (images hardly get smaller)"
        )
    found = sorted(n for n in names if n.endswith(".tar"))
    if not found:
        raise ManifestError(f"{address} names no .tar file; expected a folder of them, one, or data/{{000..010}}.tar")
    if odd := next((n for n in found if ".tar/" in n), None):
        raise ManifestError(f"{address}: {odd} lies in a folder called .tar; rename that folder")
    return base.rstrip("/") if remote(address) else str(Path(base).resolve()), found


@contextmanager
def plainly(address: str) -> Iterator[None]:
    """Whatever the libraries of the many kinds of servers raise becomes a `ManifestError` of one line."""
    try:
        yield
    except ManifestError:
        raise
    except FileNotFoundError as error:
        raise ManifestError(f"{address} does not exist; say with --root where the .tar files lie") from error
    except Exception as error:
        if not remote(address):
            raise
        said = f"{type(error).__name__} {error}".strip().partition("\n")[0]
        raise ManifestError(f"{address} cannot be read ({said}); see fsspec on its options and credentials") from error


def braces(pattern: str) -> list[str]:
    """`{a,b}-{08..10}` -> a-08, a-09, a-10, b-08, b-09, b-10, as a shell would."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    bounds = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if not bounds and "," not in found[1]:
        raise ManifestError(f"{pattern}: {found[0]} is neither a range like {{000..010}} nor a list like {{a,b}}")
    first, last = (int(b) for b in bounds.groups()) if bounds else (0, 0)
    width = len(bounds[1]) if bounds and bounds[1].startswith("0") else 0
    if bounds and not 0 <= last - first < MANY:
        raise ManifestError(f"{pattern}: {found[0]} should count upwards, to at most {MANY:,} names")
    words = (str(n).zfill(width) for n in range(first, last + 1)) if bounds else found[1].split(",")
    rest = (braces(pattern[: found.start()] + word + pattern[found.end() :]) for word in words)
    return list(itertools.islice(itertools.chain.from_iterable(rest), MANY))


def open_archive(base: str, name: str) -> BinaryIO | Any:
    """The archive as an open file; far away, every read of it is a ranged request."""
    if not remote(base):
        return (Path(base) / name).open("rb")
    system, path = filesystem(os.getpid(), base)
    return system.open(f"{path.rstrip('/')}/{name}", "rb")


@lru_cache(maxsize=4)
def filesystem(process: int, base: str) -> tuple[Any, str]:
    """The file system of an address and the path in it; connections must not be shared between processes."""
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise ManifestError(f"{base} needs fsspec: pip install 'embedx[webdataset]'") from error
    try:
        return url_to_fs(base)
    except (ImportError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise ManifestError(f"{base} cannot be opened ({said}); see the list of protocols of fsspec") from error


def _near(base: str, pattern: str) -> list[str]:
    if Path(pattern).is_dir():
        walk = os.walk(pattern, onerror=_refuse)
        paths = [str(Path(folder) / f) for folder, _, files in walk for f in files if f.endswith((".tar", *COMPRESSED))]
    else:
        paths = [pattern] if Path(pattern).exists() else glob.glob(pattern, recursive=True)  # noqa: PTH207
        if not paths:
            raise FileNotFoundError(pattern)
    return [n for p in paths if not _hidden(n := os.path.relpath(p, base))]


def _far(base: str, pattern: str) -> list[str]:
    system, start = filesystem(os.getpid(), base)
    path = filesystem(os.getpid(), pattern)[1]
    if re.search(r"[*?\[]", pattern):
        paths = system.glob(path)
    else:
        paths = [path] if path.endswith((".tar", *COMPRESSED)) else system.find(path)
    return [n for p in paths if not _hidden(n := str(p).removeprefix(start).lstrip("/"))]


def _above(path: str) -> str:
    """The folder that a path, or the fixed part of a pattern, lies in."""
    head, cut, _ = path.rpartition("/")
    return head or cut or "."


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed is an error: its archives must not silently be none."""
    raise error


def _hidden(name: str) -> bool:
    return any(component.startswith(".") for component in name.split("/"))
