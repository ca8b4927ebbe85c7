"""The critical-difference plot: who stands where, and who is joined."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from embedx.report.ranks import critical_difference
from embedx.statistics.across_datasets import ranks_over_datasets


def texts(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("}text")]


@pytest.mark.parametrize(("datasets", "methods"), [(1, 2), (3, 5), (12, 9)])
def test_every_method_is_named_with_its_mean_rank(datasets: int, methods: int) -> None:
    ranks = ranks_over_datasets(np.random.default_rng(0).normal(np.arange(methods), 0.5, (datasets, methods)))
    names = [f"head <{j}>" for j in range(methods)]
    svg = critical_difference(ranks, names)
    told = texts(svg)
    assert {f"head <{j}>  {rank:.2f}" for j, rank in enumerate(ranks.mean_ranks)} <= set(told)
    assert any(text.startswith(f"critical difference {ranks.critical_difference:.2f}") for text in told)
    longer = ranks.critical_difference > methods - 1
    assert any("longer than the line" in text for text in told) == longer
    joined = len(re.findall(r"stroke-width: 3.5", svg))
    assert joined == len(ranks.alike), "one thick line for each stretch"
    assert svg == critical_difference(ranks, names)
