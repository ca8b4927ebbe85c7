"""What values show in a notebook: well-formed, with the figures and their intervals, and safe whatever the names."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from pets import ONE, WHOLE, features, write
from test_report import grid, make_run, verdict

from embedx import html
from embedx.data import manifest as manifests
from embedx.evaluation.runs import Runs
from embedx.probes import Labels, Supervision, supervision_in_words
from embedx.report import Comparison
from embedx.workspace import Workspace

EVIL = "<script>alert(1)</script>&\"'\x00\u202e\ud800"


def cells(markup: str) -> list[list[str]]:
    """The cells of all tables, row by row; raises unless the markup is well-formed."""
    assert not re.search("[\x00\u202e\ud800]", markup)
    root = ElementTree.fromstring(f"<div>{markup}</div>")
    assert not list(root.iter("script"))
    return [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]


def shown(interval) -> str:
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def test_runs_show_worst_group_and_average_with_interval_and_n_and_supervision() -> None:
    runs = Runs(grid(2, 2))
    heading, *rows = cells(runs._repr_html_())
    assert len(rows) == len(runs) == 4
    for run, row in zip(runs, rows, strict=True):
        named, m = dict(zip(heading, row, strict=True)), run.metrics
        assert (named["backbone"], named["head"]) == (run.backbone, run.head)
        assert named["worst group %"] == shown(m.worst_group) and named["average %"] == shown(m.average)
        assert named["which (n)"] == f"{m.worst_group_name} ({m.worst_group.n})"
        assert named["supervision"] == supervision_in_words(run.supervision)


def test_runs_are_a_sequence_that_cannot_change() -> None:
    runs = Runs(grid(1, 3))
    assert len(runs) == 3 and runs[0] in runs and next(reversed(runs)) == runs[-1] and runs.index(runs[1]) == 1
    assert Runs(run for run in runs if run.head != "head-1") == (runs[0], runs[2])
    assert hash(Runs()) == hash(Runs()) and not hasattr(runs, "append")


def test_a_run_and_its_metrics_show_every_group_with_interval_and_n() -> None:
    run = make_run(n=[50, 0, 40, 30], right=[40, 0, 35, 10])
    for markup in (run._repr_html_(), run.metrics._repr_html_()):
        rows = {row[0]: row[1:] for row in cells(markup)}
        for group in run.metrics.groups:
            if group.n:
                expected = [f"{100 * group.accuracy:.1f}", f"{100 * group.low:.1f}–{100 * group.high:.1f}"]
            else:
                expected = ["–", "–"]
            assert rows[f"group {group.name}"] == [*expected, str(group.n)]
        worst = run.metrics.worst_group
        assert rows["worst group: water/place 3"][1] == f"{100 * worst.low:.1f}–{100 * worst.high:.1f}"
    facts = dict(row for row in cells(run._repr_html_()) if len(row) == 2)
    assert (facts["parameters"], facts["chosen by"]) == ("C = 0.1, solver = None", "average, 13 tried")


def test_a_verdict_shows_the_difference_with_its_interval() -> None:
    facts = dict(cells(verdict("suffices", value=-0.01)._repr_html_()))
    assert facts["verdict"] == "plain suffices" and facts["worst group gained, points"] == "-1.0 (-4.0 to +3.0)"
    assert (facts["p suffices"], facts["margin, points"]) == ("0.01", "2")
    assert dict(cells(verdict()._repr_html_()))["verdict"] == "undecided"


def test_a_comparison_shows_a_row_for_each_head_on_each_backbone() -> None:
    comparison = Comparison.of(grid(2, 2, seeds=3))
    heading, *rows = cells(comparison._repr_html_())
    assert [row[:2] for row in rows] == [[r.backbone, r.name] for r in comparison.rows] and len(rows) == 4
    worst = comparison.rows[0].worst_group
    assert dict(zip(heading, rows[0], strict=True))["worst group %"].startswith(
        f"{worst.mean:.1f} ± {worst.spread:.1f} ({worst.low:.1f}–{worst.high:.1f}), n = "
    )


def test_a_cache_shows_backbone_rows_features_status_and_provenance(tmp_path: Path) -> None:
    cache = write(Workspace(tmp_path), WHOLE, ONE, features(WHOLE).astype(np.float16), lost=[0, 7])
    facts = dict(cells(cache._repr_html_()))
    assert (facts["backbone"], facts["rows"], facts["features"]) == (ONE, "1,390", "5 x float16")
    assert facts["status"] == "1,388 ok, 2 missing"
    for part, values in cache.header.provenance.items():
        for name, value in values.items():
            assert facts[f"{part}: {name}"] == str(value)


def test_a_manifest_shows_the_rows_of_every_group_and_split() -> None:
    heading, *rows = cells(WHOLE._repr_html_())
    assert heading == ["group", "train", "val", "test"]
    counts = WHOLE.counts()
    for group, *numbers in rows:
        assert numbers == [f"{counts[f'{split}/{group}']:,}" for split in heading[1:]]
    assert [row[0] for row in rows] == list(WHOLE.group_names)


def test_hostile_names_stay_text() -> None:
    used = (Supervision(Labels.OTHER, source=EVIL),)
    run = make_run(EVIL, EVIL, names=[EVIL, "b", "c", "d"], supervision=used, parameters={EVIL: EVIL}, dataset=EVIL)
    words = EVIL.replace("\x00", "").replace("\u202e", "").replace("\ud800", "")
    columns = {"id": ["a", "b", "c"], "label": [words, "b", "b"], "split": ["train", "val", "test"]}
    manifest = manifests.build(words, columns, source=words, licence=words)
    values = (run, Runs([run]), run.metrics, verdict("suffices", EVIL, EVIL, EVIL), Comparison.of([run]), manifest)
    for value in values:
        assert any("<script>alert(1)</script>" in cell for row in cells(value._repr_html_()) for cell in row)


@pytest.mark.parametrize("n", [0, 1, html.SHOWN, html.SHOWN + 5])
def test_of_a_long_table_the_rest_is_counted(n: int) -> None:
    rows = cells(html.table(("a", "b"), [(i, -i) for i in range(n)], caption="x", numbers={"b"}))[1:]
    assert rows[: html.SHOWN] == [[str(i), str(-i)] for i in range(min(n, html.SHOWN))]
    assert rows[html.SHOWN :] == [["and 5 more rows"]] * (n > html.SHOWN)
