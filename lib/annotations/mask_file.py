"""Read and write the file of a mask: NIfTI that names its own labels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from lib.annotations.json_check import finite_json
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.nifti_image import nifti_gz, nifti_image
from lib.geometry.volume import Volume

_COMMENT = 6  # code of a NIfTI header extension of plain text
_KIND = "inextremis mask"


class MaskError(ValueError):
    """Error of a mask that cannot be stored or used; its text is for the user."""


@dataclass(frozen=True)
class MaskRecord:
    """Record in the file of a mask.

    Attributes:
        labels: the value of each label that the mask covers.
        image_checksum: of the voxels of its image (`voxel_checksum`); None if it was not recorded.
        replaced: name in the history, without extension, of the mask that it replaced; None without one. Set by
            `MaskStore.save`.
    """

    labels: Mapping[str, int]
    annotator: str = "unknown"
    created: str = ""
    image_checksum: str | None = None
    info: Mapping[str, Any] | None = None
    replaced: str | None = field(default=None, compare=False)


def encoded_mask(mask: Volume, record: MaskRecord) -> bytes:
    """Encode a mask (X, Y, Z) with the values of `record.labels` as .nii.gz."""
    image = nifti_image(mask.array.astype(np.uint8), mask.geometry.affine_ras)
    content = {
        "kind": _KIND,
        "labels": dict(record.labels),
        "annotator": record.annotator,
        "created": record.created or datetime.now(UTC).isoformat(timespec="milliseconds"),
        "image_checksum": record.image_checksum,
        "info": dict(record.info or {}),
        "replaced": record.replaced,
    }
    image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, json.dumps(content).encode()))
    return nifti_gz(image)


def _history_name_in(value: Any) -> str | None:
    """Return a value if it is a name in the history; None for anything else, such as the path of another file."""
    return value if isinstance(value, str) and re.fullmatch(r"[0-9]{8}T[0-9]{12}", value) else None


def named_record(path: Path) -> MaskRecord | None:
    """Return the record in the file of a mask; None for a file that this module has not written.

    Raises:
        MaskError: it cannot be read.
    """
    if path.name.endswith(".nrrd"):
        return None
    try:
        header: Any = nib.load(path).header
        extensions = header.extensions
    except Exception as error:  # a damaged file raises errors of any kind
        raise MaskError(f"The mask {path.name} cannot be read ({error}).") from error
    for extension in extensions:
        try:
            content = finite_json(extension.get_content())
            if content["kind"] == _KIND:
                return MaskRecord(
                    {str(label): int(value) for label, value in content["labels"].items()},
                    str(content["annotator"]),
                    str(content["created"]),
                    None if content["image_checksum"] is None else str(content["image_checksum"]),
                    dict(content["info"]),
                    _history_name_in(content.get("replaced")),
                )
        except (RecursionError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def require_grid(mask: ImageGeometry, geometry: ImageGeometry, name: str) -> None:
    """Raise a MaskError if a mask is not on the grid of its image, up to the rounding of file formats."""
    if not geometry.is_close(mask):
        size, expected = (" x ".join(map(str, shape)) for shape in (mask.shape, geometry.shape))
        differs = (
            f"{size} voxels; the image has {expected}"
            if size != expected
            else f"{geometry.voxels_apart(mask):.2f} voxels apart"
        )
        raise MaskError(f"The mask {name} is not on the grid of its image ({differs}); resample it to the image.")
