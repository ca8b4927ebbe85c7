"""The report: complete, faithful to the records, safe against strangers' names, and the same every time."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from embedx import report
from embedx.metrics import evaluate
from embedx.report import plots
from embedx.runs import Run

EVIL = "<script>alert(1)</script>&\"'"
PLOTS = ("worst_group.svg", "worst_against_average.svg", "group_heatmap.svg")


def make_run(backbone="b", head="plain", *, seed=0, groups=4, names=None, n=None, right=None, key=0, **changes) -> Run:
    """A run with `right` of `n` correct answers in every group, random where not given."""
    rng = np.random.default_rng([key, seed])
    n = rng.integers(20, 200, groups) if n is None else np.asarray(n)
    right = rng.binomial(n, rng.uniform(0.4, 1, groups)) if right is None else np.asarray(right)
    label = (np.arange(groups) >= groups // 2).astype(int)
    codes = np.repeat(np.arange(groups), n)
    hit = np.concatenate([np.arange(total) < k for total, k in zip(n, right, strict=True)])
    p = np.where(hit == (label[codes] == 1), 0.8, 0.3)
    metrics = evaluate(
        label[codes], np.column_stack([1 - p, p]), codes, classes=("land", "water"), group_labels=label, seed=seed,
        group_names=tuple(names or (f"{'land' if c == 0 else 'water'}/place {i}" for i, c in enumerate(label))),
        train_shares=np.full(groups, 1 / groups),
    )  # fmt: skip
    run = Run(
        dataset="birds", backbone=backbone, dim=8, head=head, parameters={"C": 0.1, "solver": None},
        selection="average", validation_score=0.9, supervision="none", configurations=13, converged=True, seed=seed,
        rows={"train": 100, "val": 50, "test": int(n.sum())}, left_out={"train": 0, "val": 0, "test": 0},
        inputs={"manifest": "ab" * 32}, versions={"embedx": "0"}, timings={"fit": 0.1}, metrics=metrics,
    )  # fmt: skip
    return replace(run, **changes)


def grid(backbones=2, heads=3, seeds=1, **options) -> list[Run]:
    cells = [(b, h, s) for b in range(backbones) for h in range(heads) for s in range(seeds)]
    return [make_run(f"timm:net_{b}", f"head-{h}", seed=s, key=100 * b + h, **options) for b, h, s in cells]


class Page(HTMLParser):
    """The table of runs as text, the tags and the attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, key, value or "") for key, value in [*attrs, ("", "")]]
        if tag == "table":
            self.inside = ("id", "runs") in attrs
        if self.inside and tag == "tr":
            self.rows.append([])
        if self.inside and tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside &= tag != "table"

    def handle_data(self, data):
        self.texts.append(data)
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data

    def records(self) -> list[dict[str, str]]:
        rows = [[cell.strip() for cell in row] for row in self.rows]
        return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def read(runs: list[Run], folder: Path) -> tuple[Page, str]:
    text = report.write(runs, folder).read_text(encoding="utf-8")
    return Page(text), text


def svg_texts(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_every_run_is_a_row_with_its_worst_group(tmp_path):
    runs = grid(seeds=2)
    page, _ = read(runs, tmp_path)
    assert len(page.records()) == len(runs)
    for run, row in zip(runs, page.records(), strict=True):
        assert (row["backbone"], row["head"], row["seed"]) == (run.backbone, run.head, str(run.seed))
        worst = min((g for g in run.metrics.groups if g.n), key=lambda g: g.correct / g.n)
        value, rest = row["worst group %"].split("\n", 1)
        assert value == f"{100 * worst.correct / worst.n:.1f}"
        assert f"n = {worst.n:,}" in rest
        assert row["which group"] == worst.name


def test_every_accuracy_has_interval_and_n(tmp_path):
    page, _ = read(grid(), tmp_path)
    for row in page.records():
        for column in ("worst group %", "average %", "adj. average %", "worst class %"):
            assert re.fullmatch(r"[\d.]+\s+[\d.]+–[\d.]+n = [\d,]+", row[column]), row[column]


def test_supervision_can_be_filtered_and_unconverged_is_said(tmp_path):
    runs = [make_run(), make_run(head="dfr", supervision="group labels on train, to fit", converged=False)]
    page, _ = read(runs, tmp_path)
    assert {v for tag, key, v in page.attributes if (tag, key) == ("option", "value")} == {r.supervision for r in runs}
    assert [row["converged"] for row in page.records()] == ["yes", "no"]
    assert any("1 of 2 runs did not converge" in text for text in page.texts)


def test_hostile_names_stay_text(tmp_path):
    names = [EVIL, "$\\frac{", "鳥/水 🐦", "a\x00b\ud800\n\u202ec"]
    run = make_run(EVIL, EVIL, names=names, dataset=EVIL, supervision=EVIL, parameters={EVIL: EVIL}, selection=EVIL)
    page, text = read([run], tmp_path)
    assert "alert(1)</script>" not in text
    assert sum(tag == "script" and not key for tag, key, _ in page.attributes) == 1
    assert page.records()[0]["backbone"] == EVIL
    assert not re.search("[\x00\u202e]", text)
    for name in PLOTS:
        svg = (tmp_path / "plots" / name).read_text(encoding="utf-8")
        assert "<script" not in svg
        assert any("<script>alert(1)</scr" in t for t in svg_texts(svg)), name
    assert "鳥/水 🐦" in "".join(svg_texts(plots.group_heatmap([run])))


def test_two_writes_are_the_same_bytes_whatever_the_users_style(tmp_path):
    import matplotlib as mpl

    runs = grid(seeds=2)
    report.write(runs, tmp_path / "a")
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        report.write(runs, tmp_path / "b")
        assert mpl.rcParams["font.size"] == 30
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert [str(f) for f in files] == sorted(["report.html", *(f"plots/{name}" for name in PLOTS)])
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_the_page_stands_alone(tmp_path):
    page, text = read(grid(), tmp_path)
    for tag, key, value in page.attributes:
        assert key not in ("src", "srcset", "action", "data"), tag
        assert not key.startswith("on"), tag
        if key in ("href", "xlink:href"):
            assert value.startswith("#"), value
    assert not re.search(r"url\((?!#)|@import", text)
    assert set(re.findall(r"https?://[\w./-]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    (policy,) = (v for _, key, v in page.attributes if key == "content" and "default-src" in v)
    assert "default-src 'none'" in policy


def test_the_policy_names_our_script(tmp_path):
    _, text = read(grid(1, 1), tmp_path)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert f"script-src 'sha256-{report._sha256(script)}'" in text


@pytest.mark.parametrize(
    ("backbones", "heads", "groups", "seeds"),
    [(1, 1, 2, 1), (1, 1, 50, 1), (1, 20, 4, 3), (20, 1, 3, 1), (4, 2, 7, 2)],
)
def test_sizes(backbones, heads, groups, seeds, tmp_path):
    runs = grid(backbones, heads, seeds, groups=groups)
    page, text = read(runs, tmp_path)
    assert len(page.records()) == len(runs)
    assert ("the mean over their seeds" in text) == (seeds > 1)
    texts = svg_texts(plots.worst_group(runs))
    assert {f"timm:net_{b}" for b in range(backbones)} <= set(texts)
    assert sum(t.startswith("head-") for t in texts) == backbones * heads
    cells = [t for t in svg_texts(plots.group_heatmap(runs)) if re.fullmatch(r"\d+\.\d", t)]
    assert len(cells) == backbones * heads * groups


def test_a_group_without_test_rows_is_shown_as_such(tmp_path):
    run = make_run(n=[5, 0, 5, 5], right=[5, 0, 3, 4])
    texts = svg_texts(plots.group_heatmap([run]))
    assert "–" in texts
    assert "n = 0" in texts
    _, text = read([run], tmp_path)
    assert "Without test rows, and in no figure: land/place 1." in text


def test_plots_show_the_mean_over_seeds_and_the_widest_interval():
    runs = [make_run(seed=s, n=[10, 10, 10, 10], right=[9, 10, worst, 9]) for s, worst in enumerate((4, 8))]
    low = 100 * min(r.metrics.worst_group.low for r in runs)
    high = 100 * max(r.metrics.worst_group.high for r in runs)
    (line,) = (t for t in svg_texts(plots.worst_group(runs)) if "2 seeds" in t)
    assert line.startswith(f"60.0 ({low:.1f}–{high:.1f})")


def test_rules_are_not_mixed_up_with_seeds():
    texts = svg_texts(plots.worst_group([make_run(), make_run(selection="worst-group")]))
    assert {"plain, average", "plain, worst-group"} <= set(texts)


def test_all_right_and_all_wrong():
    for right in ([10] * 4, [0] * 4):
        for draw in (plots.worst_group, plots.worst_against_average, plots.group_heatmap):
            ElementTree.fromstring(draw([make_run(n=[10] * 4, right=right)]))


def test_no_runs_or_two_datasets_are_refused(tmp_path):
    for runs in ([], [make_run(), make_run(dataset="other")]):
        with pytest.raises(ValueError, match="one dataset"):
            report.write(runs, tmp_path)


def test_importing_the_report_loads_no_plotting():
    code = "import sys, embedx.report.plots; sys.exit(bool({'matplotlib', 'jinja2', 'markupsafe'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
