"""A process of its own that scores scans, so that the server's clicks do not wait for it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import torch

from lib.activelearning.uncertainty import class_entropies
from lib.data.grid import network_image
from lib.geometry.volume import VolumeError, load_volume
from lib.inference.prediction import BrokenModelError, predict_on_grid
from lib.networks.checkpoint import load_checkpoint
from lib.trainers.background import yield_to_annotators

POLL_S = 0.2


class ScoringError(RuntimeError):
    """A scan that cannot be scored; its text names it and says why."""


class InterruptedScoringError(RuntimeError):
    """Something more urgent came up."""


class ScoringProcess:
    """Scores scans one by one with the network in a file.

    It ends when this object is left, and when the process that made it ends, however that ends. It is no worker of
    `concurrent.futures`, because Python waits at its end for what these have under way.
    """

    def __init__(self, model_path: Path, device: torch.device) -> None:
        self.model_path = model_path
        self.device = device
        self._process: multiprocessing.process.BaseProcess | None = None

    def score(self, image_path: Path | str, interrupted: Callable[[], bool] = lambda: False) -> tuple[int, list[float]]:
        """Scores of a scan.

        Args:
            interrupted: asked every moment; where it says yes, the process ends at once.

        Returns:
            The version of the network, and one score a label in [0, 1], as `class_entropies`.

        Raises:
            ScoringError: the scan or the network cannot be read, or the process died of it.
            InterruptedScoringError: `interrupted` said yes.
        """
        if self._process is None:
            self._start()
        try:
            self._connection.send(str(image_path))
            while not self._connection.poll(POLL_S):
                if interrupted():
                    raise InterruptedScoringError
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self.end()
            name = Path(image_path).name
            raise ScoringError(f"The scan {name} cannot be scored: the process ended, perhaps for memory.") from error
        if isinstance(answer, str):
            raise ScoringError(answer)
        version, scores = answer
        return int(version), scores

    def end(self) -> None:
        """Ends the process at once; the next scan would start another."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, of_child = context.Pipe()
        arguments = (of_child, self.model_path, self.device)
        self._process = context.Process(target=_answer, args=arguments, name="scoring", daemon=True)
        self._process.start()
        of_child.close()  # or the end of the child would go unnoticed

    def __enter__(self) -> ScoringProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def _answer(connection: Connection, model_path: Path, device: torch.device) -> None:
    # A Ctrl-C reaches all processes of a terminal; the server decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    yield_to_annotators()
    model = None
    while True:
        try:
            image_path = Path(connection.recv())
        except EOFError:
            return
        try:
            model = model or load_checkpoint(model_path, device)
            image, _ = network_image(load_volume(image_path), model.spec.spacing_mm)
            probability = predict_on_grid(model, image, device)
            connection.send((model.version, class_entropies(probability.numpy()).tolist()))
        except (VolumeError, BrokenModelError) as error:
            connection.send(str(error))
        except Exception as error:  # among them what torch raises where memory is short
            connection.send(f"The scan {image_path.name} cannot be scored ({error!r}).")


def _end_with_parent() -> None:
    """A server that is killed has no time to end its processes."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)
