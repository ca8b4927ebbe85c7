"""Laws of features that are tested where rows come in clusters: copies add nothing, a null is seldom called."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pets import ONE, WHOLE, build, features, table, write

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS, Subjects
from embedx.spuriosity.annotations.automatic.by_mask import outside
from embedx.spuriosity.annotations.automatic.by_text import scan
from embedx.spuriosity.annotations.automatic.directions import random_directions
from embedx.spuriosity.annotations.automatic.words import Words
from embedx.spuriosity.measures.clustered import gap_error
from embedx.spuriosity.measures.importance import feature_gap
from embedx.spuriosity.measures.predictions import Predictions
from embedx.statistics import mann_whitney, mean_share
from embedx.workspace import Workspace

N = 60


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A strength, an answer that goes with it, and shares."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=N)
    return x, x + 2 * rng.normal(size=N) > 0, rng.uniform(0.3, 0.9, N)


def test_rows_that_are_all_of_their_own_change_nothing() -> None:
    (x, y, shares), own = drawn(), np.random.default_rng(1).permutation(N)
    assert feature_gap(x, y, own) == feature_gap(x, y)
    assert mean_share(shares, clusters=own) == mean_share(shares)
    for one, other in zip(mann_whitney(y, x[:, None], own), mann_whitney(y, x[:, None]), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize("m", [2, 5])
def test_copies_of_rows_add_nothing_once_they_are_called_so(m: int) -> None:
    x, y, shares = drawn()
    whose, fine = np.repeat(np.arange(N), m), np.repeat(x, m) + 1e-9 * np.tile(np.arange(m), N)
    once, rows = mean_share(shares), mean_share(np.repeat(shares, m))
    again = mean_share(np.repeat(shares, m), clusters=whose)
    assert (again.value, again.low, again.high) == pytest.approx((once.value, once.low, once.high))
    assert rows.high - rows.low < 0.8 * (once.high - once.low)
    p, doubled, by_rows = (
        float(found[1][0])
        for found in (
            mann_whitney(y, x[:, None]), mann_whitney(np.repeat(y, m), fine[:, None], whose),
            mann_whitney(np.repeat(y, m), fine[:, None]),
        )
    )  # fmt: skip
    assert by_rows < 0.2 * doubled and 0.3 < doubled / p < 5
    gap, k = feature_gap(fine, np.repeat(y, m), whose)
    naive, _ = feature_gap(fine, np.repeat(y, m))
    assert gap is not None and naive is not None and k == 25 == gap.n and gap.value == naive.value
    assert gap.high - gap.low > 1.2 * (naive.high - naive.low)


def test_one_subject_is_no_evidence() -> None:
    x, y, shares = drawn()
    one = np.zeros(N, dtype=np.int64)
    assert (
        mann_whitney(y, x[:, None], one)[1][0] > 0.05
        and gap_error(y * 1.0, np.arange(30), np.arange(30, N), one).half > 0.5
    )
    found = mean_share(shares, clusters=one)
    assert found.low < 0.3 and found.high > 0.9
    cells, mask = np.array([[1.0, 3.0]]), np.array([[1.0, 0.0]])
    seen = outside([(cells, mask), (0 * cells, mask), (cells, mask)], [4, 5, 4])
    assert seen.clusters == (4, 4) and seen.draws == 1 and outside([(cells, mask)] * 3).draws == 3


@pytest.mark.parametrize("m", [4, 10, 40])
@pytest.mark.parametrize("constant", [True, False])
def test_a_null_with_strong_subjects_is_seldom_called(m: int, constant: bool) -> None:
    """Features, attributes and answers go with subjects and not with each other; rows call a quarter and more."""
    rng, called = np.random.default_rng(m), []
    for _ in range(150):
        whose = np.repeat(np.arange(m), rng.integers(3, 40, m))
        x = rng.normal(scale=1.5, size=m)[whose] + rng.normal(size=len(whose))
        if constant:
            y, hits = (rng.permutation(np.arange(m) % k > 0)[whose] for k in (2, 4))
        else:
            y, hits = (rng.random(len(whose)) < rng.beta(a, 1, m)[whose] for a in (1, 3))
        shares = 0.5 + rng.uniform(-0.35, 0.35, m)[whose]
        at = rng.choice(len(whose), min(len(whose), 30), replace=False)
        gap, share = feature_gap(x, hits, whose)[0], mean_share(shares[at], clusters=whose[at])
        assert gap is not None
        order, k = np.argsort(x), min(25, len(x) // 2)
        null = gap_error(hits * 1.0, order[-k:], order[:k], whose)
        called.append([
            mann_whitney(y, x[:, None], whose)[1][0] <= 0.05, not gap.low <= 0 <= gap.high, share.low > 0.5,
            share.high < 0.5, null.p(hits[order[-k:]].mean() - hits[order[:k]].mean()) <= 0.05,
        ])  # fmt: skip
    assert (np.mean(called, axis=0) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)).all()


def test_phrases_and_directions_count_subjects(tmp_path: Path) -> None:
    """Images and answers go with their owners, five images each, and phrases with nothing."""
    val, rng = np.flatnonzero(WHOLE.splits == SPLITS.index("val")), np.random.default_rng(0)
    owner = np.arange(len(WHOLE))
    for label in (0, 1):
        rows = val[WHOLE.labels[val] == label]
        owner[rows] = rows[np.arange(len(rows)) // 5 * 5]
    X = (rng.normal(size=(len(WHOLE), 12))[owner] + 0.2 * rng.normal(size=(len(WHOLE), 12))).astype(np.float32)
    right, y = (rng.random(len(WHOLE)) < 0.6)[owner[val]], WHOLE.labels[val]
    answers = Predictions("pets", ONE, "plain", "val", WHOLE.classes, WHOLE.ids[val], y, np.where(right, y, 1 - y))
    cache = write(Workspace(tmp_path), WHOLE, ONE, X)
    phrases, names = tuple(f"w{i}" for i in range(100)), np.eye(12)[:2]
    words = Words(phrases, rng.normal(size=(100, 12)), names, None, ("{}",), ("{}",))
    values, (called, beyond, found) = X @ words.cues.T, ({}, {}, {})
    for by, codes in (("rows", None), ("own", np.arange(len(WHOLE))), ("owners", owner)):
        subjects = codes if codes is None else Subjects("owner", codes, tuple(map(str, range(len(WHOLE)))))
        manifest = replace(WHOLE, subjects=subjects)
        found[by] = scan(manifest, values, words, answers)
        called[by] = np.mean([c.p <= 0.05 for c in found[by]])
        beyond[by] = random_directions(manifest, cache, words, answers, 0.2).beyond
    assert found["rows"] == found["own"] and beyond["rows"] == beyond["own"]
    rows, owners = (sorted(c.gap.value for c in found[by]) for by in ("rows", "owners"))
    assert rows == pytest.approx(owners)
    assert called["rows"] > 0.15 and beyond["rows"] > 0.15
    assert called["owners"] <= 0.05 and beyond["owners"] <= 0.05


def test_the_commands_count_owners(tmp_path: Path) -> None:
    found = []
    for name, facts in (("rows", {}), ("owners", {"cluster": "owner"})):
        frame, workspace = table(), Workspace(tmp_path / name)
        owners = [f"o{i % 6}" for i in range(len(frame))]
        manifest = build(frame.assign(owner=owners) if facts else frame, **facts)
        manifests.save(manifest, workspace.dataset("pets"))
        write(workspace, manifest, ONE, features(manifest))
        out = tmp_path / name / "out"
        for command in (["discover"], ["annotate", "--from", f"attributes={next(iter(manifest.codes))}"]):
            words = ["--cache", str(workspace.path), "spuriosity", command[0], "pets", "-b", ONE, *command[1:]]
            done = CliRunner().invoke(main, [*words, "-o", str(out)])
            assert done.exit_code == 0, done.output
            if command == ["discover"]:
                assert ("subjects (owner) taken as independent" in done.output) == bool(facts)
        of = [json.loads(line) for line in (out / "annotations.jsonl").read_text().splitlines()]
        tests = [t for a in of if "evidence" in a for t in a["evidence"]["attribute"]["tests"]]
        found.append([(t["auroc"], t["p"]) for t in tests])
    rows, owners = (np.array(f) for f in found)
    assert len(rows) and np.allclose(rows[:, 0], owners[:, 0]) and (owners[:, 1] >= rows[:, 1]).any()
