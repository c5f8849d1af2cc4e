"""Open images in advance, so that annotators do not wait at the first click."""

from __future__ import annotations

import logging
import threading
from collections import deque
from pathlib import Path

from lib.geometry.volume import VolumeError
from lib.inference.click_label_map import network_prior_weight
from lib.inference.opened_images import OpenedImages
from lib.infers.published_model import PublishedModel
from lib.networks.checkpoint import TrainedModel

logger = logging.getLogger(__name__)

MAX_IMAGES = 4
"""Number of images to open, and to open again for a new network on another grid."""

POLL_S = 1.0


class Opening:
    """Opener of the images of upcoming clicks, in the background, one after the other.

    Images are also resampled to the grid of the published network if click masks use it, and again after each
    publication.
    """

    def __init__(self, images: OpenedImages, model: PublishedModel) -> None:
        self.images = images
        self.model = model
        self._paths: deque[Path] = deque(maxlen=MAX_IMAGES)
        self._changed = threading.Event()

    def start(self) -> None:
        """Start to open images, until the process ends."""
        threading.Thread(target=self._run, name="opening", daemon=True).start()

    def open_soon(self, path: Path | None) -> None:
        """Open an image file soon; ignore None."""
        if path is not None:
            self._paths.append(path)
            self._changed.set()

    def _run(self) -> None:
        seen: TrainedModel | None = None
        while True:
            is_changed = self._changed.wait(POLL_S)
            self._changed.clear()
            model = self.model.current()
            if is_changed or model is not seen:
                seen = model
                for path in reversed(list(self._paths)):  # the newest first
                    if path.exists():
                        self.open(path, model)

    def open(self, path: Path, model: TrainedModel | None) -> None:
        """Open an image for clicks, with a network if there is one."""
        try:
            image = self.images.open(path)
            if model is not None and network_prior_weight(model) > 0:
                self.images.on_grid(image, model.spec.spacing_mm)
        except VolumeError as error:
            logger.warning("An image is not opened in advance. %s", error)
        except Exception:  # a request for the image reports the error
            logger.exception("An image could not be opened in advance.")
