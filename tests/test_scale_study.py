"""The study `scale`: what its parts compute, against obvious oracles, and its answer on runs whose gaps are known."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import make_run

from embedx.evaluation.runs import pack
from embedx.evaluation.verdict import MARGIN
from embedx.probes import Labels, On, Purpose, Supervision
from embedx.statistics import Interval
from embedx.studies import scale
from embedx.studies._catching_up import certified, crossing, gaps
from embedx.studies._separability import separability
from embedx.studies.outcome import CellRuns, Outcome

N = 400  # test rows of each group


def hits(right):
    """Correctness of rows group by group: the first `right` of each, so that the better of two heads is never worse."""
    return np.concatenate([np.arange(N) < k for k in right])


def run_of(backbone, head, right, aware, seed=0):
    needs = ("groups",) if aware else ()
    supervision = (Supervision(Labels.GROUPS, On.TRAIN, Purpose.FIT),) if aware else ()
    return make_run(
        backbone, head, n=[N] * 4, right=right, seed=seed, correct=pack(hits(right)), needs=needs,
        supervision=supervision, validation_worst_group=min(right) / N,
    )  # fmt: skip


def pair(backbone, plain, best, **further):
    """Runs of the plain head and of a group-aware one with these worst groups, in rows of N."""
    usual = [N - 10] * 3
    return [run_of(backbone, "plain", [plain, *usual], False, **further),
            run_of(backbone, "group-dro", [best, *usual], True, **further)]  # fmt: skip


def test_the_gap_is_of_the_mean_over_draws_and_its_interval_of_rows_and_draws():
    one = gaps([pair("a", 300, 340)])[0]
    assert (one.value, one.draws, one.rival) == (pytest.approx(0.1), 1, "group-dro")
    assert one.low < 0.1 < one.high and not one.closed
    (same,) = gaps([pair("a", 300, 340)] * 3)
    assert (same.low, same.high) == (pytest.approx(one.low), pytest.approx(one.high))  # draws that do not differ
    (apart,) = gaps([pair("a", 300, 320), pair("a", 300, 340), pair("a", 300, 360)])
    assert apart.value == pytest.approx(0.1)
    half = 4.302653 * 0.05 / 3**0.5  # Student's t with 2 degrees of freedom
    assert apart.high - apart.value > half
    (closed,) = gaps([pair("a", N - 20, N - 20)])
    assert closed.closed and closed.value == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=12))
def test_from_the_best_embedding_down_to_the_first_that_fails(found):
    quality, closed = [q for q, _ in found], [c for _, c in found]
    passed = certified(closed, quality)
    assert all(closed[i] for i in passed)
    others = sorted(set(range(len(found))) - set(passed), key=lambda i: -quality[i])
    assert not others or (not closed[others[0]] and all(quality[i] >= quality[others[0]] for i in passed))


@settings(max_examples=25, deadline=None)
@given(st.floats(0.55, 0.95), st.floats(0.2, 2))
def test_a_line_crosses_the_margin_where_it_does(place, slope):
    quality = np.linspace(0.5, 1, 41)
    found = crossing(quality, MARGIN + slope * (place - quality), draws=40)
    assert found.value == pytest.approx(place)
    assert found.low <= place + 0.02 and found.high >= place - 0.02


def test_a_gap_that_never_closes_has_no_place_and_one_that_is_never_open_the_first():
    quality = np.linspace(0.5, 1, 9)
    assert crossing(quality, np.full(9, 0.3)).value == np.inf
    assert crossing(quality, np.zeros(9)).value == 0.5


def test_what_can_be_told_apart_is_and_what_cannot_is_not():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 60)
    units = np.repeat(np.arange(60), 2)
    noise = rng.standard_normal((120, 5))
    told = separability(noise + 5 * y[:, None], y, units)
    assert told.value == 1 and told.n == 120 and told.low > 0.9
    # Rows of a unit are alike in everything but chance: a fold that held one of them would give the others away.
    alike = separability(np.repeat(rng.standard_normal((60, 40)), 2, axis=0), y, units)
    assert alike.low < 0.5 < alike.high
    assert alike.high - alike.low > 0.18  # of 60 units, not of 120 rows


def outcome(monkeypatch, quality, gap_of):
    """Two strengths, two draws each; at the first no gap, at the second one that falls with quality."""
    names = [f"tiny:w{w}-n{n}-d{d}" for w, n, d in ((16, 500, 1), (32, 500, 8), (64, 500, 1), (16, 8000, 8),
                                                     (32, 8000, 1), (64, 8000, 8))]  # fmt: skip
    names = [*names, "lite:0"]
    found = {name: scale.Embedding(name, Interval(q, q - 0.02, q + 0.02, 400), Interval(0.9, 0.87, 0.93, 400))
             for name, q in zip(names, quality, strict=True)}  # fmt: skip
    monkeypatch.setattr(scale, "_embeddings", lambda cells: found)
    cells = []
    for correlation in (0.5, 0.95):
        for draw in (0, 1):
            runs = [run for name, q in zip(names, quality, strict=True)
                    for run in pair(name, 390 - round(N * gap_of(q) * (correlation > 0.9)), 390)]  # fmt: skip
            cells.append(CellRuns("tiny", {"correlation": correlation, "draw": draw}, None, runs, None))  # type: ignore[arg-type]
    return Outcome(SimpleNamespace(), None, tuple(cells))  # type: ignore[arg-type]


def test_the_answer_names_the_strengths_the_place_and_the_levers(monkeypatch):
    quality = [0.5, 0.58, 0.66, 0.74, 0.82, 0.9, 0.98]
    asked = outcome(monkeypatch, quality, lambda q: max(0.0, 0.85 - q))
    falls, closes, levers = scale.answer(asked).sections
    assert "falls with the label told apart at 95 %" in falls.answer
    assert "at 50 % on the 7 best of 7 embeddings, down to a quality of 50 %" in closes.answer
    assert "at 95 % on the 2 best of 7 embeddings, down to a quality of 90 %" in closes.answer
    assert "rho" in levers.tables[0][1].columns[2] and len(levers.tables[0][1]) == 3
    every = dict(falls.tables)["Every embedding"]
    assert len(every) == 14 and set(every["draws"]) == {2} and set(every["n"]) == {N}
    (_, svg) = falls.plots[0]
    assert svg.startswith("<?xml") and all(name in svg for name in ("correlation 95 %", "8,000 pictures", "lite"))


def test_it_says_so_where_the_gap_stays(monkeypatch):
    _, closes, levers = scale.answer(
        outcome(monkeypatch, [0.5, 0.58, 0.66, 0.74, 0.82, 0.9, 0.98], lambda q: 0.2)
    ).sections
    assert "at 95 % on none for sure: on the best of 7 (quality 98 %) the gap is +20.0" in closes.answer
    assert dict(closes.tables)["Where the gap closes"].iloc[1, 1] == "never"
    assert levers.answer
