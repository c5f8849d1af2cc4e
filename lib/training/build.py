"""Build the network, the volumes and the batches of a training."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lib.data.annotated_scan import AnnotatedScan
from lib.data.augmentation import Axes
from lib.data.patch_batches import PatchStream, patch_batches, spare_workers
from lib.data.patches import PatchBatch, PatchPlan, PatchSource
from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.image_geometry import Spacing
from lib.networks.spec import PAPERS_NETWORK, ArchitectureError, NetworkSpec
from lib.training import click_masks
from lib.training.atlases import TrainingAtlases
from lib.training.click_masks import ClickMaskMaker
from lib.training.click_networks import kept_click_networks, updated_click_networks
from lib.training.grid_plan import plan_patch
from lib.training.hyperparameters import Hyperparameters
from lib.training.loop import TrainingError
from lib.training.ranks import ALONE, Ranks

logger = logging.getLogger(__name__)

MASKED_SHARE = 0.5
"""Minimum share of patches from scans with an accepted mask: these scans are few, and the most informative."""


def plan_network(
    scans: Sequence[AnnotatedScan], labels: tuple[str, ...], spacing_mm: Spacing, h: Hyperparameters
) -> NetworkSpec:
    """Plan the network of the hyper-parameters on a grid of this spacing.

    Raises:
        TrainingError: the network cannot be built.
        VolumeError: a scan cannot be read.
    """
    roi_size = plan_patch(scans, spacing_mm, h)
    if h.network == PAPERS_NETWORK:
        return NetworkSpec.plan(labels, spacing_mm, roi_size, h.levels, h.base_channels)
    try:
        return NetworkSpec.of_monai(labels, spacing_mm, roi_size, h.network, h.network_arguments)
    except ArchitectureError as error:
        raise TrainingError(f"The training cannot start: {error}") from error


def training_volumes(
    scans: Sequence[AnnotatedScan],
    prepared: PreparedScans,
    labels: tuple[str, ...],
    spacing_mm: Spacing,
    h: Hyperparameters,
    folder: Path | None = None,
    *,
    learns: bool = True,
) -> ScanVolumes:
    """Make the volumes of the scans, with click masks if `click_mask_weight` is not 0.

    Args:
        prepared: cache of scans on the network's grid.
        labels: names in order of their index 1, 2, ...
        folder: where atlases of clicks and click networks are stored for click requests; None to store nothing and
            train no click network.
        learns: False to read the click networks from the folder, where another process has just stored them.
    """
    volumes = ScanVolumes(prepared, spacing_mm)
    if h.click_mask_weight == 0:
        return volumes
    atlases = TrainingAtlases.of(scans, volumes, labels)
    if folder is not None:
        if learns:
            atlases.save(folder)
            networks = updated_click_networks(folder, scans, volumes, atlases.accepted, labels, h.max_minutes)
        else:
            networks = kept_click_networks(folder)
        atlases = replace(atlases, networks=networks)
    name = f"{click_masks.NAME} {labels} {atlases.digest}"
    return replace(volumes, click_masks=ClickMaskMaker(labels, atlases), click_masks_name=name)


def weighted_click_masks(
    scans: Sequence[AnnotatedScan], volumes: ScanVolumes, labels: tuple[str, ...], h: Hyperparameters
) -> tuple[ScanVolumes, Hyperparameters]:
    """Set the weight of click masks by their agreement with drawn masks; remove click masks at weight 0."""
    agreement = click_masks.agreement(scans, volumes, labels) if h.click_mask_weight > 0 else None
    if agreement is None:
        return volumes, h
    weight = click_masks.weight_of(agreement)
    logger.info("Click masks have a Dice of %.2f with drawn masks; their weight is %.2f.", agreement, weight)
    changed = h.changed({"click_mask_weight": weight * h.click_mask_weight})
    return (volumes if weight > 0 else replace(volumes, click_masks=None)), changed


def training_batches(
    scans: Sequence[AnnotatedScan],
    volumes: ScanVolumes,
    spec: NetworkSpec,
    symmetric: Axes,
    h: Hyperparameters,
    device: torch.device,
    seed: int = 0,
    ranks: Ranks = ALONE,
) -> Iterator[PatchBatch]:
    """Yield batches of patches without end.

    Args:
        symmetric: see `lib.training.orientation.symmetric_axes`.
        seed: of the patches.
        ranks: processes that train together; the patches are divided among them.

    Raises:
        VolumeError: none of the scans can be read.
    """
    mirrored = symmetric if h.augmentation == "full" else (True, True, True)
    plan = PatchPlan(spec.roi_size, h.annotated_fraction, h.box_margin, h.augmentation, mirrored, MASKED_SHARE)
    on_gpu = device.type == "cuda"
    workers = spare_workers(ranks.local_size) if on_gpu else 0
    stream = PatchStream(h.train_batch_size, seed, ranks.rank, ranks.size)
    return patch_batches(PatchSource(scans, volumes, plan), stream, workers=workers, pin_memory=on_gpu)
