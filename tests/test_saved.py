"""Saved heads: what comes back predicts the same, on the backbone it was fitted on and on no other."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pets import ONE, TWO, WHOLE, features, write

from embedx import manifest as manifests
from embedx import saved
from embedx.cli import main
from embedx.compare import probe_cache
from embedx.errors import HeadError, ProvenanceError
from embedx.home import Home
from embedx.store import FeatureCache
from probes._machinery import Head

LOST = [3, 700]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("cache"))
    manifests.save(WHOLE, home.dataset("pets"))
    write(home, WHOLE, ONE, features(WHOLE), LOST)
    write(home, WHOLE, TWO, features(WHOLE))
    return home


@pytest.fixture(scope="module")
def cache(home: Home) -> FeatureCache:
    return FeatureCache.open_complete(home.cache("pets", ONE))


@pytest.fixture(scope="module")
def kept(home: Home, cache: FeatureCache, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Head]:
    ((run, head),) = probe_cache(home, WHOLE, cache, "reweighted")
    return saved.save(head, run, cache, WHOLE.classes, tmp_path_factory.mktemp("heads")), head


def test_a_head_comes_back_as_it_was(kept: tuple[Path, Head], cache: FeatureCache) -> None:
    file, head = kept
    assert file.name == "tiny-one.reweighted.0.safetensors"
    for path in (file, file.with_suffix(".json")):
        back = saved.load(path)
        assert (back.classes, back.dim, back.dataset, back.run["head"]) == (WHOLE.classes, 5, "pets", "reweighted")
        X = features(WHOLE)
        np.testing.assert_allclose(back.probabilities(X), head.predict_proba(X), rtol=1e-4, atol=1e-6)
        ids, status, proba = (np.concatenate(c) for c in zip(*back.apply(cache), strict=True))
        assert list(ids) == list(WHOLE.ids) and list(np.flatnonzero(status)) == LOST
        ok = status == 0
        np.testing.assert_allclose(proba[ok], head.predict_proba(X[ok]), rtol=1e-4, atol=1e-6)


def test_a_multiclass_head_comes_back(home: Home, cache: FeatureCache, tmp_path: Path) -> None:
    from embedx.compare import load_head
    from embedx.runs import Run

    ((run, _),) = probe_cache(home, WHOLE, cache, "plain")
    assert isinstance(run, Run)
    X, y = features(WHOLE), WHOLE.groups
    head = load_head("plain")(C=0.1).fit(X, y)
    back = saved.load(saved.save(head, run, cache, WHOLE.group_names, tmp_path))
    np.testing.assert_allclose(back.probabilities(X), head.predict_proba(X), rtol=1e-4, atol=1e-6)


def test_no_pickle_is_in_it(kept: tuple[Path, Head]) -> None:
    for path in (kept[0], kept[0].with_suffix(".json")):
        with pytest.raises((pickle.UnpicklingError, ValueError, KeyError, EOFError, IndexError)):
            pickle.loads(path.read_bytes())


def test_other_features_are_refused(kept: tuple[Path, Head], home: Home, tmp_path: Path) -> None:
    back = saved.load(kept[0])
    other = FeatureCache.open_complete(home.cache("pets", TWO))
    with pytest.raises(ProvenanceError, match="weights is digest of tiny:two, expected digest of tiny:one; extract"):
        back.check(other)
    wide = write(Home(tmp_path), WHOLE, ONE, np.hstack([features(WHOLE)] * 2))
    with pytest.raises(ProvenanceError, match="dim is 10, expected 5"):
        list(back.apply(wide))


def test_what_is_no_saved_head_is_refused(kept: tuple[Path, Head], cache: FeatureCache, tmp_path: Path) -> None:
    good, words = kept[0].read_bytes(), json.loads(kept[0].with_suffix(".json").read_text())
    file = tmp_path / "h.safetensors"

    def put(numbers: bytes, text: str) -> None:
        file.write_bytes(numbers)
        file.with_suffix(".json").write_text(text)

    with pytest.raises(HeadError, match="does not exist; a saved head is two files, h.safetensors and h.json"):
        saved.load(file)
    for numbers, text, message in (
        (good[:60], json.dumps(words), "is no saved head"),
        (good, "{", "is no saved head"),
        (good, "[]", "is no saved head"),
        (good, json.dumps(words | {"version": 9}), "expected embedx-head version 1, found 'embedx-head' 9"),
        (
            good,
            json.dumps(words | {"classes": ["a", "b", "c"]}),
            "coef is .1, 5. or not finite, expected finite .3, 5.",
        ),
    ):
        put(numbers, text)
        with pytest.raises(HeadError, match=message):
            saved.load(file)
    from safetensors.numpy import save_file

    put(good, json.dumps(words))
    save_file({"coef": np.ones((1, 5))}, file)
    with pytest.raises(HeadError, match="holds coef, expected coef, intercept, mean, scale"):
        saved.load(file)


def test_a_head_that_is_not_linear_says_so(home: Home, cache: FeatureCache, tmp_path: Path) -> None:
    class Crooked(Head):
        def _fits(self, data, variants):
            return []

        def decision_function(self, X):
            return np.zeros(len(X))

    ((run, _),) = probe_cache(home, WHOLE, cache, "plain")
    with pytest.raises(HeadError, match="head 'plain' is not linear, and only linear heads can be saved"):
        saved.save(Crooked(), run, cache, WHOLE.classes, tmp_path)
    assert not list(tmp_path.iterdir())


def test_probe_saves_and_predict_applies(home: Home, tmp_path: Path) -> None:
    def run(*words: object) -> str:
        done = CliRunner().invoke(main, ["--cache", str(home.path), *map(str, words)])
        assert done.exit_code == 0, done.output
        return done.output

    said = run("probe", "pets", "-b", ONE, "--head", "group-balanced", "--seeds", 2, "-o", tmp_path)
    assert "C = " in said and "tiny-one.group-balanced.1.safetensors" in said
    table = tmp_path / "p.csv"
    head = tmp_path / "tiny-one.group-balanced.0.safetensors"
    said = run("predict", head, "pets", "-o", table)
    assert f"wrote {table}: {len(WHOLE) - 2:,} rows" in said and "2 rows were left out" in said
    with table.open() as file:
        rows = {r["id"]: r for r in csv.DictReader(file)}
    kept = np.setdiff1d(np.arange(len(WHOLE)), LOST)
    assert list(rows) == list(WHOLE.ids[kept])
    proba = saved.load(head).probabilities(features(WHOLE))
    for i in kept[::50]:
        row = rows[WHOLE.ids[i]]
        assert row["split"] == manifests.SPLITS[WHOLE.splits[i]]
        assert row["prediction"] == WHOLE.classes[int(proba[i].argmax())]
        assert [float(row[f"p:{c}"]) for c in WHOLE.classes] == pytest.approx(list(proba[i]), rel=1e-4)
    refused = CliRunner().invoke(main, ["--cache", str(home.path), "predict", str(head), "pets", "-b", TWO])
    assert refused.exit_code == 1 and "does not hold the features that the head was fitted on" in refused.output
