"""Read image, mask and click masks of a scan on the grid of a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from lib.data.annotated_scan import AnnotatedScan
from lib.data.prepared_scans import PreparedScans, PreparedVolume, place_of
from lib.geometry.image_geometry import Spacing
from lib.geometry.volume import Volume, VolumeError, load_volume

ClickMasks = Callable[[AnnotatedScan], Volume]
"""Makes the label map (X, Y, Z) of the click masks of a scan, on the grid of the scan."""


@dataclass(frozen=True)
class ScanVolumes:
    """Image, accepted mask and click masks of a scan, from the cache. All methods raise VolumeError.

    Attributes:
        spacing_mm: of the grid.
        click_masks: makes click masks; None to train without them.
        click_masks_name: key of the algorithm and its models.
    """

    prepared: PreparedScans
    spacing_mm: Spacing
    click_masks: ClickMasks | None = None
    click_masks_name: str = ""

    def image(self, scan: AnnotatedScan) -> PreparedVolume:
        return self.prepared.image(scan.image_path, scan.image_checksum, self.spacing_mm)

    def mask(self, scan: AnnotatedScan) -> PreparedVolume | None:
        """Return the accepted mask, with the values of the app's labels, or None."""
        path = scan.mask_path
        if path is None:
            return None
        try:
            status = path.stat()
        except OSError as error:
            raise VolumeError(f"Its mask cannot be read ({error.strerror}).") from error
        name = f"mask {path} {status.st_size} {status.st_mtime_ns}"
        return self.prepared.label_map(
            scan.image_checksum, name, self.spacing_mm, lambda: load_volume(path, sentinels=False)
        )

    def click_mask(self, scan: AnnotatedScan) -> PreparedVolume | None:
        """Return the click masks; None without clicks or `click_masks`."""
        make = self.click_masks
        if make is None or not scan.annotations:
            return None
        clicks = "".join(
            f"{a.points.label} {a.points.foreground_voxel.tolist()} {a.points.background_voxel.tolist()}"
            for a in scan.annotations
        )
        place = place_of(scan.image_path)
        name = f"click mask {self.click_masks_name} {place} {hashlib.sha256(clicks.encode()).hexdigest()}"
        return self.prepared.label_map(scan.image_checksum, name, self.spacing_mm, lambda: make(scan))
