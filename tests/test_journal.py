"""Journals: what several processes add is all there, and who follows one sees what it holds, however it changed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_files import in_processes

from embedx import journal
from embedx.documents import Kind
from embedx.errors import SpuriosityError
from embedx.journal import Follower, append


@dataclass(frozen=True)
class Word:
    """A line."""

    text: str
    n: int = 0


KIND = Kind(Word, "words.jsonl", "nothing", SpuriosityError, again="mend it", indent=None)


def written(*words: str) -> bytes:
    return "".join(KIND.text(Word(w)) for w in words).encode()


def seen(held: dict[int, str], follower: Follower[Word]) -> dict[int, str]:
    """What a follower has told so far, by line."""
    anew, lines = follower.news()
    if anew:
        held.clear()
    for number, word in lines:
        assert number not in held, "a line is told once"
        held[number] = word.text
    return held


changes = st.sampled_from(
    ("append", "torn", "whole", "newline", "bad", "mend", "rewrite", "twice", "cut", "gone", "odd")
)


@settings(max_examples=300, deadline=None)
@given(st.lists(changes, max_size=12))
def test_who_follows_sees_what_a_reader_of_the_whole_file_sees(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    path = tmp_path_factory.mktemp("journal") / KIND.file
    follower, held = Follower(path, KIND), {}
    for i, step in enumerate(steps):
        data = path.read_bytes() if path.exists() else b""
        if step == "append":
            append(path, KIND, Word(f"w{i}"))
        elif step in ("rewrite", "twice"):
            for _ in range(1 + (step == "twice")):
                fresh = path.with_name("fresh")
                fresh.write_bytes(written(f"r{i}", f"s{i}"))
                fresh.replace(path)
        elif step == "gone":
            path.unlink(missing_ok=True)
        else:
            path.write_bytes({
                "torn": data + written(f"t{i}")[:-9], "whole": data + written(f"u{i}")[:-1], "newline": data + b"\n",
                "bad": data + b'{"text": 1}\n', "mend": data.replace(b'{"text": 1}', written(f"mended {i}")[:-1]),
                "cut": data[: len(data) // 2], "odd": data + b" x\n",
            }[step])  # fmt: skip
        problems: list[str] = []
        try:
            expected = {n: w.text for n, w in journal.read(path, KIND, problems.append)}
        except FileNotFoundError:
            expected = {}
        assert seen(held, follower) == expected
        told = [p for p in problems if "was cut short" not in p]
        assert len(follower.problems) == len(told)


def test_a_line_that_was_mended_in_place_appears(tmp_path: Path) -> None:
    path = tmp_path / KIND.file
    path.write_bytes(written("a") + b'{"text": 1}\n' + written("b"))
    follower = Follower(path, KIND)
    assert seen({}, follower) == {1: "a", 3: "b"} and list(follower.problems) == [2]
    with path.open("r+b") as file:
        file.write(written("a", "a longer one", "b"))
    assert seen({}, follower) == {1: "a", 2: "a longer one", 3: "b"} and not follower.problems


def test_a_change_of_the_same_size_at_the_same_time_is_seen(tmp_path: Path) -> None:
    path = tmp_path / KIND.file
    path.write_bytes(written("a", "b"))
    follower, held = Follower(path, KIND), {}
    seen(held, follower)
    stat = path.stat()
    with path.open("r+b") as file:
        file.write(written("c", "d"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as clocks of disks are coarse
    assert seen(held, follower) == {1: "c", 2: "d"}


def test_a_file_that_rests_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / KIND.file
    path.write_bytes(written("a"))
    follower = Follower(path, KIND)
    monkeypatch.setattr(journal, "MOMENT", -(1 << 60))
    follower.news()

    def refuse(*_: object) -> None:
        raise AssertionError("opened")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        assert follower.news() == (False, [])
    append(path, KIND, Word("b"))
    assert follower.news() == (False, [(2, Word("b"))])


def test_a_last_line_without_its_newline_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / KIND.file
    path.write_bytes(written("a", "b")[:-1])
    follower = Follower(path, KIND)
    assert follower.news() == (False, [(1, Word("a")), (2, Word("b"))])
    append(path, KIND, Word("c"))
    assert follower.news() == (False, [(3, Word("c"))])


def test_a_new_journal_is_made_safe_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(journal, "sync_folder", synced.append)
    append(tmp_path / KIND.file, KIND, Word("a"))
    append(tmp_path / KIND.file, KIND, Word("b"))
    assert synced == [tmp_path]


def test_lines_that_processes_add_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / KIND.file
    path.write_bytes(written("a") + b'{"text": "cut sh')
    code = """
from pathlib import Path
from test_journal import KIND, Word, append
for i in range(0, 24, 2):
    append(Path(path), KIND, Word(f"{who}", i), Word(f"{who}", i + 1))
"""
    code = f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + code
    in_processes(code, n=3, path=str(path))
    first, *rest = [w for _, w in journal.read(path, KIND)]
    assert first == Word("a") and sorted((w.text, w.n) for w in rest) == [
        (str(p), i) for p in range(3) for i in range(24)
    ]
    for a, b in zip(rest[::2], rest[1::2], strict=True):  # what is added together stays together
        assert a.text == b.text and a.n + 1 == b.n


def test_a_name_as_long_as_a_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    append(path, KIND, Word("a"))
    append(path, KIND, Word("b"))
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == ["a", "b"]
