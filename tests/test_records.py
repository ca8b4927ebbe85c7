"""Results are added to, kept, or told of when they go; files that belong together are never taken for another's."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import galleries
import numpy as np
import pytest
from click.testing import CliRunner
from pets import ONE, TWO, WHOLE, features, write
from test_files import in_processes
from test_report import grid, make_run
from test_spuriosity_gap import answered, ranking

from embedx import documents, journal, report
from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.errors import ProvenanceError, ResultsError, SpuriosityError
from embedx.evaluation import runs
from embedx.evaluation.records import alone
from embedx.files import locked
from embedx.report import files as report_files
from embedx.spuriosity import annotations, site
from embedx.spuriosity.annotations import Annotation, salient
from embedx.spuriosity.annotations.votes import Vote
from embedx.spuriosity.features import recipes
from embedx.spuriosity.measures import gaps as gap
from embedx.spuriosity.measures.across_models import across
from embedx.spuriosity.measures.gaps import gaps
from embedx.spuriosity.measures.importance import important_features
from embedx.spuriosity.measures.scores import rank_by_features
from embedx.spuriosity.pages.gallery import Site
from embedx.spuriosity.records import flags as flags_file
from embedx.spuriosity.records import gaps as _measured
from embedx.spuriosity.records import tunings as _tunings
from embedx.spuriosity.records.discovery import Discovery
from embedx.spuriosity.records.findings import Findings
from embedx.spuriosity.records.gaps import Measured, Shared, add
from embedx.spuriosity.records.ranking import Ranking, place
from embedx.spuriosity.records.sensitivity import Sensitivities, Sensitivity
from embedx.store import FeatureCache
from embedx.workspace import Workspace

WEIGHTS = f"digest of {ONE}"
START = Annotation("pets", ONE, WEIGHTS, 0, "cat", 2, "unsure", "local")
SIZES = [20, 20, 12, 9]


def said_by(*who: str) -> Annotation:
    return START.voted([Vote(name, "background") for name in who])


def model(name: str, seed: int = 0) -> Any:
    return answered(SIZES, np.random.default_rng([seed, *name.encode()]).random(sum(SIZES)) < 0.7, name)


def order(seed: int = 0) -> Ranking:
    names = tuple(f"c{c}" for c in range(len(SIZES)))
    return ranking(SIZES, np.random.default_rng(seed).permutation(sum(SIZES)).astype(float), classes=names)


def losses(model: str, pairs: str = "p", drop: float = 0.2) -> Sensitivities:
    interval = runs.Interval(drop, drop - 0.1, drop + 0.1, 40)
    row = Sensitivity(model, 0, "cat", 2, "", "grey", 0.9, 0.9 - drop, interval, drop / 0.9, 0.3)
    return Sensitivities("pets", ONE, "w", {"split": "test", "sizes": (1, 2)}, (row, replace(row, kind="blur")), pairs)


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    found = Workspace(tmp_path_factory.mktemp("cache"))
    manifests.save(WHOLE, found.dataset("pets"))
    write(found, WHOLE, ONE, features(WHOLE))
    write(found, WHOLE, TWO, features(WHOLE))
    return found


@pytest.fixture
def cache(workspace: Workspace) -> FeatureCache:
    return FeatureCache.open_complete(workspace.cache("pets", ONE))


ADDING = """
sys.path.insert(0, tests)
import galleries
from dataclasses import replace
from functools import partial
from pathlib import Path
from test_report import make_run
from test_records import ONE, WHOLE, losses, model, order, said_by
from embedx import journal
from embedx.evaluation import runs
from embedx.evaluation.finished_runs import Finished
from embedx.spuriosity.records import gaps as _measured, tunings as _tunings
from embedx.spuriosity import annotations
from embedx.spuriosity.records.gaps import add
from embedx.spuriosity.measures.gaps import gaps
from embedx.store import FeatureCache
_measured.across = partial(_measured.across, permutations=9)
out, quiet, ranking = Path(out), lambda text: None, order()
cache = FeatureCache.open_complete(Path(cache))
finished, detail = Finished(out / "finished.jsonl"), gaps(ranking, model("a"))
for i in range(rounds):
    name = f"{who}-{i}"
    annotations.add(out / "a.jsonl", [said_by(name)], cache, WHOLE)
    journal.append(out / "a.jsonl", annotations.KIND, said_by(name + "+"))
    finished.add([(name, make_run(head=name))])
    runs.add([make_run(head=name)], out, quiet)
    add(out, ranking, [gaps(ranking, model(name))], [[]], quiet)
    _tunings.add(out, ranking, [replace(galleries.tuned(("x", "y"), detail), head=name)], quiet)
    losses(name).add(out, quiet)
    order(who).save(out / "r.csv")
"""


@pytest.mark.slow
def test_processes_that_add_at_once_lose_nothing(workspace: Workspace, tmp_path: Path) -> None:
    """Two with one number, as in containers: whatever is added to a file, by whatever step, is all there."""
    rounds, tests = 3, str(Path(__file__).parent)
    where = {"out": str(tmp_path), "cache": str(workspace.cache("pets", ONE)), "rounds": rounds, "tests": tests}
    in_processes(ADDING, n=2, **where)
    names = {f"{who}-{i}" for who in range(2) for i in range(rounds)}
    (pair,) = annotations.read(tmp_path / "a.jsonl")
    assert {v.annotator for v in pair.votes} == names | {f"{name}+" for name in names}
    assert {json.loads(line)["key"] for line in (tmp_path / "finished.jsonl").read_text().splitlines()} == names
    assert {r.head for r in runs.load(tmp_path / "runs.json")} == names
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + len(names)
    measured = Measured.load(tmp_path)
    assert {g.head for g in measured.models} == names and measured.across is not None
    assert set(measured.across.models) == {g.model for g in measured.models}
    assert {t.head for t in _tunings.load(tmp_path / _tunings.FILE).models} == names
    assert set(Sensitivities.load(tmp_path).models) == names
    table, facts = (tmp_path / f"r.{kind}" for kind in ("csv", "json"))
    order(0).save(tmp_path / "0.csv")
    order(1).save(tmp_path / "1.csv")
    assert [table.read_bytes(), facts.read_bytes()] in [
        [(tmp_path / f"{who}.{kind}").read_bytes() for kind in ("csv", "json")] for who in range(2)
    ]


def test_votes_that_come_while_another_annotates_stay(
    workspace: Workspace, cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, out = tmp_path / "mine.jsonl", tmp_path / "out"
    annotations.write(mine, [said_by("me")])
    real = annotations.read

    def slow(path: Path, *more: Any) -> Any:
        found = real(path, *more)
        if path == mine:  # read while somebody else adds to what there is
            journal.append(out / annotations.FILE, annotations.KIND, said_by("another"))
        return found

    monkeypatch.setattr(annotations, "read", slow)
    line = [
        "--cache",
        str(workspace.path),
        "spuriosity",
        "annotate",
        "pets",
        "-b",
        ONE,
        "--from",
        str(mine),
        "-o",
        str(out),
    ]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 0, done.output
    (pair,) = real(out / annotations.FILE)
    assert {v.annotator for v in pair.votes} == {"me", "another"} and pair.label == "spurious"
    odd = replace(said_by("me"), class_name="lynx")
    with pytest.raises(SpuriosityError, match="mend the one, or annotate in another folder|in an earlier line"):
        annotations.add(out / annotations.FILE, [odd], cache, WHOLE)
    assert real(out / annotations.FILE) == (pair,)


def test_models_measured_before_stay_and_are_compared(
    tmp_path: Path, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(across, permutations=9)
    monkeypatch.setattr(_measured, "across", quick)
    made, names = order(), ["a", "b", "c"]
    said = [model(name) for name in names]
    whole, together = add(tmp_path, made, [gaps(made, a, 4) for a in said], [[]] * 3, heard.append)
    assert together is not None and together.models == tuple(f"model={n}" for n in names)
    one, again = add(tmp_path, made, [gaps(made, said[1], 4)], [[]], heard.append)
    assert {g.model for g in one.models} == {g.model for g in whole.models} and not heard  # the same figures
    fourth = model("d")
    _, more = add(tmp_path, made, [gaps(made, fourth, 4)], [[]], heard.append)
    direct = quick(made, [fourth, said[1], said[0], said[2]], 4)
    assert more is not None and again is not None
    assert more.to_dict() == direct.to_dict()  # as if all had been measured at once, from what the file keeps of them
    assert Measured.load(tmp_path).across == Shared.of(direct) and not heard
    other, _ = add(tmp_path, made, [gaps(made, said[0], 0.5)], [[]], heard.append)  # another k is another question
    assert [g.k for g in other.models] == [0.5] and len(Measured.load(tmp_path).models) == 5 and not heard
    assert Measured.load(tmp_path).across is None and len(Measured.load(tmp_path).alike().models) == 1
    add(tmp_path, made, [gaps(made, model("c", 1), 4)], [[]], heard.append)
    assert len(Measured.load(tmp_path).models) == 5 and len(heard) == 1
    assert f"{tmp_path / 'gaps.json'}: other figures than on" in heard[0] and "model=c (test, k = 4)" in heard[0]
    fresh = order(1)
    measured, _ = add(tmp_path, fresh, [gaps(fresh, said[0], 4)], [[]], heard.append)
    assert [g.model for g in measured.models] == ["model=a"] and len(Measured.load(tmp_path).models) == 1
    assert "by another ranking; this goes from it:" in heard[1] and "model=d (test, k = 4)" in heard[1]
    with pytest.raises(ProvenanceError, match="measured by another ranking.*run `embedx spuriosity gap made -b ranker"):
        measured_now = Measured.load(tmp_path)
        measured_now.check(made, tmp_path)
    Measured.load(tmp_path).check(fresh, tmp_path)
    (tmp_path / gap.FILE).write_text("{")
    with pytest.raises(SpuriosityError, match="nothing can be added to .*after moving it away"):
        add(tmp_path, made, [gaps(made, said[0], 4)], [[]], heard.append)
    assert (tmp_path / gap.FILE).read_text() == "{"


def test_gaps_of_an_earlier_version_are_read_and_told_when_they_go(tmp_path: Path, heard: list[str]) -> None:
    made = order()
    add(tmp_path, made, [gaps(made, model("a"))], [[]], heard.append)
    document = json.loads((tmp_path / gap.FILE).read_text())
    del document["ranking"]["digest"]
    for old in document["models"]:
        del old["answered"], old["right"]
    (tmp_path / gap.FILE).write_text(json.dumps(document))
    Measured.load(tmp_path).check(order(1), tmp_path)
    add(tmp_path, made, [gaps(made, model("b"))], [[]], heard.append)
    assert [g.head for g in Measured.load(tmp_path).models] == ["b"] and "model=a (test, k = 0.2)" in heard[0]


def test_models_tuned_before_stay(tmp_path: Path, heard: list[str]) -> None:
    made, fresh = order(), order(1)
    a = galleries.tuned(("x", "y"), gaps(made, model("a")))
    for tuned in (a, replace(a, head="other"), a):
        path = _tunings.add(tmp_path, made, [tuned], heard.append)
    assert [t.head for t in _tunings.load(path).models] == ["plain", "other"] and not heard
    _tunings.add(tmp_path, made, [replace(a, stop="half of validation")], heard.append)
    assert len(_tunings.load(path).models) == 2 and "other figures than on" in heard[0] and "model0=plain" in heard[0]
    _tunings.add(tmp_path, fresh, [a], heard.append)
    assert len(_tunings.load(path).models) == 1 and "by another ranking" in heard[1] and "model0=other" in heard[1]


def test_sensitivities_measured_before_stay(tmp_path: Path, heard: list[str]) -> None:
    for name in ("a", "b", "a"):
        losses(name).add(tmp_path, heard.append)
    assert Sensitivities.load(tmp_path).models == ("a", "b") and not heard
    losses("b", drop=0.3).add(tmp_path, heard.append)
    assert Sensitivities.load(tmp_path).models == ("b", "a") and "other figures than on" in heard[0]
    losses("c", pairs="other roles").add(tmp_path, heard.append)
    assert Sensitivities.load(tmp_path).models == ("c",) and "of other features, roles or settings" in heard[1]


def test_single_runs_are_added_and_never_mixed_with_a_comparison(tmp_path: Path, heard: list[str]) -> None:
    first = make_run("b", "plain")
    others = [
        replace(first, dataset="fish"), replace(first, backbone="c"), replace(first, head="dfr"),
        replace(first, selection="worst-group"), replace(first, seed=1),
    ]  # fmt: skip
    for run in (first, *others, replace(first, timings={"fit": 9.0})):
        runs.add([run], tmp_path, heard.append)
    assert len(runs.load(tmp_path / "runs.json")) == 6 and not heard
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 7
    runs.add([make_run("b", "plain", key=1)], tmp_path, heard.append)
    assert len(runs.load(tmp_path / "runs.json")) == 6 and "plain on b of birds by average" in heard[0]
    with pytest.raises(ResultsError, match="single runs of `embedx probe`.*name another folder, such as -o"):
        runs.require(tmp_path, comparison=True)
    runs.save([first], tmp_path / "compared", comparison=True)
    with pytest.raises(ResultsError, match="holds a comparison.*name another folder, such as -o"):
        runs.add([first], tmp_path / "compared", heard.append)
    document = json.loads((tmp_path / "compared" / "runs.json").read_text())
    del document["comparison"]  # as earlier versions wrote it, beside a report
    (tmp_path / "compared" / "runs.json").write_text(json.dumps(document))
    (tmp_path / "compared" / "report.html").touch()
    with pytest.raises(ResultsError, match="holds a comparison"):
        runs.require(tmp_path / "compared", comparison=False)
    (tmp_path / "compared" / "runs.json").write_text("{")
    with pytest.raises(ResultsError, match="is no JSON.*move it away"):
        runs.require(tmp_path / "compared", comparison=True)


def test_a_comparison_that_replaces_another_says_so_and_leaves_nothing_of_it(
    tmp_path: Path, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = grid(2, 2)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "mine.svg").touch()
    svg = '<svg width="1pt" height="1pt"/>'
    report.publish(whole, tmp_path, maps={"timm:net_0": svg}, notice=heard.append)
    before = {p.name for p in (tmp_path / "plots").iterdir()}
    assert {"map-timm-net_0.svg", "mine.svg", "worst_group.svg"} <= before and not heard
    quick = {f"plots/{name}.svg": "" for name in ("worst_group", "backbones")} | {"table.md": "", "report.html": ""}
    monkeypatch.setattr(report_files, "_files", lambda made: {name: str(made.heads) for name in quick})
    report.publish([replace(r, timings={}) for r in whole], tmp_path, notice=heard.append)
    assert not heard  # the same figures
    real = report_files.write_text

    def killed(path: Path, text: str) -> None:
        if path.suffix == ".html":
            raise KeyboardInterrupt
        real(path, text)

    monkeypatch.setattr(report_files, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        report.publish(whole[:1], tmp_path, notice=heard.append)
    assert len(heard) == 1 and "head-1 on timm:net_1 of birds" in heard[0] and "stay in finished.jsonl" in heard[0]
    assert runs.load(tmp_path / "runs.json") == tuple(whole[:1])
    assert not (tmp_path / "report.html").exists()  # none, and not one of other records
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 2
    assert {p.name for p in (tmp_path / "plots").iterdir()} == {"mine.svg", "worst_group.svg", "backbones.svg"}
    monkeypatch.setattr(report_files, "write_text", real)
    with ThreadPoolExecutor(2) as pool:  # files of two comparisons at once are all of one of them
        list(pool.map(lambda found: report.publish(found, tmp_path), (whole[:1], whole[1:2])))
    (last,) = runs.load(tmp_path / "runs.json")
    assert last.head in (tmp_path / "report.html").read_text() and last.head in (tmp_path / "table.md").read_text()
    assert last.head in (tmp_path / "runs.csv").read_text()


@pytest.mark.parametrize("damage", ["table of another", "words of another", "edited", "killed between"])
def test_a_ranking_is_its_table_and_its_words(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path, other = tmp_path / "r.csv", tmp_path / "other.csv"
    found = rank_by_features(WHOLE, cache, {0: (2,)})
    found.save(path)
    rank_by_features(WHOLE, cache, {0: (3,)}).save(other)
    assert Ranking.load(path, WHOLE).digest == found.digest
    if damage == "table of another":
        shutil.copy(other, path)
    elif damage == "words of another":
        shutil.copy(other.with_suffix(".json"), path.with_suffix(".json"))
    elif damage == "edited":
        path.write_text(path.read_text().replace("0.5", "0.6", 1))
    else:

        def killed(file: Path, text: str) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(documents, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            rank_by_features(WHOLE, cache, {0: (3,)}).save(path)
        with pytest.raises(SpuriosityError, match="does not exist; make it with `embedx spuriosity rank`"):
            Ranking.load(path, WHOLE)
        return
    with pytest.raises(SpuriosityError, match=f"is not the table that r.json.*`embedx spuriosity rank pets -b {ONE}`"):
        Ranking.load(path, WHOLE)


def test_a_ranking_of_an_earlier_version_is_read(cache: FeatureCache, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    found = rank_by_features(WHOLE, cache, {0: (2,)}, min_votes=3)
    found.save(path)
    assert Ranking.load(path, WHOLE).min_votes == 3
    document = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(
        json.dumps({key: value for key, value in document.items() if key not in ("sha256", "min_votes")})
    )
    old = Ranking.load(path, WHOLE)
    assert old.digest == found.digest and old.min_votes is None


def test_a_ranking_knows_what_its_numbers_follow_from(cache: FeatureCache) -> None:
    found = rank_by_features(WHOLE, cache, {0: (2,), 1: (2,)})
    labels = found.labels.copy()
    labels[0] = 1 - labels[0]
    changed = [
        replace(found, scores=found.scores + 1), replace(found, labels=labels), replace(found, weights="w"),
        replace(found, backbone="b"), replace(found, ids=found.ids[::-1]), replace(found, classes=("dog", "cat")),
    ]  # fmt: skip
    assert len({r.digest for r in (found, *changed)}) == 7 and replace(found, cues={}).digest == found.digest


def test_a_ranking_that_replaces_another_says_so(workspace: Workspace, cache: FeatureCache, tmp_path: Path) -> None:
    said = [replace(START, label="spurious", feature=f, class_index=c, class_name=name)
            for f, c, name in ((2, 0, "cat"), (2, 1, "dog"))]  # fmt: skip
    annotations.write(tmp_path / annotations.FILE, said)
    line = ["--cache", str(workspace.path), "spuriosity", "rank", "pets", "-b", ONE, "-o", str(tmp_path)]
    first, again, other = (CliRunner().invoke(main, words) for words in (line, line, [*line, "--per-split"]))
    assert first.exit_code == again.exit_code == other.exit_code == 0, other.output
    assert "is replaced" not in first.output + again.output
    assert "ranked otherwise and is replaced; gaps and tuned heads that go by it are out of date" in other.output
    place(workspace, "pets", ONE).unlink()


@pytest.fixture(scope="module")
def found(workspace: Workspace) -> Discovery:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "FITTED", {"convex": recipes.FITTED["convex"]})  # the others descend for epochs
        return important_features(WHOLE, FeatureCache.open_complete(workspace.cache("pets", ONE)), k=2, seeds=1)


def test_a_discovery_and_its_head_are_of_one_run(found: Discovery, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    found.save(first)
    assert found.fitted is not None
    numbers = found.fitted.linear
    replace(found, fitted=replace(found.fitted, numbers=replace(numbers, coef=-numbers.coef))).save(second)
    assert Discovery.load(first) == found
    shutil.copy(second / found.head, first)
    with pytest.raises(ProvenanceError, match=f"is not the head that .*run `embedx spuriosity discover pets -b {ONE}`"):
        Discovery.load(first).saved_head(first)
    document = json.loads((first / "discovery.json").read_text())
    assert document.pop("head_sha256")
    (first / "discovery.json").write_text(json.dumps(document))  # of an earlier version
    assert Discovery.load(first).saved_head(first)
    Discovery.load(second).save(second)  # without a fresh head the digest stays
    assert Discovery.load(second).saved_head(second)


def test_a_discovery_says_what_it_replaces_and_leaves_work_on_other_features_alone(
    workspace: Workspace, found: Discovery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(backbone: str, result: Discovery, code: int = 0) -> str:
        monkeypatch.setattr("embedx.spuriosity.discover.important_features", lambda *_, **__: result)
        line = ["--cache", str(workspace.path), "spuriosity", "discover", "pets", "-b", backbone, "-o", str(tmp_path)]
        done = CliRunner().invoke(main, line)
        assert done.exit_code == code, done.output
        return done.output

    assert "is replaced" not in run(ONE, found) + run(ONE, found)
    fewer = replace(found, candidates=found.candidates[:2])
    assert f"(pets, {ONE}, convex head by label) found otherwise and is replaced" in run(ONE, fewer)
    annotations.write(tmp_path / annotations.FILE, [said_by("me")])
    before = (tmp_path / "discovery.json").read_bytes()
    assert "mean nothing in another network" in run(TWO, found, code=1)
    assert (tmp_path / "discovery.json").read_bytes() == before


def test_panels_of_another_discovery_are_told(tmp_path: Path, heard: list[str]) -> None:
    folder = galleries.analysis(tmp_path, ("cat", "dog"))
    Findings.load(folder, heard.append)
    assert ["1 of 6 features have no panel" in text for text in heard] == [True]


def test_sites_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = galleries.analysis(tmp_path, ("cat", "dog"))

    def written(found: Site, place: Path, progress: Any) -> None:
        for name in ("index.html", "site.json"):
            (place / name).write_text(site.KIND.text(site.Gallery("made", "ranker", 2, {})))

    monkeypatch.setattr(site, "_write", written)
    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda _: galleries.build(folder), range(12)))
    assert all(page.is_file() for page in pages)
    assert not list(folder.glob(".site.*.part"))


def test_a_review_says_what_it_replaces_and_refuses_to_replace_notes(tmp_path: Path, heard: list[str]) -> None:
    folder = galleries.analysis(tmp_path, ("cat", "dog"))
    flags = flags_file.load(folder)
    flags_file.save(folder, flags, heard.append)
    assert not heard
    flags_file.save(folder, flags[:1], heard.append)
    assert "listed other images" in heard[0]
    flags_file.require(folder)
    heading, *rows = (folder / flags_file.FILE).read_text().splitlines()
    (folder / flags_file.FILE).write_text("\n".join([f"{heading},verdict", *(f"{row},wrong" for row in rows)]))
    with pytest.raises(SpuriosityError, match="has a column 'verdict' that is not ours.*rename the file"):
        flags_file.require(folder)


def test_a_table_of_votes_is_replaced_by_one_that_holds_it_and_by_no_other(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    ranked = replace(said_by("a", "b"), rank=1)
    assert salient.write(path, [ranked]) == 2
    assert salient.write(path, [replace(said_by("a", "b", "c"), rank=1)]) == 3
    before = path.read_bytes()
    with pytest.raises(SpuriosityError, match="is there already, and 1 of its lines would go .*name another file"):
        salient.write(path, [ranked])
    assert path.read_bytes() == before


@pytest.mark.parametrize("held", [True, False])
def test_a_process_that_is_at_work_is_told_of_and_waited_for(tmp_path: Path, heard: list[str], held: bool) -> None:
    path = tmp_path / "x"
    with ThreadPoolExecutor(1) as pool:
        done: list[str] = []

        def work() -> None:
            with alone(path, heard.append):
                done.append("second")

        if held:
            with locked(path):
                waiting = pool.submit(work)
                while not heard:
                    assert not waiting.done()
                assert not done
        else:
            waiting = pool.submit(work)
        waiting.result()
    assert done == ["second"] and [f"another process is at work on {path}" in text for text in heard] == [True] * held
