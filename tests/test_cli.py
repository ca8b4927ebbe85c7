"""The command line as a user meets it: what it prints, where, and how it exits."""

import io
import json
import re
import shlex
import subprocess
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from embedx.cli import main
from embedx.evaluation import runs

COMMANDS = main.list_commands(click.Context(main))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with `birds.csv`, 36 images of two labels and two places, and its absolute place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "img").mkdir()
    rng = np.random.default_rng(0)
    lines = ["file,species,fold,place"]
    for i in range(36):
        label, place, split = i % 2, i // 2 % 2, ("train", "val", "test")[i // 4 % 3]
        pixels = rng.integers(0, 100, (8, 8, 3)) + 60 * np.array([label, place, 0]) + 20 * label
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "img" / f"{i:02d}.png")
        lines.append(f"img/{i:02d}.png,{('gull', 'wren')[label]},{split},{('sea', 'wood')[place]}")
    (tmp_path / "birds.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def embedx(*words, code=0):
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == code, (result.output, result.exception)
    return result


def extract(*more, code=0):
    options = ["-O", "path=file", "-O", "label=species", "-O", "split=fold", "-O", "attributes=place"]
    return embedx("extract", "csv", "-r", "birds.csv", *options, "--workers", "0", *more, code=code)


def test_extract_probe_compare_show_list(folder):
    first = extract("-b", "raw:4x4", "-b", "raw:8x8")
    assert "36 of 36 rows extracted" in first.stdout
    assert "images/s" in first.stderr
    again = embedx("extract", "birds", "-b", "raw:4x4")
    assert again.stdout.strip() == "cache/birds/raw-4x4.h5: complete already, nothing extracted"
    probe = embedx("probe", "birds", "-b", "raw:4x4", "--head", "reweighted", "-o", "out")
    assert "gull/sea" in probe.stdout and "wren/wood" in probe.stdout
    assert [r.head for r in runs.load(folder / "out" / "runs.json")] == ["reweighted"]
    heads = ("plain", "class-balanced", "reweighted", "group-balanced")
    embedx("compare", "birds", "--seeds", "2", *(word for head in heads for word in ("--head", head)))
    found = runs.load(folder / "results" / "birds" / "runs.json")
    assert {(r.backbone, r.head, r.seed) for r in found} == {
        (b, h, s)
        for b in ("raw:4x4", "raw:8x8")
        for h, seeds in {"plain": 1, "class-balanced": 1, "reweighted": 1, "group-balanced": 2}.items()
        for s in range(seeds)
    }
    names = {p.name for p in (folder / "results" / "birds").iterdir()}
    assert names >= {"runs.json", "runs.csv", "report.html", "plots"}
    shown = embedx("show", "cache/birds/raw-4x4.h5").stdout
    assert "raw:4x4" in shown and "checksums   all fit" in shown
    assert "prepared in cache: birds" in embedx("list", "datasets").stdout
    assert "group-balanced" in embedx("list", "heads").stdout
    assert embedx("list", "backbones", "tiny:*").stdout.split() == ["tiny:untrained", "tiny:narrow", "tiny:broad"]


def test_the_table_agrees_with_the_records(folder):
    extract("-b", "raw:4x4")
    table = embedx("compare", "birds").stdout
    for run in runs.load(folder / "results" / "birds" / "runs.json"):
        worst = min(g.accuracy for g in run.metrics.groups)
        assert run.metrics.worst_group.value == worst
        line = next(line for line in table.splitlines() if run.head in line.split()[:3] and "classifier" not in line)
        assert f"{100 * worst:.1f} (" in line


def test_failed_rows_are_listed_and_left_out(folder):
    (folder / "img" / "07.png").write_text("no image")
    refused = extract("-b", "raw:4x4", code=1)
    assert "1 of 36 rows failed, more than --max-bad 0.01 allows (img/07.png: not an image" in refused.stderr
    allowed = extract("-b", "raw:4x4", "--max-bad", "0.1")
    assert "img/07.png: not an image of a known format" in allowed.stderr
    assert "img/07.png: unreadable" in embedx("show", "cache/birds/raw-4x4.h5").stdout
    assert "1 rows were left out" in embedx("probe", "birds", "-b", "raw:4x4").stderr
    embedx("compare", "birds")
    (run, *_) = runs.load(folder / "results" / "birds" / "runs.json")
    assert sum(run.left_out.values()) == 1
    assert sum(run.rows.values()) == 35


def test_a_label_edited_by_hand_needs_no_extraction(folder):
    extract("-b", "raw:4x4")
    csv = folder / "cache" / "birds" / "manifest.csv"
    csv.write_text(csv.read_text().replace("img/00.png,gull", "img/00.png,wren"))
    edited = embedx("probe", "birds", "-b", "raw:4x4")
    assert "manifest.csv was edited" in edited.stderr
    csv.write_text(csv.read_text().replace("img/00.png,wren", "img/00.png,wern"))
    wrong = embedx("probe", "birds", "-b", "raw:4x4", code=1)
    assert "row 'img/00.png' has label 'wern'; did you mean 'wren'?" in wrong.stderr


def test_a_damaged_cache_is_refused(folder):
    extract("-b", "raw:8x8")
    file = folder / "cache" / "birds" / "raw-8x8.h5"
    data = bytearray(file.read_bytes())
    at = bytes(data).index(embedx_features(file))
    data[at] ^= 1
    file.write_bytes(data)
    for words in (["probe", "birds", "-b", "raw:8x8"], ["compare", "birds"], ["show", str(file)]):
        assert "damaged" in embedx(*words, code=1).stderr


def embedx_features(file):
    from embedx.store import FeatureCache

    return FeatureCache.open(file).features()[0].tobytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["probe", "brids", "-b", "raw:4x4"], "unknown dataset 'brids': did you mean 'birds'"),
        (["probe", "birds", "-b", "raw:9x9"], "birds has no features of 'raw:9x9': did you mean 'raw-4x4'"),
        (["probe", "birds", "-b", "raw:4x4", "--head", "plan"], "unknown head 'plan': did you mean 'plain'"),
        (["probe", "birds", "-b", "raw:4x4", "--select-by", "worst"], "unknown selection rule 'worst': did you mean"),
        (["probe", "demo", "-b", "raw:4x4"], "dataset 'demo' is not prepared in cache: run `embedx extract demo`"),
        (["extract", "birds", "-b", "row:4x4"], "'row:4x4': did you mean 'raw'"),
        (["extract", "birds", "-b", "tiny:broad", "--weights", "no.pt"], "no weights file no.pt; give --weights"),
        (["extract", "birds", "-b", "raw:4x4", "--device", "tpu9"], "no device 'tpu9'; use cpu, cuda or cuda:N"),
        (["extract", "birds", "-b", "raw:4x4", "--precision", "float16", "--device", "cpu"], "float16 needs a CUDA"),
        (["extract", "csv", "-b", "raw:4x4"], "needs its files: say where they lie with --root"),
        (["extract", "folder", "-r", "nowhere", "-b", "raw:4x4"], "--root nowhere does not exist"),
        (["extract", "csv", "-r", "birds.csv", "-b", "raw:4x4"], "has no column 'path': "),
        (
            ["extract", "csv", "-r", "birds.csv", "-O", "pth=file", "-b", "raw:4x4"],
            "no option 'pth': did you mean 'path'",
        ),
        (["show", "birds.csv"], "no readable HDF5 file"),
    ],
)
def test_mistakes_are_one_readable_line(folder, words, message):
    extract("-b", "raw:4x4")
    result = embedx(*words, code=1)
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert isinstance(result.exception, SystemExit), "a traceback reached the user"


def test_files_that_cannot_be_written_are_one_line_too(folder):
    extract("-b", "raw:4x4")
    (folder / "file").touch()
    for words in (["--cache", "file/c", "extract", "demo", "-b", "raw:4x4"], ["compare", "birds", "-o", "file/o"]):
        assert "Not a directory" in embedx(*words, code=1).stderr


def test_a_cache_under_another_name_is_refused(folder):
    extract("-b", "raw:4x4", "-b", "raw:2x2")
    (folder / "cache" / "birds" / "raw-4x4.h5").rename(folder / "cache" / "birds" / "raw-2x2.h5")
    for words in (["probe", "birds", "-b", "raw:2x2"], ["compare", "birds"]):
        assert "holds features of 'raw:4x4', not of 'raw" in embedx(*words, code=1).stderr


def test_a_copied_dataset_is_one_of_its_own(folder):
    extract("-b", "raw:4x4")
    (folder / "cache" / "birds").rename(folder / "cache" / "copy")
    assert "copy  raw:4x4" in embedx("probe", "copy", "-b", "raw:4x4").stdout
    embedx("compare", "copy")
    assert (folder / "results" / "copy" / "report.html").exists()


def test_naming_a_backbone_or_head_twice_runs_it_once(folder):
    extract("-b", "raw:4x4")
    embedx("compare", "birds", "-b", "raw:4x4", "-b", "raw-4x4", "--head", "plain", "--head", "plain")
    assert len(runs.load(folder / "results" / "birds" / "runs.json")) == 1


def test_odd_tables(folder):
    text = (folder / "birds.csv").read_text()
    (folder / "birds.csv").write_text("\ufeff" + text.replace("\n", "\r\n"))
    extract("-b", "raw:4x4")
    (folder / "birds.csv").write_text(text.replace("file,species", "file,place", 1))
    (folder / "semicolons.csv").write_text(text.replace(",", ";"))
    assert (
        "one column only (file;species"
        in embedx("extract", "csv", "-r", "semicolons.csv", "-b", "raw:4x4", code=1).stderr
    )
    assert "has two columns 'place'; rename one of them" in extract("-b", "raw:4x4", code=1).stderr


@pytest.mark.parametrize(("width", "narrow"), [(100, True), (220, False)])
def test_a_narrow_terminal_gets_fewer_columns(folder, monkeypatch, width, narrow):
    from rich.console import Console

    from embedx.cli import _output

    extract("-b", "raw:4x4")
    embedx("compare", "birds")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, highlight=False, markup=False, emoji=False)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    _output.show_runs("t", runs.load(folder / "results" / "birds" / "runs.json"))
    text = re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())
    assert max(map(len, text.splitlines())) <= width
    assert ("too narrow here for: tried" in text) == narrow
    assert "worst group %" in text and "group labels used" in text


def test_debug_shows_the_traceback(folder):
    result = CliRunner().invoke(main, ["--debug", "probe", "nothing", "-b", "x"])
    assert "unknown dataset" in str(result.exception) and not isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    "words",
    [
        ["extract", "birds"],
        ["extract", "birds", "-b", "tiny:broad", "-b", "raw:4x4", "--weights", "x"],
        ["extract", "birds", "-b", "a=tiny:broad", "-b", "a=raw:4x4"],
        ["extract", "birds", "-b", "raw:4x4", "-O", "nonsense"],
        ["list", "backbones", "tiny:x*"],
        ["list", "heads", "x*"],
        ["nonsense"],
    ],
)
def test_usage_errors_exit_with_2(folder, words):
    extract("-b", "raw:4x4")
    embedx(*words, code=2)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    text = embedx(name, "--help").stdout
    assert "Example:" in text and f"embedx {name}" in text


def test_a_head_that_needs_groups_without_any(folder):
    for split in ("train", "val", "test"):
        for label in ("a", "b"):
            (folder / "plain" / split / label).mkdir(parents=True)
            Image.new("RGB", (8, 8), (40 if label == "a" else 200,) * 3).save(
                folder / "plain" / split / label / "x.png"
            )
    embedx("extract", "folder", "-r", "plain", "-b", "raw:4x4")
    refused = embedx("probe", "plain", "-b", "raw:4x4", "--head", "group-balanced", code=1)
    assert "head 'group-balanced' needs groups, and plain has no attribute" in refused.stderr
    embedx("compare", "plain")
    heads = [r["head"] for r in json.loads((folder / "results" / "plain" / "runs.json").read_text())["runs"]]
    assert {"plain", "class-balanced"} <= set(heads) and not {"group-balanced", "dfr"} & set(heads)


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error(folder):
    pipe = f"{shlex.quote(sys.executable)} -m embedx list backbones 'timm:*' | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {pipe}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("timm:")
