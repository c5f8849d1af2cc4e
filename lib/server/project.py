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
    """Project folder that cannot be used; the text is for the user."""


@dataclass(frozen=True)
class Project:
    """Annotations, models and logs of one set of studies.

    Attributes:
        folder: The studies folder; a separate folder for an archive or for read-only studies.
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
        """Deleted images and annotations, which can be restored."""
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
        """Volumes of the series that hold several, in an archive."""
        return self.own / "series_images.json"

    @property
    def leases(self) -> Path:
        """Reservations of studies by annotators."""
        return self.own / "leases.json"

    @property
    def skips(self) -> Path:
        """Skipped studies, with the reasons."""
        return self.own / "skips.json"

    @property
    def readings(self) -> Path:
        """Annotations of the readers, one folder for each."""
        return self.folder / "readings"

    @property
    def agreements(self) -> Path:
        """Agreement of the readings of each study, a cache."""
        return self.own / "agreements.json"

    @property
    def review_leases(self) -> Path:
        """Reservations of studies by reviewers."""
        return self.own / "review_leases.json"

    @property
    def pre_annotation(self) -> Path:
        """Progress of pre-annotation (`lib.server.jobs.proposal_progress`)."""
        return self.own / "pre_annotation.json"

    @property
    def pre_annotation_lock(self) -> Path:
        """Lock that allows one run of pre-annotation at a time."""
        return self.own / "pre_annotation.lock"

    @property
    def prepared(self) -> Path:
        """Scans on the network's grid, a cache that may be deleted at any time."""
        return self.own / "prepared"

    @property
    def views(self) -> Path:
        """Scans in the form that the annotation page loads, a cache that may be deleted at any time."""
        return self.own / "views"

    @property
    def checksums(self) -> Path:
        return self.own / "checksums.json"

    @property
    def mapped_masks(self) -> Path:
        return self.own / "mapped_masks"

    @property
    def given_masks(self) -> Path:
        """Latest mask of each annotator, kept until it is accepted or the clicks change."""
        return self.own / "given_masks"

    @property
    def login_sessions(self) -> Path:
        return self.own / "login_sessions.json"

    @property
    def old_index(self) -> Path:
        """MONAI Label's index, which exists in projects of earlier versions."""
        return self.folder / "datastore_v2.json"


def is_archive(studies: str) -> bool:
    """Tell whether the studies are the address of an archive rather than a folder."""
    return studies.lower().startswith(("http://", "https://"))


def project_of(studies: str, project_dir: Path | None = None) -> Project:
    """Return the project of an image folder or the address of an archive; `project_dir` is the setting of that name."""
    if project_dir is not None:
        return Project(project_dir)
    return Project(_archive_folders(studies)[0] if is_archive(studies) else Path(studies).absolute())


def images_of(studies: str) -> Path:
    """Return the folder of the image files: the user's folder, or the cache of an archive's volumes."""
    return archive_cache(studies) / "volumes" if is_archive(studies) else Path(studies).absolute()


def archive_cache(address: str) -> Path:
    """Return the folder for data that can be fetched from an archive again."""
    return _archive_folders(address)[1]


def _archive_folders(address: str) -> tuple[Path, Path]:
    """Return the folders of the project and of the cache; MONAI_LABEL_DICOMWEB_CACHE_PATH sets a parent of both."""
    name = archive_hash(address)
    parent = os.environ.get("MONAI_LABEL_DICOMWEB_CACHE_PATH", "").strip()
    if parent:
        folder = Path(parent).absolute() / name
        return folder, folder / "cache"
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share").absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    return data / "inextremis" / name, cache / "inextremis" / name


def archive_hash(address: str) -> str:
    """Return the name of an archive's folders, which is the same as MONAI Label's."""
    return hashlib.md5(address.rstrip("/").encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class ProjectIdentity:
    """Identity of a project.

    Attributes:
        id: Permanent id of the project.
        labels: Labels of the app when the project was created; they define the values of masks without label names.
        is_new: The project was just created.
    """

    id: str
    labels: tuple[str, ...]
    is_new: bool = field(default=False, compare=False)


def open_project(project: Project, labels: Sequence[str]) -> ProjectIdentity:
    """Create the missing folders of a project and return its identity.

    Args:
        labels: Labels of the app.

    Raises:
        ProjectError: The folder cannot be read and written.
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
    """Return the labels of the app when the project was created; none if they are not recorded."""
    identity = _recorded_identity(project)
    return () if identity is None else identity.labels


def project_id(project: Project) -> str | None:
    """Return the id of an existing project; None if there is none."""
    identity = _recorded_identity(project)
    return None if identity is None else identity.id


def _recorded_identity(project: Project) -> ProjectIdentity | None:
    try:
        return _read_identity(project.identity)
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
        backup = path.with_suffix(f".{datetime.now(UTC):%Y%m%dT%H%M%S%f}.corrupt")
        path.rename(backup)
        logger.error(
            "%s cannot be read (%r). It is kept as %s; the project gets a new id.", path.name, error, backup.name
        )
        return None


def claim_model(model_dir: Path, identity: ProjectIdentity, name: str) -> str | None:
    """Record that a model folder belongs to a project, unless its project is already recorded.

    Args:
        name: Name of the studies, for messages.

    Returns:
        The name of the studies that the model belongs to, if it belongs to another project; else None.

    Raises:
        ProjectError: The folder cannot be read and written.
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
