"""Masks of clicks to learn from."""

from __future__ import annotations

import numpy as np

from lib.data.annotated_scan import AnnotatedScan
from lib.geometry.volume import Volume, load_volume
from lib.inference.click_masks import click_label_map

NAME = "1"
"""Changes with the way in which the masks are made."""


class ClickMaskMaker:
    """Makes the label map (X, Y, Z) of a scan's clicks, without a network; see `lib.data.scan_volumes.ClickMasks`."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.index = {label: index for index, label in enumerate(labels, start=1)}

    def __call__(self, scan: AnnotatedScan) -> Volume:
        """Raises: VolumeError."""
        volume = load_volume(scan.image_path)
        structures = [annotation.points for annotation in scan.annotations]
        return Volume(click_label_map(volume, structures, self.index).astype(np.float32), volume.geometry)
