"""Write the volumes that clients upload to temporary files."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from fastapi import HTTPException, UploadFile

from lib.geometry.volume_files import EXTENSIONS
from lib.server.http.disk_full import writing
from lib.server.process.private_folder import new_temporary_file


def name_and_extension(upload: UploadFile) -> tuple[str, str]:
    """Return the name of an uploaded volume without its extension, and the extension.

    Slicer's client sends the path of the file on its own machine; only the last part is used.

    Raises:
        HTTPException: 422, the extension is not that of a volume.
    """
    name = re.split(r"[/\\]", upload.filename or "")[-1]
    extension = next((extension for extension in EXTENSIONS if name.endswith(extension)), None)
    if extension is None:
        raise HTTPException(422, f"The file is {name[:80]!r}; expected a volume: {', '.join(EXTENSIONS)}.")
    return name.removesuffix(extension), extension


def stored_upload(upload: UploadFile) -> Path:
    """Write an upload to a temporary file with its extension, which the caller has to delete.

    Raises:
        HTTPException: 422, the extension is not that of a volume; 507, the disk is full.
    """
    _, extension = name_and_extension(upload)
    with writing("The upload"):
        descriptor, name = new_temporary_file(extension)
        try:
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(upload.file, file)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    return Path(name)
