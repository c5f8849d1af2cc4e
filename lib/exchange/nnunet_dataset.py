"""Export scans and their annotations as a dataset of nnU-Net v2."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lib.annotations.atomic_write import write_atomically
from lib.annotations.mask_store import MaskStore
from lib.annotations.names import label_values
from lib.annotations.store import Absence, AnnotationStore
from lib.data.annotated_scan import AnnotatedScan
from lib.exchange.known_voxels import known_label_map
from lib.exchange.seg_provenance import MANUFACTURER, VERSION
from lib.exchange.segment_origin import SegmentOrigin, origins_of_final
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.nifti_image import nifti_gz, nifti_image
from lib.geometry.volume import as_int16_if_exact, load_volume

BACKGROUND, IGNORE = "background", "ignore"
"""Names that nnU-Net gives a meaning."""

CASES_FILE = "cases.json"
_NAME = re.compile(r"Dataset\d{3}_[A-Za-z0-9][A-Za-z0-9_\-]*")


class DatasetError(ValueError):
    """What nnU-Net would not take; the text is for the user."""


@dataclass
class NnunetDataset:
    """Writes cases, then `dataset.json`.

    nnU-Net's `labels` hold `ignore` where any case has a voxel of which nothing is known.

    Attributes:
        folder: exists, and is empty.
        labels: of the app, with the values 1, 2, ...
        clicks, masks: that the scans are annotated by.
        channel: name of the only channel; nnU-Net normalises `CT` otherwise than anything else.
        margin: voxels by which tight boxes are relaxed.
        cases: what each case is made from, by its id.
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
        """Writes the image and the label map of a scan.

        Raises:
            VolumeError, MaskError, AnnotationFileError: the scan or its annotations cannot be read; nothing is written.
            OSError: the disk is full or the folder cannot be written.
        """
        origins = self._origins(scan)
        volume = load_volume(scan.image_path)
        known = known_label_map(scan, volume, self.labels, self.margin)
        n_unknown = int(np.count_nonzero(known == 1 + len(self.labels)))
        self.has_unknown |= n_unknown > 0
        values = known.astype(np.min_scalar_type(1 + len(self.labels)))
        self._write(f"labelsTr/{scan.image_id}.nii.gz", values, volume.geometry)
        self._write(f"imagesTr/{scan.image_id}_0000.nii.gz", as_int16_if_exact(volume.array), volume.geometry)
        self.cases[scan.image_id] = {"known_share": round(1 - n_unknown / known.size, 6), "labels": origins}

    def _write(self, name: str, array: np.ndarray, geometry: ImageGeometry) -> None:
        write_atomically(self.folder / name, nifti_gz(nifti_image(array, geometry.affine_ras)))

    def finish(self) -> None:
        """Raises: DatasetError: there is no case. OSError."""
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
        _write_json(self.folder / CASES_FILE, self.cases)
        _write_json(self.folder / "dataset.json", content)

    def made_from(self) -> dict[str, Any]:
        """What all cases are made from, in values of JSON."""
        said = [of_label for case in self.cases.values() for of_label in case["labels"].values()]
        models = {(s["model"]["version"], s["model"]["sha256"]) for s in said if s["model"]}
        return {
            "software": {"name": MANUFACTURER, "version": VERSION},
            "annotators": sorted({s["annotator"] for s in said if s["annotator"]}),
            "models": [{"version": version, "sha256": sha256} for version, sha256 in sorted(models, key=str)],
            "box_margin_voxels": self.margin,
            "cases_with_unknown_voxels": sum(case["known_share"] < 1 for case in self.cases.values()),
        }

    def _origins(self, scan: AnnotatedScan) -> dict[str, dict[str, Any]]:
        """Of each label: how it came about, who annotated it when, and the model that took part."""
        found = {}
        for label in {*(annotation.label for annotation in scan.annotations), *scan.absent} - {*scan.mask_labels}:
            answer = self.clicks.load(scan.image_id, label)
            how = "absence" if isinstance(answer, Absence) else "clicks"
            found[label] = {"from": how, "annotator": answer.annotator, "created": answer.created, "model": None}
        if scan.mask_labels:
            record = self.masks.record(scan.image_id)
            info = {"annotator": record.annotator, "labels": dict(record.labels), **(record.info or {})}
            of_mask = origins_of_final(info)
            for label in scan.mask_labels:
                found[label] = {"from": "mask", **_said(of_mask[label]), "created": record.created}
        return dict(sorted(found.items()))


def check_dataset(folder: Path, labels: Sequence[str]) -> None:
    """Raises: DatasetError: nnU-Net would not find the folder, or take a label for something else."""
    if not _NAME.fullmatch(folder.name):
        raise DatasetError(
            f"The folder is named {folder.name!r}; nnU-Net expects a name such as Dataset501_Lesion, with three digits."
        )
    for label in labels:
        if label in (BACKGROUND, IGNORE):
            raise DatasetError(f"The label {label!r} has a meaning of its own in nnU-Net; rename it in the app.")


def _said(origin: SegmentOrigin) -> dict[str, Any]:
    model = origin.model and {"version": origin.model.version, "sha256": origin.model.sha256}
    return {"algorithm_type": origin.algorithm_type, "annotator": origin.reader, "model": model}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
