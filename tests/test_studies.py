"""A study is one file: refused as a whole before any work, run by the ordinary machinery, and never run twice."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from making_studies import BACKBONES, HEADS, STUDY, write_datasets
from scipy import stats

from embedx.cli import main
from embedx.errors import StudyError
from embedx.evaluation.heads import HeadRequest, head_spec
from embedx.studies.drawing import lines, mean_of
from embedx.studies.engine.cells import LONGEST, cells
from embedx.studies.engine.conduct import conduct
from embedx.studies.engine.file import EXAMPLE, names, read
from embedx.studies.engine.forecast import forecast
from embedx.studies.engine.frame import frame_of
from embedx.studies.engine.lines import line_of
from embedx.studies.engine.page import shown, summary_table
from embedx.studies.engine.record import STUDY as RECORD
from embedx.studies.engine.run import RunSettings, runs_of
from embedx.studies.outcome import Outcome
from embedx.studies.study import combinations
from embedx.workspace import Workspace

GOOD = """\
question = "Which?"
backbones = ["raw:2x2"]
heads = ["plain"]

[datasets.one]
source = "demo"

[datasets.two]
source = "spuco-mnist"
options = {correlation = [0.9,
  0.99], difficulty = "large"}

[[plots]]
x = "correlation"

[small]
heads = ["plain", "reweighted"]
"""


def written(tmp_path, text):
    (tmp_path / "mine.toml").write_text(text)
    return str(tmp_path / "mine.toml")


def changed(before, after):
    assert before in GOOD
    return GOOD.replace(before, after, 1)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (changed('question = "Which?"\n', ""), 1, "has no field 'question'"),
        (changed("heads =", "haeds ="), 3, "has a field 'haeds', which is unknown; did you mean 'heads'"),
        (changed('source = "demo"', 'sorce = "demo"'), 5, "datasets.one has no field 'source'"),
        (changed('source = "demo"', 'source = "dem"'), 6, "unknown dataset 'dem': did you mean 'demo'"),
        (changed('source = "demo"', 'source = "demo"\nsplit = 1'), 7, "datasets.one has a field 'split'"),
        (changed('["plain"]', '["plan"]'), 3, "unknown head 'plan': did you mean 'plain'"),
        (changed('["plain"]', '[{head = "afr", gama = 1}]'), 3, "has no parameter 'gama': did you mean 'gamma'"),
        (changed('["plain"]', '[{gamma = 1}]'), 3, "found no name"),
        (changed('["plain"]', '["py:mine"]'), 3, "allow it with --plugins"),
        (changed('["raw:2x2"]', '["rew:2x2"]'), 2, "unknown backbone 'rew:2x2': did you mean 'raw'"),
        (changed('["raw:2x2"]', '["a=raw:2x2", "a=raw:4x4"]'), 2, "two backbones have the same name"),
        (changed('["raw:2x2"]', "[2]"), 2, "backbones[0] is 2, expected text"),
        (changed('backbones = ["raw:2x2"]\n', ""), 4, "have no backbone"),
        (changed("correlation = [0.9", "corelation = [0.9"), 10, "no option 'corelation': did you mean 'correlation'"),
        (changed("[0.9,\n  0.99]", "[0.9,\n  0.9]"), 10, "the axis 'correlation' has a value twice"),
        (changed("[0.9,\n  0.99]", "[]"), 10, "the axis 'correlation' has no value"),
        (changed('x = "correlation"', 'x = "corelation"'), 14, "unknown axis 'corelation': did you mean 'correlation'"),
        (changed('x = "correlation"', 'x = "head"\ny = "worst_grup"'), 15, "unknown figure 'worst_grup': did you mean"),
        (changed('x = "correlation"', 'x = "head"\ntable = "on"'), 15, "unknown table 'on': did you mean 'one'"),
        (changed('heads = ["plain"]\n\n', 'heads = ["plain"]\nselect-by = ["averge"]\n\n'), 4, "mean 'average'"),
        (changed("heads =", "seeds = 0\nheads ="), 3, "seeds is 0"),
        (changed("heads =", 'answer = "mnist"\nheads ='), 3, "unknown answer 'mnist'"),
        (changed('["plain", "reweighted"]', '["plain", "rewighted"]'), 17, "did you mean 'reweighted'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, text, line, message):
    file = written(tmp_path, text)
    with pytest.raises(StudyError, match=re.escape(message)) as caught:
        read(file)
    assert f"{file}, line {line}: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question = ", "is no TOML: Invalid value"),
        ("a = 1\na = 2", "is no TOML: Cannot overwrite a value"),
        ('question = "Which?"\nbackbones = ["raw:2x2"]\n[datasets]', "has no table of datasets"),
    ],
)
def test_what_is_no_study_at_all(tmp_path, text, message):
    with pytest.raises(StudyError, match=message):
        read(written(tmp_path, text))


def test_files_that_are_not_there_and_names_that_nobody_gave(tmp_path):
    with pytest.raises(StudyError, match="cannot be read"):
        read(str(tmp_path / "none.toml"))
    with pytest.raises(StudyError, match=r"unknown study 'nothing'.*ends in .toml"):
        read("nothing")
    with pytest.raises(StudyError, match=r"has no table \[small\]"):
        read(written(tmp_path, GOOD[: GOOD.index("[small]")]), small=True)


def test_the_reduced_form_puts_its_keys_in_the_place_of_others(tmp_path):
    file = written(tmp_path, GOOD + "[small.datasets]\none = {}\ntwo = {seeds = 3}\n")
    whole, small = read(file), read(file, small=True)
    assert whole.heads == ("plain",) and set(whole.datasets) == {"one", "two"}
    assert small.heads == ("plain", "reweighted") and set(small.datasets) == {"two"}
    assert small.datasets["two"].seeds == 3 and small.datasets["two"].options == whole.datasets["two"].options


def test_every_study_that_ships_and_the_example_can_be_read():
    for study in (*names(), str(EXAMPLE)):
        for small in (False, True):
            asked = read(study, small=small)
            assert cells(asked) and asked.question.endswith("?") and asked.question.count("?") == 1


@given(
    st.dictionaries(
        st.text("abc", min_size=1), st.lists(st.integers(), min_size=1, max_size=3, unique=True), max_size=3
    )
)
def test_combinations_are_those_of_a_product(axes):
    assert [tuple(one.values()) for one in combinations(axes)] == list(product(*axes.values()))
    assert all(list(one) == list(axes) for one in combinations(axes))


@given(st.lists(st.sampled_from(["a = 1", "b = [1,\n 2]", "[t]", "[t.u]", "c = {d = 1}", "# no", ""]), unique=True))
def test_the_line_of_every_key_is_the_one_that_brings_it(parts):
    text = "\n".join(parts)

    def places(values, keys=()):
        for key, value in values.items():
            yield (*keys, key)
            if isinstance(value, dict):
                yield from places(value, (*keys, key))

    for keys in places(tomllib.loads(text)):
        line = text.splitlines()[line_of(text, keys) - 1]
        assert keys[-1] in line
    assert line_of(text, ("nowhere",)) == 1


def test_cells_are_named_for_what_they_are_of(tmp_path):
    first, second, third = cells(read(written(tmp_path, GOOD)))
    assert (first.name, first.dataset, first.asked) == ("one", "demo", "demo")
    assert second.name == "two-correlation-0.9" and third.axes == {"correlation": 0.99}
    assert second.dataset == "spuco-mnist-correlation-0.9-difficulty-large"
    assert second.options == {"correlation": "0.9", "difficulty": "large"}
    long = cells(read(written(tmp_path, changed('difficulty = "large"', f'difficulty = "{"large" * 50}"'))))
    assert len({cell.dataset for cell in long}) == 3 and max(len(cell.dataset) for cell in long) <= LONGEST


def test_two_cells_that_would_write_one_cache_are_refused(tmp_path):
    same = 'source = "spuco-mnist"\noptions = {correlation = 0.9, difficulty = "large"}'
    other = changed('source = "demo"', f'{same}\nroot = "elsewhere"')
    with pytest.raises(StudyError, match=r"one and two-correlation-0.9 would write one cache.*a name of its own"):
        cells(read(written(tmp_path, other)))
    shared = cells(read(written(tmp_path, changed('source = "demo"', same))))
    assert len(shared) == 3 and len({cell.dataset for cell in shared}) == 2


def test_two_values_that_are_one_in_a_name_are_refused(tmp_path):
    with pytest.raises(StudyError, match="would write one"):
        cells(read(written(tmp_path, changed('difficulty = "large"', 'difficulty = ["a b", "a/b"]'))))


def test_a_head_with_parameters_is_tried_with_the_rest_of_its_grid():
    spec = head_spec(HeadRequest.of("afr", {"gamma": 4.0}))
    assert spec.name == "afr gamma=4.0" and {s["gamma"] for s in spec.grid} == {4.0}
    assert len(spec.grid) == len({s["C"] for s in head_spec("afr").grid})


@given(st.lists(st.floats(0.1, 0.9), min_size=2, max_size=6, unique=True))
def test_a_mean_over_seeds_has_students_interval_and_that_of_the_rows_in_squares(values):
    frame = pd.DataFrame({"gap": values})
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    mean = mean_of(frame, "gap")
    assert np.allclose([mean.low, mean.high], [low, high])
    with_rows = mean_of(frame.assign(gap_low=frame.gap - 0.03, gap_high=frame.gap + 0.04), "gap")
    assert np.isclose((with_rows.high - with_rows.value) ** 2, (high - np.mean(values)) ** 2 + 0.04**2)
    one = mean_of(frame.assign(gap_low=frame.gap - 0.03, gap_high=frame.gap + 0.04).head(1), "gap")
    assert np.allclose([one.low, one.high], [values[0] - 0.03, values[0] + 0.04])


def test_a_plot_escapes_what_it_names():
    frame = pd.DataFrame({"x": [1, 2], "head": ["<script>", "<script>"], "worst_group": [0.5, 0.6]})
    assert "<script>" not in lines(frame, "x")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The study, run in one process with two cells at a time; what it told, and its folder."""
    folder = tmp_path_factory.mktemp("studies")
    write_datasets(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(main, ["study", "mine.toml", "--jobs", "1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    shutil.copy(folder / "results/studies/mine/runs.csv", folder / "whole.csv")
    return folder, done


def test_a_study_of_three_datasets_four_backbones_and_five_heads_is_a_file_of_under_thirty_lines(ran):
    folder, done = ran
    assert len(STUDY.splitlines()) <= 30
    record = RECORD.read(folder / "results/studies/mine/study.json")
    assert set(record.cells) == {"near", "far", "pale"} and not record.failed
    assert all(len(cache.weights) == 64 for cell in record.cells.values() for cache in cell.caches.values())
    assert all(cell.runs == len(BACKBONES) * len(HEADS) for cell in record.cells.values())
    frame = pd.read_csv(folder / "results/studies/mine/runs.csv")
    assert len(frame) == 3 * len(BACKBONES) * len(HEADS)
    assert set(frame["head"]) == {"plain", "class-balanced", "reweighted C=0.1", "group-balanced", "nearest-mean"}
    assert set(frame.groupby("dataset")["worst_group"].count()) == {20}
    assert np.array_equal(frame["worst_group"], frame["metrics.worst_group.value"])
    assert record.question in done.stdout and record.summary in done.stdout
    assert "images/s" not in done.stderr and "--workers" not in done.stderr  # a hint for `embedx extract`
    page = (folder / "results/studies/mine/report.html").read_text()
    assert record.question in page and "Is the plain head enough?" in page and "rank" in page


def test_what_is_finished_is_not_done_again_and_an_edited_study_does_what_is_new(ran, monkeypatch):
    folder, _ = ran
    monkeypatch.chdir(folder)
    results = folder / "results/studies/mine"
    before = {path: path.read_bytes() for path in results.glob("cells/*/finished.jsonl")}
    runs = (results / "runs.csv").read_text()
    conduct(read("mine.toml"), Workspace(), results, RunSettings(jobs=1))
    assert {path: path.read_bytes() for path in before} == before and (results / "runs.csv").read_text() == runs
    edited = read(written(folder, STUDY.replace('"nearest-mean"]', '"nearest-mean", "bias-tuned"]')))
    conduct(edited, Workspace(), results, RunSettings(jobs=1))
    for path, text in before.items():
        after = path.read_bytes()
        assert after.startswith(text) and after.count(b"\n") == text.count(b"\n") + len(BACKBONES)
        added = [json.loads(line)["run"]["head"] for line in after[len(text) :].splitlines()]
        assert set(added) == {"bias-tuned"}


def test_a_dry_run_does_nothing_and_says_what_is_left(ran, tmp_path, monkeypatch):
    folder, _ = ran
    monkeypatch.chdir(folder)
    results, asked = folder / "results/studies/mine", read(written(folder, STUDY))
    left = forecast(cells(asked), Workspace(), results, results)
    assert [(one.rows, one.extract, one.fit) for one in left] == [(140, (), 0)] * 3
    before = sorted(tmp_path.rglob("*"))
    fresh = forecast(cells(asked), Workspace(tmp_path / "cache"), tmp_path, tmp_path)
    assert [(one.rows, one.seconds) for one in fresh] == [(None, None)] * 3 and fresh[0].fit == 20
    known = forecast(cells(asked), Workspace(tmp_path / "cache"), tmp_path, results)
    assert all(one.rows == 140 and one.seconds > 0 and one.bytes > 0 for one in known)
    assert sorted(tmp_path.rglob("*")) == before
    said = CliRunner().invoke(main, ["study", "mine.toml", "--dry-run"])
    assert said.exit_code == 0 and "minutes one after the other" in said.output


def test_a_cell_that_cannot_be_run_is_told_and_the_others_go_on(ran, monkeypatch):
    folder, _ = ran
    monkeypatch.chdir(folder)
    asked = read(written(folder, STUDY.replace('"far', '"gone')))
    told = []
    conduct(asked, Workspace(), folder / "partly", RunSettings(jobs=1), notice=told.append)
    record = RECORD.read(folder / "partly/study.json")
    assert set(record.cells) == {"near", "pale"} and "gone.csv does not exist" in record.failed["far"]
    assert any(line.startswith("note: far has no runs: ") for line in told)
    with pytest.raises(StudyError, match="no cell of mine could be run; near: "):
        conduct(read(written(folder, STUDY.replace(".csv", ".none"))), Workspace(folder / "other"), folder / "none",
                RunSettings(jobs=1))  # fmt: skip


def test_a_dataset_that_has_to_be_fetched_first_says_how(tmp_path):
    with pytest.raises(StudyError, match=r"needs its files; fetch them with `embedx data get waterbirds`, or"):
        conduct(read("waterbirds"), Workspace(tmp_path / "cache"), tmp_path / "results", RunSettings(jobs=1))


def test_the_command_line_lists_writes_an_example_and_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    listed = run(main, ["study"])
    assert listed.exit_code == 0 and all(name in listed.output for name in names())
    assert run(main, ["study", "--init", "new.toml"]).exit_code == 0
    assert (tmp_path / "new.toml").read_text() == EXAMPLE.read_text()
    again = run(main, ["study", "--init", "new.toml"])
    assert again.exit_code == 1 and "new.toml exists" in again.output
    assert run(main, ["study", "--init", "new.txt"]).exit_code == 2
    assert run(main, ["study", "new.toml", "--ray-address", "x:1"]).exit_code == 2


def finished_lines(folder):
    return {path.parent.name: path.read_bytes() for path in folder.glob("results/studies/mine/cells/*/finished.jsonl")}


def untimed(path):
    """All records of a study, but how long things took."""
    frame = pd.read_csv(path)
    return frame.drop(columns=[column for column in frame if column.startswith("timings.")])


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_where_it_was_and_ends_the_same(ran, tmp_path):
    write_datasets(tmp_path)
    command = [sys.executable, "-m", "embedx", "study", "mine.toml"]
    how = {"cwd": tmp_path, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "--jobs", "1"], **how, stderr=subprocess.DEVNULL)
    while sum(text.count(b"\n") for text in finished_lines(tmp_path).values()) < 25:  # within the second cell
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = finished_lines(tmp_path)
    assert not (tmp_path / "results/studies/mine/study.json").exists()
    subprocess.run([*command, "--jobs", "2"], **how, check=True)
    after = finished_lines(tmp_path)
    assert all(after[cell].startswith(text[: text.rindex(b"\n") + 1]) for cell, text in before.items())
    assert all(text.count(b"\n") == len(BACKBONES) * len(HEADS) for text in after.values())
    one, other = untimed(tmp_path / "results/studies/mine/runs.csv"), untimed(ran[0] / "whole.csv")
    pd.testing.assert_frame_equal(one, other, rtol=1e-6)  # with other threads, sums are rounded otherwise


@pytest.mark.slow
def test_cells_as_tasks_of_a_ray_cluster_come_to_the_same(tmp_path):
    pytest.importorskip("ray")
    write_datasets(tmp_path)
    asked = read(str(tmp_path / "mine.toml"), small=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        here = conduct(asked, Workspace(tmp_path / "cache"), tmp_path / "here", RunSettings(jobs=1))
        there = conduct(asked, Workspace(tmp_path / "other"), tmp_path / "there", RunSettings(engine="ray"))
    assert here.summary == there.summary


def test_figures_stand_to_the_right_in_one_line_and_words_do_not():
    table = shown(pd.DataFrame({
        "head": ["dfr", "plain"], "gain": ["+24.1 (+3.9 to +43.4)", "−1.2"], "p": ["p < 0.001", "–"], "k": [1.5, 2],
        "range": ["80.2 % (71.2–89.7, n = 106)", "46.9 %"], "caught": ["3 of 5", "no"],
    }))  # fmt: skip
    assert {table.headings[i] for i in table.numbers} == {"gain", "p", "k", "range"}
    assert [row[3] for row in shown(pd.DataFrame({"a": 1, "b": 1, "c": 1, "d": [20000.0, None, 12345.5]})).rows] == [
        "20000", "–", "1.235e+04",
    ]  # fmt: skip


def test_an_axis_that_is_called_as_a_column_of_runs_has_a_column_of_its_own(ran, monkeypatch):
    folder, _ = ran
    monkeypatch.chdir(folder)
    study, results = read("mine.toml"), folder / "results/studies/mine"
    done = [runs_of(results, cell, Workspace()) for cell in cells(study)]
    swept = tuple(replace(cell, axes={"seed": i, "size": 2}) for i, cell in enumerate(done))
    frame = frame_of(study, swept)
    assert not frame.columns.duplicated().any() and set(frame["seed"]) == {0}
    assert frame.groupby("dataset", sort=False)["data.seed"].first().tolist() == [0, 1, 2]
    table = summary_table(Outcome(study, frame.assign(table="one"), swept))
    assert len(table) == len(frame[["backbone", "head", "selection"]].drop_duplicates()) == len(frame) / 3
    assert set(table["seeds"]) == {3} and set(table["size"]) == {2}
