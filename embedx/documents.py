"""Typed, versioned JSON: one reader, one writer and one error text for every record that embedx puts on disk.

A record is a frozen dataclass whose types say what it holds. A `Kind` binds it to a file: its marks (format and
version), the error of the room that it belongs to, and what to do when it cannot be read. Reading is strict: UTF-8,
every key once, finite numbers, the marks, every field there and of its type, no field that the record does not have.
`docs/files.md` is made of the kinds and of the docstrings of their records.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from embedx.errors import EmbedxError
from embedx.files import write_text
from embedx.plugins import nearest

T = TypeVar("T")
Step = Callable[[dict[str, Any]], dict[str, Any]]

ABSENT = msgspec.UNSET
"""The value of a field that the file leaves out."""
Absent = msgspec.UnsetType
LARGEST = 1 << 30
"""Bytes of a document that may be one of ours."""
DIGITS = 300
"""Digits of a whole number that a float can hold, too."""
SHOWN = 60
TYPES = {
    "str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "null": "null",
    "array": "a list", "object": "an object",
}  # fmt: skip
"""What msgspec calls the types of JSON, in words."""

HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON spells half of a character, alone or beside its other half."""

_EXPECTED = re.compile(r"Expected `([^`]*)`(?: of (?:at least )?length (\d+))?, got (?:`([^`]*)`|(\d+))$")
_MISSING = re.compile(r"Object missing required field `([^`]*)`$")
_STEP = re.compile(r"\.(\w+)|\[(\d{1,9})\]|(\[\.\.\.\])")
_JSON = {str: "str", int: "int", float: "float", bool: "bool", type(None): "null", list: "array", dict: "object"}


class NoJSON(ValueError):
    """What is no JSON at all, such as a line that was cut short."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of file, or of lines in a file.

    type      the dataclass of its record
    file      its name, with NAME for what varies
    command   what makes it, as it is typed
    error     raised for a document that is missing, foreign, newer or damaged
    format    the mark that says what it is; version: the mark that counts its changes. Lines may have none
    again     what to do with one that cannot be read; default: make it again with `command`
    key       the name of the mark that holds the version
    steps     {version: what makes of such a document one of the next version}; other versions are refused
    unmarked  the version of documents without marks, where earlier ones were written so
    indent    spaces of each level; None: all in one line
    ascii     whether other characters are escaped
    """

    type: type[T]
    file: str
    command: str
    error: type[EmbedxError]
    format: str = ""
    version: int = 0
    again: str = ""
    key: str = "version"
    steps: Mapping[int, Step] = field(default_factory=dict)
    unmarked: int | None = None
    indent: int | None = 1
    ascii: bool = True

    @property
    def advice(self) -> str:
        """What to do with a document that cannot be read."""
        return self.again or f"make it again with `{self.command}`"

    @property
    def marks(self) -> dict[str, Any]:
        """What stands before the fields of the record."""
        return ({"format": self.format} if self.format else {}) | ({self.key: self.version} if self.version else {})

    def text(self, record: T) -> str:
        """The document, with a newline at its end. Raises `ValueError` as `plain` does."""
        document = self.marks | _fields(record, self.type)
        return json.dumps(document, indent=self.indent, ensure_ascii=self.ascii, allow_nan=False) + "\n"

    def write(self, path: Path, record: T) -> None:
        """Publish the document, whole or not at all."""
        write_text(path, self.text(record))

    def read(self, path: Path) -> T:
        """The record in a file. Raises `error`, also where there is none."""
        try:
            size = path.stat().st_size
            data = path.read_bytes() if size <= LARGEST else b""
        except FileNotFoundError as error:
            raise self.error(f"{path} does not exist; make it with `{self.command}`") from error
        if size > LARGEST:
            raise self.error(f"{path} has {size:,} bytes, expected at most {LARGEST:,}; {self.advice}")
        return self.parse(data, path)

    def parse(self, data: bytes | str, where: object) -> T:
        """The record in some JSON. Raises `error`, which says `where` that comes from."""
        try:
            return built(self._current(decoded(data)), self.type)
        except (ValueError, RecursionError) as error:
            problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise self.error(f"{where}: {problem}; {self.advice}") from error

    def _current(self, document: Any) -> dict[str, Any]:
        """The fields of a document, brought up to this version."""
        if not isinstance(document, dict):
            raise ValueError(f"$ is {TYPES[_JSON[type(document)]]}, expected an object")
        values = {key: value for key, value in document.items() if key not in self.marks}
        if self.unmarked is not None and len(values) == len(document):
            version = self.unmarked
        else:
            version = self._version(document)
        try:
            while version != self.version:
                values, version = self.steps[version](values), version + 1
        except (KeyError, TypeError, AttributeError) as error:  # of a step, which takes an old document as it is
            raise ValueError(f"it is no document of version {version} ({type(error).__name__}: {error})") from error
        return values

    def _version(self, document: Mapping[str, Any]) -> int:
        """The version of a document that is of this format; one that can be read."""
        for key, expected in self.marks.items():
            mark = document.get(key)
            if type(mark) is type(expected) and (mark == expected or (key == self.key and mark in self.steps)):
                continue
            newer = key == self.key and type(mark) is int and mark > self.version
            hint = f" (a newer embedx wrote {mark}: update embedx)" if newer else ""
            state = f"is {shown(mark)}" if key in document else "is not there"
            raise ValueError(f"$.{key} {state}, expected {shown(expected)}{hint}")
        return document.get(self.key, self.version) if self.version else self.version


def decoded(data: bytes | str) -> Any:
    """JSON as Python has it; each key of an object there once, every number finite.

    Raises `ValueError`, `NoJSON` among it, or `RecursionError`.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        values = json.loads(
            text, object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite, parse_int=_whole
        )  # fmt: skip
        if HALF.search(text):
            json.dumps(values, ensure_ascii=False).encode()
        return values
    except UnicodeEncodeError as error:
        raise ValueError(_half(error)) from error
    except UnicodeDecodeError as error:
        raise NoJSON(f"it is no UTF-8 ({error.reason} at byte {error.start + 1}), expected JSON") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise NoJSON(f"it is no JSON ({error.msg} at {place}), expected an object") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{min(k for k in keys if keys.count(k) > 1)!r} is there twice, expected every key once")
    return values


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is among its numbers, expected finite ones")
    return value


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a whole number of {len(text):,} digits is among its numbers, expected at most {DIGITS}")
    return int(text)


def plain(value: Any) -> Any:
    """A record as JSON holds it: dataclasses and mappings as new dictionaries, tuples as lists, enums as their values.

    Raises `ValueError` for what JSON has no word for: an array or a number of NumPy's, or one that is not finite.
    """
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if is_dataclass(value):
        return _fields(value, type(value))
    if isinstance(value, Mapping):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    raise ValueError(f"{value!r} ({type(value).__name__}) is no plain JSON, expected text and finite numbers")


def _fields(record: Any, kind: type[Any]) -> dict[str, Any]:
    values = {f.name: getattr(record, f.name) for f in fields(kind)}
    return {name: plain(value) for name, value in values.items() if value is not ABSENT}


def built(values: Any, kind: type[T]) -> T:
    """A record from plain values, whose types are checked; the inverse of `plain`.

    Raises `ValueError` that says which place holds what, and what was expected there.
    """
    try:
        record = msgspec.convert(values, kind, strict=True, str_keys=True)
    except msgspec.ValidationError as error:
        raise ValueError(_explained(str(error), values)) from error
    except UnicodeEncodeError as error:
        raise ValueError(_half(error)) from error
    for place, name, names in _unknown(values, record, "$"):
        raise ValueError(f"{place} has a field {name!r}, which is unknown; {nearest(name, names)}")
    return record


def _half(error: UnicodeEncodeError) -> str:
    return f"its text holds {error.object[error.start]!a}, half of a character, expected whole ones"


def _unknown(values: Any, record: Any, place: str) -> Iterator[tuple[str, str, list[str]]]:
    """(place, field, fields that there may be) of what plain values hold beyond the record that they gave."""
    if values is record:
        return
    if is_dataclass(record):
        names = [f.name for f in fields(record)]
        yield from ((place, key, names) for key in values if key not in names)
        for key in values:
            yield from _unknown(values[key], getattr(record, key, values[key]), f"{place}.{key}")
    elif isinstance(record, tuple):
        for i, (value, part) in enumerate(zip(values, record, strict=True)):
            yield from _unknown(value, part, f"{place}[{i}]")
    elif isinstance(record, dict):
        for (key, value), part in zip(values.items(), record.values(), strict=True):
            yield from _unknown(value, part, f"{place}[{key!r}]")


def _explained(message: str, values: Any) -> str:
    """An error of msgspec's in our words: the place, what was found there, what was expected.

    The message may quote text of the document, which may look like a place: the last one counts, and what leads nowhere
    is left in msgspec's words.
    """
    what, mark, place = message.rpartition(" - at `")
    if not mark:
        what, place = message, ""
    if place.startswith("key` in"):
        return f"a key of {place.removeprefix('key` in `').rstrip('`')} is text, expected a whole number"
    places = list(_followed(values, _STEP.findall(place.removeprefix("$").rstrip("`")), "$")) or [("$", values)]
    if missing := _MISSING.match(what):
        place = next((p for p, v in places if isinstance(v, dict) and missing[1] not in v), places[0][0])
        return f"{place} has no field {missing[1]!r}, expected one"
    if what.startswith("Invalid enum value"):
        place, value = places[0]
        return f"{place} is {shown(value)}, expected one of the values that docs/files.md lists"
    if not (types := _EXPECTED.match(what)):
        return what if places[0][0] == "$" else f"{places[0][0]}: {what}"
    expected, length, got, count = types.groups()
    words = " or ".join(TYPES.get(name, name) for name in expected.split(" | "))
    if length:
        place = next((p for p, v in places if isinstance(v, list) and len(v) == int(count)), places[0][0])
        found, words = f"holds {int(count):,}", f"{words} of {int(length):,}"
    else:
        place, value = next(((p, v) for p, v in places if _JSON.get(type(v)) == got), places[0])
        found = f"is {shown(value)}"
    return f"{place} {found}, expected {words}"


def _followed(value: Any, steps: list[tuple[str, str, str]], place: str) -> Iterator[tuple[str, Any]]:
    """(place, value) wherever the steps of one of msgspec's places lead, in which `[...]` is any key."""
    if not steps:
        yield place, value
        return
    (name, index, _), *rest = steps
    if name and isinstance(value, dict) and name in value:
        yield from _followed(value[name], rest, f"{place}.{name}")
    elif index and isinstance(value, list) and int(index) < len(value):
        yield from _followed(value[int(index)], rest, f"{place}[{index}]")
    elif not (name or index) and isinstance(value, dict):
        for key, part in value.items():
            yield from _followed(part, rest, f"{place}[{key!r}]")


def shown(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 20]}…{text[-12:]}"
