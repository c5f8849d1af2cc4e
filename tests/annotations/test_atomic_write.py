"""Files that appear whole, with the mode of ordinary files."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.annotations.atomic_write import write_atomically
from lib.server.process.modes import set_umask


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize(("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750), (0, 0o666, 0o777)])
def test_mode_is_that_of_the_umask(tmp_path: Path, umask: int, file: int, folder: int) -> None:
    os.umask(umask)
    path = tmp_path / "new" / "folder" / "file"
    write_atomically(path, b"content")
    assert (mode(path), mode(path.parent), mode(path.parent.parent)) == (file, folder, folder)


@pytest.mark.parametrize(("group", "file", "folder"), [(False, 0o600, 0o700), (True, 0o660, 0o770)])
def test_patients_data_are_for_the_owner_or_the_group(tmp_path: Path, group: bool, file: int, folder: int) -> None:
    set_umask(group)
    write_atomically(tmp_path / "new" / "file", b"content")
    assert (mode(tmp_path / "new" / "file"), mode(tmp_path / "new")) == (file, folder)


def test_file_that_was_open_to_all_is_closed_by_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o666)
    set_umask(group=False)
    write_atomically(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)


def test_file_that_the_disk_is_not_waited_for_is_whole_too(tmp_path: Path, failing: Any) -> None:
    with failing("fsync"):
        write_atomically(tmp_path / "file", b"new", durable=False)

    assert (tmp_path / "file").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, failing: Any, step: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with failing(step), pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_a_file_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file" / "below", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_many_writers_leave_one_whole_file(tmp_path: Path) -> None:
    contents = [bytes([65 + number]) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_atomically, args=(tmp_path / "file", c)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
