"""Annotations: the lines on disk, what votes decide, how far annotators agree, and whose features they are of."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pets import ONE, TWO, WHOLE, features, write

from embedx import journal
from embedx.documents import plain
from embedx.errors import ProvenanceError, SpuriosityError
from embedx.spuriosity import annotations as notes
from embedx.spuriosity.annotations import KIND, Annotation, agreement, check, merged, read, spurious
from embedx.spuriosity.annotations.votes import ANSWERS, Vote, blank, decide, rule_of
from embedx.workspace import Workspace

START = Annotation("pets", ONE, f"digest of {ONE}", 0, "cat", 2, "unsure", "local", rank=1, importance=0.5)
CORE, OTHER, BEHIND, UNSURE = ANSWERS


def votes(*answers: str) -> tuple[Vote, ...]:
    return tuple(Vote(f"a{i}", answer) for i, answer in enumerate(answers))


words = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda word: not blank(word))
figures = st.floats(-1e9, 1e9)
ballot = st.builds(Vote, words, st.sampled_from(ANSWERS), st.none() | st.floats(1, 5), words)
ballots = st.lists(ballot, max_size=5, unique_by=lambda v: v.annotator)


@st.composite
def some(draw: Any) -> Annotation:
    label = draw(st.sampled_from(("core", "spurious", "unsure")))
    kind = draw(st.sampled_from(notes.KINDS[label]))
    evidence = draw(st.dictionaries(words, st.none() | figures | words | st.lists(st.integers())))
    made = Annotation(
        draw(words), draw(words), draw(words), draw(st.integers(0, 9)), draw(words),
        draw(st.none() | st.integers(0, 9)), label, draw(st.sampled_from(notes.SOURCES)),
        rank=draw(st.none() | st.integers(1, 9)), importance=draw(st.none() | figures), kind=kind, cue=draw(words),
        evidence=evidence,
    )  # fmt: skip
    said = draw(ballots)
    return made.voted(said, draw(st.sampled_from(("majority", "unanimous", 1, 3)))) if said else made


@settings(max_examples=40)
@given(st.lists(some(), max_size=4, unique_by=lambda a: a.pair))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, found: list[Annotation]) -> None:
    path = tmp_path_factory.mktemp("notes") / "made" / notes.FILE
    notes.write(path, found)
    assert read(path) == tuple(found)
    for a in found:  # and so it is line by line, and twice over: a line said again changes nothing
        journal.append(path, KIND, a)
    assert read(path) == tuple(found)


@settings(max_examples=60)
@given(st.data())
def test_a_crash_while_a_line_is_appended_costs_that_line_only(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("notes") / notes.FILE
    found = [replace(START, feature=i, cue="Rücken 🐈") for i in range(3)]
    notes.write(path, found)
    whole = path.read_bytes()
    lengths = np.cumsum([len(line) + 1 for line in whole.split(b"\n")[:-1]]).tolist()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = sum(length - 1 <= cut for length in lengths)  # a line is whole without its newline
    said: list[str] = []
    assert read(path, said.append) == tuple(found[:kept])
    torn = cut not in {0, *lengths, *(length - 1 for length in lengths)}
    assert len(said) == torn
    if torn:
        assert "the last line" in said[0] and "cut short" in said[0]
        with pytest.raises(SpuriosityError, match=f"line {kept + 1}: it is no "):
            read(path)
    journal.append(path, KIND, replace(START, feature=9))
    assert [a.feature for a in read(path)] == [*range(kept), 9]


def line(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in (KIND.marks | plain(START) | changes).items() if v is not ...}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 3}, "$.schema is 3, expected 2 (a newer embedx wrote 3: update embedx)"),
        ({"dataset": ""}, "dataset is '', expected a name"),
        ({"weights": 7}, "$.weights is 7, expected text"),
        ({"class_index": -1}, "class_index is -1, expected a whole number from 0 on;"),
        ({"class_index": True}, "$.class_index is true, expected a whole number"),
        ({"class_id": None}, "$.class_id is null, expected text"),
        ({"feature": 2.0}, "$.feature is 2.0, expected a whole number or null"),
        ({"feature": None}, "feature is null and there is no cue"),
        ({"rank": 0}, "rank is 0, expected a whole number from 1 on"),
        ({"importance": "high"}, '$.importance is "high", expected a whole number or a number or null'),
        ({"label": "spurius"}, "label is 'spurius'; did you mean 'spurious'"),
        ({"label": ["core"]}, '$.label is ["core"], expected text'),
        ({"label": "core", "kind": "background"}, "kind is 'background'; with the label core"),
        ({"source": "auto:txt"}, "source is 'auto:txt'; did you mean 'auto:text'"),
        ({"rule": 0}, "the rule is 0, expected majority, unanimous or a number of votes from 1 on"),
        ({"rule": True}, "$.rule is true, expected a whole number or text"),
        ({"evidence": []}, "$.evidence is [], expected an object"),
        ({"colour": "red"}, "$ has a field 'colour', which is unknown; "),
        ({"feature": ...}, "$ has no field 'feature', expected one"),
        ({"votes": {}}, "$.votes is {}, expected a list"),
        ({"votes": [{"annotator": "a"}]}, "$.votes[0] has no field 'answer', expected one"),
        ({"votes": [{"annotator": "a", "answer": "x"}]}, "$.votes[0]: the answer of a is 'x'"),
        ({"votes": [{"annotator": " ", "answer": CORE}]}, "$.votes[0]: the annotator is ' ', expected a name"),
        ({"votes": [{"annotator": "\u200b\x07", "answer": CORE}]}, r"$.votes[0]: the annotator is '\u200b\x07', exp"),
        ({"votes": [{"annotator": "a", "answer": CORE, "confidence": 6}]}, "$.votes[0]: the confidence of a is 6"),
        ({"votes": [{"annotator": "a", "answer": CORE, "seconds": -1}]}, "$.votes[0]: the seconds of a is -1"),
        ({"votes": [{"annotator": "a", "answer": CORE, "note": 1}]}, "$.votes[0].note is 1, expected text"),
        ({"votes": [{"annotator": "a", "answer": UNSURE, "mood": 1}]}, "$.votes[0] has a field 'mood'"),
        ({"votes": [{"annotator": "a", "answer": UNSURE}] * 2}, "'a' votes twice in one line"),
        ({"votes": [{"annotator": "a", "answer": UNSURE}], "withdrawn": ["a"]}, "'a' votes and withdraws the vote"),
        ({"said": {"label": "core", "kind": "", "source": "me"}}, "$.said: source is 'me'; "),
        ({"votes": [{"annotator": "a", "answer": CORE}]}, "the label is 'unsure', and its 1 votes say 'core "),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(x) for x in (line(), line(feature=1), line(**changes))) + "\n")
    with pytest.raises(SpuriosityError) as error:
        read(path)
    assert f"{path}, line 3: {message}" in str(error.value)
    assert "\n" not in str(error.value) and str(error.value).endswith("; mend the line or remove it")
    said: list[str] = []
    assert [a.feature for a in read(path, said.append)] == [START.feature, 1]  # it does not take the rest with it
    assert said == [f"note: a line is left out: {error.value}"]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b"[]\n", "$ is a list, expected an object"),
        (b"{\n", "no JSON"),
        (b"\xff\n", "no UTF-8 (invalid start byte at byte 1)"),
        (json.dumps(line(importance=float("nan"))).encode() + b"\n", "NaN is among its numbers, expected finite ones"),
        (b"[" * 100_000 + b"\n", "nested too deeply"),
    ],
)
def test_what_is_no_line_at_all_is_named(tmp_path: Path, written: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n" + written)
    with pytest.raises(SpuriosityError) as error:
        read(path)
    assert "line 2: " in str(error.value) and message in str(error.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(SpuriosityError, match="no.jsonl does not exist; make it with `embedx spuriosity annotate`"):
        read(Path("no.jsonl"))


def test_evidence_has_to_be_json() -> None:
    for evidence in ({"x": np.float32(1)}, {"x": float("inf")}):
        with pytest.raises(ValueError, match="is no plain JSON"):
            replace(START, evidence=evidence)


def test_a_later_vote_replaces_that_of_the_same_annotator(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    first = replace(START, cue="grass").voted([Vote("ann", CORE)])
    for a in (first, START.voted([Vote("bob", BEHIND)]), START.voted([Vote("ann", BEHIND)])):
        journal.append(path, KIND, a)
    (found,) = read(path)
    assert found.votes == (Vote("ann", BEHIND), Vote("bob", BEHIND))
    assert (found.label, found.kind, found.cue) == ("spurious", "background", "grass")


def test_an_automatic_line_does_not_outvote_people() -> None:
    person = START.voted([Vote("ann", CORE)])
    rule = replace(START, label="spurious", source="auto:mask", evidence={"mask": 0.9}, importance=None)
    for both in (merged(person, rule), merged(rule, person)):
        assert (both.label, both.source, both.evidence, both.importance) == ("core", "local", {"mask": 0.9}, 0.5)
    told = replace(rule, cue="grass")
    assert [merged(told, replace(rule, source=s)).cue for s in ("auto:mask", "auto:text")] == ["", "grass"]
    again = merged(rule, replace(rule, label="core", source="auto:attribute", evidence={"attribute": 1}))
    assert (again.label, again.source, again.evidence) == ("core", "auto:attribute", {"mask": 0.9, "attribute": 1})
    with pytest.raises(ValueError, match="class 0 is 'dog' here and 'cat' in an earlier line"):
        merged(START, replace(START, class_name="dog"))


def test_a_line_without_the_key_of_its_class_goes_with_any(tmp_path: Path) -> None:
    """A page does not know the key of a class of which nothing is said; a table does."""
    path = tmp_path / notes.FILE
    table = replace(START, class_id="n01").voted([Vote("ann", CORE)])
    here = START.voted([Vote("bob", BEHIND)])
    for both in (merged(here, table), merged(table, here), merged(merged(table, withdraw("ann")), here)):
        assert both.class_id == "n01" and {v.annotator for v in both.votes} >= {"bob"}
    for each in (table, replace(withdraw("ann"), class_id="n01"), here):
        journal.append(path, KIND, each)
    assert [(a.class_id, [v.annotator for v in a.votes]) for a in read(path)] == [("n01", ["bob"])]
    with pytest.raises(ValueError, match="class 0 is 'cat n02' here and 'cat n01' in an earlier line"):
        merged(table, replace(START, class_id="n02"))


def withdraw(*names: str) -> Annotation:
    return replace(START, withdrawn=names)


def test_a_vote_that_is_withdrawn_was_never_there(tmp_path: Path) -> None:
    """Whatever is voted and withdrawn again, in any order of lines, what is left says what it said alone."""
    ann, bob = (
        replace(START, cue=c).voted([Vote(n, a, cue=c)]) for n, a, c in (("ann", BEHIND, "grass"), ("bob", CORE, ""))
    )
    rule = replace(START, label="core", kind="main_object", source="auto:mask", cue="fur", evidence={"mask": 1})
    cases = [
        ((ann, withdraw("ann")), None), ((rule, ann, withdraw("ann")), rule), ((ann, rule, withdraw("ann")), rule),
        ((ann, bob, withdraw("bob")), ann), ((bob, ann, withdraw("bob")), ann), ((ann, withdraw("bob")), ann),
        ((ann, withdraw("ann"), bob), bob), ((withdraw("ann"), ann), ann), ((withdraw("ann"),), None),
        ((ann, withdraw("ann"), rule), rule), ((rule, ann, withdraw("ann"), withdraw("ann")), rule),
    ]  # fmt: skip
    for n, (lines, left) in enumerate(cases):
        path = tmp_path / str(n) / notes.FILE
        path.parent.mkdir()
        for each in lines:
            journal.append(path, KIND, each)
        facts = ("label", "kind", "cue", "votes", "source")
        found = [tuple(getattr(a, f) for f in facts) for a in read(path)]
        assert found == ([tuple(getattr(left, f) for f in facts)] if left else []), lines
        notes.write(path, read(path))  # and what is written anew says the same, and can be withdrawn later
        assert [tuple(getattr(a, f) for f in facts) for a in read(path)] == found
        journal.append(path, KIND, withdraw("ann", "bob"))
        assert [a.source for a in read(path)] == (["auto:mask"] if rule in lines else [])


def test_the_commonest_word_of_the_votes_is_the_cue() -> None:
    def cue(*words: str) -> str:
        pair = replace(START, cue="old")
        for i, word in enumerate(words):
            pair = merged(pair, START.voted([Vote(f"a{i}", BEHIND, cue=word)]))
        return pair.cue

    assert [cue("grass"), cue("grass", "lawn"), cue("grass", "lawn", "grass"), cue("", "lawn", ""), cue("", "")] == [
        "grass", "lawn", "grass", "lawn", "old",
    ]  # fmt: skip
    pair = merged(START.voted([Vote("ann", BEHIND, cue="grass")]), START.voted([Vote("ann", BEHIND)]))
    assert pair.cue == ""


def test_votes_decide_as_the_rule_says() -> None:
    for n in (1, 2, 3, 4, 5):
        for answers in itertools.product(ANSWERS, repeat=n):
            s = sum(a in (OTHER, BEHIND) for a in answers)
            c, here = answers.count(CORE), votes(*answers)
            assert (decide(here)[0] == "spurious") == (s > n - s)
            assert (decide(here, "unanimous")[0] == "spurious") == (s == n)
            for m in range(1, 6):
                assert (decide(here, m)[0] == "spurious") == (s >= m)
            label, kind = decide(here)
            assert label == ("spurious" if 2 * s > n else "core" if 2 * c > n else "unsure")
            assert kind == next((a for a in ANSWERS[:3] if 2 * answers.count(a) > n), "")
            assert decide(tuple(reversed(here))) == (label, kind)
    assert decide(votes(OTHER, OTHER, BEHIND, BEHIND, CORE)) == ("spurious", "")  # the published "ambiguous"
    assert decide(votes(CORE, CORE, CORE, CORE, BEHIND), 1) == ("spurious", "")
    with pytest.raises(ValueError, match="no votes"):
        decide([])
    assert [rule_of(r) for r in ("3", 3, "majority", "unanimous")] == [3, 3, "majority", "unanimous"]


def test_s_of_c_is_of_the_class_and_follows_the_rule() -> None:
    found = [
        replace(START, feature=7).voted(votes(BEHIND, BEHIND, CORE)),
        replace(START, feature=3).voted(votes(BEHIND, CORE, CORE)),
        replace(START, feature=7, class_index=1, class_name="dog").voted(votes(CORE)),  # core for another class
        replace(START, feature=5, class_index=4, class_name="fox", label="spurious", source="auto:mask"),
        replace(START, feature=None, cue="water", label="spurious", source="auto:text"),
    ]
    assert spurious(found) == {0: (7,), 4: (5,)}
    assert spurious(found, 1) == {0: (3, 7), 4: (5,)}
    assert spurious(found, "unanimous") == spurious(found, 3) == {4: (5,)}
    assert spurious(reversed(found), "majority") == spurious(found)
    with pytest.raises(ValueError, match="the rule is 0"):
        spurious(found, 0)


def test_features_of_another_network_are_refused(tmp_path: Path) -> None:
    one, two = (write(Workspace(tmp_path), WHOLE, b, features(WHOLE)) for b in (ONE, TWO))
    check([START], one, WHOLE)
    check([START], START.weights)
    with pytest.raises(ProvenanceError, match="feature 2 of class 'cat' was annotated in tiny:one with weights digest"):
        check([START], two)
    with pytest.raises(ProvenanceError, match="and the features comes from weights unknown"):
        check([START], "")
    with pytest.raises(SpuriosityError, match="annotation of feature 5, and the cache of tiny:one has 5 features"):
        check([replace(START, feature=5)], one)
    for changes, calls in (({"class_name": "dog"}, "'cat'"), ({"class_index": 2}, "nothing")):
        with pytest.raises(SpuriosityError, match=f"and pets calls that {calls}; annotate again"):
            check([replace(START, **changes)], one, WHOLE)


def test_agreement_three_ways_and_two() -> None:
    found = [
        START.voted(votes(OTHER, BEHIND, UNSURE)),
        START.voted(votes(CORE, CORE)),
        START.voted(votes(CORE, UNSURE)),  # one answer: nobody to agree with
        START,
    ]
    three, two = agreement(found), agreement(found, binary=True)
    assert (three.pairs, three.votes, three.alone) == (two.pairs, two.votes, two.alone) == (2, 4, 1)
    assert two.kappa == 1
    assert three.kappa == pytest.approx((1 / 2 - 3 / 8) / (5 / 8))
    assert agreement([]).kappa is None
