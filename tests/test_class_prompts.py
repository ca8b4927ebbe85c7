"""Prompts of the classes: their vectors, the projection of the cache, and the heads that take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pets import TWO, WHOLE, features

from embedx.errors import BackboneError, HeadError, UnknownName
from embedx.evaluation.compare import ComparisonSettings, compare
from embedx.evaluation.probe import fit, probe_cache
from embedx.extract import prompts as prompting
from embedx.extract.prompts import class_prompts
from embedx.probes import Labels, Supervision
from embedx.store import CacheWriter, FeatureCache, Header, Rows
from embedx.workspace import Workspace

CLIP = "clip:one"
WORDS = {"dog": ["a dog", "two dogs", "dogs"], "cat": ["a cat"]}
VECTORS = {"a cat": [-1.0, 0, 0], "a dog": [2.0, 0, 0], "two dogs": [0, 3.0, 0], "dogs": [4.0, 0, 0]}


def write(workspace: Workspace, backbone: str, extras: dict[str, np.ndarray]) -> FeatureCache:
    X, n = features(WHOLE), len(WHOLE)
    provenance = {"spec": backbone, "identity": {"weights": f"digest of {backbone}"}, "conditions": {}}
    header = Header(backbone, X.shape[1], "float32", WHOLE.ids_digest, 0, n, n, provenance)
    with CacheWriter(workspace.cache(WHOLE.name, backbone), header, WHOLE.ids) as writer:
        writer.append(Rows(WHOLE.ids, X, np.zeros(n, np.uint8), np.zeros((n, 32), np.uint8)))
        for name, array in extras.items():
            writer.attach(name, array)
    return FeatureCache.open_complete(workspace.cache(WHOLE.name, backbone))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Text vectors that are known; a backbone with a projection to three features, and one without a text tower."""

    def text(workspace: Workspace, spec: str, prompts: Sequence[str]) -> np.ndarray:
        if spec != CLIP:
            raise BackboneError(f"{spec} has no text tower")
        return np.array([VECTORS[prompt] for prompt in prompts], np.float32)

    monkeypatch.setattr(prompting, "text_features", text)
    write(Workspace(tmp_path), CLIP, {"projection": np.eye(5, 3, k=-1, dtype=np.float32)})
    write(Workspace(tmp_path), TWO, {})
    return Workspace(tmp_path)


def cache(workspace: Workspace, backbone: str = CLIP) -> FeatureCache:
    return FeatureCache.open_complete(workspace.cache(WHOLE.name, backbone))


def test_prompts_of_values_and_of_groups_say_what_is_spurious(workspace: Workspace) -> None:
    (attribute,) = WHOLE.grouping
    value, (first, second) = WHOLE.values[attribute][0], [g for g in WHOLE.group_names if g.startswith("cat/")]
    more = {value: ["dogs"], first: ["a cat", "two dogs"], second: ["a dog"]}
    found = class_prompts(workspace, WHOLE, cache(workspace), WORDS | more)
    np.testing.assert_array_equal(found.spurious, [[1, 0, 0]])
    a, b, c = [-1, 0, 0], [0, 1, 0], [1, 0, 0]
    np.testing.assert_array_equal(found.pairs, [[a, b], [a, c], [b, c]])
    alone = class_prompts(workspace, WHOLE, cache(workspace), WORDS)
    assert alone.spurious is None and alone.pairs is None
    np.testing.assert_array_equal(found.text, alone.text)
    with pytest.raises(HeadError, match="needs prompts of what is spurious, too; give --prompt VALUE=TEXT"):
        fit(WHOLE, cache(workspace), "zero-shot-debiased", prompts=WORDS)
    fit(WHOLE, cache(workspace), "zero-shot-debiased projection=orthogonal", prompts=WORDS | {value: ["two dogs"]})


def test_a_class_is_the_mean_of_the_unit_vectors_of_its_prompts(workspace: Workspace) -> None:
    found = class_prompts(workspace, WHOLE, cache(workspace), WORDS)
    np.testing.assert_allclose(found.text, [[-1, 0, 0], [2 / 3, 1 / 3, 0]], rtol=1e-6)  # cat before dog
    np.testing.assert_array_equal(found.projection, np.eye(5, 3, k=-1))


def test_what_is_asked_wrongly_is_refused(workspace: Workspace) -> None:
    for words, backbone, error, message in (
        (WORDS | {"dgo": ["x"]}, CLIP, UnknownName, "prompt for 'dgo', which is no class: did you mean 'dog'"),
        ({"cat": ["a cat"]}, CLIP, HeadError, "no prompt for class 'dog'; give one with --prompt 'dog'=TEXT"),
        (WORDS, TWO, BackboneError, "has no text tower"),
    ):
        with pytest.raises(error, match=message):
            probe_cache(workspace, WHOLE, cache(workspace, backbone), "zero-shot", prompts=words)
    with pytest.raises(HeadError, match="'zero-shot' needs a prompt for every class; give --prompt CLASS=TEXT"):
        probe_cache(workspace, WHOLE, cache(workspace), "zero-shot")
    with pytest.raises(HeadError, match="there are prompts, and plain takes none; add --head zero-shot"):
        probe_cache(workspace, WHOLE, cache(workspace), "plain", prompts=WORDS)


def test_zero_shot_is_the_nearest_class(workspace: Workspace) -> None:
    model = fit(WHOLE, cache(workspace), "zero-shot", prompts=WORDS)
    run = model.record
    X = features(WHOLE)[WHOLE.splits == 2]
    U = X[:, 1:4]
    U = U / np.linalg.norm(U, axis=1, keepdims=True)
    T = np.array([[-1, 0, 0], np.array([2, 1, 0]) / 5**0.5])
    expected = (U @ T.T).argmax(axis=1)
    np.testing.assert_array_equal(model.predict(X), expected)
    assert run.metrics.average.value == np.mean(expected == WHOLE.labels[WHOLE.splits == 2])
    assert run.supervision == (Supervision(Labels.PROMPTS),) and not run.uses_groups


def test_backbones_without_text_are_left_out_of_a_comparison(workspace: Workspace) -> None:
    said: list[str] = []
    options = ComparisonSettings(prompts=WORDS, lenient=True)
    found = compare(workspace, WHOLE, [CLIP, TWO], ["plain", "zero-shot"], options, notice=said.append)
    assert [(r.backbone, r.head) for r in found] == [(CLIP, "plain"), (CLIP, "zero-shot"), (TWO, "plain")]
    assert said == [f"note: left out: {TWO} has no text tower"]
