"""An analysis without the command line: a short script does it all, what lies on disk is read once, steps are short."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from galleries import analysis as made_up
from pets import ONE, TWO, WHOLE, features, write

import embedx
from embedx.data import manifest as manifests
from embedx.errors import CacheError, ProvenanceError, SpuriosityError, UnknownName
from embedx.spuriosity import annotations
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.annotate import annotate
from embedx.spuriosity.discover import discover
from embedx.spuriosity.gap import gap
from embedx.spuriosity.rank import rank, ranking_file
from embedx.spuriosity.records.ranking import Ranking
from embedx.spuriosity.site import site
from embedx.store import FeatureCache
from embedx.workspace import Workspace

SOURCES = Path(embedx.__file__).parent
SCRIPT = """
from pathlib import Path

from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.annotate import annotate
from embedx.spuriosity.discover import discover
from embedx.spuriosity.gap import gap
from embedx.spuriosity.rank import rank
from embedx.spuriosity.measures.tuning_settings import TuningSettings
from embedx.spuriosity.tune import tune
from embedx.workspace import Workspace

analysis = Analysis.open(Workspace(Path("cache")), "pets", "tiny:one")
discovery = discover(analysis, k=2, seeds=1)
print([(c.class_name, c.feature) for c in discovery.candidates])
annotate(analysis, attributes=["place"])
ranking = rank(analysis)
print(ranking.features)
measured = gap(analysis, ["tiny:one", "tiny:two=plain"])
for gaps in measured.gaps:
    print(gaps.model, round(gaps.mean.gap.value, 2))
(tuned,) = tune(analysis, settings=TuningSettings(trials=1, rows=("lowest",), beside=("plain",)))
print([(r.rows, round(r.gap.value.value, 2)) for r in tuned.tuning.results], tuned.file)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "cache")
    manifests.save(WHOLE, workspace.dataset("pets"))
    write(workspace, WHOLE, ONE, features(WHOLE))
    write(workspace, WHOLE, TWO, features(WHOLE)[:, :3])
    return workspace


@pytest.fixture
def analysis(workspace: Workspace, tmp_path: Path) -> Analysis:
    return Analysis.open(workspace, "pets", ONE, tmp_path / "results")


def test_a_short_script_discovers_annotates_ranks_measures_and_tunes(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for line in SCRIPT.splitlines() if line]
    assert len(lines) < 25 and not re.search(r"\b_\w|\bcli\b", SCRIPT)
    monkeypatch.chdir(tmp_path)
    exec(compile(SCRIPT, "script.py", "exec"), {})
    found, features, one, two, tuned = capsys.readouterr().out.splitlines()
    assert "('dog', 2)" in found  # the place
    assert features == "{1: (2,)}"  # in is where feature 2 is small, so it is no cue of cats
    assert one.startswith("tiny:one=plain ") or one.startswith("tiny:one=convex ")
    assert two.startswith("tiny:two=plain ") and float(two.split()[1]) > 0.2  # it leans on the place
    before, after = (float(x) for x in re.findall(r"', (-?[\d.]+)\)", tuned))
    assert abs(after) < before and "pets.tiny-one.low-spuriosity-of-convex.0" in tuned
    folder = tmp_path / "results/pets/spuriosity"
    written = {"discovery.json", "annotations.jsonl", "gaps.json", "tuning.json"}
    assert written <= {p.name for p in folder.iterdir()}
    assert (tmp_path / "cache/pets/tiny-one.spuriosity.csv").is_file()


@contextmanager
def opened_files() -> Iterator[Counter[Path]]:
    """How often each file is opened by Python, links resolved."""
    counts: Counter[Path] = Counter()
    HEARING.append(counts)
    try:
        yield counts
    finally:
        HEARING.remove(counts)


HEARING: list[Counter[Path]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if HEARING and event == "open" and isinstance(arguments[0], str | os.PathLike):
        for counts in HEARING:
            counts[Path(os.fsdecode(arguments[0])).resolve()] += 1


sys.addaudithook(_hear)  # for good: Python has no way to take one back; it does nothing while nobody listens


def test_the_site_reads_every_file_once_and_neither_rankings_nor_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made_up(tmp_path / "results", ("otter", "shore", "lamp"))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a site is made of its folder alone")

    monkeypatch.setattr(Ranking, "load", never)
    monkeypatch.setattr(FeatureCache, "open_complete", never)
    there = {p.resolve() for p in folder.rglob("*") if p.is_file()}
    with opened_files() as counts:
        site(Analysis(Workspace(tmp_path / "cache"), "made", "ranker", folder))
    read = {p: n for p, n in counts.items() if p in there}
    assert {p.name for p in read} >= {
        "discovery.json", "panels.json", "annotations.jsonl", "gaps.json", "tuning.json", "review.csv",
    }  # fmt: skip
    assert [p for p, n in read.items() if n > 1] == []


def test_a_gap_reads_the_ranking_once_and_opens_each_cache_once(
    analysis: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    discover(analysis, k=2, seeds=1)
    annotate(analysis, attributes=["place"])
    rank(analysis)
    caches: Counter[str] = Counter()
    open_complete = FeatureCache.open_complete

    def counted(path: Path) -> FeatureCache:
        caches[path.name] += 1
        return open_complete(path)

    monkeypatch.setattr(FeatureCache, "open_complete", staticmethod(counted))
    fresh = Analysis.open(analysis.workspace, WHOLE, ONE, analysis.folder)
    with opened_files() as counts:
        gap(fresh, [f"{ONE}=plain", f"{TWO}=plain"])
    assert caches == {"tiny-one.h5": 1, "tiny-two.h5": 1}
    assert counts[ranking_file(fresh).resolve()] == 1


def test_an_analysis_is_opened_by_name_or_by_manifest(workspace: Workspace, tmp_path: Path) -> None:
    by_name, by_manifest = (Analysis.open(workspace, given, ONE) for given in ("pets", WHOLE))
    assert by_name.folder == by_manifest.folder == Path("results/pets/spuriosity")
    assert by_name.manifest.digest == by_manifest.manifest.digest == WHOLE.digest
    assert by_name.cache is by_name.cache_of(ONE) and by_name.cache.header.backbone == ONE
    lazy = Analysis(workspace, "pets", ONE, tmp_path)
    assert lazy.manifest.digest == WHOLE.digest and lazy.is_cached
    with pytest.raises(UnknownName, match="unknown dataset 'cats'"):
        Analysis.open(workspace, "cats", ONE)
    with pytest.raises(CacheError, match="pets has no features of 'tiny:three'"):
        Analysis.open(workspace, "pets", "tiny:three").cache  # noqa: B018


def test_what_the_dataset_has_to_say_is_told_at_opening(workspace: Workspace) -> None:
    heard: list[str] = []
    table = workspace.dataset("pets") / "manifest.csv"
    text = table.read_text()
    table.write_text(text.replace(",cat,", ",dog,", 1))
    Analysis.open(workspace, "pets", ONE, notice=heard.append)
    assert len(heard) == 1 and heard[0].startswith("note: ") and "edited" in heard[0]


def test_a_model_is_the_head_of_the_discovery_else_plain_else_the_one_named(analysis: Analysis) -> None:
    assert str(analysis.model(ONE).name) == f"{ONE}=plain"
    discovery = discover(analysis, k=2, seeds=1)
    own = analysis.model(ONE)
    assert str(own.name) == f"{ONE}=convex" and own.run is not None
    assert str(analysis.model(TWO).name) == f"{TWO}=plain"  # the discovery is of another backbone
    assert analysis.model(f"{ONE}=nearest-mean").name.head == "nearest-mean"
    file = analysis.folder / discovery.head
    saved = analysis.model(f"{ONE}={file}")
    assert saved.name.file == file
    np.testing.assert_array_equal(saved.linear.coef, own.linear.coef)


def test_annotations_are_read_where_nothing_is_added(analysis: Analysis) -> None:
    with pytest.raises(SpuriosityError, match="holds nothing yet; say what to annotate by"):
        annotate(analysis)
    discover(analysis, k=2, seeds=1)
    entries = annotate(analysis, attributes=["place"])
    before = analysis.annotations_file.stat()
    assert annotate(analysis) == entries
    after = analysis.annotations_file.stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert annotations.spurious(entries) == {1: (2,)}


def test_annotations_of_another_network_stop_a_discovery_before_the_work(analysis: Analysis) -> None:
    discover(analysis, k=2, seeds=1)
    annotate(analysis, attributes=["place"])
    other = Analysis.open(analysis.workspace, "pets", TWO, analysis.folder)
    before = (analysis.folder / "discovery.json").read_bytes()
    with pytest.raises(ProvenanceError, match="numbers of features mean nothing in another network"):
        discover(other, k=2, seeds=1)
    assert (analysis.folder / "discovery.json").read_bytes() == before


def test_remarks_go_to_whoever_listens(analysis: Analysis) -> None:
    heard: list[str] = []
    discover(analysis, k=2, seeds=1)
    annotate(analysis, attributes=["place"])
    rank(analysis)
    listening = Analysis.open(analysis.workspace, WHOLE, ONE, analysis.folder, notice=heard.append)
    rank(listening)
    assert not heard  # the same ranking again
    rank(listening, statistics="per-split")
    assert len(heard) == 1 and "ranked otherwise and is replaced" in heard[0]


STEPS = {
    "analysis", "annotate", "check_review", "corrupt", "discover", "gap", "masks", "models", "panels", "rank", "review",
    "site", "tune",
}  # fmt: skip


def test_what_steps_are_made_of_imports_no_step() -> None:
    parts = sorted((SOURCES / "spuriosity").glob("*/**/*.py"))
    assert {p.stem for p in (SOURCES / "spuriosity").glob("[!_]*.py")} == STEPS and parts
    for path in parts:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                assert not names & {f"embedx.spuriosity.{step}" for step in STEPS}, path.name


@pytest.mark.parametrize("step", sorted(STEPS - {"analysis", "models"}))
def test_every_step_is_a_function_of_an_analysis(step: str) -> None:
    function = getattr(importlib.import_module(f"embedx.spuriosity.{step}"), step)
    assert next(iter(inspect.signature(function).parameters)) == "analysis" and inspect.getdoc(function)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of every function of a file, decorators left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("folder", ["cli/spuriosity", "spuriosity"])
def test_no_function_is_long(folder: str) -> None:
    files = sorted((SOURCES / folder).rglob("*.py"))
    long = {f"{path.name}: {name}": n for path in files for name, n in functions(path) if n > 60}
    assert files and long == {}
    assert max(n for path in files for _, n in functions(path)) > 20  # what is counted is there
