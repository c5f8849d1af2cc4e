"""Log metrics and pictures of a training for TensorBoard."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

KEPT_RUNS = 20
"""Number of runs whose curves and pictures are kept; those of older runs are deleted."""

GEODESIC_RGB = (255, 209, 102)
KNOWN_BACKGROUND_LIGHT = 0.35


class EventLog:
    """Metrics and pictures of one training, as event files of TensorBoard.

    Args:
        folder: folder of all trainings.
        run_name: name of this one, of a folder in it.
    """

    def __init__(self, folder: Path, run_name: str) -> None:
        _keep_newest(folder, KEPT_RUNS - 1)
        self._writer = SummaryWriter(str(folder / run_name))

    def metrics(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Log metrics by name."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, iteration)
        self._writer.flush()

    def picture(self, name: str, picture: np.ndarray, iteration: int) -> None:
        """Log a picture (H, W, 3) uint8."""
        self._writer.add_image(name, picture, iteration, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _keep_newest(folder: Path, count: int) -> None:
    runs = [run for run in folder.iterdir() if run.is_dir()] if folder.is_dir() else []
    for run in sorted(runs, key=lambda run: run.stat().st_mtime_ns)[: max(0, len(runs) - count)]:
        shutil.rmtree(run, ignore_errors=True)


def supervision_picture(images: torch.Tensor, label_sets: torch.Tensor) -> np.ndarray | None:
    """Draw the supervision of a batch, in the patch with most foreground.

    The geodesics of all slices are drawn over the slice with most of their voxels; known background is darkened,
    unknown voxels are not.

    Args:
        images: (B, 1, X, Y, Z).
        label_sets: (B, 1 + C, X, Y, Z) bool.

    Returns:
        (Y, X, 3) uint8; None if no voxel is known to be foreground.
    """
    foreground = ~label_sets[:, 0]
    if not foreground.any():
        return None
    chosen = int(foreground.sum(dim=(1, 2, 3)).argmax())
    image, drawn = images[chosen, 0].float().cpu().numpy(), foreground[chosen].cpu().numpy()
    background = (~label_sets[chosen, 1:].any(dim=0)).cpu().numpy()
    number = int(drawn.sum(axis=(0, 1)).argmax())
    slice_ = image[..., number]
    low, high = np.percentile(slice_, (1, 99))
    grey = np.clip((slice_ - low) / max(high - low, 1e-6), 0, 1) * 255
    grey[background[..., number]] *= KNOWN_BACKGROUND_LIGHT
    picture = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    picture[drawn.any(axis=-1)] = GEODESIC_RGB
    return picture.transpose(1, 0, 2)[::-1]
