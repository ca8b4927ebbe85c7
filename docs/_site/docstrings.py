"""Docstrings of this project as Markdown: a column of names with what they mean becomes a list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

ROW = re.compile(r"(?P<names>[\w*.]+(?:, [\w*.]+)*(?: and [\w*.]+)?)(?: {2,}| · )(?P<text>\S.*)")


class Columns(griffe.Extension):
    """Rewrites every docstring before it is rendered."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = listed(obj.docstring.value)


def listed(text: str) -> str:
    """Lines `name   what it means`, each with the indented lines that go on below it, as items of a list."""
    return "\n".join(_lines(text.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    in_list = False
    for line in lines:
        if row := ROW.fullmatch(line):
            if not in_list:
                yield ""
            names = ", ".join(f"`{name}`" for name in re.split(r", | and ", row["names"]))
            yield f"- {names}: {row['text']}"
            in_list = True
        elif in_list and line.startswith(" "):
            yield f"    {line.strip()}"
        else:
            if in_list and line:
                yield ""
            in_list = False
            yield line
