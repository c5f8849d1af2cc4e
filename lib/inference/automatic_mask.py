"""Make a network's mask of a whole scan, refined by a dense CRF."""

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
"""Wider scales take the middle of a lesion for the tissue around it where both are about as bright."""

BORDER_SIGMA_VOXELS = 0.5
"""Of a Gaussian over the probabilities after the CRF, whose border is ragged in noise (14 demo studies: Dice 0.962 to
0.966; hippocampus, clicks: 0.691 and 0.691)."""

MIN_SHARE = 0.3
CONTEXT_MM = 10.0
"""Around what the network found, within which its mask may grow, and which the CRF sees."""

MAX_VOXELS = 4_000_000
"""Maximum size of a box for the CRF, which takes 140 bytes and a microsecond per voxel; larger boxes are coarsened."""

MAX_COARSE_BOX_VOXELS, COARSEST_MM = 10 * MAX_VOXELS, 2.5
"""In a box of more voxels of the scan, or on coarser ones than these, structures stay as the network drew them."""

MIN_PART = 0.1
"""Parts that come off a structure are dropped where they are smaller than this share of its largest part."""

_EVERY_NEIGHBOUR = np.ones((3, 3, 3))

ProbabilityOfLabel = Callable[[int, Box], np.ndarray]
"""Gives the probability of label 1, 2, ... in a box of the scan: (x, y, z) in [0, 1], on the scan's own voxels."""


def automatic_mask(
    model: TrainedModel, volume: Volume, prepared: PreparedVolume, device: Device = "cpu", *, crf: bool | None = None
) -> np.ndarray:
    """The mask of a scan.

    Args:
        volume: may be memory-mapped.
        prepared: the scan on the network's grid.
        crf: let the edges of the image decide where a structure ends (`refined_label_map`); None: as the model says.

    Returns:
        (X, Y, Z) uint8 label indices, the first axis fastest in memory.

    Raises:
        VolumeError: the free memory does not hold the probabilities.
        BrokenModelError: they are not finite.
    """
    probability = predict_on_grid(model, prepared.voxels, device)
    drawn = label_map_on_scan(probability, prepared.affine, volume.geometry)
    if not (model.crf if crf is None else crf):
        return drawn
    return refined_on_scan(drawn, probability, prepared.affine, volume)


def refined_on_scan(drawn: np.ndarray, probability: torch.Tensor, affine: np.ndarray, volume: Volume) -> np.ndarray:
    """`refined_label_map` of what the network has said on its own grid.

    Args:
        drawn: (X, Y, Z) uint8, `label_map_on_scan` of the probabilities.
        probability: (C, X', Y', Z') of the foreground, on the grid with `affine`.
    """
    grids = ParallelGrids.of(volume.geometry.affine_ras, affine)

    def of_label(index: int, box: Box) -> np.ndarray:
        return probability_on_scan(probability[index - 1], grids, box).numpy()

    return refined_label_map(volume.array, drawn, of_label, volume.geometry.spacing_mm)


def label_map(foreground_probability: np.ndarray) -> np.ndarray:
    """(C, X, Y, Z) to (X, Y, Z) uint8: the most probable class, background among them."""
    return most_probable(torch.from_numpy(foreground_probability)).numpy()


def crf_label_map(image: np.ndarray, foreground_probability: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """`refined_label_map` of probabilities (C, X, Y, Z) in [0, 1]."""
    drawn = label_map(foreground_probability)
    return refined_label_map(image, drawn, lambda index, box: foreground_probability[index - 1][box.slices], spacing_mm)


def refined_label_map(
    image: np.ndarray, drawn: np.ndarray, probability: ProbabilityOfLabel, spacing_mm: Sequence[float]
) -> np.ndarray:
    """The most probable classes after a dense CRF over each one's probability.

    A network that was trained on clicks is inaccurate at borders; the CRF moves them to edges of the image (results:
    docs/results/accuracy.md). A label of which the CRF would keep less than three tenths stays as the network drew
    it. Small parts and holes that the network did not draw are removed.

    The CRF works on boxes around the structures, so that its cost does not grow with the image.

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
    """A box of the scan, and the voxels that the CRF has there; None where it has none, for the size of the box."""

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
    # Memory is taken for the parts of these that are written to.
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
    """(X, Y, Z) float32 of the foreground after the CRF, which works on the voxels of `grid`."""
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
    """For each label that was drawn, boxes around what lies together, with a margin; those of a label are disjoint.

    What lies together is found on cells as large as the margin: neighbours in which anything was drawn.
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
    """(X', Y', Z') bool: the cells of `size` voxels that hold any voxel of a mask (X, Y, Z)."""
    counts = -(-np.array(mask.shape) // size)
    padded = np.pad(mask, [(0, int(n)) for n in counts * size - mask.shape])
    return padded.reshape([n for pair in zip(counts, size, strict=True) for n in pair]).any(axis=(1, 3, 5))


def _disjoint(boxes: Sequence[Box]) -> list[Box]:
    """Boxes that overlap become one around them."""
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
    """Mean and standard deviation of all voxels, slice by slice, as the image may be memory-mapped."""
    total = squares = 0.0
    for k in range(image.shape[2]):
        values = image[..., k].astype(np.float64)
        total += values.sum()
        squares += np.square(values).sum()
    mean = total / image.size
    return mean, max(float(np.sqrt(max(squares / image.size - mean**2, 0))), float(np.finfo(np.float32).tiny))


def _drop_small_parts(now: np.ndarray, before: np.ndarray, index: int) -> None:
    """Removes small parts that were cut off a structure, or that touch none.

    Args:
        now: (X, Y, Z) labels, changed in place.
        before: (X, Y, Z) bool, the structures as they were drawn.
    """
    parts, count = ndimage.label(now == index, _EVERY_NEIGHBOUR)
    structures, _ = ndimage.label(before, _EVERY_NEIGHBOUR)
    sizes = np.zeros(count + 1, int)
    pairs: set[tuple[int, int]] = set()
    for k in range(parts.shape[2]):  # slice by slice, for the memory
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
    """Fills holes of a structure that the network did not leave, where no other label is."""
    holes = _holes(now == index) & (now == 0)
    parts, count = ndimage.label(holes)
    filled = np.ones(count + 1, bool)
    filled[[0, *np.unique(parts[_holes(before)]).tolist()]] = False
    now[filled[parts]] = index


def _holes(mask: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: what is not of the mask, and not connected to a face of the box."""
    parts, count = ndimage.label(~mask)
    inner = np.ones(count + 1, bool)
    inner[0] = False
    for axis in range(3):
        for end in (0, -1):
            inner[np.take(parts, end, axis)] = False
    return inner[parts]
