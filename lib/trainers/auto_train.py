"""Start a training after a number of new annotations."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from fastapi import HTTPException

logger = logging.getLogger(__name__)


class AutoTrain:
    """Starts a training when there are so many annotations that no training has seen.

    An annotation that is changed counts once. While a training runs, further ones bring about one more after it.

    Args:
        every: annotations from one start to the next; 0 starts none.
        start: asks for a training; it may be refused.
        unseen: names of annotations that came after the last training began.
    """

    def __init__(self, every: int, start: Callable[[], object], unseen: Iterable[str] = ()) -> None:
        self.every = every
        self.start = start
        self._unseen = set(unseen)
        self._guard = threading.Lock()

    def annotated(self, name: str) -> None:
        """Takes note of an annotation by its name, which is that of its image and its label."""
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
        """A training, whoever asked for it, will see all there is."""
        with self._guard:
            self._unseen.clear()
