"""Set the umask, and so who else may read what the app writes."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def set_umask(group: bool) -> None:
    """Closes the files and folders that this process, and those that it starts, will make.

    Args:
        group: the owner's group may read and write too (umask 007); otherwise the owner alone (umask 077).
    """
    os.umask(0o007 if group else 0o077)


def set_umask_of(folder: Path) -> None:
    """Closes what this process will make as a folder is closed: to all but the owner, or also but the group."""
    set_umask(group=folder.is_dir() and bool(folder.stat().st_mode & stat.S_IWGRP))
