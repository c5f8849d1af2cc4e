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
    """Write to a temporary name in the same folder, flush to disk, and rename into place.

    The file mode is that of an ordinary new file, by the umask of the process.

    Args:
        durable: wait until the file is on the disk, which takes milliseconds. Without it, a killed process still leaves
            the old or the new file, but a power cut may leave a damaged one.

    Raises:
        OSError: the file system refuses; the old file is then intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # tempfile ignores the umask and denies access to the group.
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    file = open(temporary, "xb")  # noqa: SIM115 (only a file that this call made may be removed)
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
    # Without this, a power cut can undo the rename.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder under a temporary name beside `folder`; rename it at the end of the block, delete it on an error.

    Raises:
        FileExistsError: a file or folder of this name exists.
        OSError: the file system refuses.
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
