"""Typed documents: each comes back as it was, is written as it always was, and what is damaged is named in one way."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedx import documents
from embedx.annotation.images import Decision, GroupLabel
from embedx.data.download.fetch import KIND as PART
from embedx.data.download.fetch import Served
from embedx.data.download.place import KIND as COMPLETE
from embedx.data.download.place import Done
from embedx.documents import ABSENT, Absent, Kind, built, decoded, plain
from embedx.errors import ResultsError, SpuriosityError
from embedx.evaluation import saved
from embedx.probes import Supervision
from embedx.repair.groups.settings import GroupRepairSettings
from embedx.repair.settings import RepairSettings
from embedx.spuriosity.annotations import Annotation, Said
from embedx.spuriosity.annotations.validations import Validation
from embedx.spuriosity.annotations.votes import Vote
from embedx.spuriosity.records.gaps import Document as GapsDocument
from embedx.spuriosity.records.panel import ONE
from embedx.spuriosity.records.sensitivity import KIND as SENSITIVITY
from embedx.spuriosity.records.tunings import KIND as TUNING

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("docs_files", ROOT / "docs" / "files.py")
assert _spec and _spec.loader
docs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(docs)
KINDS: dict[str, Kind[Any]] = {kind.file: kind for kind in docs.kinds()}
ANY = "anything"

VOTE = Vote("ann", "background", 4, "note", 1.5)
FIXED = {
    Annotation: dataclasses.replace(
        Annotation("d", "b", "w", 0, "cat", 2, "unsure", "local", "n1", 1, 0.5).voted([VOTE]),
        withdrawn=("bob",),
        said=Said("core", "", "auto:mask"),
    ),
    saved.Document: {"dataset": "pets", "backbone": "b", "classes": ("cat", "dog")},
    GroupRepairSettings: GroupRepairSettings(),
    RepairSettings: RepairSettings(),
    Supervision: {"source": "by hand"},
    Said: Said("core", "", "auto:mask"),
    Decision: Decision("d", "x.jpg", "cat", "ann", "label error", "dog", "note", 1.5),
    GroupLabel: GroupLabel("d", "x.jpg", "ground", "ann", "water", 1.5),
    Validation: Validation("d", "b", "w", 0, "cat", 2, "ann", "same", ("x.jpg",), 4, "note", 1.5),
    Vote: VOTE,
}
"""Records whose values have to fit each other: one of them, or those fields that have to."""


@cache
def small(kind: Any) -> Any:  # noqa: PLR0911  one for each kind of type
    """One value of a type, of a single entry wherever there may be many."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        given = FIXED.get(typing.cast("type[Any]", kind), {})
        if not isinstance(given, dict):
            return given
        fields = {name: small(of) for name, of in typing.get_type_hints(kind).items()}
        return typing.cast("type[Any]", kind)(**fields | given)
    if origin in (typing.Union, types.UnionType):
        return small(next(p for p in parts if p not in (type(None), Absent)))
    if origin is Literal:
        return parts[0]
    if origin is tuple:
        return (small(parts[0]),) * (1 if parts[-1] is ... else len(parts))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return {ANY if parts[1] is Any else small(parts[0]): small(parts[1])}
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return next(iter(kind))
    return {str: "a", int: 1, float: 0.5, bool: True, Any: 1}[kind]


def drawn(kind: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911
    """Values of a type; of few entries, as the records are deep."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        given = FIXED.get(typing.cast("type[Any]", kind), {})
        if not isinstance(given, dict):
            return st.just(given)
        of = {name: drawn(hint) for name, hint in typing.get_type_hints(kind).items()}
        fixed = {name: st.just(value) for name, value in given.items()}
        return st.builds(kind, **of | ({"collisions": st.just(())} if kind is GapsDocument else {}) | fixed)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(drawn, parts))
    if origin is Literal:
        return st.sampled_from(parts)
    if origin is tuple:
        part = drawn(parts[0])
        return st.lists(part, max_size=2).map(tuple) if parts[-1] is ... else st.tuples(*[part] * len(parts))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return st.dictionaries(drawn(parts[0]), drawn(parts[1]), max_size=2)
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    leaves = {str: st.text(max_size=9), int: st.integers(), float: finite, bool: st.booleans()}
    leaves |= {type(None): st.none(), Absent: st.just(ABSENT)}
    anything = st.recursive(
        st.one_of(st.none(), leaves[bool], leaves[int], finite, leaves[str]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(leaves[str], inner, max_size=2),
        max_leaves=3,
    )
    return leaves.get(kind, anything)


def document(kind: Kind[Any]) -> dict[str, Any]:
    return json.loads(kind.text(small(kind.type)))


@pytest.mark.parametrize("file", KINDS)
def test_every_record_comes_back_and_is_written_as_the_standard_library_would(file: str) -> None:
    kind = KINDS[file]

    @settings(max_examples=15)
    @given(drawn(kind.type) | st.just(small(kind.type)))
    def check(record: Any) -> None:
        text = kind.text(record)
        back = kind.parse(text.encode(), file)
        assert back == record and type(back) is kind.type and kind.text(back) == text
        fields = {k: v for k, v in dataclasses.asdict(record).items() if v is not ABSENT}
        assert text == json.dumps(kind.marks | fields, indent=kind.indent, ensure_ascii=kind.ascii) + "\n"

    check()


def refused(kind: Kind[Any], text: str | bytes) -> str:
    """The one error, checked for what all of them have, without where and advice."""
    with pytest.raises(kind.error) as caught:
        kind.parse(text, "WHERE")
    message = str(caught.value)
    assert message.startswith("WHERE: ") and message.endswith(f"; {kind.advice}") and "\n" not in message
    return message.removeprefix("WHERE: ").removesuffix(f"; {kind.advice}")


TEXTS = {
    "nothing": ("", "it is no JSON (Expecting value at line 1, column 1), expected an object"),
    "truncated": ('{"a": 1, "b"', "it is no JSON (Expecting ':' delimiter at line 1, column 13), expected an object"),
    "a list": ("[]", "$ is a list, expected an object"),
    "text": ('"x"', "$ is text, expected an object"),
    "null": ("null", "$ is null, expected an object"),
    "no UTF-8": (b'{"a": "\xff"}', "it is no UTF-8 (invalid start byte at byte 8), expected JSON"),
    "nested": ('{"a":' * 100_000, "it is nested too deeply"),
    "twice": ('{"a": {"b": 1, "b": 2}}', "'b' is there twice, expected every key once"),
    "NaN": ('{"a": NaN}', "NaN is among its numbers, expected finite ones"),
    "too large": ('{"a": [1e999]}', "1e999 is among its numbers, expected finite ones"),
}


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize("file", KINDS)
def test_what_is_no_document_is_refused(file: str, case: str) -> None:
    text, message = TEXTS[case]
    assert refused(KINDS[file], text) == message


@pytest.mark.parametrize("file", KINDS)
def test_another_format_or_version_is_refused(file: str) -> None:
    kind = KINDS[file]
    good = document(kind)
    if kind.format:
        assert refused(kind, json.dumps(good | {"format": "x"})) == f'$.format is "x", expected "{kind.format}"'
    for version in (kind.version + 1, kind.version - 9, True, str(kind.version), None) if kind.version else ():
        message = refused(kind, json.dumps(good | {kind.key: version}))
        assert message.startswith(f"$.{kind.key} is {json.dumps(version)}, expected {kind.version}")
        assert ("a newer embedx wrote" in message) == (version == kind.version + 1)
    for key in kind.marks:
        lacking = {k: v for k, v in good.items() if k != key}
        if kind.unmarked is None or len(kind.marks) > 1:
            assert refused(kind, json.dumps(lacking)).startswith(f"$.{key} is not there, expected ")


@pytest.mark.parametrize("file", KINDS)
def test_fields_that_are_missing_or_unknown_are_named(file: str) -> None:
    kind = KINDS[file]
    good = document(kind)
    assert refused(kind, json.dumps(good | {"odd": 1})).startswith("$ has a field 'odd', which is unknown; ")
    for f in dataclasses.fields(kind.type):
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            lacking = {k: v for k, v in good.items() if k != f.name}
            assert refused(kind, json.dumps(lacking)) == f"$ has no field {f.name!r}, expected one"


def places(value: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """(place, holder, key) of everything inside plain values that has a type."""
    for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if key == ANY:
            continue
        here = f"{place}[{key}]" if isinstance(value, list) else f"{place}.{key}"
        yield here, value, key
        if isinstance(part, dict | list):
            yield from places(part, here)


@pytest.mark.parametrize("file", KINDS)
def test_a_value_of_another_type_is_named_with_its_place(file: str) -> None:
    kind, good = KINDS[file], document(KINDS[file])
    checked = 0
    for place, holder, key in places(good, "$"):
        if key in kind.marks and holder is good:
            continue
        before, wrong = holder[key], 3 if isinstance(holder[key], dict) else {"odd": 1}
        holder[key] = wrong
        message = refused(kind, json.dumps(good))
        holder[key] = before
        at, _, rest = message.partition(" is ")
        assert at.replace("['", ".").replace("']", "") == place and ", expected " in rest
        assert rest.startswith(json.dumps(wrong))
        checked += 1
    assert checked >= len(dataclasses.fields(kind.type))


@pytest.mark.parametrize("file", KINDS)
def test_a_file_that_is_not_there_or_too_large_is_refused(file: str, tmp_path: Path) -> None:
    kind, path = KINDS[file], tmp_path / "it.json"
    with pytest.raises(kind.error, match=f"it.json does not exist; make it with `{kind.command}`"):
        kind.read(path)
    with path.open("wb") as huge:
        huge.truncate(documents.LARGEST + 1)  # takes no room
    with pytest.raises(kind.error, match="it.json has 1,073,741,825 bytes, expected at most 1,073,741,824; "):
        kind.read(path)
    kind.write(path, small(kind.type))
    assert kind.read(path) == small(kind.type)


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Part:
    size: int | float


@dataclass(frozen=True)
class Whole:
    parts: Mapping[str, Part]
    pair: tuple[float, float] = (0.0, 1.0)
    rule: Literal["all", "most"] = "all"
    colour: Colour | None = None
    places: Mapping[int, str] | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("it has no parts")


STEPS = {1: lambda old: {"pieces": old["parts"]}, 2: lambda old: {"parts": {k: {"size": v} for k, v in old["pieces"]}}}
THIRD = Kind(Whole, "whole.json", "embedx whole", ResultsError, "embedx-whole", 3, steps=STEPS, unmarked=1)


def test_earlier_versions_are_brought_up_to_date() -> None:
    expected = Whole({"a": Part(1)}, colour=Colour.RED)
    assert THIRD.parse(THIRD.text(expected), "x") == expected
    expected = Whole({"a": Part(1)})
    new = {"format": "embedx-whole", "version": 3, "parts": {"a": {"size": 1}}}
    for old in (new, {"parts": [["a", 1]]}, new | {"version": 1, "parts": [["a", 1]]},
                {"format": "embedx-whole", "version": 2, "pieces": [["a", 1]]}):  # fmt: skip
        assert THIRD.parse(json.dumps(old), "x") == expected
    assert THIRD.parse(json.dumps(new).encode("utf-8-sig"), "x") == expected  # as some editors save it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"parts": {"a": {"size": 1}, "b c": {"size": "2"}}},
            """$.parts['b c'].size is "2", expected a whole number""",
        ),
        ({"parts": {"a": {"size": 1}, "b": {}}}, "$.parts['b'] has no field 'size', expected one"),
        ({"parts": {"a": {"sise": 1, "size": 1}}}, "$.parts['a'] has a field 'sise', which is unknown; did you mean"),
        ({"parts": {}}, "it has no parts"),
        ({"pair": [1, 2, 3]}, "$.pair holds 3, expected a list of 2"),
        ({"rule": "some"}, '$.rule is "some", expected one of the values that docs/files.md lists'),
        ({"colour": "blue"}, '$.colour is "blue", expected one of the values that docs/files.md lists'),
        ({"places": {"x": "y"}}, "a key of $.places is text, expected a whole number"),
        ({"pair": "x" * 99}, f'$.pair is "{"x" * 39}…{"x" * 11}", expected a list'),
    ],
)
def test_the_place_is_found_where_msgspec_does_not_name_it(changes: dict[str, Any], message: str) -> None:
    good = THIRD.marks | {"parts": {"a": {"size": 1}}}
    assert refused(THIRD, json.dumps(good | changes)).startswith(message)


def test_what_json_has_no_word_for_is_never_written() -> None:
    for value in (np.float32(1), np.int64(1), np.ones(2), float("nan"), float("inf"), {1}, object()):
        with pytest.raises(ValueError, match="is no plain JSON, expected text and finite numbers"):
            plain({"a": [value]})
    assert plain({"a": (np.float64(0.1), True)}) == {"a": [0.1, True]}
    assert decoded('{"a": [1, 2.5, "x", null]}') == {"a": [1, 2.5, "x", None]}
    with pytest.raises(ValueError, match=r"\$\.size is true, expected a whole number or a number"):
        built({"size": True}, Part)


def test_files_of_earlier_versions_are_read() -> None:
    """As they were written, and what they did not say."""
    old = '{\n  "a.zip": {\n    "size": 3,\n    "sha256": "ab",\n    "files": 2\n  }\n}\n'
    assert COMPLETE.parse(old, "x").items == {"a.zip": Done(3, "ab", 2)} and COMPLETE.parse("{}", "x").items == {}
    assert PART.parse('{"etag": "e", "total": 7}', "x") == Served("e", "", 7)
    panel = """{"label": 0, "class_name": "zero", "feature": 127, "rank": 1, "importance": 2.0, "share": 0.1,
        "gap": {"value": 0.08, "low": -0.1, "high": 0.3, "n": 25}, "n": 240, "mean": 0.9, "edges": [0.0, 0.1],
        "counts": [3], "elsewhere": ["four"], "shots": [{"id": "a", "end": "most", "activation": 1.5, "image": "i.jpg",
        "overlay": "o.jpg", "attack": null, "attacked": null}], "histogram": "h.svg", "sheet": "p/s.jpg",
        "identity": "12"}"""
    read = ONE.parse(panel, "x")
    assert read.identity == "12" and read.shots[0].attacked is None and read.gap and read.gap.n == 25
    sensitivity = """{"format": "embedx-sensitivity", "version": 1, "dataset": "d", "backbone": "b", "weights": "w",
        "settings": {"images": 4}, "found": [{"model": "b=plain", "label": 0, "class_name": "zero", "feature": 3,
        "role": "core", "kind": "gray", "before": 1.0, "after": 0.5, "drop": {"value": 0.5, "low": 0.1, "high": 0.8,
        "n": 4}, "relative": null, "area": 0.25}]}"""
    assert SENSITIVITY.parse(sensitivity, "x").pairs == ""
    tuning = document(TUNING)
    for name in ("ranked_by", "set_aside", "rivals", "recovery"):
        del tuning["models"][0][name]
    for name in ("answered", "right", "controls"):
        del tuning["models"][0]["results"][0]["detail"][name]
    del tuning["ranking"], tuning["models"][0]["options"]["others"]
    first = TUNING.parse(json.dumps(tuning), "x")
    assert first.ranking is None and first.models[0].ranked_by == "" and first.models[0].options.others
    with pytest.raises(SpuriosityError, match="collisions of 1 models, gaps of 2"):
        gaps = document(KINDS["gaps.json"])
        KINDS["gaps.json"].parse(json.dumps(gaps | {"models": gaps["models"] * 2}), "x")


def test_the_page_of_files_is_up_to_date_and_says_what_every_field_means() -> None:
    page = docs.FILE.read_text(encoding="utf-8")
    assert page == docs.text(), "run `python docs/files.py`"
    for kind in KINDS.values():
        assert f"## `{kind.file}`" in page and all(f"`{k}` {json.dumps(v)}" in page for k, v in kind.marks.items())
        for record in docs.records(kind.type):
            assert not [name for name, meaning in docs.meanings(record).items() if not meaning], record
    assert len({k.format for k in KINDS.values() if k.format}) == len([k for k in KINDS.values() if k.format])


DIGEST, SHOWN, FOREIGN = "text that is digested", "text that a person reads", "JSON of somebody else"
JSON = {
    "documents.py": "the one reader and writer",
    "data/manifest/by_hand.py": SHOWN, "cli/show.py": SHOWN, "store/header.py": "an attribute of HDF5",
    "extract/pretrain.py": "a note inside a weights file, which is never read", "datasets/_fields.py": FOREIGN,
    "data/manifest/table.py": DIGEST, "evaluation/finished_runs.py": DIGEST, "plugins/outside.py": DIGEST,
    "spuriosity/records/ranking.py": DIGEST, "spuriosity/panels.py": DIGEST, "spuriosity/corrupt.py": DIGEST,
    "studies/engine/conduct.py": DIGEST, "extract/graded.py": DIGEST,
    "extract/pretrain_signals.py": "a note inside a weights file, which is never read", "studies/engine/page.py": SHOWN,
    "spuriosity/masks.py": DIGEST, "spuriosity/publishing/mask_files.py": DIGEST,
    "spuriosity/publishing/croissant.py": "a format of others", "spuriosity/publishing/card.py": SHOWN,
}  # fmt: skip
"""Files that may use the module json, and what for."""


def test_json_is_read_and_written_in_one_place() -> None:
    found = {}
    for path in sorted((ROOT / "embedx").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "json" in text or "msgspec" in text else ():
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {"json", "msgspec"} & set(names):
                found[path.relative_to(ROOT / "embedx").as_posix()] = path
    assert set(found) == set(JSON)
    for name, reason in JSON.items():
        called = {
            node.func.attr for node in ast.walk(ast.parse(found[name].read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name) and node.func.value.id == "json"
        }  # fmt: skip
        assert called <= {"dumps"} or reason not in (DIGEST, SHOWN), name


@pytest.mark.parametrize("file", [file for file, kind in KINDS.items() if kind.steps])
def test_what_is_damaged_in_an_earlier_version_is_refused_in_words(file: str) -> None:
    """A step takes an old document as it is: whatever is wrong with it gives the one error, never another."""
    kind = KINDS[file]
    values = {key: value for key, value in document(kind).items() if key not in kind.marks}
    for version in kind.steps:
        old = {} if version == kind.unmarked else kind.marks | {kind.key: version}
        damaged = [{}, *({k: v for k, v in values.items() if k != lost} for lost in values)]
        damaged += [values | {name: odd} for name in values for odd in (None, 3, "x", [3], [{}], ["x"], {"x": 3})]
        for some in damaged:
            try:
                kind.parse(json.dumps(old | some), "x")
            except kind.error as error:
                assert str(error).startswith("x: ") and str(error).endswith(kind.advice)
