"""Answers on images, what is made of them, and what answers on features change: all that needs no browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pets import ONE, WHOLE, features, write
from starlette.requests import Request

from embedx import journal
from embedx.annotation import effects, work
from embedx.annotation.agreement import agreed
from embedx.annotation.board import Board, PageSettings
from embedx.annotation.copies import corrected, grouped, write_corrected, write_grouped
from embedx.annotation.copies import write as write_copy
from embedx.annotation.gold import gold_answers
from embedx.annotation.image_views import GroupsAsked
from embedx.annotation.images import ANSWERS, DECISION, DECISIONS, GROUP, UNKNOWN, Book, Decision, GroupLabel, books
from embedx.annotation.order import Asked, Row, ordered, way
from embedx.annotation.site import Site
from embedx.annotation.votes import Ballot, Votes
from embedx.annotation.work import Place, in_turn
from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS
from embedx.errors import ManifestError, SpuriosityError
from embedx.spuriosity import annotations
from embedx.spuriosity.analysis import Analysis
from embedx.spuriosity.annotate import annotate
from embedx.spuriosity.annotations.votes import Vote
from embedx.spuriosity.discover import discover
from embedx.spuriosity.gap import gap
from embedx.spuriosity.measures.tuning_settings import TuningSettings
from embedx.spuriosity.rank import rank
from embedx.spuriosity.records.discovery import Discovery
from embedx.spuriosity.tune import tune
from embedx.store import open_cache
from embedx.workspace import Workspace

WRONG, SEVERAL, FINE = ANSWERS


def told(*anything: object) -> None:
    """Nobody listens."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Pets with features, discovered and annotated by the place; nothing is ranked yet."""
    workspace = Workspace(tmp_path / "cache")
    manifests.save(WHOLE, workspace.dataset("pets"))
    write(workspace, WHOLE, ONE, features(WHOLE))
    found = Place(workspace.path, "pets", ONE, tmp_path / "results")
    analysis = found.open(told)
    discover(analysis, k=2, seeds=1)
    annotate(analysis, attributes=["place"])
    return found


def decision(row: int, answer: str, right: str = "", who: str = "ann", label: str = "") -> Decision:
    name = label or WHOLE.classes[WHOLE.labels[row]]
    return Decision("pets", str(WHOLE.ids[row]), name, who, answer, right)


def book_of(folder: Path, *lines: Any) -> Book[Any]:
    kind = DECISION if isinstance(lines[0], Decision) else GROUP
    book = Book(folder / kind.file, kind, "pets")
    for line in lines:
        book.append(line)
    book.refresh()
    return book


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("x", "y")), st.sampled_from(("in", "out", ""))),
                max_size=12))  # fmt: skip
def test_the_last_answer_of_each_person_counts_and_most_of_them_decide(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("book")
    book, late = (Book(folder / GROUP.file, GROUP, "pets") for _ in range(2))
    for who, item, value in lines:
        book.append(GroupLabel("pets", item, "place", who, value))
        book.refresh()
    late.refresh()  # the same whether it was read as it grew or at once
    for item in ("x", "y"):
        last = {who: value for who, i, value in lines if i == item}
        values = sorted(v for v in last.values() if v)
        for read in (book, late):
            assert sorted(line.value for line in read.of(("place", item))) == values
            found = read.decided(("place", item))
            for value in ("in", "out"):
                most = 2 * values.count(value) > len(values)
                assert (found is not None and found.value == value) == most


def test_decisions_correct_and_leave_out_and_all_else_stays(tmp_path: Path) -> None:
    said = [
        decision(0, WRONG, "dog"), decision(1, WRONG), decision(2, FINE), decision(3, SEVERAL),
        decision(4, WRONG, "cat"), decision(4, FINE, who="bob"), decision(5, WRONG, "dog", label="not its label"),
        replace(decision(6, WRONG), id="gone.png"), decision(7, WRONG), decision(7, ""),
    ]  # fmt: skip
    assert WHOLE.classes[WHOLE.labels[0]] in WHOLE.classes
    copy, rows = corrected(WHOLE, book_of(tmp_path, *said))
    assert rows == {
        "label corrected": 1, "left out": 1, FINE: 1, SEVERAL: 1, "undecided": 1, "relabelled since": 1,
        "no row of the dataset": 1,
    }  # fmt: skip
    assert copy.ids.tolist() == [i for i in WHOLE.ids.tolist() if i != WHOLE.ids[1]]
    same = np.delete(WHOLE.labels, 1)
    same[0] = WHOLE.classes.index("dog")
    assert copy.labels.tolist() == same.tolist()
    assert copy.splits.tolist() == np.delete(WHOLE.splits, 1).tolist()
    assert copy.codes["place"].tolist() == np.delete(WHOLE.codes["place"], 1).tolist()
    with pytest.raises(SpuriosityError, match="has no label error that is decided"):
        corrected(WHOLE, book_of(tmp_path / "other", decision(0, FINE)))


def test_an_attribute_that_people_named(tmp_path: Path) -> None:
    val, test = (np.flatnonzero(WHOLE.splits == SPLITS.index(s)) for s in ("val", "test"))
    given = {int(row): ("light", "dark")[i % 2] for i, row in enumerate((*val[:6], *test[:4]))}
    book = book_of(tmp_path, *(GroupLabel("pets", str(WHOLE.ids[r]), "sky", "ann", v) for r, v in given.items()))
    copy, rows = grouped(WHOLE, book, "sky")
    assert rows == {"light": 5, "dark": 5} and copy.grouping == ("sky",)
    assert (copy.splits == SPLITS.index("val")).sum() == 6  # of validation only those with a value
    words = dict(zip(copy.ids.tolist(), (copy.values["sky"][c] for c in copy.codes["sky"]), strict=True))
    for row, row_id in enumerate(WHOLE.ids.tolist()):
        expected = given.get(row, UNKNOWN)
        assert words.get(row_id) == (None if row in val and row not in given else expected)
    for name, message in (("moon", "has no value of 'moon'"), ("place", "has an attribute 'place' already")):
        book.append(GroupLabel("pets", str(WHOLE.ids[0]), "place", "ann", "in"))
        book.refresh()
        with pytest.raises(SpuriosityError, match=message):
            grouped(WHOLE, book, name)


def test_a_copy_is_a_dataset_with_the_same_features_and_the_original_stays(place: Place) -> None:
    workspace = Workspace(place.cache)
    before = {p.name: p.read_bytes() for p in workspace.dataset("pets").iterdir() if p.is_file()}
    book_of(place.folder, decision(0, WRONG, "dog" if WHOLE.labels[0] == 0 else "cat"), decision(1, WRONG))
    said = write_corrected(place, None, told, told)
    assert f"wrote {workspace.dataset('pets-reviewed')}: {len(WHOLE) - 1:,} rows" in said and "left out 1" in said
    manifest, edited = manifests.load(workspace.dataset("pets-reviewed"))
    assert not edited and len(manifest) == len(WHOLE) - 1
    assert open_cache(workspace, manifest, ONE).features().tolist() == features(WHOLE).tolist()
    val = np.flatnonzero(WHOLE.splits == SPLITS.index("val"))[:20]
    book_of(place.folder, *(GroupLabel("pets", str(WHOLE.ids[r]), "sky", "ann", "ab"[r % 2]) for r in val))
    assert "embedx compare pets-by-sky" in write_grouped(place, "sky", told, told)
    write_corrected(place, None, told, told)  # again: a copy of its own is replaced
    after = {p.name: p.read_bytes() for p in workspace.dataset("pets").iterdir() if p.is_file()}
    assert {k: v for k, v in after.items() if not k.startswith(".")} == {
        k: v for k, v in before.items() if not k.startswith(".")
    }
    manifests.save(replace(WHOLE, name="mine"), workspace.dataset("mine"))
    for name in ("mine", "pets"):
        with pytest.raises(ManifestError, match=f"a dataset '{name}' is there already"):
            write_copy(workspace, WHOLE, WHOLE, name, {})


def test_a_copy_is_never_replaced_by_that_of_another_attribute(place: Place) -> None:
    for attribute in ("g a", "g-a"):
        book_of(
            place.folder, *(GroupLabel("pets", str(WHOLE.ids[r]), attribute, "ann", "ab"[r % 2]) for r in range(200))
        )
    write_grouped(place, "g a", told, told)
    with pytest.raises(ManifestError, match="'pets-by-g-a' is there .* is not a copy of pets with the attribute 'g-a'"):
        write_grouped(place, "g-a", told, told)
    folder = Workspace(place.cache).dataset("pets-by-g-a")
    assert "g a" in manifests.load(folder)[0].codes
    (folder / manifests.TABLE).write_text("nonsense")  # damaged, and ours: it is made anew
    write_grouped(place, "g a", told, told)
    assert "g a" in manifests.load(folder)[0].codes and not manifests.load(folder)[1]


def test_a_copy_that_would_be_no_dataset_is_not_written(place: Place) -> None:
    workspace = Workspace(place.cache)
    codes = np.arange(len(WHOLE)) % 2
    for name, values, message in (
        ("sky", ("a", "b\tc"), "no dataset; mend the answers: .* control characters"),
        ("sky", ("a", ""), "no dataset"), ("s\nky", ("a", "b"), "no dataset"),
    ):  # fmt: skip
        copy = replace(
            WHOLE, codes={**WHOLE.codes, name: codes}, values={**WHOLE.values, name: values}, grouping=(name,)
        )  # fmt: skip
        with pytest.raises(ManifestError, match=f"a copy of pets with the attribute .* would be {message}"):
            write_copy(workspace, WHOLE, copy, "pets-by-sky", {})
    assert workspace.datasets() == ("pets",) and not workspace.dataset("pets-by-sky").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: decision(0, "wrong"), "the answer is 'wrong'; expected one of|did you mean|the answer is 'wrong'"),
        (lambda: decision(0, FINE, "dog"), "right is 'dog' beside 'fine'"),
        (lambda: decision(0, FINE, who=" "), "annotator is ' ', expected a name"),
        (lambda: GroupLabel("pets", "x", "", "ann", "in"), "attribute is '', expected a name"),
        (lambda: GroupLabel("pets", "x", "sky", "ann", "in", -1), "seconds is -1"),
        (lambda: GroupLabel("pets", "x", "sky", "ann", "in", float("nan")), "seconds is nan"),
        (lambda: GroupLabel("pets", "x", "sky", "ann\0"[3:], "in"), "annotator is '.x00', expected a name"),
        (lambda: GroupLabel("pets", "x", "sky", "ann", UNKNOWN), "value is 'unknown', which stands for images without"),
        (lambda: GroupLabel("pets", "x", "sky", "ann", "a\tb"), "value is 'a.tb', expected a word without control"),
        (
            lambda: GroupLabel("pets", "x", "sky", "ann", " b"),
            "value is ' b', expected a word without .* blanks around",
        ),
        (lambda: GroupLabel("pets", "x", "s\nky", "ann", "b"), "attribute is 's.nky', expected a word without control"),
        (lambda: decision(0, WRONG, "cat", label="cat"), "right is 'cat', the label that it has; name another class"),
    ],
)
def test_answers_that_cannot_be_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_broken_line_of_a_book_costs_itself_alone(tmp_path: Path) -> None:
    book = book_of(tmp_path, decision(0, FINE))
    with (tmp_path / DECISIONS).open("ab") as file:
        file.write(b'{"schema": 1, "nonsense": true}\n' + DECISION.text(decision(1, FINE)).encode())
    book.refresh()
    assert len(book.items()) == 2 and len(book.problems) == 1 and "line 2" in book.problems[0]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_one_of_each_class_comes_after_the_other(labels: list[int]) -> None:
    y = np.array(labels)
    rows = np.random.default_rng(len(labels)).permutation(len(y))
    out = in_turn(y, rows)
    assert sorted(out) == sorted(rows.tolist())
    place = {r: i for i, r in enumerate(rows.tolist())}
    for c in set(labels):
        of = [r for r in out if y[r] == c]
        assert of == sorted(of, key=place.__getitem__)  # each class in its own order
    for n in range(len(out) + 1):  # however many are taken, no class is more than one ahead of one that has more left
        counts = {c: sum(y[r] == c for r in out[:n]) for c in set(labels)}
        left = [c for c in counts if counts[c] < labels.count(c)]
        assert all(counts[c] - counts[other] <= 1 for other in left for c in counts)


def test_the_images_that_decide_most(place: Place) -> None:
    analysis = place.open(told)
    with pytest.raises(SpuriosityError, match="spuriosity rank"):
        work.extremes(place, None, told, told)
    ranking = rank(analysis)
    val = set(np.flatnonzero(WHOLE.splits == SPLITS.index("val")).tolist())
    ends = work.extremes(place, None, told, told)
    assert set(ends) == val
    for c in ranking.cues:
        of = [r for r in ends if WHOLE.labels[r] == c]
        scores = ranking.scores[of]
        assert scores[0] == max(scores) and scores[1] == min(scores) and scores[2] == sorted(scores)[-2]
    sure = work.least_sure(place, None, told, told)
    assert set(sure) == val
    (name,) = analysis.names(())
    p = np.sort(analysis.model(name).probabilities(analysis.cache.features()), axis=1)
    margin = p[:, -1] - p[:, -2]
    for c in (0, 1):
        of = [r for r in sure if WHOLE.labels[r] == c]
        assert margin[of].tolist() == sorted(margin[of])
    drawn = work.drawn(place, None, told, told)
    assert set(drawn) == set(np.flatnonzero(WHOLE.splits == SPLITS.index("test")).tolist())
    assert drawn == work.drawn(place, None, told, told)


def test_what_answers_change_for_a_class_is_what_the_commands_find(place: Place, tmp_path: Path) -> None:
    """Only dogs have a cue here, so that the quick look at them and the steps for all find the same."""
    analysis = place.open(told)
    (label,) = annotations.spurious(analysis.annotations())
    quick = effects.of_class(place, label, told, told)
    assert not (place.folder / "gaps.json").exists()  # the quick look writes nothing
    strips = effects.of_all(place, None, told, told)
    other = Analysis.open(analysis.workspace, "pets", ONE, tmp_path / "beside")
    discover(other, k=2, seeds=1)
    annotate(other, attributes=["place"])
    ranking = rank(other)
    assert strips[label] == quick.strip == effects.strip(ranking, label)
    board = Board(place.folder, PageSettings("ann"))
    board.refresh()
    kept = board.effect(label, strips[label])
    assert kept is not None and kept.before == quick.before == gap(other).gaps[0].classes[0]
    (tuned,) = tune(other, settings=TuningSettings())
    assert board.tuned is not None and kept.after is not None and quick.after is not None
    assert kept.after == tuned.tuning.results[1].detail.classes[0]
    assert quick.after.gap.value == pytest.approx(kept.after.gap.value, abs=1e-9)
    assert kept.cues == quick.cues
    shown = strips[label]
    assert shown.places[0] == 1 and shown.places[-1] == shown.n == 300 and len(shown.rows) == effects.SHOWN
    assert ranking.scores[list(shown.rows)].tolist() == sorted(ranking.scores[list(shown.rows)], reverse=True)
    facts = effects.facts(place, None, told, told)
    assert facts.strips == strips and {c: n for c, (_, n) in facts.accuracy.items()} == {0: 80, 1: 80}


def test_a_class_without_a_spurious_feature_has_no_effect(place: Place) -> None:
    with pytest.raises(SpuriosityError, match="no feature of cat is called spurious, so nothing ranks it"):
        effects.of_class(place, 0, told, told)


def test_gold_answers_measure_annotators(place: Place, tmp_path: Path) -> None:
    file = place.folder / annotations.FILE
    known = gold_answers(file, place.folder)
    discovery = Discovery.load(place.folder)
    assert set(known.values()) <= {"core", "spurious"} and known
    board = Board(place.folder, PageSettings("ann", gold=known))
    for who, flip in (("right", False), ("wrong", True)):
        for c in discovery.candidates:
            spurious = (known.get((c.label, c.feature)) == "spurious") != flip
            vote = Vote(who, "background" if spurious else "main_object", seconds=2.0)
            start = next(a for a in annotations.read(file) if (a.class_index, a.feature) == (c.label, c.feature))
            journal.append(file, annotations.KIND, replace(start, votes=(), said=None, source="local").voted([vote]))
    board.refresh()
    unsure = next(iter(known))
    start = next(a for a in annotations.read(file) if (a.class_index, a.feature) == unsure)
    fresh = replace(start, votes=(), said=None, source="local")
    journal.append(file, annotations.KIND, fresh.voted([Vote("unsure", "unsure", seconds=2.0)]))
    board.refresh()
    said = agreed(board)
    n = len(known)
    assert {p.known for p in said.people} == {n}
    flipped = next(p.missed for p in said.people if p.name == "wrong")
    assert {(c, f) for c, _, f in flipped} == set(known)
    assert {(c, name) for c, name, _ in flipped} <= set(enumerate(discovery.classes))
    assert [(p.name, p.gold and (p.gold.value, p.gold.n), len(p.missed)) for p in said.people] == [
        ("right", (1.0, n), 0), ("wrong", (0.0, n), n), ("unsure", None, 0),
    ]  # fmt: skip
    assert len(said.disputes) == len(discovery.candidates) and said.two.kappa is not None and said.two.kappa < 0
    assert [p.seconds for p in said.people] == [2.0, 2.0, 2.0]
    request = Request({"type": "http", "method": "GET", "path": "/agreement", "headers": []})
    page = bytes(Site(board, "", 1).page(
        request, "agreement.html.j2", "agreement", agreed=said, hidden=False, gold=True
    ).body).decode()  # fmt: skip
    assert page.count(f"{n} of {n} answered with core or spurious") == 2
    assert f"0 of {n} answered with core or spurious" in page
    links = [f'<a href="/class/{c}#f-{f}">{name}, feature {f}</a>' for c, name, f in flipped]
    assert f"{n} of {n} answered with core or spurious; missed: {', '.join(links)}</td>" in page
    other = tmp_path / "none.jsonl"
    journal.append(other, annotations.KIND, replace(annotations.read(file)[0], feature=3))
    with pytest.raises(SpuriosityError, match="says core or spurious of none of the 4 features"):
        gold_answers(other, place.folder)
    journal.append(other, annotations.KIND, replace(annotations.read(file)[0], class_name="lynx"))
    with pytest.raises(SpuriosityError, match="calls class . 'lynx', the discovery calls it 'cat|dog'"):
        gold_answers(other, place.folder)


def test_what_the_page_says_of_a_class_whose_votes_from_a_table_were_withdrawn(place: Place) -> None:
    """The page then knows no key of the class; its line is taken, and so is the table when it is read again."""
    file, discovery = place.folder / annotations.FILE, Discovery.load(place.folder)
    file.unlink()
    votes, c = Votes(file, discovery), discovery.candidates[0]
    line = votes.line(Ballot("mturk:a", c.label, c.feature, "background"), c)
    table = replace(line, class_id="n01440764", source="mturk")
    for each in (table, replace(votes.line(Ballot("mturk:a", c.label, c.feature, None), c), class_id="n01440764")):
        votes.append(each)
    votes.refresh()
    assert votes.of(c.label, c.feature) is None
    votes.append(votes.line(Ballot("ann", c.label, c.feature, "main_object"), c))
    votes.refresh()
    found = votes.of(c.label, c.feature)
    assert votes.problems == {} and found is not None
    assert found.class_id == "n01440764" and found.votes == (Vote("ann", "main_object"),)
    analysis = place.open(told)
    (said,) = annotations.add(file, [table], analysis.cache, analysis.manifest)
    assert {v.annotator for v in said.votes} == {"ann", "mturk:a"}


def test_pace_and_last_are_those_of_the_votes_that_hold(place: Place) -> None:
    file, discovery = place.folder / annotations.FILE, Discovery.load(place.folder)
    votes, late = Votes(file, discovery), Votes(file, discovery)
    a, b, c = discovery.candidates[:3]
    for who, candidate, answer, seconds in (
        ("ann", a, "main_object", 2.0), ("ann", b, "background", 4.0), ("ann", c, "unsure", None),
        ("bob", c, "unsure", 9.0),
        ("ann", b, "background", 6.0), ("ann", c, None, None), ("bob", c, None, None),
    ):  # fmt: skip
        votes.append(votes.line(Ballot(who, candidate.label, candidate.feature, answer, seconds=seconds), candidate))
        votes.refresh()
    late.refresh()
    for read in (votes, late):
        assert read.last("ann") == (b.label, b.feature) and read.pace("ann") == 4.0
        assert read.last("bob") is None and read.pace("bob") is None and read.last("eve") is None
    votes.append(votes.line(Ballot("ann", b.label, b.feature, None), b))
    votes.refresh()
    assert votes.last("ann") == (a.label, a.feature) and votes.pace("ann") == 2.0


def test_a_line_of_another_dataset_or_backbone_is_told_and_counts_nowhere(place: Place) -> None:
    file, discovery = place.folder / annotations.FILE, Discovery.load(place.folder)
    file.unlink()
    votes, c = Votes(file, discovery), discovery.candidates[0]
    line = votes.line(Ballot("ann", c.label, c.feature, "background", seconds=1.0), c)
    for other in (
        replace(line, dataset="pets-reviewed"),
        replace(line, backbone="tiny:two"),
        replace(line, weights="w"),
    ):
        votes.append(other)
    votes.refresh()
    assert list(votes.problems) == [1, 2, 3] and votes.all() == []
    assert f"it is of {ONE} on pets-reviewed, the features are of {ONE} on pets" in votes.problems[1]
    assert votes.last("ann") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotator": " \t\u200b"}, "the annotator is ' .t.u200b', expected a name"),
        ({"annotator": "\x00\x07"}, "the annotator is '.x00.x07', expected a name"),
        ({"annotator": "\x00", "answer": None}, "the annotator is '.x00', expected a name"),
        ({"confidence": 0}, "the confidence of ann is 0, expected a number, 1 to 5, or null"),
        ({"confidence": 6}, "the confidence of ann is 6"),
        ({"seconds": float("nan")}, "the seconds of ann is nan, expected a number, 0 or more, or null"),
        ({"seconds": float("inf")}, "the seconds of ann is inf"),
        ({"seconds": -0.1}, "the seconds of ann is -0.1"),
        ({"answer": "core"}, "the answer of ann is 'core'"),
    ],
)
def test_a_ballot_that_cannot_be_is_refused(place: Place, changes: dict[str, Any], message: str) -> None:
    discovery = Discovery.load(place.folder)
    votes, c = Votes(place.folder / annotations.FILE, discovery), discovery.candidates[0]
    ballot = Ballot("ann", c.label, c.feature, "background", cue=" green\u00a0grass\u200b\n", note="n" * 60_000)
    line = votes.line(ballot, c)
    assert (line.cue, line.votes[0].cue) == ("green\u00a0grass",) * 2
    votes.append(line)
    votes.refresh()
    assert votes.vote("ann", c.label, c.feature) == line.votes[0]
    with pytest.raises(ValueError, match=message):
        votes.line(replace(ballot, **changes), c)


rows_of = st.lists(
    st.builds(Row, st.integers(), st.text(max_size=3), st.just(1), st.integers(0, 2), st.just(2), st.floats(0, 1),
              st.booleans()),
    min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=60)
@given(rows_of, st.sampled_from(("value", "name", "index")), st.sampled_from(("all", "todo", "disputed")), st.data())
def test_next_leads_through_all_that_is_left_and_previous_back(
    found: list[Row], order: str, show: str, data: st.DataObject
) -> None:
    found = [replace(row, label=i) for i, row in enumerate(found)]
    asked = Asked(order, show)
    label = data.draw(st.integers(0, len(found) - 1))
    here = way(found, asked, label)
    line = ordered(found, Asked(order), todo_first=False)
    assert line[here.place - 1].label == label and here.n == len(found)
    assert (here.before.label if here.before else None) == (line[here.place - 2].label if here.place > 1 else None)
    wanted = {r.label for r in ordered(found, asked) if r.label != label}
    if show == "all" and any(r.state != "done" for r in found if r.label != label):
        wanted = {r.label for r in found if r.state != "done" and r.label != label}
    assert (here.after is None) == (not wanted) and (here.after is None or here.after.label in wanted)
    seen, at = set(), here.after
    while at is not None and at.label not in seen:  # on and on, and round the end: all of them
        seen.add(at.label)
        at = way(found, asked, at.label).after
    assert wanted <= seen | {label} if len(wanted) > 1 else True


def test_an_address_that_cannot_be_asks_for_what_is_usual() -> None:
    usual = GroupsAsked()
    assert GroupsAsked.of({"by": "magic", "n": "10000000", "values": " , "}) == usual
    assert GroupsAsked.of({"n": "-1"}).n == 50 and GroupsAsked.of({"n": "9999"}).n == 200
    assert GroupsAsked.of({"values": "a, b ,a"}).values == ("a", "b")
    assert Asked.of({"order": "x", "show": "y", "page": "９"}) == Asked()
    for order in ("value", "name"):
        asked = Asked(order, "todo", "a b&c", 3)
        assert "&" not in asked.address(q="a b&c").split("q=")[1].split("&")[0]


def test_books_are_those_of_the_dataset(tmp_path: Path) -> None:
    other = replace(decision(0, FINE), dataset="cars")
    journal.append(tmp_path / DECISIONS, DECISION, other)
    decisions, labels = books(tmp_path, "pets")
    assert decisions.items() == [] and labels.items() == []


def test_a_copy_of_rows_in_archives_knows_where_they_lie(tmp_path: Path) -> None:
    """The index of the copy is of its own rows, and one that is of others would be refused."""
    workspace = Workspace(tmp_path / "cache")
    table = np.zeros(len(WHOLE), dtype=[("id", "S9"), ("offset", "<i8"), ("size", "<i8")])
    table["id"], table["offset"] = [i.encode() for i in WHOLE.ids], np.arange(len(WHOLE))
    original = replace(WHOLE, members=table, root=str(tmp_path))
    manifests.save(original, workspace.dataset("pets"))
    kept, rows = corrected(original, book_of(tmp_path / "said", decision(3, WRONG)))
    copy = write_copy(workspace, original, kept, "pets-reviewed", rows)
    manifests.check_members(copy.folder)
    there = np.load(copy.folder / manifests.MEMBERS, allow_pickle=False)
    assert there["offset"].tolist() == [i for i in range(len(WHOLE)) if i != 3]
    assert manifests.load(copy.folder)[0].ids.tolist() == [i.decode() for i in there["id"]]
