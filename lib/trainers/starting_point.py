"""The weights that a training starts from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from lib.networks.checkpoint import (
    CheckpointError,
    TrainedModel,
    TrainingState,
    load_checkpoint,
    load_training_state,
)
from lib.networks.spec import NetworkSpec

logger = logging.getLogger(__name__)

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class StartingPoint:
    """A training that was interrupted, or else the published network, or else nothing.

    Attributes:
        spec: of the network to train.
        network: to train on.
        published: what requests are answered with, if it has the labels of the app.
        state: of the optimiser and the schedule, None where there is nothing to go on from.
    """

    spec: NetworkSpec
    network: torch.nn.Module
    published: TrainedModel | None
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
        """Where a training starts; what is found and left aside is in the log.

        Kernels and strides follow the grid, so a network that was trained keeps its own, whatever scans come later.

        Args:
            plan: the network that is asked for, on a grid of this spacing.
            spacing_mm: of the grid of a network that starts from nothing.
            unfinished_path: checkpoint of a training that has not ended, of the version that it started from.
            pretrained: False to start from nothing, whatever there is.
        """
        spec = plan(spacing_mm)
        published = _load(published_path, spec)
        if pretrained:
            version = 0 if published is None else published.version
            unfinished = _load(unfinished_path, spec)
            if unfinished is not None and unfinished.version == version and _is_of(unfinished, plan):
                logger.info("A training that was interrupted goes on.")
                return cls(unfinished.spec, unfinished.network, published, load_training_state(unfinished_path))
            if published is not None and _is_of(published, plan):
                # A network of its own, as the published one is compared with what becomes of it.
                network = published.spec.build()
                network.load_state_dict(published.network.state_dict())
                return cls(published.spec, network, published, load_training_state(published_path))
            if published is not None:
                logger.warning("The published model is another network; the training starts from nothing.")
        return cls(spec, spec.build(), published, None)


def _load(path: Path, spec: NetworkSpec) -> TrainedModel | None:
    try:
        model = load_checkpoint(path)
    except FileNotFoundError:
        return None
    except CheckpointError as error:
        logger.error("%s The training does without it.", error)
        return None
    if model.spec.labels != spec.labels:
        logger.warning("The model %s has other labels; the training does without it.", path.name)
        return None
    return model


def _is_of(model: TrainedModel, plan: Callable[[Spacing], NetworkSpec]) -> bool:
    """Whether the weights are those of the network that is asked for, on the model's own grid."""
    planned = plan(model.spec.spacing_mm).build()
    wanted = [(name, weight.shape) for name, weight in planned.named_parameters()]
    return [(name, weight.shape) for name, weight in model.network.named_parameters()] == wanted
