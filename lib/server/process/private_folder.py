"""Create the server's folder for temporary files: readable by its user only, removed at exit."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import psutil

_PREFIX = "inextremis-"


def make_private_folder() -> Path:
    """Create a folder of mode 700 for this process's temporary files, and remove those of dead servers."""
    system = Path(tempfile.gettempdir())
    for existing in system.glob(f"{_PREFIX}*"):
        if is_left_over(existing, _PREFIX):
            shutil.rmtree(existing, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=system))
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    atexit.register(_remove, folder, os.getpid())
    return folder


def new_temporary_file(extension: str) -> tuple[int, str]:
    """Create a temporary file and return its descriptor and path, as `mkstemp`; restore its folder if it is missing.

    Raises:
        OSError: The file cannot be created.
    """
    Path(tempfile.gettempdir()).mkdir(mode=0o700, exist_ok=True)
    return tempfile.mkstemp(suffix=extension)


def is_left_over(folder: Path, prefix: str) -> bool:
    """Tell whether a folder `<prefix><process>-...` belongs to this user and its process has ended."""
    process = folder.name.removeprefix(prefix).partition("-")[0]
    try:
        is_own = folder.lstat().st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink()
    except OSError:
        return False
    is_number = process.isdecimal() and len(process) < 10
    return is_own and is_number and not psutil.pid_exists(int(process))


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not in a fork
        shutil.rmtree(folder, ignore_errors=True)
