"""Saved heads: what comes back predicts the same, on the backbone it was fitted on and on no other."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pets import ONE, TWO, WHOLE, features, write
from safetensors import safe_open
from safetensors.numpy import save_file

from embedx import files
from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.errors import HeadError, ProvenanceError
from embedx.evaluation import saved
from embedx.evaluation.heads import load_head
from embedx.evaluation.model import Model
from embedx.evaluation.probe import fit
from embedx.probes import Head
from embedx.store import FeatureCache
from embedx.workspace import Workspace

LOST = [3, 700]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("cache"))
    manifests.save(WHOLE, workspace.dataset("pets"))
    write(workspace, WHOLE, ONE, features(WHOLE), LOST)
    write(workspace, WHOLE, TWO, features(WHOLE))
    return workspace


@pytest.fixture(scope="module")
def cache(workspace: Workspace) -> FeatureCache:
    return FeatureCache.open_complete(workspace.cache("pets", ONE))


@pytest.fixture(scope="module")
def kept(cache: FeatureCache, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Head]:
    model = fit(WHOLE, cache, "reweighted")
    assert model.fitted is not None
    return saved.save_model(model, tmp_path_factory.mktemp("heads")), model.fitted


@pytest.fixture(scope="module")
def plain(cache: FeatureCache) -> Model:
    return fit(WHOLE, cache, "plain")


def test_a_head_comes_back_as_it_was(kept: tuple[Path, Head], cache: FeatureCache) -> None:
    file, head = kept
    assert [p.name for p in file.parent.iterdir()] == ["pets.tiny-one.reweighted.0.safetensors"]
    notes: list[str] = []
    back = saved.load_model(file, notes.append)
    assert not notes
    assert (back.classes, back.dim, back.dataset, back.record.head) == (WHOLE.classes, 5, "pets", "reweighted")
    assert str(back.name) == f"{ONE}={file}"
    X = features(WHOLE)
    assert np.array_equal(back.probabilities(X), head.predict_proba(X))
    ids, status, proba = (np.concatenate(c) for c in zip(*back.apply(cache), strict=True))
    assert list(ids) == list(WHOLE.ids) and list(np.flatnonzero(status)) == LOST
    ok = status == 0
    assert np.array_equal(proba[ok], head.predict_proba(X[ok])) and np.isnan(proba[~ok]).all()


def test_a_multiclass_head_comes_back(plain: Model, cache: FeatureCache, tmp_path: Path) -> None:
    X, y = features(WHOLE), WHOLE.groups
    head = load_head("plain")(C=0.1).fit(X, y)
    back = saved.load_model(saved.save_model(Model.of(head, plain.record, cache, WHOLE.group_names), tmp_path))
    assert np.array_equal(back.probabilities(X), head.predict_proba(X))


def test_a_head_that_is_not_linear_comes_back_as_its_arrays(cache: FeatureCache, tmp_path: Path) -> None:
    model = fit(WHOLE, cache, "dpe")
    file = saved.save_model(model, tmp_path)
    back, X = saved.load_model(file), features(WHOLE)
    assert back.numbers is None and back.dim == 5
    assert np.array_equal(back.probabilities(X), model.probabilities(X))
    assert np.array_equal(back.predict(X), model.predict(X)) and len(set(back.predict(X))) == 2
    assert saved.save_model(back, tmp_path / "again").read_bytes() == file.read_bytes()
    arrays, words = parts(file)
    assert sorted(arrays) == ["mean", "prototypes", "scale", "scales"]

    def refused(message: str, changed: dict[str, Any] | None = None, **run: Any) -> None:
        document = words | {"run": words["run"] | run}
        save_file(arrays | (changed or {}), tmp_path / "h.safetensors", {"embedx-head": json.dumps(document)})
        with pytest.raises(HeadError, match=message):
            saved.load_model(tmp_path / "h.safetensors")

    refused("prototypes is float64 .15, 3, 5. or not finite, expected finite float64 .15, 2, 5.",
            {"prototypes": np.ones((15, 3, 5))})  # fmt: skip
    refused("scales is float64 .14,. or not finite, expected finite float64 .15,.", {"scales": np.ones(14)})
    refused("it holds bias, mean, prototypes, scale, scales, expected prototypes, scales, mean, scale",
            {"bias": np.ones(1)})  # fmt: skip
    refused("holds no coef, expected the numbers of plain, which is linear", head="plain", parameters={})
    refused("is of py:json, a head from elsewhere", head="py:json")
    refused("is of a head 'gone' that there is not", head="gone")
    refused("is of a head 'dpe' that there is not .*unexpected", parameters={"other": 1})


def test_no_pickle_is_in_it(kept: tuple[Path, Head]) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError, KeyError, EOFError, IndexError)):
        pickle.loads(kept[0].read_bytes())


def test_other_features_are_refused(kept: tuple[Path, Head], workspace: Workspace, tmp_path: Path) -> None:
    back = saved.load_model(kept[0])
    other = FeatureCache.open_complete(workspace.cache("pets", TWO))
    with pytest.raises(
        ProvenanceError, match='weights is "digest of tiny:two", expected "digest of tiny:one"; extract'
    ):
        back.check(other)
    wide = write(Workspace(tmp_path), WHOLE, ONE, np.hstack([features(WHOLE)] * 2))
    with pytest.raises(ProvenanceError, match="dim is 10, expected 5"):
        list(back.apply(wide))


def parts(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the document of a head."""
    with safe_open(file, "numpy") as opened:
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return arrays, json.loads(opened.metadata()["embedx-head"])


def with_header(header: str) -> bytes:
    """A safetensors file of eight bytes whose header says what it likes."""
    return len(header).to_bytes(8, "little") + header.encode() + bytes(8)


ONE_CLASS = "expected two names or more"
DOCUMENTS = {
    "version": ({"version": 9}, r"\$.version is 9, expected 4 .a newer embedx wrote 9: update embedx.; save the head"),
    "format": ({"format": "other"}, r'\$.format is "other", expected "embedx-head"; save the head again'),
    "three classes": ({"classes": ["a", "b", "c"]}, r"coef is float64 .1, 5. or not finite, expected finite .* .3, 5."),
    "a class twice": ({"classes": ["cat", "cat"]}, "the class 'cat' is there twice"),
    "classes as text": ({"classes": "ab"}, r'\$.classes is "ab", expected a list'),
    "one class": ({"classes": ["cat"]}, ONE_CLASS),
    "no classes": ({"classes": None}, r"\$.classes is null, expected a list"),
    "a number among the classes": ({"classes": ["cat", 1]}, r"\$.classes.1. is 1, expected text"),
    "a blank class": ({"classes": ["cat", " "]}, ONE_CLASS),
    "a list in the classes": ({"classes": [["cat"], ["dog"]]}, r"\$.classes.0. is .*, expected text"),
    "dataset": ({"dataset": 3}, r"\$.dataset is 3, expected text"),
    "backbone": ({"backbone": None}, r"\$.backbone is null, expected text"),
    "a blank backbone": ({"backbone": " "}, 'its backbone is " ", expected a name'),
    "identity": ({"identity": "weights"}, r"\$.identity is .*, expected an object"),
    "run": ({"run": []}, r"\$.run is .*, expected an object"),
    "nameless run": ({"run": {"dataset": "x"}}, r"\$.run has no field 'backbone'"),
}
ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "scale 0": ({"scale": [1, 1, 0, 1, 1]}, "scale is down to 0, expected numbers above 0"),
    "negative scale": ({"scale": [1, 1, -1, 1, 1]}, "scale is down to -1"),
    "subnormal scale": ({"scale": [1, 1, 5e-324, 1, 1]}, "scale is down to 4.94066e-324"),
    "tiny scale": ({"scale": [1, 1, 1e-300, 1, 1]}, "so small, that logits overflow"),
    "large coef": ({"coef": [[1, 1, 1e308, 1, 1]]}, "coef and intercept are so large"),
    "large intercept": ({"intercept": [1e308]}, "coef and intercept are so large"),
    "nan": ({"coef": [[1, 1, np.nan, 1, 1]]}, "coef is float64 .1, 5. or not finite"),
    "infinite mean": ({"mean": [1, 1, np.inf, 1, 1]}, "mean is float64 .5,. or not finite"),
    "two rows": ({"coef": np.ones((2, 5))}, "coef is float64 .2, 5. or not finite"),
    "flat coef": ({"coef": np.ones(5)}, "coef is float64 .5,. or not finite"),
    "scalar mean": ({"mean": 1.0}, "coef is float64 .1, 5. or not finite, expected finite float64 .1, 1."),
    "no features": ({"mean": [], "scale": [], "coef": np.ones((1, 0))}, "or not finite"),
    "other widths": ({"mean": np.ones(4)}, "coef is float64 .1, 5. or not finite, expected finite float64 .1, 4."),
    "float32": ({"scale": np.ones(5, np.float32)}, "scale is float32"),
    "whole numbers": ({"intercept": np.ones(1, np.int64)}, "intercept is int64"),
    "one more": ({"bias": [1.0]}, "it holds bias, coef, intercept, mean, scale, expected coef, intercept, mean, scale"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_head_with_an_impossible_document_is_refused(kept: tuple[Path, Head], tmp_path: Path, case: str) -> None:
    arrays, words = parts(kept[0])
    changed, message = DOCUMENTS[case]
    save_file(arrays, tmp_path / "h.safetensors", {"embedx-head": json.dumps(words | changed)})
    with pytest.raises(HeadError, match=message):
        saved.load_model(tmp_path / "h.safetensors")


@pytest.mark.parametrize("case", ARRAYS)
def test_a_head_of_impossible_numbers_is_refused(kept: tuple[Path, Head], tmp_path: Path, case: str) -> None:
    arrays, words = parts(kept[0])
    changed, message = ARRAYS[case]
    arrays |= {k: v if isinstance(v, np.ndarray) else np.array(v, np.float64) for k, v in changed.items()}
    save_file(arrays, tmp_path / "h.safetensors", {"embedx-head": json.dumps(words)})
    with pytest.raises(HeadError, match=message):
        saved.load_model(tmp_path / "h.safetensors")


def test_what_is_no_saved_head_is_refused(kept: tuple[Path, Head], tmp_path: Path) -> None:
    file, (arrays, words) = tmp_path / "h.safetensors", parts(kept[0])
    text = json.dumps(words)
    with pytest.raises(HeadError, match="does not exist; name a head that `embedx probe -o` saved"):
        saved.load_model(file)
    (tmp_path / "h.json").write_text(text)
    with pytest.raises(HeadError, match="is not called NAME.safetensors"):
        saved.load_model(tmp_path / "h.json")
    (tmp_path / "h.json").unlink()
    save_file(arrays, file)
    with pytest.raises(HeadError, match="holds weights, and no classes to go with them"):
        saved.load_model(file)
    for document, message in (
        ("{", "it is no JSON"), ("[]", "is a list, expected an object"), ("[" * 10**5, "nested too deeply"),
        (text.replace('"dim"', '"dim": 7, "dim"', 1), "'dim' is there twice"),
        (text.replace('"seed": 0', '"seed": NaN', 1), "NaN is among its numbers"),
    ):  # fmt: skip
        save_file(arrays, file, {"embedx-head": document})
        with pytest.raises(HeadError, match=message):
            saved.load_model(file)
    whole = kept[0].read_bytes()
    mean, words = '"mean":{"dtype":"F64","shape":[SIZE],"data_offsets":[0,8]}', '"embedx-head":"{}"'
    for data, message in (
        (b"", "is no saved head"), (whole[:60], "is no saved head"), (whole[:-8], "is no saved head"),
        (whole + bytes(8), "is no saved head"), (b"\xff" * 64, "is no saved head"),
        *((with_header("{" + mean.replace("SIZE", n) + "}"), "is no saved head") for n in ("2", str(2**62), "-1")),
        (with_header("{" + f"{mean},{mean}".replace("SIZE", "1") + "}"), "'mean' is there twice"),
        (with_header('{"__metadata__":{' + f"{words},{words}" + "}," + mean.replace("SIZE", "1") + "}"),
         "'embedx-head' is there twice"),
    ):  # fmt: skip
        file.write_bytes(data)
        with pytest.raises(HeadError, match=message):
            saved.load_model(file)
    with file.open("wb") as huge:
        huge.truncate(1 << 40)  # takes no room
    with pytest.raises(HeadError, match="1,099,511,627,776 bytes, more than any head"):
        saved.load_model(file)


def test_the_two_files_of_version_1_are_read_with_a_note(
    kept: tuple[Path, Head], workspace: Workspace, tmp_path: Path
) -> None:
    arrays, words = parts(kept[0])
    save_file(arrays, tmp_path / "old.safetensors")
    (tmp_path / "old.json").write_text(json.dumps(words | {"version": 1}))
    notes: list[str] = []
    back = saved.load_model(tmp_path / "old.safetensors", notes.append)
    X = features(WHOLE)
    assert np.array_equal(back.probabilities(X), kept[1].predict_proba(X)) and len(notes) == 1
    assert "old.json are a head of version 1, and nothing tells whether the two belong together" in notes[0]
    for command in (
        ["predict", tmp_path / "old.safetensors", "pets", "-o", tmp_path / "p.csv"],
        ["spuriosity", "gap", "pets", "-b", ONE, "--model", f"{ONE}={tmp_path / 'old.safetensors'}"],
    ):
        done = CliRunner().invoke(main, ["--cache", str(workspace.path), *map(str, command)])
        assert ("are a head of version 1" in done.stderr) == (command[0] == "predict")  # pets has no ranking
    shutil.copy(kept[0], tmp_path / "new.safetensors")
    (tmp_path / "new.json").write_text(json.dumps(words | {"version": 1, "classes": ["dog", "cat"]}))
    assert saved.load_model(tmp_path / "new.safetensors", notes.append).classes == WHOLE.classes and len(notes) == 1


def test_heads_saved_at_the_same_time_are_never_mixed(plain: Model, tmp_path: Path) -> None:
    """Two writers with the same process number, as in two containers."""
    n = plain.linear
    turned = replace(n, coef=-n.coef, intercept=-n.intercept)
    other = replace(plain, outputs=("dog", "cat"), numbers=turned)
    pair = {("cat", "dog"): plain, ("dog", "cat"): other}  # each the same head, told otherwise
    X, expected = features(WHOLE), None

    def write_all(classes: tuple[str, str]) -> list[Path]:
        return [saved.save_model(pair[classes], tmp_path) for _ in range(30)]

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write_all, classes) for classes in pair]
        expected = [WHOLE.classes[c] for c in (n.logits(X)[:, 0] > 0).astype(int)]
        while not all(w.done() for w in writers):
            if (file := tmp_path / "pets.tiny-one.plain.0.safetensors").exists():
                back = saved.load_model(file)
                assert [back.classes[c] for c in back.probabilities(X).argmax(axis=1)] == expected
        assert {p.name for w in writers for p in w.result()} == {file.name}
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_a_save_that_is_killed_leaves_the_old_head(
    plain: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved.save_model(plain, tmp_path)
    before = file.read_bytes()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        saved.save_model(replace(plain, outputs=WHOLE.classes[::-1]), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [file.name] and file.read_bytes() == before


def test_heads_of_two_datasets_have_two_names(plain: Model) -> None:
    assert saved.file_name(plain.record) == "pets.tiny-one.plain.0.safetensors"
    assert saved.file_name(replace(plain.record, dataset="farm")) == "farm.tiny-one.plain.0.safetensors"


def test_a_head_without_a_record_is_not_saved(plain: Model, tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="tiny:one=plain has no record of the run that it came from"):
        saved.save_model(replace(plain, run=None), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_record_of_an_early_version_keeps_no_head_from_being_read(kept: tuple[Path, Head], tmp_path: Path) -> None:
    arrays, words = parts(kept[0])
    early = {key: value for key, value in words["run"].items() if key not in ("metrics", "versions")}
    save_file(arrays, tmp_path / "h.safetensors", {"embedx-head": json.dumps(words | {"version": 2, "run": early})})
    back, X = saved.load_model(tmp_path / "h.safetensors"), features(WHOLE)
    assert back.run is None and np.array_equal(back.probabilities(X), kept[1].predict_proba(X))


def test_saving_what_was_read_gives_the_same_file(kept: tuple[Path, Head], tmp_path: Path) -> None:
    """Also in another order of classes: what is written is the head's own."""
    back = saved.load_model(kept[0])
    for model in (back, replace(back, classes=back.classes[::-1])):
        assert saved.save_model(model, tmp_path).read_bytes() == kept[0].read_bytes()


def test_a_head_that_is_not_linear_says_so(plain: Model, cache: FeatureCache, tmp_path: Path) -> None:
    class Crooked(Head):
        def _fits(self, data, variants):
            return []

        def decision_function(self, X):
            return np.zeros(len(X))

    with pytest.raises(HeadError, match="head 'plain' is more than a few arrays, and cannot be saved"):
        saved.save_model(Model.of(Crooked(), plain.record, cache, WHOLE.classes), tmp_path)
    assert not list(tmp_path.iterdir())
