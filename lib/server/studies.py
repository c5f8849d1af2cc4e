"""The studies of a server, as MONAI Label's `Datastore`: images, and the annotations of a project."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore

from lib.annotations.completeness import unanswered_labels
from lib.annotations.image_identity import ImageIdentities
from lib.annotations.masks import MaskStore
from lib.annotations.store import Absence, AnnotationStore, Answer
from lib.data.prepared_scans import PreparedScans
from lib.geometry.volume import VolumeError
from lib.server.json_file import JsonFile
from lib.server.project import CLICK_TAG, FINAL_TAG, Project, ProjectIdentity
from lib.server.removal import remove_files

logger = logging.getLogger(__name__)

_TAG = re.compile(r"[A-Za-z0-9_\-]{1,64}")
MOST_INFO_CHARACTERS = 100_000
CHECKSUM_BUDGET_S = 1.0
"""Time that one listing spends on images whose checksum is not known yet; the next listing goes on."""


class _Said(NamedTuple):
    """What the file of an annotation is about."""

    image_checksum: str | None
    labels: frozenset[str]


class Studies(Datastore):
    """Images, and what annotators made of them. "Annotated" means that every label is answered (`unanswered_labels`).

    An image is known by its id and by the checksum of its voxels: annotations of another image of the same name do not
    count.

    Args:
        project: whose folders are there (`open_project`).
        labels: of the app.
    """

    def __init__(self, project: Project, identity: ProjectIdentity, labels: Sequence[str]) -> None:
        self.project = project
        self.identity = identity
        self.labels = tuple(labels)
        self.clicks = AnnotationStore(project.clicks)
        self.identities = ImageIdentities(project.checksums)
        self.on_annotation: Callable[[str], None] = lambda name: None
        """Called, with a name for it, after an annotation was stored: an answer to a label, or a final mask."""
        self._info = JsonFile(project.image_info)
        self._offers = JsonFile(project.offers)
        self._said: dict[Path, tuple[int, _Said]] = {}
        self._lock = threading.Lock()

    # Images: these differ between a folder and an archive.

    @abstractmethod
    def list_images(self) -> list[str]:
        """The ids of all images, at once: nobody waits for an archive that is away."""

    @abstractmethod
    def images_at_hand(self) -> dict[str, Path]:
        """The files of the images that are at hand, absolute, by image id."""

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
        if len(json.dumps(self._info.get(image_id) | dict(info))) > MOST_INFO_CHARACTERS:
            raise HTTPException(413, f"The information of an image may have {MOST_INFO_CHARACTERS} characters at most.")
        self._write("The information", lambda: self._info.change(image_id, lambda kept: kept | dict(info)))

    def note_offer(self, image_id: str, strategy: str, client_id: str) -> None:
        """Records that an image was offered to somebody just now."""
        offer = {"ts": time.time(), "strategy": strategy, "client_id": client_id}
        try:
            self._offers.change(image_id, lambda kept: offer)
        except OSError as error:
            logger.warning("It is not recorded that %s was offered (%s).", image_id, error.strerror)

    def offers(self) -> dict[str, float]:
        """When each image was last offered, seconds since 1970, by image id."""
        times = {image_id: offer.get("ts") for image_id, offer in self._offers.items().items()}
        return {image_id: float(ts) for image_id, ts in times.items() if isinstance(ts, (int, float))}

    def require_image(self, image_id: str) -> None:
        """Raises: HTTPException: 404."""
        if image_id not in self.list_images():
            raise HTTPException(404, f"There is no image {image_id[:80]!r} in the studies.")

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
        annotated = self._annotated()
        return [image_id for image_id in self.list_images() if image_id not in annotated]

    def has_answers(self) -> bool:
        """Has anybody answered a label of the app in any image?"""
        return any(len(self._unanswered(found)) < len(self.labels) for found in self._annotations().values())

    def _annotated(self) -> set[str]:
        return {image_id for image_id, found in self._annotations().items() if not self._unanswered(found)}

    def _unanswered(self, found: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
        """The labels that nobody has answered in an image with these annotations (`_annotations`)."""
        return unanswered_labels(self.labels, found.get(CLICK_TAG, frozenset()), found.get(FINAL_TAG, frozenset()))

    def _annotations(self, images: Sequence[str] | None = None) -> dict[str, dict[str, frozenset[str]]]:
        """Of each image, or of each of these, that has annotations: the tags, and the labels that each is about.

        Annotations of another image of the same name are left out; where that cannot be told, they count.
        """
        images, files = self.list_images() if images is None else images, self.images_at_hand()
        end = time.monotonic() + CHECKSUM_BUDGET_S
        paths = {CLICK_TAG: self.clicks.paths_by_image()}
        for tag in self._mask_tags():
            paths[tag] = {image_id: [path] for image_id, path in self.masks(tag).paths().items()}
        annotations: dict[str, dict[str, frozenset[str]]] = {}
        for image_id in images:
            said = {
                tag: [self._said_in(tag, image_id, path) for path in of_tag[image_id]]
                for tag, of_tag in paths.items()
                if image_id in of_tag
            }
            found = self._of_image(said, files.get(image_id), end)
            if found:
                annotations[image_id] = found
        return annotations

    def _mask_tags(self) -> list[str]:
        folders = (path for path in self.project.labels.glob("*") if path.is_dir())
        return sorted(path.name for path in folders if path.name != CLICK_TAG and _TAG.fullmatch(path.name))

    def _of_image(
        self, said: Mapping[str, Sequence[_Said]], image: Path | None, until: float
    ) -> dict[str, frozenset[str]]:
        """The labels of each tag, of the annotations with which some are of this image."""
        checksums = {one.image_checksum for of_tag in said.values() for one in of_tag} - {None}
        now = self._image_checksum(image, until) if image is not None and checksums else None
        found: dict[str, frozenset[str]] = {}
        for tag, of_tag in said.items():
            valid = [one.labels for one in of_tag if None in (now, one.image_checksum) or one.image_checksum == now]
            if valid:
                found[tag] = frozenset().union(*valid)
        return found

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

    def _said_in(self, tag: str, image_id: str, path: Path) -> _Said:
        """What an annotation's file is about, read once a version of the file.

        One that cannot be read is about whichever image; in the store about the label of its name, a mask about none.
        """
        try:
            stamp = path.stat().st_mtime_ns
            kept = self._said.get(path)
            if kept is None or kept[0] != stamp:
                kept = self._said[path] = (stamp, self._read(tag, image_id, path))
            return kept[1]
        except (OSError, ValueError):
            named = [label for label in self.labels if tag == CLICK_TAG and path.name.endswith(f".{label}.json")]
            return _Said(None, frozenset(named))

    def _read(self, tag: str, image_id: str, path: Path) -> _Said:
        """Raises: OSError; ValueError."""
        if tag == CLICK_TAG:
            answer = self.clicks.load_file(path)
            return _Said(answer.image_checksum, frozenset([answer.label]))
        record = self.masks(tag).record(image_id)
        return _Said(record.image_checksum, frozenset(record.labels))

    # Masks.

    def masks(self, tag: str = FINAL_TAG) -> MaskStore:
        """Raises: HTTPException: 422, not a tag of masks."""
        if not _TAG.fullmatch(tag) or tag == CLICK_TAG:
            raise HTTPException(422, f"The tag is {tag[:80]!r}; expected one such as 'final' or 'original'.")
        return MaskStore(self.project.masks(tag), self.labels, self.project.mapped_masks / tag, self.identity.labels)

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        known = image_id in self.list_images()
        return dict.fromkeys(self._annotations([image_id] if known else []).get(image_id, {}), image_id)

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        return self.get_labels_by_image_id(image_id).get(tag, "")

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """The file of a mask with the app's values. Raises: HTTPException: 404; 422, it cannot be used."""
        self.require_label(label_id, label_tag)
        try:
            return str(self.masks(label_tag).app_path(label_id))
        except FileNotFoundError as error:
            raise HTTPException(404, str(error)) from error
        except ValueError as error:
            raise HTTPException(422, str(error)) from error

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

    # Deletion.

    def remove_image(self, image_id: str) -> None:
        """Moves all that belongs to an image into `removed/`. Raises: HTTPException: 404; 507."""
        self.require_image(image_id)
        path = self.image_path(image_id)
        checksum = self.identities.known(path) if path is not None else None
        stores = [self.masks(tag) for tag in self._mask_tags()]
        histories = [store.history_folder(image_id) for store in stores]
        files = [*self.image_files(image_id), *self.clicks.paths_of(image_id)]
        files += [file for store in stores for file in store.files(image_id)]
        files += [history for history in histories if history.is_dir()]
        self._remove(image_id, files)
        for copy in (copy for store in stores for copy in store.mapped_files(image_id)):
            copy.unlink(missing_ok=True)
        if checksum is not None:
            PreparedScans(self.project.prepared).forget(checksum)
        self._write("The deletion", lambda: self._info.change(image_id, lambda kept: None))
        self._write("The deletion", lambda: self._offers.change(image_id, lambda kept: None))

    @abstractmethod
    def image_files(self, image_id: str) -> list[Path]:
        """The files of an image that are the users' own, symbolic links as they are."""

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Moves an annotation into `removed/`: the answers to all labels, or a mask.

        Raises:
            HTTPException: 404; 507.
        """
        self.require_label(label_id, label_tag)
        if label_tag == CLICK_TAG:
            self._remove(label_id, self.clicks.paths_of(label_id))
        else:
            self._remove(label_id, self.masks(label_tag).files(label_id))

    def _remove(self, image_id: str, files: Sequence[Path]) -> None:
        self._write("The deletion", lambda: remove_files(self.project, image_id, files, self.image_folder))

    @property
    @abstractmethod
    def image_folder(self) -> Path:
        """The folder of the users' own image files."""

    @staticmethod
    def _write(what: str, write: Callable[[], Any]) -> Any:
        try:
            return write()
        except FileNotFoundError as error:
            raise HTTPException(404, f"{what} was done by somebody else just now.") from error
        except OSError as error:
            raise HTTPException(
                507, f"{what} could not be written ({error.strerror}). Make room on the server's disk, then retry."
            ) from error

    # Listings.

    def status(self) -> dict[str, Any]:
        annotations = self._annotations()
        counts = Counter(tag for found in annotations.values() for tag in found)
        completed = sum(not self._unanswered(found) for found in annotations.values())
        return {"total": len(self.list_images()), "completed": completed, "label_tags": dict(counts)}

    def json(self) -> dict[str, Any]:
        """Every image as MONAI Label's own lists them: its information, and the tags of its annotations.

        And the labels that each annotation is about, and those of the app that nobody has answered.
        """
        annotations, info = self._annotations(), self._info.items()
        return {
            "name": self.name(),
            "description": self.description(),
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
        return [{"image": i, "label": i} for i, found in sorted(self._annotations().items()) if FINAL_TAG in found]

    def description(self) -> str:
        return "Studies with extreme points and masks"

    # What MONAI Label's interface has and this server does not offer.

    def set_name(self, name: str) -> None:
        raise NotImplementedError

    def set_description(self, description: str) -> None:
        raise NotImplementedError

    def get_image(self, image_id: str, params: Any = None) -> Any:
        raise NotImplementedError

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> Any:
        raise NotImplementedError

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        raise NotImplementedError

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        raise NotImplementedError

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        raise NotImplementedError

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        raise NotImplementedError

    def refresh(self) -> None:
        """Images and annotations are looked up at each request."""
