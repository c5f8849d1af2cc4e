"""Write files and folders so that a reader finds the old or the new one, never a part."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Writes to a temporary name in the same folder, flushes to disk, and renames into place.

    The file gets the mode of an ordinary new file, by the umask of the process.

    Args:
        durable: wait until the disk has the file, which takes milliseconds. Without it a killed process still leaves
            the old or the new file, but a power cut may leave a damaged one.

    Raises:
        OSError: as from the file system; the old file, if there is one, is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not from tempfile, which closes its files to the group whatever the umask is.
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    file = open(temporary, "xb")  # noqa: SIM115 (the file is removed only where this call has made it)
    try:
        with file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if not durable:
        return
    # Without this the rename itself can be lost in a power cut.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields a folder under a temporary name beside `folder`, renamed at the end of the block, or deleted on an error.

    Raises:
        FileExistsError: there is something of this name already.
        OSError: as from the file system.
    """
    if folder.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
    part = folder.absolute().with_name(f".{secrets.token_hex(8)}.part")
    part.mkdir(parents=True)
    try:
        yield part
        part.rename(folder.absolute())
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
