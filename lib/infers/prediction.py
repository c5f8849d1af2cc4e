"""The trained network applied to a whole scan."""

from __future__ import annotations

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer

from lib.data.grid import check_grid_size, network_grid, onto_grid, to_scalar_image
from lib.geometry.volume import Volume
from lib.networks.checkpoint import TrainedModel


def predict_probability(model: TrainedModel, volume: Volume, device: torch.device | str = "cpu") -> np.ndarray:
    """Foreground probabilities (C, X, Y, Z) float32 in [0, 1], in the scan's own voxel order.

    Sliding window with Gaussian weights, on the grid that the network was trained on.

    Raises:
        VolumeError: the scan would be too large on that grid.
    """
    check_grid_size(volume.geometry, model.spec.spacing_mm, _bytes_per_voxel(1 + len(model.spec.labels)))
    image = network_grid(model.spec.spacing_mm)(to_scalar_image(volume.array, volume.geometry))
    window = SlidingWindowInferer(model.spec.roi_size, sw_batch_size=1, overlap=0.25, mode="gaussian", device="cpu")
    with torch.inference_mode():
        logits = window(image.data[None].float().to(device), model.network)
    return onto_grid(torch.softmax(logits[0], dim=0)[1:], image.affine, volume.geometry)


def _bytes_per_voxel(classes: int) -> float:
    """Memory at the peak of a prediction, as measured: logits, their probabilities and the weights of windows."""
    return 8 + 13 * classes
