"""The report: complete, faithful to the records, safe against strangers' names, and the same every time."""

from __future__ import annotations

import ast
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
from embedx.evaluation.metrics import evaluate
from embedx.evaluation.runs import Run, pack
from embedx.evaluation.verdict import Verdict
from embedx.html import script_hash
from embedx.probes import Labels, On, Purpose, Supervision
from embedx.report import Comparison, comparison, drawing, plots, results, tables, verdict_plots
from embedx.statistics import Interval

EVIL = "<script>alert(1)</script>&\"'"
PLOTS = ("backbones.svg", "worst_group.svg", "worst_against_average.svg", "group_heatmap.svg")


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
        selection="average", validation_score=0.9, supervision=(), configurations=13, converged=True, seed=seed,
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


def verdict(word="undecided", backbone="b", plain="plain", rival="dfr", value=0.01) -> Verdict:
    p = {"suffices": (0.01, 0.9), "does not suffice": (0.9, 0.0004), "undecided": (0.2, 0.3)}[word]
    return Verdict(backbone, plain, rival, Interval(value, value - 0.03, value + 0.04, 642), 0.02, *p, word)


def read(runs: list[Run], folder: Path, **more) -> tuple[Page, str]:
    text = report.write(runs, folder, **more).read_text(encoding="utf-8")
    return Page(text), text


def svg_texts(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_every_head_on_every_backbone_is_a_row_with_its_worst_group(tmp_path):
    runs = grid()
    page, _ = read(runs, tmp_path)
    assert len(page.records()) == len(runs)
    for run, row in zip(runs, page.records(), strict=True):
        assert (row["backbone"], row["head"]) == (run.backbone, run.head)
        worst = min((g for g in run.metrics.groups if g.n), key=lambda g: g.correct / g.n)
        value, rest = row["worst group %"].split("\n", 1)
        assert value == f"{100 * worst.correct / worst.n:.1f}"
        assert f"n = {worst.n:,}" in rest
        assert row["which group"] == worst.name


def test_seeds_are_one_row_with_mean_spread_and_the_widest_interval(tmp_path):
    rights = (4, 8, 6)
    runs = [make_run(seed=s, n=[10] * 4, right=[9, 10, r, 9], converged=s != 1) for s, r in enumerate(rights)]
    page, _ = read(runs, tmp_path)
    (row,) = page.records()
    low, high = min(r.metrics.worst_group.low for r in runs), max(r.metrics.worst_group.high for r in runs)
    mean, spread = np.mean(rights) * 10, np.std(rights, ddof=1) * 10
    assert row["worst group %"].split() == [
        f"{mean:.1f}", "±", f"{spread:.1f}", f"{100 * low:.1f}–{100 * high:.1f}n", "=", "10",
    ]  # fmt: skip
    assert (row["seeds"], row["converged"], row["tried"]) == ("3", "2 of 3", "13")


def test_every_accuracy_has_interval_and_n(tmp_path):
    page, _ = read(grid(), tmp_path)
    for row in page.records():
        for column in ("worst group %", "average %", "adj. average %", "worst class %"):
            assert re.fullmatch(r"[\d.]+\s+[\d.]+–[\d.]+n = [\d,]+", row[column]), row[column]


def test_supervision_can_be_filtered_and_unconverged_is_said(tmp_path):
    runs = [make_run(), make_run(head="dfr", supervision=(Supervision(Labels.GROUPS),), converged=False)]
    page, _ = read(runs, tmp_path)
    words = ["none", "group labels on train, to fit"]
    boxes = [v for tag, key, v in page.attributes if (tag, key) == ("input", "value")]
    assert boxes == [*words, "b", *(r.head for r in runs)]
    codes = [[int(c) for c in v.split()] for tag, key, v in page.attributes if (tag, key) == ("tr", "data-in")]
    lists = [words, ["b"], [r.head for r in runs]]
    assert [[names[c] for names, c in zip(lists, row, strict=True)] for row in codes] == [
        [shown, r.backbone, r.head] for shown, r in zip(words, runs, strict=True)
    ]
    assert [row["converged"] for row in page.records()] == ["yes", "no"]
    assert any("1 of 2 runs did not converge" in text for text in page.texts)


def test_hostile_names_stay_text(tmp_path):
    names = [EVIL, "$\\frac{", "鳥/水 🐦", "a\x00b\ud800\n\u202ec"]
    run = make_run(
        EVIL,
        EVIL,
        names=names,
        dataset=EVIL,
        supervision=(Supervision(Labels.OTHER, source=EVIL),),
        parameters={EVIL: EVIL},
        selection=EVIL,
    )
    other = replace(run, head="dfr")
    page, text = read(
        [run, other], tmp_path, verdicts=[verdict("suffices", EVIL, EVIL)], maps={EVIL: '<svg width="9pt"/>'}
    )
    assert "alert(1)</script>" not in text
    assert sum(tag == "script" and not key for tag, key, _ in page.attributes) == 1
    assert page.records()[0]["backbone"] == EVIL
    assert not re.search("[\x00\u202e]", text)
    for name in PLOTS:
        svg = (tmp_path / "plots" / name).read_text(encoding="utf-8")
        assert "<script" not in svg
        assert any("<script>alert(1)</scr" in t for t in svg_texts(svg)), name
    assert "鳥/水 🐦" in "".join(svg_texts(plots.group_heatmap(Comparison.of([run]))))


def test_without_known_sizes_there_is_no_plot_against_them_and_the_page_says_so(tmp_path):
    page, _ = read([make_run("mine")], tmp_path)
    assert "known here of none of these backbones" in "".join(page.texts)
    assert not (tmp_path / "plots" / "against_size.svg").exists()
    page, _ = read([make_run("resnet50"), make_run("siglip-vit-b16", key=1)], tmp_path)
    assert "left out, as not known here: siglip-vit-b16" in "".join(page.texts)
    assert (tmp_path / "plots" / "against_size.svg").exists()


def test_two_writes_are_the_same_bytes_whatever_the_users_style(tmp_path):
    import matplotlib as mpl

    runs = grid(seeds=2)
    report.write(runs, tmp_path / "a")
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        report.write(runs, tmp_path / "b")
        assert mpl.rcParams["font.size"] == 30
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert {str(f) for f in files} == {"report.html", "table.md", "table.tex", *(f"plots/{name}" for name in PLOTS)}
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_the_page_stands_alone(tmp_path):
    runs = [make_run("b", h, dataset="waterbirds") for h in ("plain", "dfr")]
    page, text = read(runs, tmp_path, verdicts=[verdict()])
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
    assert f"script-src 'sha256-{script_hash(script)}'" in text


@pytest.mark.parametrize(
    ("backbones", "heads", "groups", "seeds"),
    [
        (1, 1, 2, 1),
        (1, 1, 50, 1),
        (1, 12, 4, 3),
        pytest.param(12, 1, 3, 1, marks=pytest.mark.slow),
        pytest.param(3, 2, 7, 2, marks=pytest.mark.slow),
    ],
)
def test_sizes(backbones, heads, groups, seeds, tmp_path):
    runs = grid(backbones, heads, seeds, groups=groups)
    page, text = read(runs, tmp_path)
    assert len(page.records()) == backbones * heads
    assert ("the mean over their seeds" in text) == (seeds > 1)
    texts = svg_texts(plots.worst_group(Comparison.of(runs)))
    assert {f"timm:net_{b}" for b in range(backbones)} <= set(texts)
    assert sum(t.startswith("head-") for t in texts) == backbones * heads
    cells = [t for t in svg_texts(plots.group_heatmap(Comparison.of(runs))) if re.fullmatch(r"\d+\.\d", t)]
    assert len(cells) == backbones * heads * groups


def test_a_group_without_test_rows_is_shown_as_such(tmp_path):
    run = make_run(n=[5, 0, 5, 5], right=[5, 0, 3, 4])
    texts = svg_texts(plots.group_heatmap(Comparison.of([run])))
    assert "–" in texts
    assert "n = 0" in texts
    _, text = read([run], tmp_path)
    assert "Without test rows, and in no figure: land/place 1." in text


def test_plots_show_the_mean_over_seeds_and_the_widest_interval():
    runs = [make_run(seed=s, n=[10, 10, 10, 10], right=[9, 10, worst, 9]) for s, worst in enumerate((4, 8))]
    low = 100 * min(r.metrics.worst_group.low for r in runs)
    high = 100 * max(r.metrics.worst_group.high for r in runs)
    (line,) = (t for t in svg_texts(plots.worst_group(Comparison.of(runs))) if "2 seeds" in t)
    assert line.startswith(f"60.0 ({low:.1f}–{high:.1f})")


def test_rules_are_not_mixed_up_with_seeds():
    texts = svg_texts(plots.worst_group(Comparison.of([make_run(), make_run(selection="worst-group")])))
    assert {"plain, average", "plain, worst-group"} <= set(texts)


def test_all_right_and_all_wrong():
    for right in ([10] * 4, [0] * 4):
        for draw in (
            verdict_plots.backbones,
            plots.worst_group,
            plots.worst_against_average,
            plots.group_heatmap,
        ):
            ElementTree.fromstring(draw(Comparison.of([make_run(n=[10] * 4, right=right)])))


@pytest.mark.parametrize(
    ("word", "value", "expected"),
    [
        ("suffices", -0.01, ("plain head suffices", "1.0 points worse than plain", "−4.0 to +3.0", "p = 0.010")),
        ("does not suffice", 0.07, ("does not suffice", "7.0 points better than plain", "+4.0 to +11.0", "p < 0.001")),
        (
            "undecided",
            0.02,
            ("undecided", "2.0 points better", "−1.0 to +6.0", "testing for less: p = 0.200; for more: p = 0.300"),
        ),
    ],
)
def test_a_verdict_is_said_in_words_with_its_figures(word, value, expected, tmp_path):
    runs = [make_run(head=h, key=k, dataset="waterbirds") for k, h in enumerate(("plain", "dfr", "jtt"))]
    page, _ = read(runs, tmp_path, verdicts=[verdict(word, value=value)])
    text = re.sub(r"\s+", " ", "".join(page.texts))
    for phrase in (*expected, "margin of 2.0 points"):
        assert phrase in text
    for run in runs[:2]:
        w = run.metrics.worst_group
        assert f"{100 * w.value:.1f} ({100 * w.low:.1f}–{100 * w.high:.1f}), n = {w.n}" in text
    assert (tmp_path / "plots" / "differences.svg").exists()


def test_a_verdict_on_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="of plain and dfr, and the runs do not hold both"):
        report.write([make_run()], tmp_path, verdicts=[verdict()])
    assert not list(tmp_path.iterdir())


def test_published_figures_stand_beside_with_source_and_mark(tmp_path):
    page, _ = read([make_run(dataset="waterbirds")], tmp_path)
    text = re.sub(r"\s+", " ", "".join(page.texts))
    assert re.search(r"DFR on validation, ResNet-50 \[1\] 92\.9 ± 0\.2 94\.2 ± 0\.4 validation, to fit", text)
    assert re.search(r"DFR on train, ResNet-50 \[1\] 90\.2 ± 0\.8 † ", text)
    assert "Kirichenko et al. 2023" in text
    assert "do not compare them" in text  # these are not the groups of the real test set
    n = (2255, 2255, 642, 642)
    page, _ = read([make_run(dataset="waterbirds", n=n, right=[k // 2 for k in n])], tmp_path)
    assert "do not compare them" not in "".join(page.texts)
    page, _ = read([make_run()], tmp_path)
    assert "Published" not in "".join(page.texts)


def test_the_backbones_plot_shows_the_plain_head_and_its_rival():
    runs = [make_run(b, h, key=k) for b in ("a", "b") for k, h in enumerate(("jtt", "plain", "dfr"))]
    texts = svg_texts(verdict_plots.backbones(Comparison.of(runs, [verdict()])))
    ends = [t.rpartition("  ")[2].partition(",")[0] for t in texts if "n = " in t]
    assert sorted(ends) == ["dfr", "plain", "plain"]  # backbone a has no verdict
    without = svg_texts(verdict_plots.backbones(Comparison.of([r for r in runs if r.head != "plain"])))
    assert sum("jtt" in t for t in without) == 2  # the first head stands in


def test_heads_of_two_rules_are_told_apart_by_a_verdict():
    groups = (Supervision(Labels.GROUPS, On.VALIDATION, Purpose.CHOOSE),)
    runs = [
        make_run(selection="worst-group", supervision=groups),
        make_run(key=1),
        make_run(head="dfr", supervision=groups),
    ]
    (stated,) = Comparison.of(runs, [verdict()]).verdicts
    assert stated.plain.runs == (runs[1],)


def test_shared_images_and_what_tells_the_attribute_are_shown(tmp_path):
    place = {"place": Interval(0.75, 0.7, 0.8, 90)}
    runs = [make_run("a", attributes=place, shared_images={"train/test": 3, "train/val": 0}), make_run("c", key=1)]
    page, _ = read(runs, tmp_path)
    text = "".join(page.texts)
    assert "3 images of train occur in test as well" in text
    assert "occur in val" not in text
    assert [" ".join(r["tells place %"].split()) for r in page.records()] == ["75.0 70.0–80.0n = 90", "–"]


def test_facts_that_all_runs_share_are_told_once_the_others_with_their_head(tmp_path):
    runs = [make_run(head=h, key=k, versions={"scipy": "1.17", "numpy": f"2.{k}"}) for k, h in enumerate("ab")]
    page, _ = read(runs, tmp_path)
    facts = [t.strip() for t in page.texts if t.strip()]
    assert [facts.count(word) for word in ("1.17", "2.0", "2.1")] == [1, 1, 1]


@pytest.mark.slow
def test_many_heads_and_seeds_stay_a_small_page(tmp_path):
    seeds = [[make_run(head="h", seed=s, key=h) for s in range(3)] for h in range(4)]
    runs = [
        replace(seeds[h % 4][s % 3], backbone=f"net-{b}", head=f"head-{h}", seed=s)
        for b in range(6) for h in range(25) for s in range(10)
    ]  # fmt: skip
    page, text = read(runs, tmp_path)
    assert len(page.records()) == 150
    assert len(text) < 3_000_000


def test_thirty_heads_can_be_told_apart_without_colour():
    looks = drawing.looks_of(str(i) for i in range(30)).values()
    assert len({(look["marker"], look["fillstyle"], look["mfc"] == drawing.PAPER) for look in looks}) == 30


def test_tables_for_papers_have_a_line_per_head_and_hold_hostile_names():
    evil = "a|b & c_d % $x$ {y} ~ ^ \\ # <script>"
    runs = [make_run(evil, "h", seed=s) for s in (0, 1)] + [make_run("plain name", evil, key=3)]
    lines = tables.markdown(Comparison.of(runs)).splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[:4]]
    assert {len(row) for row in cells} == {len(tables.HEADINGS)}
    assert "<script>" not in lines[2].replace("\\<", "")
    body = [line for line in tables.latex(Comparison.of(runs)).splitlines() if line.endswith(r"\\")]
    assert len(body) == 3  # the heading and two rows
    for line in body:
        bare = re.sub(r"\\[{}$&#_%]|\\[a-z]+\{\}|\$\\pm\$|\$-\$", "", line.removesuffix(r"\\"))
        assert bare.count("&") == len(tables.HEADINGS) - 1
        assert not re.search(r"[\\{}$#_%^~]", bare), bare


def test_tables_say_the_same_as_the_page(tmp_path):
    runs = grid(seeds=2)
    page, _ = read(runs, tmp_path)
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()[2:]
    for row, line in zip(page.records(), lines, strict=False):
        cells = [c.strip().replace("\\", "") for c in line.split(" | ")]
        mean, spread = re.match(r"([\d.]+) ± ([\d.]+)", row["worst group %"]).groups()
        assert cells[2].startswith(f"{mean} ± {spread} (")
        assert cells[7] == row["supervision"]


def test_no_runs_or_two_datasets_are_refused(tmp_path):
    for runs in ([], [make_run(), make_run(dataset="other")]):
        with pytest.raises(ValueError, match="one dataset"):
            report.write(runs, tmp_path)


@pytest.mark.slow
def test_importing_the_report_loads_no_plotting():
    code = "import sys, embedx.report.plots; sys.exit(bool({'matplotlib', 'jinja2', 'markupsafe'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_runs_are_grouped_once_for_all_that_is_written(tmp_path, monkeypatch):
    calls = []
    real = results.by_backbone
    monkeypatch.setattr(comparison, "by_backbone", lambda runs: calls.append(runs) or real(runs))
    runs = [
        make_run(b, h, key=k, dataset="waterbirds") for b in ("resnet50", "b") for k, h in enumerate(("plain", "dfr"))
    ]
    report.write(runs, tmp_path, verdicts=[verdict()], maps={"b": '<svg width="9pt"/>'})
    assert calls == [runs]
    assert {"differences.svg", "against_size.svg", "map-b.svg", *PLOTS} == {
        p.name for p in (tmp_path / "plots").iterdir()
    }


@pytest.mark.parametrize("path", sorted(Path(report.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_only_the_comparison_groups_runs(path):
    names = {n.id for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Name)}
    assert ("by_backbone" in names) == (path.stem == "comparison")


def test_verdicts_are_by_default_those_of_the_runs(tmp_path):
    n = np.array([300] * 4)
    hits = [np.arange(1200) % 300 < right for right in (100, 280)]
    groups = (Supervision(Labels.GROUPS),)
    runs = [
        make_run(head=head, n=n, right=n * 0 + hit[:300].sum(), correct=pack(hit), supervision=used,
                 validation_worst_group=0.9)
        for head, hit, used in (("plain", hits[0], ()), ("dfr", hits[1], groups))
    ]  # fmt: skip
    (stated,) = Comparison.of(runs).verdicts
    assert stated.verdict.verdict == "does not suffice"
    assert (stated.plain.runs, stated.rival.runs) == ((runs[0],), (runs[1],))
    assert "does not suffice" in report.write(runs, tmp_path).read_text(encoding="utf-8")
    assert not Comparison.of(runs, ()).verdicts


def test_a_map_of_a_backbone_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a map of tiny:broad, and the runs are of b"):
        report.write([make_run()], tmp_path, maps={"tiny:broad": "<svg/>"})
