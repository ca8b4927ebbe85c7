"""`embedx predict`: its table gives the very figures that `probe` reported, and replaces nothing silently."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pets import ONE, TWO, WHOLE, features, write

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.errors import HeadError
from embedx.evaluation import runs, saved
from embedx.evaluation.metrics import evaluate
from embedx.evaluation.model import pretrained
from embedx.evaluation.probe import fit, probe_cache
from embedx.spuriosity.measures.predictions import predictions
from embedx.store import FeatureCache, header
from embedx.workspace import Workspace

LOST = [3, 700]
TEST = np.setdiff1d(np.flatnonzero(WHOLE.splits == 2), LOST)


@pytest.fixture(autouse=True)
def _blocks_of_37_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "BLOCK_BYTES", 37 * 5 * 4)


def whole_numbers(offset: float) -> np.ndarray:
    """Features of spread 1 to 40 that float32 holds at any of the offsets, so that moving them loses nothing."""
    X = np.rint(3 * features(WHOLE)) + offset
    assert np.array_equal(X.astype(np.float32), X)
    return X.astype(np.float32)


def made(folder: Path, X: np.ndarray) -> tuple[Workspace, FeatureCache]:
    workspace = Workspace(folder)
    manifests.save(WHOLE, workspace.dataset("pets"))
    return workspace, write(workspace, WHOLE, ONE, X, LOST)


def run(workspace: Workspace, *words: object, code: int = 0) -> Any:
    done = CliRunner().invoke(main, ["--cache", str(workspace.path), *map(str, words)])
    assert done.exit_code == code, done.output
    return done


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return made(tmp_path / "cache", features(WHOLE))[0]


@pytest.mark.parametrize("offset", [1e5, 1e7])
@pytest.mark.parametrize("head", ["plain", "group-balanced", "dfr"])
def test_probe_predict_and_spuriosity_agree_on_every_row(tmp_path: Path, head: str, offset: float) -> None:
    workspace, cache = made(tmp_path / "cache", whole_numbers(offset))
    run(workspace, "probe", "pets", "-b", ONE, "--head", head, "-o", tmp_path)
    (reported,), file = runs.load(tmp_path / "runs.json"), tmp_path / f"pets.tiny-one.{head}.0.safetensors"
    run(workspace, "predict", file, "pets", "-o", tmp_path / "p.csv")
    rows = table(tmp_path / "p.csv")
    said = [rows[i] for i in WHOLE.ids[TEST]]
    codes = np.array([WHOLE.classes.index(row["prediction"]) for row in said])
    for model in (fit(WHOLE, cache, head), saved.load_model(file)):
        assert np.array_equal(predictions(WHOLE, cache, model, "test").predicted, codes)
    proba = np.array([[float(row[f"p:{c}"]) for c in WHOLE.classes] for row in said])
    assert np.array_equal(
        saved.load_model(file).for_manifest(WHOLE, cache).probabilities(cache.features()[TEST]), proba
    )
    train = np.setdiff1d(np.flatnonzero(WHOLE.splits == 0), LOST)
    metrics = evaluate(
        WHOLE.labels[TEST], proba, WHOLE.groups[TEST], classes=WHOLE.classes, group_names=WHOLE.group_names,
        group_labels=np.repeat([0, 1], 2), train_shares=np.bincount(WHOLE.groups[train]) / len(train),
    )  # fmt: skip
    assert metrics == reported.metrics  # from the table alone, to the last digit


def test_what_chose_the_head_is_what_the_saved_head_says_of_validation(tmp_path: Path) -> None:
    _, cache = made(tmp_path / "cache", whole_numbers(1e7))
    model = fit(WHOLE, cache, "plain")
    back = saved.load_model(saved.save_model(model, tmp_path))
    rows = np.setdiff1d(np.flatnonzero(WHOLE.splits == 1), LOST)
    right = back.probabilities(cache.features()[rows]).argmax(axis=1) == WHOLE.labels[rows]
    assert model.record.validation_score == right.mean()


def test_rows_without_features_are_left_out_and_counted(workspace: Workspace, tmp_path: Path) -> None:
    run(workspace, "probe", "pets", "-b", ONE, "--head", "group-balanced", "--seeds", 2, "-o", tmp_path)
    out = tmp_path / "p.csv"
    said = run(workspace, "predict", tmp_path / "pets.tiny-one.group-balanced.1.safetensors", "pets", "-o", out)
    assert f"wrote {out}: {len(WHOLE) - 2:,} rows" in said.output and "2 rows were left out" in said.stderr
    rows = table(out)
    kept = np.setdiff1d(np.arange(len(WHOLE)), LOST)
    assert list(rows) == list(WHOLE.ids[kept])
    assert [row["split"] for row in rows.values()] == [manifests.SPLITS[s] for s in WHOLE.splits[kept]]


def test_features_that_are_no_numbers_are_an_error_that_names_rows(tmp_path: Path) -> None:
    workspace, cache = made(tmp_path / "cache", features(WHOLE))
    (model,) = probe_cache(workspace, WHOLE, cache, "plain")
    file, X = saved.save_model(model, tmp_path), features(WHOLE)
    X[5, 2], X[9, 0] = np.nan, np.inf
    workspace, cache = made(tmp_path / "cache", X)
    failed = run(workspace, "predict", file, "pets", "-o", tmp_path / "p.csv", code=1)
    assert f"2 rows of a block give no finite logits ({WHOLE.ids[5]}, {WHOLE.ids[9]})" in failed.output
    assert not (tmp_path / "p.csv").exists()
    with pytest.raises(HeadError, match="have logits that are not finite, so no class"):
        saved.load_model(file).probabilities(X)
    split = manifests.SPLITS[WHOLE.splits[5]]
    with pytest.raises(HeadError, match="have logits that are not finite, so no class"):
        predictions(WHOLE, cache, saved.load_model(file), split)


def test_other_predictions_are_never_replaced_silently(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(workspace, "probe", "pets", "-b", ONE, "-o", "a")
    again = run(workspace, "probe", "pets", "-b", ONE, "-o", "a")
    assert "note: the plain of pets that was in a (seed 0) is replaced" in again.stderr
    run(workspace, "probe", "pets", "-b", ONE, "--head", "nearest-mean", "-o", "b")
    plain, other = Path("a/pets.tiny-one.plain.0.safetensors"), Path("b/pets.tiny-one.nearest-mean.0.safetensors")
    out = Path("results/pets/predictions/pets.tiny-one.plain.0.csv")
    assert f"wrote {out}: {len(WHOLE) - 2:,} rows" in run(workspace, "predict", plain, "pets").output
    first = out.read_bytes()
    assert f"{out} holds these {len(WHOLE) - 2:,} rows already" in run(workspace, "predict", plain, "pets").output
    refused = run(workspace, "predict", other, "pets", "-o", out, code=1)
    assert f"{out} holds other predictions; name another file with -o, or replace it with --overwrite" in refused.output
    assert out.read_bytes() == first and [p.name for p in out.parent.glob("*.csv")] == [out.name]
    assert f"wrote {out}" in run(workspace, "predict", other, "pets", "-o", out, "--overwrite").output
    assert out.read_bytes() != first
    assert (
        "wrote results/pets/predictions/pets.tiny-one.nearest-mean.0.csv"
        in run(workspace, "predict", other, "pets").output
    )


def test_features_of_another_backbone_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    write(workspace, WHOLE, TWO, features(WHOLE))
    run(workspace, "probe", "pets", "-b", ONE, "-o", tmp_path)
    refused = run(workspace, "predict", tmp_path / "pets.tiny-one.plain.0.safetensors", "pets", "-b", TWO, code=1)
    assert "does not hold the features that the head was fitted on" in refused.output


def test_a_stored_classifier_that_is_no_classifier_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cache = made(tmp_path, features(WHOLE))
    good = {"head/weight": np.ones((2, 5), np.float32), "head/bias": np.zeros(2, np.float32)}
    for odd in (
        {"head/weight": np.full((2, 5), np.nan, np.float32)}, {"head/bias": np.array([0, np.inf], np.float32)},
        {"head/weight": np.ones((2, 4), np.float32)}, {"head/bias": np.zeros(3, np.float32)},
    ):  # fmt: skip
        broken = replace(cache)
        broken.__dict__["extras"] = good | odd
        with pytest.raises(HeadError, match="or some are not finite; expected finite .2, 5. and .2,.: name a head"):
            pretrained(WHOLE, broken)
