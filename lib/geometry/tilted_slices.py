"""Straighten slices of a tilted gantry: shear them onto an even grid at right angles.

Such slices are parallel and evenly spaced, and each is shifted in its own plane by the same vector against the previous
one. Every slice of the even grid is in the plane of a slice of the series, so interpolation is within slices, at one
fraction of a pixel per slice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

MAX_TILT_DEGREES = 45.0


def straight_grid(
    affine_lps: np.ndarray, shifts_voxels: np.ndarray, size: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the even grid that covers all slices.

    Args:
        affine_lps: (4, 4) of the grid without shifts; voxel (column, row, slice) to LPS mm.
        shifts_voxels: (K, 2) shift of each slice against the first, along columns and rows.
        size: columns and rows of a slice.

    Returns:
        (4, 4) voxel to LPS mm; and (2,) columns and rows.
    """
    begin = np.floor(shifts_voxels.min(axis=0))
    affine = affine_lps.copy()
    affine[:3, 3] = (affine_lps @ [*begin, 0, 1])[:3]
    return affine, (np.asarray(size) + np.ceil(shifts_voxels.max(axis=0)) - begin).astype(int)


def straightened(array: np.ndarray, shifts_voxels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Interpolate intensities linearly to that grid; voxels outside of the slices get the lowest intensity.

    Args:
        array: (K, rows, columns).
        shifts_voxels: see `straight_grid`.
        size: columns and rows of the grid.

    Returns:
        (K, rows, columns) of the grid, in the dtype of the array.
    """
    begin, fill = np.floor(shifts_voxels.min(axis=0)), array.min()
    result = np.empty((len(array), size[1], size[0]), array.dtype)
    for plane, shift, target in zip(array, shifts_voxels, result, strict=True):
        offset = (begin - shift)[::-1]
        moved = ndimage.affine_transform(
            plane.astype(np.float64), np.ones(2), offset, target.shape, order=1, cval=float(fill)
        )
        target[...] = np.rint(moved) if np.issubdtype(array.dtype, np.integer) else moved
    return result
