"""Choose the weights that a training starts from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lib.geometry.image_geometry import Spacing
from lib.networks.checkpoint import (
    CheckpointError,
    TrainedModel,
    TrainingState,
    checkpoint_bytes,
    load_checkpoint,
    load_training_state,
    read_checkpoint,
)
from lib.networks.spec import PAPERS_NETWORK, NetworkSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartingPoint:
    """Interrupted training, or else the published network, or else an untrained network.

    Attributes:
        spec: architecture and grid of the network.
        network: network with its weights.
        base: number of the published version, 0 for none.
        state: of the optimiser and the schedule, None to start from scratch.
    """

    spec: NetworkSpec
    network: torch.nn.Module
    base: int
    state: TrainingState | None

    @classmethod
    def find(
        cls,
        plan: Callable[[Spacing], NetworkSpec],
        spacing_mm: Spacing,
        published_path: Path,
        unfinished_path: Path,
        *,
        pretrained: bool,
    ) -> StartingPoint:
        """Find where a training starts; log models that are not used.

        Kernels and strides depend on the grid, so a trained network keeps its own grid. The size of its patches is the
        planned one.

        Args:
            plan: plans the requested network on a grid of a given spacing.
            spacing_mm: of the grid of an untrained network.
            unfinished_path: checkpoint of an interrupted training, with the version that it started from.
            pretrained: False to start from an untrained network.
        """
        spec = plan(spacing_mm)
        published, unfinished = _load(published_path), _load(unfinished_path)
        base = 0 if published is None else published.version
        if pretrained:
            if unfinished is not None and unfinished.version == base and _is_of(unfinished, plan):
                logger.info("A training that was interrupted continues.")
                return cls._from(unfinished, plan, base, load_training_state(unfinished_path))
            if published is not None and _is_of(published, plan):
                return cls._from(published, plan, base, load_training_state(published_path))
            if published is not None:
                logger.warning("The published model has other labels, or is another network; it is not trained on.")
        return cls(spec, spec.build(), base, None)

    def to_bytes(self) -> bytes:
        """Serialise for another process, see `from_bytes`."""
        return checkpoint_bytes(TrainedModel(self.spec, self.network, self.base), self.state)

    @classmethod
    def from_bytes(cls, content: bytes) -> StartingPoint:
        """Read the content that `to_bytes` wrote."""
        model, state = read_checkpoint(content)
        return cls(model.spec, model.network, model.version, state)

    @classmethod
    def _from(
        cls, model: TrainedModel, plan: Callable[[Spacing], NetworkSpec], base: int, state: TrainingState | None
    ) -> StartingPoint:
        spec = replace(model.spec, roi_size=plan(model.spec.spacing_mm).roi_size)
        return cls(spec, model.network, base, state)


def _load(path: Path) -> TrainedModel | None:
    try:
        return load_checkpoint(path)
    except FileNotFoundError:
        return None
    except CheckpointError as error:
        logger.error("%s The training does without it.", error)
        return None


def _is_of(model: TrainedModel, plan: Callable[[Spacing], NetworkSpec]) -> bool:
    """Tell whether a model has the labels and weights of the requested network, on the grid of the model.

    Arguments of a network of MONAI are compared too, because some change no weight: dropout, activation.
    """
    planned = plan(model.spec.spacing_mm)
    if (model.spec.labels, model.spec.architecture) != (planned.labels, planned.architecture):
        return False
    if planned.architecture != PAPERS_NETWORK and model.spec.arguments != planned.arguments:
        return False
    expected = [(name, weight.shape) for name, weight in planned.build().named_parameters()]
    return [(name, weight.shape) for name, weight in model.network.named_parameters()] == expected
