"""Ranking: z-scores within classes against a plain loop, ties, dead features; tables that come back or are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pets import ONE, TWO, WHOLE, build, features, table, write

import embedx
from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import CacheError, ProvenanceError, SpuriosityError, UnknownName
from embedx.evaluation.probe import fit
from embedx.evaluation.split import join, ranked
from embedx.probes import supervision_in_words
from embedx.spuriosity import annotations
from embedx.spuriosity.features.activations import columns, stream
from embedx.spuriosity.measures.scores import rank_by_features, rank_by_scores
from embedx.spuriosity.records.ranking import Ranking, place
from embedx.store import FeatureCache, header
from embedx.workspace import Workspace

LOST = [3, 700, 701]
CUES = {0: (2,), 1: (2, 4)}


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


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "BLOCK_BYTES", 400)


def drawn(seed: int, n: int, k: int) -> Manifest:
    """Rows of k classes in all splits, each class with a training row."""
    rng = np.random.default_rng(seed)
    y, splits = np.r_[np.arange(k), rng.integers(0, k, n - k)], ["train"] * k + rng.choice(SPLITS, n - k).tolist()
    ids = [f"{i:04d}" for i in rng.permutation(n)]
    return manifests.build("drawn", {"id": ids, "label": [f"c{c}" for c in y], "split": splits})


def plain_scores(manifest: Manifest, X: np.ndarray, cues: Any, lost: Sequence[int], statistics: str) -> list[float]:
    """The definition, row by row."""
    found = []
    for i in range(len(manifest)):
        c, scores = manifest.labels[i], []
        for f in cues.get(c, ()):
            split = manifest.splits[i] if statistics == "per-split" else 0
            like = [
                float(X[j, f]) for j in range(len(manifest))
                if manifest.labels[j] == c and manifest.splits[j] == split and j not in lost
            ]  # fmt: skip
            mean = sum(like) / len(like) if like else 0.0
            deviation = (sum((v - mean) ** 2 for v in like) / len(like)) ** 0.5 if like else 0.0
            if max(like, default=0) > min(like, default=0):
                scores.append((float(X[i, f]) - mean) / deviation)
        found.append(sum(scores) / len(scores) if scores and i not in lost else float("nan"))
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 4), st.sampled_from(["train", "per-split"]), st.booleans())
def test_scores_are_those_of_the_definition(
    tmp_path_factory: pytest.TempPathFactory, seed: int, k: int, statistics: str, half: bool
) -> None:
    manifest, rng = drawn(seed, 50, k), np.random.default_rng(seed)
    X = np.round(rng.normal(size=(50, 6)) * 2).astype(np.float16 if half else np.float32)  # with ties
    X[:, 5] = 0.1  # dead
    first = [int(np.flatnonzero((manifest.labels == c) & (manifest.splits == 0))[0]) for c in range(k)]
    lost = sorted(set(rng.integers(0, 50, 4).tolist()) - set(first))
    cues = {c: tuple(rng.choice(6, rng.integers(1, 4), replace=False).tolist()) for c in range(k - 1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(header, "BLOCK_BYTES", 100)  # a few rows a block
        cache = write(Workspace(tmp_path_factory.mktemp("drawn")), manifest, ONE, X, lost)
        found = rank_by_features(manifest, cache, cues, statistics=statistics)
    np.testing.assert_allclose(
        found.scores, plain_scores(manifest, X, cues, lost, statistics), rtol=1e-9, atol=1e-12
    )  # fmt: skip
    assert all(5 in found.dropped[c] for c, of in cues.items() if 5 in of)
    assert found.features == cues and k - 1 not in found.cues


def test_one_feature_has_mean_zero_and_deviation_one_on_the_training_rows(cache: FeatureCache) -> None:
    found = rank_by_features(WHOLE, cache, {0: (1,), 1: (3,)})
    for c in range(2):
        scores = found.scores[(WHOLE.labels == c) & (WHOLE.splits == 0) & ~np.isnan(found.scores)]
        assert (scores.mean(), scores.std()) == pytest.approx((0, 1), abs=1e-9)
        other = found.scores[(WHOLE.labels == c) & (WHOLE.splits == 2)]
        assert abs(np.nanmean(other)) > 1e-3  # another split has its own
        own = rank_by_features(WHOLE, cache, {0: (1,), 1: (3,)}, statistics="per-split").scores
        mine = own[(WHOLE.labels == c) & (WHOLE.splits == 2) & ~np.isnan(own)]
        assert (mine.mean(), mine.std()) == pytest.approx((0, 1), abs=1e-9)


def test_scale_and_shift_of_a_feature_are_nothing(workspace: Workspace, cache: FeatureCache, tmp_path: Path) -> None:
    moved = features(WHOLE) * np.array([1, 1, 8, 1, 0.25], np.float32) + np.array([0, 0, 3, 0, 1], np.float32)
    other = write(Workspace(tmp_path), WHOLE, ONE, moved, LOST)
    a, b = rank_by_features(WHOLE, cache, CUES), rank_by_features(WHOLE, other, CUES)
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-4, atol=1e-4)


def test_positions_are_places_within_class_and_split(cache: FeatureCache) -> None:
    found = rank_by_features(WHOLE, cache, CUES)
    assert list(np.flatnonzero(found.positions < 0)) == LOST == list(np.flatnonzero(np.isnan(found.scores)))
    for c in range(2):
        for s in range(3):
            rows = np.flatnonzero((WHOLE.labels == c) & (WHOLE.splits == s) & (found.positions >= 0))
            order = rows[np.argsort(found.positions[rows])]
            assert sorted(found.positions[rows]) == list(range(len(rows)))
            assert (np.diff(found.scores[order]) >= 0).all()


def test_equal_scores_go_by_id_and_a_reversed_ranking_is_reversed() -> None:
    manifest = drawn(1, 60, 3)
    values = np.random.default_rng(0).integers(0, 3, 60).astype(float)
    facts = {"backbone": "text:x", "weights": "w", "cues": dict.fromkeys(range(3), ("x",))}
    found = rank_by_scores(manifest, values, **facts)
    for i in range(60):
        like = (manifest.labels == manifest.labels[i]) & (manifest.splits == manifest.splits[i])
        before = like & ((values < values[i]) | ((values == values[i]) & (manifest.ids < manifest.ids[i])))
        assert found.positions[i] == np.count_nonzero(before) or np.isnan(found.scores[i])
    apart = values + np.arange(60) * 1e-3
    up, down = (rank_by_scores(manifest, sign * apart, **facts) for sign in (1, -1))
    np.testing.assert_allclose(up.scores, -down.scores)
    sizes = np.array([np.sum((manifest.labels == c) & (manifest.splits == s)) for c in range(3) for s in range(3)])
    of = sizes[manifest.labels * 3 + manifest.splits]
    ranked = up.positions >= 0
    assert np.array_equal(up.positions[ranked], (of - 1 - down.positions)[ranked]) and ranked.any()


def test_what_is_planted_is_recovered(cache: FeatureCache) -> None:
    """The feature that shows the place ranks the place: AUROC within each class."""
    found = rank_by_features(WHOLE, cache, {0: (2,), 1: (2,)})
    for c in range(2):
        rows = np.flatnonzero((WHOLE.labels == c) & (WHOLE.splits == 2) & (found.positions >= 0))
        place_of = WHOLE.codes["place"][rows]
        above = found.scores[rows][place_of == 1][:, None] > found.scores[rows][place_of == 0][None, :]
        assert above.mean() > 0.95


def test_dead_features_are_dropped_and_named(tmp_path: Path) -> None:
    X = features(WHOLE)
    X[WHOLE.labels == 0, 2] = 0.3
    X[:, 4] = 7
    cache = write(Workspace(tmp_path), WHOLE, ONE, X)
    found = rank_by_features(WHOLE, cache, {0: (2, 1), 1: (4,)})
    assert found.dropped == {0: (2,), 1: (4,)}
    alone = rank_by_features(WHOLE, cache, {0: (1,)})
    cat = WHOLE.labels == 0
    assert np.array_equal(found.scores[cat], alone.scores[cat]) and np.isfinite(found.scores[cat]).all()
    assert np.isnan(found.scores[~cat]).all() and (found.positions[~cat] == -1).all()


def test_a_class_without_training_rows_is_refused_unless_per_split(tmp_path: Path) -> None:
    frame = table().query("label != 'dog' or split != 'train'")
    manifest = build(frame)
    cache = write(Workspace(tmp_path), manifest, ONE, features(manifest))
    with pytest.raises(SpuriosityError, match="class 'dog' has no usable training row to take mean and deviation"):
        rank_by_features(manifest, cache, CUES)
    assert np.isfinite(rank_by_features(manifest, cache, CUES, statistics="per-split").scores).all()


@pytest.mark.usefixtures("small_blocks")
def test_every_block_is_read_once_and_those_without_ranked_rows_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = features(WHOLE)
    cache = write(Workspace(tmp_path), WHOLE, ONE, X, LOST)
    assert cache.blocks > 50
    plain, seen = FeatureCache.chunks, []

    def counted(self: FeatureCache, wanted: np.ndarray | None = None) -> Iterator[Any]:
        for chunk in plain(self, wanted):
            seen.append(bytes(chunk.ids[0]))
            yield chunk

    monkeypatch.setattr(FeatureCache, "chunks", counted)
    rank_by_features(WHOLE, cache, CUES)
    assert len(seen) == len(set(seen)) == cache.blocks
    wanted = np.zeros(len(WHOLE), bool)
    wanted[[5, 6, 900, *LOST]] = True
    seen.clear()
    rows = np.concatenate([r for r, _ in stream(WHOLE, cache, wanted)])
    size = cache.header.block_rows
    assert list(rows) == [5, 6, 900] and len(seen) == len({5 // size, 6 // size, 900 // size})
    found = columns(WHOLE, cache, np.array([[1, -1], [3, 0]]), wanted)
    assert np.isnan(found[~wanted]).all() and np.isnan(found[LOST]).all()
    for i in (5, 6, 900):
        expected = [[X[i, 1], np.nan], [X[i, 3], X[i, 0]]][WHOLE.labels[i]]
        np.testing.assert_array_equal(found[i], np.array(expected, np.float32))


@pytest.mark.usefixtures("small_blocks")
def test_a_damaged_block_is_refused(tmp_path: Path) -> None:
    cache = write(Workspace(tmp_path), WHOLE, ONE, features(WHOLE))
    data = bytearray(cache.path.read_bytes())
    data[data.index(features(WHOLE)[500].tobytes())] ^= 1
    cache.path.write_bytes(data)
    with pytest.raises(CacheError, match="rows 500 to 520 are damaged"):
        rank_by_features(WHOLE, cache, CUES)


def test_a_manifest_may_have_lost_rows(cache: FeatureCache) -> None:
    """Rows are joined by id: a training row less changes mean and deviation, a test row less changes nothing."""
    frame = table()
    fewer = build(frame[(frame.split != "test") | (frame.index % 3 > 0)])
    by_id = dict(zip(WHOLE.ids, rank_by_features(WHOLE, cache, CUES).scores, strict=True))
    np.testing.assert_array_equal(rank_by_features(fewer, cache, CUES).scores, [by_id[i] for i in fewer.ids])


@pytest.mark.parametrize(
    ("cues", "options", "kind", "message"),
    [
        ({}, {}, SpuriosityError, "no class of pets has a spurious feature, so there is nothing to rank by; annotate"),
        ({0: ()}, {}, SpuriosityError, "no class of pets has a spurious feature"),
        ({7: (0,)}, {}, SpuriosityError, "cues for class 7, and pets has 2 classes"),
        ({1: (0, 5)}, {}, SpuriosityError, "class 'dog' has feature 5 as a cue, and .* has 5 features, counted from 0"),
        ({1: (-1,)}, {}, SpuriosityError, "class 'dog' has feature -1 as a cue"),
        (CUES, {"statistics": "val"}, UnknownName, "unknown statistics 'val': .*known: per-split, train"),
    ],
)
def test_what_cannot_rank(cache: FeatureCache, cues: Any, options: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        rank_by_features(WHOLE, cache, cues, **options)


def odd_manifest() -> Manifest:
    ids = ["NA", "nan", 'a"b', "a,b", "null", "ü", "1", "01"]
    labels = ["NA", "None"] * 4
    return manifests.build("odd", {"id": ids, "label": labels, "split": ["train"] * 6 + ["test", "val"]})


def test_a_ranking_comes_back_to_the_last_bit(cache: FeatureCache, tmp_path: Path) -> None:
    manifest = odd_manifest()
    values = np.array([np.nan, *np.random.default_rng(0).normal(size=7)])
    odd = rank_by_scores(manifest, values, backbone="text:x", weights="w", cues={0: ("x, y",), 1: ("ü",)})
    whole = rank_by_features(WHOLE, cache, CUES, words={0: ("grass",)})
    for found, of in ((odd, manifest), (whole, WHOLE)):
        path = tmp_path / f"{of.name}.spuriosity.csv"
        found.save(path)
        back = Ranking.load(path, of)
        for name in ("scores", "positions", "ids", "labels", "splits"):
            np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
        for name in ("dataset", "backbone", "weights", "statistics", "cues", "dropped", "classes", "features"):
            assert getattr(back, name) == getattr(found, name)
    assert whole.cues == {0: ("grass",), 1: ("feature 2", "feature 4")}


def test_the_table_is_for_people_too(cache: FeatureCache, tmp_path: Path) -> None:
    rank_by_features(WHOLE, cache, {0: (2,)}).save(tmp_path / "r.csv")
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert lines[0] == "id,label,split,spuriosity,position" and len(lines) == len(WHOLE) + 1
    dog = next(line for line in lines if ",dog,test," in line)
    assert dog.endswith(",dog,test,,")
    assert json.loads((tmp_path / "r.json").read_text())["rows"] == len(WHOLE)


def test_a_ranking_follows_rows_and_nothing_else(workspace: Workspace, cache: FeatureCache, tmp_path: Path) -> None:
    path = tmp_path / "pets.spuriosity.csv"
    found = rank_by_features(WHOLE, cache, CUES)
    found.save(path)
    frame = table()
    fewer = build(frame[frame.index % 3 > 0])
    back, kept = Ranking.load(path, fewer, cache), np.isin(WHOLE.ids, fewer.ids)
    np.testing.assert_array_equal(back.scores, found.scores[kept])
    frame.loc[7, "label"] = "dog"
    with pytest.raises(SpuriosityError, match=r"has label 'cat' in it and 'dog' in the manifest \(1 such rows\); run"):
        Ranking.load(path, build(frame))
    moved = table()
    moved.loc[7, "split"] = "val"
    with pytest.raises(SpuriosityError, match="has split 'train' in it and 'val' in the manifest"):
        Ranking.load(path, build(moved))
    more = table()
    more.loc[0, "id"] = "other.png"
    with pytest.raises(SpuriosityError, match=r"1 of the 1,390 rows of pets are not in it \(for example other.png\)"):
        Ranking.load(path, build(more))
    with pytest.raises(SpuriosityError, match="ranks pets, expected odd"):
        Ranking.load(path, odd_manifest())
    with pytest.raises(
        ProvenanceError, match="made with weights digest of tiny:o.*holds features of weights digest of"
    ):
        Ranking.load(path, WHOLE, FeatureCache.open_complete(workspace.cache("pets", TWO)))


def test_what_is_no_ranking_is_refused(cache: FeatureCache, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    with pytest.raises(SpuriosityError, match="does not exist; make it with `embedx spuriosity rank`"):
        Ranking.load(path, WHOLE)
    rank_by_features(WHOLE, cache, CUES).save(path)
    facts, text = json.loads(path.with_suffix(".json").read_text()), path.read_text()
    del facts["sha256"]  # as an earlier version wrote it
    words = json.dumps(facts, indent=1)
    for json_text, csv_text, message in (
        (words.replace('"version": 1', '"version": 2'), text, r"\$.version is 2, expected 1"),
        ("{", text, "r.json: it is no JSON"),
        (words, "\n".join(text.splitlines()[:-5]), "is damaged or was edited"),
        (words, text.replace("spuriosity", "score", 1), "is no ranking"),
        (words, "", "is no ranking"),
    ):
        path.with_suffix(".json").write_text(json_text)
        path.write_text(csv_text)
        with pytest.raises(SpuriosityError, match=message):
            Ranking.load(path, WHOLE)


def test_text_scores_rank_the_same_way(cache: FeatureCache) -> None:
    """Similarities to a text that happen to be a feature give the ranking by that feature."""
    by_feature = rank_by_features(WHOLE, cache, {0: (2,)})
    values = features(WHOLE)[:, 2].astype(float)
    values[LOST] = np.nan
    by_text = rank_by_scores(WHOLE, values, backbone="text:clip", weights="w", cues={0: ("water",)})
    np.testing.assert_allclose(by_text.scores, by_feature.scores, rtol=1e-6)
    np.testing.assert_array_equal(by_text.positions, by_feature.positions)
    assert by_text.cues == {0: ("water",)} and not by_text.features


def annotated(cache: FeatureCache, folder: Path, **changes: Any) -> None:
    facts = {"dataset": "pets", "backbone": ONE, "weights": cache.header.identity["weights"], "source": "local"}
    said = [
        annotations.Annotation(
            class_index=c, class_name=WHOLE.classes[c], feature=2, label="spurious", cue=cue, **(facts | changes)
        )
        for c, cue in enumerate(("indoors", ""))
    ]  # fmt: skip
    annotations.write(folder / annotations.FILE, said)


def test_the_command_ranks_what_was_annotated(workspace: Workspace, cache: FeatureCache, tmp_path: Path) -> None:
    line = ["--cache", str(workspace.path), "spuriosity", "rank", "pets", "-b", ONE, "-o", str(tmp_path)]
    none = CliRunner().invoke(main, line)
    assert none.exit_code == 1 and "make it with `embedx spuriosity annotate pets`" in none.output
    annotated(cache, tmp_path)
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 0, done.output
    assert "indoors" in done.output and "feature 2" in done.output and "1,387 images ranked" in done.output
    path = place(workspace, "pets", ONE)
    assert path == workspace.path / "pets" / "tiny-one.spuriosity.csv" and workspace.backbones("pets") == (
        "tiny-one",
        "tiny-two",
    )
    back = Ranking.load(path, WHOLE, cache)
    np.testing.assert_array_equal(back.scores, rank_by_features(WHOLE, cache, {0: (2,), 1: (2,)}).scores)
    split = CliRunner().invoke(main, [*line, "--per-split"])
    assert split.exit_code == 0 and Ranking.load(path, WHOLE).statistics == "per-split"
    assert CliRunner().invoke(main, [*line, "--min-votes", "some"]).exit_code == 2
    annotated(cache, tmp_path, weights="of another network")
    other = CliRunner().invoke(main, line)
    assert other.exit_code == 1 and "mean nothing in another network" in other.output


@pytest.mark.slow
def test_the_benchmark_runs_at_a_small_size(tmp_path: Path) -> None:
    out = tmp_path / "spuriosity.json"
    line = ["--rows", "20000", "--classes", "50", "--dim", "64", "--repeats", "1", "--out", str(out)]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.spuriosity", *line, "--folder", str(tmp_path)], check=True,
        capture_output=True, cwd=Path(embedx.__file__).parents[1],
    )  # fmt: skip
    report = json.loads(out.read_text())
    assert report["size"]["rows"] == 20_000 and 0 < report["memory"]["gibibytes"] < report["memory"]["goal"]
    assert min(report[state]["ratio"] for state in ("cold", "warm")) > 0
    assert list(tmp_path.iterdir()) == [out]


def test_a_ranking_says_what_the_choice_of_its_cues_took(cache: FeatureCache, tmp_path: Path) -> None:
    """A ranking by known attributes is no ranking without group labels, and heads that use it say so."""
    found = rank_by_features(WHOLE, cache, CUES, sources=("auto:attribute", "local"))
    found.save(path := tmp_path / "r.csv")
    again = Ranking.load(path, WHOLE)
    assert again.sources == ("auto:attribute", "local")
    assert again.supervision == "by known attributes of training images and votes of people on features"
    assert ranked(join(WHOLE, cache), again).ranked_by == again.supervision
    run = fit(WHOLE, cache, "low-spuriosity", ranking=again).record
    assert supervision_in_words(run.supervision).startswith(f"spuriosity ranking {again.supervision}; ")
    assert rank_by_features(WHOLE, cache, CUES).supervision == ""


def test_an_outdated_ranking_is_told_and_one_by_other_weights_refused(cache: FeatureCache, tmp_path: Path) -> None:
    workspace, out = Workspace(tmp_path / "cache"), tmp_path / "out"
    manifests.save(WHOLE, workspace.dataset("pets"))
    write(workspace, WHOLE, ONE, features(WHOLE))
    one = FeatureCache.open_complete(workspace.cache("pets", ONE))
    path = place(workspace, "pets", ONE)
    rank_by_features(WHOLE, one, CUES).save(path)
    out.mkdir()
    annotated(one, out)
    words = ["spuriosity", "gap", "pets", "-b", ONE, "--model", f"{ONE}=plain", "-o", str(out)]
    line = ["--cache", str(workspace.path), *words]
    for cues, told in ((CUES, True), ({0: (2,), 1: (2,)}, False)):
        rank_by_features(WHOLE, one, cues).save(path)
        done = CliRunner().invoke(main, line)
        assert done.exit_code == 0, done.output
        assert ("annotations.jsonl calls other features spurious than those that ranked" in done.output) == told
    replace(rank_by_features(WHOLE, one, CUES), weights="others").save(path)
    other = CliRunner().invoke(main, line)
    assert other.exit_code == 1 and "was made with weights others of" in other.output
