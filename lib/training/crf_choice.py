"""Decide whether a network's automatic masks go through the dense CRF."""

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
    """Does the dense CRF keep or raise the mean Dice with accepted masks of scans that were not learnt from?

    A network that was trained on clicks knows little of where a structure ends, and gains; one that was trained on many
    accepted masks knows it better than the image's edges (docs/results/accuracy.md).

    Labels that were accepted as the app had made them do not decide: a graph cut ended them at the image's edges, so
    that they would speak for the CRF, whatever the truth.

    Returns:
        True as well where none of the scans has a drawn or corrected mask that can be read.
    """
    gains = []
    for scan in held_out:
        labels = scan.labels_that_were(MaskOrigin.DRAWN, MaskOrigin.CORRECTED)
        if not labels:
            continue
        try:
            image, mask = volumes.image(scan), volumes.mask(scan)
            if mask is None:
                continue
            probability = predict_on_grid(model, image.voxels, device)
        except (VolumeError, BrokenModelError):  # the gate tells of them
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
    """Of a label 1, 2, ... in a box of the grid, float32, from (C, X, Y, Z) float16."""
    found: np.ndarray = probability[(index - 1, *box.slices)].float().numpy()
    return found
