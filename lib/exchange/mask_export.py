"""Export the current masks of studies from a running server into a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.sr.coding import Code

from lib.annotations.atomic_write import write_atomically
from lib.exchange.annotation_server import AnnotationServer, ListedImage
from lib.exchange.dicom_seg import dicom_segmentation, file_content
from lib.exchange.label_indices import LABELS_FILE, read_label_indices, write_label_indices
from lib.exchange.segment_origin import SegmentOrigin
from lib.geometry.nifti_image import nifti_gz, nifti_image
from lib.geometry.volume import Volume, load_volume


class ExportError(ValueError):
    """Error of a mask that cannot be exported; the text is for the user."""


@dataclass(frozen=True)
class MaskExport:
    """Export of masks into a folder as `IMAGE.nii.gz` and, for series of a DICOM archive, `IMAGE.seg.dcm`.

    An empty mask has no segmentation. Images whose files exist are skipped, so that an interrupted export can be
    continued; a missing segmentation is tried again. Files are written atomically.

    Attributes:
        server: with the annotations.
        folder: for the masks.
        labels: index of each label.
        codes: code of each label.
        overwrite: make existing masks again.
    """

    server: AnnotationServer
    folder: Path
    labels: Mapping[str, int]
    codes: Mapping[str, Code]
    overwrite: bool = False

    @classmethod
    def into(cls, folder: Path, server: AnnotationServer, *, overwrite: bool = False) -> MaskExport:
        """Start an export into `folder`, and write the index of each label to `labels.json`.

        Raises:
            ExportError: the folder contains masks of other labels.
            ServerError: see `AnnotationServer`.
            OSError: the folder cannot be written.
        """
        labels, codes, path = server.label_indices(), server.codes(), folder / LABELS_FILE
        if path.exists() and not overwrite and read_label_indices(path) != labels:
            raise ExportError(
                f"The folder {folder} holds masks of other labels than the server's, {', '.join(labels)}; choose "
                "another folder, or --overwrite."
            )
        write_label_indices(path, labels)
        return cls(server, folder, labels, codes, overwrite)

    def write(self, image: str, listed: ListedImage) -> bool:
        """Write the mask of an image: the final mask, and the mask of the clicks for labels that it does not cover.

        Returns:
            False if the files exist already.

        Raises:
            ExportError: a mask is not on the grid of its image, or contains a value without a label.
            SegmentationError: see `dicom_segmentation`; the NIfTI file is written nevertheless.
            ServerError, VolumeError: see `AnnotationServer`.
            OSError: the disk is full or the folder cannot be written.
        """
        if not self.overwrite and self._is_complete(image):
            return False
        mask, origins = self._current_mask(image, listed)
        # The segmentation of an older mask must not remain beside the new mask.
        self.segmentation_path(image).unlink(missing_ok=True)
        write_atomically(
            self._path(image, ".nii.gz"), nifti_gz(nifti_image(mask.array.astype(np.uint8), mask.geometry.affine_ras))
        )
        headers = self.server.series_headers(image) if mask.array.any() else []
        if headers:
            sources = self.server.sources(image)
            segmentation = dicom_segmentation(mask, headers, self.labels, origins, self.codes, sources)
            write_atomically(self.segmentation_path(image), file_content(segmentation))
        return True

    def push(self, image: str) -> bool:
        """Store the segmentation of an image in the archive; a second copy changes nothing there.

        Returns:
            True if the image has a segmentation.

        Raises:
            ServerError: see `AnnotationServer`.
        """
        path = self.segmentation_path(image)
        if path.exists():
            self.server.store_in_archive([pydicom.dcmread(path)])
        return path.exists()

    def segmentation_path(self, image: str) -> Path:
        return self._path(image, ".seg.dcm")

    def _is_complete(self, image: str) -> bool:
        nifti = self._path(image, ".nii.gz")
        if not nifti.exists() or self.segmentation_path(image).exists():
            return nifti.exists()
        return not (self.server.has_series(image) and load_volume(nifti).array.any())

    def _path(self, image: str, extension: str) -> Path:
        if image != Path(image).name or image in ("", "..") or "\0" in image:
            raise ExportError(
                f"The image id {image!r} of the server is not a plain name; expected one without folders."
            )
        return self.folder / f"{image}{extension}"

    def _current_mask(self, image: str, listed: ListedImage) -> tuple[Volume, dict[str, SegmentOrigin]]:
        """Return the mask and the origin of each label."""
        covered = listed.in_final_mask
        if covered is None or (covered and not set(covered) & set(self.labels)):
            return self._click_mask(image)
        final, origins = self._final_mask(image)
        clicked = [self.labels[label] for label in listed.in_store if label in self.labels and label not in covered]
        if not clicked:
            return final, origins
        of_clicks, origins_of_clicks = self._click_mask(image)
        added = np.isin(of_clicks.array, clicked) & (final.array == 0)
        mask = Volume(np.where(added, of_clicks.array, final.array), final.geometry)
        return mask, origins_of_clicks | origins

    def _click_mask(self, image: str) -> tuple[Volume, dict[str, SegmentOrigin]]:
        mask, origins = self.server.click_mask(image)
        self._check_values(mask, "mask of the clicks")
        return mask, origins

    def _final_mask(self, image: str) -> tuple[Volume, dict[str, SegmentOrigin]]:
        mask, origins = self.server.final_mask(image)
        if not self.server.image_geometry(image).is_close(mask.geometry):
            raise ExportError("The final mask is not on the grid of its image; submit it again.")
        self._check_values(mask, "final mask")
        return mask, origins

    def _check_values(self, mask: Volume, name: str) -> None:
        unknown = np.setdiff1d(mask.array[mask.array != 0], list(self.labels.values()))
        if len(unknown):
            known = ", ".join(f"{index} for {label}" for label, index in self.labels.items())
            raise ExportError(f"The {name} holds the value {unknown[0]:g}; expected 0, {known}.")
