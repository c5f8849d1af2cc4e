"""End the server on Ctrl-C as quickly as on SIGTERM."""

from __future__ import annotations

import signal
from types import FrameType


def end_on_ctrl_c_as_on_sigterm() -> None:
    """Turns the next SIGINT of this process into a SIGTERM; later ones are handled as before.

    uvicorn answers the requests in flight for either. After a SIGINT Python then waits for a training to end and looks
    at each object of torch before it frees it, which takes seconds; a SIGTERM ends the process at once. A second
    Ctrl-C stays uvicorn's way to leave requests unanswered.
    """
    later = signal.getsignal(signal.SIGINT)

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, later)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGINT, first)
