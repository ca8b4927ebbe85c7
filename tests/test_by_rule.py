"""The plain head as other rules would have chosen it: the same head that these rules choose when they are asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pets import ONE, WHOLE, features, write

from embedx.evaluation import runs
from embedx.evaluation.probe import probe
from embedx.evaluation.runs import unpack
from embedx.evaluation.selection import RULES
from embedx.evaluation.split import Split, join
from embedx.workspace import Workspace


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return join(WHOLE, write(Workspace(tmp_path_factory.mktemp("cache")), WHOLE, ONE, features(WHOLE)))


def test_it_is_the_head_that_the_rule_chooses(split: Split) -> None:
    by_average = probe(split, "plain", rule="average")[0]
    assert set(by_average.by_rule) == set(RULES) - {"average", "spuriosity-halves"}  # there is no ranking
    n = len(split.test)
    for rule in ("worst-group", "balanced"):
        other = probe(split, "plain", rule=rule)[0]
        same = unpack(by_average.by_rule[rule], n) == unpack(other.correct, n)
        assert same.mean() > 0.995  # what was tried was solved less exactly than what is reported
        assert "average" in other.by_rule
    assert not probe(split, "reweighted")[0].by_rule


def test_records_of_the_version_before_are_read(split: Split, tmp_path: Path) -> None:
    run = probe(split, "plain")[0]
    runs.save([run], tmp_path)
    document = json.loads((tmp_path / runs.FILE).read_text())
    assert document["version"] == 3 and runs.load(tmp_path / runs.FILE)[0] == run
    for record in document["runs"]:
        del record["by_rule"]
    (tmp_path / runs.FILE).write_text(json.dumps(document | {"version": 2}))
    (before,) = runs.load(tmp_path / runs.FILE)
    assert not before.by_rule and before.correct == run.correct
