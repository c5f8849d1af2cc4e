"""List the images of a server and the annotations of its project, by the methods of MONAI Label's `Datastore`."""

from __future__ import annotations

import json
import logging
import threading
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import HTTPException

from lib.activelearning.leases import Leases
from lib.annotations.completeness import unanswered_labels
from lib.annotations.image_identity import ImageIdentities
from lib.annotations.json_file import JsonFile
from lib.annotations.proposal import PROPOSAL_TAG
from lib.data.prepared_scans import PreparedScans
from lib.server.http.disk_full import writing
from lib.server.masks.annotation_set import AnnotationSet
from lib.server.project import CLICK_TAG, FINAL_TAG, Project, ProjectIdentity
from lib.server.review.readings import Readings
from lib.server.studies.removal import remove_files
from lib.server.studies.skips import Skips
from lib.server.studies.views import Views

logger = logging.getLogger(__name__)

MAX_INFO_CHARACTERS = 100_000


class Shown(NamedTuple):
    """Row of an image in a list of studies.

    Attributes:
        name: file name, or patient and description of the series.
        detail: second line; may be empty.
        problem: sentence that says why the image cannot be opened; None if no problem is known.
    """

    name: str
    detail: str
    problem: str | None = None


class Studies(AnnotationSet):
    """Images and their annotations. An image is annotated if every label is answered (`unanswered_labels`).

    Args:
        project: project with existing folders (`open_project`).
        labels: labels of the app.
        readers: number of readers of each study. With 2 or more, an image is annotated if its readings are decided.
    """

    def __init__(self, project: Project, identity: ProjectIdentity, labels: Sequence[str], readers: int = 1) -> None:
        super().__init__(project, labels, identity.labels, ImageIdentities(project.checksums))
        self.project = project
        self.identity = identity
        self.on_annotation: Callable[[str], None] = lambda name: None
        """Called with a name of the annotation after an answer to a label or a final mask was stored."""
        self.leases = Leases(JsonFile(project.leases), readers)
        self.readings = Readings(self, readers, self.leases)
        self.skips = Skips(JsonFile(project.skips))
        self.views = Views(project.views)
        self._info = JsonFile(project.image_info)
        self._lock = threading.Lock()

    # Images: these methods differ between a folder and an archive.

    @abstractmethod
    def name(self) -> str:
        """Return the name of the folder, or the URL of the archive."""

    def image_path(self, image_id: str) -> Path | None:
        """Return the absolute path of a local image; None if it is not local."""
        return self.local_images().get(image_id)

    @abstractmethod
    def local_file(self, image_id: str) -> Path | None:
        """Return the file of an image; None if it must be fetched first.

        Raises:
            HTTPException: 404, no such image; 502, the archive has never answered.
        """

    @abstractmethod
    def refusal(self, image_id: str) -> str | None:
        """Return the known reason why an image cannot be opened, without fetching it; None if there is none."""

    @abstractmethod
    def shown(self, until: float = 0.0) -> dict[str, Shown]:
        """Return the row of each image, by id, without fetching images.

        Args:
            until: end of the time for reading headers of new files, as `time.monotonic()` counts.
        """

    @abstractmethod
    def get_image_uri(self, image_id: str) -> str:
        """Return the absolute path of an image; images of an archive are fetched first.

        Raises:
            HTTPException: 404, no such image; 422, one that is no volume; 502, the archive does not answer.
        """

    @abstractmethod
    def image_facts(self, image_id: str) -> dict[str, Any]:
        """Return the attributes by which viewers find an image."""

    # Information about images.

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return the attributes of an image, and the information that clients stored.

        Raises:
            HTTPException: 404, no such image.
        """
        self.require_image(image_id)
        return self._info.get(image_id) | self.image_facts(image_id)

    def update_image_info(self, image_id: str, info: Mapping[str, Any]) -> None:
        """Store information of a client about an image, beside what is stored already.

        Raises:
            HTTPException: 404, no such image; 413, too much information; 507, the disk is full.
        """
        self.require_image(image_id)
        self.require_project()
        if len(json.dumps(self._info.get(image_id) | dict(info))) > MAX_INFO_CHARACTERS:
            raise HTTPException(413, f"The information of an image may have {MAX_INFO_CHARACTERS} characters at most.")
        self._write("The information", lambda: self._info.change(image_id, lambda kept: kept | dict(info)))

    def require_project(self) -> None:
        """Raise an error if the project's folder is missing, as a share that is not mounted.

        Raises:
            HTTPException: 503, the folder is missing.
        """
        if not self.project.identity.exists():
            raise HTTPException(
                503, "The project's folder is not there, so nothing can be stored; mount it, then retry."
            )

    # Which images are annotated.

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        annotated = self._annotated()
        return [image_id for image_id in self.list_images() if image_id in annotated]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the ids of the images left to annotate, without skipped ones."""
        left_out = self._annotated() | self.skipped()
        return [image_id for image_id in self.list_images() if image_id not in left_out]

    def record_work(self, image_id: str, annotator: str) -> None:
        """Renew the annotator's lease of an image and end its skip, after clicks or a mask were stored."""
        self.leases.renew(image_id, annotator)
        try:
            self.skips.end(image_id)
        except OSError as error:
            logger.warning("The skip of %s could not be ended (%s).", image_id, error.strerror)

    def skipped(self) -> set[str]:
        """Return the ids of skipped images, which are neither offered nor used for training."""
        return set(self.skips.all())

    def has_answers(self) -> bool:
        """Tell whether a label of the app is answered in any image."""
        of_people = (
            labels for found in self._annotations().values() for tag, labels in found.items() if tag != PROPOSAL_TAG
        )
        return any(not labels.isdisjoint(self.labels) for labels in of_people)

    def proposal_qualities(self) -> dict[str, float]:
        """Return the estimated quality of each proposal, in [0, 1], by image id."""
        paths = self.masks(PROPOSAL_TAG).paths()
        summaries = {image_id: self._summary_in(PROPOSAL_TAG, image_id, path) for image_id, path in paths.items()}
        return {image_id: one.proposal.quality for image_id, one in summaries.items() if one.proposal is not None}

    def _annotated(self) -> set[str]:
        return {image_id for image_id, found in self._annotations().items() if not self._unanswered(found)}

    def _unanswered(self, found: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
        """Return the unanswered labels of an image with these annotations (see `_annotations`)."""
        in_store = found.get(CLICK_TAG, frozenset()) if self.readings.people == 1 else frozenset()
        return unanswered_labels(self.labels, in_store, found.get(FINAL_TAG, frozenset()))

    def read_by(self) -> dict[str, set[str]]:
        """Return the readers that have finished each image; empty if the project has a single reader per study."""
        return self.readings.finished() if self.readings.people > 1 else {}

    def decided(self, images: Sequence[str] | None = None) -> set[str]:
        """Return the images with a final mask that covers all labels.

        Args:
            images: ids of the images to check; default: all.
        """
        labels = set(self.labels)
        return {i for i, found in self._annotations(images).items() if labels <= found.get(FINAL_TAG, frozenset())}

    def _listed(self) -> dict[str, dict[str, frozenset[str]]]:
        """Return the annotations by image id; with several readers per study, only those of decided studies."""
        decided = self.decided() if self.readings.people > 1 else None
        return {i: found for i, found in self._annotations().items() if decided is None or i in decided}

    # Deletion.

    def remove_image(self, image_id: str) -> None:
        """Move the files of an image and of its annotations into `removed/`.

        Raises:
            HTTPException: 404, no such image; 507, the disk is full.
        """
        self.require_image(image_id)
        path = self.image_path(image_id)
        checksum = self.identities.known(path) if path is not None else None
        self._remove(
            image_id, [*self.image_files(image_id), *self.annotation_files(image_id), *self.readings.files(image_id)]
        )
        self.forget_copies(image_id)
        self.readings.forget_copies(image_id)
        if checksum is not None:
            PreparedScans(self.project.prepared).forget(checksum)
        self.views.forget(image_id)
        self._write("The deletion", lambda: self._info.change(image_id, lambda kept: None))
        own = self.project
        for file in (own.leases, own.review_leases, own.agreements, own.skips):
            self._forget(file, image_id)

    @abstractmethod
    def image_files(self, image_id: str) -> list[Path]:
        """Return the user's files of an image, without resolving symbolic links."""

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Move an annotation into `removed/`: the answers to all labels, or a mask.

        Raises:
            HTTPException: 404, no such annotation; 409, the mask is the decision of a reviewer; 507, the disk is full.
        """
        self.require_label(label_id, label_tag)
        if label_tag == FINAL_TAG and self.readings.people > 1 and self.readings.decision(label_id) is not None:
            raise HTTPException(
                409,
                f"The final mask of {label_id!r} is a reviewer's decision; take it back (DELETE "
                "/readings/IMAGE/decision).",
            )
        if label_tag == CLICK_TAG:
            self._remove(label_id, self.click_files(label_id))
        else:
            self._remove(label_id, self.masks(label_tag).files(label_id))

    def _forget(self, file: Path, image_id: str) -> None:
        if file.exists():
            self._write("The deletion", lambda: JsonFile(file).change(image_id, lambda kept: None))

    def _remove(self, image_id: str, files: Sequence[Path]) -> None:
        self._write("The deletion", lambda: remove_files(self.project, image_id, files, self.image_folder))

    @property
    @abstractmethod
    def image_folder(self) -> Path:
        """Folder of the user's image files."""

    @staticmethod
    def _write(what: str, write: Callable[[], Any]) -> Any:
        gone = HTTPException(404, f"{what} was done by somebody else just now.")
        with writing(what, "written", gone=gone):
            return write()

    # Listings.

    def status(self) -> dict[str, Any]:
        annotations = self._listed()
        counts = Counter(tag for found in annotations.values() for tag in found)
        completed = sum(not self._unanswered(found) for found in annotations.values())
        return {"total": len(self.list_images()), "completed": completed, "label_tags": dict(counts)}

    def json(self) -> dict[str, Any]:
        """Return all images in the format of MONAI Label's datastore: information, and annotations by tag.

        The labels of each annotation and the unanswered labels of each image are added.
        """
        annotations, info = self._listed(), self._info.items()
        return {
            "name": self.name(),
            "description": "Studies with extreme points and masks",
            "objects": {
                image_id: {
                    "image": {"info": info.get(image_id, {})},
                    "labels": {
                        tag: {"info": {"labels": sorted(labels)}}
                        for tag, labels in annotations.get(image_id, {}).items()
                    },
                    "unanswered": list(self._unanswered(annotations.get(image_id, {}))),
                }
                for image_id in self.list_images()
            },
        }

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Return the ids of the images with a final mask."""
        return [{"image": i, "label": i} for i, found in sorted(self._listed().items()) if FINAL_TAG in found]
