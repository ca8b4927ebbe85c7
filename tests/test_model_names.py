"""Models by name: one meaning in every step of an analysis; every step takes the names that the others print."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cards import BROAD, cache_of, prepare
from click.testing import CliRunner
from pets import ONE, TWO, WHOLE, features, write
from test_predictions import THREE, with_classifier

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import Manifest
from embedx.errors import HeadError, ProvenanceError, UnknownName
from embedx.evaluation import saved
from embedx.evaluation.model import ModelName, pretrained
from embedx.evaluation.probe import fit
from embedx.spuriosity import annotations
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.annotations import Annotation
from embedx.spuriosity.features import recipes
from embedx.spuriosity.measures.importance import important_features
from embedx.spuriosity.measures.scores import rank_by_features
from embedx.spuriosity.models import completed, model_named
from embedx.spuriosity.records.discovery import Discovery
from embedx.spuriosity.records.gaps import Measured
from embedx.spuriosity.records.ranking import place
from embedx.spuriosity.records.saved_names import names_before
from embedx.spuriosity.tune import tune
from embedx.store import FeatureCache
from embedx.workspace import Workspace

X = features(WHOLE)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("cache"))
    manifests.save(WHOLE, workspace.dataset("pets"))
    write(workspace, WHOLE, ONE, X)
    return workspace


@pytest.fixture(scope="module")
def cache(workspace: Workspace) -> FeatureCache:
    return FeatureCache.open_complete(workspace.cache("pets", ONE))


@pytest.fixture(scope="module")
def found(cache: FeatureCache) -> Discovery:
    return important_features(WHOLE, cache, k=1, seeds=1)


def test_a_name_without_a_head_is_the_discovered_one_else_the_own_classifier_else_plain(
    cache: FeatureCache, found: Discovery, tmp_path: Path
) -> None:
    own = with_classifier(Workspace(tmp_path / "own"), THREE, None)
    folder = tmp_path / "out"

    def head(name: str, of: FeatureCache) -> str:
        return completed(ModelName.parse(name), WHOLE, of, folder).head

    assert (head(ONE, cache), head(TWO, own)) == ("plain", "pretrained")
    replace(found, recipe="paper").save(folder)
    assert (head(ONE, cache), head(f"{ONE}=", cache), head(f"{ONE}=jtt", cache)) == ("paper", "paper", "jtt")
    assert head(TWO, own) == "pretrained"  # the discovery is of another backbone
    replace(found, backbone=TWO).save(folder)
    assert (head(ONE, cache), head(TWO, own)) == ("plain", "convex")


def test_the_backbone_is_called_as_its_cache_is(cache: FeatureCache, tmp_path: Path) -> None:
    assert completed(ModelName("tiny-one", "plain"), WHOLE, cache, tmp_path) == ModelName(ONE, "plain")


@pytest.mark.parametrize("recipe", ["convex", "paper", "code"])
def test_a_recipe_is_the_same_model_with_and_without_its_discovery(
    cache: FeatureCache, found: Discovery, tmp_path: Path, recipe: str
) -> None:
    first = recipes.fit(WHOLE, cache, {recipe: (0, 1)})[0]  # as `discover` does, with more seeds
    replace(found, recipe=recipe, fitted=first, head=saved.file_name(first.record)).save(tmp_path / "out")
    name = ModelName(ONE, recipe)
    read, made = (model_named(name, WHOLE, cache, tmp_path / folder) for folder in ("out", "nothing"))
    assert read.name == made.name == name and read.fitted is None and made.fitted is not None
    assert np.array_equal(read.probabilities(X), made.probabilities(X))


def test_every_kind_of_name_is_the_model_that_it_says(cache: FeatureCache, tmp_path: Path) -> None:
    file = saved.save_model(fit(WHOLE, cache, "group-balanced"), tmp_path / "a=b")
    named = {head: model_named(ModelName(ONE, head), WHOLE, cache, tmp_path) for head in ("group-balanced", str(file))}
    assert [m.name.head for m in named.values()] == list(named)
    a, b = (m.probabilities(X) for m in named.values())
    assert np.array_equal(a, b)
    own = with_classifier(Workspace(tmp_path / "own"), THREE, None)
    important_features(WHOLE, own, recipe="pretrained", k=1).save(tmp_path)
    stored = model_named(ModelName(TWO), WHOLE, own, tmp_path)
    assert stored.name == ModelName(TWO, "pretrained")
    assert np.array_equal(stored.probabilities(X), pretrained(WHOLE, own).probabilities(X))
    turned = replace(WHOLE, classes=WHOLE.classes[::-1], labels=1 - WHOLE.labels)
    other = model_named(ModelName(ONE, str(file)), turned, cache, tmp_path)
    assert other.classes == turned.classes and np.array_equal(other.probabilities(X)[:, ::-1], b)


def test_what_names_no_model_is_refused(workspace: Workspace, cache: FeatureCache, tmp_path: Path) -> None:
    for head, error, message in (
        ("plane", UnknownName, "did you mean 'plain'"),
        ("timm:resnet50", UnknownName, f"is a backbone, expected a head; a cache that .* {ONE} or {ONE}=HEAD"),
        ("pretrained", HeadError, "has no classifier of its own"),
        (f"{tmp_path}/no.safetensors", HeadError, "does not exist; name a head that `embedx probe -o` saved"),
    ):
        with pytest.raises(error, match=message):
            model_named(ModelName(ONE, head), WHOLE, cache, tmp_path)
    file = saved.save_model(fit(WHOLE, cache, "plain"), tmp_path)
    other = write(Workspace(tmp_path), WHOLE, TWO, X)
    with pytest.raises(ProvenanceError, match="does not hold the features that the head was fitted on"):
        model_named(ModelName(TWO, str(file)), WHOLE, other, tmp_path)
    for step in ("gap", "tune", "review", "corrupt"):
        words = ["--cache", str(workspace.path), "spuriosity", step, "pets", "-b", ONE, "--model", "=plain"]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 2 and "'' is no backbone of a model; expected BACKBONE" in done.output


def test_one_rule_stands_in_the_help_of_every_step() -> None:
    for step in ("gap", "tune", "review", "corrupt", "annotate"):
        words = " ".join(CliRunner().invoke(main, ["spuriosity", step, "--help"]).output.split())
        assert "BACKBONE[=HEAD]" in words
        assert "Without it: the head of `discover`, if it is of that backbone, else the backbone's own" in words


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Manifest]:
    return prepare(tmp_path_factory.mktemp("cards"), "tiny:narrow")


@pytest.mark.slow
def test_every_name_that_is_printed_is_taken_by_every_step_with_the_same_meaning(
    cards: tuple[Workspace, Manifest], tmp_path: Path
) -> None:
    workspace, manifest = cards
    out = tmp_path / "out"

    def run(step: str, *more: str) -> str:
        words = ["--cache", str(workspace.path), "spuriosity", step, "cards", "-b", BROAD, "-o", str(out), *more]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    important_features(manifest, cache_of(workspace), k=3, seeds=1).save(out)
    first = [Discovery.load(out).of[c][0] for c in (0, 1)]
    common = ("cards", BROAD, Discovery.load(out).weights)
    votes = [Annotation(*common, c.label, c.class_name, c.feature, "spurious", "local") for c in first]
    annotations.write(out / annotations.FILE, votes)
    run("rank")
    probe = ["--cache", str(workspace.path), "probe", "cards", "-b", BROAD, "--head", "nearest-mean", "-o", str(out)]
    assert CliRunner().invoke(main, probe).exit_code == 0
    (file,) = out.glob("*.nearest-mean.*.safetensors")
    asked = [BROAD, "tiny:narrow=plain", f"{BROAD}={file}"]
    run("gap", "-k", "2", *(word for name in asked for word in ("--model", name)))
    printed = [g.model for g in Measured.load(out).models]
    assert printed == [f"{BROAD}=convex", "tiny:narrow=plain", f"{BROAD}={file}"]
    before = (out / "gaps.json").read_text()
    models = [word for name in printed for word in ("--model", name)]
    assert "other figures" not in run("gap", "-k", "2", *models)
    assert (out / "gaps.json").read_text() == before
    run("tune", "--published", "--trials", "1", *models)
    tunings = json.loads((out / "tuning.json").read_text())["models"]
    assert [f"{t['backbone']}={t['head']}" for t in tunings] == printed
    run("corrupt", "--images", "1", "--device", "cpu", *models)
    assert {s["model"] for s in json.loads((out / "sensitivity.json").read_text())["found"]} == set(printed)
    for name in printed:
        run("review", "--images", "0", "--model", name)
    early = before.replace(json.dumps(str(file)), json.dumps(file.stem))  # as versions before called a saved head
    assert early != before
    (out / "gaps.json").write_text(early)
    run("review", "--images", "0", "--model", f"{BROAD}={file}")
    run("gap", "-k", "2", "--model", f"{BROAD}={file}")  # measured once, whatever it was called
    assert sorted(g.model for g in Measured.load(out).models) == sorted(printed)


def test_two_ways_to_write_a_path_are_one_model_and_a_name_of_before_is_that_of_no_head() -> None:
    assert ModelName(ONE, "./a/h.safetensors") == ModelName.parse(f"{ONE}=a//h.safetensors")
    saved_head, like_a_head = ModelName(ONE, "a/h.1.safetensors"), ModelName(ONE, "a/plain.safetensors")
    assert names_before([saved_head, like_a_head, ModelName(ONE, "dfr")]) == {f"{ONE}=h.1": f"{ONE}=a/h.1.safetensors"}


def test_tuned_heads_that_would_be_one_file_are_refused(cache: FeatureCache, tmp_path: Path) -> None:
    workspace = Workspace(cache.path.parents[1])
    by = rank_by_features(WHOLE, cache, {0: (2,), 1: (2,)})
    by.save(place(workspace, "pets", ONE))
    analysis = Analysis.open(workspace, WHOLE, ONE, tmp_path / "out")
    head = fit(WHOLE, cache, "nearest-mean")
    files = [saved.save_model(head, tmp_path / name) for name in ("a", "b")]
    with pytest.raises(HeadError, match="would be one file; tune them into two folders"):
        tune(analysis, [f"{ONE}={file}" for file in files])
    assert not (tmp_path / "out" / "tuning.json").exists()
