"""End the server on Ctrl-C as quickly as on SIGTERM."""

from __future__ import annotations

import signal
from types import FrameType


def end_on_ctrl_c_as_on_sigterm() -> None:
    """Convert the next SIGINT of this process to a SIGTERM; later ones are handled as before.

    uvicorn answers the requests in flight for either. After a SIGINT, Python waits for a training to end and frees the
    objects of torch one by one, which takes seconds; a SIGTERM ends the process at once. A second Ctrl-C makes uvicorn
    drop the requests in flight.
    """
    previous = signal.getsignal(signal.SIGINT)

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, previous)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGINT, first)
