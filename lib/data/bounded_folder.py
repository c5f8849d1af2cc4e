"""Limit the size of cache folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def make_room(folder: Path, names: Iterable[str], limit_bytes: int, new_bytes: int) -> None:
    """Delete the least recently used files until new ones fit below the limit.

    Processes may share the folder; a file that is in use stays readable.

    Args:
        names: patterns of its files.
        limit_bytes: maximum size of the folder.
        new_bytes: size of the new files.
    """
    used: list[tuple[float, int, Path]] = []
    # A process that was killed during a write leaves a partial file.
    for path in (path for pattern in (*names, ".*.part") for path in folder.glob(pattern)):
        try:
            status = path.stat()
        except FileNotFoundError:  # another process made room
            continue
        used.append((status.st_mtime, status.st_size, path))
    total = new_bytes + sum(size for _, size, _ in used)
    for _, size, path in sorted(used, key=lambda file: file[0]):
        if total <= limit_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size
