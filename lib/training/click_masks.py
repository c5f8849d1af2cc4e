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
"""Changes with the way in which the masks are made."""

USELESS_AGREEMENT = 0.75

MAX_SCANS = 8
"""On which masks of clicks are compared with drawn ones."""


class ClickMaskMaker:
    """Makes the label map (X, Y, Z) of a scan's clicks, without a network; see `lib.data.scan_volumes.ClickMasks`."""

    def __init__(self, labels: tuple[str, ...], atlases: TrainingAtlases) -> None:
        self.index = {label: index for index, label in enumerate(labels, start=1)}
        self.atlases = atlases

    def __call__(self, scan: AnnotatedScan) -> Volume:
        """Raises: VolumeError."""
        volume = load_volume(scan.image_path)
        structures = [annotation.points for annotation in scan.annotations]
        label_map = click_label_map(volume, structures, self.index, learnt=self.atlases.for_scan(scan))
        return Volume(label_map.astype(np.float32), volume.geometry)


def agreement(scans: Sequence[AnnotatedScan], volumes: ScanVolumes, labels: Sequence[str]) -> float | None:
    """Mean Dice, in [0, 1], of masks of clicks with the drawn masks of the same scans; None where no scan has both.

    Masks that were accepted, as they were or after corrective clicks, are left out: they are masks of these very clicks
    and would be compared with themselves.

    Args:
        volumes: with masks of the clicks.
        labels: names in order of their index 1, 2, ...
    """
    both = [scan for scan in scans if _drawn_and_clicked(scan)]
    found = []
    for scan in both[:MAX_SCANS]:
        try:
            mask, click_mask = volumes.mask(scan), volumes.click_mask(scan)
        except VolumeError:
            continue  # it is named in the log once a patch of it is drawn
        assert mask is not None and click_mask is not None
        for label in _drawn_and_clicked(scan):
            index = 1 + labels.index(label)
            found.append(dice(mask.voxels.numpy() == index, click_mask.voxels.numpy() == index))
    return float(np.mean(found)) if found else None


def _drawn_and_clicked(scan: AnnotatedScan) -> list[str]:
    drawn = scan.labels_that_were(MaskOrigin.DRAWN)
    return [annotation.label for annotation in scan.annotations if annotation.label in drawn]


def weight_of(agreement: float | None) -> float:
    """Weight of click masks in the loss, in [0, 1]: 1 where there is no drawn mask to compare with.

    Below `USELESS_AGREEMENT` not at all: a network that learns from a few drawn masks alone is better then.
    """
    return 1.0 if agreement is None else max(0.0, (agreement - USELESS_AGREEMENT) / (1 - USELESS_AGREEMENT))
