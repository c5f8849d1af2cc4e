"""Set the umask, which limits who may read the app's files."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def set_umask(group: bool) -> None:
    """Restrict the files and folders that this process and its children create.

    Args:
        group: Allow the owner's group to read and write (umask 007); otherwise only the owner (umask 077).
    """
    os.umask(0o007 if group else 0o077)


def set_umask_of(folder: Path) -> None:
    """Restrict new files as a folder is restricted: to its owner, or to its owner and group."""
    set_umask(group=folder.is_dir() and bool(folder.stat().st_mode & stat.S_IWGRP))
