"""What heads, backbones and datasets have to be: what is wrong is named, and what is a bug keeps its traceback."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pets import ONE, WHOLE, features, write

import embedx
from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.prepare import prepare
from embedx.errors import BackboneError, HeadError, ManifestError
from embedx.evaluation import runs
from embedx.evaluation.evaluate import Evaluator
from embedx.evaluation.finished_runs import FILE, Finished
from embedx.evaluation.head_spec import HeadSpec
from embedx.evaluation.heads import load_head
from embedx.evaluation.probe import probe
from embedx.evaluation.split import Split, join
from embedx.extract.backbones import load_backbone
from embedx.probes import (
    ChosenBy,
    ContractError,
    ConvexHead,
    Fit,
    FitError,
    Head,
    Labels,
    LinearHead,
    Need,
    On,
    Purpose,
    Supervision,
    check_head,
    supervision_in_words,
    supervision_of_record,
    uses_groups,
)
from embedx.probes.plain import Plain
from embedx.store import FeatureCache
from embedx.workspace import Workspace

ROOT = Path(embedx.__file__).parents[1]
X, Y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("cache"))
    write(workspace, WHOLE, ONE, features(WHOLE))
    manifests.save(WHOLE, workspace.dataset("pets"))
    return workspace


@pytest.fixture(scope="module")
def split(workspace: Workspace) -> Split:
    return join(WHOLE, FeatureCache.open_complete(workspace.cache("pets", ONE)))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"needs": {"groups"}}, r"Mine.needs holds 'groups' \(str\), expected Need.GROUPS, Need.HELD_OUT, "),
        ({"needs": "groups"}, r"Mine.needs is 'groups' \(str\), expected a frozenset of Need"),
        ({"supervision": "none"}, r"Mine.supervision is 'none' \(str\), expected a tuple of Supervision, empty for"),
        ({"needs": {Need.GROUPS}}, r"needs holds Need.GROUPS, and Mine.supervision tells of no group labels; add Sup"),
        ({"fits_on": "val"}, r"Mine.fits_on is 'val' \(str\), expected one of On.TRAIN, On.VALIDATION"),
        ({"chosen_by": "average"}, r"chosen_by is 'average' \(str\), expected one of ChosenBy.AVERAGE, ChosenBy.WORST"),
        ({"random": 1}, r"Mine.random is 1 \(int\), expected True or False"),
        ({"grid": ({"alpha": 1},)}, r"Mine.grid holds a setting of 'alpha', expected parameters: C, max_iter, pen"),
        ({"grid": ()}, r"Mine.grid is \(\) \(tuple\), expected a tuple of settings such as \{'C': 0.1\}"),
        ({"tried_with": {"alpha": 1}}, r"Mine.tried_with holds a setting of 'alpha', expected parameters: C, max_iter"),
        ({"grid": ({"C": np.inf},)}, r"Mine.grid: C is inf \(float\), expected what JSON can hold: text"),
        ({"grid": ({"max_iter": np.int64(9)},)}, r"Mine.grid: max_iter is .*, expected a number of Python's: 9"),
        ({"grows": {"C": (2, 1)}}, r"Mine.grows holds \(2, 1\) \(tuple\) for 'C', expected the smallest value and"),
        ({"grows": ["C"]}, r"Mine.grows is \['C'\] \(list\), expected {parameter: \(smallest, largest\)}"),
        ({"tried_with": "tol"}, r"Mine.tried_with is 'tol' \(str\), expected parameters and their values"),
        ({"__init__": lambda self, C: None}, r"Mine.__init__ gives C no default, expected one for every parameter"),
    ],
)  # fmt: skip
def test_what_a_head_declares_is_looked_at_once(declared: dict[str, Any], message: str) -> None:
    mine: Any = type("Mine", (Plain,), declared)
    with pytest.raises(ContractError, match=message):
        check_head(mine)
    with pytest.raises(ContractError, match=message):
        (mine(1.0) if "__init__" in declared else mine()).fit(X, Y)


@pytest.mark.parametrize(
    ("takes", "sets", "message"),
    [
        ("C=1, penalty='l2', tol=1e-5, max_iter=9", "", "does not take random_state, which every head has"),
        ("random_state=None", "del self.max_iter", "__init__ does not set max_iter; write self.max_iter = ..."),
        ("C=1, penalty='l2', tol=1e-5, max_iter=9, random_state=None, far=2", "", "does not set far; write self."),
        ("C=1, penalty='l2', tol=1e-5, max_iter=9, random_state=None", "del self.standardize", "not set standardize;"),
    ],
)  # fmt: skip
def test_what_every_head_has_is_asked_for(takes: str, sets: str, message: str) -> None:
    source = f"def __init__(self, {takes}):\n    Plain.__init__(self)\n    {sets}\n"
    made: dict[str, Any] = {"Plain": Plain}
    exec(source, made)
    with pytest.raises(ContractError, match=message):
        check_head(type("Mine", (Plain,), {"__init__": made["__init__"]}))


@pytest.mark.parametrize("returned", [np.zeros((40, 2)), np.zeros((40, 1)), np.zeros(39), [0.0] * 40, None])
def test_logits_are_looked_at(returned: Any, split: Split) -> None:
    mine: Any = type("Mine", (Plain,), {"decision_function": lambda self, X: returned})
    head = mine().fit(X, Y)
    for ask in (head.predict, head.predict_proba):
        with pytest.raises(
            ContractError, match=r"Mine.decision_function returned .*, expected an array of logits \(40,\)"
        ):
            ask(X)
    with pytest.raises(HeadError, match="head 'mine' on .*: Mine.decision_function returned"):
        Evaluator(split).runs(HeadSpec("mine", mine, "average", settings=[{}]), [0])


def test_an_array_as_a_parameter_is_told_apart_by_all_of_its_numbers() -> None:
    def weightings(self: Any, data: Any) -> np.ndarray:
        return self.weights[None]

    class Mine(Plain):
        def __init__(self, weights: Any = None, C: float = 1.0, penalty: str = "l2", tol: float = 1e-5,
                     max_iter: int = 200, random_state: Any = None) -> None:  # fmt: skip
            super().__init__(C, penalty, True, tol, max_iter, random_state)
            self.weights = weights

        _weightings = weightings

    rng = np.random.default_rng(0)
    Z, y = rng.normal(size=(2000, 2)), np.arange(2000) % 2  # NumPy prints no more than six of as many numbers
    first, second = np.ones(2000), np.r_[np.ones(3), rng.uniform(0.1, 4, 1994), np.ones(3)]
    together = Mine().path(Z, y, [{"weights": first}, {"weights": second}])
    for head, weights in zip(together, (first, second), strict=True):
        np.testing.assert_allclose(head.coef_, Mine(weights).fit(Z, y).coef_, atol=1e-4)
    assert not np.allclose(together[0].coef_, together[1].coef_, atol=1e-3)


def test_parameters_that_no_record_can_hold_are_refused_before_the_fit(split: Split) -> None:
    for value, words in ((np.inf, "C is inf"), (np.float32(0.5), "expected a number of Python's: 0.5")):
        with pytest.raises(HeadError, match=f"head 'plain': .*{words}"):
            probe(split, "plain", settings=[{"C": value}])


def test_a_head_that_lacks_a_method_says_which() -> None:
    with pytest.raises(ContractError, match="Bare defines neither _weightings nor _fits, expected one of them"):
        cast("Any", type("Bare", (ConvexHead,), {}))().fit(X, Y)
    with pytest.raises(ContractError, match="Lacking does not define _fits, which every head has to"):
        check_head(type("Lacking", (LinearHead,), {}))


W, B = np.zeros((1, 3)), np.zeros(1)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, r"Mine._fits returned None \(NoneType\), expected a list of 1: one Fit for each variant"),
        ([], "Mine._fits returned 0 fits, expected a list of 1"),
        ([{"coef_": W}], r"fit 1 of 1: found .* \(dict\), expected a Fit; return Fit\(converged, coef, interc"),
        ([Fit(cast("bool", 1), W, B)], r"converged is 1 \(int\), expected True or False"),
        ([Fit(True, W[0], B)], r"coef is an array float64 \(3,\), expected an array float64 \(1, 3\)"),
        ([Fit(True, W.astype("f"), B)], r"coef is an array float32 \(1, 3\), expected an array float64 \(1, 3\)"),
        ([Fit(True, W)], r"intercept is None \(NoneType\), expected an array float64 \(1,\)"),
        ([Fit(True, W + np.nan, B)], "converged is True, and coef holds 3 numbers that are not finite; say converged"),
        ([Fit(True, W, B, {"gap": 1})], "more holds 'gap', expected names of fitted attributes, which end with an und"),
        ([Fit(True, W, B, {"mean_": 1})], "more holds 'mean_', which is set from elsewhere"),
    ],
)  # fmt: skip
def test_what_fits_returns_is_looked_at_where_it_is_set(made: Any, message: str) -> None:
    mine: Any = type("Mine", (LinearHead,), {"_fits": lambda self, data, variants: made})
    for ask in (lambda: mine().fit(X, Y), lambda: mine().path(X, Y, [{}])):
        with pytest.raises(ContractError, match=message):
            ask()


@pytest.mark.parametrize(
    ("weightings", "message"),
    [
        (np.ones(40), r"Mine._weightings returned \(40,\), expected \(m, 40\): one row .*; write weights\[None\]"),
        (np.ones((1, 39)), r"returned \(1, 39\), expected \(m, 40\): one row for each problem$"),
        ([[1.0] * 40], r"returned .* \(list\), expected \(m, 40\): one row for each problem, of numbers"),
        (np.full((1, 40), np.nan), "returned a weight of nan, expected finite numbers from 0 on"),
        (np.linspace(-1, 1, 40)[None], "returned a weight of -1, expected finite numbers from 0 on"),
        (np.repeat([[1.0], [0.0]], 40, axis=1), "returned row 1 of zeros only, expected a row that counts in each"),
    ],
)  # fmt: skip
def test_weightings_are_looked_at(weightings: Any, message: str) -> None:
    mine: Any = type("Mine", (Plain,), {"_weightings": lambda self, data: weightings})
    with pytest.raises(ContractError, match=message):
        mine().fit(X, Y)


def test_whole_numbers_are_weights_too() -> None:
    mine: Any = type("Mine", (Plain,), {"_weightings": lambda self, data: np.ones((1, 40), int)})
    np.testing.assert_array_equal(mine().fit(X, Y).coef_, Plain().fit(X, Y).coef_)


BUGGY = """
import numpy as np
from embedx.probes import FitError, Labels
from embedx.probes.plain import Plain

class {name}(Plain):
    def _weightings(self, data):
        {body}
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Write a module that can be named with `py:`."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)

    return make


@pytest.mark.parametrize(
    ("name", "body", "error"),
    [
        ("indexes", "return np.float64(1)[3]", IndexError),
        ("keys", "return {}['weights']", KeyError),
        ("shapes", "return np.ones((1, 3)) + np.ones((1, 4))", ValueError),
        ("types", "return 1 + 'x'", TypeError),
    ],
)  # fmt: skip
def test_a_bug_in_a_heads_code_keeps_its_traceback_and_the_finished_runs(
    workspace: Workspace, tmp_path: Path, outside: Any, name: str, body: str, error: type[Exception]
) -> None:
    outside(f"head_{name}", BUGGY.format(name=f"Head{name.title()}", body=body))
    words = [
        "--cache",
        str(workspace.path),
        "compare",
        "pets",
        "-b",
        ONE,
        "--head",
        "plain",
        "--head",
        f"py:head_{name}",
    ]
    result = CliRunner().invoke(main, [*words, "-o", str(tmp_path / name)])
    assert result.exit_code == 1 and type(result.exception) is error, result.output
    assert "Error:" not in result.output
    (run,) = Finished(tmp_path / name / FILE).runs.values()
    assert run.head == "plain"


def test_what_a_head_says_of_the_data_or_breaks_of_its_contract_is_a_message(split: Split, outside: Any) -> None:
    for name, body, message in (
        ("head_says", "raise FitError('no row is wrong; choose a stronger C')", "no row is wrong; choose a stronger C"),
        ("head_flat", "return np.ones(len(data.y))", r"HeadFlat._weightings returned \(\d+,\), expected \(m, \d+\)"),
    ):
        title = "".join(part.title() for part in name.split("_"))
        outside(name, BUGGY.format(name=title, body=body))
        with pytest.raises(HeadError, match=f"head 'py:{name}' on {ONE}: {message}"):
            probe(split, f"py:{name}")
    outside("head_text", BUGGY.format(name="HeadText", body="pass\n    needs = {'groups'}"))
    with pytest.raises(HeadError, match=r"head 'py:head_text': HeadText.needs holds 'groups' \(str\), expected Need.G"):
        load_head("py:head_text")


def test_features_that_are_no_numbers_are_a_message_of_the_data() -> None:
    for broken in (np.nan, np.inf):
        rows = np.where(X.max() == X, broken, X)
        with pytest.raises(FitError):
            Plain().fit(rows, Y)
        with pytest.raises(FitError):
            Plain().fit(X, Y).predict(rows)


def test_backbones_and_datasets_return_what_they_have_to(tmp_path: Path, outside: Any) -> None:
    outside("odd_net", "def models():\n    return 'grid'\ndef load(model, weights=None):\n    return object()\n")
    with pytest.raises(BackboneError, match="family: its load returned object, expected a Backbone"):
        load_backbone("py:odd_net:grid")
    with pytest.raises(BackboneError, match=r"family: its models\(\) returned str, expected a seq"):
        load_backbone("py:odd_net")
    outside("buggy_net", "def models():\n    return ()\ndef load(model, weights=None):\n    return {}[model]\n")
    with pytest.raises(KeyError, match="grid"):
        load_backbone("py:buggy_net:grid")
    outside("odd_table", "def read(root):\n    return [root]\n")
    with pytest.raises(ManifestError, match="odd_table is no dataset: its read returned list, expected a Manifest"):
        prepare(Workspace(tmp_path / "cache"), "py:odd_table", tmp_path, {})


def test_a_new_head_is_one_file(tmp_path: Path) -> None:
    """A copy of the tree with one more file lists it, with what it says of itself."""
    left = shutil.ignore_patterns("__pycache__", "_weights", ".*")
    for name in ("embedx", "probes", "extractors"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=left)
    source = '"""Twice: every row counts twice."""\nimport numpy as np\n'
    source += "from . import ConvexHead, Labels, Need, Supervision\n\n"
    source += "class TwiceOver(ConvexHead):\n    needs = frozenset({Need.GROUPS})\n"
    source += "    supervision = (Supervision(Labels.GROUPS),)\n"
    source += "    def _weightings(self, data):\n        return np.full((1, len(data.y)), 2.0)\n"
    (tmp_path / "probes" / "twice_over.py").write_text(source)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    command = [sys.executable, "-m", "embedx", "list", "heads"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if "twice-over" in line)
    cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
    assert cells[-2:] == ["group labels on train, to fit", "–"] and "Twice: every row counts twice." in line


SUPERVISIONS = st.lists(
    st.builds(
        Supervision, st.sampled_from([Labels.GROUPS, Labels.SPURIOSITY, Labels.PROMPTS]), st.sampled_from(On),
        st.sampled_from(Purpose), st.sampled_from(["", "by masks of training images", "by tiny:broad (3 cues)"]),
    )
    | st.builds(Supervision, st.just(Labels.OTHER), source=st.sampled_from(["bounding boxes", "a map, to fit"])),
    max_size=3,
)  # fmt: skip


@given(SUPERVISIONS)
def test_supervision_is_written_as_fields_and_read_from_them_and_from_words(supervision: list[Supervision]) -> None:
    record = [asdict(one) for one in supervision]
    assert supervision_of_record(record) == tuple(supervision)
    words = supervision_in_words(supervision)
    assert supervision_in_words(supervision_of_record(words)) == words
    assert uses_groups(supervision) == ("group labels" in words)


def test_the_words_that_were_ever_written_are_read() -> None:
    both = (Supervision(Labels.GROUPS), Supervision(Labels.GROUPS, On.VALIDATION, Purpose.CHOOSE))
    words = "group labels on train, to fit; group labels on validation, to choose"
    assert supervision_of_record(words) == both and supervision_in_words(both) == words
    assert [one.brief for one in both] == ["train, to fit", "validation, to choose"]
    assert supervision_of_record("none") == () and supervision_in_words(()) == "none"
    ranked = Supervision(Labels.SPURIOSITY, source="by votes of people on features")
    stop = Supervision(Labels.SPURIOSITY, On.VALIDATION, Purpose.STOP)
    words = "spuriosity ranking by votes of people on features; spuriosity ranking of validation, to stop"
    assert supervision_of_record(words) == (ranked, stop) and not uses_groups((ranked, stop))
    assert supervision_of_record("text prompts of the classes") == (Supervision(Labels.PROMPTS),)
    assert supervision_of_record("a map of my own") == (Supervision(Labels.OTHER, source="a map of my own"),)
    with pytest.raises(ValueError, match="supervision by other labels needs a source that says which"):
        Supervision(Labels.OTHER)
    given: Any = ("group labels", "val", "choose")
    assert Supervision(*given) == Supervision(Labels.GROUPS, On.VALIDATION, Purpose.CHOOSE)
    assert Supervision(*given).labels is Labels.GROUPS and Supervision(*given).on is On.VALIDATION
    with pytest.raises(ValueError, match="on of supervision is 'validation', expected one of 'train', 'val'"):
        Supervision(Labels.GROUPS, cast("On", "validation"))
    for wrong in ([{"labels": "group labels"}], [{"labels": "maps", "on": "train", "purpose": "fit", "source": ""}]):
        with pytest.raises((ValueError, KeyError)):
            supervision_of_record(wrong)


def test_runs_written_with_the_supervision_in_words_are_read(split: Split, tmp_path: Path) -> None:
    run, _ = probe(split, "reweighted", settings=[{"C": 0.1}])
    runs.save([run], tmp_path)
    document = json.loads((tmp_path / runs.FILE).read_text())
    assert document["version"] == runs.KIND.version and document["runs"][0]["supervision"][0] == {
        "labels": "group labels", "on": "train", "purpose": "fit", "source": ""
    }  # fmt: skip
    words = "group labels on train, to fit; group labels on validation, to choose"
    assert words in (tmp_path / runs.TABLE).read_text()
    document["version"], document["runs"][0]["supervision"] = 1, words
    (tmp_path / runs.FILE).write_text(json.dumps(document))
    assert list(runs.load(tmp_path / runs.FILE)) == [run]


def test_the_declarations_of_every_head_hold() -> None:
    assert {need.value for need in Need} == {
        "groups", "held_out", "held_out groups", "prompts", "prompts spurious", "spuriosity"
    }  # fmt: skip
    assert Head.chosen_by is ChosenBy.AVERAGE and Head.fits_on is On.TRAIN and Head.supervision == ()


def test_no_head_tells_arrays_apart_by_where_they_lie() -> None:
    for file in sorted((ROOT / "probes").glob("*.py")):
        calls = [n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        assert not [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id == "id"], file
