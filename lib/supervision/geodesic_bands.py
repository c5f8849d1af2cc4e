"""Bands around geodesics: more of the structure's voxels than a line one voxel wide."""

from __future__ import annotations

import numpy as np

from lib.supervision.boxes import Box


def geodesic_band(
    path_voxel: np.ndarray, radius_voxels: int, tight_box: Box, image_shape: tuple[int, ...]
) -> np.ndarray:
    """The path with the voxels around it, which lie in the structure the more likely the further inside they are.

    No voxel is added that is nearer than the radius to a face of the tight box: there the path is at the border of the
    structure, and its neighbours may be outside. The paper has lines; bands are an option of this implementation.

    Args:
        path_voxel: (n, 3) int.
        radius_voxels: at least 0; 0 is the path alone.
        tight_box: of the six extreme points; it may reach beyond the image.
        image_shape: of the image or patch that the path lies in.

    Returns:
        (m, 3) int voxels of the image, m >= n, each once.

    Raises:
        ValueError: a radius below 0.
    """
    if radius_voxels < 0:
        raise ValueError(f"radius_voxels is {radius_voxels}; expected 0 for the path alone, or more")
    cube = np.indices((2 * radius_voxels + 1,) * 3).reshape(3, -1).T - radius_voxels
    ball = cube[(cube**2).sum(axis=1) <= radius_voxels**2]
    around = (path_voxel[:, None] + ball).reshape(-1, 3)
    low = np.maximum(np.add(tight_box.start, radius_voxels), 0)
    high = np.minimum(np.subtract(tight_box.stop, radius_voxels), image_shape)
    inside = around[np.all((around >= low) & (around < high), axis=1)]
    return np.unique(np.concatenate([path_voxel, inside]), axis=0)
