"""Write scans and their final masks as a dataset of BIDS, with the masks among its derivatives."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lib.annotations.atomic_write import write_atomically
from lib.annotations.mask_store import MaskStore
from lib.annotations.store import AnnotationStore
from lib.data.annotated_scan import AnnotatedScan
from lib.exchange.dataset_files import (
    DatasetError,
    LabelOrigins,
    label_origins,
    made_from,
    software,
    write_image,
    write_json,
)
from lib.geometry.volume import as_int16_if_exact, load_volume

BIDS_VERSION = "1.10.0"
SUFFIXES = ("T1w", "T2w", "FLAIR", "PDw", "T2starw", "inplaneT1", "inplaneT2", "angio")
"""Suffixes of anatomical MR images; BIDS has none for CT."""

PIPELINE = "inextremis"
README = """\
Images of a project of InExtremIS, with the final masks of its annotators.

participants.tsv gives the name of each image in the project. The masks lie in derivatives/inextremis, on the grids of
their images; the _dseg.tsv beside each names the values of its voxels, and the _dseg.json says who annotated each label
when, and which model took part. A label that is not among the Labels of a _dseg.json was not annotated in that scan.
"""


@dataclass
class BidsDataset:
    """Writer of the scans with a final mask, and of the descriptions.

    Attributes:
        folder: existing, empty folder.
        labels: of the app, with the values 1, 2, ...
        clicks, masks: the annotations of the scans.
        suffix: of all images, one of `SUFFIXES`.
        cases: origins of each mask by image id, in the order of the subjects 0001, 0002, ...
        left_out: number of scans without a final mask.
    """

    folder: Path
    labels: Sequence[str]
    clicks: AnnotationStore
    masks: MaskStore
    suffix: str
    cases: dict[str, LabelOrigins] = field(default_factory=dict)
    left_out: int = 0

    def add(self, scan: AnnotatedScan) -> None:
        """Write the image and the mask of a scan.

        Raises:
            VolumeError, MaskError, AnnotationFileError: the scan or its annotations cannot be read; nothing is written.
            OSError: the disk is full or the folder cannot be written.
        """
        if scan.mask_path is None:
            self.left_out += 1
            return
        of_labels = label_origins(scan, self.clicks, self.masks)
        origins = {label: of_labels[label] for label in scan.mask_labels}
        volume, mask = load_volume(scan.image_path), load_volume(scan.mask_path)
        subject = f"sub-{len(self.cases) + 1:04d}"
        image = self.folder / subject / "anat" / f"{subject}_{self.suffix}"
        derived = self._derivatives / subject / "anat" / f"{subject}_dseg"
        write_image(image.with_suffix(".nii.gz"), as_int16_if_exact(volume.array), volume.geometry)
        write_image(derived.with_suffix(".nii.gz"), mask.array.astype(np.uint8), mask.geometry)
        write_atomically(derived.with_suffix(".tsv"), _table(["index", "name"], enumerate(self.labels, start=1)))
        manual = all(origin["algorithm_type"] == "MANUAL" for origin in origins.values())
        source = f"bids:raw:{image.relative_to(self.folder)}.nii.gz"
        write_json(derived.with_suffix(".json"), {"Sources": [source], "Manual": manual, "Labels": origins})
        self.cases[scan.image_id] = origins

    def finish(self) -> None:
        """Write the descriptions.

        Raises:
            DatasetError: there is no scan with a final mask.
            OSError: the disk is full or the folder cannot be written.
        """
        if not self.cases:
            raise DatasetError("There is no scan with a final mask to export; accept or submit one first.")
        generated_by = [{"Name": software()["name"], "Version": software()["version"]}]
        described = {"Name": "InExtremIS", "BIDSVersion": BIDS_VERSION, "GeneratedBy": generated_by}
        rows = ((f"sub-{number:04d}", image_id) for number, image_id in enumerate(self.cases, start=1))
        write_atomically(self.folder / "participants.tsv", _table(["participant_id", "image_id"], rows))
        write_json(
            self.folder / "participants.json", {"image_id": {"Description": "Name of the image in the project."}}
        )
        write_atomically(self.folder / "README", README.encode())
        write_json(self.folder / "dataset_description.json", {**described, "DatasetType": "raw"})
        of_masks = {**described, "DatasetType": "derivative", "DatasetLinks": {"raw": "../.."}}
        write_json(self._derivatives / "dataset_description.json", {**of_masks, "InExtremIS": self.made_from()})

    def made_from(self) -> dict[str, Any]:
        """Return software, annotators and models of all masks, in values of JSON."""
        return made_from(self.cases.values())

    @property
    def n_scans(self) -> int:
        """Number of written scans."""
        return len(self.cases)

    @property
    def summary(self) -> str:
        """Summary for the user."""
        left_out = f", {self.left_out} without a final mask left out" if self.left_out else ""
        return f"{len(self.cases)} scans written{left_out}"

    @property
    def _derivatives(self) -> Path:
        return self.folder / "derivatives" / PIPELINE


def _table(names: Sequence[str], rows: Any) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerows([names, *rows])
    return text.getvalue().encode()
