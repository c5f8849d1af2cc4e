"""The current mask of every annotated study, from a running server into a folder."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset

from lib.annotations.atomic_write import write_atomically
from lib.annotations.volume import Volume
from lib.exchange.annotation_server import AnnotationServer
from lib.exchange.dicom_seg import dicom_segmentation
from lib.exchange.label_indices import LABELS_FILE, read_label_indices, write_label_indices


class ExportError(ValueError):
    """What cannot be exported; the text is for the user."""


@dataclass(frozen=True)
class MaskExport:
    """Writes masks into a folder as `IMAGE.nii.gz` and, for series of a DICOM archive, `IMAGE.seg.dcm`.

    An empty mask has no segmentation. An image whose files are there is left as it is, so that an export that was cut
    short goes on; each file is renamed into place when it is whole.

    Attributes:
        server: that has the annotations.
        folder: for the masks.
        labels: the index of each label.
        overwrite: make masks anew that are there.
    """

    server: AnnotationServer
    folder: Path
    labels: Mapping[str, int]
    overwrite: bool = False

    @classmethod
    def into(cls, folder: Path, server: AnnotationServer, *, overwrite: bool = False) -> MaskExport:
        """An export into `folder`, where `labels.json` tells the index of each label.

        Raises:
            ExportError: the folder holds masks of other labels.
            ServerError: see `AnnotationServer`.
            OSError: the folder cannot be written.
        """
        labels, path = server.label_indices(), folder / LABELS_FILE
        if path.exists() and not overwrite and read_label_indices(path) != labels:
            raise ExportError(
                f"The folder {folder} holds masks of other labels than the server's, {', '.join(labels)}; choose "
                "another folder, or --overwrite."
            )
        write_label_indices(path, labels)
        return cls(server, folder, labels, overwrite)

    def write(self, image: str, *, has_final_mask: bool) -> bool:
        """Writes the mask of an image: the final one where there is one, else that of its clicks.

        Returns:
            Whether there was anything to write.

        Raises:
            ExportError: a mask that is not on the grid of its image, or holds a value that is no label's.
            SegmentationError: see `dicom_segmentation`.
            ServerError, VolumeError: see `AnnotationServer`.
            OSError: the disk is full or the folder cannot be written.
        """
        path = self._path(image, ".nii.gz")
        if path.exists() and not self.overwrite:
            return False
        mask = self._final_mask(image) if has_final_mask else self.server.click_mask(image)
        headers = self.server.series_headers(image)
        if headers and mask.array.any():
            segmentation = dicom_segmentation(mask, headers, self.labels, by_hand=has_final_mask)
            write_atomically(self.segmentation_path(image), _encoded(segmentation))
        else:
            self.segmentation_path(image).unlink(missing_ok=True)
        # Last, because an image with this file counts as exported.
        write_atomically(path, _nifti(mask))
        return True

    def push(self, image: str) -> bool:
        """Stores the segmentation of an image in the archive; a second copy of the same changes nothing there.

        Returns:
            Whether there is one.

        Raises:
            ServerError: see `AnnotationServer`.
        """
        path = self.segmentation_path(image)
        if path.exists():
            self.server.store_in_archive([pydicom.dcmread(path)])
        return path.exists()

    def segmentation_path(self, image: str) -> Path:
        return self._path(image, ".seg.dcm")

    def _path(self, image: str, extension: str) -> Path:
        if image != Path(image).name or image in ("", "..") or "\0" in image:
            raise ExportError(
                f"The image id {image!r} of the server is not a plain name; expected one without folders."
            )
        return self.folder / f"{image}{extension}"

    def _final_mask(self, image: str) -> Volume:
        mask = self.server.final_mask(image)
        if not mask.geometry.is_close(self.server.image_geometry(image)):
            raise ExportError("The final mask is not on the grid of its image; submit it anew.")
        unknown = np.setdiff1d(mask.array[mask.array != 0], list(self.labels.values()))
        if len(unknown):
            known = ", ".join(f"{index} for {label}" for label, index in self.labels.items())
            raise ExportError(f"The final mask holds the value {unknown[0]:g}; expected 0, {known}.")
        return mask


def _nifti(mask: Volume) -> bytes:
    image = nib.Nifti1Image(mask.array.astype(np.uint8), mask.geometry.affine_ras)
    image.set_qform(mask.geometry.affine_ras, code=1)
    image.set_sform(mask.geometry.affine_ras, code=1)
    # Without the time of day in it, the same mask gives the same file.
    return gzip.compress(image.to_bytes(), mtime=0)


def _encoded(instance: Dataset) -> bytes:
    content = io.BytesIO()
    instance.save_as(content, write_like_original=False)
    return content.getvalue()
