"""Save and load trained networks with their specification."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib.annotations.atomic_write import write_atomically
from lib.networks.spec import NetworkSpec

FORMAT_VERSION = 2
"""Networks of format 1 were trained without clipping of intensities."""


class CheckpointError(ValueError):
    """The file is not a usable model; the message names the file and the reason."""


@dataclass(frozen=True)
class TrainedModel:
    """Network with weights.

    Attributes:
        version: number of the publication, from 1.
        score: on held-out scans when it was published, in [0, 1] (`lib.training.gate`), or None without such scans.
        crf: refine its automatic masks by the dense CRF (`lib.training.crf_choice`).
        predecessors: numbers of the versions that led to it, the oldest first; none that was rolled back.
        sha256: hash of the file that it was read from, in hexadecimal; None if it was not read from a file.
    """

    spec: NetworkSpec
    network: nn.Module
    version: int
    score: float | None = None
    crf: bool = True
    predecessors: tuple[int, ...] = ()
    sha256: str | None = None


@dataclass(frozen=True)
class TrainingState:
    """State, besides the weights, from which a training continues another.

    Attributes:
        optimizer: `state_dict()` of the optimiser.
        iterations: total number in all trainings that led to these weights.
        progress: used share of the budget of an interrupted training, in [0, 1).
    """

    optimizer: dict[str, Any]
    iterations: int
    progress: float = 0.0


def save_checkpoint(path: Path, model: TrainedModel, state: TrainingState | None = None) -> None:
    """Write a checkpoint atomically.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(path, checkpoint_bytes(model, state))


def checkpoint_bytes(model: TrainedModel, state: TrainingState | None = None) -> bytes:
    """Return the content of a checkpoint's file."""
    buffer = io.BytesIO()
    content = {
        "format_version": FORMAT_VERSION,
        "spec": asdict(model.spec),
        "model": model.network.state_dict(),
        "version": model.version,
        "score": model.score,
        "crf": model.crf,
        "predecessors": list(model.predecessors),
        "training": None if state is None else vars(state),
    }
    torch.save(content, buffer)
    return buffer.getvalue()


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> TrainedModel:
    """Load a checkpoint; a pickle that contains code is refused.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is not a checkpoint of this project.
    """
    with _sentence_for(path):
        model, _ = read_checkpoint(path.read_bytes(), device)
        return model


def read_checkpoint(
    file_content: bytes, device: torch.device | str = "cpu"
) -> tuple[TrainedModel, TrainingState | None]:
    """Read the model and the training state from the content of a checkpoint's file.

    Raises:
        Exception: of any type, if the content is not a checkpoint.
    """
    content = _read(file_content, device)
    stored = content["spec"]
    spec = NetworkSpec(**{**stored, **{n: tuple(stored[n]) for n in ("labels", "spacing_mm", "roi_size")}})
    network = spec.build().to(device)
    network.load_state_dict(content["model"])
    if not is_finite(network):
        raise CheckpointError("its weights are not finite")
    crf, predecessors = content.get("crf", True), tuple(content.get("predecessors", ()))
    version, sha256 = int(content["version"]), hashlib.sha256(file_content).hexdigest()
    model = TrainedModel(spec, network.eval(), version, content["score"], crf, predecessors, sha256)
    state = content.get("training")
    return model, None if state is None else TrainingState(**state)


def is_finite(network: torch.nn.Module) -> bool:
    """Tell whether all weights are finite."""
    values = (value for value in network.state_dict().values() if value.is_floating_point())
    return all(bool(torch.isfinite(value).all()) for value in values)


def load_training_state(path: Path) -> TrainingState | None:
    """Load the training state of a model, or None.

    Raises:
        FileNotFoundError, CheckpointError: as `load_checkpoint`.
    """
    with _sentence_for(path):
        stored = _read(path.read_bytes(), "cpu").get("training")
        return None if stored is None else TrainingState(**stored)


def _read(file_content: bytes, device: torch.device | str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(io.BytesIO(file_content), map_location=device, weights_only=True)
    if content["format_version"] != FORMAT_VERSION:
        raise CheckpointError(f"format version {content['format_version']!r}; expected {FORMAT_VERSION}")
    return content


@contextmanager
def _sentence_for(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises errors of any type
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"The model {path.name} cannot be used ({message}).") from error
