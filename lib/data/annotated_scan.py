"""Describe a scan with its annotations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib.annotations.mask_origin import MaskOrigin
from lib.annotations.store import Annotation


@dataclass(frozen=True)
class AnnotatedScan:
    """Image file with clicks on its structures, a final mask, or both.

    Attributes:
        image_id: name in the datastore.
        image_path: image file; clicks and masks are on its grid.
        image_checksum: checksum of the voxels.
        annotations: clicks, one item for each clicked label.
        absent: labels that are not in the scan.
        mask_path: final mask with the values of the app's labels.
        mask_labels: labels that the mask covers: they are not outside it.
        mask_origins: origins of these labels; a label without one was drawn.
    """

    image_id: str
    image_path: Path
    image_checksum: str
    annotations: tuple[Annotation, ...] = ()
    absent: tuple[str, ...] = ()
    mask_path: Path | None = None
    mask_labels: tuple[str, ...] = ()
    mask_origins: Mapping[str, MaskOrigin] = field(default_factory=dict, hash=False)

    def labels_with_origin(self, *origins: MaskOrigin) -> tuple[str, ...]:
        """Return the labels of the mask that have one of these origins."""
        return tuple(label for label in self.mask_labels if self.mask_origins.get(label, MaskOrigin.DRAWN) in origins)

    @property
    def digest(self) -> str:
        """Key of the image with its annotations, 32 hexadecimal digits."""
        parts = [self.image_id, self.image_checksum, str(self.absent), str(self.mask_labels)]
        parts += [f"{a.points.label} {a.points.foreground_voxel.tolist()}" for a in self.annotations]
        if self.mask_path is not None and self.mask_path.exists():
            parts.append(str(self.mask_path.stat().st_mtime_ns))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    @property
    def answered(self) -> frozenset[str]:
        """Labels that are clicked, absent, or covered by the mask."""
        clicked = (annotation.points.label for annotation in self.annotations)
        return frozenset((*clicked, *self.absent, *self.mask_labels))
