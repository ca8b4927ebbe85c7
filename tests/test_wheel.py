"""What is installed, a wheel or this folder: in a fresh environment, used in a folder full of other people's names."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import click
import pytest

from embedx.cli import main

ROOT = Path(__file__).parents[1]
LINKED = ("extractors", "probes")
PACKAGES = [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
"""Where this environment's packages lie; never the folder of an editable package."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def run(line: list[str], where: Path, code: int = 0) -> str:
    """Run a command as a user would, and return what it printed; its exit code has to be this one."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(line, cwd=where, env=ours, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def built(source: Path, kind: str, out: Path) -> Path:
    """A wheel or sdist of a source tree, by the build back end alone: nothing is fetched."""
    run([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)], source)
    (file,) = out.iterdir()
    return file


def contents(wheel: Path) -> dict[str, bytes]:
    """{name: bytes} of all files in a wheel, each of which is there once."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        assert [name for name, n in Counter(names).items() if n > 1] == []
        return {name: archive.read(name) for name in names}


def sources(folder: Path) -> set[str]:
    """Paths below a folder of all files that are no build products."""
    files = (f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return {f.relative_to(folder).as_posix() for f in files}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


def test_a_wheel_holds_one_package_and_each_file_once(wheel: Path) -> None:
    packed = contents(wheel)
    assert {re.sub(r"-.*", "", name.split("/")[0]) for name in packed} == {"embedx"}
    assert {"embedx/py.typed", "embedx/__init__.pyi", "embedx/report/page.html.j2"} <= packed.keys()
    for name in LINKED:
        start = f"embedx/{name}/"
        inside = {file.removeprefix(start) for file in packed if file.startswith(start)}
        assert inside == sources(ROOT / name)


def test_a_source_archive_gives_the_same_wheel_and_holds_the_tests(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    for part in ("tests", "benchmarks", "docs", *LINKED):
        assert sources(folder / part) >= {f for f in sources(ROOT / part) if not f.startswith(".")}
    assert {"Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"} <= sources(folder)
    assert sources(folder / "cache") == {"README.md"}
    assert not any((folder / "embedx" / name).exists() for name in LINKED)
    assert contents(built(folder, "wheel", tmp_path / "again")) == contents(wheel)


def test_a_source_tree_without_links_gives_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    """As a clone on Windows has it: a text file in the place of each link."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    for name in LINKED:
        (folder / "embedx" / name).write_text(f"../{name}")
    assert contents(built(folder, "wheel", tmp_path / "again")) == contents(wheel)
    line = [sys.executable, "-c", "import embedx"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert "expected a link to ../extractors: this copy was made without links" in done.stderr


def test_a_package_index_shows_the_readme_with_links_that_lead_somewhere(wheel: Path) -> None:
    (name,) = (name for name in contents(wheel) if name.endswith("/METADATA"))
    metadata = Parser().parsestr(contents(wheel)[name].decode())
    place = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    text = metadata.get_payload()
    assert isinstance(text, str)
    plain = (ROOT / "README.md").read_text(encoding="utf-8")
    relative = re.findall(r"(!?)\[[^\]]*\]\((?!http|#)([^)]+)\)", plain)
    assert relative and not re.search(r"\]\((?!http|#)", text)
    for picture, target in relative:
        assert f"]({place}/{'raw' if picture else 'blob'}/main/{target})" in text
    assert text.count("](") == plain.count("](")


@dataclass(frozen=True)
class Installed:
    """An environment with embedx, and somebody's project folder."""

    python: Path
    project: Path

    @property
    def script(self) -> list[str]:
        return [str(self.python.with_name("embedx"))]

    @property
    def module(self) -> list[str]:
        return [str(self.python), "-m", "embedx"]


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Packages that embedx needs are those of this environment, which are found after those of the new one."""
    place = tmp_path_factory.mktemp(request.param)
    run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], place)
    python = place / "venv" / "bin" / "python"
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    (packages / "zz_here.pth").write_text("\n".join(PACKAGES) + "\n")
    what = [str(wheel)] if request.param == "wheel" else ["--editable", str(ROOT)]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    run([*pip, "--no-build-isolation", "--force-reinstall", *what], place)
    project = place / "project"
    for name in (*LINKED, "tests", "benchmarks", "docs", "report", "store"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text("raise SystemExit('of another project')\n")
    return Installed(python, project)


def test_what_is_imported_is_what_was_installed(installed: Installed, request: pytest.FixtureRequest) -> None:
    code = "import embedx, embedx.probes.plain, embedx.extractors.raw as raw\n"
    code += "print(embedx.__file__, raw.__file__, sep='\\n')"
    expected = ROOT if "editable" in request.node.name else installed.python.parents[1]
    for file in run([str(installed.python), "-c", code], installed.project).splitlines():
        assert Path(file).is_relative_to(expected)
    found = run([str(installed.python), "-c", "import sys, probes"], installed.project, code=1)
    assert found == ""  # theirs, which ends the program


def commands(group: click.Group, *before: str) -> list[tuple[str, ...]]:
    """All commands, and the groups of commands, as words."""
    context, found = click.Context(group), [before]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found += commands(command, *before, name) if isinstance(command, click.Group) else [(*before, name)]
    return found


def test_every_command_shows_its_help(installed: Installed) -> None:
    words = commands(main)
    assert ("extract",) in words and ("spuriosity", "discover") in words
    for command in words:
        assert "Usage: " in run([*installed.script, *command, "--help"], installed.project)
    assert "Usage: " in run([*installed.module, "--help"], installed.project)


def test_the_commands_work(installed: Installed) -> None:
    """The script in the presence of an `embedx.py` too, which `python -m embedx` would run by Python's own rules."""
    project, module, script = installed.project, installed.module, installed.script
    assert "group-balanced" in run([*module, "list", "heads"], project)
    assert "clip-vit-l14" in run([*module, "list", "backbones"], project)
    run([*module, "extract", "demo", "-b", "tiny:broad"], project)
    theirs = project / "embedx.py"
    theirs.write_text("raise SystemExit('of another project')\n")
    assert "group-balanced" in run([*script, "list", "heads"], project)
    assert "clip-vit-l14" in run([*script, "list", "backbones"], project)
    assert "nothing extracted" in run([*script, "extract", "demo", "-b", "tiny:broad"], project)
    assert "low/land" in run([*script, "probe", "demo", "-b", "tiny:broad", "--head", "group-balanced"], project)
    heads = ("--head", "plain", "--head", "group-balanced")
    assert "report.html" in run([*script, "compare", "demo", *heads, "--jobs", "2"], project)
    assert "tiny:broad" in run([*script, "show", "cache/demo/tiny-broad.h5"], project)
    run([*script, "verify", "cache/demo/tiny-broad.h5"], project)
    run([*script, "spuriosity", "discover", "demo", "-b", "tiny:broad"], project)
    theirs.unlink()


RIGHT = """
import embedx
from embedx.extractors import Backbone, freeze
from embedx.probes import ConvexHead, Features

manifest: embedx.Manifest = embedx.prepare("demo")
embedx.extract_features(manifest, ["tiny:broad"], embedx.ExtractionSettings(device="cpu"))
cache: embedx.FeatureCache = embedx.open_cache(manifest, "tiny:broad")
split: embedx.Split = embedx.join(manifest, cache)
run, head = embedx.probe(split, "plain")
accuracy: float = run.metrics.worst_group.value
runs = embedx.compare(manifest, heads=["plain"], workspace="cache")
words: list[str] = [verdict.verdict for verdict in embedx.verdicts(runs)]
print(embedx.__version__, head.predict(split.test.X), Backbone, freeze, ConvexHead, Features)
"""
WRONG = """
import embedx

manifest = embedx.prepare(3)
embedx.compare("demo")
embedx.no_such_name
embedx.ExtractionSettings(device="cpu", precision="float64")
"""


def test_a_users_script_is_checked_against_the_types(installed: Installed) -> None:
    files = {"right": RIGHT, "wrong": WRONG}
    for name, code in files.items():
        (installed.project / f"{name}.py").write_text(code)
    settings = {"venvPath": str(installed.python.parents[2]), "venv": "venv", "typeCheckingMode": "standard"}
    (installed.project / "pyrightconfig.json").write_text(json.dumps(settings | {"include": [*files]}))
    line = [sys.executable, "-m", "basedpyright", "--outputjson", "right.py", "wrong.py"]
    line += ["--pythonpath", str(installed.python)]
    report = json.loads(run(line, installed.project, code=1))
    found = {(Path(d["file"]).stem, d["range"]["start"]["line"], d["rule"]) for d in report["generalDiagnostics"]}
    assert found == {
        ("wrong", 3, "reportArgumentType"), ("wrong", 4, "reportArgumentType"),
        ("wrong", 5, "reportAttributeAccessIssue"), ("wrong", 6, "reportArgumentType"),
    }  # fmt: skip
