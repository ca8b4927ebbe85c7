"""Votes on whether the pictures of a feature show the same thing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from embedx import journal
from embedx.errors import SpuriosityError
from embedx.spuriosity.annotations.validations import ANSWERS, FILE, KIND, Validation, read, validated

ONE = Validation("d", "b", "w", 0, "cat", 2, "ann", "same")


def test_five_annotators_validate_as_in_the_paper() -> None:
    for answers in itertools.product(ANSWERS, repeat=5):
        for said_elsewhere in range(6):
            votes = [
                replace(ONE, annotator=f"a{i}", answer=a, elsewhere=("x",) if i < said_elsewhere else ())
                for i, a in enumerate(answers)
            ]
            assert validated(votes)[0, 2].valid == (answers.count("same") >= 4 and said_elsewhere < 4)


def test_a_later_answer_replaces_and_an_empty_one_takes_back(tmp_path: Path) -> None:
    path = tmp_path / FILE
    assert read(path, "w") == ()
    lines = [ONE, replace(ONE, annotator="bob"), replace(ONE, answer="different", elsewhere=("é.jpg",)),
             replace(ONE, weights="other"), replace(ONE, annotator="bob", answer="")]  # fmt: skip
    for line in lines:
        journal.append(path, KIND, line)
    assert read(path, "w") == (lines[2],)
    with path.open("ab") as file:
        file.write(b'{"schema": 1}\n' + KIND.text(replace(ONE, annotator="eve")).encode())
    said: list[str] = []
    assert [v.annotator for v in read(path, "w", said.append)] == ["ann", "eve"]
    assert len(said) == 1 and "line 6" in said[0] and "mend the line or remove it" in said[0]
    with pytest.raises(SpuriosityError, match="line 6"):
        read(path, "w")


def test_an_answer_on_a_class_that_the_discovery_does_not_have_is_left_out_and_told(tmp_path: Path) -> None:
    path, classes = tmp_path / FILE, ("cat", "dog")
    lines = [ONE, replace(ONE, class_index=99, annotator="bob"), replace(ONE, class_name="dog", annotator="eve"),
             replace(ONE, class_index=99, weights="other"), replace(ONE, class_index=1, class_name="dog")]  # fmt: skip
    journal.append(path, KIND, *lines)
    said: list[str] = []
    assert read(path, "w", said.append, classes) == (lines[0], lines[4])
    assert [line.split(": ", 2)[2].partition(";")[0] for line in said] == [
        f"{path}, line 2: it calls class 99 'cat', the discovery calls it None",
        f"{path}, line 3: it calls class 0 'dog', the discovery calls it 'cat'",
    ]
    assert len(read(path, "w")) == 4  # where any class will do
    with pytest.raises(SpuriosityError, match="line 2: it calls class 99 'cat'"):
        read(path, "w", None, classes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "smae"}, "did you mean 'same'"),
        ({"annotator": " "}, "annotator is ' ', expected a name"),
        ({"annotator": "\x00"}, "annotator is '.x00', expected a name"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"confidence": float("nan")}, "confidence is nan"),
        ({"confidence": 6}, "confidence is 6"),
        ({"feature": -1}, "whole numbers from 0 on"),
        ({"seconds": -1}, "seconds is -1"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ONE, **changes)  # pyright: ignore[reportArgumentType]
