"""A comparison by a script or on the command line: the same defaults, and every cache joined and read once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pets import BARE, ONE, TWO, WHOLE, features, write

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.errors import CacheError, ResultsError
from embedx.evaluation import plan, runs
from embedx.evaluation.compare import ComparisonSettings, compare
from embedx.evaluation.evaluate import Evaluator
from embedx.evaluation.frame import runs_frame
from embedx.evaluation.heads import STANDARD, every_head, heads_asked
from embedx.evaluation.runs import Runs
from embedx.evaluation.split import Split
from embedx.evaluation.verdict import verdicts
from embedx.report import tsne
from embedx.store import FeatureCache, open_caches
from embedx.workspace import Workspace

HEADS = ("plain", "reweighted", "nearest-mean")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two backbones, the second without the spurious feature."""
    workspace = Workspace(tmp_path / "cache")
    write(workspace, WHOLE, ONE, features(WHOLE))
    write(workspace, WHOLE, TWO, np.delete(features(WHOLE), 2, axis=1))
    manifests.save(WHOLE, workspace.dataset("pets"))
    return workspace


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often labels were joined to a cache, and its features read, in this process: {(what, backbone): times}."""
    counts: Counter[tuple[str, str]] = Counter()

    def counted(what: str, owner: object, name: str, place: int) -> None:
        real = getattr(owner, name)

        def call(*args: object, **more: object) -> object:
            counts[what, args[place].header.backbone] += 1  # type: ignore[attr-defined]
            return real(*args, **more)

        monkeypatch.setattr(owner, name, call)

    counted("join", plan, "outline", 1)
    for name in ("features", "chunks", "take"):
        counted("read", FeatureCache, name, 0)
    return counts


def test_a_cache_is_joined_and_read_once(workspace: Workspace, tmp_path: Path, counts: Counter) -> None:
    shown: list[Split] = []
    settings = ComparisonSettings(seeds=2, jobs=1, attributes=True, folder=tmp_path / "out", drop_leaks=True)
    once = {(what, name): 1 for what in ("join", "read") for name in (ONE, TWO)}
    first = compare(workspace, WHOLE, [ONE, TWO], HEADS, settings, with_split=shown.append)
    assert counts == once
    assert [(split.backbone, split.test.X.shape) for split in shown] == [(ONE, (600, 5)), (TWO, (600, 4))]
    counts.clear()
    assert compare(workspace, WHOLE, [ONE, TWO], HEADS, settings) == first
    assert counts == {("join", ONE): 1, ("join", TWO): 1}  # all runs are finished: no feature is needed
    counts.clear()
    again: list[Split] = []
    compare(workspace, WHOLE, [ONE, TWO], HEADS, settings, with_split=again.append)
    assert counts == once  # the maps need them
    assert all(np.array_equal(a.test.X, b.test.X) for a, b in zip(shown, again, strict=True))


def test_the_command_reads_once_for_heads_and_map(
    workspace: Workspace, tmp_path: Path, counts: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tsne, "embedding_map", lambda split: f'<svg width="{len(split.test)}pt" height="1pt"/>')
    words = ["--cache", str(workspace.path), "compare", "pets", "--map", "--jobs", "1", "-o", str(tmp_path / "out")]
    words += [word for head in HEADS for word in ("--head", head)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, (result.output, result.exception)
    assert counts == {(what, name): 1 for what in ("join", "read") for name in (ONE, TWO)}
    assert {p.name for p in (tmp_path / "out" / "plots").glob("map-*")} == {"map-tiny-one.svg", "map-tiny-two.svg"}
    assert 'width="600pt"' in (tmp_path / "out" / "plots" / "map-tiny-one.svg").read_text()


@pytest.mark.slow
def test_heads_in_processes_are_joined_in_none_of_them_and_the_map_is_read_here(
    workspace: Workspace, counts: Counter
) -> None:
    shown: list[str] = []
    compare(
        workspace, WHOLE, [ONE, TWO], HEADS, ComparisonSettings(jobs=2), with_split=lambda s: shown.append(s.backbone)
    )
    assert counts == {(what, name): 1 for what in ("join", "read") for name in (ONE, TWO)}
    assert shown == [ONE, TWO]


@pytest.mark.slow
def test_a_script_gets_every_backbone_and_the_standard_heads_as_the_command_does(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--cache", str(workspace.path), "compare", "pets", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, (result.output, result.exception)
    monkeypatch.setattr(Evaluator, "fitted", lambda *given: pytest.fail("the command fitted other heads"))
    told: list[str] = []
    results = compare(workspace, WHOLE, settings=ComparisonSettings(folder=tmp_path), notice=told.append)
    expected = [head for head in STANDARD if head != "zero-shot"]  # there are no prompts
    assert [(r.backbone, r.head) for r in results] == [(b, h) for b in (ONE, TWO) for h in expected] and not told
    assert isinstance(results, Runs) and results == runs.load(tmp_path / "runs.json") and len(verdicts(results)) == 2
    frame = runs_frame(results)
    assert list(frame["metrics.worst_group.value"]) == [r.metrics.worst_group.value for r in results]


def test_the_heads_that_are_asked_for() -> None:
    assert heads_asked(WHOLE, ["plain", "py:mine", "plain"]) == ("plain", "py:mine")
    assert heads_asked(BARE, ["plain", "all"]) == every_head(BARE)
    standard = heads_asked(BARE, [])
    assert set(standard) < set(heads_asked(WHOLE, [])) < {*STANDARD} and "plain" in standard
    assert set(heads_asked(WHOLE, [], prompts=True)) == {*STANDARD}
    assert {*heads_asked(WHOLE, ["all"], ranked=True)} - {*heads_asked(WHOLE, ["all"])} == {"low-spuriosity"}


def test_caches_are_opened_once_each_and_where_there_is_none_the_way_is_told(workspace: Workspace) -> None:
    assert list(open_caches(workspace, WHOLE)) == [ONE, TWO]
    assert list(open_caches(workspace, WHOLE, [TWO, "tiny-two", ONE])) == [TWO, ONE]
    with pytest.raises(CacheError, match="pets has no feature cache yet; make one with `embedx extract pets -b BACK"):
        compare(Workspace(workspace.path / "empty"), WHOLE)


def test_a_folder_of_single_runs_is_refused_before_the_work(workspace: Workspace, tmp_path: Path) -> None:
    runs.add(compare(workspace, WHOLE, [ONE], ["plain"]), tmp_path / "out", print)
    with pytest.raises(ResultsError, match="holds single runs of `embedx probe`"):
        compare(workspace, WHOLE, [ONE], ["plian"], ComparisonSettings(folder=tmp_path / "out"))
