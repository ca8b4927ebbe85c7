"""Repair of groups: what is drawn, when it stops, what it reports, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pets import BARE, ONE, WHOLE, build, features, linear, table, write
from test_predictions import THREE, with_classifier

import embedx
from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS, Manifest
from embedx.errors import EmbedxError, HeadError
from embedx.evaluation import saved
from embedx.evaluation.metrics import evaluate
from embedx.evaluation.model import pretrained
from embedx.evaluation.probe import fit
from embedx.repair import GroupRepairSettings, RepairedGroups, Restraint, publish_groups, repair_groups
from embedx.repair.groups.problem import Balance, GroupProblem
from embedx.repair.groups.records import FILE, KIND, OfShots
from embedx.repair.groups.report import sentence
from embedx.repair.groups.settings import GroupSetting
from embedx.repair.records import Gain
from embedx.workspace import Workspace

LEANING = np.array([[0, -0.2, -1.0, 0, 0], [0, 0.2, 1.0, 0, 0]])
"""Weights by which a head goes by the place far more than by the animal."""
SMALL = GroupRepairSettings(shots=(2, 8), rates=(0.01, 0.1), seeds=5, steps=1000)


def cached(folder: Path, manifest: Manifest = WHOLE, lost: tuple[int, ...] = ()) -> embedx.FeatureCache:
    X = features(manifest)
    X[:, 0] = 0  # the number in the id, which is of use to other tests alone
    return write(Workspace(folder), manifest, ONE, X, lost)


def head(weights: np.ndarray = LEANING) -> embedx.evaluation.model.Model:
    return linear(weights, np.array([2.5, -2.5]))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[embedx.FeatureCache, RepairedGroups]:
    cache = cached(tmp_path_factory.mktemp("groups"))
    return cache, repair_groups(WHOLE, cache, head(), SMALL)


def test_weak_groups_gain_and_figures_are_those_of_a_comparison(
    done: tuple[embedx.FeatureCache, RepairedGroups],
) -> None:
    cache, repaired = done
    record, test = repaired.record, WHOLE.splits == SPLITS.index("test")
    assert record.weak == ("cat/out", "dog/in")
    assert record.by_shots[-1].worst.above < 0.05 and record.sentence.startswith("From ")
    train = WHOLE.splits == SPLITS.index("train")
    assert WHOLE.groups is not None
    for model, figures in (
        (head(), record.before), (repaired.model, record.of(record.chosen)[0].figures),
    ):  # fmt: skip
        expected = evaluate(
            WHOLE.labels[test], model.probabilities(cache.take(np.flatnonzero(test))), WHOLE.groups[test],
            classes=WHOLE.classes, group_names=WHOLE.group_names, group_labels=np.array([0, 0, 1, 1]),
            train_shares=np.bincount(WHOLE.groups[train]) / train.sum(),
        )  # fmt: skip
        assert figures.worst_group == expected.worst_group and figures.worst_group_name == expected.worst_group_name
        assert figures.adjusted_average == expected.adjusted_average and figures.average == expected.average
        assert {g.name: g.accuracy for g in expected.groups} == {n: i.value for n, i in figures.groups.items()}
    for o in record.outcomes:
        assert o.gained - o.lost == round(600 * (o.figures.average.value - record.before.average.value))
    best = max(record.grid, key=lambda s: np.mean([o.worst_val for o in record.of(s)]))
    assert np.mean([o.worst_val for o in record.of(record.chosen)]) == np.mean([o.worst_val for o in record.of(best)])


def test_a_draw_has_so_many_images_of_each_group_and_a_larger_one_holds_it(tmp_path: Path) -> None:
    cache = cached(tmp_path, lost=(3, 4))
    problem = GroupProblem.of(WHOLE, cache, head(), SMALL, lambda text: None)
    train = {tuple(z): i for z, i in zip(problem.train.Z.tolist(), problem.train.at.tolist(), strict=True)}
    assert WHOLE.groups is not None and not {3, 4} & set(train.values())
    for seed in range(5):
        rows = []
        for one in problem.tries()[4 * seed : 4 * seed + 4 : 2]:
            at = np.array([train[tuple(z)] for z in one.draw.Z.tolist()])
            counts, weak = np.bincount(WHOLE.groups[at], minlength=4), problem.weak[WHOLE.groups[at]]
            assert len(set(counts)) == 1 and len(set(at)) == len(at) and np.array_equal(one.draw.y, WHOLE.labels[at])
            assert not weak[: one.draw.kept].any() and weak[one.draw.kept :].all()
            rows.append(set(at))
        assert len(rows[0]) == 8 and len(rows[1]) == 32 and rows[0] < rows[1]
    assert len({tuple(sorted(map(tuple, one.draw.Z.tolist()))) for one in problem.tries()[::4]}) == 5


def test_it_stops_at_the_first_step_at_which_weak_groups_are_no_less_accurate(tmp_path: Path) -> None:
    problem = GroupProblem.of(WHOLE, cached(tmp_path), head(), SMALL, lambda text: None)
    stops, val, reached = Balance.of(problem), problem.val, []
    for one in problem.tries()[:4]:
        W, b, step = problem.start.W.double(), problem.start.b.double(), 0
        Z, y, Z_val = one.draw.Z.double(), torch.nn.functional.one_hot(one.draw.y, 2), val.Z.double()
        while step < 1000:
            right = ((Z_val @ W.T + b).argmax(1) == val.y).numpy()
            accuracy = np.array([right[val.groups == g].mean() for g in range(4)])
            if accuracy[problem.weak].min() >= accuracy[~problem.weak].min():
                break
            R = (torch.softmax(Z @ W.T + b, 1) - y) / len(y)
            W, b, step = W - one.rate * R.T @ Z, b - one.rate * R.sum(0), step + 1
        (change,) = embedx.repair.descent.descend(problem.start, [one], stops, 1000)
        assert change.steps == step and change.reached == (step < 1000)
        assert np.abs(change.weight - (W - problem.start.W).numpy()).max() < 1e-4
        reached.append(change.reached)
    assert set(reached) == {True, False}


def test_the_record_and_the_head_come_back_as_they_were(
    done: tuple[embedx.FeatureCache, RepairedGroups], tmp_path: Path
) -> None:
    _, repaired = done
    page, file = publish_groups(repaired, tmp_path / "out")
    assert KIND.read(tmp_path / "out" / FILE) == repaired.record
    text = page.read_text(encoding="utf-8")
    assert repaired.record.sentence.partition(":")[0] in text and text.count("<svg") == 3
    assert sorted(f.name for f in (tmp_path / "out" / "plots").iterdir()) == [
        "accuracy_over_shots.svg", "flips_over_shots.svg", "rates_over_shots.svg",
    ]  # fmt: skip
    X = np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32)
    assert np.array_equal(saved.load_model(file).probabilities(X), repaired.model.probabilities(X))


def test_one_seed_cannot_tell_and_some_k_are_named(tmp_path: Path) -> None:
    one = repair_groups(WHOLE, cached(tmp_path), head(), replace(SMALL, seeds=1, steps=50)).record
    assert one.sentence.startswith("One seed cannot tell whether cat/out gains: ask for several (--seeds).")
    assert "1 seed)" in one.sentence

    def said(*p: float) -> str:
        of = [OfShots(GroupSetting(k, 0.1, "none"), Gain(0.1, 0.0, 0.2, 9, 5, q, 1.0), Gain(0, 0, 0, 9, 5, 1.0, 1.0))
              for k, q in zip((1, 2, 5, 25), p, strict=True)]  # fmt: skip
        return sentence(of, of[-1].setting, "cat/out", (0.01, 0.1, 1.0)).partition(". ")[0]

    assert said(0.2, 0.001, 0.001, 0.2) == "With 2, 5 images of each group cat/out surely gains, with 1, 25 not"
    assert said(0.2, 0.001, 0.001, 0.001) == "From 2 images of each group on, cat/out surely gains"
    assert said(0.001, 0.001, 0.001, 0.001) == "From 1 image of each group on, cat/out surely gains"
    assert said(0.2, 0.2, 0.2, 0.2) == "Up to 25 images of each group, cat/out does not surely gain"


def test_smaller_groups_are_told_and_those_without_training_rows_stop_nothing(tmp_path: Path) -> None:
    rows = table()
    lost = rows.query("split == 'train' and label == 'dog' and place == 'in'").index
    few = rows.query("split == 'train' and label == 'cat' and place == 'in'").index[3:]
    manifest, said = build(rows.drop([*lost, *few]), grouping=("place",)), list[str]()
    problem = GroupProblem.of(manifest, cached(tmp_path, manifest), head(), SMALL, said.append)
    assert [manifest.group_names[g] for g in np.flatnonzero(problem.weak)] == ["cat/out"]
    assert [manifest.group_names[g] for g in np.flatnonzero(problem.rivals)] == ["cat/in"]
    assert said == ["note: fewer than 8 training images, of which all there are are fitted on: cat/in (3), dog/in (0)"]


def test_equal_pulls_are_one_and_none_is_rounded(tmp_path: Path) -> None:
    pulls = tuple(map(Restraint.parse, ("none", "none", "l2:0.12345678", "l2:0.12345679")))
    settings = GroupRepairSettings((2,), (0.1,), pulls, seeds=2, steps=5)
    record = repair_groups(WHOLE, cached(tmp_path), head(), settings).record
    assert [s.pull for s in record.grid] == ["none", "l2:0.12345678", "l2:0.12345679"]
    assert all(len(record.of(s)) == 2 for s in record.grid)


def test_any_linear_head_is_repaired_and_one_that_is_not_linear_is_refused(tmp_path: Path) -> None:
    """The backbone's own classifier, a fitted head, a saved one, that of an earlier repair; each starts from itself."""
    own = with_classifier(Workspace(tmp_path / "own"), THREE, np.array([0.5, -0.25], np.float32))
    fitted = fit(WHOLE, own, "plain")
    saved.write_model(fitted, tmp_path / "plain.safetensors")
    once = repair_groups(WHOLE, own, fitted, replace(SMALL, seeds=1, steps=20)).model
    saved.write_model(once, tmp_path / "once.safetensors")
    kept = [saved.load_model(tmp_path / f"{name}.safetensors") for name in ("plain", "once")]
    test = WHOLE.splits == SPLITS.index("test")
    for model in (pretrained(WHOLE, own), fitted, *kept):
        before = repair_groups(WHOLE, own, model, replace(SMALL, seeds=1, steps=1)).record.before
        right = model.predict(own.take(np.flatnonzero(test))) == WHOLE.labels[test]
        assert before.average.value == right.mean()
    with pytest.raises(HeadError, match="is not linear"):
        repair_groups(WHOLE, own, replace(fitted, numbers=None), SMALL)


def test_unsaid_shots_are_as_many_as_the_smallest_weak_group_has(tmp_path: Path) -> None:
    settings = GroupRepairSettings(rates=(0.03,), seeds=1, pulls=(Restraint("kl", 1.0),), steps=50)
    assert repair_groups(WHOLE, cached(tmp_path), head(), settings).record.settings.shots == (1, 2, 5, 10)


BAD = [
    (BARE, {}, head(), "pets has no attribute that forms groups; add a column to manifest.csv"),
    (WHOLE, {"shots": (2, 16)}, head(), "16 images of each group: cat/out has 15 in train with features"),
    (WHOLE, {"shots": (0,)}, head(), "shots are 0, expected whole numbers from 1"),
    (WHOLE, {"rates": (-1.0,)}, head(), "learning rates are -1, expected numbers above 0"),
    (WHOLE, {"seeds": 0}, head(), "0 seeds, 10000 steps; expected 1 at least of both"),
    (WHOLE, {}, head(np.zeros((2, 5))), "in no class does the head get one group right less often than another"),
    (build(table().query("split != 'val'")), {}, head(), "pets has no val row with features"),
    (build(table().query("(split != 'val' or label == 'cat') and (split != 'test' or label == 'dog')")), {}, head(),
     "pets has no test row of cat/out, which the head gets wrong on validation: nothing can be reported"),
    (build(table().query("split != 'train' or place == 'in' or label == 'dog'").query(
        "split != 'train' or place == 'out' or label == 'cat'"), grouping=("place",)), {}, head(),
     "of which there are training rows; there is no group to repair"),
]  # fmt: skip


@pytest.mark.parametrize(("manifest", "change", "model", "message"), BAD, ids=[m[-24:] for *_, m in BAD])
def test_what_cannot_be_done_is_refused_in_words(
    tmp_path: Path, manifest: Manifest, change: dict[str, object], model: embedx.evaluation.model.Model, message: str
) -> None:
    with pytest.raises(EmbedxError, match=message):
        repair_groups(manifest, cached(tmp_path, manifest), model, GroupRepairSettings(**change))  # type: ignore[arg-type]


def test_the_command_repairs_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cached(Path("cache"))
    manifests.save(WHOLE, Workspace(Path("cache")).dataset("pets"))
    run = lambda *words: CliRunner().invoke(main, ["--cache", "cache", "repair", "pets", "-b", f"{ONE}=plain", *words])  # noqa: E731
    fine = run("--groups", "--seeds", "2", "--shots", "2,8", "--lr", "0.1")
    assert fine.exit_code == 0, fine.output
    assert (
        "weak groups" in fine.output
        and "wrote results/pets/repair/repair-groups.html, repair-groups.json" in fine.output
    )
    head = "results/pets/repair/pets.tiny-one.plain.repaired-groups.safetensors"
    assert CliRunner().invoke(main, ["--cache", "cache", "predict", head, "pets"]).exit_code == 0
    for words, message in (
        (("--groups", "--target", "dog"), "--groups repairs every weak group: leave out"),
        (("--groups", "--classes", "1"), "leave out --concept, --target and --classes"),
        (("--concept", "place=in"), "name what the head gets wrong with --concept and --target, or ask for --groups"),
    ):
        refused = run(*words)
        assert refused.exit_code == 2 and message in refused.output, refused.output


def test_where_rows_are_of_subjects_intervals_count_these(tmp_path: Path) -> None:
    frame, found = table(), []
    owner = [f"{label}{place}{i[:3]}" for label, place, i in zip(frame.label, frame.place, frame.id, strict=True)]
    for facts in ({}, {"cluster": "owner"}):
        manifest = build(frame.assign(owner=owner), grouping=("place",), **facts)
        settings = GroupRepairSettings(rates=(0.03,), shots=(2,), seeds=2, pulls=(Restraint("kl", 1.0),), steps=50)
        folder = tmp_path / (facts or {"cluster": "none"})["cluster"]
        found.append(repair_groups(manifest, cached(folder, manifest), head(), settings).record)
    rows, owners = found
    for a, b in ((rows.before.average, owners.before.average), (rows.by_shots[0].average, owners.by_shots[0].average)):
        assert b.value == pytest.approx(a.value) and b.high - b.low > 1.1 * (a.high - a.low)
