"""Decide whether automatic masks of a network are refined by the dense CRF."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from lib.annotations.mask_origin import MaskOrigin
from lib.data.annotated_scan import AnnotatedScan
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.boxes import Box
from lib.geometry.volume import VolumeError
from lib.inference.automatic_mask import refined_label_map
from lib.inference.prediction import BrokenModelError, most_probable, predict_on_grid
from lib.metrics import dice
from lib.networks.checkpoint import TrainedModel


def crf_helps(
    model: TrainedModel, held_out: Sequence[AnnotatedScan], volumes: ScanVolumes, device: torch.device | str = "cpu"
) -> bool:
    """Tell whether the dense CRF keeps or raises the mean Dice with accepted masks of held-out scans.

    The CRF improves boundaries of networks that were trained on clicks, and may worsen those of networks that were
    trained on many accepted masks (docs/results/accuracy.md).

    Labels that were accepted unchanged are not used: a graph cut has aligned their boundary with edges of the image,
    which favours the CRF.

    Returns:
        Also True if none of the scans has a drawn or corrected mask that can be read.
    """
    gains = []
    for scan in held_out:
        labels = scan.labels_with_origin(MaskOrigin.DRAWN, MaskOrigin.CORRECTED)
        if not labels:
            continue
        try:
            image, mask = volumes.image(scan), volumes.mask(scan)
            if mask is None:
                continue
            probability = predict_on_grid(model, image.voxels, device)
        except (VolumeError, BrokenModelError):  # the gate logs them
            continue
        found = most_probable(probability).numpy()
        refined = refined_label_map(
            image.voxels.float().numpy(), found, partial(_probability, probability), model.spec.spacing_mm
        )
        for index in (model.spec.labels.index(label) + 1 for label in labels if label in model.spec.labels):
            truth = mask.voxels.numpy() == index
            gains.append(dice(refined == index, truth) - dice(found == index, truth))
    return not gains or float(np.mean(gains)) >= 0


def _probability(probability: torch.Tensor, index: int, box: Box) -> np.ndarray:
    """Return the probability of label 1, 2, ... in a box of the grid, float32, from (C, X, Y, Z) float16."""
    found: np.ndarray = probability[(index - 1, *box.slices)].float().numpy()
    return found
