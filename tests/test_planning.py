"""Test sets that are planned: as many decide as test sets that are drawn answer by answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedx.statistics import Pairs, Truth
from embedx.statistics.planning import POWER

MARGIN, ERROR = 0.02, 0.05
SIZES = np.array([900, 900, 300, 300])
PLAIN = np.array([0.97, 0.93, 0.72, 0.94])


def drawn(truth: Truth, repetitions: int = 600) -> Pairs:
    """Test sets of rows: of each, whether the plain head is right, and whether its only rival is."""
    rng, (p, r), c = np.random.default_rng(1), truth.rates, truth.correlation[:, 0, 1]
    both = p * r + c * np.sqrt(p * (1 - p) * r * (1 - r))
    cells = np.stack([both, p - both, r - both, 1 - p - r + both], axis=1)
    n = truth.n.astype(int)
    counts = np.stack([rng.multinomial(k, x, repetitions) for k, x in zip(n, cells, strict=True)], axis=1)
    of_both, plain, rival, _ = np.moveaxis(counts / n[:, None], -1, 0)
    return Pairs(np.broadcast_to(truth.n, plain.shape), of_both + plain, of_both + rival, rival, plain, rival + plain)


def hits(rates: np.ndarray, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(SIZES.sum()) < np.repeat(rates, SIZES)).astype(float)


@pytest.mark.parametrize(("gain", "side"), [(0.0, 0), (0.05, 1)])
def test_as_many_decide_as_in_test_sets_drawn_row_by_row(gain: float, side: int) -> None:
    shared = hits(PLAIN, 0)
    found = Truth.of(shared, np.where(hits(PLAIN * 0 + 0.3, 1) > 0, hits(PLAIN, 2), shared)[None], SIZES)
    truth = found.shifted(gain)
    assert truth is not None and truth.difference == pytest.approx(gain)
    shares = truth.found(MARGIN, ERROR)
    assert shares == pytest.approx([x.mean() for x in drawn(truth).refuted(MARGIN, ERROR)], abs=0.06)
    more = truth.rows_needed(MARGIN, ERROR)
    assert more is not None and more.any()
    larger = replace(truth, n=truth.n + more)
    assert drawn(larger).refuted(MARGIN, ERROR)[side].mean() == pytest.approx(POWER, abs=0.06)
    assert not replace(larger, n=4 * larger.n).rows_needed(MARGIN, ERROR).any()  # type: ignore[union-attr]


def test_rates_and_correlations_are_those_of_the_rows_and_only_the_leading_rivals_are_drawn() -> None:
    plain = hits(PLAIN, 0)
    rivals = np.stack([plain, *(hits(PLAIN - loss, 3) for loss in (0.05, 0.1, 0.2, 0.3))])
    truth = Truth.of(plain, rivals, SIZES)
    assert truth.rivals == 5 and truth.rates.shape == (4, 4) and truth.difference == 0
    assert np.allclose(truth.rates[0], truth.rates[1]) and (truth.correlation[:2, 0, 1] > 0.9).all()
    assert abs(truth.correlation[:, 0, 2]).max() < 0.2  # drawn apart
    assert truth.shifted(0.5) is None  # the head's worst group leaves no room for it
    assert Truth.of(plain, plain[None], SIZES).rows_needed(0.0, ERROR) is None  # the margin itself
