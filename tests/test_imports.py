"""The shape of the code: imports run one way and in no circle, what is private stays in its folder, heavy libraries
wait, only the command line prints or exits, files and functions are short, and what is public says what it does.
"""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import embedx

ROOT = Path(embedx.__file__).parents[1]
PACKAGES = ("embedx", "extractors", "probes")
ORDER = (
    "errors", "html", "plugins", "files", "documents", "journal", "workspace", "statistics", "data", "datasets",
    "store", "extract", "evaluation", "report", "spuriosity", "annotation", "repair", "studies", "scripting", "cli",
    "__main__",
)  # fmt: skip
"""The rooms of embedx: each imports from those before it; `extractors` and `probes` import none."""
WITHIN = tuple(f"embedx.{package}{end}" for package in ("extractors", "probes") for end in (".", ""))
"""The names by which these two are imported: `embedx/` holds links to their folders."""
HEAVY = {"torch", "timm", "open_clip", "torchvision", "matplotlib", "pandas"}
PROGRAMS = {"embedx/extract/pretrain.py", "embedx/extract/pretrain_signals.py"}  # of their own: they print
HEAVY_AT_ONCE = {"extractors/_tiny_network.py", "extractors/_cnn1d_network.py", *PROGRAMS}  # the first define layers


def sources(package):
    """{path below the root: syntax tree} of every module of a package."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text(encoding="utf-8")) for p in files}


FILES = {path: tree for package in PACKAGES for path, tree in sources(package).items()}


def imported(path, nodes):
    """Dotted names of all that the nodes import; of `from a import b` both a and a.b, as b may be a module."""
    here = Path(path).with_suffix("").parts
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = [*here[: len(here) - node.level]] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def at_once(node):
    """The nodes that run when a module is imported: not those in functions, nor those for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (n for branch in child.orelse for n in (branch, *at_once(branch)))
            continue
        yield child
        yield from at_once(child)


def ours(path, nodes):
    """{(package, module)} of what the nodes import of ours; the module is empty for a package itself."""
    names = (name.removeprefix("embedx.") if name.startswith(WITHIN) else name for name in imported(path, nodes))
    parts = (name.split(".") for name in names)
    return {(n[0], n[1] if len(n) > 1 else "") for n in parts if n[0] in PACKAGES}


def module_of(path):
    """`manifest` for embedx/data/manifest.py, `store` for embedx/store/reader.py, empty for embedx/__init__.py."""
    second = Path(path).parts[1]
    return "" if second == "__init__.py" else second.removesuffix(".py")


def forbidden(path, tree):
    """What a module imports of ours that does not stand before it."""
    package, module = Path(path).parts[0], module_of(path)
    found = ours(path, ast.walk(tree))
    if package != "embedx":
        return sorted(f for f in found if f[0] != package)
    before = {*ORDER[: ORDER.index(module)], module} if module else set()
    real = {(p, m) for p, m in found if p == "embedx" and m in {module_of(f) for f in FILES if f.startswith("embedx/")}}
    return sorted(f for f in real if f[1] and f[1] not in before)


def test_every_module_of_embedx_has_its_place():
    modules = {module_of(path) for path in FILES if path.startswith("embedx/")} - {""}
    assert modules <= set(ORDER)


def wrong(check, files):
    """{path: what a check says of it} of the files of which it says anything."""
    return {path: said for path, tree in files.items() if (said := check(path, tree))}


def test_imports_run_one_way():
    assert wrong(forbidden, FILES) == {}


@pytest.mark.parametrize(
    ("path", "line", "found"),
    [
        ("embedx/data/manifest.py", "def f():\n    from embedx.store import Header", [("embedx", "store")]),
        ("embedx/store/reader.py", "from embedx import evaluation", [("embedx", "evaluation")]),
        ("embedx/store/reader.py", "from ..cli import main", [("embedx", "cli")]),
        ("embedx/store/reader.py", "from .. import cli", [("embedx", "cli")]),
        ("embedx/store/reader.py", "from .header import Header\nimport embedx.data.status, torch", []),
        ("embedx/__init__.py", "import embedx.errors", [("embedx", "errors")]),
        ("embedx/cli/probe.py", "from embedx import __version__, report\nfrom embedx.probes import plain", []),
        ("probes/plain.py", "if True:\n    import embedx", [("embedx", "")]),
        ("probes/plain.py", "import embedx.extractors.raw", [("extractors", "raw")]),
        ("extractors/raw.py", "from ._backbone import Backbone", []),
    ],
)
def test_the_check_itself_finds_what_is_forbidden(path, line, found):
    assert forbidden(path, ast.parse(line)) == found


EVERYTHING = FILES | sources("tests") | sources("benchmarks")


def test_extractors_and_probes_are_imported_by_the_names_that_are_installed():
    """`import probes` would find the folder of a clone, or anybody's, and a second copy of each module."""

    def bare(path, tree):
        nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        named = [n for n in nodes if not getattr(n, "level", 0)]
        return {name.partition(".")[0] for name in imported(path, named)} & {"extractors", "probes"}

    assert wrong(bare, EVERYTHING) == {}


def documented():
    """{path and number: syntax tree} of the Python blocks of README.md and the documents, and of their examples."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    texts = {
        page: re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S) for page in pages
    }
    blocks = {f"{p.relative_to(ROOT).as_posix()}:{n}": ast.parse(t) for p in pages for n, t in enumerate(texts[p], 1)}
    return blocks | sources("docs")


def from_other_folders(path, tree):
    """Private modules and names of ours that a file imports although they lie neither in its folder nor above it."""
    folder = Path(path).parent.as_posix()
    private = set()
    for name in imported(path, ast.walk(tree)):
        parts = (name.removeprefix("embedx.") if name.startswith(WITHIN) else name).split(".")
        for n, part in enumerate(parts):
            holder = "/".join(parts[:n])
            if part.startswith("_") and not part.startswith("__") and parts[0] in PACKAGES:
                inside = holder == folder or folder.startswith(f"{holder}/")
                private |= set() if inside else {".".join(parts[: n + 1])}
    return sorted(private)


IMPORTING = FILES | sources("benchmarks") | documented()


def test_nothing_private_is_imported_from_another_folder():
    assert wrong(from_other_folders, IMPORTING) == {}


@pytest.mark.parametrize(
    ("path", "line", "found"),
    [
        ("embedx/store/reader.py", "def f():\n    from embedx.probes import _solver", ["probes._solver"]),
        ("embedx/store/reader.py", "import embedx.extractors._weights", ["extractors._weights"]),
        ("embedx/store/reader.py", "from embedx.store.header import _check", ["embedx.store.header._check"]),
        ("embedx/store/reader.py", "from embedx.cli._output import remark", ["embedx.cli._output"]),
        ("README.md:1", "from embedx.probes._machinery import Head", ["probes._machinery"]),
        ("embedx/store/reader.py", "from embedx.store._rows import x\nfrom embedx import __version__", []),
        ("embedx/cli/spuriosity/gap.py", "from embedx.cli._output import remark", []),
        ("probes/plain.py", "from ._machinery import Head\nimport torch._dynamo", []),
    ],
)
def test_private_imports_are_noticed(path, line, found):
    assert from_other_folders(path, ast.parse(line)) == found


def module_file(name):
    """The file of a module or package of ours by its dotted name, None for what is neither."""
    name = name.removeprefix("embedx.") if name.startswith(WITHIN) else name
    start = name.replace(".", "/")
    return next((f for f in (f"{start}.py", f"{start}/__init__.py") if f in FILES), None)


def needed_at_once(path, tree):
    """The modules of ours whose names a module takes while it is imported."""
    needed = set()
    for node in at_once(tree):
        names = list(imported(path, [node]))
        if isinstance(node, ast.ImportFrom):
            base, *below = names
            files = {module_file(name) or module_file(base) for name in below}
        else:
            files = {module_file(name) for name in names}
        needed |= {file for file in files if file is not None}
    return needed - {path}


def test_no_module_is_needed_before_it_is_there():
    """Circles work only as long as nobody changes the order of imports."""
    tuple(graphlib.TopologicalSorter({path: needed_at_once(path, FILES[path]) for path in FILES}).static_order())


def test_what_a_module_needs_at_once_is_found():
    code = (
        "from embedx.data.manifest import Manifest\nfrom embedx.data.manifest import words\nimport embedx.files, numpy"
    )
    expected = {"embedx/data/manifest/__init__.py", "embedx/data/manifest/words.py", "embedx/files.py"}
    assert needed_at_once("embedx/store/reader.py", ast.parse(code)) == expected
    assert needed_at_once("probes/plain.py", ast.parse("from ._draws import x")) == {"probes/_draws.py"}


def test_heavy_libraries_are_imported_where_they_are_used():
    def heavy(path, tree):
        return {name.partition(".")[0] for name in imported(path, at_once(tree))} & HEAVY

    assert wrong(heavy, FILES).keys() <= HEAVY_AT_ONCE


def test_what_runs_at_import_is_told_from_what_waits():
    code = """
import a
if TYPE_CHECKING:
    import never
else:
    import b
try:
    import c
except ImportError:
    from d import x
class K:
    import e
    def f(self):
        import never
f = lambda: __import__("never")
"""
    assert set(imported("m.py", at_once(ast.parse(code)))) == {*"abcde", "d.x"}


def test_files_are_short_and_named_for_what_they_hold():
    assert {Path(path).stem for path in FILES}.isdisjoint({"utils", "helpers", "common"})
    lengths = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: n for path, n in lengths.items() if n > 400} == {}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_of(function):
    """From `def` to the end, signature and docstring included, decorators not."""
    return function.end_lineno - function.lineno + 1


def test_functions_are_short():
    assert wrong(lambda path, tree: [f.name for f in functions(tree) if lines_of(f) > 60], FILES) == {}


def without_docstring(node, start=""):
    """Public functions and classes of a module, and public methods of these, that say nothing of themselves."""
    for child in node.body:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        if isinstance(child, kinds) and not child.name.startswith("_"):
            if not ast.get_docstring(child):
                yield start + child.name
            if isinstance(child, ast.ClassDef):
                yield from without_docstring(child, f"{start}{child.name}.")


def test_what_is_public_says_what_it_does():
    assert [path for path, tree in FILES.items() if not ast.get_docstring(tree)] == []
    assert wrong(lambda path, tree: list(without_docstring(tree)), FILES) == {}


def test_what_says_nothing_is_noticed():
    code = "def f(): pass\nclass A:\n    def g(self): pass\n    def _h(self): pass\ndef told():\n    'x'"
    assert list(without_docstring(ast.parse(code))) == ["f", "A", "A.g"]


def says_or_ends(tree):
    """Calls that print or end the program."""
    calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    spoken = {"print", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write", "sys.stderr.write", "click.echo"}
    return calls & spoken | names & {"SystemExit"}


def test_only_the_command_line_prints_or_exits():
    others = {f: tree for f, tree in FILES.items() if not f.startswith("embedx/cli/") and f not in PROGRAMS}
    assert wrong(lambda path, tree: says_or_ends(tree), others) == {}


def test_printing_and_exiting_are_noticed():
    code = "def f():\n    print(1)\n    sys.exit()\n    raise SystemExit"
    assert says_or_ends(ast.parse(code)) == {"print", "sys.exit", "SystemExit"}
    assert says_or_ends(FILES["embedx/cli/_output.py"])  # where it is allowed, it is done


def test_help_imports_no_heavy_library():
    code = (
        "import sys; from click.testing import CliRunner; from embedx.cli import main; "
        "result = CliRunner().invoke(main, ['--help']); assert result.exit_code == 0, result.output; "
        "print([m for m in ('torch','h5py','pandas','matplotlib','sklearn','timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
