"""Write `files.md` beside this: every file of JSON that embedx writes, from the types and docstrings of its records.

python docs/files.py
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import embedx
from embedx.documents import Absent, Kind

FILE = Path(__file__).with_suffix(".md")
LINKED = ("embedx.extractors", "embedx.probes")  # which write nothing
GLOSSARY = {
    "dataset": "name of the dataset",
    "backbone": "name of the backbone",
    "head": "name of the head",
    "dim": "features of a row",
    "seed": "of what is drawn",
    "label": "class code",
    "class_name": "name of the class",
    "feature": "number of the feature, a column of the cache",
    "weights": "SHA-256 of the backbone's weights",
    "id": "of the row, as in the manifest",
    "name": "its name",
    "n": "how many rows",
    "classes": "how many classes",
    "split": "train, val or test",
    "k": "rows at each end of a class, or a share of them",
    "p": "chance of a figure as far off by chance",
    "gap": "accuracy at one end minus that at the other",
    "model": "BACKBONE=HEAD",
    "supervision": "the labels that it took beyond those of classes",
}
"""Fields that mean the same in every record that says nothing else of them."""
WORDS: dict[Any, str] = {
    str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "anything",
    Absent: "absent",
}  # fmt: skip


def kinds() -> list[Kind[Any]]:
    """Every kind of document, by the name of its file."""
    found = {}
    for module in pkgutil.walk_packages(embedx.__path__, "embedx."):
        if module.name.startswith(LINKED) or module.name.endswith("__main__"):
            continue
        found |= {id(v): v for v in vars(importlib.import_module(module.name)).values() if isinstance(v, Kind)}
    return sorted(found.values(), key=lambda kind: kind.file)


def worded(kind: Any) -> str:  # noqa: PLR0911  one for each kind of type
    """A type in words; records are links."""
    if dataclasses.is_dataclass(kind):
        name = typing.cast("type[Any]", kind).__name__
        return f"[{name}](#{name.lower()})"
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        parts = [p for p in parts if p is not int] if float in parts else parts
        return " or ".join(map(worded, sorted(parts, key=lambda p: p in (type(None), Absent))))
    if origin is Literal:
        return " or ".join(f"`{p}`" for p in parts)
    if origin is tuple:
        part = worded(parts[0])
        part = f"({part})" if " or " in part else part
        return f"list of {part}" if parts[-1] is ... else f"list of {len(parts)} x {part}"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"object {{{worded(parts[0])}: {worded(parts[1])}}}"
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return " or ".join(f"`{member.value}`" for member in kind)
    return WORDS[kind]


def records(kind: Any) -> Iterator[type[Any]]:
    """The records that a type holds, itself among them."""
    if dataclasses.is_dataclass(kind):
        yield typing.cast("type[Any]", kind)
        for of in typing.get_type_hints(kind).values():
            yield from records(of)
    for part in typing.get_args(kind):
        yield from records(part)


def summary(record: type[Any]) -> str:
    """The first paragraph of a docstring."""
    return " ".join((inspect.getdoc(record) or "").split("\n\n")[0].split())


def meanings(record: type[Any]) -> dict[str, str]:
    """{field: what it means}, from the lines `name  meaning` of the docstring; "" where nothing says it."""
    names = [f.name for f in dataclasses.fields(record)]
    one = "`?(?:" + "|".join(sorted(names, key=len, reverse=True)) + ")`?"
    start = re.compile(rf"({one}(?:, {one})*):? +(\S.*)")
    entries: list[tuple[list[str], str]] = []
    for line in re.sub(r"\n +", " ", (inspect.getdoc(record) or "").partition("\n")[2]).splitlines():
        for part in re.split(rf"[;.] (?={one}(?:, {one})*: )|; (?={one}(?:, {one})* )", line):
            if found := start.fullmatch(part):
                entries.append((found[1].replace("`", "").split(", "), found[2]))
    said = {name: text for owners, text in reversed(entries) for name in owners}
    for name in names:
        home = next((o[0] for o, t in entries if re.search(rf"\b{name}\b", t)), "")
        said.setdefault(name, GLOSSARY.get(name) or (f"see `{home}`" if home else ""))
    return said


def table(record: type[Any]) -> list[str]:
    """The fields of a record."""
    hints, said = typing.get_type_hints(record), meanings(record)
    lines = ["| field | type | meaning |", "|---|---|---|"]
    for f in dataclasses.fields(record):
        meaning = said[f.name].replace("|", "\\|")
        lines.append(f"| `{f.name}` | {worded(hints[f.name])} | {meaning} |")
    return lines


def section(kind: Kind[Any], inner: Mapping[str, type[Any]]) -> list[str]:
    """One kind of file; `inner` are the records that have sections of their own."""
    marks = " and ".join(f"`{key}` {value!r}" for key, value in kind.marks.items()).replace("'", '"')
    lines = [f"## `{kind.file}`", "", f"{summary(kind.type)} Written by `{kind.command}`."]
    lines[-1] += f" It starts with {marks}." if marks else " It has no version."
    if older := sorted(kind.steps):
        unmarked = " (which says neither)" if kind.unmarked in older else ""
        lines[-1] += f" Version {', '.join(map(str, older))}{unmarked} is read as well."
    name = kind.type.__name__
    return [*lines, "", *([f"Its fields: [{name}](#{name.lower()})."] if name in inner else table(kind.type)), ""]


def text() -> str:
    """All of `files.md`."""
    every = kinds()
    inner = {r.__name__: r for kind in every for of in records(kind.type) for r in records(of) if r is not of}
    lines = [
        "# Files of JSON", "",
        "Made by `python docs/files.py` from the types of the records (`embedx.documents`): do not edit. Reading is "
        "strict: UTF-8, every key once, finite numbers, no field that is not listed here. A field that may be absent, "
        "or that has a default, may be missing in files of earlier versions. In `.jsonl` files every line is such an "
        "object. The caches themselves are described in `cache/README.md`.", "",
    ]  # fmt: skip
    for kind in every:
        lines += section(kind, inner)
    lines += ["# Records inside", ""]
    for name in sorted(inner):
        lines += [f"## {name}", "", summary(inner[name]), "", *table(inner[name]), ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
