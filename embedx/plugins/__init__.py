"""Plug-ins by file name: a public file in `extractors/`, `probes/` or `embedx/datasets/` is a plug-in.

`probes/group_balanced.py` is the head `group-balanced`; nothing is registered anywhere. `py:package.module` names
a plug-in outside the tree: see `outside`.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from embedx.errors import UnknownName
from embedx.plugins import outside

OUTSIDE = "py:"


@dataclass(frozen=True)
class Kind:
    """One sort of plug-in: the noun used in messages and the package whose files are the plug-ins."""

    noun: str
    package: str


BACKBONES = Kind("backbone family", "embedx.extractors")
HEADS = Kind("head", "embedx.probes")
DATASETS = Kind("dataset", "embedx.datasets")


def names(kind: Kind) -> tuple[str, ...]:
    """Public names of all plug-ins of a kind, sorted; found by listing files, without importing any."""
    modules = pkgutil.iter_modules(importlib.import_module(kind.package).__path__)
    return tuple(sorted(m.name.replace("_", "-") for m in modules if not m.name.startswith("_")))


def load(kind: Kind, name: str) -> ModuleType:
    """Import the plug-in called `name`.

    Raises `UnknownName`, with the nearest names, when there is none.
    """
    if name.startswith(OUTSIDE):
        target = name.removeprefix(OUTSIDE)
        if not target or target.startswith("."):
            raise UnknownName(f"{name!r} names no Python module; write {OUTSIDE}package.module")
        outside.admit(target)
        try:
            return importlib.import_module(target)
        except ModuleNotFoundError as error:
            if error.name and not (target == error.name or target.startswith(error.name + ".")):
                raise
            raise UnknownName(
                f"no Python module {target!r} for {kind.noun} {name!r}: put it on PYTHONPATH or in this folder"
            ) from error
    if name not in (choices := names(kind)):
        raise UnknownName(f"unknown {kind.noun} {name!r}: {nearest(name, choices)}")
    return importlib.import_module(f"{kind.package}.{name.replace('-', '_')}")


def summary(kind: Kind, name: str) -> str:
    """First line of a plug-in's docstring, read from its source without importing it."""
    spec = importlib.util.find_spec(f"{kind.package}.{name.replace('-', '_')}")
    assert spec is not None and spec.origin is not None
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def nearest(name: str, choices: Iterable[str]) -> str:
    """The part of an error that helps: the closest names if any is close, then what there is (at most 20)."""
    choices = sorted(choices)
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    if not choices:
        return guess + "there are none"
    more = f" and {len(choices) - 20} more" if len(choices) > 20 else ""
    return f"{guess}known: {', '.join(choices[:20])}{more}"
