"""What a training shows of itself: figures and pictures, in TensorBoard and, if wanted, in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow import MlflowClient
from monai.handlers import MLFlowHandler
from torch.utils.tensorboard import SummaryWriter

GEODESIC_RGB = (255, 209, 102)
KNOWN_BACKGROUND_LIGHT = 0.35


class Trackers:
    """One training in both.

    Args:
        events_dir: of TensorBoard.
        mlflow: MONAI's handler, which opens the run, or None where none is wanted.
    """

    def __init__(self, events_dir: Path | str, mlflow: MLFlowHandler | None) -> None:
        self._board = SummaryWriter(str(events_dir))
        self._mlflow = mlflow
        self._known_run: str | None = None

    def figures(self, figures: Mapping[str, float], iteration: int) -> None:
        """Adds figures by their names."""
        for name, value in figures.items():
            self._board.add_scalar(name, value, iteration)
            if self._mlflow is not None and (run := self._run()):
                self._mlflow.client.log_metric(run, name, value, step=iteration)
        self._board.flush()

    def picture(self, name: str, picture: np.ndarray, iteration: int) -> None:
        """Adds a picture (H, W, 3) uint8."""
        self._board.add_image(name, picture, iteration, dataformats="HWC")
        self._board.flush()
        if self._mlflow is not None and (run := self._run()):
            self._mlflow.client.log_image(run, picture, f"{name}/{iteration:06d}.png")

    def _run(self) -> str | None:
        """The id of MLflow's run, which the handler forgets before the verdict on the training is there."""
        run: Any = self._mlflow.cur_run if self._mlflow is not None else None
        self._known_run = self._known_run if run is None else run.info.run_id
        return self._known_run


def prepare_mlflow(tracking_uri: str, experiment: str, artifacts: Path) -> None:
    """Sees to it that pictures go to a folder of the project; MLflow would put them where the process happens to be."""
    client = MlflowClient(tracking_uri)
    if client.get_experiment_by_name(experiment) is None:
        client.create_experiment(experiment, artifact_location=artifacts.as_uri())


def supervision_picture(images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """What a batch is supervised with, in the patch that has most of it.

    The geodesics of all slices are drawn over the slice that holds most of their voxels; what is known to be background
    is dark, what is unknown is as bright as it is.

    Args:
        images: (B, 1, X, Y, Z).
        targets: (B, X, Y, Z); label index, 0 background, -1 unknown.

    Returns:
        (Y, X, 3) uint8.
    """
    chosen = int((targets > 0).sum(dim=(1, 2, 3)).argmax())
    image, target = images[chosen, 0].float().cpu().numpy(), targets[chosen].cpu().numpy()
    number = int((target > 0).sum(axis=(0, 1)).argmax())
    slice_ = image[..., number]
    low, high = np.percentile(slice_, (1, 99))
    grey = np.clip((slice_ - low) / max(high - low, 1e-6), 0, 1) * 255
    grey[target[..., number] == 0] *= KNOWN_BACKGROUND_LIGHT
    picture = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    picture[(target > 0).any(axis=-1)] = GEODESIC_RGB
    return picture.transpose(1, 0, 2)[::-1]


def mlflow_handler(handlers: Sequence[object]) -> MLFlowHandler | None:
    """The one among a trainer's handlers."""
    return next((handler for handler in handlers if isinstance(handler, MLFlowHandler)), None)
