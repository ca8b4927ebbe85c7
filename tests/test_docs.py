"""The documentation: its plug-ins work through the commands; its build shows what commands print, and checks it."""

import ast
import importlib
import importlib.util
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from click.testing import CliRunner
from mkdocs.exceptions import PluginError

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.extract import load_backbone
from embedx.plugins.outside import PLUGINS
from embedx.store import FeatureCache

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"


def module(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "_site" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    out = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(out)
    return out


HOOKS, DOCSTRINGS = module("hooks"), module("docstrings")
MyHead = runpy.run_path(str(EXAMPLES / "my_head.py"))["MyHead"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the examples, and a few of the pictures; plug-ins are forgotten afterwards."""
    before = set(sys.modules)
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(PLUGINS, "modules", {})
    monkeypatch.setattr(PLUGINS, "handed", False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    runpy.run_path("make_images.py")
    for picture in sorted(Path("my_images").iterdir(), key=lambda p: p.stem[-2:])[24:]:
        picture.unlink()
    runpy.run_path("make_weights.py")
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def run(*words):
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_the_plug_ins_work_together(folder):
    backbone = "py:my_backbone:resnet18"
    weights = ("--weights", "resnet18.safetensors")
    run("extract", "py:my_dataset", "--root", "my_images", "-b", f"ours={backbone}", *weights, "--batch-size", 8)
    manifest, _ = manifests.load(folder / "cache" / "mine")
    assert manifest.group_names == ("disc/grass", "disc/sea", "ring/grass", "ring/sea")
    cache = FeatureCache.open_complete(folder / "cache" / "mine" / "ours.h5")
    assert not cache.status.any()
    assert "py:my_head" in run("probe", "mine", "-b", "ours", "--head", "py:my_head")
    assert "parity      holds" in run("verify", backbone, *weights)


def test_the_backbone_is_the_network_of_the_file_and_no_other(folder):
    file = folder / "resnet18.safetensors"
    backbone = load_backbone("py:my_backbone:resnet18", file)
    pixels = torch.zeros(1, 224, 224, 3, dtype=torch.uint8) + 90
    network = torchvision.models.resnet18(num_classes=2)
    from safetensors.torch import load_file, save_file

    network.load_state_dict(load_file(file))
    network.eval().fc = torch.nn.Identity()
    colours = (torch.tensor([90 / 255] * 3) - torch.tensor(backbone.mean)) / torch.tensor(backbone.std)
    with torch.inference_mode():
        expected = network(colours[None, :, None, None].expand(1, 3, 224, 224)).numpy()
    np.testing.assert_allclose(backbone.encode(pixels, "cpu"), expected, rtol=1e-4, atol=1e-4)
    state = load_file(file)
    save_file(state | {"fc.bias": state["fc.bias"] + 1}, file)
    assert load_backbone("py:my_backbone:resnet18", file).weights != backbone.weights
    del state["layer1.0.conv1.weight"]
    save_file(state, file)
    for given, message in ((file, r"1 missing \(layer1.0.conv1.weight\)"), (None, "give the file with --weights")):
        with pytest.raises(Exception, match=message):
            load_backbone("py:my_backbone:resnet18", given)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shrinkage", [1.0, 0.3])
def test_the_head_takes_the_nearest_class_as_shrunk_covariance_measures(classes, shrinkage):
    rng = np.random.default_rng(classes)
    y = np.repeat(np.arange(classes), 30)
    X = rng.normal(size=(len(y), 6)) + 2 * rng.normal(size=(classes, 6))[y]
    head = MyHead(shrinkage, standardize=False).fit(X, y, groups=y)
    means = np.stack([X[y == c].mean(0) for c in range(classes)])
    S = np.mean([np.cov(X[y == c].T, bias=True) for c in range(classes)], axis=0)
    S = (1 - shrinkage) * S + shrinkage * np.trace(S) / 6 * np.eye(6)
    new = rng.normal(size=(50, 6))
    apart = new[:, None] - means
    nearest = np.einsum("nkd,de,nke->nk", apart, np.linalg.inv(S), apart).argmin(1)
    np.testing.assert_array_equal(head.predict(new), nearest)


def test_the_head_does_not_mind_how_rare_a_group_is_and_refuses_odd_shrinkage():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 25)
    X, y = rng.normal(size=(100, 5)) + groups[:, None], groups // 2
    often = np.concatenate([np.arange(100), np.tile(np.flatnonzero(groups == 2), 9)])
    one, other = (MyHead(1.0, standardize=False).fit(X[r], y[r], groups=groups[r]) for r in (np.arange(100), often))
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    with pytest.raises(ValueError, match=r"shrinkage must lie above 0 and be at most 1, found 0"):
        MyHead(0.0).fit(X, y, groups=groups)
    with pytest.raises(ValueError, match="MyHead needs the group"):
        MyHead().fit(X, y)


def show(text, page="page.md"):
    HOOKS.outputs.clear()
    (block,) = HOOKS.RUN.finditer(text)
    HOOKS.show(page, 0, block)
    (shown,) = HOOKS.outputs.values()
    return shown


def test_commands_stand_above_what_they_print():
    block = '```sh run expect="two"\necho one; echo took 3 s >&2; echo note: mind >&2\necho \\\n  two\n```'
    expected = (
        "```console\n$ echo one; echo took 3 s >&2; echo note: mind >&2\nnote: mind\none\n\n$ echo \\\n  two\ntwo\n```"
    )
    assert show(block) == expected


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("```sh run\necho lost >&2; false\n```", "page.md: echo lost >&2; false\nlost"),
        ("```sh run\nno-such-command | cat\n```", "no-such-command"),
        ('```sh run expect="one" expect="three"\necho one\n```', "page.md says 'three'"),
        ("```sh run\npwd\n```", "prints the path of the folder"),
    ],
)
def test_a_build_fails_where_a_command_does_or_belies_the_text(block, message):
    with pytest.raises(PluginError, match=re.escape(message)):
        show(block)


@pytest.mark.parametrize(
    ("name", "text", "ok"),
    [
        ("a.html", '<img src="b.png"><a href="https://example.org">source</a>', True),
        ("a.html", '<script async src="https://example.org/a.js"></script>', False),
        ("a.html", '<link rel="stylesheet" href=//example.org/a.css>', False),
        ("a.svg", '<svg xmlns="http://www.w3.org/2000/svg"><path/></svg>', True),
        ("a.css", "/* https://example.org */ a { background: url(b.png) }", True),
        ("a.css", '@import "https://example.org/a.css";', False),
        ("a.css", "a { background: url(http://example.org/b.png) }", False),
    ],
)
def test_pages_load_nothing_from_another_host(tmp_path, name, text, ok):
    (tmp_path / name).write_text(text)
    if ok:
        HOOKS.on_post_build({"site_dir": str(tmp_path)})
        return
    with pytest.raises(PluginError, match=f"{name} loads from another host"):
        HOOKS.on_post_build({"site_dir": str(tmp_path)})


def test_links_hold_within_the_site_and_within_the_repository():
    place = HOOKS.PurePosixPath
    assert HOOKS.within("../cache/README.md", place("docs")) == "cache.md"
    assert HOOKS.within("../docs/verdict.md", place("probes")) == "verdict.md"
    assert HOOKS.within("../benchmarks/README.md", place("docs")) == f"{HOOKS.REPOSITORY}/benchmarks/README.md"
    assert HOOKS.within("made/demo/report.html", place("docs")) == "made/demo/report.html"
    for page in DOCS.glob("*.md"):
        for link in HOOKS.LINK.findall(page.read_text(encoding="utf-8")):
            generated = {"commands.md", "python.md", *HOOKS.ELSEWHERE}
            assert link in generated or link.startswith("made/") or (DOCS / link).exists(), (page.name, link)


def test_every_page_is_in_the_navigation_and_every_script_that_pages_show_or_run_is_there():
    listed = set(HOOKS.pages(yaml.safe_load((DOCS / "_site" / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert {page.name for page in DOCS.glob("*.md")} <= listed
    for page in listed & {page.name for page in DOCS.glob("*.md")}:
        text = (DOCS / page).read_text(encoding="utf-8")
        for block in HOOKS.FILE.finditer(text):
            assert (ROOT / block["path"]).is_file(), (page, block["path"])
        assert text.count("# docs/examples/") == len(HOOKS.FILE.findall(text)), page
        for block in HOOKS.RUN.finditer(text):
            for script in re.findall(r"python (\S+\.py)", block["commands"]):
                assert (EXAMPLES / script).is_file(), (page, script)


def test_the_reference_has_every_public_name_and_every_command():
    from embedx import extractors, probes

    text = HOOKS.python_page()
    for face in (probes, extractors):
        for name in face.__all__:
            assert f"::: {face.__name__}.{name}\n" in text
    commands = HOOKS.commands_page()
    for name in ("extract", "compare", "spuriosity gap"):
        assert re.search(rf"^#+ embedx {name}$", commands, flags=re.MULTILINE)
        assert f"Usage: embedx {name} [OPTIONS]" in commands


def test_columns_of_a_docstring_are_lists():
    text = "Sum.\n\nC       strength,\n        above 0\na, b    ends\nRest of it.\n\n    w_i  =  1"
    expected = "Sum.\n\n\n- `C`: strength,\n    above 0\n- `a`, `b`: ends\n\nRest of it.\n\n    w_i  =  1"
    assert DOCSTRINGS.listed(text) == expected


@pytest.mark.parametrize("script", sorted(p.name for p in EXAMPLES.rglob("*.py")))
def test_what_the_examples_import_is_there(script):
    (path,) = EXAMPLES.rglob(script)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("embedx"):
            assert not any(part.startswith("_") for part in node.module.split(".")), node.module
            home = importlib.import_module(node.module)
            assert all(hasattr(home, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.slow
def test_the_coverage_of_intervals_is_what_the_program_prints() -> None:
    """The record shows a simulation that takes longer than a build should; the same seeds give the same figures."""
    line = [sys.executable, "-m", "benchmarks.intervals"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
    record = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert done.stdout.startswith("| true accuracies | n per group |") and done.stdout in record
