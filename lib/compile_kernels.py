"""Compile all kernels into numba's cache, if that is writable: `python -m lib.compile_kernels`.

The installation runs this, so that users do not wait for the compiler; loading from the cache takes under a second.
"""

from __future__ import annotations

import numpy as np
import torch

from lib.clickmask.raster_distance import raster_distance
from lib.losses.bilateral_grid import BilateralGrid
from lib.supervision.shortest_paths import shortest_path


def compile_kernels() -> None:
    """Run each kernel once, on arrays of the types of requests and trainings."""
    shortest_path(np.ones((3, 3, 3)), (0, 0, 0), (2, 2, 2), (1, 1, 1))
    raster_distance(np.ones((3, 3, 3)), np.ones((3, 3, 3), dtype=bool), (1, 1, 1))
    image = torch.arange(64, dtype=torch.float32).reshape(4, 4, 4)
    BilateralGrid(image, (5.0, 5.0, 5.0), sigma_intensity=20.0, nodes_per_sigma=1.1).filter(image[None])


if __name__ == "__main__":
    compile_kernels()
