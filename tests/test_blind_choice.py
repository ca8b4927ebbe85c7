"""A choice that sees no row of a class, or hardly any, says so: on the screen, in the records and in the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pets import BARE, ONE, WHOLE, build, features, part, table, write
from test_report import make_run
from test_spuriosity_tune import FARM, ranking
from test_spuriosity_tune import X as FARM_X

from embedx import report
from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import Manifest
from embedx.evaluation import runs
from embedx.evaluation.compare import compare
from embedx.evaluation.probe import fit, probe, probe_cache
from embedx.evaluation.selection import FEW, RULES, barely_seen, in_words
from embedx.evaluation.split import Split, join
from embedx.spuriosity.measures.tuning import tune_head
from embedx.spuriosity.measures.tuning_settings import TuningSettings
from embedx.workspace import Workspace


def left(query: str, **facts) -> Manifest:
    return build(table().query(query), **facts)


NO_DOG = "split != 'val' or label != 'dog'"
NO_GROUP = "split != 'val' or label + place != 'catout'"


def split_of(manifest: Manifest, folder: Path) -> Split:
    return join(manifest, write(Workspace(folder), manifest, ONE, features(manifest)))


@pytest.mark.parametrize("grouping", [(), ("place",)])
def test_average_says_that_it_cannot_see_a_class(tmp_path: Path, grouping: tuple[str, ...]) -> None:
    run, _ = probe(split_of(left(NO_DOG, grouping=grouping), tmp_path), "plain")
    assert run.selection == "average" and run.barely_seen == {"dog": 0}
    (line,) = runs.cautions([run])
    assert line == "choosing by average cannot see dog: validation has no row of it; add some"
    assert line[1:] in report.write([run], tmp_path / "out").read_text()


def test_average_says_that_it_cannot_see_a_group(tmp_path: Path) -> None:
    split = split_of(left(NO_GROUP), tmp_path)
    assert probe(split, "plain")[0].barely_seen == {"cat/out": 0}
    assert probe(split, "plain", rule="balanced")[0].barely_seen == {"cat/out": 0}
    assert probe(split, "plain", settings=[{"C": 1.0}])[0].barely_seen == {}, "nothing is chosen"
    assert probe(split_of(left(NO_GROUP, grouping=()), tmp_path / "b"), "plain")[0].barely_seen == {}


def test_a_class_whose_validation_rows_were_all_lost_is_unseen(tmp_path: Path) -> None:
    gone = np.flatnonzero((BARE.splits == 1) & (BARE.labels == 1)).tolist()
    cache = write(Workspace(tmp_path), BARE, ONE, features(WHOLE), gone)
    (model,) = probe_cache(Workspace(tmp_path), BARE, cache, "plain")
    run = model.record
    assert run.barely_seen == {"dog": 0} and run.left_out["val"] == 80


@pytest.mark.parametrize(
    ("rule", "kept", "seen"),
    [
        ("worst-group", "cat/out", {"cat/out": 3}),
        ("adjusted-average", "cat/out", {"cat/out": 3}),
        ("worst-class", "cat", {"cat": 3}),
        ("balanced", "cat", {"cat": 3}),
        ("worst-inferred-group", "cat", {"cat": 3}),
        ("average", "cat", {}),
    ],
)
def test_what_hangs_on_few_rows_is_told_with_their_number(tmp_path, rule: str, kept: str, seen: dict) -> None:
    frame = table()
    of = (frame.split == "val") & (frame.label + "/" + frame.place).str.startswith(kept)
    few = frame.drop(frame[of].index[3:])
    grouping = ("place",) if RULES[rule].uses_groups else ()
    run, _ = probe(split_of(build(few, grouping=grouping), tmp_path), "plain", rule=rule)
    assert run.barely_seen == seen
    told = [f"choosing by {rule} hangs on few rows of validation: {kept} (n = 3)"] * bool(seen)
    assert runs.cautions([run]) == told


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=30), st.sampled_from(list(RULES)))
def test_seen_is_counted_over_the_rows_that_choose(rows: list[tuple[int, int]], rule: str) -> None:
    whole = part([0, 0, 1, 1], [0, 1, 2, 3])
    of_group = np.array([0, 0, 1, 1])
    split = Split("pets", ONE, whole, whole, whole, ("cat", "dog"), ("a", "b", "c", "d"), of_group, True, {})
    y, place = (np.array([r[i] for r in rows], dtype=int) for i in (0, 1))
    choosing = part(y, 2 * y + place)
    over = RULES[rule].over
    expected = {n: k for n, k in zip(("cat", "dog"), np.bincount(y, minlength=2).tolist(), strict=True)
                if k < (FEW if over in ("y", "inferred", "spuriosity") else 1)}  # fmt: skip
    in_group = np.bincount(2 * y + place, minlength=4).tolist()
    expected |= {n: k for g, (n, k) in enumerate(zip("abcd", in_group, strict=True))
                 if k < (FEW if over == "groups" else 1) and (y == g // 2).any()}  # fmt: skip
    assert barely_seen(RULES[rule], split, choosing) == expected
    assert not {*"abcd"} & {*barely_seen(RULES[rule], replace(split, has_groups=False), choosing)}


def test_a_choice_that_says_little_is_told_once_for_all_runs() -> None:
    wrong = [make_run(f"b{i}", "jtt", n=[50] * 4, right=[45] * 4, chance=0.5) for i in range(3)]
    floor = [replace(r, selection="worst-group", validation_score=0.0, tied=4) for r in wrong]
    edge = [replace(r, at_edge={"C": 1e-8, "steps": 30}) for r in wrong]
    guess = [make_run("b0", "afr", n=[50] * 4, right=[50, 50, 0, 0], chance=0.5)]
    assert runs.cautions(wrong) == [] and runs.cautions([replace(guess[0], chance=None)]) == []
    assert [line.partition(":")[2] for line in runs.cautions([*floor, *edge, *guess])] == [
        " 4 of 13 of jtt scored 0 % on validation, the least there is; the average decided, then the stronger "
        "regularisation",
        " jtt (C = 1e-08), jtt (steps = 30)",
        " afr on b0",
    ]
    assert runs.cautions([replace(floor[0], validation_score=0.5)]) == [], "equal scores inside the range happen"


def test_scores_at_their_end_are_told_by_the_run_itself(tmp_path: Path) -> None:
    frame = table()
    rare = frame[(frame.split == "train") & (frame.label == "dog")]
    split = split_of(build(frame.drop(rare.index[5:])), tmp_path)
    run, _ = probe(split, "plain", rule="worst-group", settings=[{"C": C} for C in (1e-9, 1e-8)])
    assert (run.validation_score, run.tied, run.parameters["C"], run.chance) == (0, 2, 1e-9, 0.5)
    floor, chance = runs.cautions([run])
    assert "2 of 2 of plain scored 0 % on validation" in floor and chance.startswith("no better than chance on test")


def test_words_name_all_and_the_rows() -> None:
    assert in_words("average", {"a": 0, "b": 0, "c": 2}, "half of validation") == [
        "choosing by average cannot see a, b: half of validation has no row of them; add some",
        "choosing by average hangs on few rows of half of validation: c (n = 2)",
    ]
    assert in_words("average", {}) == []


def test_a_half_of_validation_counts_as_what_chooses(tmp_path: Path) -> None:
    frame = table()
    of = (frame.split == "val") & (frame.label == "cat") & (frame.place == "out")
    run, _ = probe(split_of(build(frame.drop(frame[of].index[6:])), tmp_path), "dfr")
    assert run.barely_seen == {"cat/out": 3}, "six rows, of which three choose"


def test_compare_probe_and_the_report_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = left(NO_DOG, grouping=())
    workspace = Workspace(Path("cache"))
    manifests.save(manifest, workspace.dataset("pets"))
    write(workspace, manifest, ONE, features(manifest))
    for words in (("probe", "pets", "-b", ONE), ("compare", "pets", "--head", "plain")):
        result = CliRunner().invoke(main, list(words))
        assert result.exit_code == 0, result.output
        assert "note: choosing by average cannot see dog: validation has no row of it; add some" in result.stderr
    assert "Choosing by average cannot see dog" in Path("results/pets/report.html").read_text()
    (run,) = compare(workspace, manifest, [ONE], ["plain"])
    assert run.barely_seen == {"dog": 0}


def test_the_report_escapes_and_joins_what_runs_say(tmp_path: Path) -> None:
    many = [make_run(head=h, key=k, barely_seen={"<b>": 0}) for k, h in enumerate(("x", "y"))]
    page = report.write(many, tmp_path).read_text()
    assert page.count("cannot see &lt;b&gt;") == 1 and "<b>: validation" not in page


def test_tuning_and_gaps_tell(tmp_path: Path) -> None:
    keep = ~((FARM.splits == 1) & (FARM.labels == 2))
    columns = {"id": FARM.ids[keep], "label": np.take(FARM.classes, FARM.labels)[keep],
               "split": np.take(("train", "val", "test"), FARM.splits)[keep],
               "cue": np.take(FARM.values["cue"], FARM.codes["cue"])[keep]}  # fmt: skip
    manifest = manifests.build("farm", {k: v.tolist() for k, v in columns.items()}, grouping=())
    cache = write(Workspace(tmp_path), manifest, ONE, FARM_X[keep])
    said: list[str] = []
    options = TuningSettings(k=20, trials=1, rows=("lowest",), beside=())
    tune_head(manifest, cache, ranking(manifest, FARM_X[keep]), None, options, notice=said.append)
    assert said == [
        "note: choosing by average cannot see cow: validation has no row of it; add some",
        "note: choosing by the gap cannot see cow: validation has no row of it; add some",
    ]
    said.clear()
    fit(manifest, cache, "plain", notice=said.append)
    assert said == ["note: choosing by average cannot see cow: validation has no row of it; add some"]


def test_of_many_groups_that_a_choice_cannot_see_the_first_are_named() -> None:
    seen = {f"g{i}": 0 for i in range(20)} | {"few": 3}
    unseen, few = in_words("average", seen)
    assert "cannot see g0, g1, g2, g3, g4 and 15 more: validation has no row of them" in unseen and "few (n = 3)" in few
    (six,) = in_words("average", dict.fromkeys("abcdef", 0))
    assert "cannot see a, b, c, d, e, f: " in six
