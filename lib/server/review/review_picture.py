"""Draw the readings of a study over its scan."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lib.annotations.agreement import slices_of_largest_difference
from lib.geometry.volume import Volume

COLORS = ("#4cc9f0", "#ffd166", "#ff5a5f", "#b388eb", "#06d6a0", "#f78c6b", "#ffffff", "#118ab2", "#ef476f")
"""Colors of the readers, in the order of their names."""

MIN_MARGIN_VOXELS = 10


def colors_of(readers: list[str]) -> dict[str, str]:
    """Assign a color to each reader."""
    return {reader: COLORS[n % len(COLORS)] for n, reader in enumerate(sorted(readers))}


def comparison(scan: Volume, maps: Mapping[str, np.ndarray]) -> bytes:
    """Draw a PNG with the slice along each axis in which readings differ most, and the outline of each reading.

    The first outlines are the broadest, so that no outline is hidden.

    Args:
        maps: label maps (X, Y, Z) on the grid of the scan, by reader.
    """
    numbers = slices_of_largest_difference(list(maps.values()))
    low, high = _shown(maps, scan.geometry.shape)
    spacing_mm, names, colors = scan.geometry.spacing_mm, scan.geometry.end_names, colors_of(list(maps))
    dark, bright = np.percentile(scan.array[tuple(map(slice, low, high))], (1, 99.5))
    figure = Figure(figsize=(12, 4), facecolor="black", layout="constrained")
    for axis, ax in zip((2, 1, 0), figure.subplots(1, 3), strict=True):
        across, up = (other for other in range(3) if other != axis)
        aspect = spacing_mm[up] / spacing_mm[across]
        image = scan.array.take(numbers[axis], axis=axis).T
        ax.imshow(image, cmap="gray", origin="lower", vmin=dark, vmax=bright, aspect=aspect)
        for n, (reader, labels) in enumerate(maps.items()):
            shown = labels.take(numbers[axis], axis=axis)
            for label in np.unique(shown[shown > 0]):
                outline = np.pad(shown == label, 1).T.astype(float)
                grid = [np.arange(-1, n + 1) for n in shown.shape]
                ax.contour(*grid, outline, levels=[0.5], colors=colors[reader], linewidths=max(1.2, 3 - n))
        ax.set_xlim(low[across] - 0.5, high[across] - 0.5)
        ax.set_ylim(low[up] - 0.5, high[up] - 0.5)
        ax.set_axis_off()
        for place, end in (
            ((0.02, 0.5), names[across][0]),
            ((0.98, 0.5), names[across][1]),
            ((0.5, 0.03), names[up][0]),
            ((0.5, 0.97), names[up][1]),
        ):
            ax.text(*place, end[0].upper(), color="white", ha="center", va="center", transform=ax.transAxes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def _shown(maps: Mapping[str, np.ndarray], shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return first voxel and end of the box to draw: all readings with a margin of half of their size."""
    union = np.logical_or.reduce([labels > 0 for labels in maps.values()])
    found = [np.flatnonzero(union.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not found[0].size:
        return np.zeros(3, int), np.array(shape)
    first, last = (np.array([of[end] for of in found]) for end in (0, -1))
    margin = np.maximum(MIN_MARGIN_VOXELS, (last - first) // 2)
    return np.maximum(first - margin, 0), np.minimum(last + margin + 1, shape)
