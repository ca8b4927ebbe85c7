"""Plug-ins from the working folder: they and their helpers are imported, nothing else is, and their code is a key."""

import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killing import write_images

from embedx import plugins
from embedx.errors import UnknownName
from embedx.evaluation.finished_runs import code
from embedx.evaluation.heads import load_head
from embedx.extract import load_backbone
from embedx.plugins import outside
from embedx.plugins.outside import PLUGINS, closed_folder, digest

HEAD = "from embedx.probes.plain import Plain\nimport helper\nclass MyHead(Plain):\n    strength = helper.STRENGTH\n"
BACKBONE = """
from dataclasses import replace
from embedx.extractors import raw
import helper

def models():
    return ("grid",)

def load(model, weights=None):
    return replace(raw.load("2x2"), model=model, feature=f"times {helper.STRENGTH}")
"""
TRAPS = ("pytz", "numexpr", "bottleneck", "psutil", "signal", "socket", "random", "tempfile", "logging", "lz4", "click")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(PLUGINS, "modules", {})
    monkeypatch.setattr(PLUGINS, "handed", False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in f"{getattr(sys.modules[name], '__file__', '')}{getattr(sys.modules[name], '__path__', '')}":
            del sys.modules[name]


def write(folder: Path, **files: str) -> None:
    """`a__b="..."` is the file a/b.py."""
    for name, text in files.items():
        path = folder.joinpath(*name.split("__DIR__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def forget(*names: str) -> None:
    for name in names:
        sys.modules.pop(name, None)


def test_a_plug_in_and_its_helpers_are_imported_and_nothing_else(folder):
    write(
        folder, my_head=HEAD, helper="import second\nSTRENGTH = second.N\n", bystander="raise AssertionError",
        second="N = 3\ndef late():\n    import third\n    return third.N\n", third="N = 4\n",
    )  # fmt: skip
    (folder / "numexpr").mkdir()
    assert load_head("py:my_head").strength == 3
    assert sys.modules["second"].late() == 4  # imported after the plug-in was loaded
    assert str(folder) not in sys.path and "" not in sys.path
    for name in ("bystander", "numexpr"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    assert not list(folder.rglob("*.pyc"))


def test_a_folder_of_images_is_no_package_even_for_a_plug_in(folder):
    write(folder, my_head="try:\n    import photographs\nexcept ImportError:\n    photographs = None\n")
    (folder / "photographs").mkdir()
    assert plugins.load(plugins.HEADS, "py:my_head").photographs is None


@pytest.mark.parametrize(
    "line",
    [
        "from pkg import part", "import pkg.part", "from pkg.part import N", "import pkg; from pkg import *",
        "import importlib; part = importlib.import_module('pkg.part')", "__import__('pkg.part')",
        "import pkg.dynamic", "import bare.part", "from bare import part", "def f():\n    import pkg.part",
        "import pkg.relative", "if False:\n    import pkg.part",
    ],
)  # fmt: skip
def test_packages_and_every_way_to_import(folder, line):
    """The module is importable, and changing it changes the digest; changing what stands beside does not."""
    write(
        folder, tool=line + "\n", pkg__DIR____init__="__all__ = ['part']\n", pkg__DIR__part="N = 1\n",
        bare__DIR__part="N = 1\n", pkg__DIR__relative="from . import part\nfrom .part import N\n", unused="N = 1\n",
        pkg__DIR__dynamic="import importlib\nfor n in ['part']:\n    importlib.import_module('pkg.' + n)\n",
    )  # fmt: skip
    plugins.load(plugins.HEADS, "py:tool")
    part = "bare.part" if "bare" in line else "pkg.part"
    assert importlib.import_module(part).N == 1
    before = digest("tool")
    assert before == digest("tool")
    found = []
    for name in ("unused", part.replace(".", "__DIR__")):
        forget("tool", *(n for n in sys.modules if n.startswith(("pkg", "bare"))))
        write(folder, **{name: "N = 2\n"})  # of the same length, within the same second
        plugins.load(plugins.HEADS, "py:tool")
        found.append(digest("tool"))
    assert found[0] == before != found[1]
    assert importlib.import_module(part).N == 2


def test_installed_modules_come_first_and_libraries_are_no_part_of_the_digest(folder):
    write(folder, json="raise AssertionError", tool="import json, numpy, embedx.probes.plain\n")
    assert plugins.load(plugins.HEADS, "py:json") is sys.modules["json"]
    plugins.load(plugins.HEADS, "py:tool")
    assert set(PLUGINS.modules) == {"tool"}
    one = digest("tool")
    forget("tool")
    write(folder, tool="import json, numpy\nimport embedx.probes.plain\n")
    plugins.load(plugins.HEADS, "py:tool")
    assert digest("tool") != one
    with pytest.raises(UnknownName, match="no Python module 'absent' for head 'py:absent'"):
        plugins.load(plugins.HEADS, "py:absent")


def test_what_is_on_pythonpath_is_found_as_python_does_and_counts_too(folder, monkeypatch):
    elsewhere = folder / "elsewhere"
    write(elsewhere, tool="import helper\n", helper="N = 1\n")
    monkeypatch.syspath_prepend(elsewhere)
    plugins.load(plugins.HEADS, "py:tool")
    assert not PLUGINS.modules and sys.modules["tool"].helper.N == 1
    before = digest("tool")
    write(elsewhere, helper="N = 2\n")
    assert digest("tool") != before


def test_a_head_s_key_follows_its_helpers(folder):
    """What came back from finished runs was the figure of another helper."""
    found = []
    for strength in (1, 2, 1):
        forget("my_head", "helper")
        write(folder, my_head=HEAD, helper=f"STRENGTH = {strength}\n")
        kind = load_head("py:my_head")
        assert kind.strength == strength
        found.append(code(kind))
    assert found[0] == found[2] != found[1]


def test_keys_of_heads_cover_what_fitting_imports_and_no_other_head():
    found = outside._Walk(ours=True).all_of("embedx.evaluation.evaluate", "embedx.probes.jtt")
    evaluation = {f"embedx.evaluation.{name}" for name in ("evaluate", "metrics", "selection", "split")}
    heads = {f"embedx.probes.{name}" for name in ("jtt", "_inference", "_solver")}
    assert evaluation | heads | {"embedx.store.reader", "embedx.data.manifest"} <= set(found)
    assert not {"embedx.probes.dfr", "embedx.cli", "embedx.report"} & set(found)
    one = outside._Walk(ours=True).all_of("embedx.probes.Prompts")  # by the face, whose stub says where it comes from
    assert "embedx.probes._prompts" in one and "embedx.probes._solver" not in one
    kinds = [load_head(name) for name in ("jtt", "dfr")]
    assert len({code(kind) for kind in kinds}) == 2


def test_a_backbone_s_identity_follows_its_code(folder):
    nothing = load_backbone("raw:2x2")
    assert "code" not in nothing.identity  # caches of the families that come along stay what they are
    found = []
    for strength in (1, 2):
        forget("my_backbone", "helper")
        write(folder, my_backbone=BACKBONE, helper=f"STRENGTH = 1  # or {strength}\n")
        found.append(load_backbone("py:my_backbone:grid"))
    one, two = (b.identity for b in found)
    assert {k for k in one if one[k] != two[k]} == {"code", "weights"}
    assert nothing.weights not in (one["weights"], two["weights"])  # not the digest of nothing


def test_a_cache_by_other_code_is_not_complete(folder):
    from click.testing import CliRunner

    from embedx.cli import main

    write_images(folder / "pets", 4)
    words = ["extract", "pets=folder", "--root", "pets", "-b", "g=py:my_backbone:grid", "--workers", "0"]
    said = []
    for strength in (1, 1, 2):
        forget("my_backbone", "helper")
        write(
            folder, my_backbone=BACKBONE.replace('f"times {helper.STRENGTH}"', '"x"'), helper=f"STRENGTH = {strength}\n"
        )
        said.append(CliRunner().invoke(main, words))
    assert [r.exit_code for r in said] == [0, 0, 1], said[2].output
    assert "complete already" in said[1].output
    assert "was made differently: code is" in said[2].output


@pytest.mark.slow
def test_another_process_gets_the_bytes_that_were_read(folder):
    write(folder, my_head=HEAD, helper="STRENGTH = 1\n")
    kind = load_head("py:my_head")
    sent = pickle.dumps((PLUGINS, kind))
    write(folder, my_head="raise AssertionError", helper="raise AssertionError", pickle="raise AssertionError")
    line = (
        "import sys, pickle; _, kind = pickle.load(sys.stdin.buffer); "
        "from embedx.evaluation.finished_runs import code; print(kind.strength, code(kind)); "
        "import importlib.util; print(importlib.util.find_spec('bystander'))"
    )
    with closed_folder():
        done = subprocess.run([sys.executable, "-c", line], input=sent, capture_output=True, check=False)
    assert done.stdout.decode().split() == ["1", code(kind), "None"], done.stderr.decode()
    assert "PYTHONSAFEPATH" not in os.environ


@pytest.fixture
def trapped(tmp_path):
    """A folder of data in which any of these being imported leaves a mark."""
    for name in TRAPS:
        write(tmp_path, **{name: f"import pathlib\npathlib.Path({str(tmp_path)!r}, 'EXECUTED-{name}').touch()\n"})
    (tmp_path / "xarray").mkdir()
    return tmp_path


def embedx(folder, *words):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONSAFEPATH", "PYTHONPATH")}
    line = [sys.executable, "-m", "embedx", *words]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(folder.glob("EXECUTED*"))
    return done.stdout


def test_nothing_in_a_folder_of_data_is_executed(trapped):
    assert "group-balanced" in embedx(trapped, "list", "heads")


@pytest.mark.slow
def test_nothing_in_a_folder_of_data_is_executed_by_any_process(trapped):
    """Processes that extract, that decode and that fit, and Ray's, with plug-ins from the folder in each of them."""
    write(trapped, my_backbone=BACKBONE, my_head=HEAD, helper="STRENGTH = 1\n")
    rng = np.random.default_rng(0)
    from PIL import Image

    for split in ("train", "val", "test"):
        for label in ("cat", "dog"):
            (trapped / "pets" / split / label).mkdir(parents=True)
            for i in range(8):
                Image.fromarray(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(
                    trapped / "pets" / split / label / f"{i}.png"
                )
    extract = ("extract", "pets=folder", "--root", "pets")
    embedx(
        trapped, *extract, "-b", "a=py:my_backbone:grid", "--device", "cpu,cpu", "--workers", "2", "--shard-rows", "9"
    )
    embedx(trapped, *extract, "-b", "b=py:my_backbone:grid", "--engine", "ray")
    shown = embedx(trapped, "compare", "pets", "-b", "a", "-b", "b", "--head", "plain", "--head", "py:my_head",
                   "--jobs", "2")  # fmt: skip
    assert shown.count("py:my_head") == 2
