"""Open the studies and annotations of a project by its folders, without a server."""

from __future__ import annotations

from pathlib import Path

from lib.annotations.image_identity import ImageIdentities
from lib.annotations.json_file import JsonFile
from lib.annotations.mask_store import MaskStore
from lib.annotations.store import AnnotationStore
from lib.exchange.study_images import StudyImages


class StoredStudies:
    """Studies of a folder of images, with the interface that `lib.trainers.annotated_scans` uses.

    Args:
        clicks: the annotations.
        finals: the final masks.
        identities: checksums of images.
        skips: the skipped images, by id.
    """

    def __init__(
        self,
        images: StudyImages,
        clicks: AnnotationStore,
        finals: MaskStore,
        identities: ImageIdentities,
        skips: JsonFile,
    ) -> None:
        self.images = images
        self.clicks = clicks
        self.finals = finals
        self.identities = identities
        self.skips = skips

    def list_images(self) -> list[str]:
        return sorted(self.images.paths)

    def get_image_uri(self, image_id: str) -> str:
        return str(self.image_path(image_id))

    def image_path(self, image_id: str) -> Path:
        return self.images.paths[image_id]

    def masks(self) -> MaskStore:
        return self.finals

    def skipped(self) -> set[str]:
        return {image_id for image_id, skip in self.skips.items().items() if skip}
