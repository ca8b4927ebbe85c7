"""The gallery: it stands by itself, every link leads somewhere, whatever names and notes hold, whatever is missing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from click.testing import CliRunner
from galleries import WEIGHTS, analysis, build
from hypothesis import given, settings
from hypothesis import strategies as st

from embedx.cli import main
from embedx.errors import ProvenanceError, SpuriosityError

HOSTILE = ('<script>alert("1")</script>', "\"><img src=x onerror='alert(2)'>", "../../etc/passwd", "a'b&amp;{{ 7*7 }}",
           "C:\\..\\x?y#z%41", "ключ / 钥匙 " + "ß" * 200, "\u202ereversed\x00\x1b[0m")  # fmt: skip
NAMES = ("otter", "shore", "lamp", "wheel")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = analysis(tmp_path_factory.mktemp("whole"), NAMES)
    build(folder, "made", "ranker", print)
    return folder


@dataclass
class Page(HTMLParser):
    """What a browser would make of a page."""

    text: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def plain(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def pages(site: Path) -> dict[str, Page]:
    return {p.relative_to(site).as_posix(): Page(p.read_text(encoding="utf-8")) for p in sorted(site.rglob("*.html"))}


def sound(site: Path) -> None:
    """All links lead to files and places of the site, pictures are there and described, nothing else is asked for."""
    found = pages(site)
    for name, page in found.items():
        ids = re.findall(r'\sid="([^"]*)"', re.sub(r"<svg .*?</svg>", "", page.text, flags=re.S))
        assert len(ids) == len(set(ids)), name
        for attrs in page.all("a"):
            link = urlsplit(attrs["href"])
            assert not link.scheme and not link.netloc, attrs
            to = (site / name).parent / unquote(link.path) if link.path else site / name
            assert to.resolve().is_relative_to(site.resolve()) and to.is_file(), (name, attrs)
            there = found[to.resolve().relative_to(site.resolve()).as_posix()]
            assert not link.fragment or link.fragment in {a.get("id") for _, a in there.tags}, (name, attrs)
        for attrs in page.all("img"):
            file = (site / name).parent / unquote(attrs["src"])
            assert file.resolve().is_relative_to(site.resolve()) and file.is_file() and attrs["alt"].strip(), attrs
        assert not page.all("link") and len(page.all("script")) == 1 and not page.all("script")[0]
        assert not any(key.startswith("on") or key == "srcset" for _, a in page.tags for key in a)
        (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv")]
        assert "default-src 'none'" in policy and "http" not in policy
        assert page.all("html")[0]["lang"] == "en" and len(page.all("h1")) == 1 and page.all("main")
        for attrs in [*page.all("svg"), *page.all("section")]:
            assert attrs.get("role") != "img" or attrs.get("aria-label") or "style" in attrs


def test_everything_is_there_and_leads_somewhere(whole: Path) -> None:
    site = whole / "site"
    sound(site)
    assert set(pages(site)) == {
        "index.html", "overall.html", "review.html", *(f"class/{c:04d}-{n}.html" for c, n in enumerate(NAMES)),
    }  # fmt: skip
    facts = json.loads((site / "site.json").read_text())
    assert facts == {"format": "embedx-site", "version": 1, "dataset": "made", "backbone": "ranker", "classes": 4,
                     "missing": {}}  # fmt: skip
    assert not any("Not here yet" in p.plain for p in pages(site).values())


def test_the_table_has_every_class_with_its_figures(whole: Path) -> None:
    page = pages(whole / "site")["index.html"]
    rows = re.findall(r"<tr role=\"row\" data-name=.*?</tr>", page.text, flags=re.S)
    found = json.loads((whole / "gaps.json").read_text())["models"][0]["classes"]
    assert len(rows) == 4 and len(found) == 3
    for row, c in zip(rows, found, strict=False):
        text = Page(row).plain
        for value in ("value", "low", "high"):
            assert f"{100 * c['gap'][value]:+.1f}".replace("-", "−") in text
        assert f'data-value="{c["gap"]["n"]}"' in row and f'data-value="{c["holm"]}"' in row
        assert "1 of 2" in text and [a["href"].partition("#")[2] for a in Page(row).all("a")] == [
            "", "feature-7", f"feature-{100 + c['label']}", f"feature-{2000 + c['label']}",
        ]  # fmt: skip
        assert row.count("thumb spurious") == 1
    assert "shore" in Page(rows[0]).plain and 'data-value=""' in rows[3]  # taken for; no ranking, no gap
    assert f"otter n{0:08d} 0" in rows[0]  # what is searched


def test_the_table_prefers_the_model_on_the_backbone_that_ranks(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "analysis")
    file = tmp_path / "analysis" / "gaps.json"
    document = json.loads(file.read_text())
    document["models"][1]["backbone"] = "ranker"
    file.write_text(json.dumps(document))
    text = Page(build(tmp_path / "analysis", "made", "ranker", print).read_text()).plain
    assert "accuracy of ranker=plain" in text and "taken for" in text and "shore" not in text.partition("shore")[2]
    for c in document["models"][1]["classes"]:
        assert f"{100 * c['gap']['value']:+.1f}".replace("-", "−") in text


def test_the_page_of_a_class_says_all_that_is_known(whole: Path) -> None:
    found = pages(whole / "site")
    page = found["class/0000-otter.html"]
    for words in (
        "model0=plain", "model1=plain", "Feature 7 spurious", "“a note”", "2 of 3 votes for spurious, rule: majority",
        "20 % of its activation lies outside the object, as does 80 % of the frame, n = 1 images", "water",
        "takes 3 of the 4 most spurious images for shore, and 0 of the 4 least spurious",
        "adds +2.00 to the logit of shore and −0.50 to that of otter", "3 images of this class are in the queue",
        "gap on validation+10.0 (−5.0 to +25.0), n = 25 a side", "→ 9.00",
        "Also of: shore (spurious), lamp (spurious), wheel (spurious)",
    ):  # fmt: skip
        assert words in page.plain, words
    assert "pulls them there by itself" not in page.plain
    order = re.findall(r'<section class="feature[^"]*" id="feature-(\d+)"', page.text)
    assert order == ["7", "100", "2000"]
    assert "The most spurious images of another class are taken for shore" in found["class/0001-shore.html"].plain
    links = [a["href"] for a in page.all("a")]
    assert {"0001-shore.html#feature-7", "0002-lamp.html#feature-7", "0003-wheel.html#feature-7"} <= set(links)
    assert [a["href"] for a in page.all("a") if a.get("rel")] == ["0001-shore.html"]
    last = found["class/0003-wheel.html"]
    assert "Accuracy at the two ends" not in last.plain and "embedx spuriosity panels draws them" in last.plain


def test_the_overall_page_has_tuning_and_curves_with_axes_and_n(whole: Path) -> None:
    page = pages(whole / "site")["overall.html"]
    drawn = re.findall(r"<svg .*?</svg>", page.text, flags=re.S)
    titles = ["mean gap (points)", "accuracy (%)", "average on test (%), n = 80", "accuracy (%)"]
    assert len([d for d in drawn if "<text" in d]) == len(titles)
    for svg, title in zip([d for d in drawn if "<text" in d], titles, strict=True):
        assert title in Page(svg).plain and re.search(r"n = \d", Page(svg).plain)
    for words in ("untouched", "lowest", "+40.0 (+30.0 to +50.0)", "n = 80; +10.0 (−5.0 to +25.0)", "dfr", "paper",
                  "mean correlation of", "gap by a second ranking, points",
                  "so the head was left as it was"):  # fmt: skip
        assert words in page.plain, words


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    note = "\n".join(HOSTILE).replace("\x00", "")
    folder = analysis(tmp_path / "in" / "here", HOSTILE, note)
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    build(folder, "made", "ranker", print)
    site = folder / "site"
    after = {p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".site.lock"}
    assert all(p.is_relative_to(site) for p in after - before)
    sound(site)
    text = pages(site)["class/0000-script-alert-1-script.html"]
    for name in HOSTILE[:5]:
        assert any(name in page.plain for page in pages(site).values()), name
    assert '<script>alert("1")</script>' in text.plain and not text.all("script")[0]
    assert not any("\u202e" in p.text or "\x1b" in p.text for p in pages(site).values())
    assert all(len(p.name.encode()) < 150 for p in site.rglob("*.html"))


PARTS = ("panels.json", "annotations.jsonl", "gaps.json", "tuning.json", "review.csv")
STEPS = dict(zip(PARTS, ("panels", "annotate", "gap", "tune", "review"), strict=True))


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.sets(st.sampled_from(PARTS), min_size=1))
def test_what_is_missing_is_named_and_the_rest_is_there(
    tmp_path_factory: pytest.TempPathFactory, whole: Path, gone: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("part") / "analysis"
    shutil.copytree(whole, folder)
    for name in gone:
        (folder / name).unlink()
    build(folder, "made", "ranker", print)
    sound(folder / "site")
    found = pages(folder / "site")
    assert ("review.html" in found) == ("review.csv" not in gone)
    for name in PARTS:
        assert (f"{name}: made by embedx spuriosity {STEPS[name]}" in found["index.html"].plain) == (name in gone)
    there = {"panels.json": "Most activating", "annotations.jsonl": "2 of 3 votes", "gaps.json": "Accuracy at the two",
             "review.csv": "To review"}  # fmt: skip
    for name, words in there.items():
        assert (words in found["class/0000-otter.html"].plain) == (name not in gone)
    assert ("Tuned: model0=plain" in found["overall.html"].plain) == ("tuning.json" not in gone)


def test_the_discovery_has_to_be_there_and_of_the_backbone(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(SpuriosityError, match="make it with `embedx spuriosity discover`"):
        build(tmp_path, "made", "ranker", print)
    for dataset, backbone in (("made", "other"), ("other", "ranker")):
        with pytest.raises(SpuriosityError, match=f"on made with ranker, asked for was {dataset} with {backbone}"):
            build(whole, dataset, backbone, print)


def test_it_can_be_moved_without_the_analysis(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "analysis")
    build(tmp_path / "analysis", "made", "ranker", print)
    expected = {p.name: p.read_bytes() for p in (tmp_path / "analysis" / "review").iterdir()}
    shutil.move(tmp_path / "analysis" / "site", tmp_path / "alone")
    shutil.rmtree(tmp_path / "analysis")
    sound(tmp_path / "alone")
    assert {p.name: p.read_bytes() for p in (tmp_path / "alone" / "images" / "review").iterdir()} == expected


def test_pictures_are_copied_where_there_are_no_links(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refused)
    shutil.copytree(whole, tmp_path / "analysis")
    build(tmp_path / "analysis", "made", "ranker", print)
    sound(tmp_path / "analysis" / "site")


def test_made_again_it_is_whole_or_as_it_was(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "analysis"
    shutil.copytree(whole, folder)
    (folder / "site" / "class" / "9999-gone.html").write_text("old")
    build(folder, "made", "ranker", print)
    assert not (folder / "site" / "class" / "9999-gone.html").exists()
    before = {p: p.read_bytes() for p in (folder / "site").rglob("*") if p.is_file()}
    next((folder / "panels").rglob("most-0.jpg")).unlink()
    with pytest.raises(SpuriosityError, match="most-0.jpg is gone; draw it again with `embedx spuriosity panels`"):
        build(folder, "made", "ranker", print)
    assert {p: p.read_bytes() for p in (folder / "site").rglob("*") if p.is_file()} == before
    assert not list(folder.glob(".site*.part"))


def test_a_folder_of_something_else_is_left_alone(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "analysis"
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("site"))
    (folder / "site").mkdir()
    (folder / "site" / "mine.txt").write_text("mine")
    with pytest.raises(SpuriosityError, match="holds other files than a gallery; move them away"):
        build(folder, "made", "ranker", print)
    assert (folder / "site" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("file", "old", "new", "error", "message"),
    [
        ("panels.json", WEIGHTS, "f" * 64, ProvenanceError, "was drawn with weights ffffffffffff, the features"),
        ("panels.json", "panels/0000/0007/most-0.jpg", "../secret.jpg", SpuriosityError, "is no picture below"),
        ("panels.json", "panels/0000/0007/most-0.jpg", "/etc/passwd", SpuriosityError, "is no picture below"),
        ("panels.json", '"otter"', '"beaver"', SpuriosityError, "panels.json calls class 0 'beaver'.* 'otter'"),
        ("annotations.jsonl", WEIGHTS, "f" * 64, ProvenanceError, "was annotated in ranker with weights ffff"),
        ("annotations.jsonl", '"otter"', '"beaver"', SpuriosityError, "annotations.jsonl calls class 0 'beaver'"),
        ("gaps.json", '"otter"', '"beaver"', SpuriosityError, "gaps.json calls class 0 'beaver'.*gap` again"),
        ("gaps.json", '"dataset": "made"', '"dataset": "x"', SpuriosityError, "is of x, expected made"),
        ("gaps.json", '"collisions"', '"other"', SpuriosityError, r"\$ has no field 'collisions', expected one; make"),
        ("tuning.json", '"embedx-tuning"', '"x"', SpuriosityError, r'\$.format is "x", expected "embedx-tuning"'),
        (
            "tuning.json",
            '"positions"',
            '"places"',
            SpuriosityError,
            r"\$.models.0..results.0..detail has no field 'positions'",
        ),
        ("tuning.json", '"dataset": "made"', '"dataset": "x"', SpuriosityError, "tuning.json is of x, expected made"),
        ("review.csv", "review/00001.jpg", "review/../../x.jpg", SpuriosityError, "is no picture below"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    whole: Path, tmp_path: Path, file: str, old: str, new: str, error: type[Exception], message: str
) -> None:
    folder = tmp_path / "analysis"
    shutil.copytree(whole, folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    with pytest.raises(error, match=message):
        build(folder, "made", "ranker", print)


@pytest.mark.slow
def test_many_classes_stay_small_and_quick(tmp_path: Path) -> None:
    folder = analysis(tmp_path, [f"class number {i}" for i in range(200)], drawn=False)
    told: list[tuple[int, int, str]] = []
    index = build(folder, "made", "ranker", print, lambda *a: told.append(a))
    assert index.stat().st_size / 200 < 4_000  # bytes a class: 4 MB for a thousand
    assert told[0][:2] == (0, 200) and told[-1][:2] == (200, 200)
    assert all(a.get("loading") == "lazy" for a in Page(index.read_text()).all("img"))


def test_the_command(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "analysis")
    words = ["spuriosity", "site", "made", "-b", "ranker", "-o", str(tmp_path / "analysis")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0 and f"wrote {tmp_path / 'analysis' / 'site' / 'index.html'}" in result.output
    result = CliRunner().invoke(main, [*words[:-1], str(tmp_path / "nothing")])
    assert result.exit_code == 1 and "make it with `embedx spuriosity discover`" in result.output


CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_in_a_browser_search_and_sorting_work_and_no_foreign_script_does(tmp_path: Path) -> None:
    folder = analysis(tmp_path / "a", [*HOSTILE[:2], "Zürich lamp", "shore"], HOSTILE[0])
    index = build(folder, "made", "ranker", print)
    html = index.read_text(encoding="utf-8")

    def seen(text: str) -> Page:
        (index.parent / "try.html").write_text(text, encoding="utf-8")
        words = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'b'}",
                 "--dump-dom", (index.parent / "try.html").as_uri()]  # fmt: skip
        done = subprocess.run(words, capture_output=True, check=False, timeout=120, encoding="utf-8")
        return Page(done.stdout)

    def rows(page: Page) -> list[dict[str, Any]]:
        return [a for a in page.all("tr") if "data-name" in a]

    if "any page" not in seen("<p>any page</p>").plain:  # one in a container of its own, or without one
        pytest.skip(f"{CHROMIUM} shows no page of ours here")
    page = seen(html)
    assert "4 of 4 shown" in page.plain and "hidden" not in dict(page.tags[[t for t, _ in page.tags].index("input")][1])
    page = seen(html.replace('<input id="query"', '<input value="ZURICH la" id="query"'))
    assert "1 of 4 shown" in page.plain
    assert [("hidden" in a) for a in rows(page)] == [True, True, False, True]
    page = seen(html.replace("</body>", "<script>document.title = 'taken over'</script></body>"))
    assert "taken over" not in page.text.partition("<body")[0]
    open_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    click = (
        "<script>const b = document.querySelectorAll('th button')[{}]; for (let i = 0; i < {}; i++) b.click();</script>"
    )
    for column, key in ((2, lambda r: r["gap"]["value"]), (3, lambda r: r["gap"]["n"])):
        found = json.loads((folder / "gaps.json").read_text())["models"][0]["classes"]
        for clicks, sign in ((1, -1), (2, 1)):
            page = seen(open_policy.replace("</body>", click.format(column, clicks) + "</body>"))
            order = [int(a["data-name"].split()[-1]) for a in rows(page)]
            assert order[-1] == 3  # without a gap: last either way
            assert order[:-1] == [c["label"] for c in sorted(found, key=lambda c: sign * key(c))]
