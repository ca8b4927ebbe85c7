"""The front door: what `import embedx` gives, what it imports, and a whole comparison from a script."""

import ast
import logging
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from pets import TWO, WHOLE, features, write
from PIL import Image

import embedx
from embedx.data import manifest as manifests
from embedx.data.digits import Card, deck
from embedx.datasets import demo
from embedx.errors import BackboneError, CacheError, ExtractionError, HeadError, UnknownName

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "compare.py"
LIGHT = {"embedx", "lazy_loader"}
"""What `import embedx` may import beside Python's own library."""


def few_cards(*_: object) -> list[Card]:
    """Some of the demo's cards, and all that break the link of class and background in train."""
    rare = [c for c in deck() if c.split == "train" and (c.label == "low") != (c.background == "land")]
    return [*{c.id: c for c in (*deck()[::21], *rare)}.values()]


def test_the_public_names_cost_nothing_until_they_are_used() -> None:
    code = (
        "import sys; before = {*sys.modules}; import embedx; print(*dir(embedx)); "
        "print(*{m.partition('.')[0] for m in {*sys.modules} - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    names, imported = (set(line.split()) for line in done.stdout.splitlines())
    assert imported <= LIGHT
    assert {"prepare", "extract_features", "open_cache", "join", "probe", "compare", "verdicts"} <= names
    assert {"Workspace", "Manifest", "FeatureCache", "Split", "Run", "Verdict", "EmbedxError"} <= names


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in dir(embedx):
        value = getattr(embedx, name)
        assert (value.__doc__ or "").strip() and not value.__doc__.startswith(f"{name}("), name  # no generated one
    assert re.fullmatch(r"\d+\.\d+\.\d+", embedx.__version__)
    with pytest.raises(AttributeError):
        embedx.no_such_name  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_a_comparison_is_a_script_of_25_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example of the documents, on a few of the demo's images."""
    monkeypatch.setattr(demo, "deck", few_cards)
    monkeypatch.chdir(tmp_path)
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 25
    runpy.run_path(str(EXAMPLE))
    lines = capsys.readouterr().out.splitlines()
    heads = [(backbone, head) for backbone in ("tiny:broad", "tiny:untrained") for head in ("plain", "group-balanced")]
    assert [tuple(line.split()[:2]) for line in lines[:4]] == heads
    assert all(
        re.fullmatch(r"tiny:\w+: the plain head .*; group-balanced gains [+-][\d.]+%", line) for line in lines[4:]
    )
    assert len(lines) == 6 and embedx.Workspace().backbones("demo") == ("tiny-broad", "tiny-untrained")


def test_the_readme_shows_the_example_as_it_is_tested() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"```python\n# compare.py\n{EXAMPLE.read_text(encoding='utf-8')}```" in readme
    assert {n.name for n in ast.walk(ast.parse(EXAMPLE.read_text())) if isinstance(n, ast.alias)} == {"embedx"}


@pytest.mark.slow
def test_an_analysis_without_group_labels_takes_a_short_script(tmp_path: Path) -> None:
    """The example of the documentation, on all images of `planted`: nothing private, and the gap closes."""
    script = EXAMPLE.with_name("spuriosity.py")
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 25 and len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 25
    assert {n.name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.alias)} == {"embedx"}
    environment = {key: word for key, word in os.environ.items() if key != "EMBEDX_CACHE"}
    line = [sys.executable, str(script)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    ranked, narrow, broad, tuned = done.stdout.splitlines()
    assert "images ranked" in ranked and narrow.startswith("tiny:narrow=") and broad.startswith("tiny:broad=convex")
    before, after = (float(word.rstrip("%")) for word in tuned.split() if word.endswith("%"))
    assert abs(after) < abs(before)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A workspace with a dataset and its cache, in a folder that nobody names as its default."""
    manifests.save(WHOLE, tmp_path / "w" / WHOLE.name)
    write(embedx.Workspace(tmp_path / "w"), WHOLE, TWO, features(WHOLE))
    return tmp_path / "w"


def test_the_workspace_is_given_or_that_of_the_command_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = embedx.open_dataset("pets", workspace=place)
    assert embedx.open_dataset("pets", workspace=str(place)).digest == given.digest == WHOLE.digest
    assert embedx.open_dataset("pets", workspace=embedx.Workspace(place)).digest == given.digest
    with pytest.raises(UnknownName, match="unknown dataset 'pets'"):
        embedx.open_dataset("pets", workspace=place / "other")
    monkeypatch.chdir(place)
    with pytest.raises(UnknownName):
        embedx.open_dataset("pets")
    monkeypatch.setenv("EMBEDX_CACHE", str(place))
    assert embedx.Workspace().path == place and embedx.open_dataset("pets").digest == WHOLE.digest
    monkeypatch.setenv("EMBEDX_CACHE", "")
    assert embedx.Workspace().path == Path("cache")


def test_one_head_from_a_script_is_the_run_of_a_comparison(place: Path) -> None:
    manifest = embedx.open_dataset("pets", workspace=place)
    cache = embedx.open_cache(manifest, TWO, workspace=place)
    run, head = embedx.probe(embedx.join(manifest, cache), "plain")
    (compared,) = embedx.compare(manifest, TWO, "plain", workspace=place)
    assert run.metrics == compared.metrics and hasattr(head, "predict")
    with pytest.raises(CacheError, match="has no features of 'tiny:broad'"):
        embedx.compare(manifest, "tiny:broad", workspace=place)
    with pytest.raises(HeadError, match="needs a spuriosity ranking"):
        embedx.compare(manifest, heads="low-spuriosity", workspace=place)
    assert {run.head for run in embedx.compare(manifest, workspace=place)} >= {"plain", "group-balanced", "dfr"}


def test_remarks_are_warnings_of_a_logger_unless_somebody_takes_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "val", "test"):
        for label in ("Cat", "cat"):
            (tmp_path / "pets" / split / label).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / "pets" / split / label / "a.png")
    manifest = embedx.prepare("folder", tmp_path / "pets", workspace=tmp_path / "w")
    assert {(r.name, r.levelno) for r in caplog.records} == {("embedx", logging.WARNING)}
    assert any(m.startswith("note: pets: ") and "look alike" in m for m in caplog.messages)
    caplog.clear()
    taken: list[str] = []
    again = embedx.prepare("pets", workspace=tmp_path / "w", notice=taken.append)
    assert again.digest == manifest.digest and taken and not caplog.messages
    for file in (tmp_path / "pets").rglob("*.png"):
        os.utime(file, (1e9, 1e9))  # what was changed a moment ago is not believed to be unchanged
    embedx.extract_features(manifest, "raw:2x2", workspace=tmp_path / "w", notice=taken.append)
    os.utime(tmp_path / "pets" / "train" / "cat" / "a.png", (2e9, 1.1e9))
    embedx.open_cache(manifest, "raw:2x2", workspace=tmp_path / "w")
    assert [m for m in caplog.messages if m.startswith("note: raw:2x2: 1 of 6 images have another size")]


@pytest.mark.parametrize(
    ("backbones", "weights", "message"),
    [
        ([], None, "no backbone is named; give at least one"),
        (["a=raw:2x2", "a=raw:4x4"], None, "two backbones have the same name"),
        (["=raw:2x2"], None, "a backbone has an empty name"),
        (["raw:2x2", "raw:4x4"], Path("w.pt"), "--weights goes with exactly one backbone, found raw:2x2, raw:4x4"),
    ],
)
def test_what_cannot_be_extracted_is_refused(
    place: Path, backbones: list[str], weights: Path | None, message: str
) -> None:
    settings = embedx.ExtractionSettings(weights=weights)
    with pytest.raises((BackboneError, ExtractionError), match=message):
        embedx.extract_features(WHOLE, backbones, settings, workspace=place)
