"""The comparison as a whole: validation shared out, seeds and backbones together, killed and gone on with, saved."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import Parallel, delayed, parallel_config
from pets import BARE, ONE, TWO, WHOLE, build, features, part, table, write

from embedx.data import manifest as manifests
from embedx.documents import built, plain
from embedx.errors import HeadError, SplitError
from embedx.evaluation import parallel, runs
from embedx.evaluation.by_rule import predicted
from embedx.evaluation.compare import ComparisonSettings, compare
from embedx.evaluation.evaluate import Evaluator
from embedx.evaluation.finished_runs import FILE, Finished
from embedx.evaluation.head_spec import REFITTED, STEERED
from embedx.evaluation.heads import head_spec, load_head
from embedx.evaluation.leaks import shared_images
from embedx.evaluation.parallel import AT_ONCE, at_once
from embedx.evaluation.probe import probe
from embedx.evaluation.runs import Run
from embedx.evaluation.selection import RULES, choose
from embedx.evaluation.split import Part, Split, halves, join
from embedx.probes import CS, supervision_in_words
from embedx.store import FeatureCache
from embedx.workspace import Workspace

HEADS = ("plain", "reweighted", "group-balanced")
VALIDATED = """
from embedx.probes import Labels, On, Supervision
from embedx.probes.reweighted import Reweighted

class Validated(Reweighted):
    fits_on = On.VALIDATION
    supervision = (Supervision(Labels.GROUPS, On.VALIDATION),)
"""
STEERS = """
from embedx.probes import Labels, Need, On, Purpose, Supervision
from embedx.probes.plain import Plain

class Steers(Plain):
    needs = frozenset({Need.HELD_OUT_GROUPS})
    supervision = (Supervision(Labels.GROUPS, On.VALIDATION, Purpose.STEER),)
    def fit(self, *args, **kwargs):
        raise AssertionError
    def _fits(self, data, variants):
        fits = super()._fits(data, variants)
        return [f.having(seen_=data.held_out_of(i)) for i, f in enumerate(fits)]
"""
FAILS = """
from embedx.probes import FitError
from embedx.probes.plain import Plain

class Fails(Plain):
    def _fits(self, data, variants):
        raise FitError("no row is wrong; choose a stronger C")
"""
DIES = """
import os
from embedx.probes.plain import Plain

class Dies(Plain):
    def _fits(self, data, variants):
        os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two backbones, the second without the spurious feature."""
    workspace = Workspace(tmp_path_factory.mktemp("cache"))
    write(workspace, WHOLE, ONE, features(WHOLE))
    write(workspace, WHOLE, TWO, np.delete(features(WHOLE), 2, axis=1))
    return workspace


@pytest.fixture(scope="module")
def split(workspace: Workspace) -> Split:
    return join(WHOLE, FeatureCache.open_complete(workspace.cache("pets", ONE)))


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that fit on validation, are steered by it, fail, and kill their process."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, source in (
        ("validated", VALIDATED),
        ("steers", STEERS),
        ("fails", FAILS),
        ("dies", DIES),
        ("waits", WAITS),
    ):
        (tmp_path / f"{name}.py").write_text(source)


@settings(deadline=None)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=5), st.integers(0, 99))
def test_halves_part_every_group_evenly(sizes: list[int], seed: int) -> None:
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    whole = part(groups // 2, groups)
    a, b = halves(whole, seed)
    assert sorted([*a.ids, *b.ids]) == sorted(whole.ids) and abs(len(a) - len(b)) <= 1
    assert all(abs(np.sum(a.groups == g) - np.sum(b.groups == g)) <= 1 for g in groups)
    assert list(halves(whole, seed)[0].ids) == list(a.ids)
    assert len({tuple(halves(whole, other)[0].ids) for other in range(30)}) > 1, "another seed, other halves"
    with pytest.raises(SplitError, match="a group has one validation row, and both halves of validation"):
        halves(part([*groups, 9], [*groups, 9]), seed)


def test_a_head_that_fits_on_validation_is_chosen_on_the_other_half(split: Split, outside: None) -> None:
    run, head = probe(split, "py:validated", seed=3)
    a, b = halves(split.val, 3)
    scale = load_head("plain")().fit(split.train.X, split.train.y)

    def fits(part: Part, settings: Sequence[dict[str, float]]) -> list[Any]:
        Z = (part.X - scale.mean_) / scale.scale_
        return load_head("reweighted")(standardize=False).path(Z, part.y, settings, groups=part.groups)

    codes = np.array([h.predict((b.X - scale.mean_) / scale.scale_) for h in fits(a, [{"C": C} for C in CS])])
    best, scores = choose(RULES["worst-group"], codes, b, np.ones(4) / 4, a)
    assert (run.parameters["C"], run.validation_score) == (CS[best], pytest.approx(scores[best]))
    (again,) = fits(split.val, [{"C": CS[best]}])
    np.testing.assert_allclose(head.coef_, again.coef_, atol=0.01 * np.abs(again.coef_).max())
    assert (run.protocol, run.fits_on, run.configurations) == (REFITTED, "val", len(CS))
    words = "group labels on validation, to fit; group labels on validation, to choose"
    assert supervision_in_words(run.supervision) == words


def test_a_head_that_is_steered_sees_one_half_and_is_chosen_on_the_other(split: Split, outside: None) -> None:
    run, head = probe(split, "py:steers", seed=1)
    a, _ = halves(split.val, 1)
    assert run.protocol == STEERED and len(head.seen_.y) == len(a) and list(head.seen_.groups) == list(a.groups)
    np.testing.assert_allclose(head.seen_.X, (a.X - head.mean_) / head.scale_, rtol=1e-3, atol=1e-3)
    lonely = replace(split, val=split.val.take(np.flatnonzero((split.val.groups != 1) | (split.val.ids < "00300"))))
    few = np.flatnonzero(lonely.val.groups == 1)
    one = replace(split, val=lonely.val.take(np.setdiff1d(np.arange(len(lonely.val)), few[1:])))
    with pytest.raises(SplitError, match="a group has one validation row"):
        probe(one, "py:steers")


def test_seeds_together_are_the_seeds_alone(split: Split) -> None:
    evaluator = Evaluator(split)
    together = evaluator.runs(head_spec("group-balanced"), range(3))
    for seed, run in enumerate(together):
        (alone,) = evaluator.runs(head_spec("group-balanced"), [seed])
        assert (alone.parameters, alone.validation_score) == (run.parameters, run.validation_score)
        assert alone.metrics.groups == run.metrics.groups and run.seed == seed
    assert len({run.correct for run in together}) > 1  # other seeds draw other rows


def test_predictions_of_many_heads_are_those_of_each(split: Split) -> None:
    plain, y = load_head("plain"), split.train.groups  # four classes
    for labels in (split.train.y, y):
        heads = plain().path(split.train.X, labels, [{"C": 0.01}, {"C": 1.0}])
        assert np.array_equal(predicted(heads, split.test.X), [head.predict(split.test.X) for head in heads])


def without_timings(found: Sequence[Run]) -> list[Run]:
    return [replace(run, timings={}) for run in found]


def test_a_killed_comparison_goes_on_where_it_was(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between any two runs, or within a line, it ends with the same records and repeats no finished run."""
    heads, fits = HEADS, []
    whole = compare(workspace, WHOLE, [ONE, TWO], heads, ComparisonSettings(seeds=2, jobs=1, folder=tmp_path / "whole"))
    lines = (tmp_path / "whole" / FILE).read_bytes().splitlines(keepends=True)
    assert len(lines) == len(whole) == 8
    real = Evaluator.fitted
    monkeypatch.setattr(Evaluator, "fitted", lambda self, entry, seeds: fits.append(seeds) or real(self, entry, seeds))
    for kept, rest in ((1, b""), (4, lines[4][:100]), (8, b"")):
        fits.clear()
        folder = tmp_path / f"killed{kept}"
        folder.mkdir()
        (folder / FILE).write_bytes(b"".join(lines[:kept]) + rest)
        again = compare(workspace, WHOLE, [ONE, TWO], heads, ComparisonSettings(seeds=2, jobs=1, folder=folder))
        assert without_timings(again) == without_timings(whole) and again[:kept] == whole[:kept]
        assert sum(map(len, fits)) == 8 - kept
        assert tuple(Finished(folder / FILE).runs.values()) == again
    changed = ComparisonSettings("average", seeds=2, folder=tmp_path / "whole")
    fits.clear()
    compare(workspace, WHOLE, [ONE], ["plain", "reweighted"], changed)
    assert len(fits) == 1  # plain was chosen by the average before; the other one was not
    corrected = build(table().assign(label=["dog", *table().label[1:]]))
    compare(workspace, corrected, [ONE], ["plain"], changed)
    assert len(fits) == 2  # another label is another question


WAITS = """
import os, pathlib, time
from embedx.probes.plain import Plain

class Waits(Plain):
    def _fits(self, data, variants):
        pathlib.Path(__file__).with_name(f"process{os.getpid()}").touch()
        while not pathlib.Path(__file__).with_name("go").exists():
            time.sleep(0.02)
        return super()._fits(data, variants)
"""


@pytest.mark.slow
def test_sigkill(workspace: Workspace, tmp_path: Path) -> None:
    """Killed for real while the second head is being fitted; the first one's record is on the disk by then."""
    manifests.save(WHOLE, workspace.dataset("pets"))
    (tmp_path / "waits.py").write_text(WAITS)
    words = [
        "--cache",
        str(workspace.path),
        "compare",
        "pets",
        "-b",
        ONE,
        "--head",
        "group-balanced",
        "--head",
        "py:waits",
    ]
    command = [sys.executable, "-m", "embedx", *words, "--seeds", "2", "-o", "out"]
    kept = tmp_path / "out" / FILE
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not (kept.exists() and kept.read_bytes().count(b"\n") == 2):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.kill()
    before = kept.read_bytes()
    assert not (tmp_path / "out" / "runs.json").exists()
    (tmp_path / "go").touch()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kept.read_bytes().startswith(before) and kept.read_bytes().count(b"\n") == 3
    found = runs.load(tmp_path / "out" / "runs.json")
    fresh = compare(workspace, WHOLE, [ONE], ["group-balanced", "plain"], ComparisonSettings(seeds=2))
    for a, b in zip(found, fresh, strict=True):
        assert (a.seed, a.parameters, a.metrics.groups, a.correct) == (
            b.seed,
            b.parameters,
            b.metrics.groups,
            b.correct,
        )


@pytest.mark.slow
def test_heads_side_by_side_give_the_same_records(
    workspace: Workspace, tmp_path: Path, outside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(
        parallel, "cpu_count", lambda: 2 * torch.get_num_threads()
    )  # more threads would round otherwise

    def compared(jobs: int) -> tuple[list[Run], list[str], list[tuple[int, int, str]]]:
        said: list[str] = []
        steps: list[tuple[int, int, str]] = []
        options = ComparisonSettings(seeds=2, jobs=jobs, folder=tmp_path / str(jobs))
        heads = [*HEADS, "py:fails"]
        found = compare(
            workspace, WHOLE, [ONE, TWO], heads, options, notice=said.append, progress=lambda *step: steps.append(step)
        )
        return without_timings(found), said, steps

    one, two = compared(1), compared(2)
    assert one == two
    assert len(one[1]) == 2 and [step[:2] for step in one[2]] == [(i, 8) for i in range(9)]
    kept = [set(Finished(tmp_path / str(jobs) / FILE).runs) for jobs in (1, 2)]
    assert kept[0] == kept[1] and len(kept[0]) == 8


def test_where_no_process_can_be_started_the_work_is_done_here(workspace: Workspace) -> None:
    with pytest.warns(UserWarning, match="nested below threads"), parallel_config(n_jobs=2, backend="threading"):
        (found,) = Parallel()(
            delayed(compare)(workspace, WHOLE, [ONE], list(HEADS), ComparisonSettings(jobs=2)) for _ in range(1)
        )
    assert without_timings(found) == without_timings(compare(workspace, WHOLE, [ONE], list(HEADS)))


@given(st.integers(1, 1 << 32), st.integers(1, 64), st.integers(1 << 28, 1 << 40))
def test_as_many_at_once_as_there_are_cores_and_room_for(numbers: int, cores: int, memory: int) -> None:
    count = at_once(numbers, cores, memory)
    assert 1 <= count <= min(cores, AT_ONCE) and (count == 1 or count * 16 * numbers < memory)
    assert at_once(numbers, cores, 2 * memory) >= count <= at_once(numbers, cores + 1, memory)
    assert at_once(1 << 25, 2, 8 << 30) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("worth", "elsewhere"), [(0, True), (1 << 40, False)])
def test_small_work_starts_no_processes(
    workspace: Workspace, worth: int, elsewhere: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outside: None
) -> None:
    monkeypatch.delitem(sys.modules, "waits", raising=False)  # of another folder
    monkeypatch.setattr(parallel, "WORTH", worth)
    monkeypatch.setattr(parallel, "cpu_count", lambda: 2)
    (tmp_path / "go").touch()
    compare(workspace, WHOLE, [ONE], ["plain", "py:waits"])
    (process,) = tmp_path.glob("process*")
    assert (process.name != f"process{os.getpid()}") == elsewhere


def test_a_process_that_is_killed_is_told_in_words_and_what_was_finished_is_kept(
    workspace: Workspace, tmp_path: Path, outside: None
) -> None:
    options = ComparisonSettings(jobs=2, folder=tmp_path)
    compare(workspace, WHOLE, [ONE], ["plain"], options)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(HeadError, match="was killed, most likely for want of memory.*run it again with --jobs 1"):
        compare(workspace, WHOLE, [ONE], ["plain", "py:dies", "reweighted"], options)
    assert before and (tmp_path / FILE).read_bytes().startswith(before)


@pytest.mark.slow
def test_a_head_that_a_process_cannot_import_is_told_in_other_words(
    workspace: Workspace, tmp_path: Path, outside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere.py").write_text("from embedx.probes.plain import Plain\nclass Elsewhere(Plain):\n    ...\n")
    load_head("py:elsewhere")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    with pytest.raises(HeadError, match="a process that fitted heads failed: .*run it again with --jobs 1"):
        compare(workspace, WHOLE, [ONE], ["plain", "py:elsewhere"], ComparisonSettings(jobs=2))


@pytest.mark.slow
def test_a_head_that_failed_keeps_no_features(
    workspace: Workspace, outside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[int] = []
    evaluators: weakref.WeakSet[Evaluator] = weakref.WeakSet()
    made = Evaluator.__init__

    def make(self: Evaluator, *given: Any) -> None:
        evaluators.add(self)
        made(self, *given)

    def count(*step: object) -> None:
        gc.collect()
        alive.append(len(evaluators))

    monkeypatch.setattr(Evaluator, "__init__", make)
    compare(workspace, WHOLE, [ONE, TWO], ["plain", "py:fails"], ComparisonSettings(jobs=1), progress=count)
    assert max(alive) == 1
    count()
    assert alive[-1] == 0


@pytest.mark.slow
def test_processes_end_with_a_comparison_that_is_killed(workspace: Workspace, tmp_path: Path) -> None:
    manifests.save(WHOLE, workspace.dataset("pets"))
    (tmp_path / "waits.py").write_text(WAITS)
    words = [
        "--cache",
        str(workspace.path),
        "compare",
        "pets",
        "-b",
        ONE,
        "-b",
        TWO,
        "--head",
        "py:waits",
        "--jobs",
        "2",
    ]
    command = [sys.executable, "-m", "embedx", *words]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while len(workers := [int(p.name[7:]) for p in tmp_path.glob("process*")]) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        assert process.pid not in workers
        process.kill()
    end = time.monotonic() + 30
    while any(map(alive, workers)):
        assert time.monotonic() < end, "processes outlive their comparison"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended may stay in the table until somebody asks how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_head_that_fails_is_told_and_left_out(workspace: Workspace, outside: None) -> None:
    said: list[str] = []
    (run,) = compare(workspace, WHOLE, [ONE], ["py:fails", "plain"], notice=said.append)
    assert run.head == "plain" and said == [
        "note: left out: head 'py:fails' on tiny:one: no row is wrong; choose a stronger C"
    ]
    with pytest.raises(HeadError, match="'py:fails' on tiny:one: no row is wrong"):
        compare(workspace, WHOLE, [ONE], ["py:fails"])


def test_a_head_that_cannot_be_fed_is_refused_or_left_out(workspace: Workspace) -> None:
    said: list[str] = []
    heads, lenient = ["plain", "reweighted"], ComparisonSettings(lenient=True)
    with pytest.raises(HeadError, match="'reweighted' needs groups"):
        compare(workspace, BARE, [ONE], heads)
    assert [r.head for r in compare(workspace, BARE, [ONE], heads, lenient, notice=said.append)] == ["plain"]
    assert said[0].startswith("note: left out: head 'reweighted' needs groups")
    with pytest.raises(HeadError, match="'reweighted' needs groups"):
        compare(workspace, BARE, [ONE], heads[1:], lenient)


def test_images_in_two_splits_are_told_before_any_fit(tmp_path: Path, outside: None) -> None:
    hashes = np.random.default_rng(0).integers(0, 256, (len(WHOLE), 32), dtype=np.uint8)
    train, test = (np.flatnonzero(WHOLE.splits == s) for s in (0, 2))
    hashes[test[:3]] = hashes[train[0]]  # three copies of a training row
    hashes[train[5]] = hashes[train[6]]  # within a split: no leak
    cache = write(Workspace(tmp_path), WHOLE, ONE, features(WHOLE), hashes=hashes)
    found = shared_images(WHOLE, cache)
    assert found == {("train", "test"): [(WHOLE.ids[train[0]], WHOLE.ids[i]) for i in test[:3]]}
    said: list[str] = []
    (run,) = compare(Workspace(tmp_path), WHOLE, [ONE], ["plain"], notice=said.append)
    assert "3 images of test are in train as well" in said[0] and run.shared_images == {"train/test": 3}
    said.clear()
    with pytest.raises(HeadError):
        compare(Workspace(tmp_path), WHOLE, [ONE], ["py:fails"], notice=said.append)
    assert "3 images of test are in train as well" in said[0]


def test_how_well_an_embedding_tells_the_attribute(workspace: Workspace) -> None:
    one, two = compare(workspace, WHOLE, [ONE, TWO], ["plain"], ComparisonSettings(attributes=True))
    assert one.attributes["place"].value > 0.95 and abs(two.attributes["place"].value - 0.5) < 0.1
    assert built(json.loads(json.dumps(plain(one))), Run) == one
