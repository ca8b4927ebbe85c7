"""The map of an embedding: every group alike, the same every time, neighbours stay neighbours."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report import svg_texts

from embedx import report
from embedx.evaluation.split import Part, Split
from embedx.report import tsne

EVIL = "<script>alert(1)</script>&\"'"


def make_split(n=60, labels=2, attributes=2, width=8, names=None, seed=0) -> Split:
    """Rows in clusters by label, a little apart by attribute."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, labels * attributes, n)
    y = groups // attributes
    X = rng.normal(size=(n, width)).astype(np.float32)
    X[:, 0] += 30 * y
    part = Part(np.arange(n), X, y, groups)
    classes = tuple(names or (f"class {c}" for c in range(labels)))
    grouped = tuple(f"{c}/place {a}" for c in classes for a in range(attributes)) if attributes > 1 else classes
    of = np.repeat(np.arange(labels), attributes)
    return Split("d", "tiny:broad", part, part, part, classes, grouped, of, attributes > 1, {})


def test_three_panels_count_every_row_by_label_attribute_and_group():
    split = make_split()
    svg = tsne.embedding_map(split)
    texts = svg_texts(svg)
    assert [t for t in texts if t.startswith("by ")] == ["by label", "by attribute", "by group"]
    attributes = ("place 0", "place 1")
    for code, names in (
        (split.test.y, split.classes), (split.test.groups % 2, attributes), (split.test.groups, split.group_names),
    ):  # fmt: skip
        for c, name in enumerate(names):
            assert f"{name}, n = {np.count_nonzero(code == c)}" in texts
    legends = 2 + 2 + 4
    assert len(re.findall("<use ", svg)) == 3 * 60 + legends
    assert not re.search(r'<use [^>]*="-?\d+\.\d\d', svg)  # a tenth of a point is all that can be seen


def test_the_same_split_gives_the_same_bytes_and_another_seed_of_the_global_generator_changes_nothing():
    first = tsne.embedding_map(make_split(30))
    np.random.seed(7)
    assert tsne.embedding_map(make_split(30)) == first


def test_rows_of_one_cluster_stay_together():
    split = make_split(80)
    at = tsne.project(split.test.X)
    apart = np.linalg.norm(at[:, None] - at[None], axis=2) + 1e9 * np.eye(len(at))
    assert np.mean(split.test.y[apart.argmin(axis=1)] == split.test.y) > 0.97


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any), st.integers(1, 120), st.integers(0, 9))
def test_every_group_gets_as_many_rows_as_the_others_or_all_it_has(sizes, most, seed):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = tsne.balanced(groups, most, seed)
    assert len(rows) == len(set(rows)) == min(most, sum(sizes))
    taken = np.bincount(groups[rows], minlength=len(sizes))
    short = taken < np.array(sizes)  # groups with rows to spare have all been treated alike
    if short.any():
        assert taken.max() - taken[short].min() <= 1


def test_rare_categories_share_a_dot():
    codes = np.repeat(np.arange(14), np.arange(1, 15))
    found = tsne.categories(codes, [f"c{i}" for i in range(14)])
    assert [name for name, _ in found] == [*(f"c{i}" for i in range(4, 14)), "4 others"]
    assert sum(here.sum() for _, here in found) == len(codes)


@pytest.mark.parametrize(("n", "width", "attributes", "panels"), [(4, 1, 2, 3), (12, 3, 1, 1)])
def test_few_rows_few_features_and_no_attribute(n, width, attributes, panels):
    texts = svg_texts(tsne.embedding_map(make_split(n, width=width, attributes=attributes)))
    assert sum(t.startswith("by ") for t in texts) == panels


def test_three_rows_are_refused():
    with pytest.raises(ValueError, match="3 test rows; a map needs four"):
        tsne.embedding_map(make_split(3))


def test_a_map_is_part_of_the_page_and_a_file(tmp_path):
    from test_report import make_run

    svg = tsne.embedding_map(make_split(20, names=(EVIL, "b")))
    page = report.write([make_run("tiny:broad")], tmp_path, maps={"tiny:broad": svg}).read_text(encoding="utf-8")
    assert (tmp_path / "plots" / "map-tiny-broad.svg").read_text(encoding="utf-8") == svg
    assert "by attribute" in page
    assert "<script>alert" not in page
