"""A study as its TOML file says it: checked as a whole, before any work, each error with its line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedx import plugins
from embedx.documents import built
from embedx.errors import StudyError
from embedx.studies.engine.checks import problems
from embedx.studies.engine.lines import line_of, place_and_words
from embedx.studies.study import Study
from embedx.workspace import Workspace

FOLDER = Path(__file__).parents[1]
"""Where the studies lie that ship."""
EXAMPLE = Path(__file__).parent / "example.toml"
"""A commented study to start from."""


def names() -> tuple[str, ...]:
    """The studies that ship."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def read(
    study: str, *, small: bool = False, plugins_allowed: bool = False, workspace: Workspace | None = None
) -> Study:
    """A study that ships, by its name, or that of a TOML file.

    small            in its reduced form
    plugins_allowed  whether the file may name plug-ins outside the tree, whose code would run
    workspace        whose prepared datasets may be named as well

    Raises `StudyError` for a file that is missing or damaged, and for whatever in it cannot be, with its line.
    """
    path = _path(study)
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text)
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({error.strerror}); name a TOML file, or one of: {_list()}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StudyError(f"{path} is no TOML: {error}; `embedx study --init` writes an example") from error
    forms = {"": values} | ({"small": _merged(values, values["small"])} if "small" in values else {})
    studies = {form: _checked(path, text, form, asked, plugins_allowed, workspace) for form, asked in forms.items()}
    if small and "small" not in studies:
        raise StudyError(f"{path} has no table [small], which says what the reduced form is; leave --small out")
    return studies["small" if small else ""]


def _checked(
    path: Path, text: str, form: str, values: Mapping[str, Any], plugins_allowed: bool, workspace: Workspace | None
) -> Study:
    """A study in one form, whose keys may stand in the table of that form."""
    try:
        study = replace(built(_with_underscores(values), Study), name=path.stem)
    except ValueError as error:
        keys, words = place_and_words(str(error))
        raise StudyError(f"{path}, line {line_of(text, keys, form)}: {words}") from error
    for keys, problem in problems(study, plugins_allowed, workspace or Workspace()):
        raise StudyError(f"{path}, line {line_of(text, keys, form)}: {problem}")
    return study


def _path(study: str) -> Path:
    if study in names():
        return FOLDER / f"{study}.toml"
    if study.endswith(".toml") or "/" in study:
        return Path(study)
    raise StudyError(f"unknown study {study!r}: {plugins.nearest(study, names())}; or name a file that ends in .toml")


def _list() -> str:
    return ", ".join(names())


def _with_underscores(values: Mapping[str, Any]) -> dict[str, Any]:
    """`select-by`, as it is written on the command line, is the field `select_by`."""

    def renamed(table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        return {"select_by" if key == "select-by" else key: value for key, value in table.items()}

    whole = renamed(dict(values))
    if isinstance(whole.get("datasets"), dict):
        whole["datasets"] = {key: renamed(table) for key, table in whole["datasets"].items()}
    return whole


def _merged(values: Mapping[str, Any], small: Any) -> dict[str, Any]:
    """The keys of `small` in the place of others; tables are merged, an empty one is taken out."""
    merged = dict(values)
    if not isinstance(small, dict):
        return merged
    for key, value in small.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            if value:
                merged[key] = _merged(merged[key], value)
            else:
                del merged[key]
        else:
            merged[key] = value
    return merged
