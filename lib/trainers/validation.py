"""How far a network agrees with annotators, where there are clicks and no masks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from monai.metrics.meandice import compute_dice

from lib.data.scans import AnnotatedScan
from lib.geometry.volume import Volume, VolumeError, load_volume
from lib.infers.prediction import predict_probability
from lib.networks.checkpoint import TrainedModel
from lib.refinement.automatic_mask import label_map
from lib.refinement.cold_start import segment_from_clicks

logger = logging.getLogger(__name__)


def agreement(model: TrainedModel, scans: Sequence[AnnotatedScan], device: torch.device | str = "cpu") -> float | None:
    """Mean Dice, in [0, 1], of the automatic masks with what annotators said.

    That is their final mask, or the mask that comes of their clicks alone, without any network: on the demo studies
    the latter has a Dice of 0.97 with the truth, so that it can stand for it (docs/loop.md). The mean is over all
    structures of all scans; one that was not clicked is unknown and does not count.

    Returns:
        None where no scan can be read.
    """
    scores: list[float] = []
    model.network.to(device).eval()
    for scan in scans:
        try:
            volume = load_volume(scan.image_path)
            references = dict(_references(scan, volume, model.spec.labels))
            predicted = label_map(predict_probability(model, volume, device))
        except VolumeError as error:
            logger.warning("%s It is left out of the comparison.", error)
            continue
        scores += [_dice(predicted == index, reference) for index, reference in references.items()]
    return float(np.mean(scores)) if scores else None


def _references(scan: AnnotatedScan, volume: Volume, labels: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
    """(X, Y, Z) bool for the index of each label that is known."""
    if scan.mask_path is not None:
        mask = load_volume(scan.mask_path).array
        yield from ((index, mask == index) for index in range(1, 1 + len(labels)))
        return
    for annotation in scan.annotations:
        index = 1 + labels.index(annotation.points.label)
        yield index, segment_from_clicks(volume.array, annotation.points, volume.geometry.spacing_mm)


def _dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    one, other = (torch.from_numpy(mask)[None, None] for mask in (predicted, reference))
    return float(compute_dice(one, other, ignore_empty=False))
