"""Make the automatic mask of a scan, refined by a dense CRF."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from scipy import ndimage

from lib.clickmask.working_grid import WorkingGrid
from lib.data.prepared_scans import PreparedVolume
from lib.geometry.boxes import Box
from lib.geometry.parallel_grids import ParallelGrids
from lib.geometry.volume import Volume
from lib.inference.dense_crf import mean_field
from lib.inference.prediction import Device, label_map_on_scan, most_probable, predict_on_grid, probability_on_scan
from lib.networks.checkpoint import TrainedModel

logger = logging.getLogger(__name__)

SIGMA_ALPHA_MM, SIGMA_BETA, SIGMA_SMOOTH_MM = 3.0, 0.3, 1.25
"""With wider scales, the middle of a lesion is assigned to surrounding tissue of similar intensity."""

BORDER_SIGMA_VOXELS = 0.5
"""Standard deviation of a Gaussian over the probabilities after the CRF, whose boundary is ragged in noise."""

MIN_SHARE = 0.3
"""Minimum share of a label that the CRF must keep; below it, the label stays as the network drew it."""

CONTEXT_MM = 10.0
"""Margin around the network's mask for the CRF, which may extend the mask into it."""

MAX_VOXELS = 4_000_000
"""Maximum size of a box for the CRF, which takes 140 bytes and a microsecond per voxel; larger boxes are coarsened."""

MAX_COARSE_BOX_VOXELS, COARSEST_MM = 10 * MAX_VOXELS, 2.5
"""Limits of a box and of its coarsened voxels; beyond them, structures stay as the network drew them."""

MIN_PART = 0.1
"""Parts that the CRF separates from a structure are removed if smaller than this share of its largest part."""

_EVERY_NEIGHBOUR = np.ones((3, 3, 3))

ProbabilityOfLabel = Callable[[int, Box], np.ndarray]
"""Returns the probability of label 1, 2, ... in a box of the scan: (x, y, z) in [0, 1], on the scan's own voxels."""


def automatic_mask(
    model: TrainedModel, volume: Volume, prepared: PreparedVolume, device: Device = "cpu", *, crf: bool | None = None
) -> np.ndarray:
    """Make the mask of a scan.

    Args:
        volume: scan, may be memory-mapped.
        crf: refine the mask by a dense CRF (`refined_label_map`); None to use the setting of the model.

    Returns:
        (X, Y, Z) uint8 label indices, in Fortran order.

    Raises:
        VolumeError: too little memory is free for the probabilities.
        BrokenModelError: the probabilities are not finite.
    """
    probability = predict_on_grid(model, prepared.voxels, device)
    drawn = label_map_on_scan(probability, prepared.affine, volume.geometry)
    if not (model.crf if crf is None else crf):
        return drawn
    return refined_on_scan(drawn, probability, prepared.affine, volume)


def refined_on_scan(drawn: np.ndarray, probability: torch.Tensor, affine: np.ndarray, volume: Volume) -> np.ndarray:
    """Apply `refined_label_map` to probabilities on the network's grid.

    Args:
        drawn: (X, Y, Z) uint8, `label_map_on_scan` of the probabilities.
        probability: (C, X', Y', Z') of the foreground, on the network's grid.
        affine: (4, 4) of that grid, voxel to RAS mm.
    """
    grids = ParallelGrids.of(volume.geometry.affine_ras, affine)

    def of_label(index: int, box: Box) -> np.ndarray:
        return probability_on_scan(probability[index - 1], grids, box).numpy()

    return refined_label_map(volume.array, drawn, of_label, volume.geometry.spacing_mm)


def label_map(foreground_probability: np.ndarray) -> np.ndarray:
    """Return the most probable class, including background: (C, X, Y, Z) to (X, Y, Z) uint8."""
    return most_probable(torch.from_numpy(foreground_probability)).numpy()


def crf_label_map(image: np.ndarray, foreground_probability: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Apply `refined_label_map` to probabilities (C, X, Y, Z) in [0, 1]."""
    drawn = label_map(foreground_probability)
    return refined_label_map(image, drawn, lambda index, box: foreground_probability[index - 1][box.slices], spacing_mm)


def refined_label_map(
    image: np.ndarray, drawn: np.ndarray, probability: ProbabilityOfLabel, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Compute the most probable classes after a dense CRF over the probability of each class.

    A network that was trained on clicks is inaccurate at boundaries; the CRF moves them to edges of the image (results:
    docs/results/accuracy.md). A label of which the CRF would keep less than `MIN_SHARE` stays as the network drew
    it. Small parts and holes that the network did not draw are removed.

    The CRF works on boxes around the structures, so that its cost does not depend on the size of the image.

    Args:
        image: (X, Y, Z), finite, of any scale.
        drawn: (X, Y, Z) uint8, the most probable classes of the network.
        spacing_mm: of the voxels.

    Returns:
        (X, Y, Z) uint8 label indices.
    """
    margin = np.ceil(CONTEXT_MM / np.asarray(spacing_mm)).astype(int)
    boxes = {index: [_WorkBox.of(box, spacing_mm) for box in of_label] for index, of_label in _boxes(drawn, margin)}
    refined = _most_probable_after_crf(image, drawn, boxes, probability)
    for index, of_label in boxes.items():
        views = [(drawn[work.box.slices], refined[work.box.slices]) for work in of_label]
        left = sum(np.count_nonzero(now == index) for _, now in views)
        if left < MIN_SHARE * sum(np.count_nonzero(before == index) for before, _ in views):
            for before, now in views:
                now[now == index] = 0
                now[(before == index) & (now == 0)] = index
            continue
        for work, (before, now) in zip(of_label, views, strict=True):
            if work.grid is not None:
                _drop_small_parts(now, before == index, index)
                _fill_new_holes(now, before == index, index)
    return refined


@dataclass(frozen=True)
class _WorkBox:
    """Box of the scan, and the grid of the CRF in it; None if the box is too large for the CRF."""

    box: Box
    grid: WorkingGrid | None

    @classmethod
    def of(cls, box: Box, spacing_mm: Sequence[float]) -> _WorkBox:
        x, y, z = box.shape
        i_mm, j_mm, k_mm = spacing_mm
        grid = WorkingGrid.over(Box((0, 0, 0), (x, y, z)), (i_mm, j_mm, k_mm), MAX_VOXELS)
        coarse_mm = [mm for mm, factor in zip(grid.spacing_mm, grid.factors, strict=True) if factor > 1]
        if not coarse_mm:
            return cls(box, grid)
        is_too_large = max(coarse_mm) > COARSEST_MM or x * y * z > MAX_COARSE_BOX_VOXELS
        how = "stays as the network drew it" if is_too_large else f"is refined on {grid.spacing_mm} mm"
        logger.info("What was found within %d x %d x %d voxels %s, for its size.", x, y, z, how)
        return cls(box, None if is_too_large else grid)


def _most_probable_after_crf(
    image: np.ndarray, drawn: np.ndarray, boxes: dict[int, list[_WorkBox]], probability: ProbabilityOfLabel
) -> np.ndarray:
    mean, deviation = _mean_and_deviation(image)
    # The system allocates memory only for the parts that are written.
    refined = np.zeros(drawn.shape, np.uint8, order="F")
    best, total = (np.zeros(drawn.shape, np.float32, order="F") for _ in range(2))
    for index, of_label in boxes.items():
        for work in of_label:
            inside = work.box.slices
            if work.grid is None:
                posterior = (drawn[inside] == index).astype(np.float32)
            else:
                z_scored = (image[inside].astype(np.float32) - mean) / deviation
                posterior = _posterior(z_scored, probability(index, work.box), work.grid)
            total[inside] += posterior
            wins = posterior > best[inside]
            best[inside][wins] = posterior[wins]
            refined[inside][wins] = index
    for work in chain(*boxes.values()):
        inside = work.box.slices
        refined[inside][best[inside] <= 1 - total[inside]] = 0
    return refined


def _posterior(z_scored: np.ndarray, probability: np.ndarray, grid: WorkingGrid) -> np.ndarray:
    """Compute the foreground probability (X, Y, Z) float32 after the CRF, which works on `grid`."""
    posterior = mean_field(
        grid.averaged(z_scored),
        grid.averaged(probability),
        grid.spacing_mm,
        sigma_alpha=SIGMA_ALPHA_MM,
        sigma_beta=SIGMA_BETA,
        sigma_smooth=SIGMA_SMOOTH_MM,
    )
    smooth = ndimage.gaussian_filter(posterior.astype(np.float32), BORDER_SIGMA_VOXELS)
    return grid.interpolated(smooth)


def _boxes(drawn: np.ndarray, margin: np.ndarray) -> Iterator[tuple[int, list[Box]]]:
    """Yield, for each label of the mask, disjoint boxes around clusters of its voxels, with a margin.

    Clusters are connected components of cells, as large as the margin, that contain voxels of the label.
    """
    for index, whole in enumerate(ndimage.find_objects(drawn), start=1):
        if whole is None:
            continue
        mask = drawn[whole] == index
        origin = np.array([axis.start for axis in whole])
        clusters, _ = ndimage.label(_cells(mask, margin), _EVERY_NEIGHBOUR)
        found = []
        for cells in ndimage.find_objects(clusters):
            start, stop = (np.array([(axis.start, axis.stop) for axis in cells]) * margin[:, None]).T
            tight = Box.of_mask(mask[tuple(map(slice, start, stop))])
            assert tight is not None
            tight = tight.shifted(origin + start)
            found.append(tight.relaxed(tuple(margin.tolist()), drawn.shape))
        yield index, _disjoint(found)


def _cells(mask: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the cells (X', Y', Z') bool of `size` voxels that contain any voxel of a mask (X, Y, Z)."""
    counts = -(-np.array(mask.shape) // size)
    padded = np.pad(mask, [(0, int(n)) for n in counts * size - mask.shape])
    return padded.reshape([n for pair in zip(counts, size, strict=True) for n in pair]).any(axis=(1, 3, 5))


def _disjoint(boxes: Sequence[Box]) -> list[Box]:
    """Merge overlapping boxes into one box around them."""
    kept = np.empty((0, 2, 3), int)
    for box in boxes:
        corners = np.array([box.start, box.stop])
        while (touching := ((kept[:, 0] < corners[1]) & (kept[:, 1] > corners[0])).all(axis=1)).any():
            all_corners = np.concatenate([kept[touching].reshape(-1, 3), corners])
            corners = np.array([all_corners.min(axis=0), all_corners.max(axis=0)])
            kept = kept[~touching]
        kept = np.concatenate([kept, corners[None]])
    return [Box(tuple(start), tuple(stop)) for start, stop in kept.tolist()]


def _mean_and_deviation(image: np.ndarray) -> tuple[float, float]:
    """Compute mean and standard deviation of all voxels, by slices because the image may be memory-mapped."""
    total = squares = 0.0
    for k in range(image.shape[2]):
        values = image[..., k].astype(np.float64)
        total += values.sum()
        squares += np.square(values).sum()
    mean = total / image.size
    return mean, max(float(np.sqrt(max(squares / image.size - mean**2, 0))), float(np.finfo(np.float32).tiny))


def _drop_small_parts(now: np.ndarray, before: np.ndarray, index: int) -> None:
    """Remove small parts that were separated from a structure, and parts that touch no structure.

    Args:
        now: (X, Y, Z) labels, changed in place.
        before: (X, Y, Z) bool, the structures as the network drew them.
    """
    parts, count = ndimage.label(now == index, _EVERY_NEIGHBOUR)
    structures, _ = ndimage.label(before, _EVERY_NEIGHBOUR)
    sizes = np.zeros(count + 1, int)
    pairs: set[tuple[int, int]] = set()
    for k in range(parts.shape[2]):  # by slices, to save memory
        part, structure = parts[..., k].ravel(), structures[..., k].ravel()
        sizes += np.bincount(part, minlength=count + 1)
        shared = np.flatnonzero((part > 0) & (structure > 0))
        codes = np.unique(structure[shared].astype(np.int64) * (count + 1) + part[shared])
        pairs.update((code // (count + 1), code % (count + 1)) for code in codes.tolist())
    largest: dict[int, int] = {}
    for of_structure, of_part in pairs:
        largest[of_structure] = max(largest.get(of_structure, 0), int(sizes[of_part]))
    dropped = np.ones(count + 1, bool)
    dropped[[0, *(p for structure, p in pairs if sizes[p] >= MIN_PART * largest[structure])]] = False
    now[dropped[parts]] = 0


def _fill_new_holes(now: np.ndarray, before: np.ndarray, index: int) -> None:
    """Fill holes of a structure that are not in the network's mask and have no other label."""
    holes = _holes(now == index) & (now == 0)
    parts, count = ndimage.label(holes)
    filled = np.ones(count + 1, bool)
    filled[[0, *np.unique(parts[_holes(before)]).tolist()]] = False
    now[filled[parts]] = index


def _holes(mask: np.ndarray) -> np.ndarray:
    """Return the holes (X, Y, Z) bool of a mask: background that is not connected to a face of the box."""
    parts, count = ndimage.label(~mask)
    inner = np.ones(count + 1, bool)
    inner[0] = False
    for axis in range(3):
        for end in (0, -1):
            inner[np.take(parts, end, axis)] = False
    return inner[parts]
