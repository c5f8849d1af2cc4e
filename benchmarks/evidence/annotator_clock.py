"""Keep the annotator's clock: simulated seconds of work, in step with the real seconds of a training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

POLL_S = 1.0


class Clock:
    """Seconds since the annotator began.

    Work takes simulated seconds. A training takes real ones: started at second s, it is at second s + x after x real
    seconds. While no training runs, work is over at once, and scoring takes no time. While one runs, both clocks are
    kept together: work ends when the training has come as far, and the annotator's clock is set forward where the
    training is ahead.

    Args:
        is_training: asks the server whether the training that began last still runs.
        ended: called with the annotator's second at which a training ended, before any further work.
    """

    def __init__(self, is_training: Callable[[], bool], ended: Callable[[float], None]) -> None:
        self.seconds = 0.0
        self._is_training, self._ended = is_training, ended
        self._began: tuple[float, float] | None = None  # the annotator's second and the real one

    @property
    def training_runs(self) -> bool:
        return self._began is not None

    def training_began(self) -> None:
        self._began = self.seconds, time.monotonic()

    def spend(self, seconds: float) -> None:
        """Works for so long; a training that ends meanwhile ends before the work is over."""
        self.seconds += seconds
        self._keep_pace(self.seconds)

    def wait_for_training(self) -> None:
        """Wait until no training runs."""
        self._keep_pace(math.inf)

    def _keep_pace(self, until_s: float) -> None:
        while self._began is not None:
            began_s, began_real_s = self._began
            reached_s = began_s + time.monotonic() - began_real_s
            if not self._is_training():
                self._began = None
                self.seconds = max(self.seconds, reached_s)
                self._ended(reached_s)
            elif reached_s < until_s:
                time.sleep(min(POLL_S, until_s - reached_s))
            else:
                self.seconds = max(self.seconds, reached_s)
                return
