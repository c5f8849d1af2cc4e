"""Score a network on a scan by its accepted mask or its clicks."""

from __future__ import annotations

import numpy as np
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.data.annotated_scan import AnnotatedScan
from lib.data.clicks import clicks_on_grid
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.boxes import Box
from lib.geometry.volume import VolumeError
from lib.inference.prediction import most_probable, predict_on_grid
from lib.metrics import dice
from lib.networks.checkpoint import TrainedModel
from lib.supervision.geodesics import extreme_point_geodesics
from lib.training.click_facts import ClickFacts

NAME = "3"
"""Version of the score, a part of cache keys: change it with the score."""


def scan_score(
    model: TrainedModel, scan: AnnotatedScan, volumes: ScanVolumes, margin: int, device: torch.device | str = "cpu"
) -> float:
    """Compute the mean score, in [0, 1], over answered labels: Dice with the accepted mask, or else the click score.

    An absent label scores 1 if the network draws nothing, else 0.

    Args:
        margin: voxels of the network's grid by which tight boxes are relaxed.

    Raises:
        VolumeError: the scan cannot be read, or none of its labels was answered.
        BrokenModelError: the output of the network is not finite.
    """
    image, mask = volumes.image(scan), volumes.mask(scan)
    drawn = most_probable(predict_on_grid(model, image.voxels, device)).numpy()
    clicks = {a.points.label: clicks_on_grid(a, image.affine) for a in scan.annotations}
    scores = []
    for index, label in enumerate(model.spec.labels, start=1):
        found = drawn == index
        if mask is not None and label in scan.mask_labels:
            scores.append(dice(found, mask.voxels.numpy() == index))
        elif label in clicks:
            scores.append(click_score(found, clicks[label], image.voxels, model.spec.spacing_mm, margin))
        elif label in scan.absent:
            scores.append(float(not found.any()))
    if not scores:
        raise VolumeError("None of its labels was answered.")
    return float(np.mean(scores))


def click_score(
    mask: np.ndarray, points: ExtremePoints, image: torch.Tensor, spacing_mm: tuple[float, float, float], margin: int
) -> float:
    """Score a mask (X, Y, Z) bool by six clicks, in [0, 1]; correlates with the true Dice (docs/method.md)."""
    region = Box.around(points.foreground_voxel).relaxed(1, tuple(image.shape))
    start = np.array(region.start)
    paths = extreme_point_geodesics(image[region.slices].float().numpy(), points.extremes_voxel - start, spacing_mm)
    facts = ClickFacts.of(mask, points, [path + start for path in paths], margin)
    return facts.score
