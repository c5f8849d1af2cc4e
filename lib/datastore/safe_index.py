"""What the app asks of a datastore of MONAI Label beyond what MONAI Label's own do."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from lib.annotations.atomic_write import write_atomically

ANNOTATION_TAG = "extreme_points"
_TAG = re.compile(r"[\w\-]{1,64}")


class SafeIndex(LocalDatastore):
    """An index that survives a kill and many clients, and tags and image ids that stay in their folder.

    "Annotated" means extreme points or a final mask.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        # While MONAI Label reads the folder anew its index is empty for a moment, and it may be written by one
        # request while another changes it.
        self._guard = threading.RLock()
        self.on_annotation: Callable[[str], None] = lambda name: None
        """Called, with a name for it, after an annotation was stored: clicks on a structure, or a final mask."""
        super().__init__(*arguments, **settings)

    @property
    def annotation_folder(self) -> Path:
        return Path(self._datastore.label_path(ANNOTATION_TAG))

    def list_annotation(self, image_id: str, file_name: str, info: dict[str, Any]) -> None:
        """Lists a click annotation, already on disk as `<image id>...`, under its tag.

        An image that is gone by now is left out: its annotation stays on disk, and counts when it is back.
        """
        with self._guard:
            image = self._datastore.objects.get(image_id)
            if image is not None:
                data = DataModel(ext=file_name.removeprefix(image_id), info={**info, "name": file_name})
                image.labels[ANNOTATION_TAG] = data
                self._update_datastore_file()
        self.on_annotation(file_name)

    def list_image(self, image_id: str, file_name: str, info: dict[str, Any]) -> None:
        """Lists an image, already on disk as `<image id>...`, and keeps what was known of it."""
        with self._guard:
            image = DataModel(ext=file_name.removeprefix(image_id), info={**info, "name": file_name})
            known = self._datastore.objects.setdefault(image_id, ImageLabelModel(image=image))
            known.image = image
            self._update_datastore_file()

    def list_images(self) -> list[str]:
        with self._guard:
            return super().list_images()

    def get_image_uri(self, image_id: str) -> str:
        with self._guard:
            return super().get_image_uri(image_id)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        with self._guard:
            return super().get_image_info(image_id)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        with self._guard:  # and not super(), which for an archive fetches: meanwhile others need the index
            return LocalDatastore.get_label_uri(self, label_id, label_tag)

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        with self._guard:
            return super().get_labels_by_image_id(image_id)

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        with self._guard:
            return super().get_label_info(label_id, label_tag)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        annotated = self._annotated()
        return [image_id for image_id in self.list_images() if image_id in annotated]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        annotated = self._annotated()
        return [image_id for image_id in self.list_images() if image_id not in annotated]

    def _annotated(self) -> set[str]:
        """Images with clicks or a final mask. The files count: a kill may leave them unlisted."""
        clicks = {path.name.rsplit(".", 2)[0] for path in self.annotation_folder.glob("*.json")}
        final = DefaultLabelTag.FINAL.value
        masks = {self._to_id(file.name)[0] for file in os.scandir(self._datastore.label_path(final)) if file.is_file()}
        with self._guard:
            return clicks | masks | {i for i, image in self._datastore.objects.items() if final in image.labels}

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        if not _TAG.fullmatch(label_tag) or label_tag == ANNOTATION_TAG:
            raise HTTPException(422, f"The tag is {label_tag!r}; expected one such as 'final' or 'original'.")
        if image_id not in self.list_images():
            raise HTTPException(404, f"There is no image {image_id!r} in the studies.")
        with self._guard:
            label_id = super().save_label(image_id, label_filename, label_tag, label_info)
        if label_tag == DefaultLabelTag.FINAL.value:
            self.on_annotation(f"{image_id}, final mask")
        return label_id

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        if image_id and (image_id != os.path.basename(image_id) or image_id in (".", "..") or "\0" in image_id):
            raise HTTPException(422, f"The image id is {image_id!r}; expected a name without any folder.")
        with self._guard:
            return super().add_image(image_id, image_filename, image_info)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        with self._guard:
            super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        with self._guard:
            super().update_label_info(label_id, label_tag, info)

    def json(self) -> dict[str, Any]:
        with self._guard:
            self._list_annotations_on_disk()
            return super().json()

    def status(self) -> dict[str, Any]:
        # An archive is asked before the index is held: this takes a while, and others need the index.
        self.list_images()
        with self._guard:
            self._list_annotations_on_disk()
            return super().status()

    def _reconcile_datastore(self) -> None:
        with self._guard:
            super()._reconcile_datastore()
            self._list_annotations_on_disk()

    def _list_annotations_on_disk(self) -> None:
        """Lists click annotations that another process wrote, as an import does, or that a kill left unlisted."""
        unlisted = {}
        for path in self.annotation_folder.glob("*.json"):
            image_id = path.name.rsplit(".", 2)[0]
            image = self._datastore.objects.get(image_id)
            if image is not None and ANNOTATION_TAG not in image.labels:
                unlisted[image_id] = DataModel(ext=path.name.removeprefix(image_id), info={"name": path.name})
        for image_id, annotation in unlisted.items():
            self._datastore.objects[image_id].labels[ANNOTATION_TAG] = annotation
        if unlisted:
            self._update_datastore_file()

    def _update_datastore_file(self, lock: bool = True) -> None:
        # MONAI Label writes this file in place, and a kill in mid-write leaves it unreadable.
        with self._guard:
            self._ignore_event_config = True
            content = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
            write_atomically(Path(self._datastore_config_path), content.encode())
            self._config_ts = os.stat(self._datastore_config_path).st_mtime
