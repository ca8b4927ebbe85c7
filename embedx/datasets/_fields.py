"""Where a value of a row stands among its members: the text of one, or a value in JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from sys import intern
from typing import Any, NamedTuple

from embedx.errors import ManifestError


class Field(NamedTuple):
    """Where a value stands: the member's extension and, in JSON, the keys that lead to it."""

    extension: str
    keys: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.extension}:{'.'.join(self.keys)}" if self.keys else self.extension


def parse(option: str, text: str) -> Field:
    """The field that an option names, `cls` or `json:KEY.KEY`. Raises `ManifestError` for what names none."""
    extension, colon, path = text.partition(":")
    keys = tuple(path.split(".")) if colon else ()
    if not extension or not all(keys) or (extension == "json") != bool(keys):
        raise ManifestError(f"-O {option}={text}: expected a member's extension like cls, or json:KEY")
    return Field(extension.lower(), keys)


def fill(row: list[str | None], fields: Sequence[Field], extension: str, data: bytes | None) -> None:
    """Set the values that stand in one member; what cannot be read stays None. Nothing but text and JSON is parsed."""
    try:
        text = "" if data is None else data.decode("utf-8-sig").strip()
        whole = json.loads(text) if text and extension == "json" else None
    except (ValueError, RecursionError):
        return
    for i, field in enumerate(fields):
        if field.extension == extension:
            value = whole if field.keys else text
            for key in field.keys:
                value = value.get(key) if isinstance(value, dict) else None
            row[i] = _word(value)


def _word(value: Any) -> str | None:
    """A value of JSON as a word; nothing, lists and objects are none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    word = str(value).strip() if isinstance(value, str | int | float) else ""
    return intern(word) if word else None
