"""Compute the mask of minimum energy by a graph cut."""

from __future__ import annotations

import numpy as np
from numpymaxflow import maxflow

# numpymaxflow takes probabilities and replaces those below float32's epsilon, so no voxel's cost may exceed
# -log(epsilon) = 15.9.
LARGEST_COST = 15.0


def graph_cut(
    log_odds: np.ndarray,
    image: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    smoothness: float,
    contrast: float,
) -> np.ndarray:
    """Minimise E(y) = -sum_k u_k y_k + sum_{k,l} w_kl |y_k - y_l| exactly, over 6-connected neighbours k, l.

    w_kl = smoothness · (a_kl / a_max) · exp(-(X_k - X_l)² / 2 contrast²), where a_kl is the area of the face
    between both voxels: between thick slices it is small, so the mask may change more from slice to slice.
    (Boykov and Kolmogorov, PAMI 2004; the contrast term of Boykov and Jolly, ICCV 2001.)

    Args:
        log_odds: (X, Y, Z) u, positive where the structure is likely; infinite where a voxel's side is fixed.
        image: (X, Y, Z) X, finite.
        spacing_mm: voxel size along each axis.
        smoothness: at least 0, in units of log-odds.
        contrast: more than 0, in units of the image; a border is free where intensities step by much more.

    Returns:
        (X, Y, Z) bool; one of the minima where several exist.

    Raises:
        ValueError: volumes of different shapes, or a smoothness or contrast out of range.
    """
    if log_odds.ndim != 3 or log_odds.shape != image.shape:
        raise ValueError(f"log_odds has shape {log_odds.shape}, image {image.shape}; expected one (X, Y, Z) for both")
    if not (smoothness >= 0 and contrast > 0):
        raise ValueError(f"smoothness is {smoothness}, contrast {contrast}; expected at least 0, and more than 0")
    if log_odds.size == 1:  # a graph without edges is undefined behaviour in numpymaxflow
        return log_odds > 0
    relative_area = np.min(spacing_mm) / np.asarray(spacing_mm, dtype=np.float64)
    # A voxel whose log-odds exceed the sum of its pairwise terms never changes side.
    # So log-odds can be clipped to that sum, and the whole energy scaled to the range of numpymaxflow.
    decided = 2 * smoothness * relative_area.sum() + 0.1
    scale = min(1.0, LARGEST_COST / decided)
    costs = scale * np.clip(log_odds, -decided, decided)
    probabilities = np.exp(-np.stack([np.maximum(costs, 0), np.maximum(-costs, 0)])).astype(np.float32)
    channels = np.stack([image / contrast, *_area_channels(image.shape, relative_area)]).astype(np.float32)
    labels = maxflow(channels, probabilities, smoothness * scale, 1.0, 6)
    cut = labels[0] > 0
    # numpymaxflow 0.0.7 leaks a reference to its result; resizing frees its memory.
    labels.resize(0, refcheck=False)
    return cut


def _area_channels(shape: tuple[int, ...], relative_area: np.ndarray) -> list[np.ndarray]:
    """Return channels that encode the area of the faces, because maxflow computes weights from intensities only.

    A channel that alternates along one axis adds the same squared difference d² to all pairs along that axis,
    and so multiplies their weights by exp(-d² / 2).
    """
    channels = []
    for axis, area in enumerate(relative_area):
        if area < 1:
            line = np.sqrt(-2 * np.log(area)) * (np.arange(shape[axis]) % 2)
            channels.append(np.broadcast_to(line.reshape([-1 if a == axis else 1 for a in range(3)]), shape))
    return channels
