"""MONAI Label's datastores with an index that survives a kill, and with tags that stay in their folder."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import DataModel, LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from lib.annotations.atomic_write import write_atomically

ANNOTATION_TAG = "extreme_points"
_TAG = re.compile(r"[\w\-]{1,64}")


class _SafeIndex(LocalDatastore):
    """What both datastores share; "annotated" means six clicks or a final mask."""

    @property
    def annotation_folder(self) -> Path:
        return Path(self._datastore.label_path(ANNOTATION_TAG))

    def list_annotation(self, image_id: str, file_name: str, info: dict[str, Any]) -> None:
        """Lists a click annotation, already on disk as `<image id>...`, under its tag."""
        labels = self._datastore.objects[image_id].labels
        labels[ANNOTATION_TAG] = DataModel(ext=file_name.removeprefix(image_id), info={**info, "name": file_name})
        self._update_datastore_file()

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return [image_id for image_id in self.list_images() if self._is_annotated(image_id)]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return [image_id for image_id in self.list_images() if not self._is_annotated(image_id)]

    def _is_annotated(self, image_id: str) -> bool:
        tags = self._datastore.objects[image_id].labels
        return ANNOTATION_TAG in tags or DefaultLabelTag.FINAL.value in tags

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        if not _TAG.fullmatch(label_tag) or label_tag == ANNOTATION_TAG:
            raise HTTPException(422, f"The tag is {label_tag!r}; expected one such as 'final' or 'original'.")
        if image_id not in self.list_images():
            raise HTTPException(404, f"There is no image {image_id!r} in the studies.")
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        if image_id and image_id != os.path.basename(image_id):
            raise HTTPException(422, f"The image id is {image_id!r}; expected a name without any folder.")
        return super().add_image(image_id, image_filename, image_info)

    def _update_datastore_file(self, lock: bool = True) -> None:
        # MONAI Label writes this file in place, and a kill in mid-write leaves it unreadable.
        self._ignore_event_config = True
        content = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
        write_atomically(Path(self._datastore_config_path), content.encode())
        self._config_ts = os.stat(self._datastore_config_path).st_mtime


class StudiesFolder(_SafeIndex):
    """A folder of images."""


class DICOMwebStudies(_SafeIndex, DICOMWebDatastore):
    """A DICOMweb archive, with annotations in its cache folder."""


def open_studies_folder(folder: str) -> StudiesFolder:
    """The images of a folder, as MONAI Label's settings say."""
    return StudiesFolder(
        folder,
        extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
        auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
        read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
    )
