"""Hold a scan with its annotations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib.annotations.mask_origin import MaskOrigin
from lib.annotations.store import Annotation


@dataclass(frozen=True)
class AnnotatedScan:
    """An image file with clicks on its structures, a full mask, or both.

    Attributes:
        image_id: its name in the datastore.
        image_path: the file; the clicks and the masks lie on its grid.
        image_checksum: of its voxels.
        annotations: one for each label that was clicked.
        absent: labels of which an annotator said that they are not in the scan.
        mask_path: an accepted mask with the values of the app's labels.
        mask_labels: those that the mask covers: where it is not, they are not.
        mask_origins: how each of these came about; one that is missing was drawn.
    """

    image_id: str
    image_path: Path
    image_checksum: str
    annotations: tuple[Annotation, ...] = ()
    absent: tuple[str, ...] = ()
    mask_path: Path | None = None
    mask_labels: tuple[str, ...] = ()
    mask_origins: Mapping[str, MaskOrigin] = field(default_factory=dict, hash=False)

    def labels_that_were(self, *origins: MaskOrigin) -> tuple[str, ...]:
        """Labels of the mask that have one of these origins."""
        return tuple(label for label in self.mask_labels if self.mask_origins.get(label, MaskOrigin.DRAWN) in origins)

    @property
    def digest(self) -> str:
        """Identify the image with its annotations, in 32 hexadecimal digits."""
        said = [self.image_id, self.image_checksum, str(self.absent), str(self.mask_labels)]
        said += [f"{a.points.label} {a.points.foreground_voxel.tolist()}" for a in self.annotations]
        if self.mask_path is not None and self.mask_path.exists():
            said.append(str(self.mask_path.stat().st_mtime_ns))
        return hashlib.sha256("\n".join(said).encode()).hexdigest()[:32]

    @property
    def answered(self) -> frozenset[str]:
        """Labels that are clicked, absent, or covered by the mask."""
        clicked = (annotation.points.label for annotation in self.annotations)
        return frozenset((*clicked, *self.absent, *self.mask_labels))
