"""Start a training after a number of new annotations."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from fastapi import HTTPException

logger = logging.getLogger(__name__)


class AutoTrain:
    """Starter of trainings, after a number of new annotations.

    An annotation that is changed counts once. New annotations during a training start another one after it.

    Args:
        every: number of annotations between two starts; 0 starts none.
        start: requests a training, which may be refused.
        unseen: names of annotations that were made after the last training began.
    """

    def __init__(self, every: int, start: Callable[[], object], unseen: Iterable[str] = ()) -> None:
        self.every = every
        self.start = start
        self._unseen = set(unseen)
        self._guard = threading.Lock()

    def annotated(self, name: str) -> None:
        """Count an annotation by its name, which consists of image and label."""
        with self._guard:
            self._unseen.add(name)
            if not 0 < self.every <= len(self._unseen):
                return
            count = len(self._unseen)
            self._unseen.clear()
        logger.info("%d annotations are new; a training starts by itself.", count)
        try:
            self.start()
        except HTTPException as error:
            logger.error("The training did not start. %s", error.detail)

    def began(self) -> None:
        """Reset the count: a training began, and uses all annotations."""
        with self._guard:
            self._unseen.clear()
