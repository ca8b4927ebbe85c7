"""The review against real labels: its figures are those of plain loops, every form of table is read or refused with a
reason, and labels that were flipped on purpose are found.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pets import write
from scipy.special import ndtr
from sklearn.metrics import roc_auc_score

from embedx.cli import main
from embedx.data import manifest as manifests
from embedx.data.manifest import SPLITS, Manifest, Subjects
from embedx.datasets import planted
from embedx.datasets._planted import deck, paint
from embedx.errors import SpuriosityError
from embedx.evaluation.model import ModelName
from embedx.extractors import tiny
from embedx.spuriosity import check_review
from embedx.spuriosity.features import held_out
from embedx.spuriosity.measures import confident_learning as confident
from embedx.spuriosity.measures import label_noise
from embedx.spuriosity.measures.importance import important_features
from embedx.spuriosity.measures.label_noise import ScoredRows
from embedx.spuriosity.real_labels import public
from embedx.spuriosity.real_labels.tables import read_real_labels as read
from embedx.spuriosity.records import review_check
from embedx.spuriosity.records.findings import Findings
from embedx.spuriosity.records.flags import SURE
from embedx.statistics import (
    auroc,
    auroc_difference,
    found_at,
    lift,
    precision_ratios,
    random_p,
    random_precision,
    wilson,
)
from embedx.statistics.retrieval import _found_in_sample, ratio_limits
from embedx.workspace import Workspace

# --- figures -----------------------------------------------------------------------------------------------------


def drawn(seed: int, n: int = 60, k: int = 3) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Labels and probabilities that go with them."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.integers(k, size=n - k)])
    logits = rng.normal(size=(n, k)) + 1.5 * (np.arange(k) == labels[:, None])
    p = np.exp(logits)
    return rng, labels, p / p.sum(axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_confident_learning_is_what_its_definition_says(seed: int, k: int) -> None:
    _, labels, p = drawn(seed, 50, k)
    thresholds = [np.mean([p[i][j] for i in range(50) if labels[i] == j]) for j in range(k)]
    counts, off, margins = np.zeros((k, k)), [], []
    for i, row in enumerate(p):
        above = [j for j in range(k) if row[j] >= thresholds[j]]
        guess = max(above, key=lambda j: row[j]) if above else None
        if guess is not None:
            counts[labels[i], guess] += 1
        off.append(guess is not None and guess != labels[i])
        margins.append(row[labels[i]] - max(row[j] for j in range(k) if j != labels[i]))
    joint = confident.confident_joint(labels, p)
    assert joint.thresholds == pytest.approx(thresholds) and np.array_equal(joint.counts, counts)
    scores, wrong = confident.suspicion(labels, p)
    assert wrong.tolist() == off and confident.normalized_margin(labels, p) == pytest.approx(margins)
    expected = sorted(range(50), key=lambda i: (not off[i], margins[i]))
    assert np.argsort(-scores, kind="stable").tolist() == expected


def test_confident_learning_in_blocks_and_with_classes_that_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    _, labels, p = drawn(0)
    whole = confident.suspicion(labels, p)
    monkeypatch.setattr(confident, "BLOCK", 7)
    assert all(np.array_equal(a, b) for a, b in zip(whole, confident.suspicion(labels, p), strict=True))
    wider = np.column_stack([p, np.zeros(len(p))])  # a class that no row has is never guessed
    assert np.array_equal(confident.suspicion(labels, wider)[1], whole[1])
    assert not confident.confident_joint(labels, wider).counts[:, 3].any()
    same = np.full((9, 3), 1 / 3)  # at its threshold, which rounding must not lift above it
    assert confident.confident_joint(np.arange(9) % 3, same).guess.tolist() == [0] * 9


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_areas_and_their_difference_are_those_of_every_pair(seed: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    positive = np.arange(30) < 8
    a, b = (np.round(rng.normal(size=30) + positive, 0 if tied else 9) for _ in range(2))
    assert auroc(positive, a) == pytest.approx(roc_auc_score(positive, a))
    wins = [np.array([[(x > y) + (x == y) / 2 for y in s[~positive]] for x in s[positive]]) for s in (a, b)]
    d = wins[0] - wins[1]
    half = 1.959964 * np.sqrt(np.var(d.mean(1), ddof=1) / 8 + np.var(d.mean(0), ddof=1) / 22)
    x = auroc_difference(positive, a, b)
    assert x.value == pytest.approx(auroc(positive, a) - auroc(positive, b)) and x.n == 8
    assert (x.low, x.high) == pytest.approx((x.value - half, x.value + half), abs=1e-6)


def test_the_interval_of_a_difference_of_areas_covers_it() -> None:
    rng, positive, covered = np.random.default_rng(0), np.arange(150) < 30, 0
    truth = ndtr(1.5 / np.sqrt(2)) - ndtr(1.0 / np.sqrt(2))
    for _ in range(300):
        shared, mine = rng.normal(size=150), rng.normal(size=(2, 150))
        a, b = (np.sqrt(0.5) * (shared + e) + d * positive for e, d in zip(mine, (1.5, 1.0), strict=True))
        x = auroc_difference(positive, a, b)
        covered += x.low <= truth <= x.high
    assert covered / 300 > 0.91


def test_the_lift_and_its_interval() -> None:
    x = lift(30, 50, 100, 1000)
    assert x.value == pytest.approx(6) and x.low < 6 < x.high < 20
    p, q, (lp, up), (lq, uq) = 70 / 950, 0.6, wilson(70, 950), wilson(30, 50)
    low = (p * q - np.sqrt((p * q) ** 2 - lp * uq * (2 * p - lp) * (2 * q - uq))) / (uq * (2 * q - uq))
    high = (p * q + np.sqrt((p * q) ** 2 - up * lq * (2 * p - up) * (2 * q - lq))) / (lq * (2 * q - lq))
    assert ratio_limits(70, 950, 30, 50) == pytest.approx((low, high))
    assert (x.low, x.high) == pytest.approx((1 / (0.05 + 0.95 * high), 1 / (0.05 + 0.95 * low)))
    assert lift(5, 5, 5, 5).value == lift(3, 20, 3, 20).high == 1
    none, every = lift(0, 10, 20, 100), lift(10, 10, 10, 100)
    assert (none.value, none.low) == (0, 0) and 0 < none.high < 10
    assert every.value == every.high == pytest.approx(10) and 1 < every.low < 10
    for a in range(11):  # whatever was counted, the limits hold the figure
        for b in range(31):
            if a + b:
                x = lift(a, 10, a + b, 40)
                assert 0 <= x.low <= x.value + 1e-12 <= x.high + 2e-12 <= 4 + 1e-9


@pytest.mark.parametrize(("p", "q", "k", "n"), [(0.4, 0.05, 40, 400), (0.9, 0.1, 20, 300), (0.05, 0.02, 100, 1000)])
def test_the_interval_of_a_lift_covers_it(p: float, q: float, k: int, n: int) -> None:
    rng = np.random.default_rng(1)
    truth, covered = p / ((k * p + (n - k) * q) / n), 0
    for _ in range(1500):
        a, b = int(rng.binomial(k, p)), int(rng.binomial(n - k, q))
        x = lift(a, k, a + b, n) if a + b else None
        covered += x is not None and x.low <= truth <= x.high
    assert 0.93 < covered / 1500 < 0.99


def test_a_random_order_is_the_law_of_its_draws() -> None:
    rng, sought = np.random.default_rng(0), np.arange(40) < 12
    draws = np.array([sought[rng.permutation(40)[:9]].sum() for _ in range(20_000)])
    low, high = random_precision(40, 12, 9)
    assert np.mean((draws / 9 >= low) & (draws / 9 <= high)) > 0.95
    assert np.mean((draws / 9 > low) & (draws / 9 < high)) < 0.95  # no wider than needed
    assert random_p(40, 12, 9, 5) == pytest.approx(np.mean(draws >= 5), abs=0.01)
    assert random_p(40, 12, 9, 0) == 1 and random_precision(40, 12, 40) == (0.3, 0.3)


def test_precision_at_k_beside_another_order() -> None:
    rng = np.random.default_rng(0)
    sought, ks = rng.random(50) < 0.3, np.array([1, 5, 20, 50])
    a = np.round(rng.normal(size=50) + sought, 1)
    order = sorted(range(50), key=lambda i: (-a[i], i))
    assert found_at(sought, a, ks).tolist() == [sum(sought[i] for i in order[:k]) for k in ks]
    times = np.bincount(rng.integers(50, size=50), minlength=50)[order]
    sample = np.repeat(sought[order], times)
    assert _found_in_sample(times, sought[order], ks).tolist() == [sample[:k].sum() for k in ks]
    same = precision_ratios(sought, (a, a), ks, rng, 50)
    assert all(x is None or (x.value, x.low, x.high) == (1, 1, 1) for x in same) and same[3] is not None
    assert precision_ratios(sought, (a, -1.0 * sought), np.array([3]), rng, 9) == [None]


def test_the_interval_of_a_ratio_of_precisions_covers_it() -> None:
    rng = np.random.default_rng(0)

    def rows(n: int) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        sought = rng.random(n) < 0.2
        shared = rng.normal(size=n)
        return sought, (shared + 2 * sought, shared + rng.normal(size=n) + 1.5 * sought)

    sought, (a, b) = rows(400_000)
    k = np.array([len(sought) // 10])
    truth = found_at(sought, a, k)[0] / found_at(sought, b, k)[0]
    intervals = [precision_ratios(*rows(300), np.array([30]), rng, 150)[0] for _ in range(120)]
    assert np.mean([x is not None and x.low <= truth <= x.high for x in intervals]) > 0.88


def scored(seed: int = 0, n: int = 80, **changes: Any) -> ScoredRows:
    rng, labels, p = drawn(seed, n)
    wrong = rng.random(n) < 0.2
    review = rng.random(n) + wrong
    score, off = confident.suspicion(labels, p)
    spurious = np.where(labels == 1, rng.normal(size=n), np.nan)
    scores = {"review": review, "confident learning": score, "label probability": 1 - p[np.arange(n), labels]}
    several = rng.integers(-1, 2, size=n)
    rows = ScoredRows(labels, labels % 2, wrong, several, review > 1.4, off, scores | {"spuriosity": spurious})
    return replace(rows, **changes)


def test_parts_and_classes_are_what_plain_counts_say() -> None:
    rows = scored()
    whole, *splits = label_noise.parts(rows)
    assert [p.name for p in (whole, *splits)] == ["all", "train", "val"] and sum(p.n for p in splits) == whole.n == 80
    assert (whole.errors, whole.flagged) == (rows.wrong.sum(), rows.flagged.sum())
    for order in whole.orders:
        here = ~np.isnan(rows.scores[order.name])
        assert (order.rows, order.errors) == (here.sum(), rows.wrong[here].sum())
        assert order.auroc.value == pytest.approx(roc_auc_score(rows.wrong[here], rows.scores[order.name][here]))
        for d in order.depths:
            first = np.flatnonzero(here)[np.argsort(-rows.scores[order.name][here], kind="stable")[: d.k]]
            assert d.found == rows.wrong[first].sum() and d.precision.value == d.found / d.k
            assert d.lift.value == pytest.approx(d.precision.value / rows.wrong[here].mean())
            assert (d.precision.low, d.precision.high) == wilson(d.found, d.k)
            compared = order.name in ("review", "label probability")
            other = label_noise.found_at(rows.wrong, rows.scores["confident learning"], np.array([d.k]))[0]
            assert d.ratio.value == d.found / other if d.ratio else not (compared and other)
            assert (order.beyond is not None) == compared
    assert {10, 20, whole.flagged, whole.errors, whole.suspected} <= {d.k for d in whole.orders[0].depths}
    measured = label_noise.classes(rows, "abc")
    assert [c.name for c in measured] == ["a", "b", "c"] and sum(c.flagged for c in measured) == whole.flagged
    for c in measured:
        mine = rows.take(np.flatnonzero(rows.labels == c.label))
        assert (c.n, c.errors, c.found) == (len(mine.wrong), mine.wrong.sum(), (mine.wrong & mine.flagged).sum())
        assert c.p is not None and c.holm is not None and c.fdr is not None and c.p <= c.fdr <= c.holm <= 1
        assert c.auroc and c.auroc.value == pytest.approx(roc_auc_score(mine.wrong, mine.scores["review"]))
    group = label_noise.group("x", rows, rows.labels == 2)
    assert group and group.several and group.several.n == ((rows.several >= 0) & (rows.labels == 2)).sum()
    assert group.either.value == np.mean((rows.wrong | (rows.several > 0))[rows.labels == 2])
    assert label_noise.group("none", rows, rows.labels == 7) is None


def test_where_nothing_or_everything_is_wrong_there_is_no_order() -> None:
    for wrong in (np.zeros(80, dtype=bool), np.ones(80, dtype=bool)):
        rows = scored(wrong=wrong)
        assert all(p.orders == () and p.errors in (0, p.n) for p in label_noise.parts(rows))
        assert all(c.auroc is None and c.p is None and c.holm is None for c in label_noise.classes(rows, "abc"))
    unasked = scored()
    unasked.scores["confident learning"][:5] = np.nan  # as of training rows that are too many
    review = label_noise.parts(unasked)[0].order("review")
    assert review and review.beyond is None and all(d.ratio is None for d in review.depths)


# --- tables ------------------------------------------------------------------------------------------------------


def pets(classes: Sequence[str] = ("cat", "dog", "a;b")) -> Manifest:
    ids = [f"{i}.png" for i in range(6)]
    columns = {"id": ids, "label": [classes[i % len(classes)] for i in range(6)], "split": ["train", "val", "test"] * 2}
    return manifests.build("pets", columns, classes=tuple(classes))


def put(folder: Path, text: str | bytes, name: str = "real.csv") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize(
    "text",
    [
        "id,labels\n0.png,cat\n1.png,cat;dog\n2.png,cat ; dog\n3.png,\n4.png,a;b\n",
        "\ufeffid;label;note\r\n0.png;cat;x\r\n1.png;cat\r\n\r\n1.png;dog;\r\n2.png;dog\r\n2.png;cat\r\n3.png;\r\n"
        '4.png;"a;b"\r\n',
        "labels\tid\ncat\t0.png\ndog;cat\t1.png\ncat;dog\t2.png\n\t3.png\na;b\t4.png",
    ],
)
def test_a_table_by_hand(tmp_path: Path, text: str) -> None:
    real = read(put(tmp_path, text), pets())
    assert real.form == "csv" and real.file == "real.csv" and len(real.sha256) == 64
    assert real.listed.tolist() == [True] * 5 + [False] and real.known.tolist() == [True] * 3 + [False, True, False]
    assert real.wrong.tolist() == [False, False, True, False, True, False]
    assert real.number.tolist() == [1, 2, 2, -1, 1, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "real.csv is empty; expected ReaL's real.json"),
        ("\ufeff \n", "is empty"),
        ("id,labels\n", "it has a header and no row; expected a line for every image"),
        ("name,labels\n0.png,cat\n", "first line has the columns 'name', 'labels'; expected id, and labels"),
        ("id,label,labels\n0.png,cat,cat\n", "it has two columns of ids or of labels; keep id"),
        ("id,id,labels\n0.png,0.png,cat\n", "it has two columns of ids"),
        ("id,labels\n9.png,cat\n", r"line 2: '9.png' is no id of pets; did you mean '\d.png'"),
        ("id,labels\nx/1.png,cat\n", "line 2: 'x/1.png' is no id of pets; did you mean '1.png'"),
        ("id,labels\n0.png,cta\n", "line 2: 'cta' is no class; did you mean 'cat'"),
        ("id,label\n0.png,cat;dog\n", "'cat;dog' is no class; .*; several labels go into a column labels"),
        ("id,labels\n0.png,cat;cat\n", "line 2: 'cat' is there twice, expected every label of an image once"),
        ("id,labels\n0.png,cat\n\n0.png,dog\n", "line 4: '0.png' is there already, in line 2, .* every id once"),
        ("id,label\n0.png,cat\n0.png,cat\n", "line 3: '0.png' is there already, in line 2, .* a line for each label"),
        ("id,label\n0.png,\n0.png,cat\n", "line 3: '0.png' is there already"),
        ("id,labels\n0.png\n", "line 2: 1 cells, expected 2 or more; an image whose labels nobody knows"),
        ("id,labels\n0.png,\n", "lists 1 rows of pets and knows the real labels of none"),
        ('id,labels\n0.png,"cat\n', "line 2 cannot be read as a table .*; mend it"),
        (b"id,labels\n0.png,\xff\n", "it is no UTF-8 text .byte 16.; save it as CSV in UTF-8"),
    ],
)  # fmt: skip
def test_a_table_by_hand_that_says_nothing_clear_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(SpuriosityError, match=message):
        read(put(tmp_path, text), pets())


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpuriosityError, match=r"no.csv does not exist; name ReaL's real.json .* or a CSV"):
        read(tmp_path / "no.csv", pets())
    with pytest.raises(SpuriosityError, match="is a folder; name a file"):
        read(tmp_path, pets())


SYNSETS = ("n01440764 tench", "n01443537", "n15075141")  # the first two of ImageNet's classes and its last
NUMBERS = (3, 1, 50_000, 2)


THOUSAND = (*SYNSETS[:2], *(f"n02{i:06d}" for i in range(997)), SYNSETS[2])


def imagenet(classes: Sequence[str] = THOUSAND) -> Manifest:
    """Four validation images, two layouts, and a training image whose name looks like none of them."""
    names = [f"val/{'n01440764/' * (i % 2)}ILSVRC2012_val_{n:08d}.JPEG" for i, n in enumerate(NUMBERS)]
    columns = {"id": [*names, "train/n01440764/n01440764_1.JPEG"], "label": [classes[i] for i in (0, 1, -1, 0, 0)]}
    return manifests.build("imagenet", columns | {"split": ["test"] * 4 + ["train"]}, classes=tuple(classes))


@pytest.fixture
def of_timm(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which timm has its copies of both lists; what it says of them, without all the rest of it."""
    timm = importlib.util.find_spec("timm")
    assert timm and timm.origin
    folder = Path(timm.origin).parent / "data" / "_info"
    names = (folder / "imagenet_synsets.txt").read_text().split()
    info = SimpleNamespace(ImageNetInfo=lambda name: SimpleNamespace(label_names=lambda: names))
    for name in ("timm", "timm.data", "timm.data.imagenet_info"):
        monkeypatch.setitem(sys.modules, name, info)
    return folder


@pytest.mark.parametrize("classes", [THOUSAND, SYNSETS])
def test_real_is_in_the_order_of_the_files_and_of_the_synsets(
    tmp_path: Path, of_timm: Path, classes: tuple[str, ...]
) -> None:
    content: list[list[int]] = [[] for _ in range(50_000)]
    content[2], content[0], content[49_999] = [0, 5], [0], [999]  # of the images 3, 1 and 50,000
    manifest = imagenet(classes)
    real = read(put(tmp_path, json.dumps(content), "real.json"), manifest)
    at = {int(name[-13:-5]): i for i, name in enumerate(manifest.ids) if "_val_" in name}
    of = {n: (bool(real.known[i]), bool(real.wrong[i]), int(real.number[i])) for n, i in at.items()}
    assert of == {3: (True, False, 2), 1: (True, True, 1), 50_000: (True, False, 1), 2: (False, False, -1)}
    assert real.form == "ReaL" and real.listed.sum() == 4 and not real.listed[list(manifest.ids).index(
        "train/n01440764/n01440764_1.JPEG")]  # fmt: skip
    copy = read(of_timm / "imagenet_real_labels.json", manifest)
    assert copy.listed.sum() == 4 and copy.number[at[2]] == 2 and not copy.known[at[1]]  # [970, 795] and []


def vote(i: int = 3, label: Any = 0, guess: Any = 1, **votes: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("given", "guessed", "both", "neither"), 0) | votes
    url = f"https://labelerrors.com/static/imagenet/val/n01440764/ILSVRC2012_val_{i:08d}.JPEG"
    return {"id": i, "url": url, "given_original_label": label, "our_guessed_label": guess, "mturk": counts}


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ({"given": 3, "both": 2}, (True, False, 1)), ({"guessed": 4, "given": 1}, (True, True, 1)),
        ({"both": 3}, (True, False, 2)), ({"neither": 5}, (True, True, -1)),
    ],
)  # fmt: skip
def test_votes_of_label_errors(tmp_path: Path, votes: dict[str, int], expected: tuple[Any, ...]) -> None:
    manifest = imagenet()
    listed = [vote(3, **votes), vote(1, 1, 0, given=2, guessed=2, both=1), vote(77, given=5)]
    real = read(put(tmp_path, json.dumps(listed), "votes.json"), manifest)
    of = {int(n[-13:-5]): i for i, n in enumerate(manifest.ids) if "_val_" in n}
    assert (real.known[of[3]], real.wrong[of[3]], real.number[of[3]]) == expected
    assert real.listed.sum() == 2 and not real.known[of[1]] and real.form == "labelerrors.com"


def test_votes_on_other_data_go_by_the_places_of_the_classes(tmp_path: Path) -> None:
    listed = [vote(label=i % 3, guess=(i + 1) % 3) | {"url": f"x/{i}.png"} for i in range(3)]
    listed = [v | {"mturk": {"given": 0, "guessed": 5, "both": 0, "neither": 0}} for v in listed]
    assert read(put(tmp_path, json.dumps(listed), "votes.json"), pets()).wrong.tolist() == [True] * 3 + [False] * 3


WHOLE: list[list[Any]] = [[0]] * 50_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[0], [1]", r"it is no JSON \(Expecting .*\); expected ReaL's real.json"),
        ({"a": 1}, r'it holds {"a": 1}, expected ReaL'),
        ([], "expected ReaL"),
        ([[0], {"a": 1}], "expected ReaL"),
        (WHOLE[1:], "it has 49,999 entries, expected 50,000, one for each validation image"),
        ([[1000], *WHOLE[1:]], r"entry 1 holds 1000, expected class numbers from 0 to 999"),
        ([*WHOLE[1:], [-1]], "entry 50,000 holds -1, expected class numbers"),
        ([[True], *WHOLE[1:]], "entry 1 holds true, expected"),
        ([[0, 0], *WHOLE[1:]], r"entry 1 holds a class twice \(\[0, 0\]\)"),
        ("[" * 100_000, "it is nested too deeply"),
        ([[float("nan")]], "NaN is among its numbers"),
        ([{"a": 1}], "record 1 has the fields 'a'; expected url, given_original_label"),
        ([vote(label=1000)], "record 1: given_original_label is 1000, expected a class number from 0 to 999"),
        ([vote(guess="1")], 'record 1: our_guessed_label is "1", expected a class number'),
        ([vote(both=-1)], "record 1: mturk has .*, expected numbers of given, guessed, both, neither"),
        (
            [vote(3, given=5), vote(3, given=5)],
            "record 2: 'ILSVRC2012_val_00000003.JPEG' is there already, in record 1",
        ),
        ([vote(77, given=5)], "none of its 1 images is in imagenet"),
        ([vote(3, 7, 5)], "1 of 1 images had another label there than in imagenet: its class numbers mean other"),
    ],
)
def test_json_that_is_no_such_table_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(SpuriosityError, match=message):
        read(put(tmp_path, text, "real.json"), imagenet())


def test_real_is_refused_for_other_images_and_other_classes(tmp_path: Path, of_timm: Path) -> None:
    file = put(tmp_path, json.dumps(WHOLE), "real.json")
    for manifest, message in (
        (pets(), "pets has a class 'cat', expected a synset such as 'n01440764'"),
        (pets(SYNSETS), r"pets has no image with a name like ILSVRC2012_val_00000001.JPEG \(found '0.png'\)"),
        (imagenet(("n01440764", "n01443537", "n99999999")), "'n99999999' is a class of imagenet, and none of ImageNet"),
    ):
        with pytest.raises(SpuriosityError, match=message):
            read(file, manifest)
    twice = SimpleNamespace(
        name="imagenet", classes=SYNSETS, labels=[0, 0], ids=[f"{f}/ILSVRC2012_val_00000001.JPEG" for f in ("a", "b")]
    )
    with pytest.raises(ValueError, match="which are one validation image; keep one of them"):
        public.real(WHOLE, twice)  # pyright: ignore[reportArgumentType]


# --- the whole ---------------------------------------------------------------------------------------------------


def test_folds_are_even_within_classes_and_keep_subjects_together() -> None:
    y = np.repeat([0, 1, 2], (50, 23, 1))
    fold = held_out.folds(y)
    assert np.bincount(fold[y == 0]).tolist() == [10] * 5 and np.ptp(np.bincount(fold[y == 1])) == 1
    subjects = np.arange(74) // 2
    together = held_out.folds(y, subjects)
    assert all(len(set(together[subjects == s])) == 1 for s in range(37)) and len(set(together)) == 5
    assert not np.array_equal(fold, held_out.folds(y, seed=1)) and np.array_equal(fold, held_out.folds(y))


FLIPPED = 0.12


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A part of the planted cards with flipped labels, features of tiny:broad, ranked and measured: run, and truth."""
    folder, rng = tmp_path_factory.mktemp("noisy"), np.random.default_rng(0)
    cards = deck()[::3]
    network = tiny.load("broad").module
    pixels = torch.from_numpy(np.stack([paint(card)[0] for card in cards])).movedim(3, 1)
    with torch.inference_mode():
        X = torch.cat([network.blocks((part / 255 - 0.5) / 0.25) for part in pixels.split(192)]).mean((2, 3)).numpy()
    truth = [c.label for c in cards]
    given = [str(rng.choice([k for k in planted.CLASSES if k != t])) if rng.random() < FLIPPED else t for t in truth]
    columns = {"id": [c.id for c in cards], "label": given, "split": [c.split for c in cards]}
    columns |= {cue: [("without", "with")[c.cue == cue] for c in cards] for cue in planted.CUE_OF.values()}
    manifest = manifests.build("noisy", columns, classes=planted.CLASSES)
    workspace = Workspace(folder / "cache")
    manifests.save(manifest, workspace.dataset("noisy"))
    at = {row: i for i, row in enumerate(columns["id"])}
    cache = write(workspace, manifest, "tiny:broad", X[[at[row] for row in manifest.ids]].astype(np.float32))
    out = folder / "out"
    important_features(manifest, cache, k=5, seeds=1).save(out)

    def run(step: str, *more: str, code: int = 0) -> str:
        words = ["--cache", str(workspace.path), "spuriosity", step, "noisy", "-b", "tiny:broad", "-o", str(out), *more]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    run("annotate", "--from", f"attributes={','.join(planted.CUE_OF.values())}")
    run("rank")
    run("gap")
    with (folder / "truth.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "label"), *zip(columns["id"], truth, strict=True)])
    return SimpleNamespace(run=run, out=out, file=folder / "truth.csv", manifest=manifest, cache=cache,
                           wrong=dict(zip(columns["id"], np.array(given) != np.array(truth), strict=True)))  # fmt: skip


def test_flipped_labels_are_found_better_than_by_chance(noisy: Any) -> None:
    text = noisy.run("review", "--images", "0", "--against", str(noisy.file), "--all-negative")
    check = review_check.load(noisy.out)
    assert check is not None and "Errors among the first k" in text and "wrote" in text and "AUROC" in text
    assert "confident learning and label probability by those of a cross-validated plain head" in text
    wrong = np.array([noisy.wrong[row] for row in noisy.manifest.ids])
    whole, *splits = check.parts
    assert [p.name for p in splits] == list(SPLITS) == list(check.splits)
    assert (whole.n, whole.errors, check.rows, check.unknown) == (len(wrong), wrong.sum(), len(wrong), 0)
    assert check.probabilities == {"train": "cross-validated", "val": "head", "test": "head"}
    for part in check.parts:
        order = part.order("review")
        assert order is not None
        at = order.at(part.errors)
        assert at is not None and at.precision.low > part.base.high > part.base.value  # the must-hold
        assert order.auroc.low > 0.5 and at.lift.low > 1 and at.p < 1e-3
        other = part.order("confident learning")
        assert other is not None and other.auroc.low > 0.5
        assert part.name == "val" or (at.precision.low > at.random[1] and at.p < 1e-6)  # of 134 rows 8 were flipped
    flagged = Findings.load(noisy.out, print).flags
    assert whole.flagged == len(flagged) and sum(c.flagged for c in check.classes) == len(flagged)
    sure = next(g for g in check.groups if g.name == f"flagged: {SURE}")
    mine = [noisy.wrong[f.id] for f in flagged if f.reason == SURE]
    assert (sure.n, sure.wrong.value) == (len(mine), np.mean(mine)) and sure.several and sure.several.value == 0
    page = (noisy.out / "review.html").read_text(encoding="utf-8")
    assert "Does it find wrong labels?" in page and "truth.csv" in page


def test_the_order_is_the_queue_and_then_the_probability_of_the_label(noisy: Any) -> None:
    noisy.run("review", "--images", "0", "--split", "test", "--against", str(noisy.file))
    check, flags = review_check.load(noisy.out), Findings.load(noisy.out, print).flags
    assert check is not None and check.splits == ("test",) and len(check.parts) == 1
    analysis_model = ModelName.parse(check.model)
    assert analysis_model.backbone == "tiny:broad"
    from embedx.spuriosity.analysis import Analysis

    analysis = Analysis(Workspace(noisy.cache.path.parents[1]), "noisy", "tiny:broad", noisy.out)
    p = analysis.model(analysis_model).probabilities(noisy.cache.features())
    m = noisy.manifest
    rows = [i for i in range(len(m)) if m.splits[i] == 2]
    places = {f.id: f.place for f in flags}
    order = sorted(rows, key=lambda i: (places.get(m.ids[i], 10**9), p[i, m.labels[i]], i))
    review = check.parts[0].order("review")
    assert review is not None
    for d in review.depths:
        assert d.found == sum(noisy.wrong[m.ids[i]] for i in order[: d.k])
    ranks = {i: -r for r, i in enumerate(order)}
    area = roc_auc_score([noisy.wrong[m.ids[i]] for i in rows], [ranks[i] for i in rows])
    assert review.auroc.value == pytest.approx(area)


def test_a_check_of_another_review_is_not_shown(noisy: Any) -> None:
    noisy.run("review", "--images", "0", "--against", str(noisy.file))
    assert Findings.load(noisy.out, print).check is not None
    noisy.run("site")
    assert "Does it find wrong labels?" in (noisy.out / "site" / "review.html").read_text(encoding="utf-8")
    noisy.run("review", "--images", "0", "--confident", "0.6")
    notes: list[str] = []
    assert Findings.load(noisy.out, notes.append).check is None
    assert notes == [f"note: {noisy.out / 'review-check.json'} is of another review.csv; `embedx spuriosity review "
                     "--against FILE` checks this one"]  # fmt: skip
    assert "Does it find wrong labels?" not in (noisy.out / "review.html").read_text(encoding="utf-8")


def test_rows_without_real_labels_are_left_out_and_counted(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    m = noisy.manifest
    test = [i for i in range(len(m)) if m.splits[i] == 2]
    lines = [f"{m.ids[i]},{'' if j < 7 else m.classes[m.labels[i]]}" for j, i in enumerate(test[:-11])]
    file = put(noisy.out, "\n".join(["id,labels", *lines]))
    text = noisy.run("review", "--images", "0", "--against", str(file))
    check = review_check.load(noisy.out)
    assert check and (check.splits, check.rows, check.unknown, check.unlisted) == (("test",), len(test) - 18, 7, 11)
    assert "note: 0 of" in text and "so no order can tell them" in text and check.parts[0].orders == ()
    assert "note: 11 rows of test are left out, as real.csv does not list them" in text
    before = (noisy.out / "review.csv").read_bytes()
    text = noisy.run("review", "--split", "train", "--against", str(file), code=1)
    assert "knows the real labels of no row of train of noisy, and of" in text and "review these with --split" in text
    assert (noisy.out / "review.csv").read_bytes() == before
    monkeypatch.setattr(check_review, "affordable", lambda *_: False)
    text = noisy.run("review", "--images", "0", "--against", str(noisy.file))
    check = review_check.load(noisy.out)
    assert check and check.probabilities["train"] == "none" and "train is too large to be cross-validated" in text
    rows = {o.name: o.rows for o in check.parts[0].orders}
    assert rows["review"] == len(m) and rows["confident learning"] == (m.splits > 0).sum()
    (train,) = (p for p in check.parts if p.name == "train")
    assert [o.name for o in train.orders if o.name != "spuriosity"] == ["review"]


def test_cross_validated_probabilities_are_of_heads_that_did_not_see_the_row(noisy: Any) -> None:
    m = noisy.manifest
    model = SimpleNamespace(run=SimpleNamespace(parameters={"C": 0.01}))
    rows, p = held_out.cross_validated(m, noisy.cache, model)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(rows, np.flatnonzero(m.splits == 0)) and p.sum(1) == pytest.approx(1, abs=1e-5)
    from embedx.probes.plain import Plain

    fold, X, y = held_out.folds(m.labels[rows]), noisy.cache.features()[rows], m.labels[rows]
    head = Plain(C=0.01).fit(X[fold != 2], y[fold != 2])
    assert p[fold == 2] == pytest.approx(head.predict_proba(X[fold == 2]), abs=1e-6)
    grouped = replace(m, subjects=Subjects("scan", np.arange(len(m)) // 3, tuple(map(str, range(len(m))))))
    assert held_out.cross_validated(grouped, noisy.cache, model)[1].shape == p.shape  # pyright: ignore[reportArgumentType]
