"""Augment patches by random geometry, contrast and noise."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torchio as tio

Augmentation = Literal["none", "flip", "full"]

Axes = tuple[bool, bool, bool]
"""Flags along right, anterior, superior."""

DEGREES = 15.0
SCALE = 0.15
THICK_RATIO = 3.0
"""Ratio to the shortest spacing above which an axis is not rotated towards the others (as in nnU-Net)."""


def random_matrix(
    augmentation: Augmentation, spacing_mm: tuple[float, float, float], mirrored: Axes = (True, True, True)
) -> np.ndarray:
    """Draw a linear map (3, 3) from voxels of a patch to voxels of the scan, about the centre of the patch.

    `flip` randomly reverses axes that may be mirrored, as the authors' public code does; `full` also rotates, in mm,
    and scales each patch.
    """
    matrix = np.eye(3)
    if augmentation == "full":
        spacing = np.array(spacing_mm)
        matrix = _rotation(spacing) * spacing / spacing[:, None] * math.exp(_uniform(-SCALE, SCALE))
    if augmentation != "none":
        matrix = matrix * [(-1.0 if may_be and _chance(0.5) else 1.0) for may_be in mirrored]
    return matrix


class RandomContrast(tio.transforms.augmentation.RandomTransform, tio.transforms.IntensityTransform):
    """Random scaling of intensities about their mean, and random shift.

    Args:
        scale: the factor lies in [1 - scale, 1 + scale].
        shift: maximum shift, in standard deviations of the scan.
    """

    def __init__(self, scale: float, shift: float, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.scale, self.shift = scale, shift

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        for image in self.get_images(subject):
            mean = image.data.mean()
            factor, shift = 1 + _uniform(-self.scale, self.scale), _uniform(-self.shift, self.shift)
            image.set_data((image.data - mean) * factor + mean + shift)
        return subject


_INTENSITIES = tio.Compose(
    [
        RandomContrast(scale=0.25, shift=0.2, p=0.15),
        tio.RandomGamma(log_gamma=0.3, p=0.15),
        tio.RandomBlur(std=(0, 1), p=0.1),
        tio.RandomAnisotropy(downsampling=(1.2, 2), p=0.1),
        tio.RandomNoise(std=(0, 0.2), p=0.1),
    ]
)


def random_intensities(image: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """Change contrast, sharpness and noise of a patch (X, Y, Z) at random; only `full` changes it."""
    if augmentation != "full":
        return image
    return _INTENSITIES(image[None])[0]


def _rotation(spacing_mm: np.ndarray) -> np.ndarray:
    """Draw a rotation matrix (3, 3) in mm, with random angles about the three axes."""
    thick = spacing_mm > THICK_RATIO * spacing_mm.min()
    rotation = np.eye(3)
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        if thick[a] != thick[b]:
            continue
        angle = math.radians(_uniform(-DEGREES, DEGREES))
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        rotation = rotation @ turn
    return rotation


def _chance(probability: float) -> bool:
    return torch.rand(1).item() < probability


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(1).item()
