"""Serve the images of a folder as studies."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from lib.annotations.image_identity import Stamp, file_stamp
from lib.annotations.names import check_image_id
from lib.geometry.volume import VolumeError, load_volume, read_geometry
from lib.geometry.volume_files import EXTENSIONS
from lib.server.project import Project, ProjectIdentity
from lib.server.studies.datastore import Shown, Studies

logger = logging.getLogger(__name__)


class FolderStudies(Studies):
    """The .nii.gz, .nii and .nrrd files of a folder, without its subfolders and hidden files.

    The folder is listed at each request, so that new, renamed and deleted files count at once.

    Args:
        folder: absolute path.
    """

    def __init__(
        self, folder: Path, project: Project, identity: ProjectIdentity, labels: Sequence[str], readers: int = 1
    ) -> None:
        super().__init__(project, identity, labels, readers)
        self.folder = folder
        self._warned: set[str] = set()
        self._problems: dict[Path, tuple[Stamp | None, str | None]] = {}
        self._file_checksums: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def name(self) -> str:
        return self.folder.name

    @property
    def image_folder(self) -> Path:
        return self.folder

    def list_images(self) -> list[str]:
        return sorted(self.local_images())

    def local_images(self) -> dict[str, Path]:
        """Return all images by id. Of two files with one id, the one whose extension comes first is listed."""
        paths: dict[str, Path] = {}
        try:
            names = sorted(name for name in os.listdir(self.folder) if not name.startswith("."))
        except OSError as error:
            raise HTTPException(
                503, f"The studies folder cannot be read ({error.strerror}); check that it exists and is mounted."
            ) from error
        for extension in EXTENSIONS:
            for name in names:
                image_id = name.removesuffix(extension)
                if image_id != name and self._can_be_served(name, image_id, paths):
                    paths[image_id] = self.folder / name
        return paths

    def _can_be_served(self, name: str, image_id: str, paths: dict[str, Path]) -> bool:
        try:
            check_image_id(image_id)
        except ValueError as error:
            self._warn(name, str(error))
            return False
        if image_id in paths:
            self._warn(name, f"The image {paths[image_id].name} has the same id.")
            return False
        path = os.path.join(self.folder, name)
        if not os.path.isfile(path):
            return False
        if not os.access(path, os.R_OK):
            self._warn(name, "The server may not read it; change its permissions.")
            return False
        return True

    def _warn(self, name: str, reason: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning("The file %a is not listed. %s", name, reason)

    def local_file(self, image_id: str) -> Path:
        path = self.image_path(image_id)
        if path is None:
            raise HTTPException(404, f"There is no image {image_id[:80]!r} in the studies.")
        return path

    def refusal(self, image_id: str) -> str | None:
        try:
            read_geometry(self.local_file(image_id))
        except VolumeError as error:
            return str(error)
        return None

    def shown(self, until: float = 0.0) -> dict[str, Shown]:
        return {
            image_id: Shown(path.name, "", self._known_problem(path, until))
            for image_id, path in self.local_images().items()
        }

    def _known_problem(self, path: Path, until: float) -> str | None:
        """Return what is wrong with the header of a file, which is read once for each version of the file."""
        stamp, kept = file_stamp(path), self._problems.get(path)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        if time.monotonic() > until:
            return None
        try:
            read_geometry(path)
            sentence = None
        except VolumeError as error:
            sentence = str(error)
        self._problems[path] = (stamp, sentence)
        return sentence

    def get_image_uri(self, image_id: str) -> str:
        return str(self.local_file(image_id))

    def image_files(self, image_id: str) -> list[Path]:
        path = self.image_path(image_id)
        return [] if path is None else [path]

    def image_facts(self, image_id: str) -> dict[str, Any]:
        """Return the file name, and the checksum by which Slicer knows whether it has downloaded the file already."""
        path = self.local_file(image_id)
        return {"name": path.name, "checksum": f"SHA256:{self.file_checksum(path)}"}

    def file_checksum(self, path: Path) -> str:
        """Compute the SHA-256 of a file, once for each version of the file, as hexadecimal digits."""
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        kept = self._file_checksums.get(path)
        if kept is None or kept[0] != stamp:
            with path.open("rb") as file:
                kept = self._file_checksums[path] = (stamp, hashlib.file_digest(file, "sha256").hexdigest())
        return kept[1]

    def add_volume(self, image_id: str, upload: Path, extension: str) -> None:
        """Add an uploaded image. An existing image is never replaced.

        Args:
            upload: uploaded file, which is copied.
            extension: extension of the new file, one of `EXTENSIONS`.

        Raises:
            HTTPException: 409, the image exists; 422, not a volume, or not a valid name; 507, the disk is full.
        """
        self.require_project()
        try:
            check_image_id(image_id)
            self._require_new(image_id)
            load_volume(upload)
        except (ValueError, VolumeError) as error:
            raise HTTPException(422, str(error).replace(upload.name, f"{image_id}{extension}")) from error
        with self._lock:
            self._require_new(image_id)
            self._write("The image", lambda: self._copy_new(upload, self.folder / f"{image_id}{extension}"))

    def _require_new(self, image_id: str) -> None:
        if any(os.path.lexists(self.folder / f"{image_id}{end}") for end in EXTENSIONS):
            raise HTTPException(409, f"There is an image {image_id!r} already; give this one another name.")

    @staticmethod
    def _copy_new(upload: Path, path: Path) -> None:
        """Copy to a hidden file, then rename it unless the target exists."""
        part = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            shutil.copyfile(upload, part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            try:
                os.link(part, path)
            except FileExistsError:
                raise
            except OSError:  # the file system has no hard links
                path.open("xb").close()
                os.replace(part, path)
        except FileExistsError as error:
            raise HTTPException(409, f"There is an image {path.name} already.") from error
        finally:
            part.unlink(missing_ok=True)
