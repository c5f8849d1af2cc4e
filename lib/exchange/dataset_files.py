"""What exported datasets of all formats have in common: files of images, and what a mask is made from."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from lib.annotations.atomic_write import write_atomically
from lib.annotations.masks import MaskStore
from lib.annotations.store import Absence, AnnotationStore
from lib.data.annotated_scan import AnnotatedScan
from lib.exchange.seg_provenance import MANUFACTURER, VERSION
from lib.exchange.segment_origin import SegmentOrigin, origins_of_final
from lib.geometry.volume import Volume


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


def compact(volume: Volume) -> Volume:
    """As int16 where that loses nothing."""
    with np.errstate(invalid="ignore"):
        short = volume.array.astype(np.int16)
    return Volume(short, volume.geometry) if np.array_equal(short, volume.array) else volume


def nifti_bytes(volume: Volume) -> bytes:
    """The content of a .nii.gz file. The same voxels give the same bytes."""
    image = nib.Nifti1Image(volume.array, volume.geometry.affine_ras)
    image.set_qform(volume.geometry.affine_ras, code=1)
    image.set_sform(volume.geometry.affine_ras, code=1)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)  # without the time of day


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes atomically. Raises: OSError."""
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
