"""Nothing depends on the name of the clone's folder, on who calls, or on a user's settings of other programs."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from making import ROOT, calls, workshop

NAMES = ("a parent/embedx", "it's $HOME é%20/embedx", '#1 [x] "q" & `id`/embedx')
CALLERS = {
    "a make in a make": {"MAKELEVEL": "1", "MAKEFLAGS": "w"},
    "several at once": {"MAKEFLAGS": "-j4"},
    "silent": {"MAKEFLAGS": "s --no-print-directory"},
    "an outer make's variables": {"MAKEFLAGS": " -- BIN=/usr/bin MAKEFILE_LIST=nothing"},
    "settings": {
        "PYTHONPATH": "/elsewhere", "PYTHONHOME": "/elsewhere", "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2",
        "PYTHONSAFEPATH": "1", "PIP_USER": "1", "PIP_TARGET": "/elsewhere", "PIP_PREFIX": "/elsewhere",
        "CDPATH": "/", "LC_ALL": "C", "BIN": "/usr/bin", "PIP_INDEX_URL": "https://mirror",
    },
}  # fmt: skip
# Python 3.11 does not start in C, nor in a locale that is not there, where an editable package's path is beyond ASCII.
LOCALES = ("tr_TR.UTF-8", "C") if f"{sys.prefix}{ROOT}".isascii() else ("C.UTF-8",)
BACKBONES = ("-b", "tiny:untrained", "-b", "tiny:narrow", "-b", "tiny:broad", "-b", "lite:0")


@pytest.mark.parametrize("name", [NAMES[1], *(pytest.param(n, marks=pytest.mark.slow) for n in (NAMES[0], NAMES[2]))])
@pytest.mark.parametrize("caller", CALLERS)
def test_make_runs_the_same_whoever_calls_and_wherever(tmp_path: Path, name: str, caller: str) -> None:
    folder = workshop(tmp_path / name)
    demo, test = calls(folder, "demo", environment=CALLERS[caller]), calls(folder, "test", environment=CALLERS[caller])
    python = (".venv/bin/python", "-m")
    assert [c.words for c in demo] == [(*python, "embedx", do, "demo", *BACKBONES) for do in ("extract", "compare")]
    assert [c.words for c in test] == [(*python, "pytest", "-n", "auto", "--dist", "loadfile")]
    for call in (*demo, *test):
        seen = call.environment
        assert seen["LC_ALL"] == "C.UTF-8"
        assert not re.search("^(PYTHON|PIP_(?!INDEX))", "\n".join(seen), flags=re.MULTILINE), seen
        assert seen.get("PIP_INDEX_URL") == CALLERS[caller].get("PIP_INDEX_URL")


@pytest.mark.parametrize("name", NAMES)
def test_make_installs_into_its_own_environment(tmp_path: Path, name: str) -> None:
    folder = workshop(tmp_path / name, installed=False)
    (install,) = calls(folder, "install", environment=CALLERS["settings"])
    assert install.words == (*PIP, ".")
    assert calls(folder, "install") == []


PIP = (".venv/bin/python", "-m", "pip", "install", "--quiet", "--no-user", "--editable")


@pytest.mark.parametrize(
    ("target", "needs"), [("demo", [".", ".[lite]", ".[web]"]), ("test", [".", ".[test]"]), ("lint", [".", ".[dev]"]),
                          ("test-slow", [".", ".[dev]"]), ("spuriosity-demo", ["."])],
)  # fmt: skip
def test_make_installs_what_a_target_needs_and_no_more(tmp_path: Path, target: str, needs: list[str]) -> None:
    folder = workshop(tmp_path / "embedx", installed=False)
    assert [c.words for c in calls(folder, target) if "pip" in c.words] == [(*PIP, what) for what in needs]
    assert not any("pip" in c.words for c in calls(folder, target))


def test_the_spuriosity_demo_ranks_with_the_backbone_that_is_asked_for(tmp_path: Path) -> None:
    folder = workshop(tmp_path / "embedx", installed=False)

    def steps(*variables: str) -> list[list[str]]:
        return [list(c.words[3:]) for c in calls(folder, "spuriosity-demo", *variables) if c.words[2] == "embedx"]

    own, other = steps(), steps("BACKBONE=lite:0")
    assert (tmp_path / "embedx" / ".venv" / "installed-lite").exists()
    assert own[0] == ["extract", "planted", *BACKBONES[:6]] and other[0] == ["extract", "planted", *BACKBONES]
    for step, same in zip(own[1:], other[1:], strict=True):
        assert step[:5] == [*step[:3], "-b", "tiny:broad"] and same[:5] == [*step[:3], "-b", "lite:0"]
    assert other[5][5:] == [word.replace("-b", "--model") for word in BACKBONES]


def test_make_puts_the_links_back_that_an_archive_lost(tmp_path: Path) -> None:
    folder = workshop(tmp_path / "embedx", installed=False)
    (folder / "embedx" / "probes").write_text("../probes")  # a link as git writes it where there are none
    for name in ("probes", "extractors"):
        (folder / name).mkdir()
    calls(folder, "install")
    assert all((folder / "embedx" / name).readlink() == Path("..", name) for name in ("probes", "extractors"))


def test_what_is_given_to_make_reaches_embedx_letter_by_letter(tmp_path: Path) -> None:
    odd = "/d/it's $HOME, $(HOME) é%20"
    given = {"DATASET": f"{odd}=folder", "ROOT": odd, "BACKBONES": "timm:a.b mine=py:it's_$x", "HEADS": "plain dfr"}
    backbones = ("-b", "timm:a.b", "-b", "mine=py:it's_$x")
    folder = workshop(tmp_path / "a parent" / "embedx")
    for call in (
        calls(folder, "compare", f"CACHE={odd}", *(f"{k}={v}" for k, v in given.items())),
        calls(folder, "compare", environment=given | {"CACHE": odd}),
    ):
        assert [c.words[3:] for c in call] == [
            ("extract", f"{odd}=folder", "--root", odd, *backbones),
            ("compare", f"{odd}=folder", *backbones, "--head", "plain", "--head", "dfr"),
        ]
        assert {c.environment["EMBEDX_CACHE"] for c in call} == {odd}


def test_the_users_cache_folder_is_used_unless_another_is_given(tmp_path: Path) -> None:
    folder = workshop(tmp_path / "embedx")
    own = {"EMBEDX_CACHE": str(tmp_path / "it's my $cache")}
    assert {c.environment["EMBEDX_CACHE"] for c in calls(folder, "demo", environment=own)} == {own["EMBEDX_CACHE"]}
    assert {c.environment["EMBEDX_CACHE"] for c in calls(folder, "demo", "CACHE=x", environment=own)} == {"x"}
    assert "EMBEDX_CACHE" not in calls(folder, "demo")[0].environment
    do = [c.words[3] for c in calls(folder, "compare-waterbirds", environment=own)]
    assert do == ["data", "study"]
    (tmp_path / "it's my $cache" / "waterbirds").mkdir(parents=True)
    (tmp_path / "it's my $cache" / "waterbirds" / "manifest.json").touch()
    assert [c.words[3] for c in calls(folder, "compare-waterbirds", environment=own)] == ["study"]


MATPLOTLIBRC = """
backend: TkAgg
text.usetex: True
svg.fonttype: path
font.size: 30
axes.labelsize: 40
lines.linewidth: 9
figure.autolayout: True
savefig.transparent: True
axes.formatter.use_locale: True
axes.prop_cycle: cycler('color', ['r', 'g'])
image.lut: 8
image.cmap: gray
"""


def drawn() -> dict[str, str]:
    """SHA-256 of drawings of each kind, and of the colours of a generated dataset."""
    from test_report import grid

    from embedx.datasets.spuco_mnist import palette
    from embedx.report import Comparison, plots

    comparison = Comparison.of(grid(seeds=2))
    made = {draw.__name__: draw(comparison).encode() for draw in (plots.worst_group, plots.group_heatmap)}
    return {name: hashlib.sha256(data).hexdigest() for name, data in (made | {"hsv": palette(7).tobytes()}).items()}


def alone(code: str, **environment: str) -> str:
    """What a fresh process prints."""
    start = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); "
    line = [sys.executable, "-c", start + code]
    done = subprocess.run(line, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_drawings_and_colours_are_the_same_under_any_matplotlibrc(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text(MATPLOTLIBRC)
    code = "import json, test_place; print(json.dumps(test_place.drawn()))"
    assert json.loads(alone(code, MATPLOTLIBRC=str(tmp_path), MPLBACKEND="TkAgg")) == drawn()


def test_a_folder_is_read_alike_in_any_locale(tmp_path: Path) -> None:
    from PIL import Image

    for split in ("train", "test"):
        for label in ("İstanbul", "naïve"):
            (tmp_path / "größe" / split / label).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / "größe" / split / label / "ı 日本.png")
    code = (
        "from pathlib import Path; from embedx.workspace import Workspace; from embedx.data.prepare import prepare; "
        f"m, _ = prepare(Workspace(Path(sys.argv[1])), 'folder', Path({str(tmp_path / 'größe')!r}), {{}}); "
        "print(m.digest)"
    )
    digests = set()
    for locale in ("C.UTF-8", *LOCALES):
        here = code.replace("sys.argv[1]", repr(str(tmp_path / locale)))
        digests.add(alone(here, LC_ALL=locale, LANG=locale))
    assert len(digests) == 1


@pytest.mark.slow
def test_tests_see_nothing_of_the_environment_they_are_started_in(tmp_path: Path) -> None:
    """A few of the most exposed ones, started as a user with odd settings might."""
    for package in ("embedx", "probes", "extractors"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('another one')")
    (tmp_path / "matplotlibrc").write_text(MATPLOTLIBRC)
    odd = {
        "HOME": "/dev/null", "PYTHONPATH": str(tmp_path), "MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": "TkAgg",
        "MAKEFLAGS": "w -- HEADS=none CACHE=/none", "MAKELEVEL": "1", "EMBEDX_CACHE": "/none", "COLUMNS": "20",
        "FORCE_COLOR": "1", "TERM": "dumb", "LC_ALL": LOCALES[-1], "TZ": "Asia/Kathmandu", "http_proxy": "http://none:1",
        "RAY_ADDRESS": "none:1", "PYTHONWARNINGS": "error", "TORCH_HOME": "/none", "HF_HOME": "/none",
    }  # fmt: skip
    tests = (
        "test_process_settings.py::test_large_pages_are_asked_for_unless_somebody_decided",
        "test_place.py::test_the_users_cache_folder_is_used_unless_another_is_given",
    )
    line = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]  # -P: as the script `pytest`
    line += [f"tests/{test}" for test in tests]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(line, env=ours | odd, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
