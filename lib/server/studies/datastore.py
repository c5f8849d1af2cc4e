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
    """What people are told of an image, in a list.

    Attributes:
        name: of its file, or of the patient and the series.
        detail: a further line; may be empty.
        problem: why it cannot be opened, as far as that is known; a sentence.
    """

    name: str
    detail: str
    problem: str | None = None


class Studies(AnnotationSet):
    """Images, and what annotators made of them. "Annotated" means that every label is answered (`unanswered_labels`).

    Args:
        project: whose folders are there (`open_project`).
        labels: of the app.
        readers: how many people read each study. From 2 on a study is annotated where its readings are decided.
    """

    def __init__(self, project: Project, identity: ProjectIdentity, labels: Sequence[str], readers: int = 1) -> None:
        super().__init__(project, labels, identity.labels, ImageIdentities(project.checksums))
        self.project = project
        self.identity = identity
        self.on_annotation: Callable[[str], None] = lambda name: None
        """Called, with a name for it, after an annotation was stored: an answer to a label, or a final mask."""
        self.leases = Leases(JsonFile(project.leases), readers)
        self.readings = Readings(self, readers, self.leases)
        self.skips = Skips(JsonFile(project.skips))
        self.views = Views(project.views)
        self._info = JsonFile(project.image_info)
        self._lock = threading.Lock()

    # Images: these differ between a folder and an archive.

    @abstractmethod
    def name(self) -> str:
        """Of the folder, or the address of the archive."""

    def image_path(self, image_id: str) -> Path | None:
        """The file of an image that is at hand, absolute, or None."""
        return self.images_at_hand().get(image_id)

    @abstractmethod
    def at_hand(self, image_id: str) -> Path | None:
        """The file of an image where it can be had at once, or None where it has to be fetched first.

        Raises:
            HTTPException: 404, no such image; 502, the archive has never answered.
        """

    @abstractmethod
    def refusal(self, image_id: str) -> str | None:
        """Why an image cannot be opened, as far as that is known without fetching it, or None."""

    @abstractmethod
    def shown(self, until: float = 0.0) -> dict[str, Shown]:
        """What people are told of each image, without fetching any.

        Args:
            until: of `time.monotonic()`; from then on no file is looked at that was not before.
        """

    @abstractmethod
    def get_image_uri(self, image_id: str) -> str:
        """The file of an image, absolute; of an archive it is fetched, which takes a while.

        Raises:
            HTTPException: 404, no such image; 422, one that is no volume; 502, the archive does not answer.
        """

    @abstractmethod
    def image_facts(self, image_id: str) -> dict[str, Any]:
        """What viewers need to find an image, from its file or its archive."""

    # Information about images.

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Facts, and what clients stored with `update_image_info`. Raises: HTTPException: 404."""
        self.require_image(image_id)
        return self._info.get(image_id) | self.image_facts(image_id)

    def update_image_info(self, image_id: str, info: Mapping[str, Any]) -> None:
        """Raises: HTTPException: 404; 507, the disk is full."""
        self.require_image(image_id)
        self.require_project()
        if len(json.dumps(self._info.get(image_id) | dict(info))) > MAX_INFO_CHARACTERS:
            raise HTTPException(413, f"The information of an image may have {MAX_INFO_CHARACTERS} characters at most.")
        self._write("The information", lambda: self._info.change(image_id, lambda kept: kept | dict(info)))

    def require_project(self) -> None:
        """Raises: HTTPException: 503, the folder of annotations is away, as a share that is not mounted."""
        if not self.project.identity.exists():
            raise HTTPException(
                503, "The project's folder is not there, so nothing can be stored; mount it, then retry."
            )

    # Which images are annotated.

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        annotated = self._annotated()
        return [image_id for image_id in self.list_images() if image_id in annotated]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Those that are left to annotate: no skipped ones."""
        left_out = self._annotated() | self.skipped()
        return [image_id for image_id in self.list_images() if image_id not in left_out]

    def worked_on(self, image_id: str, annotator: str) -> None:
        """Somebody has stored clicks or a mask: others are not offered the study meanwhile, and a skip has ended."""
        self.leases.renew(image_id, annotator)
        try:
            self.skips.end(image_id)
        except OSError as error:
            logger.warning("It is not recorded that %s is no longer skipped (%s).", image_id, error.strerror)

    def skipped(self) -> set[str]:
        """The images that were skipped: they are not offered, and nothing is learnt from them."""
        return set(self.skips.all())

    def has_answers(self) -> bool:
        """Has anybody answered a label of the app in any image?"""
        of_people = (
            labels for found in self._annotations().values() for tag, labels in found.items() if tag != PROPOSAL_TAG
        )
        return any(not labels.isdisjoint(self.labels) for labels in of_people)

    def proposal_qualities(self) -> dict[str, float]:
        """The estimated quality of each mask that was made in advance, in [0, 1], by image id."""
        paths = self.masks(PROPOSAL_TAG).paths()
        said = {image_id: self._said_in(PROPOSAL_TAG, image_id, path) for image_id, path in paths.items()}
        return {image_id: one.proposal.quality for image_id, one in said.items() if one.proposal is not None}

    def _annotated(self) -> set[str]:
        return {image_id for image_id, found in self._annotations().items() if not self._unanswered(found)}

    def _unanswered(self, found: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
        """The labels that nobody has answered in an image with these annotations (`_annotations`)."""
        in_store = found.get(CLICK_TAG, frozenset()) if self.readings.people == 1 else frozenset()
        return unanswered_labels(self.labels, in_store, found.get(FINAL_TAG, frozenset()))

    def read_by(self) -> dict[str, set[str]]:
        """Who has read which image, where several people read each."""
        return self.readings.finished() if self.readings.people > 1 else {}

    def decided(self, images: Sequence[str] | None = None) -> set[str]:
        """The images, or those of these, with a final mask that covers all labels."""
        labels = set(self.labels)
        return {i for i, found in self._annotations(images).items() if labels <= found.get(FINAL_TAG, frozenset())}

    def _listed(self) -> dict[str, dict[str, frozenset[str]]]:
        """`_annotations`; where several people read each study those of the decided ones."""
        decided = self.decided() if self.readings.people > 1 else None
        return {i: found for i, found in self._annotations().items() if decided is None or i in decided}

    # Deletion.

    def remove_image(self, image_id: str) -> None:
        """Moves all that belongs to an image into `removed/`. Raises: HTTPException: 404; 507."""
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
        """The files of an image that are the users' own, symbolic links as they are."""

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Moves an annotation into `removed/`: the answers to all labels, or a mask.

        Raises:
            HTTPException: 404; 409, a mask that a reviewer has decided for; 507.
        """
        self.require_label(label_id, label_tag)
        if label_tag == FINAL_TAG and self.readings.people > 1 and self.readings.decision(label_id) is not None:
            raise HTTPException(
                409,
                f"The final mask of {label_id!r} was decided on; take the decision back (DELETE "
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
        """The folder of the users' own image files."""

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
        """Every image as MONAI Label's own lists them: its information, and the tags of its annotations.

        And the labels that each annotation is about, and those of the app that nobody has answered.
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
        """The images with a final mask, by id."""
        return [{"image": i, "label": i} for i, found in sorted(self._listed().items()) if FINAL_TAG in found]
