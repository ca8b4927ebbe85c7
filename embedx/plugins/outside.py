"""Plug-ins outside the tree: what their code is, and how those in the working folder are imported.

`py:package.module` is imported as Python imports it, from what is installed or on PYTHONPATH. What Python does not find
may lie in the folder where the command is run. That folder never comes onto `sys.path`, where every library would find
what lies in it, a `numexpr.py` among downloaded data too: `PLUGINS` finds there the module that was named and those
that its code imports by name, directly or not, and nothing else. Their files are read once: the bytes that are digested
are the bytes that run, here and in other processes.

Imports are read off the code, also those that are made late. Names that are only put together when it runs are not
seen: in a package all of its modules count then; beside a lone module they are not found.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import os
import pkgutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import resolve_name, spec_from_file_location
from pathlib import Path
from typing import Any

OURS = {"embedx"}
LIBRARIES = tuple({os.path.realpath(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")})
INSTALLED = {"site-packages", "dist-packages"}
IMPORTERS = {"import_module", "__import__", "iter_modules", "walk_packages"}
"""Functions that import, or list for importing, what their first argument says."""
EVERY = ".*"


@dataclass(frozen=True)
class Code:
    """A module: its file and bytes (None for a folder without `__init__.py`), and what it imports by name.

    places  where the modules below it lie, of a package
    beside  it was found in the working folder, by nobody but `PLUGINS`
    """

    file: str | None
    content: bytes
    imports: tuple[str, ...]
    places: tuple[str, ...] | None
    beside: bool


class Plugins(MetaPathFinder):
    """Finds the modules of the plug-ins that were named, by full name.

    Sent to another process, it makes them importable there, from the same bytes: put it before what needs them.
    """

    def __init__(self) -> None:
        self.modules: dict[str, Code] = {}
        self.handed = False

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of a module of a plug-in, `None` for all others: see `importlib.abc.MetaPathFinder`."""
        code = self.modules.get(fullname)
        if code is None:
            return None
        places = None if code.places is None else list(code.places)
        if code.file is None:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = places
            return spec
        loader = _Bytes(fullname, code.file, code.content) if code.file.endswith(".py") else None
        return spec_from_file_location(fullname, code.file, loader=loader, submodule_search_locations=places)

    def add(self, modules: Mapping[str, Code]) -> None:
        """From now on these are found, and one that was imported from other bytes is imported again."""
        for name, code in modules.items():
            before = self.modules.get(name)
            if before is not None and before.content != code.content:
                sys.modules.pop(name, None)
        self.modules.update(modules)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def __reduce__(self) -> Any:
        return _arrived, (self.modules,)


class _Bytes(SourceFileLoader):
    """Runs the bytes that were read, whatever the file, or a compiled one beside it, holds by now."""

    def __init__(self, fullname: str, path: str, content: bytes) -> None:
        super().__init__(fullname, path)
        self.content = content

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.content, self.path)


PLUGINS = Plugins()


def _arrived(modules: Mapping[str, Code]) -> Plugins:
    if modules:
        PLUGINS.add(modules)
        PLUGINS.handed = True
    return PLUGINS


def admit(target: str) -> None:
    """Let the module `target` be imported, from the working folder where Python itself does not find it."""
    if target in sys.modules or (PLUGINS.handed and target in PLUGINS.modules):
        return
    importlib.invalidate_caches()
    modules = _Walk(folder=Path.cwd()).all_of(target)
    if beside := {name: code for name, code in modules.items() if code.beside}:
        PLUGINS.add(beside)


def digest(*names: str, ours: bool = False) -> str:
    """SHA-256 of the code of modules and of all that they import, directly or not.

    Libraries, Python's own and those in a site-packages, are left out; embedx's packages as well, unless `ours`.
    """
    modules = _Walk(PLUGINS.modules, ours=ours).all_of(*names)
    parts = sorted((name, hashlib.sha256(code.content).hexdigest()) for name, code in modules.items() if code.file)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@contextmanager
def closed_folder() -> Iterator[None]:
    """Python processes that are started meanwhile do not look for modules in the working folder either."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONSAFEPATH", None)
        else:
            os.environ["PYTHONSAFEPATH"] = before


class _Walk:
    """From modules to all that they import, without importing any.

    modules  those whose code is known already; folder  where to look for what Python does not find
    """

    def __init__(
        self, modules: Mapping[str, Code] | None = None, *, folder: Path | None = None, ours: bool = False
    ) -> None:
        self.modules, self.folder, self.ours = modules or {}, folder, ours
        self.codes: dict[str, Code | None] = {}

    def all_of(self, *names: str) -> dict[str, Code]:
        waiting, seen = list(names), set[str]()
        while waiting:
            if (name := waiting.pop()) in seen:
                continue
            seen.add(name)
            parts = name.removesuffix(EVERY).split(".")
            for n in range(1, len(parts) + 1):
                whole = ".".join(parts[:n])
                if whole not in self.codes:
                    self.codes[whole] = code = self._code(whole)
                    waiting += code.imports if code else ()
                if self.codes[whole] is None:
                    waiting += self._behind(parts[: n - 1], parts[n - 1])
                    break
            else:
                code = self.codes[".".join(parts)]
                if name.endswith(EVERY) and parts[0] not in OURS and code is not None and code.places:
                    below = [m.name for m in pkgutil.iter_modules(list(code.places), f"{'.'.join(parts)}.")]
                    waiting += [*below, *(name + EVERY for name in below)]
        return self._with_a_use({name: code for name, code in self.codes.items() if code is not None})

    def _behind(self, package: Sequence[str], name: str) -> list[str]:
        """The module that a face, which imports late, takes a name from: its stub says so."""
        code = self.codes.get(".".join(package))
        stub = Path(code.file).with_suffix(".pyi") if code and code.file else None
        if stub is None or not stub.is_file():
            return []
        nodes = [n for n in ast.parse(stub.read_bytes()).body if isinstance(n, ast.ImportFrom)]
        asked = [n for n in nodes if any(name in (alias.asname, alias.name) for alias in n.names)]
        return [_absolute("." * n.level + (n.module or ""), ".".join(package)) for n in asked]

    @staticmethod
    def _with_a_use(modules: dict[str, Code]) -> dict[str, Code]:
        """Without the folders that hold no module that was found: images, not code."""
        return {
            name: code
            for name, code in modules.items()
            if code.file or any(other.startswith(f"{name}.") and c.file for other, c in modules.items())
        }

    def _code(self, name: str) -> Code | None:
        """The module, or None for what does not exist, is a library or is not to be looked at."""
        if name in self.modules:
            return self.modules[name]
        above, _, _ = name.rpartition(".")
        if above:
            parent = self.codes[above]
            beside = parent is not None and parent.beside
            spec = None if parent is None or parent.places is None else _in(parent.places, name)
        else:
            if name in OURS and not self.ours:
                return None
            spec, beside = _by_python(name), False
            if spec is None and self.folder is not None:
                spec, beside = _in((str(self.folder),), name), True
        if spec is None or not (beside or name.partition(".")[0] in OURS or not _library(spec)):
            return None
        places = None if spec.submodule_search_locations is None else tuple(spec.submodule_search_locations)
        read = getattr(spec.loader, "get_data", None)
        if not spec.origin or not spec.has_location or read is None:
            return Code(None, b"", (), places, beside) if places else None
        content = read(spec.origin)
        package = name if places is not None else above
        imports = _imports(content, package) if spec.origin.endswith(".py") else ()
        return Code(spec.origin, content, imports, places, beside)


def _by_python(name: str) -> ModuleSpec | None:
    """As Python finds a module that stands below no other; the working folder counts only where Python looks there."""
    if name in PLUGINS.modules:
        return None
    if (loaded := sys.modules.get(name)) is not None:
        spec, file = getattr(loaded, "__spec__", None), getattr(loaded, "__file__", None)
        return spec_from_file_location(name, file) if spec is None and file else spec
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if finder is not PLUGINS and find is not None and (spec := find(name, None)) is not None:
            return spec
    return None


def _in(places: Sequence[str], name: str) -> ModuleSpec | None:
    """The module in one of the folders or archives; failing that, the folders of its name."""
    folders: list[str] = []
    for place in places:
        importer: Any = pkgutil.get_importer(place)
        spec = importer and importer.find_spec(name)
        if spec is not None and spec.loader is not None:
            return spec
        folders += (spec.submodule_search_locations or []) if spec else []
    if not folders:
        return None
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = folders
    return spec


def _library(spec: ModuleSpec) -> bool:
    """Whether a module belongs to Python or was installed."""
    place = spec.origin if spec.has_location else next(iter(spec.submodule_search_locations or ()), None)
    if place is None:
        return True  # built in
    real = os.path.realpath(place)
    return not INSTALLED.isdisjoint(Path(real).parts) or real.startswith(tuple(f"{p}{os.sep}" for p in LIBRARIES))


@cache
def _imports(content: bytes, package: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_imported(content, package)))


def _imported(content: bytes, package: str) -> Iterator[str]:
    """Dotted names of all that a module imports; of `from a import b` both a and a.b, as b may be a module.

    `a` + EVERY stands for all modules of a package: after `from a import *`, or where a name is made as the code runs.
    """
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return  # whoever imports it will hear of that
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)  # `*` included, which makes EVERY of it
        elif isinstance(node, ast.Call) and _called(node.func) in IMPORTERS:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield _absolute(first.value, package)
            elif package:
                yield package + EVERY


def _absolute(name: str, package: str) -> str:
    try:
        return resolve_name(name, package) if name.startswith(".") else name
    except ImportError:
        return ""  # above the top


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
