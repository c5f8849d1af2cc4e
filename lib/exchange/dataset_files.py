"""What exported datasets of all formats have in common: files of images, and what a mask is made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lib.annotations.atomic_write import write_atomically
from lib.annotations.mask_store import MaskStore
from lib.annotations.store import Absence, AnnotationStore
from lib.data.annotated_scan import AnnotatedScan
from lib.exchange.seg_provenance import MANUFACTURER, VERSION
from lib.exchange.segment_origin import SegmentOrigin, origins_of_final
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.nifti_image import nifti_gz, nifti_image


class DatasetError(ValueError):
    """What a format does not take; the text is for the user."""


LabelOrigins = dict[str, dict[str, Any]]
"""By label: `from` ("mask", "clicks", "absence"), `annotator`, `created`, `model`; of a mask also `algorithm_type`."""


def software() -> dict[str, str]:
    """Name and version of this software."""
    return {"name": MANUFACTURER, "version": VERSION}


def label_origins(scan: AnnotatedScan, clicks: AnnotationStore, masks: MaskStore) -> LabelOrigins:
    """How each label of a scan came about, who annotated it when, and the model that took part."""
    found = {}
    for label in {*(annotation.label for annotation in scan.annotations), *scan.absent} - {*scan.mask_labels}:
        answer = clicks.load(scan.image_id, label)
        how = "absence" if isinstance(answer, Absence) else "clicks"
        found[label] = {"from": how, "annotator": answer.annotator, "created": answer.created, "model": None}
    if scan.mask_labels:
        record = masks.record(scan.image_id)
        info = {"annotator": record.annotator, "labels": dict(record.labels), **(record.info or {})}
        of_mask = origins_of_final(info)
        for label in scan.mask_labels:
            found[label] = {"from": "mask", **_said(of_mask[label]), "created": record.created}
    return dict(sorted(found.items()))


def made_from(origins: Iterable[LabelOrigins]) -> dict[str, Any]:
    """Software, annotators and models of all scans, in values of JSON."""
    said = [of_label for of_scan in origins for of_label in of_scan.values()]
    models = {(s["model"]["version"], s["model"]["sha256"]) for s in said if s["model"]}
    return {
        "software": software(),
        "annotators": sorted({s["annotator"] for s in said if s["annotator"]}),
        "models": [{"version": version, "sha256": sha256} for version, sha256 in sorted(models, key=str)],
    }


def _said(origin: SegmentOrigin) -> dict[str, Any]:
    model = origin.model and {"version": origin.model.version, "sha256": origin.model.sha256}
    return {"algorithm_type": origin.algorithm_type, "annotator": origin.reader, "model": model}


def write_image(path: Path, array: np.ndarray, geometry: ImageGeometry) -> None:
    """Writes voxels (X, Y, Z) as a .nii.gz file, atomically; the same voxels give the same bytes. Raises: OSError."""
    write_atomically(path, nifti_gz(nifti_image(array, geometry.affine_ras)))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes atomically. Raises: OSError."""
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
