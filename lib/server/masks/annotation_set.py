"""Store and list the annotations of a project, or of one reader (`lib.server.review.readings`)."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import HTTPException

from lib.annotations.given_masks import GivenMaskStore
from lib.annotations.image_identity import ImageIdentities, file_stamp
from lib.annotations.mask_file import MaskError, MaskRecord
from lib.annotations.mask_store import MaskStore
from lib.annotations.proposal import PROPOSAL_TAG, Proposal
from lib.annotations.store import Absence, AnnotationStore, Answer
from lib.geometry.volume import VolumeError
from lib.server.http.refusals import answered_with
from lib.server.project import CLICK_TAG, FINAL_TAG, Project

CHECKSUM_BUDGET_S = 1.0
"""Time that one listing spends on computing checksums of new images; the next listing computes the rest."""

_TAG = re.compile(r"[A-Za-z0-9_\-]{1,64}")


class AnnotationSummary(NamedTuple):
    """Labels and provenance of an annotation.

    Attributes:
        image_checksum: checksum of the voxels of its image; None if it is not recorded.
        labels: labels that it annotates.
        absent: those of them that are marked as absent.
        annotator, created: who made it, and when (ISO 8601); empty if unknown.
        proposal: provenance of a proposal; None for other annotations.
    """

    image_checksum: str | None
    labels: frozenset[str]
    absent: frozenset[str] = frozenset()
    annotator: str = ""
    created: str = ""
    proposal: Proposal | None = None


class AnnotationSet(ABC):
    """Annotations of images.

    An image is identified by its id and the checksum of its voxels: annotations of an earlier image of the same name
    do not count.

    Args:
        folders: folders of the annotations.
        labels: labels of the app.
        first_labels: labels of masks that do not name theirs.
        identities: checksums of the images.
    """

    def __init__(
        self, folders: Project, labels: Sequence[str], first_labels: Sequence[str], identities: ImageIdentities
    ) -> None:
        self.folders = folders
        self.labels = tuple(labels)
        self.first_labels = tuple(first_labels)
        self.identities = identities
        self.clicks = AnnotationStore(folders.clicks)
        self.given_masks = GivenMaskStore(folders.given_masks)
        self._summaries: dict[Path, tuple[tuple[int, int], AnnotationSummary]] = {}

    @abstractmethod
    def list_images(self) -> list[str]:
        """Return the ids of all images, without waiting for an archive that does not answer."""

    @abstractmethod
    def local_images(self) -> dict[str, Path]:
        """Return the absolute paths of the local images, by image id."""

    def require_image(self, image_id: str) -> None:
        """Raise an error for an unknown image.

        Raises:
            HTTPException: 404, no such image.
        """
        if image_id not in self.list_images():
            raise HTTPException(404, f"There is no image {image_id[:80]!r} in the studies.")

    def _annotations(self, images: Sequence[str] | None = None) -> dict[str, dict[str, frozenset[str]]]:
        """Return the annotated labels by image id and tag, of these images or of all."""
        return {
            image_id: {tag: frozenset().union(*(one.labels for one in of_tag)) for tag, of_tag in found.items()}
            for image_id, found in self.summaries_by_image(images).items()
        }

    def summaries_by_image(
        self, images: Sequence[str] | None = None, checksum_budget_s: float = CHECKSUM_BUDGET_S
    ) -> dict[str, dict[str, list[AnnotationSummary]]]:
        """Return summaries of the annotations by image id and tag.

        Annotations of another image of the same name are left out, unless the checksum of the image is unknown.

        Args:
            images: ids of the images; default: all.
            checksum_budget_s: time for computing checksums of new images.
        """
        images, files = self.list_images() if images is None else images, self.local_images()
        end = time.monotonic() + checksum_budget_s
        paths = {CLICK_TAG: self.clicks.paths_by_image()}
        for tag in self._mask_tags():
            paths[tag] = {image_id: [path] for image_id, path in self.masks(tag).paths().items()}
        valid: dict[str, dict[str, list[AnnotationSummary]]] = {}
        for image_id in images:
            summaries = {
                tag: [self._summary_in(tag, image_id, path) for path in of_tag[image_id]]
                for tag, of_tag in paths.items()
                if image_id in of_tag
            }
            found = self._of_image(summaries, files.get(image_id), end)
            if found:
                valid[image_id] = found
        return valid

    def _mask_tags(self) -> list[str]:
        tags = (path for path in self.folders.labels.glob("*") if path.is_dir())
        return sorted(path.name for path in tags if path.name != CLICK_TAG and _TAG.fullmatch(path.name))

    def _of_image(
        self, summaries: Mapping[str, Sequence[AnnotationSummary]], image: Path | None, until: float
    ) -> dict[str, list[AnnotationSummary]]:
        """Return the summaries that are of the current image, by tag."""
        checksums = {one.image_checksum for of_tag in summaries.values() for one in of_tag} - {None}
        now = None
        if image is not None and checksums:
            now = _of_this_file(summaries.get(PROPOSAL_TAG, ()), image) or self._image_checksum(image, until)
        valid = {
            tag: [one for one in of_tag if None in (now, one.image_checksum) or one.image_checksum == now]
            for tag, of_tag in summaries.items()
        }
        return {tag: of_tag for tag, of_tag in valid.items() if of_tag}

    def _image_checksum(self, image: Path, until: float) -> str | None:
        """Return the voxel checksum of an image, or None if it is unknown and no time is left to compute it.

        Args:
            until: end of the time, as `time.monotonic()` counts.
        """
        known = self.identities.known(image)
        if known is not None or time.monotonic() > until:
            return known
        try:
            return self.identities.checksum(image)
        except VolumeError:
            return None

    def _summary_in(self, tag: str, image_id: str, path: Path) -> AnnotationSummary:
        """Return the summary of an annotation's file, which is read once for each version of the file.

        An unreadable file counts for any image: clicks for the label in their file name, a mask for no label.
        """
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)  # a file and its replacement may have the same time
            kept = self._summaries.get(path)
            if kept is None or kept[0] != stamp:
                kept = self._summaries[path] = (stamp, self._read(tag, image_id, path))
            return kept[1]
        except (OSError, ValueError):
            named = [label for label in self.labels if tag == CLICK_TAG and path.name.endswith(f".{label}.json")]
            return AnnotationSummary(None, frozenset(named))

    def _read(self, tag: str, image_id: str, path: Path) -> AnnotationSummary:
        """Read the summary of an annotation.

        Raises:
            OSError: the file cannot be read.
            ValueError: its content is invalid.
        """
        if tag == CLICK_TAG:
            answer = self.clicks.load_file(path)
            labels = frozenset([answer.label])
            absent = labels if isinstance(answer, Absence) else frozenset()
            return AnnotationSummary(answer.image_checksum, labels, absent, answer.annotator, answer.created)
        record = self.masks(tag).record(image_id)
        proposal = Proposal.of(record.info) if tag == PROPOSAL_TAG else None
        labels = frozenset(record.labels)
        return AnnotationSummary(record.image_checksum, labels, frozenset(), record.annotator, record.created, proposal)

    # Masks.

    def masks(self, tag: str = FINAL_TAG) -> MaskStore:
        """Return the store of the masks with this tag.

        Raises:
            HTTPException: 422, not a tag of masks.
        """
        if not _TAG.fullmatch(tag) or tag == CLICK_TAG:
            raise HTTPException(422, f"The tag is {tag[:80]!r}; expected one such as 'final' or 'original'.")
        return MaskStore(self.folders.masks(tag), self.labels, self.folders.mapped_masks / tag, self.first_labels)

    def mask_record(self, image_id: str, tag: str = FINAL_TAG) -> MaskRecord | None:
        """Return the record of a mask; None if it is missing or damaged."""
        try:
            return self.masks(tag).record(image_id)
        except (FileNotFoundError, MaskError):
            return None

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Return the file of a mask with the label values of the app.

        Raises:
            HTTPException: 404, no such mask; 422, the mask is invalid.
        """
        self.require_label(label_id, label_tag)
        with answered_with(404, FileNotFoundError), answered_with(422, ValueError):
            return str(self.masks(label_tag).checked(label_id).path)

    def require_label(self, image_id: str, tag: str) -> None:
        """Raise an error if an image has no annotation with this tag.

        Raises:
            HTTPException: 404, no such annotation.
        """
        self.require_image(image_id)
        if tag not in self._annotations([image_id]).get(image_id, {}):
            raise HTTPException(404, f"The image {image_id!r} has no annotation with the tag {tag[:80]!r}.")

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """Return who made an annotation, when, and with which labels.

        Raises:
            HTTPException: 404, no such annotation.
        """
        self.require_label(label_id, label_tag)
        if label_tag == CLICK_TAG:
            files = self.clicks.paths_of(label_id)
            answers = [answer for path in files if (answer := self._answer(path)) is not None]
            return {
                answer.label: {
                    "annotator": answer.annotator,
                    "created": answer.created,
                    "absent": isinstance(answer, Absence),
                }
                for answer in answers
            }
        try:
            record = self.masks(label_tag).record(label_id)
        except (OSError, ValueError) as error:
            raise HTTPException(404, f"The mask of {label_id!r} cannot be read.") from error
        return {
            "labels": dict(record.labels),
            "annotator": record.annotator,
            "created": record.created,
            **(record.info or {}),
        }

    def _answer(self, path: Path) -> Answer | None:
        try:
            return self.clicks.load_file(path)
        except (OSError, ValueError):
            return None

    # Files.

    def annotation_files(self, image_id: str) -> list[Path]:
        """Return all files and folders of annotations of an image, with their history."""
        stores = [self.masks(tag) for tag in self._mask_tags()]
        histories = [store.history_folder(image_id) for store in stores]
        files = [*self.click_files(image_id), *(file for store in stores for file in store.files(image_id))]
        return files + [history for history in histories if history.is_dir()]

    def click_files(self, image_id: str) -> list[Path]:
        """Return the files of the answers to all labels of an image, and of their click masks."""
        return [*self.clicks.paths_of(image_id), *self.given_masks.files(image_id)]

    def forget_copies(self, image_id: str) -> None:
        """Delete the cached copies of an image's masks."""
        for store in (self.masks(tag) for tag in self._mask_tags()):
            for copy in store.mapped_files(image_id):
                copy.unlink(missing_ok=True)


def _of_this_file(proposals: Sequence[AnnotationSummary], image: Path) -> str | None:
    """Return the voxel checksum of an image from a proposal for the same version of its file; None without one."""
    for one in proposals:
        if one.proposal is not None and one.proposal.image_stamp == file_stamp(image):
            return one.image_checksum
    return None
