"""What a reader of files leaves out: the names that are never data, and the count of what was left out and why."""

from __future__ import annotations

import re

HIDDEN, SYSTEM = "hidden files and folders", "system files and folders"
NAMED = 5  # examples in a remark, at most

# What disks, desktops, editors and packers put beside the files of a person, in lower case.
NAMES = frozenset((
    "@eadir", "@tmp", "@sharebin", "#recycle", "#snapshot",  # Synology
    "@recycle", "@recently-snapshot", "@__thumb", ".@__thumb", ".@upload_cache",  # QNAP
    "~snapshot", ".snapshot", ".snapshots", ".zfs", "lost+found", ".directory",  # other disks and desktops
    ".thumbnails", ".thumbs", ".xvpics", ".sync", ".stfolder", ".stversions", ".dropbox", ".dropbox.cache",
    "__macosx", ".ds_store", ".appledouble", ".appledb", ".appledesktop", ".apdisk", ".fseventsd", ".localized",
    ".spotlight-v100", ".documentrevisions-v100", ".temporaryitems", ".volumeicon.icns", "icon\r",  # Apple
    "network trash folder", "temporary items",
    "$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
    ".ipynb_checkpoints", "__pycache__", ".git", ".gitignore", ".gitattributes", ".gitkeep", ".svn", ".hg", ".dvc",
    ".dvcignore", ".idea", ".vscode", ".cache",  # tools
))  # fmt: skip
PATTERNS = re.compile(
    r"[.]_.*|[.]trash.*|[.]nfs[0-9a-f]+|[.]fuse_hidden.*|[.]~lock[.].*|paxheaders?([.][0-9x]+)?|found[.][0-9]{3}"
    r"|.*@syno(eastream|resource)",
    re.DOTALL,
)


def system(name: str) -> bool:
    """Is it the name of a file or folder that some system made, wherever it lies and however it is spelled?"""
    low = name.lower()
    return low in NAMES or bool(PATTERNS.fullmatch(low))


def clutter(name: str) -> str:
    """Why a file or folder of this name is no data: `SYSTEM`, `HIDDEN` (it begins with a dot), or empty: it may be."""
    return SYSTEM if system(name) else HIDDEN if name.startswith(".") else ""


class LeftOut(dict[str, tuple[int, tuple[str, ...]]]):
    """{what: (how many, examples)}. The examples are those first given; of system files the first of every name."""

    def add(self, what: str, *examples: str, n: int = 1) -> None:
        """Count n more, none where n is 0."""
        if not n:
            return
        before, named = self.get(what, (0, ()))
        if what == SYSTEM:
            named += tuple(e for e in examples if _kind(e) not in map(_kind, named))
        self[what] = (before + n, (named or examples)[:NAMED])

    def passes_over(self, path: str, *, under: str = "", hidden: bool = True) -> bool:
        """Count a file when it, or a folder it lies in, is one of a system (or hidden, unless told otherwise).

        under  what stands before the path in the example
        """
        parts = path.split("/")
        for n, part in enumerate(parts, 1):
            why = clutter(part)
            if why == SYSTEM or (why and hidden):
                self.add(why, under + "/".join(parts[:n]))
                return True
        return False

    def merge(self, other: LeftOut) -> None:
        """Add what another walk has left out."""
        for what, (n, examples) in other.items():
            self.add(what, *examples, n=n)

    def remarks(self) -> list[str]:
        """One line for everything that was left out for the same reason."""
        return [
            f"left out {n:,} {what} (for example {', '.join(map(shown, examples))})"
            for what, (n, examples) in self.items()
        ]


def shown(name: str) -> str:
    """A name for a message: lone surrogates, line breaks and the like are spelled out."""
    return name if name.isprintable() else ascii(name)


def _kind(path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2].lower()
    return name if name in NAMES else name[:3]
