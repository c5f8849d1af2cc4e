"""Write images and the provenance of masks, for exported datasets of all formats."""

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
    """Error of a dataset that a format does not allow; the text is for the user."""


LabelOrigins = dict[str, dict[str, Any]]
"""By label: `from` ("mask", "clicks", "absence"), `annotator`, `created`, `model`; for a mask also `algorithm_type`."""


def software() -> dict[str, str]:
    """Return name and version of this software."""
    return {"name": MANUFACTURER, "version": VERSION}


def label_origins(scan: AnnotatedScan, clicks: AnnotationStore, masks: MaskStore) -> LabelOrigins:
    """Return the kind of annotation, annotator, time and model of each label of a scan."""
    found = {}
    for label in {*(annotation.label for annotation in scan.annotations), *scan.absent} - {*scan.mask_labels}:
        answer = clicks.load(scan.image_id, label)
        kind = "absence" if isinstance(answer, Absence) else "clicks"
        found[label] = {"from": kind, "annotator": answer.annotator, "created": answer.created, "model": None}
    if scan.mask_labels:
        record = masks.record(scan.image_id)
        info = {"annotator": record.annotator, "labels": dict(record.labels), **(record.info or {})}
        of_mask = origins_of_final(info)
        for label in scan.mask_labels:
            found[label] = {"from": "mask", **_origin_record(of_mask[label]), "created": record.created}
    return dict(sorted(found.items()))


def made_from(origins: Iterable[LabelOrigins]) -> dict[str, Any]:
    """Return software, annotators and models of all scans, in values of JSON."""
    records = [of_label for of_scan in origins for of_label in of_scan.values()]
    models = {(record["model"]["version"], record["model"]["sha256"]) for record in records if record["model"]}
    return {
        "software": software(),
        "annotators": sorted({record["annotator"] for record in records if record["annotator"]}),
        "models": [{"version": version, "sha256": sha256} for version, sha256 in sorted(models, key=str)],
    }


def _origin_record(origin: SegmentOrigin) -> dict[str, Any]:
    model = origin.model and {"version": origin.model.version, "sha256": origin.model.sha256}
    return {"algorithm_type": origin.algorithm_type, "annotator": origin.reader, "model": model}


def write_image(path: Path, array: np.ndarray, geometry: ImageGeometry) -> None:
    """Write voxels (X, Y, Z) as a .nii.gz file, atomically; the same voxels give the same bytes."""
    write_atomically(path, nifti_gz(nifti_image(array, geometry.affine_ras)))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
