"""From a network's probabilities to its mask, with the edges that the image shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib.refinement.dense_crf import mean_field
from lib.supervision.boxes import Box

SIGMA_ALPHA_MM, SIGMA_BETA, SIGMA_SMOOTH_MM = 3.0, 0.3, 1.25
"""Wider scales take the middle of a lesion for the tissue around it where both are about as bright."""

LEAST_SHARE = 0.3
CONTEXT_MM = 10.0
"""Around what the network found, within which its mask may grow, and which the CRF sees."""


def label_map(foreground_probability: np.ndarray) -> np.ndarray:
    """(C, X, Y, Z) to (X, Y, Z) uint8: the most probable class, background among them."""
    background = 1 - foreground_probability.sum(axis=0, keepdims=True)
    return np.concatenate([background, foreground_probability]).argmax(axis=0).astype(np.uint8)


def crf_label_map(image: np.ndarray, foreground_probability: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """The most probable classes after a dense CRF over each one's probability.

    A network that was trained on clicks has learnt little of where a structure ends; the image shows it (what this
    brings: docs/results.md). A structure of which the CRF would leave less than three tenths stays as the network drew
    it: a network that draws but the core of a structure is taken for one that is wrong, and what is gone nobody sees.

    Args:
        image: (X, Y, Z), finite, of any scale.
        foreground_probability: (C, X, Y, Z) in [0, 1].
        spacing_mm: of the voxels.

    Returns:
        (X, Y, Z) uint8 label indices.
    """
    drawn = label_map(foreground_probability)
    z_scored = (image - image.mean()) / max(float(image.std()), np.finfo(np.float32).tiny)
    margin = np.ceil(CONTEXT_MM / np.asarray(spacing_mm)).astype(int)
    posterior = np.zeros_like(foreground_probability)
    found = [index for index in range(1, 1 + len(posterior)) if (drawn == index).any()]
    for index in found:
        box = Box.around(np.argwhere(drawn == index)).relaxed(tuple(margin.tolist()), image.shape)
        posterior[index - 1][box.slices] = mean_field(
            z_scored[box.slices],
            foreground_probability[index - 1][box.slices],
            spacing_mm,
            sigma_alpha=SIGMA_ALPHA_MM,
            sigma_beta=SIGMA_BETA,
            sigma_smooth=SIGMA_SMOOTH_MM,
        )
    refined = label_map(posterior)
    for index in found:
        if (refined == index).sum() < LEAST_SHARE * (drawn == index).sum():
            refined[refined == index] = 0
            refined[(drawn == index) & (refined == 0)] = index
    return refined
