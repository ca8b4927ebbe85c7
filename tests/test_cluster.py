"""A column named as the cluster: kept with the manifest, no group, and never divided where rows are drawn or parted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pets import ONE, WHOLE, build, features, part, table, write
from test_webdataset import pack, picture
from test_wilds import folder as wilds_folder

from embedx.data import manifest as manifests
from embedx.data.manifest import Manifest
from embedx.data.prepare import open_prepared, prepare
from embedx.errors import ManifestError, SplitError, UnknownName
from embedx.evaluation.compare import compare
from embedx.evaluation.evaluate import Evaluator
from embedx.evaluation.head_spec import HeadSpec
from embedx.evaluation.probe import probe
from embedx.evaluation.runs import unpack_codes
from embedx.evaluation.split import halves, join
from embedx.probes import Head
from embedx.probes._draws import balanced_draws
from embedx.probes._inference import folds_of
from embedx.probes._two_stage import Halves
from embedx.probes.afr import Afr
from embedx.probes.dfr import Dfr
from embedx.probes.group_balanced import GroupBalanced
from embedx.probes.jtt import Jtt
from embedx.probes.low_spuriosity import LowSpuriosity
from embedx.spuriosity.measures.stopping import halved
from embedx.workspace import Workspace

OWNERS = table().assign(owner=[f"owner {i % 97}" for i in range(len(table()))])


def words(manifest: Manifest) -> dict[str, str]:
    """{id: its subject}"""
    found = manifest.subjects
    assert found is not None
    return dict(zip(manifest.ids, np.take(found.names, found.codes), strict=True))


def test_a_cluster_is_saved_and_read_and_is_no_attribute(tmp_path: Path) -> None:
    manifest = build(OWNERS, cluster="owner", grouping=("place",))
    assert manifest.grouping == ("place",) and "owner" not in manifest.codes and manifest.groups is not None
    assert words(manifest) == dict(zip(OWNERS.id, OWNERS.owner, strict=True))
    manifests.save(manifest, tmp_path)
    facts = json.loads((tmp_path / "manifest.json").read_text())
    assert facts["cluster"] == "owner" and "owner 3" not in json.dumps(facts)
    again, edited = manifests.load(tmp_path)
    assert (again.digest, edited, words(again)) == (manifest.digest, False, words(manifest))
    text = (tmp_path / "manifest.csv").read_text()
    (tmp_path / "manifest.csv").write_text(text.replace("owner 3\n", "owner 4\n", 1))
    changed, edited = manifests.load(tmp_path)
    assert edited and changed.digest != manifest.digest


def test_manifests_without_the_key_are_what_they_were(tmp_path: Path) -> None:
    manifests.save(WHOLE, tmp_path)
    facts = json.loads((tmp_path / "manifest.json").read_text())
    assert "cluster" not in facts
    again, edited = manifests.load(tmp_path)
    assert again.subjects is None and not edited
    assert (
        WHOLE.digest == "6b550902f48636b24c5fd2939445cc2e30f61d5c15b5ab5abdc960acf749aa66"
    )  # of this table before there were clusters


def test_a_cluster_of_very_many_subjects_costs_no_groups() -> None:
    n = 30_000
    columns = {
        "id": [f"{i:05d}" for i in range(n)], "label": [f"c{i % 100:02d}" for i in range(n)],
        "split": ["train"] * n, "burst": [f"{i // 2}" for i in range(n)],
    }  # fmt: skip
    manifest = manifests.build("many", columns, cluster="burst")
    assert len(manifest.group_names) == 100 and manifest.subjects is not None and len(manifest.subjects.names) == n // 2


@pytest.mark.parametrize(
    ("cluster", "change", "message"),
    [
        ("onwer", {}, "the cluster 'onwer' is no column of the table; did you mean 'owner'"),
        ("split", {}, "the cluster 'split' is no column of the table; known: owner, place"),
        ("owner", {"owner": ""}, "has owner ''"),
    ],
)
def test_clusters_that_cannot_be(cluster: str, change: dict[str, str], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        build(OWNERS.assign(**change), cluster=cluster)
    with pytest.raises(ManifestError, match="'owner' forms groups and cannot be the cluster too"):
        build(OWNERS, cluster="owner", grouping=("owner",))


def test_csv_names_a_cluster(tmp_path: Path) -> None:
    OWNERS.rename(columns={"id": "path"}).to_csv(tmp_path / "pets.csv", index=False)
    workspace = Workspace(tmp_path / "cache")
    manifest, _ = prepare(workspace, "csv", tmp_path / "pets.csv", {"cluster": "owner", "attributes": "place"})
    assert words(manifest) == dict(zip(OWNERS.id, OWNERS.owner, strict=True)) and manifest.grouping == ("place",)
    assert words(open_prepared(workspace, "pets")[0]) == words(manifest)
    for options, message in (
        ({"cluster": "onwer"}, "no column 'onwer': did you mean 'owner'.*-O cluster=COLUMN"),
        ({"cluster": "label"}, "'label' cannot be the name of an attribute"),
        ({"cluster": "owner", "attributes": "owner,place"}, "'owner' forms groups and cannot be the cluster too"),
    ):
        with pytest.raises(ManifestError, match=message):
            prepare(workspace, "again=csv", tmp_path / "pets.csv", options)


def test_webdataset_names_a_cluster(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        members = [
            m for i in range(4)
            for m in ((f"{i}.png", picture(i)), (f"{i}.json", json.dumps({"kind": "ab"[i % 2], "who": {"id": i // 2}})))
        ]  # fmt: skip
        pack(tmp_path / "data" / f"{split}-0.tar", members)
    options = {"label": "json:kind", "cluster": "json:who.id"}
    manifest, _ = prepare(Workspace(tmp_path / "cache"), "webdataset", tmp_path / "data", options)
    assert [w for _, w in sorted(words(manifest).items())] == ["0", "0", "1", "1"] * 3
    assert manifest.subjects is not None and manifest.subjects.column == "who.id" and manifest.grouping == ()


def test_hugging_face_names_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    parts = {
        split: datasets.Dataset.from_dict(
            {"image": [{"bytes": picture(i), "path": None} for i in range(4)], "label": ["a", "b"] * 2,
             "patient": [7, 7, 8, None]},
            features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string"),
                                        "patient": datasets.Value("int64")}),
        )
        for split in ("train", "validation", "test")
    }  # fmt: skip
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "scans"))
    manifest, remarks = prepare(Workspace(tmp_path / "c"), "hf", tmp_path / "scans", {"cluster": "patient"})
    assert list(words(manifest).values()) == ["7", "7", "8"] * 3 and "patient" not in manifest.values
    assert any("3 rows left out, without a value of label, patient" in r for r in remarks)


def test_wilds_takes_any_column_and_other_datasets_one_of_their_attributes(tmp_path: Path) -> None:
    workspace, root = Workspace(tmp_path / "cache"), wilds_folder(tmp_path / "camelyon17_v1.0", "camelyon17")
    patients, _ = prepare(workspace, "p=wilds", root, {"cluster": "patient"})
    slides, _ = prepare(workspace, "s=wilds", root, {"cluster": "slide"})
    assert set(words(patients).values()) == {"000", "020", "040", "060", "080"} and "slide" in patients.values
    assert len(set(words(slides).values())) > 5 and "slide" not in slides.values
    with pytest.raises(ManifestError, match="no column 'pateint': did you mean 'patient'"):
        prepare(workspace, "q=wilds", root, {"cluster": "pateint"})
    demo, _ = prepare(workspace, "py:scattered", tmp_path, {"cluster": "who"})
    assert set(words(demo).values()) == {"a", "b"} and demo.grouping == ()
    with pytest.raises(ManifestError, match="the cluster 'whom' is no column of the table; did you mean 'who'"):
        prepare(workspace, "x=py:scattered", tmp_path, {"cluster": "whom"})
    with pytest.raises(UnknownName, match="has no option 'clutser'"):
        prepare(workspace, "x=py:scattered", tmp_path, {"clutser": "who"})


@pytest.fixture(autouse=True)
def scattered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset from outside that knows of no clusters."""
    source = """
from embedx.data.manifest import build

def read(root):
    columns = {"id": list("123456"), "label": list("xyxyxy"), "split": ["train", "val", "test"] * 2}
    return build("scattered", columns | {"who": list("aabbab")}, grouping=())
"""
    (tmp_path / "scattered.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=8, max_size=60), st.integers(0, 20))
def test_halves_keep_a_subject_in_one_and_every_group_in_both(rows, seed: int) -> None:
    groups, subjects = (np.array(column) for column in zip(*rows, strict=True))
    whole = part(groups // 2, groups, subjects=10 * groups + subjects)
    if all(len(set(subjects[groups == g])) > 1 for g in set(groups)):
        a, b = halves(whole, seed)
        assert sorted([*a.ids, *b.ids]) == sorted(whole.ids) and not {*a.subjects} & {*b.subjects}
        assert set(a.groups) == set(b.groups) == set(groups)
        for g in set(groups):
            most = np.bincount(subjects[groups == g]).max()
            assert abs(np.sum(a.groups == g) - np.sum(b.groups == g)) <= 2 * most
        assert list(halves(whole, seed)[0].ids) == list(a.ids)
    else:
        with pytest.raises(SplitError, match="a group has validation rows of too few subjects"):
            halves(whole, seed)


def test_halves_of_subjects_that_show_several_groups() -> None:
    groups, subjects = np.tile(np.arange(4), 30), np.repeat(np.arange(30), 4)
    a, b = halves(part(groups // 2, groups, subjects=subjects), 3)
    assert not {*a.subjects} & {*b.subjects} and np.bincount(a.groups).tolist() == [15] * 4
    with pytest.raises(SplitError, match="too few subjects"):
        halves(part(groups // 2, groups, subjects=np.zeros(120, int)), 3)


def test_halves_that_stop_tuning_keep_subjects_whole() -> None:
    whole = part(np.repeat([0, 1], 40), np.repeat([0, 1], 40), subjects=np.arange(80) // 4)
    a, b = halved(whole)
    assert not {*a.subjects} & {*b.subjects} and np.bincount(a.y).tolist() == [20, 20] == np.bincount(b.y).tolist()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=60), st.integers(0, 9))
def test_draws_take_as_many_subjects_as_they_can(rows, seed: int) -> None:
    codes, clusters = (np.array(column) for column in zip(*rows, strict=True))
    clusters = 6 * codes + clusters  # a subject has one group here
    taken = balanced_draws(codes, 3, np.random.RandomState(seed), clusters)
    size = np.bincount(codes)[np.unique(codes)].min()
    for draw in taken.astype(bool):
        assert set(np.bincount(codes[draw])) - {0} == {size}
        for c in np.unique(codes):
            have, took = (np.bincount(clusters[(codes == c) & m], minlength=18) for m in (True, draw))
            level = took.max()  # a row more only once all others have given as many, or all they have
            assert all(took[k] >= min(have[k], level - 1) for k in np.flatnonzero(have))


def test_draws_of_subjects_differ_and_depend_on_the_seed() -> None:
    codes, clusters = np.repeat([0, 1], [100, 10]), np.arange(110) // 5
    one, two = balanced_draws(codes, 2, np.random.RandomState(0), clusters)
    assert (one != two).any()
    assert (balanced_draws(codes, 2, np.random.RandomState(0), clusters)[0] == one).all()
    assert len(set(clusters[:100][one[:100] > 0])) == 10, "ten rows of ten patients, not of two"


def test_folds_and_second_parts_hold_whole_subjects() -> None:
    rng = np.random.default_rng(0)
    y, clusters = np.repeat(rng.integers(0, 2, 40), 6), np.repeat(np.arange(40), 6)
    fold = folds_of(y, 5, 0, clusters)
    assert all(len(set(fold[clusters == c])) == 1 for c in range(40)) and len(set(fold)) == 5
    assert all(len(set(fold[y == c])) > 1 for c in (0, 1))
    second = np.zeros(len(y), bool)
    second[Halves(0.8, 1).second(y, clusters)] = True
    assert all(len(set(second[clusters == c])) == 1 for c in range(40))
    assert all(0.1 <= second[y == c].mean() <= 0.35 for c in (0, 1))
    one_each = y  # every class is one subject
    for call in (lambda: folds_of(y, 5, 0, one_each), lambda: Halves(0.8, 1).second(y, one_each)):
        with pytest.raises(ValueError, match="of too few subjects"):
            call()


@pytest.mark.parametrize("head", [GroupBalanced(draws=2), Dfr(draws=2), Afr(), Jtt(errors="out-of-fold")])
def test_heads_that_draw_or_part_rows_attend_to_subjects(head: Head) -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 5)
    groups = np.repeat(rng.permutation(np.repeat(np.arange(4), [24, 6, 6, 24])), 5)
    X = rng.normal(size=(300, 3)) + np.column_stack([groups // 2, 2 * (groups % 2), groups * 0])
    given = {"groups": groups} if "groups" in head.needs else {}
    fits = [
        head.set_params(random_state=0).fit(X, groups // 2, **given, **more).coef_.copy()
        for more in ({}, {"clusters": clusters}, {"clusters": clusters}, {"clusters": clusters.astype(str)})
    ]
    assert np.abs(fits[0] - fits[1]).max() > 1e-6 and np.array_equal(fits[1], fits[2])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        head.fit(X, groups // 2, **given, clusters=clusters[1:])


def test_a_bench_hands_the_subjects_of_the_rows_to_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = build(OWNERS, cluster="owner")
    split, seen = join(manifest, write(Workspace(tmp_path), manifest, ONE, features(manifest))), []
    path = Head.path

    def spy(self: Head, *args, clusters=None, **more):
        seen.append(clusters)
        return path(self, *args, clusters=clusters, **more)

    monkeypatch.setattr(Head, "path", spy)
    Evaluator(split).fitted(HeadSpec("dfr", Dfr, "worst-group", settings=[{"C": 0.1}, {"C": 1.0}]), [0])
    first, _ = halves(split.val, 0)
    assert split.val.subjects is not None and first.subjects is not None
    *chosen, last = [s.tolist() for s in seen]
    assert chosen and all(s == first.subjects.tolist() for s in chosen) and last == split.val.subjects.tolist()
    run, _ = probe(split, "plain")
    assert run.cluster == "owner" and run.dependence.startswith("test holds 600 rows of 97 subjects (owner)")
    assert split.test.subjects is not None and run.dependence.endswith("intervals count subjects")
    order, kept = np.argsort(split.test.groups, kind="stable"), unpack_codes(run.clusters)
    mine = split.test.subjects[order]
    assert len(kept) == 600 and len(set(zip(kept, mine, strict=True))) == 97 == len(set(mine))
    whole = probe(replace(split, test=replace(split.test, subjects=None)), "plain")[0].metrics
    for name in ("average", "adjusted_average", "worst_group", "balanced_accuracy", "worst_class", "gap"):
        a, b = getattr(run.metrics, name), getattr(whole, name)
        assert a.value == pytest.approx(b.value) and a.high - a.low >= b.high - b.low, name


def test_a_comparison_keeps_subjects_whole_throughout(tmp_path: Path) -> None:
    manifest = build(OWNERS.assign(owner=OWNERS.split + OWNERS.owner), cluster="owner")
    write(Workspace(tmp_path), manifest, ONE, features(manifest))
    found = compare(Workspace(tmp_path), manifest, [ONE], ["group-balanced", "dfr", "bias-tuned"])
    write(Workspace(tmp_path / "b"), WHOLE, ONE, features(WHOLE))
    without = compare(Workspace(tmp_path / "b"), WHOLE, [ONE], ["group-balanced", "dfr", "bias-tuned"])
    assert [run.cluster for run in found] == ["owner"] * 3 and not any(run.shared_subjects for run in found)
    pairs = list(zip(found, without, strict=True))
    assert all(abs(a.metrics.average.value - b.metrics.average.value) < 0.1 for a, b in pairs)
    assert all((a.correct, a.validation_score) != (b.correct, b.validation_score) for a, b in pairs)


def test_random_tuning_rows_are_of_as_many_subjects_as_can_be() -> None:
    rng, clusters = np.random.default_rng(0), np.repeat(np.arange(20), 20)
    y, X = np.tile([0, 1], 200), np.random.default_rng(1).normal(size=(400, 3))
    head = LowSpuriosity(k=10, rows="random", random_state=0)
    rows = head.fit(X + y[:, None], y, spuriosity=rng.random(400), clusters=clusters).tuning_rows_
    assert [len(set(clusters[rows][y[rows] == c])) for c in (0, 1)] == [10, 10]


def test_rows_that_are_all_of_their_own_need_no_caution(tmp_path: Path) -> None:
    manifest = build(table().assign(owner=table().id), cluster="owner")
    run, _ = probe(join(manifest, write(Workspace(tmp_path), manifest, ONE, features(manifest))), "plain")
    assert run.cluster == "owner" and not run.dependence and not run.clusters


def test_manifest_csv_may_be_given_a_cluster_by_hand(tmp_path: Path) -> None:
    manifests.save(WHOLE, tmp_path)
    frame = pd.read_csv(tmp_path / "manifest.csv", dtype=str)
    frame.assign(owner=[f"o{i // 2}" for i in range(len(frame))]).to_csv(tmp_path / "manifest.csv", index=False)
    facts = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(facts | {"cluster": "owner"}))
    manifest, edited = manifests.load(tmp_path)
    assert edited and manifest.subjects is not None and len(manifest.subjects.names) == len(frame) // 2
