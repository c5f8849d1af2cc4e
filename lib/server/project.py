"""Define every path of a project, and open projects."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lib.annotations.atomic_write import write_atomically

logger = logging.getLogger(__name__)

CLICK_TAG, FINAL_TAG = "extreme_points", "final"
_NO_IDENTITY = (ValueError, KeyError, TypeError, RecursionError)


class ProjectError(RuntimeError):
    """A project folder that cannot be used; its text is for the user."""


@dataclass(frozen=True)
class Project:
    """Annotations, models and logs of one set of studies.

    Attributes:
        folder: the studies folder itself, or a folder of its own for an archive or for read-only studies.
    """

    folder: Path

    @property
    def labels(self) -> Path:
        return self.folder / "labels"

    @property
    def clicks(self) -> Path:
        return self.labels / CLICK_TAG

    def masks(self, tag: str = FINAL_TAG) -> Path:
        return self.labels / tag

    @property
    def removed(self) -> Path:
        """Deleted files, which can be restored."""
        return self.folder / "removed"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def audit(self) -> Path:
        """The audit log."""
        return self.folder / "audit"

    @property
    def own(self) -> Path:
        """Internal files of the server."""
        return self.folder / ".inextremis"

    @property
    def identity(self) -> Path:
        return self.own / "project.json"

    @property
    def image_info(self) -> Path:
        return self.own / "image_info.json"

    @property
    def series_images(self) -> Path:
        """Of an archive, the volumes of the series that have several."""
        return self.own / "series_images.json"

    @property
    def leases(self) -> Path:
        """Who works on which study."""
        return self.own / "leases.json"

    @property
    def skips(self) -> Path:
        """The studies that were skipped, with the reason."""
        return self.own / "skips.json"

    @property
    def readings(self) -> Path:
        """Annotations of each reader, in a folder for each of them."""
        return self.folder / "readings"

    @property
    def agreements(self) -> Path:
        """How far the readings of each study agree, computed again where it is missing."""
        return self.own / "agreements.json"

    @property
    def review_leases(self) -> Path:
        """Which reviewer looks at which study."""
        return self.own / "review_leases.json"

    @property
    def pre_annotation(self) -> Path:
        """Progress of pre-annotation (`lib.server.jobs.proposal_progress`)."""
        return self.own / "pre_annotation.json"

    @property
    def pre_annotation_lock(self) -> Path:
        """Lock of the one run of pre-annotation."""
        return self.own / "pre_annotation.lock"

    @property
    def prepared(self) -> Path:
        """Scans on the network's grid, a cache that may be deleted at any time."""
        return self.own / "prepared"

    @property
    def views(self) -> Path:
        """Scans as the annotation page loads them, a cache that may be deleted at any time."""
        return self.own / "views"

    @property
    def checksums(self) -> Path:
        return self.own / "checksums.json"

    @property
    def mapped_masks(self) -> Path:
        return self.own / "mapped_masks"

    @property
    def given_masks(self) -> Path:
        """The masks that annotators were given last, until they are accepted or other clicks come."""
        return self.own / "given_masks"

    @property
    def login_sessions(self) -> Path:
        return self.own / "login_sessions.json"

    @property
    def old_index(self) -> Path:
        """MONAI Label's index, which projects of earlier versions have."""
        return self.folder / "datastore_v2.json"


def is_archive(studies: str) -> bool:
    """Is it the address of an archive, and not a folder?"""
    return studies.lower().startswith(("http://", "https://"))


def project_of(studies: str, project_dir: Path | None = None) -> Project:
    """The project of a folder of images, or of the address of an archive.

    Args:
        project_dir: the setting of that name, where it was given.
    """
    if project_dir is not None:
        return Project(project_dir)
    return Project(_archive_folders(studies)[0] if is_archive(studies) else Path(studies).absolute())


def images_of(studies: str) -> Path:
    """The folder with the image files: that of the user, or an archive's volumes that were fetched."""
    return archive_cache(studies) / "volumes" if is_archive(studies) else Path(studies).absolute()


def archive_cache(address: str) -> Path:
    """The folder for what can be fetched from an archive again."""
    return _archive_folders(address)[1]


def _archive_folders(address: str) -> tuple[Path, Path]:
    """Of the project and of the cache. MONAI_LABEL_DICOMWEB_CACHE_PATH names one place for both."""
    name = archive_hash(address)
    named = os.environ.get("MONAI_LABEL_DICOMWEB_CACHE_PATH", "").strip()
    if named:
        folder = Path(named).absolute() / name
        return folder, folder / "cache"
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share").absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    return data / "inextremis" / name, cache / "inextremis" / name


def archive_hash(address: str) -> str:
    """Name of an archive's folders; MONAI Label's own uses the same."""
    return hashlib.md5(address.rstrip("/").encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class ProjectIdentity:
    """What a project is known by.

    Attributes:
        id: of the project, for ever.
        labels: of the app when the project began; the values of masks that do not name their labels.
        is_new: was it opened for the first time just now?
    """

    id: str
    labels: tuple[str, ...]
    is_new: bool = field(default=False, compare=False)


def open_project(project: Project, labels: Sequence[str]) -> ProjectIdentity:
    """Makes the folders of a project that are missing.

    Args:
        labels: of the app.

    Raises:
        ProjectError: the folder cannot be read and written.
    """
    try:
        for folder in (project.clicks, project.masks(), project.identity.parent):
            folder.mkdir(parents=True, exist_ok=True)
        identity = _identity(project.identity)
        if identity is None:
            identity = ProjectIdentity(uuid.uuid4().hex, tuple(labels), is_new=True)
            content = {"id": identity.id, "labels": list(identity.labels)}
            write_atomically(project.identity, json.dumps(content, indent=1).encode())
        if not os.access(project.clicks, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ProjectError(
            f"The folder {project.folder} cannot be written ({error.strerror}), and annotations are kept in it; allow "
            "it, or name another with --conf project_dir /absolute/folder."
        ) from error
    return identity


def first_labels(project: Project) -> tuple[str, ...]:
    """The labels of the app when the project began; none where that is not recorded."""
    try:
        return _read_identity(project.identity).labels
    except (OSError, *_NO_IDENTITY):
        return ()


def project_id(project: Project) -> str | None:
    """The id of a project that is there; None where there is none."""
    try:
        return _read_identity(project.identity).id
    except (OSError, *_NO_IDENTITY):
        return None


def _read_identity(path: Path) -> ProjectIdentity:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return ProjectIdentity(str(content["id"]), tuple(map(str, content["labels"])))


def _identity(path: Path) -> ProjectIdentity | None:
    try:
        return _read_identity(path)
    except FileNotFoundError:
        return None
    except _NO_IDENTITY as error:
        kept = path.with_suffix(f".{datetime.now(UTC):%Y%m%dT%H%M%S%f}.corrupt")
        path.rename(kept)
        logger.error(
            "%s cannot be read (%r). It is kept as %s; the project gets a new id.", path.name, error, kept.name
        )
        return None


def claim_model(model_dir: Path, identity: ProjectIdentity, name: str) -> str | None:
    """Records whose model a folder holds, where that is not recorded.

    Args:
        name: of the studies, for people.

    Returns:
        The name of the studies that the model belongs to, where they are others; else None.

    Raises:
        ProjectError: the folder cannot be written.
    """
    path = model_dir / "project.json"
    try:
        owner = json.loads(path.read_bytes())
        return None if owner["id"] == identity.id else str(owner["studies"])
    except (ValueError, KeyError, TypeError, RecursionError):
        logger.warning("%s in the model's folder cannot be read and is replaced.", path.name)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ProjectError(f"The model's folder {model_dir} cannot be read ({error.strerror}).") from error
    try:
        write_atomically(path, json.dumps({"id": identity.id, "studies": name}).encode())
    except OSError as error:
        raise ProjectError(
            f"The model's folder {model_dir} cannot be written ({error.strerror}); allow it, or name another with "
            "--conf model_dir /absolute/folder."
        ) from error
    return None
