"""What `make` runs and in which environment: the Makefile in a folder where programs only write down their calls."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORDER = """#!/bin/sh
{ for word in "$0" "$@"; do printf '%s\\0' "$word"; done; printf '\\0'; env -0; printf '\\0'; } >> calls
"""


@dataclass(frozen=True)
class Call:
    words: tuple[str, ...]
    environment: Mapping[str, str] = field(compare=False)


def workshop(folder: Path, *, installed: bool = True) -> Path:
    """A folder with our Makefile and a `.venv` of which no program does anything."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (folder / "embedx").mkdir()
    for file in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / file, folder)
    for program in ("python", "ruff"):
        (programs / program).write_text(RECORDER)
        (programs / program).chmod(0o755)
    for mark in (
        ("installed", "installed-lite", "installed-web", "installed-test", "installed-dev") if installed else ()
    ):
        (folder / ".venv" / mark).touch()
    return folder


def calls(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> list[Call]:
    """Run `make WORDS` in a workshop and return what it called, in order."""
    record = folder / "calls"
    record.unlink(missing_ok=True)
    surroundings = {**os.environ, **(environment or {})}
    done = subprocess.run(["make", *words], cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = iter(record.read_text().split("\0\0")[:-1]) if record.exists() else iter(())
    return [
        Call(tuple(words.split("\0")), dict(line.split("=", 1) for line in next(parts).split("\0"))) for words in parts
    ]
