"""Is a file what was published? Its length, its checksums, and at least its first bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from embedx.data.download.item import Download

HEAD = 512
MAGIC = {
    (".gz", ".tgz"): (0, b"\x1f\x8b", "gzip"), (".zip",): (0, b"PK", "zip"), (".bz2",): (0, b"BZh", "bzip2"),
    (".xz",): (0, b"\xfd7zXZ", "xz"), (".tar",): (257, b"ustar", "tar"),
}  # fmt: skip


def problem(path: Path, item: Download) -> str:
    """What is wrong with a file, as `found, expected`; empty when nothing is."""
    size = path.stat().st_size
    if item.size is not None and size != item.size:
        return f"it has {size:,} bytes, expected {item.size:,}"
    if alien := foreign(path, item.name):
        return alien
    for kind, expected in (("sha256", item.sha256), ("md5", item.md5)):
        if expected:
            with path.open("rb") as file:
                checksum = hashlib.file_digest(
                    file, lambda kind=kind: hashlib.new(kind, usedforsecurity=False)
                ).hexdigest()
            if checksum != expected.lower():
                return f"its {kind} is {checksum}, expected {expected}"
    return ""


def foreign(path: Path, name: str) -> str:
    """Whether the first bytes are those of something else than the name says, a web page for one."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is a web page, expected a file; open the address in a browser to see what it says"
    for endings, (at, magic, kind) in MAGIC.items():
        if name.lower().endswith(endings) and head[at : at + len(magic)] != magic:
            return f"it begins with {head[:8].hex(' ') or 'nothing'}, expected a {kind} file"
    return ""
