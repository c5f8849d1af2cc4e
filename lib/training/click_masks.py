"""Masks of clicks to learn from."""

from __future__ import annotations

import numpy as np

from lib.data.annotated_scan import AnnotatedScan
from lib.geometry.volume import Volume, load_volume
from lib.refinement.cold_start import segment_from_clicks
from lib.refinement.label_map import merge_masks

NAME = "1"
"""Changes with the way in which the masks are made."""


class ClickMaskMaker:
    """Makes the label map (X, Y, Z) of a scan's clicks, without a network; see `lib.data.scan_volumes.ClickMasks`."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.index = {label: index for index, label in enumerate(labels, start=1)}

    def __call__(self, scan: AnnotatedScan) -> Volume:
        """Raises: VolumeError."""
        volume = load_volume(scan.image_path)
        spacing_mm = volume.geometry.spacing_mm
        masks, clicks = {}, {}
        for annotation in scan.annotations:
            points = annotation.points
            masks[self.index[points.label]] = segment_from_clicks(volume.array, points, spacing_mm)
            clicks[self.index[points.label]] = points.foreground_voxel
        return Volume(merge_masks(masks, clicks, spacing_mm).astype(np.float32), volume.geometry)
