"""Load the newest published model, without a restart."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import torch

from lib.networks.checkpoint import CheckpointError, TrainedModel, load_checkpoint

logger = logging.getLogger(__name__)


NO_MODEL = "There is no model trained for the labels of this app: click a few studies, then start a training."


class PublishedModel:
    """Published model, which is loaded again when its file changes.

    Args:
        path: published checkpoint.
        labels: labels of the app; a model of other labels is not used.
    """

    def __init__(self, path: Path, labels: tuple[str, ...]) -> None:
        self.path = path
        self.labels = labels
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._lock = threading.Lock()
        self._loaded: tuple[tuple[int, int], TrainedModel | None] | None = None

    def current(self) -> TrainedModel | None:
        """Return the newest model, or None if no usable model is published; errors are logged."""
        with self._lock:
            try:
                status = self.path.stat()
                stamp = (status.st_mtime_ns, status.st_ino)
                if self._loaded is None or self._loaded[0] != stamp:
                    self._loaded = (stamp, self._load())
            except FileNotFoundError:
                return None
            return self._loaded[1]

    def _load(self) -> TrainedModel | None:
        try:
            model = load_checkpoint(self.path, self.device)
        except CheckpointError as error:
            logger.error("%s Requests are answered without it; train again to replace it.", error)
            return None
        if model.spec.labels != self.labels:
            logger.error(
                "The model %s was trained for the labels %s, and the app has %s; requests are answered without it.",
                self.path.name,
                ", ".join(model.spec.labels),
                ", ".join(self.labels),
            )
            return None
        return model
