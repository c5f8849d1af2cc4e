"""A scan with what annotators said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    """

    image_id: str
    image_path: Path
    image_checksum: str
    annotations: tuple[Annotation, ...] = ()
    absent: tuple[str, ...] = ()
    mask_path: Path | None = None
    mask_labels: tuple[str, ...] = ()

    @property
    def answered(self) -> frozenset[str]:
        """Labels of which the annotators have said all there is to say."""
        clicked = (annotation.points.label for annotation in self.annotations)
        return frozenset((*clicked, *self.absent, *self.mask_labels))
