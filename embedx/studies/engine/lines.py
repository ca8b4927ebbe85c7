"""Where in a TOML file a value stands, which its reader does not tell."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any


def place_and_words(message: str) -> tuple[list[str], str]:
    """The keys that lead to the place which an error of `documents.built` names as `$.a.b`, and the error with them."""
    place, field = re.match(r"\$([\w.\[\]'-]*) ?", message), re.search(r"has (?:a|no) field '([^']*)'", message)
    keys = re.findall(r"[\w-]+", place[1]) if place else []
    where = re.sub(r"\['([^']*)'\]", r".\1", place[1] if place else "").lstrip(".")
    words = f"{where or 'the study'} {message[place.end() if place else 0 :]}"
    unknown = [field[1]] if field and "has a field" in message else []
    return keys + unknown, words.replace("select_by", "select-by")


def line_of(text: str, keys: Sequence[str], form: str = "") -> int:
    """Line, from 1, of the statement by which the keys are there; where they are not, of what they would stand in.

    form  the table that other keys of the study may stand in as well, and come first there
    """
    wanted = list(keys)
    while wanted:
        for place in ([[form, *wanted]] if form else []) + [wanted]:
            if line := _statement(text, place):
                return line
        wanted.pop()
    return 1


def _statement(text: str, keys: Sequence[str]) -> int:
    """0 where the keys are not there. The file is read line by line until it holds them: what came last is it."""
    lines, start = text.splitlines(), 1
    for end in range(1, len(lines) + 1):
        try:
            values = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue  # within a value of several lines
        if _holds(values, keys):
            return start
        start = end + 1
    return 0


def _holds(values: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if isinstance(values, list) and key.isdecimal() and int(key) < len(values):
            values = values[int(key)]
        elif isinstance(values, dict) and (present := {key, key.replace("_", "-")} & values.keys()):
            values = values[min(present)]
        else:
            return False
    return True
