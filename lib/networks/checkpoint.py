"""Trained networks as files, with all that is needed to use them."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib.annotations.atomic_write import write_atomically
from lib.networks.spec import NetworkSpec

FORMAT_VERSION = 1


class CheckpointError(ValueError):
    """A file that is not a usable model; its text names the file and what is wrong."""


@dataclass(frozen=True)
class TrainedModel:
    """A network with weights. `version` counts the publications, from 1."""

    spec: NetworkSpec
    network: nn.Module
    version: int


def save_checkpoint(path: Path, model: TrainedModel) -> None:
    """Writes atomically: a reader finds the old file or the new one. Raises: OSError."""
    buffer = io.BytesIO()
    content = {
        "format_version": FORMAT_VERSION,
        "spec": asdict(model.spec),
        "model": model.network.state_dict(),
        "version": model.version,
    }
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> TrainedModel:
    """Reads tensors and plain values only: a pickle with code in it is refused, not run.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is not a checkpoint of this project.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        if content["format_version"] != FORMAT_VERSION:
            raise CheckpointError(f"format version {content['format_version']!r}; expected {FORMAT_VERSION}")
        stored = content["spec"]
        spec = NetworkSpec(**{**stored, **{n: tuple(stored[n]) for n in ("labels", "spacing_mm", "roi_size")}})
        network = spec.build().to(device)
        network.load_state_dict(content["model"])
        return TrainedModel(spec, network.eval(), int(content["version"]))
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"The model {path.name} cannot be used ({message}).") from error
