"""Export scans and their annotations as a dataset of nnU-Net v2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lib.annotations.mask_store import MaskStore
from lib.annotations.names import label_values
from lib.annotations.store import AnnotationStore
from lib.data.annotated_scan import AnnotatedScan
from lib.exchange.dataset_files import DatasetError, label_origins, made_from, write_image, write_json
from lib.exchange.known_voxels import known_label_map
from lib.geometry.volume import as_int16_if_exact, load_volume

BACKGROUND, IGNORE = "background", "ignore"
"""Names with a special meaning in nnU-Net."""

CASES_FILE = "cases.json"
_NAME = re.compile(r"Dataset\d{3}_[A-Za-z0-9][A-Za-z0-9_\-]*")


@dataclass
class NnunetDataset:
    """Writer of cases and `dataset.json`.

    nnU-Net's `labels` contain `ignore` if any case has a voxel of unknown class.

    Attributes:
        folder: existing, empty folder.
        labels: of the app, with the values 1, 2, ...
        clicks, masks: the annotations of the scans.
        channel: name of the only channel; nnU-Net has a special normalisation for `CT`.
        margin: voxels by which tight boxes are relaxed.
        cases: origins of each case, by its id.
    """

    folder: Path
    labels: Sequence[str]
    clicks: AnnotationStore
    masks: MaskStore
    channel: str
    margin: int
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)
    has_unknown: bool = False

    def add(self, scan: AnnotatedScan) -> None:
        """Write the image and the label map of a scan.

        Raises:
            VolumeError, MaskError, AnnotationFileError: the scan or its annotations cannot be read; nothing is written.
            OSError: the disk is full or the folder cannot be written.
        """
        origins = label_origins(scan, self.clicks, self.masks)
        volume = load_volume(scan.image_path)
        known = known_label_map(scan, volume, self.labels, self.margin)
        n_unknown = int(np.count_nonzero(known == 1 + len(self.labels)))
        self.has_unknown |= n_unknown > 0
        values = known.astype(np.min_scalar_type(1 + len(self.labels)))
        write_image(self.folder / "labelsTr" / f"{scan.image_id}.nii.gz", values, volume.geometry)
        image = as_int16_if_exact(volume.array)
        write_image(self.folder / "imagesTr" / f"{scan.image_id}_0000.nii.gz", image, volume.geometry)
        self.cases[scan.image_id] = {"known_share": round(1 - n_unknown / known.size, 6), "labels": origins}

    def finish(self) -> None:
        """Write `cases.json` and `dataset.json`.

        Raises:
            DatasetError: there is no case.
            OSError: the disk is full or the folder cannot be written.
        """
        if not self.cases:
            raise DatasetError("There is no scan to export.")
        labels = {BACKGROUND: 0, **label_values(self.labels)}
        if self.has_unknown:
            labels[IGNORE] = len(labels)
        content = {
            "channel_names": {"0": self.channel},
            "labels": labels,
            "numTraining": len(self.cases),
            "file_ending": ".nii.gz",
            "inextremis": self.made_from(),
        }
        write_json(self.folder / CASES_FILE, self.cases)
        write_json(self.folder / "dataset.json", content)

    def made_from(self) -> dict[str, Any]:
        """Return software, annotators, models and figures of all cases, in values of JSON."""
        return {
            **made_from(case["labels"] for case in self.cases.values()),
            "box_margin_voxels": self.margin,
            "cases_with_unknown_voxels": sum(case["known_share"] < 1 for case in self.cases.values()),
        }

    @property
    def n_scans(self) -> int:
        """Number of written scans."""
        return len(self.cases)

    @property
    def summary(self) -> str:
        """Summary for the user."""
        partly = self.made_from()["cases_with_unknown_voxels"]
        return f"{len(self.cases)} scans written, {partly} of them with voxels to be ignored"


def check_dataset(folder: Path, labels: Sequence[str]) -> None:
    """Raise a DatasetError if nnU-Net would not find the folder, or misinterpret a label."""
    if not _NAME.fullmatch(folder.name):
        raise DatasetError(
            f"The folder is named {folder.name!r}; nnU-Net expects a name such as Dataset501_Lesion, with three digits."
        )
    for label in labels:
        if label in (BACKGROUND, IGNORE):
            raise DatasetError(f"The label {label!r} has a meaning of its own in nnU-Net; rename it in the app.")
