"""Tar archives by address: which ones an address names, and any part of one.

Local paths need no further library; `s3://`, `gs://`, `https://` and the like need fsspec and take their credentials
and options from its configuration.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from embedx.data.left_out import LeftOut
from embedx.data.trees import Tree
from embedx.errors import ManifestError

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4", ".tar.Z")
MANY = 1_000_000


def remote(address: str) -> bool:
    """Is it an address for fsspec, not a local path?"""
    return "://" in address


def listed(address: str, left_out: LeftOut | None = None) -> tuple[str, list[str]]:
    """The folder and the archives below it, sorted, that an address names.

    address   a folder (all archives below it), an archive, or a pattern with `*`, `?`, `[…]`, `{000..010}`, `{a,b}`
    left_out  counts the files in a folder that are hidden, or those of a system

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
        find, left_out = _far if remote(address) else _near, LeftOut() if left_out is None else left_out
        names = {n for pattern in ([address] if literal else braces(address)) for n in find(base, pattern, left_out)}
    if packed := sorted(n for n in names if n.endswith(COMPRESSED)):
        raise ManifestError(
            f"{address}: {packed[0]} is compressed, so that no image in it can be reached without reading all before "
            "it; unpack it to a plain .tar first (images hardly get smaller)"
        )
    archives = sorted(n for n in names if n.endswith(".tar"))
    if not archives:
        raise ManifestError(f"{address} names no .tar file; expected a folder of them, one, or data/{{000..010}}.tar")
    if odd := next((n for n in archives if ".tar/" in n), None):
        raise ManifestError(f"{address}: {odd} lies in a folder called .tar; rename that folder")
    return base.rstrip("/") if remote(address) else str(Path(base).resolve()), archives


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
        cause = f"{type(error).__name__} {error}".strip().partition("\n")[0]
        raise ManifestError(f"{address} cannot be read ({cause}); see fsspec on its options and credentials") from error


def braces(pattern: str) -> list[str]:
    """`{a,b}-{08..10}` -> a-08, a-09, a-10, b-08, b-09, b-10, as a shell would."""
    braced = re.search(r"\{([^{}]*)\}", pattern)
    if not braced:
        return [pattern]
    bounds = re.fullmatch(r"(\d+)\.\.(\d+)", braced[1])
    if not bounds and "," not in braced[1]:
        raise ManifestError(f"{pattern}: {braced[0]} is neither a range like {{000..010}} nor a list like {{a,b}}")
    first, last = (int(b) for b in bounds.groups()) if bounds else (0, 0)
    width = len(bounds[1]) if bounds and bounds[1].startswith("0") else 0
    if bounds and not 0 <= last - first < MANY:
        raise ManifestError(f"{pattern}: {braced[0]} should count upwards, to at most {MANY:,} names")
    words = (str(n).zfill(width) for n in range(first, last + 1)) if bounds else braced[1].split(",")
    rest = (braces(pattern[: braced.start()] + word + pattern[braced.end() :]) for word in words)
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
        cause = str(error).partition("\n")[0]
        raise ManifestError(f"{base} cannot be opened ({cause}); see the list of protocols of fsspec") from error


def _near(base: str, pattern: str, left_out: LeftOut) -> list[str]:
    if Path(pattern).is_dir():
        return _below(base, Path(pattern), left_out)
    if Path(pattern).exists():
        return [os.path.relpath(pattern, base)]
    parts = pattern.split("/")
    if "**" not in parts:
        paths = glob.glob(pattern)  # noqa: PTH207
        names = [n for p in paths if not left_out.passes_over(n := os.path.relpath(p, base))]
    else:  # not left to `glob`, which goes round and round where a link leads to a folder above it
        deep = parts.index("**")
        head = "/".join(parts[:deep]) or ("/" if pattern.startswith("/") else ".")
        paths = [p for p in glob.glob(head) if Path(p).is_dir()]  # noqa: PTH207
        names = [n for p in paths for n in _below(base, Path(p), left_out, parts[deep:])]
    if not paths:
        raise FileNotFoundError(pattern)
    return names


def _below(base: str, top: Path, left_out: LeftOut, pattern: Sequence[str] = ("**",)) -> list[str]:
    """The archives below a folder that fit a pattern, by their paths relative to `base`."""
    tree = Tree(top)
    files = [f for f in tree.walk() if f.endswith((".tar", *COMPRESSED)) and _fits(f.split("/"), pattern)]
    left_out.merge(tree.left_out)
    return [os.path.relpath(top / f, base) for f in files]


def _fits(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Does a path fit a pattern, part by part? `**` is any number of folders."""
    if not pattern or pattern[0] != "**":
        fits = bool(path and pattern) and fnmatch.fnmatchcase(path[0], pattern[0])
        return _fits(path[1:], pattern[1:]) if fits else not path and not pattern
    return any(_fits(path[n:], pattern[1:]) for n in range(len(path) + 1))


def _far(base: str, pattern: str, left_out: LeftOut) -> list[str]:
    system, start = filesystem(os.getpid(), base)
    path = filesystem(os.getpid(), pattern)[1]
    if getattr(system, "local_file", False):  # file://, where fsspec would pass over links to folders
        return _near(start, path, left_out)
    if re.search(r"[*?\[]", pattern):
        paths = system.glob(path)
    else:
        paths = [path] if path.endswith((".tar", *COMPRESSED)) else system.find(path)
    return [n for p in paths if not left_out.passes_over(n := str(p).removeprefix(start).lstrip("/"))]


def _above(path: str) -> str:
    """The folder that a path, or the fixed part of a pattern, lies in."""
    head, cut, _ = path.rpartition("/")
    return head or cut or "."
