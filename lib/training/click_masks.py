"""Make click masks for a training, and weigh them by their agreement with drawn masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib.annotations.mask_origin import MaskOrigin
from lib.data.annotated_scan import AnnotatedScan
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.volume import Volume, VolumeError, load_volume
from lib.inference.click_label_map import click_label_map
from lib.metrics import dice
from lib.training.atlases import TrainingAtlases

NAME = "2"
"""Version of the algorithm, a part of cache keys: change it with the algorithm."""

USELESS_AGREEMENT = 0.75
"""Dice with drawn masks at and below which click masks get no weight."""

MAX_SCANS = 8
"""Maximum number of scans on which click masks are compared with drawn masks."""


class ClickMaskMaker:
    """Make the label map (X, Y, Z) of a scan's clicks, without a network; see `lib.data.scan_volumes.ClickMasks`."""

    def __init__(self, labels: tuple[str, ...], atlases: TrainingAtlases) -> None:
        self.index = {label: index for index, label in enumerate(labels, start=1)}
        self.atlases = atlases

    def __call__(self, scan: AnnotatedScan) -> Volume:
        """Make the label map of a scan.

        Raises:
            VolumeError: the image cannot be read.
        """
        volume = load_volume(scan.image_path)
        structures = [annotation.points for annotation in scan.annotations]
        label_map = click_label_map(volume, structures, self.index, learnt=self.atlases.for_scan(scan))
        return Volume(label_map.astype(np.float32), volume.geometry)


def agreement(scans: Sequence[AnnotatedScan], volumes: ScanVolumes, labels: Sequence[str]) -> float | None:
    """Compute the mean Dice, in [0, 1], of click masks with drawn masks of the same scans; None if no scan has both.

    Accepted click masks are left out, with or without corrective clicks: they would be compared with themselves.

    Args:
        labels: names in order of their index 1, 2, ...
    """
    both = [scan for scan in scans if _drawn_and_clicked(scan)]
    found = []
    for scan in both[:MAX_SCANS]:
        try:
            mask, click_mask = volumes.mask(scan), volumes.click_mask(scan)
        except VolumeError:
            continue  # it is logged when a patch of the scan is drawn
        assert mask is not None and click_mask is not None
        for label in _drawn_and_clicked(scan):
            index = 1 + labels.index(label)
            found.append(dice(mask.voxels.numpy() == index, click_mask.voxels.numpy() == index))
    return float(np.mean(found)) if found else None


def _drawn_and_clicked(scan: AnnotatedScan) -> list[str]:
    drawn = scan.labels_with_origin(MaskOrigin.DRAWN)
    return [annotation.label for annotation in scan.annotations if annotation.label in drawn]


def weight_of(agreement: float | None) -> float:
    """Return the weight of click masks in the loss, in [0, 1]: 1 without a drawn mask to compare with.

    At and below `USELESS_AGREEMENT` it is 0: a network trained on a few drawn masks alone is then better.
    """
    return 1.0 if agreement is None else max(0.0, (agreement - USELESS_AGREEMENT) / (1 - USELESS_AGREEMENT))
