"""One place for statistics: it stands alone, other rooms compute none by themselves, and it comes when it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

import embedx
from embedx import statistics

ROOM = Path(statistics.__file__).parent
ROOT = Path(embedx.__file__).parent
LIBRARIES = ("scipy.stats", "scipy.special")
NO_STATISTICS = {"softmax", "log_softmax", "expit", "log_expit", "logsumexp"}
"""Functions of scipy.special that heads and their loss take: curves, not tests."""
QUANTILES = {"quantile", "percentile", "nanquantile", "nanpercentile"}


def sources(folder: Path) -> dict[str, list[ast.AST]]:
    """{path: syntax nodes} of a folder; of all of embedx but for the statistics."""
    files = [p for p in sorted(folder.rglob("*.py")) if folder == ROOM or not p.is_relative_to(ROOM)]
    return {p.relative_to(ROOT.parent).as_posix(): [*ast.walk(ast.parse(p.read_text(encoding="utf-8")))] for p in files}


def imported(nodes: Iterable[ast.AST]) -> set[tuple[str, str]]:
    """{(module, name)}; the name is empty for a module that is imported whole."""
    found: set[tuple[str, str]] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {("." * node.level + (node.module or ""), alias.name) for alias in node.names}
    return found


def computed(nodes: Sequence[ast.AST]) -> set[str]:
    """What a module takes from scipy for statistics, and the percentiles that it computes."""
    taken = {
        f"{module}.{name}"
        for module, name in imported(nodes)
        if (module.startswith(LIBRARIES) or f"{module}.{name}" in LIBRARIES) and name not in NO_STATISTICS
    }
    return taken | {n.attr for n in nodes if isinstance(n, ast.Attribute)} & QUANTILES


OTHERS = sources(ROOT) | sources(ROOT / "probes") | sources(ROOT / "extractors")


def test_no_other_room_computes_statistics_by_itself() -> None:
    drawing = {"embedx/datasets/mnist1d.py": {"scipy.special.ndtr", "scipy.special.ndtri"}}  # a truncated normal
    assert {path: taken for path, tree in OTHERS.items() if (taken := computed(tree))} == drawing


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        ("from scipy.stats import norm", {"scipy.stats.norm"}),
        ("from scipy import stats", {"scipy.stats"}),
        ("import scipy.special", {"scipy.special."}),
        ("def f():\n    from scipy.special import expit, ndtr", {"scipy.special.ndtr"}),
        ("from scipy.ndimage import zoom\nlow = np.quantile(x, 0.1)", {"quantile"}),
    ],
)
def test_the_check_itself_finds_what_is_computed(line: str, taken: set[str]) -> None:
    assert computed([*ast.walk(ast.parse(line))]) == taken


def test_statistics_import_numpy_and_scipy_only() -> None:
    tops = {module.split(".")[0] for tree in sources(ROOM).values() for module, _ in imported(tree)}
    assert tops - set(sys.stdlib_module_names) == {"numpy", "scipy", "embedx"}
    ours = {module for tree in sources(ROOM).values() for module, _ in imported(tree) if module.startswith("embedx")}
    assert {".".join(module.split(".")[:2]) for module in ours} == {"embedx.statistics"}


def test_everything_that_the_face_gives_is_used_and_explained() -> None:
    used = {name for tree in OTHERS.values() for module, name in imported(tree) if module == "embedx.statistics"}
    assert set(statistics.__all__) <= used
    assert all(getattr(statistics, name).__doc__ for name in statistics.__all__)


def test_help_waits_for_no_statistics() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from embedx.cli import main; "
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0; sys.exit('scipy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)
