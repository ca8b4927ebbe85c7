"""Files land whole or not at all, whoever else writes there."""

import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedx.files import landing, landing_folder, locked, write_bytes, write_text

ROUNDS = 25


def in_processes(code, n=2, **names):
    """Run the code in n processes at once, each of which believes that it has the number 1, as in containers."""
    start = "import os, sys\nos.getpid = lambda: 1\nwho = int(sys.argv[1])\n"
    start += "".join(f"{k} = {v!r}\n" for k, v in names.items())
    line = [sys.executable, "-c", start + code]
    running = [subprocess.Popen([*line, str(who)], stderr=subprocess.PIPE, text=True) for who in range(n)]
    said = [p.communicate(timeout=120)[1] for p in running]
    assert [p.returncode for p in running] == [0] * n, said


def test_processes_with_one_number_that_write_one_file(tmp_path):
    """Each write succeeds, and what is there is always one of the two, whole."""
    path = tmp_path / "f"
    code = f"""
from pathlib import Path
from embedx.files import write_bytes
for i in range({ROUNDS}):
    write_bytes(Path(path), bytes([who]) * 300_000)
    assert len(set(Path(path).read_bytes())) == 1 and Path(path).stat().st_size == 300_000
"""
    in_processes(code, n=3, path=str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_read_change_write_under_a_lock_loses_nothing(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")
    code = f"""
from pathlib import Path
from embedx.files import locked, write_text
for i in range({ROUNDS}):
    with locked(Path(path)):
        write_text(Path(path), str(int(Path(path).read_text()) + 1))
"""
    in_processes(code, n=3, path=str(path))
    assert path.read_text() == str(3 * ROUNDS)


def test_threads_that_write_one_file(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: write_text(tmp_path / "f", str(i) * 1000), range(40)))
    assert len(set((tmp_path / "f").read_text())) <= 2
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_lock_that_is_held_is_waited_for_or_refused(tmp_path):
    with locked(tmp_path / "x"), pytest.raises(BlockingIOError), locked(tmp_path / "x", wait=False):
        pass
    with locked(tmp_path / "x", wait=False):
        pass


def test_what_goes_wrong_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "f", "old")
    with pytest.raises(ValueError, match="x"), landing(tmp_path / "f") as temporary:
        temporary.write_text("new")
        raise ValueError("x")
    with pytest.raises(ValueError, match="x"), landing_folder(tmp_path / "d") as folder:
        (folder / "a").touch()
        raise ValueError("x")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("f", "old")]


def test_a_folder_takes_the_place_of_another(tmp_path):
    for name in "ab":
        with landing_folder(tmp_path / "d") as folder:
            (folder / name).touch()
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_are_as_readable_as_the_umask_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "f", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o666 & ~umask


def test_devices_pipes_and_folders_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, number in (("pipe", errno.EINVAL), ("folder", errno.EISDIR)):
        with pytest.raises(OSError, match="name a file") as caught:
            write_bytes(tmp_path / name, b"x")
        assert caught.value.errno == number and caught.value.filename == str(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pipe"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_names_as_long_as_a_file_system_allows(tmp_path):
    path = tmp_path / ("n" * 255)
    write_text(path, "x")
    assert path.read_text() == "x"


def test_no_module_writes_temporary_names_by_itself():
    """One way to publish a file; the downloads, which go on where they were, and torch.hub's cache name their own."""
    own = {"embedx/files.py", "embedx/data/download/fetch.py", "extractors/robust.py"}
    top = Path(__file__).parents[1]
    found = {
        p.relative_to(top).as_posix()
        for room in ("embedx", "extractors", "probes")
        for p in (top / room).rglob("*.py")
        if '.part"' in (text := p.read_text(encoding="utf-8")) or "getpid()}" in text
    }
    assert found == own
