"""The study of SpuCoMNIST in miniature: what its answer says is what its runs hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedx.studies.engine.conduct import conduct
from embedx.studies.engine.file import read
from embedx.studies.outcome import Answer, Outcome
from embedx.studies.spuco_mnist import _told, answer
from embedx.workspace import Workspace

pytestmark = pytest.mark.slow

STUDY = """
question = "What does a shortcut do?"
answer = "spuco_mnist"
backbones = ["raw:7x7"]
heads = ["plain", "group-balanced", "jtt", "spare"]

[datasets.spuco]
source = "spuco-mnist"

[datasets.spuco.options]
scans = "digits"
size = 240
classes = "01234,56789"
difficulty = ["magnitude_large"]
correlation = [0.995, 0.8]
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Outcome, Answer]]:
    """The outcome, and the answer as the engine has it from the module."""
    place = tmp_path_factory.mktemp("study")
    (place / "mine.toml").write_text(STUDY)
    outcomes: list[Outcome] = []
    workspace = Workspace(place / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedx.studies.spuco_mnist.answer", lambda o: (outcomes.append(o), answer(o))[1])
        study = read(str(place / "mine.toml"), small=False, plugins_allowed=False, workspace=workspace)
        found = conduct(study, workspace, place / "out")
    yield outcomes[0], found


def test_a_section_for_every_question_with_its_test(told: tuple[Outcome, Answer]) -> None:
    outcome, found = told
    assert len(found.sections) == 4 and all(s.answer and s.evidence for s in found.sections)
    assert "scikit-learn's digits" in found.summary
    plain = outcome.frame.loc[outcome.frame["head"] == "plain"].set_index("correlation")["worst_group"]
    for strength, value in plain.items():
        assert f"{100 * value:.1f} % (" in found.sections[0].answer and f"at {strength:g}" in found.sections[0].answer
    assert "too few" not in found.sections[1].answer and "smallest corrected p is 1" in found.sections[1].evidence


def test_families_are_by_what_heads_take(told: tuple[Outcome, Answer]) -> None:
    frame = _told(told[0])
    assert dict(zip(frame["head"], frame["family"], strict=True)) == {
        "plain": "plain", "group-balanced": "group labels", "jtt": "inferred groups", "spare": "inferred groups",
    }  # fmt: skip


def test_quality_is_that_of_the_runs(told: tuple[Outcome, Answer]) -> None:
    outcome, found = told
    table = found.sections[2].tables[0][1]
    runs = {(c.axes["correlation"], r.head): r for c in outcome.cells for r in c.runs if r.inferred is not None}
    assert len(table) == len(runs) == 4
    for _, row in table.iterrows():
        run = runs[float(row["strength"]), row["head"]]
        assert row["ARI"] == f"{run.inferred.ari:.3f}"
        assert row["agreement %"] == f"{100 * run.inferred.agreement.value:.1f}"


def test_what_sees_the_colour_only_is_computed(told: tuple[Outcome, Answer], tmp_path: Path) -> None:
    outcome, found = told
    cell = next(c for c in outcome.cells if c.axes["correlation"] == 0.995)
    train = cell.manifest.splits == 0
    share = np.mean(cell.manifest.labels[train] == cell.manifest.codes["background"][train])
    assert f"has exactly {100 * share:.3f} % and 0 % here" in found.sections[3].answer
