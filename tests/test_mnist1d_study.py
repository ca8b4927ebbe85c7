"""The study of MNIST-1D: readings of runs, comparisons that say no more than their test, and the whole in small."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from embedx.data.manifest import build
from embedx.evaluation.runs import pack
from embedx.studies import _others, mnist1d
from embedx.studies._reweighting import diagnosed
from embedx.studies._signals import Reading, readings
from embedx.studies.engine.cells import cells
from embedx.studies.engine.conduct import conduct
from embedx.studies.engine.file import read
from embedx.studies.engine.record import STUDY
from embedx.studies.engine.run import runs_of
from embedx.studies.outcome import Answer, CellRuns, Section
from embedx.workspace import Workspace


def reading(head, share, axes=None, n=400):
    """Two classes of n signals, of which the first has this share right and the second all."""
    right = np.ones(2 * n)
    right[: round((1 - share) * n)] = 0
    return Reading("t", axes or {}, "b", head, {"without": right}, np.array([n, n]))


def test_a_gain_is_sure_where_it_is_large_and_never_where_there_is_none():
    found = {"t": [reading("plain", 0.5), reading("better", 0.9), reading("same", 0.5), reading("worse", 0.3)]}
    compared = mnist1d.Compared.of(found)
    assert [r.head for _, r in compared.sure] == ["better"]
    gains = {r.head: gain.interval.value for (_, r), gain, _ in compared.cases}
    assert gains == pytest.approx({"better": 0.4, "same": 0.0, "worse": -0.2})
    assert list(compared.table["head"]) == ["better", "same", "worse"]


def test_a_head_is_compared_with_the_plain_one_of_the_same_data():
    found = {"t": [reading("plain", 0.9, {"p": 0}), reading("plain", 0.2, {"p": 1}), reading("dfr", 0.5, {"p": 1})]}
    ((_, gain, _),) = mnist1d.Compared.of(found).cases
    assert gain.interval.value == pytest.approx(0.3)


def test_runs_are_read_signal_by_signal_and_seeds_averaged(tmp_path):
    """Correctness is stored by group; a reading has it by spike, class and id, whatever formed the groups."""
    rng = np.random.default_rng(0)
    rows = [(f"{split}/{i}-{version}", label, split, spike) for split in ("train", "val", "test") for i, label in
            enumerate("abab") for version, spike in (("clean", "without"), ("own", "own"))]  # fmt: skip
    columns = dict(zip(("id", "label", "split", "spike"), zip(*rows, strict=True), strict=True))
    values = {"spike": ("without", "own", "other")}
    truth = [{row[0]: bool(rng.integers(2)) for row in rows} for _ in range(2)]
    for grouping in (("spike",), ()):
        manifest = build("m", columns, values=values, grouping=grouping)
        test = [i for i in manifest.ids if i.startswith("test")]
        group_of = dict(zip(manifest.ids, manifest.labels if manifest.groups is None else manifest.groups, strict=True))
        order = sorted(test, key=lambda i: (group_of[i], i))
        runs = [SimpleNamespace(backbone="b", head="h", correct=pack(np.array([of[i] for i in order]))) for of in truth]
        place = Workspace(tmp_path)
        cells = [CellRuns("t", {"p": 1, "seed": s}, manifest, [run], place) for s, run in enumerate(runs)]
        (found,) = readings(cells, "t")
        assert (found.axes, found.seeds, list(found.sizes)) == ({"p": 1}, 2, [2, 2])
        ids = {"without": "clean", "own": "own"}
        for spike, version in ids.items():
            expected = [np.mean([of[f"test/{i}-{version}"] for of in truth]) for i in (0, 2, 1, 3)]
            assert found.right[spike].tolist() == expected


def test_figures_of_others_stand_beside_ours_over_all_draws_of_kernels(monkeypatch):
    """891 of 1,000 right is the figure elsewhere; every class has 100 signals."""

    def drawn(backbone, head, right, probability=0.9):
        of = np.zeros(1000)
        of[np.random.default_rng(0).permutation(1000)[:right]] = 1
        return Reading("reference", {"probability": probability}, backbone, head, {"without": of}, np.full(10, 100))

    found = [drawn("rocket:1000", "plain", 885), drawn("rocket:1000-seed1", "plain", 895),
             drawn("rocket:1000", "dfr", 700), drawn("rocket:1000", "plain", 10, 0.5)]  # fmt: skip
    monkeypatch.setattr(_others, "readings", lambda cells, table: found if table == "reference" else [])
    section = _others.beside_others(SimpleNamespace(cells=()))
    rows = section.tables[0][1].set_index("head")
    assert list(rows.index) == ["plain", "dfr"] and list(rows["draws"]) == [2, 1]
    assert (
        rows.loc["plain", "average, ours %"].startswith("89.0 (86.")
        and "n = 1000" in rows.loc["plain", "average, ours %"]
    )
    assert rows.loc["plain", "average within"] == "yes" and rows.loc["plain", "average, ours minus theirs"] == "−0.1"
    assert rows.loc["dfr", "average within"] == "no" and rows.loc["dfr", "average, ours minus theirs"] == "−24.6"
    inside = sum((rows[f"{name} within"] == "yes").sum() for name in ("average", "worst class"))
    assert section.answer.startswith(f"Of 4 figures of others {inside} lie in our intervals.")


def test_the_summary_is_the_first_sentence_of_every_answer():
    sections = [Section("a?", "At 54.5 % it does. Not so at 3 %."), Section("b?", "Never (n = 3.2 on average).")]
    assert Answer.of(*sections).summary == "At 54.5 % it does. Never (n = 3.2 on average)."


@pytest.mark.slow
def test_the_whole_in_small(tmp_path):
    small = read("mnist1d", small=True)
    tables = {key: small.datasets[key] for key in ("probability", "retrain", "weights", "attention")}
    options = {**tables["probability"].options, "probability": [0.9]}
    tables["probability"] = replace(tables["probability"], options=options)
    afr = {"head": "afr", "C": 0.01, "gamma": 10.0}
    tables["weights"] = replace(tables["weights"], heads=("plain", afr))
    tables["attention"] = replace(tables["attention"], heads=("plain", "bias-tuned"))
    tables["probability"] = replace(tables["probability"], heads=("plain", "dfr"))
    study = replace(small, datasets=tables, backbones=("rocket:40",))
    workspace = Workspace(tmp_path / "cache")
    answer = conduct(study, workspace, tmp_path / "out", small=True)
    assert len(answer.sections) == 4
    assert all(section.evidence and (section.plots or section.tables) for section in answer.sections)
    assert "spikes in 90 %" in answer.sections[0].answer  # fitting again on clean signals surely helps
    record = STUDY.read(tmp_path / "out" / STUDY.file)
    assert len(record.cells) == 6
    assert not record.failed
    (cell,) = (c for c in cells(study) if c.table == "weights")
    (inside, outside), weighed = diagnosed([runs_of(tmp_path / "out", cell, workspace)], "rocket:40")
    assert inside.without > outside.without
    assert outside.minority_weight > outside.minority
    assert 0 < weighed.effective < 1
