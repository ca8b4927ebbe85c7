"""Plug-ins: a public file is one, its name is the file's name, and nothing is imported before it is asked for."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedx import plugins
from embedx.errors import UnknownName
from embedx.plugins import BACKBONES, DATASETS, HEADS, Kind, load, names, nearest, summary

ROOT = Path(plugins.__file__).parents[2]
KINDS = [BACKBONES, HEADS, DATASETS]


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A package of plug-ins, outside the tree, that may hold anything."""
    folder = tmp_path / "zoo_of_plugins"
    folder.mkdir()
    files = {
        "__init__": "",
        "_private": "",
        "big_cat": '"""Big cats.\n\nAnd more."""\nname = __name__\n',
        "broken": '"""Breaks on import."""\nraise RuntimeError("imported")\n',
        "needy": "import no_such_dependency\n",
        "own": "import zoo_of_plugins.own_missing\n",
        "silent": "x = 1\n",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield Kind("animal", folder.name)
    for name in [m for m in sys.modules if m.partition(".")[0] == folder.name]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", KINDS)
def test_every_public_file_is_a_plugin_under_its_own_name(kind):
    files = [p.stem for p in (ROOT / kind.package.replace(".", "/")).glob("*.py") if not p.name.startswith("_")]
    assert files
    assert list(names(kind)) == sorted(f.replace("_", "-") for f in files)
    for name in names(kind):
        assert load(kind, name).__name__ == f"{kind.package}.{name.replace('-', '_')}"
        assert summary(kind, name) == load(kind, name).__doc__.partition("\n")[0] != ""


def test_a_new_file_is_a_new_plugin(zoo, tmp_path):
    assert names(zoo) == ("big-cat", "broken", "needy", "own", "silent")
    (tmp_path / zoo.package / "sea_lion.py").write_text("")
    assert "sea-lion" in names(zoo)
    assert load(zoo, "big-cat").name == f"{zoo.package}.big_cat"


def test_names_and_summaries_import_nothing(zoo):
    assert [summary(zoo, name) for name in names(zoo)] == ["Big cats.", "Breaks on import.", "", "", ""]
    assert {m for m in sys.modules if m.startswith(zoo.package)} <= {zoo.package}
    with pytest.raises(RuntimeError, match="imported"):  # it would have been noticed
        load(zoo, "broken")


@pytest.mark.parametrize("name", ["big-cut", "big_cat", "bigcat", "big-cats"])
def test_an_unknown_name_answers_with_the_nearest(zoo, name):
    with pytest.raises(UnknownName, match=rf"^unknown animal '{name}': did you mean 'big-cat'\? known: big-cat, brok"):
        load(zoo, name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_knows_its_own_misspelt_names(kind):
    for name in names(kind):
        with pytest.raises(UnknownName, match=rf"unknown {kind.noun} '{name}x': did you mean .*'{name}'") as caught:
            load(kind, f"{name}x")
        known = ", ".join(names(kind)[:20]) + (f" and {len(names(kind)) - 20} more" if len(names(kind)) > 20 else "")
        assert str(caught.value).endswith(f"known: {known}")


def test_private_files_are_no_plugins(zoo):
    for name in ("-private", "_private", "--init--", ""):
        with pytest.raises(UnknownName, match=rf"^unknown animal '{name}'"):
            load(zoo, name)


def test_any_module_outside_can_be_named(zoo):
    assert load(DATASETS, f"py:{zoo.package}.big_cat").name == f"{zoo.package}.big_cat"
    assert load(HEADS, "py:json.decoder") is sys.modules["json.decoder"]


@pytest.mark.parametrize("target", ["no_such", "no_such.deeper", "zoo_of_plugins.lion", "zoo_of_plugins.big_cat.lion"])
def test_a_module_outside_that_does_not_exist(zoo, target):
    with pytest.raises(UnknownName) as caught:
        load(HEADS, f"py:{target}")
    assert (
        str(caught.value)
        == f"no Python module '{target}' for head 'py:{target}': put it on PYTHONPATH or in this folder"
    )


@pytest.mark.parametrize("name", ["py:", "py:.", "py:.big_cat", "py:..zoo"])
def test_a_name_of_no_module_says_how_to_write_one(name):
    with pytest.raises(UnknownName, match=rf"'{name}' names no Python module; write py:package.module"):
        load(HEADS, name)


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        ("needy", ModuleNotFoundError, "no_such_dependency"),
        ("own", ModuleNotFoundError, "own_missing"),
        ("broken", RuntimeError, "imported"),
    ],
)
def test_an_error_inside_a_plugin_is_not_taken_for_its_absence(zoo, module, error, message):
    for kind, name in [(zoo, module), (HEADS, f"py:{zoo.package}.{module}")]:
        with pytest.raises(error, match=message):
            load(kind, name)


def test_nearest_of_none_few_and_many():
    assert nearest("cat", []) == "there are none"
    assert nearest("cat", ["dog"]) == "known: dog"
    assert nearest("cat", {"dog", "bat"}) == "did you mean 'bat'? known: bat, dog"
    assert nearest("cat", ["hat", "bat"]).startswith("did you mean 'hat' or 'bat'? known: bat, hat")
    twenty = [f"n{i:02d}" for i in range(20)]
    assert nearest("?", twenty) == f"known: {', '.join(twenty)}"
    assert nearest("?", [*twenty, "x"]) == f"known: {', '.join(twenty)} and 1 more"


words = st.text("abcde", min_size=1, max_size=6)


@given(words, st.lists(words, unique=True, max_size=40))
def test_nearest_lists_what_there_is_and_guesses_only_from_it(name, known):
    guess, _, listed = nearest(name, reversed(known)).rpartition("known: ")
    first, _, more = listed.partition(" and ")
    if known:
        assert first.split(", ") == sorted(known)[:20]
        assert more == (f"{len(known) - 20} more" if len(known) > 20 else "")
    guesses = guess.removeprefix("did you mean ").removesuffix("? ").split(" or ") if guess else []
    assert len(guesses) <= 3
    assert {g.strip("'") for g in guesses} <= set(known)
    if name in known:
        assert guesses[0] == repr(name)
