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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "smae"}, "did you mean 'same'"),
        ({"annotator": " "}, "annotator is ' ', expected a name"),
        ({"confidence": 6}, "confidence is 6"),
        ({"feature": -1}, "whole numbers from 0 on"),
        ({"seconds": -1}, "seconds is -1"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ONE, **changes)  # pyright: ignore[reportArgumentType]
