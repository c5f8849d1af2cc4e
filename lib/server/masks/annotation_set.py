"""Group clicks and masks: those of a project, or those of one reader (`lib.server.review.readings`)."""

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
from lib.annotations.mask_store import MaskStore
from lib.annotations.proposal import PROPOSAL_TAG, Proposal
from lib.annotations.store import Absence, AnnotationStore, Answer
from lib.geometry.volume import VolumeError
from lib.server.http.refusals import answered_with
from lib.server.project import CLICK_TAG, FINAL_TAG, Project

CHECKSUM_BUDGET_S = 1.0
"""Time that one listing spends on images whose checksum is not known yet; the next listing goes on."""

_TAG = re.compile(r"[A-Za-z0-9_\-]{1,64}")


class Said(NamedTuple):
    """What the file of an annotation is about.

    Attributes:
        labels: that it is about.
        absent: those of them that it says not to be in the image.
        annotator, created: who made it, and when, in ISO 8601; empty where that is not known.
        proposal: how it came about, of one.
    """

    image_checksum: str | None
    labels: frozenset[str]
    absent: frozenset[str] = frozenset()
    annotator: str = ""
    created: str = ""
    proposal: Proposal | None = None


class AnnotationSet(ABC):
    """Annotations of images.

    An image is known by its id and by the checksum of its voxels: annotations of another image of the same name do not
    count.

    Args:
        place: the folders of the annotations.
        labels: of the app.
        first_labels: of masks that name none.
        identities: of the images.
    """

    def __init__(
        self, place: Project, labels: Sequence[str], first_labels: Sequence[str], identities: ImageIdentities
    ) -> None:
        self.place = place
        self.labels = tuple(labels)
        self.first_labels = tuple(first_labels)
        self.identities = identities
        self.clicks = AnnotationStore(place.clicks)
        self.given_masks = GivenMaskStore(place.given_masks)
        self._said: dict[Path, tuple[tuple[int, int], Said]] = {}

    @abstractmethod
    def list_images(self) -> list[str]:
        """The ids of all images, without waiting for an archive that does not answer."""

    @abstractmethod
    def images_at_hand(self) -> dict[str, Path]:
        """The files of the images that are at hand, absolute, by image id."""

    def require_image(self, image_id: str) -> None:
        """Raises: HTTPException: 404."""
        if image_id not in self.list_images():
            raise HTTPException(404, f"There is no image {image_id[:80]!r} in the studies.")

    def _annotations(self, images: Sequence[str] | None = None) -> dict[str, dict[str, frozenset[str]]]:
        """Of each image, or of each of these, that has annotations: the tags, and the labels that each is about."""
        return {
            image_id: {tag: frozenset().union(*(one.labels for one in of_tag)) for tag, of_tag in found.items()}
            for image_id, found in self.said_of_images(images).items()
        }

    def said_of_images(
        self, images: Sequence[str] | None = None, checksum_budget_s: float = CHECKSUM_BUDGET_S
    ) -> dict[str, dict[str, list[Said]]]:
        """Of each image, or of each of these, that has annotations: the tags, and what is said under each.

        Annotations of another image of the same name are left out; where that cannot be told, they count.

        Args:
            checksum_budget_s: time that is spent on images whose checksum is not known yet.
        """
        images, files = self.list_images() if images is None else images, self.images_at_hand()
        end = time.monotonic() + checksum_budget_s
        paths = {CLICK_TAG: self.clicks.paths_by_image()}
        for tag in self._mask_tags():
            paths[tag] = {image_id: [path] for image_id, path in self.masks(tag).paths().items()}
        valid: dict[str, dict[str, list[Said]]] = {}
        for image_id in images:
            said = {
                tag: [self._said_in(tag, image_id, path) for path in of_tag[image_id]]
                for tag, of_tag in paths.items()
                if image_id in of_tag
            }
            found = self._of_image(said, files.get(image_id), end)
            if found:
                valid[image_id] = found
        return valid

    def _mask_tags(self) -> list[str]:
        folders = (path for path in self.place.labels.glob("*") if path.is_dir())
        return sorted(path.name for path in folders if path.name != CLICK_TAG and _TAG.fullmatch(path.name))

    def _of_image(self, said: Mapping[str, Sequence[Said]], image: Path | None, until: float) -> dict[str, list[Said]]:
        """What is said of this image, under each tag under which anything is."""
        checksums = {one.image_checksum for of_tag in said.values() for one in of_tag} - {None}
        now = None
        if image is not None and checksums:
            now = _of_this_file(said.get(PROPOSAL_TAG, ()), image) or self._image_checksum(image, until)
        valid = {
            tag: [one for one in of_tag if None in (now, one.image_checksum) or one.image_checksum == now]
            for tag, of_tag in said.items()
        }
        return {tag: of_tag for tag, of_tag in valid.items() if of_tag}

    def _image_checksum(self, image: Path, until: float) -> str | None:
        """The voxel checksum of an image, or None where it is not known and no time is left to read it.

        Args:
            until: of `time.monotonic()`.
        """
        known = self.identities.known(image)
        if known is not None or time.monotonic() > until:
            return known
        try:
            return self.identities.checksum(image)
        except VolumeError:
            return None

    def _said_in(self, tag: str, image_id: str, path: Path) -> Said:
        """What an annotation's file is about, read once a version of the file.

        One that cannot be read is about whichever image; in the store about the label of its name, a mask about none.
        """
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)  # two files that replace one another may have one time
            kept = self._said.get(path)
            if kept is None or kept[0] != stamp:
                kept = self._said[path] = (stamp, self._read(tag, image_id, path))
            return kept[1]
        except (OSError, ValueError):
            named = [label for label in self.labels if tag == CLICK_TAG and path.name.endswith(f".{label}.json")]
            return Said(None, frozenset(named))

    def _read(self, tag: str, image_id: str, path: Path) -> Said:
        """Raises: OSError; ValueError."""
        if tag == CLICK_TAG:
            answer = self.clicks.load_file(path)
            about = frozenset([answer.label])
            absent = about if isinstance(answer, Absence) else frozenset()
            return Said(answer.image_checksum, about, absent, answer.annotator, answer.created)
        record = self.masks(tag).record(image_id)
        proposal = Proposal.of(record.info) if tag == PROPOSAL_TAG else None
        about = frozenset(record.labels)
        return Said(record.image_checksum, about, frozenset(), record.annotator, record.created, proposal)

    # Masks.

    def masks(self, tag: str = FINAL_TAG) -> MaskStore:
        """Raises: HTTPException: 422, not a tag of masks."""
        if not _TAG.fullmatch(tag) or tag == CLICK_TAG:
            raise HTTPException(422, f"The tag is {tag[:80]!r}; expected one such as 'final' or 'original'.")
        return MaskStore(self.place.masks(tag), self.labels, self.place.mapped_masks / tag, self.first_labels)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """The file of a mask with the app's values. Raises: HTTPException: 404; 422, it cannot be used."""
        self.require_label(label_id, label_tag)
        with answered_with(404, FileNotFoundError), answered_with(422, ValueError):
            return str(self.masks(label_tag).checked(label_id).path)

    def require_label(self, image_id: str, tag: str) -> None:
        """Raises: HTTPException: 404, the image has no annotation with this tag."""
        self.require_image(image_id)
        if tag not in self._annotations([image_id]).get(image_id, {}):
            raise HTTPException(404, f"The image {image_id!r} has no annotation with the tag {tag[:80]!r}.")

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """Who made an annotation, when, and with which labels. Raises: HTTPException: 404."""
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
        """All files and folders of annotations of an image, with their history."""
        stores = [self.masks(tag) for tag in self._mask_tags()]
        histories = [store.history_folder(image_id) for store in stores]
        files = [*self.click_files(image_id), *(file for store in stores for file in store.files(image_id))]
        return files + [history for history in histories if history.is_dir()]

    def click_files(self, image_id: str) -> list[Path]:
        """The answers to all labels of an image, and the masks that were given for them."""
        return [*self.clicks.paths_of(image_id), *self.given_masks.files(image_id)]

    def forget_copies(self, image_id: str) -> None:
        """Removes what was made of masks of an image and can be made again."""
        for store in (self.masks(tag) for tag in self._mask_tags()):
            for copy in store.mapped_files(image_id):
                copy.unlink(missing_ok=True)


def _of_this_file(proposals: Sequence[Said], image: Path) -> str | None:
    """The voxel checksum of an image by a proposal that was made of this very file; None where there is none."""
    for one in proposals:
        if one.proposal is not None and one.proposal.image_stamp == file_stamp(image):
            return one.image_checksum
    return None
