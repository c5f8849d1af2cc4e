"""The mask of least energy, by a graph cut."""

from __future__ import annotations

import numpy as np
from numpymaxflow import maxflow

# More than any sum of pairwise terms around a voxel, so that a voxel with these log-odds never changes side.
HARD_LOG_ODDS = 40.0


def graph_cut(
    log_odds: np.ndarray,
    image: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    smoothness: float,
    contrast: float,
) -> np.ndarray:
    """The exact minimum of E(y) = -sum_k u_k y_k + sum_{k,l} w_kl |y_k - y_l| over 6-connected neighbours k, l.

    w_kl = smoothness · (a_kl / a_max) · exp(-(X_k - X_l)² / 2 contrast²), where a_kl is the area of the face
    between both voxels: between thick slices it is small, so the mask may change more from slice to slice.
    (Boykov and Kolmogorov, PAMI 2004.)

    Args:
        log_odds: (X, Y, Z) u, positive where the structure is likely.
        image: (X, Y, Z) X.
        spacing_mm: voxel size along each axis.
        smoothness: at least 0, in units of log-odds.
        contrast: step of intensity that a border follows, more than 0.

    Returns:
        (X, Y, Z) bool.
    """
    costs = np.stack([np.exp(np.minimum(-log_odds, 0)), np.exp(np.minimum(log_odds, 0))])
    channels = [image, *_area_channels(image.shape, spacing_mm, contrast)]
    cut = maxflow(np.stack(channels).astype(np.float32), costs.astype(np.float32), smoothness, contrast, 6)
    return cut[0] > 0


def _area_channels(shape: tuple[int, ...], spacing_mm: tuple[float, float, float], contrast: float) -> list[np.ndarray]:
    """Channels that put the area of the faces into the weights, which maxflow takes from intensities only.

    A channel that alternates along one axis adds the same squared difference to all pairs along that axis.
    """
    channels = []
    for axis, spacing in enumerate(spacing_mm):
        relative_area = np.min(spacing_mm) / spacing
        if relative_area < 1:
            step = contrast * np.sqrt(-2 * np.log(relative_area))
            line = step * (np.arange(shape[axis]) % 2)
            channels.append(np.broadcast_to(line.reshape([-1 if a == axis else 1 for a in range(3)]), shape))
    return channels
