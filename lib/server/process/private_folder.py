"""Make the server's folder for temporary files, readable by its user only, removed at its end."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import psutil

_PREFIX = "inextremis-"


def make_private_folder() -> Path:
    """Makes a new folder of mode 700 the place of this process' temporary files, and removes those of dead servers."""
    system = Path(tempfile.gettempdir())
    for left in system.glob(f"{_PREFIX}*"):
        if is_left_over(left, _PREFIX):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=system))
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    atexit.register(_remove, folder, os.getpid())
    return folder


def new_temporary_file(extension: str) -> tuple[int, str]:
    """An open descriptor and the path of a new file, as `mkstemp`; its folder is made anew where somebody cleaned up.

    Raises:
        OSError: as from the file system.
    """
    Path(tempfile.gettempdir()).mkdir(mode=0o700, exist_ok=True)
    return tempfile.mkstemp(suffix=extension)


def is_left_over(folder: Path, prefix: str) -> bool:
    """Was a folder `<prefix><process>-...` made as this user, by a process that has ended?"""
    process = folder.name.removeprefix(prefix).partition("-")[0]
    try:
        is_own = folder.lstat().st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink()
    except OSError:
        return False
    is_number = process.isdecimal() and len(process) < 10
    return is_own and is_number and not psutil.pid_exists(int(process))


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # and not a fork of it
        shutil.rmtree(folder, ignore_errors=True)
