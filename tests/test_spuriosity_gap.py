"""Gaps: the ends lie apart, a ranking turned round turns the sign, and one that means nothing finds nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from embedx.errors import SpuriosityError
from embedx.spuriosity.measures import gaps as gap
from embedx.spuriosity.measures.gaps import gaps
from embedx.spuriosity.measures.predictions import Predictions
from embedx.spuriosity.measures.ranked_rows import RankedRows
from embedx.spuriosity.records.gaps import Measured, save
from embedx.spuriosity.records.ranking import Ranking

TEST = 2


def ranking(sizes: Sequence[int], scores: np.ndarray | None = None, split: int = TEST, **facts: object) -> Ranking:
    """Classes of these sizes, one after the other, scores rising with the rows where none are given."""
    n = sum(sizes)
    return Ranking(
        dataset="made", backbone="ranker", weights="w", ids=np.array([f"{i:05d}" for i in range(n)], dtype=object),
        labels=np.repeat(np.arange(len(sizes)), sizes), splits=np.full(n, split),
        scores=np.arange(n, dtype=float) if scores is None else scores, statistics="train", cues={}, dropped={},
        **facts,
    )  # fmt: skip


def answered(sizes: Sequence[int], hits: np.ndarray, name: str = "plain") -> Predictions:
    y = np.repeat(np.arange(len(sizes)), sizes)
    ids = np.array([f"{i:05d}" for i in range(len(y))], dtype=object)
    predicted = np.where(hits, y, (y + 1) % len(sizes))
    return Predictions("made", "model", name, "test", tuple(f"c{c}" for c in range(len(sizes))), ids, y, predicted)


made = st.tuples(st.lists(st.integers(2, 60), min_size=2, max_size=6), st.integers(0, 10_000))
ks = st.one_of(st.integers(1, 40), st.floats(0.01, 0.5))


def draw(sizes: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores in random order without ties, and right or wrong at random."""
    rng = np.random.default_rng(seed)
    return rng.permutation(sum(sizes)).astype(float), rng.random(sum(sizes)) < rng.random()


@given(made, ks)
def test_the_two_ends_lie_apart_and_are_what_they_are_called(data: tuple[list[int], int], k: float) -> None:
    sizes, seed = data
    scores, hits = draw(sizes, seed)
    order = RankedRows.of(ranking(sizes, scores), [answered(sizes, hits)])
    places = order.places(k)
    for c, n in enumerate(sizes):
        m = int(places[c])
        asked = k if isinstance(k, int) else int(np.floor(k * n + 1e-9))
        assert m == min(max(asked, 1), n // 2) and 2 * m <= n
        mine = np.flatnonzero(np.repeat(np.arange(len(sizes)), sizes) == c)
        lowest, highest = (mine[np.argsort(sign * scores[mine])[:m]] for sign in (1, -1))
        assert {int(i) for i in order.ids[order.end(c, m, most=True)]} == set(highest)
        assert {int(i) for i in order.ids[order.end(c, m, most=False)]} == set(lowest)
        assert not set(highest) & set(lowest)
        high, low = order.tails(places)
        assert (high[0, c], low[0, c]) == (hits[highest].sum(), hits[lowest].sum())


@given(made, ks)
@settings(max_examples=12)
def test_reversing_the_ranking_negates_the_gap(data: tuple[list[int], int], k: float) -> None:
    sizes, seed = data
    scores, hits = draw(sizes, seed)
    there, back = (gaps(ranking(sizes, s), answered(sizes, hits), k) for s in (scores, -scores))
    for a, b in [*zip(there.classes, back.classes, strict=True), (there.mean, back.mean), (there.pooled, back.pooled)]:
        assert (a.gap.value, a.gap.low, a.gap.high) == pytest.approx((-b.gap.value, -b.gap.high, -b.gap.low))
        assert (a.high, a.low) == (b.low, b.high)
    assert [c.p for c in there.classes] == pytest.approx([c.p for c in back.classes])
    assert [c.rho for c in there.classes] == pytest.approx([c.rho and -c.rho for c in back.classes])
    assert [p.value for p in there.positions] == pytest.approx([p.value for p in back.positions][::-1])


@given(made, ks)
@settings(max_examples=12)
def test_only_the_order_of_scores_within_a_class_counts(data: tuple[list[int], int], k: float) -> None:
    sizes, seed = data
    scores, hits = draw(sizes, seed)
    shift = np.repeat(np.random.default_rng(seed).normal(size=len(sizes)) * 99, sizes)
    turned = np.cbrt(scores - scores.mean()) * 7 + shift
    assert gaps(ranking(sizes, scores), answered(sizes, hits), k) == gaps(
        ranking(sizes, turned), answered(sizes, hits), k
    )


def test_ties_go_by_id_and_are_told() -> None:
    sizes, hits = [8, 8], np.arange(16) % 8 >= 4
    flat = gaps(ranking(sizes, np.zeros(16)), answered(sizes, hits), 2)
    assert flat == gaps(ranking(sizes, np.zeros(16)), answered(sizes, hits), 2)
    assert all(c.tied and c.gap.value == 1 and c.rho is None for c in flat.classes)
    apart = gaps(ranking(sizes, np.tile([0, 0, 1, 1, 1, 1, 2, 2], 2)), answered(sizes, hits), 2)
    assert not any(c.tied for c in apart.classes)


def test_the_high_end_is_the_highest_not_the_lowest_of_the_last_thousand() -> None:
    """Published code takes the first k of the last thousand: ranks 300 to 399 of 1,300, and of few rows the low end."""
    n, k = 1_300, 100
    order = RankedRows.of(ranking([n, n]), [answered([n, n], np.ones(2 * n, bool))])
    assert [int(i) for i in order.ids[order.end(0, k, most=True)]] == list(range(1_200, 1_300))
    for n in (1_000, 200):
        cue = np.arange(2 * n) % n >= n // 2  # right where the cue is present
        found = gaps(ranking([n, n]), answered([n, n], cue), 100)
        assert [c.gap.value for c in found.classes] == [1, 1] and found.mean.gap.value == 1


def test_gaps_are_of_the_split_of_the_answers_alone() -> None:
    """A ranking holds every split; rows of the others, whatever their scores, have no part in the gap."""
    sizes, hits = [30, 30], np.arange(60) % 30 >= 15
    whole, answers = ranking(sizes), answered(sizes, hits)
    splits = np.where(np.arange(60) % 3 > 0, 2, 1)
    mixed = Ranking(**{**vars(whole), "splits": splits})
    kept = Ranking(**{**vars(whole), "scores": np.where(splits == 2, whole.scores, np.nan)})
    assert gaps(mixed, answers, 5) == gaps(kept, answers, 5)
    assert [c.n for c in gaps(mixed, answers, 5).classes] == [20, 20]


@pytest.mark.slow
def test_a_random_ranking_lies_within_its_null() -> None:
    """Of many data sets with hard and easy images and a ranking that means nothing, no more than alpha are called."""
    rng, sizes, trials, alpha = np.random.default_rng(0), [50, 30, 80, 41, 50], 120, 0.1
    classes, overall, pooled, trend, each, any_class, inside = [], [], [], [], [], [], []
    for trial in range(trials):
        hits = rng.random(sum(sizes)) < 1 / (1 + np.exp(-rng.normal(1, 2, size=sum(sizes))))
        found = gaps(ranking(sizes, rng.random(sum(sizes))), answered(sizes, hits), 0.2, seed=trial)
        classes += [c.p for c in found.classes]
        each += [c.rho_p for c in found.classes]
        any_class.append(min(c.holm for c in found.classes))
        overall.append(found.mean.p)
        pooled.append(found.pooled.p)
        inside.append(found.mean.null[0] <= found.mean.gap.value <= found.mean.null[1])
        assert found.trend is not None
        trend.append(found.trend.p)
    limit = alpha + 3 * np.sqrt(alpha * (1 - alpha) / trials)
    for p in (classes, overall, pooled, trend, each, any_class):
        assert np.mean(np.array(p) <= alpha) <= limit
    assert np.mean(inside) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / trials)
    assert stats.kstest(trend, "uniform").pvalue > 0.01  # of the continuous ones; the others are conservative
    assert np.mean(np.array(overall) <= 0.5) > 0.35  # not so conservative as to find nothing


def test_intervals_hold_the_true_gap() -> None:
    rng, sizes, trials = np.random.default_rng(1), [50] * 20, 60
    base, slope = rng.uniform(0.2, 0.8, 20)[:, None], np.linspace(-0.2, 0.2, 50)[None, :]
    chance = base + slope  # of every row to be right: each class has the same gap
    true = float(slope[0, -10:].mean() - slope[0, :10].mean())
    covered, booted, width, narrow = 0, 0, [], []
    for trial in range(trials):
        hits = (rng.random(chance.shape) < chance).ravel()
        order = RankedRows.of(ranking(sizes), [answered(sizes, hits)])
        found, _ = gap._overall(order, order.places(10), np.random.default_rng(trial))
        covered += found.gap.low <= true <= found.gap.high
        booted += found.bootstrap[0] <= true <= found.bootstrap[1]
        width.append(found.gap.high - found.gap.low)
        narrow.append(found.bootstrap[1] - found.bootstrap[0])
    least = trials * (0.95 - 3 * np.sqrt(0.05 * 0.95 / trials))
    assert covered >= least and booted >= least
    assert np.mean(narrow) <= np.mean(width) < 1.3 * np.mean(narrow)


def test_where_all_is_right_the_interval_still_has_a_width() -> None:
    found = gaps(ranking([40, 40]), answered([40, 40], np.ones(80, bool)), 8)
    assert (found.mean.high.value, found.mean.gap.value, found.mean.p) == (1, 0, 1)
    assert found.mean.high.low < 0.95 and found.mean.gap.low < -0.05 and found.mean.gap.high > 0.05
    assert found.trend is None and all(c.rho is None and c.p == 1 for c in found.classes)


@given(made)
def test_positions_are_the_accuracy_cut_into_pieces(data: tuple[list[int], int]) -> None:
    sizes, seed = data
    scores, hits = draw(sizes, seed)
    order = RankedRows.of(ranking(sizes, scores), [answered(sizes, hits)])
    for bins in (1, 7, 10):
        np.testing.assert_allclose(order.by_position(bins)[0].mean(axis=1), order.totals[0] / order.sizes)
    for c, n in enumerate(sizes):
        mine = order.starts[c] + np.arange(n)
        np.testing.assert_allclose(order.by_position(n)[0, c], order.hits[0, mine], atol=1e-9)


@given(made, st.integers(1, 9))
def test_the_trend_is_spearmans(data: tuple[list[int], int], distinct: int) -> None:
    sizes, seed = data
    scores, hits = draw(sizes, seed)
    scores = np.floor(scores / sum(sizes) * distinct)
    found = RankedRows.of(ranking(sizes, scores), [answered(sizes, hits)]).spearman()[0]
    for c, rho in enumerate(found):
        mine = np.repeat(np.arange(len(sizes)), sizes) == c
        x, y = scores[mine], hits[mine]
        if np.ptp(x) == 0 or y.all() or not y.any():
            assert np.isnan(rho)
        else:
            assert rho == pytest.approx(stats.spearmanr(x, y).statistic)


def test_equal_scores_of_two_classes_are_no_tie() -> None:
    scores, hits = np.array([0, 1, 2, 3, 3, 4, 5, 6]), np.array([0, 0, 1, 0, 1, 0, 1, 1], bool)
    found = RankedRows.of(ranking([4, 4], scores), [answered([4, 4], hits)]).spearman()[0]
    assert list(found) == pytest.approx([stats.spearmanr(range(4), h).statistic for h in (hits[:4], hits[4:])])


def test_the_mean_counts_classes_and_the_pooled_gap_rows() -> None:
    sizes = [100, 10]
    hits = np.r_[np.arange(100) >= 50, np.arange(10) < 5]
    found = gaps(ranking(sizes), answered(sizes, hits), 0.2)
    assert [c.gap.value for c in found.classes] == [1, -1] and [c.k for c in found.classes] == [20, 2]
    assert found.mean.gap.value == pytest.approx(0) and found.pooled.gap.value == pytest.approx(18 / 22)
    even = gaps(ranking(sizes), answered(sizes, hits), 5)
    assert even.mean.gap.value == pytest.approx(even.pooled.gap.value) == pytest.approx(0)
    assert even.mean.gap.n == 20 and [d.k for d in even.depths] == list(gap.DEPTHS)


def test_small_classes_are_flagged_and_single_rows_left_out() -> None:
    sizes = [60, 39, 5, 1]
    found = gaps(ranking(sizes), answered(sizes, np.arange(105) % 2 == 0), 10)
    assert [(c.label, c.n, c.k, c.small) for c in found.classes] == [
        (0, 60, 10, False),
        (1, 39, 10, True),
        (2, 5, 2, True),
    ]
    assert found.single == (3,) and found.mean.classes == 3
    cut = gaps(ranking([60, 60]), answered([60, 60], np.ones(120, bool)), 31)
    assert [(c.k, c.small) for c in cut.classes] == [(30, True), (30, True)]


def test_a_class_without_score_and_a_row_without_answer_have_no_part() -> None:
    sizes, hits = [20, 20, 20], np.arange(60) % 20 >= 10
    scores = np.where(np.arange(60) // 20 == 1, np.nan, np.arange(60.0))
    whole = answered(sizes, hits)
    fewer = Predictions(**{**vars(whole), **{name: getattr(whole, name)[5:] for name in ("ids", "y", "predicted")}})
    found = gaps(ranking(sizes, scores), fewer, 5)
    assert [(c.label, c.n) for c in found.classes] == [(0, 15), (2, 20)]


def test_p_values_are_corrected_over_classes() -> None:
    rng, sizes = np.random.default_rng(3), [50] * 8
    hits = rng.random(400) < np.where(np.arange(400) < 150, (np.arange(400) % 50) / 50, 0.7)
    found = gaps(ranking(sizes), answered(sizes, hits), 10).classes
    p = np.array([c.p for c in found])
    assert p.min() < 0.01
    order = np.argsort(p, kind="stable")
    holm = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(8, 0, -1)))
    fdr = np.minimum(1, np.minimum.accumulate((p[order] * 8 / np.arange(1, 9))[::-1])[::-1])
    np.testing.assert_allclose([found[i].holm for i in order], holm)
    np.testing.assert_allclose([found[i].fdr for i in order], fdr)


def test_controls_are_other_rankings_of_the_same_classes() -> None:
    rng, sizes, hits = np.random.default_rng(1), [50] * 4, np.tile(np.arange(50) >= 25, 4)
    scores = np.arange(200.0)
    scores[150:] = np.nan
    noise = ranking(sizes, rng.random(200))
    found = gaps(
        ranking(sizes, scores), answered(sizes, hits), 10, controls={"random": noise, "itself": ranking(sizes)}
    )
    assert found.controls["itself"].gap == found.mean.gap and found.controls["itself"].classes == 3
    low, high = found.controls["random"].null
    assert low <= found.controls["random"].gap.value <= high < found.mean.gap.value == 1
    bare = ranking(sizes, np.where(np.arange(200) >= 150, 1.0, np.nan))
    with pytest.raises(SpuriosityError, match="no class has two rows in test that are ranked and answered"):
        gaps(ranking(sizes, scores), answered(sizes, hits), 10, controls={"other": bare})


@pytest.mark.parametrize("k", [0, -3, 0.0, 0.51, 1.5, float("nan")])
def test_a_k_that_is_neither_is_refused(k: float) -> None:
    with pytest.raises(ValueError, match="expected (one row at each end at least|a fraction of the class up to 0.5)"):
        gaps(ranking([9, 9]), answered([9, 9], np.ones(18, bool)), k)


def test_a_ranking_and_answers_that_do_not_fit_are_refused() -> None:
    whole = answered([9, 9], np.ones(18, bool))
    with pytest.raises(SpuriosityError, match="answers of model=plain are of made, split test, expected other"):
        gaps(Ranking(**{**vars(ranking([9, 9])), "dataset": "other"}), whole, 2)
    with pytest.raises(
        SpuriosityError, match="00004 has another label in the ranking than in the manifest .2 such rows"
    ):
        gaps(ranking([4, 14]), answered([6, 12], np.ones(18, bool)), 2)
    with pytest.raises(
        SpuriosityError, match="no class has two rows in test that are ranked and answered .0 such rows"
    ):
        gaps(ranking([9, 9], split=0), whole, 2)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    sizes, hits = [50, 30, 1], np.arange(81) % 3 > 0
    made = ranking(sizes)
    found = [
        gaps(made, answered(sizes, hits, name), k, controls={"same": made}) for name, k in (("a", 10), ("b", 0.25))
    ]  # fmt: skip
    path = save(tmp_path / "new", made, found)
    assert Measured.load(path.parent).models == tuple(found)
    document = json.loads(path.read_text())
    assert document["ranking"] == {
        "dataset": "made", "backbone": "ranker", "weights": "w", "statistics": "train", "cues": {}, "features": {},
        "dropped": {}, "digest": made.digest,
    }  # fmt: skip
    assert document["across"] is None and [m["head"] for m in document["models"]] == ["a", "b"]
    with pytest.raises(SpuriosityError, match="does not exist; make it with `embedx spuriosity gap`"):
        Measured.load(tmp_path)
    path.write_text(json.dumps(document | {"version": 9}))
    with pytest.raises(SpuriosityError, match=r"\$.version is 9, expected 2 .a newer embedx wrote 9: update"):
        Measured.load(path.parent)
