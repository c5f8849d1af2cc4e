"""Apply a trained network to a scan, or to a part of it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lib.data.grid import network_image
from lib.data.prepared_scans import PreparedVolume
from lib.geometry.boxes import Box
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.parallel_grids import ParallelGrids
from lib.geometry.volume import Volume, check_size
from lib.inference.processor_threads import parallel_map
from lib.inference.windows import WindowGrid
from lib.networks.checkpoint import TrainedModel
from lib.networks.precision import mixed_precision

logger = logging.getLogger(__name__)

_SLAB_BYTES = 128 * 2**20
"""Size of the probabilities that are resampled to a scan at a time."""

Device = torch.device | str


class BrokenModelError(ValueError):
    """The probabilities of a network are not finite."""


def predict_region(model: TrainedModel, image: torch.Tensor, box: Box, device: Device = "cpu") -> torch.Tensor:
    """Predict foreground probabilities of a box of the network's grid.

    Uses a sliding window with Gaussian weights (`WindowGrid`), with a margin around the box. If the memory of the
    device does not suffice, the CPU is used.

    Args:
        image: (X, Y, Z) float16 or float32, from `network_image`; may be memory-mapped.

    Returns:
        (C, x, y, z) float32 in [0, 1], on the CPU. Values are not finite if the network is broken.
    """
    probability = torch.empty((len(model.spec.labels), *box.shape))
    _predict_into(probability, model, image, box, device)
    return probability


def predict_on_grid(model: TrainedModel, image: torch.Tensor, device: Device = "cpu") -> torch.Tensor:
    """Predict foreground probabilities (C, X, Y, Z) float16 of an image on the network's grid; they are on the CPU.

    Raises:
        VolumeError: too little memory is free.
        BrokenModelError: the probabilities are not finite.
    """
    x, y, z = image.shape
    window = model.spec.roi_size
    slab = (1 + len(model.spec.labels)) * 4 * min(n / max(size, n) for n, size in zip(window, image.shape, strict=True))
    check_size((x, y, z), "The scan on the network's grid", 2 * len(model.spec.labels) + 2 * slab)
    probability = torch.empty((len(model.spec.labels), x, y, z), dtype=torch.float16)
    _predict_into(probability, model, image, Box((0, 0, 0), (x, y, z)), device)
    require_finite(probability, model)
    return probability


def predict_probability(
    model: TrainedModel,
    volume: Volume,
    device: Device = "cpu",
    prepared: PreparedVolume | None = None,
    box: Box | None = None,
) -> np.ndarray:
    """Predict foreground probabilities on the voxels of a scan.

    Args:
        prepared: scan on the network's grid, if it is available.
        box: in voxels of the scan; None for the whole scan.

    Returns:
        (C, x, y, z) float32 in [0, 1], of the box.

    Raises:
        VolumeError: the scan is too large on the network's grid, or with its probabilities.
        BrokenModelError: the probabilities are not finite.
    """
    on_grid = network_image(volume, model.spec.spacing_mm) if prepared is None else (prepared.voxels, prepared.affine)
    image, affine = on_grid
    box = box or Box((0, 0, 0), volume.geometry.shape)
    check_size(box.shape, "The region of the scan", 3 * 4 * len(model.spec.labels))
    grids = ParallelGrids.of(volume.geometry.affine_ras, affine)
    region = grid_box(grids, box, image.shape)
    probability = predict_region(model, image, region, device)
    require_finite(probability, model)
    return np.ascontiguousarray(grids.interpolated(probability, region.start, box.start, box.stop).numpy())


def predict_label_map(model: TrainedModel, volume: Volume, device: Device = "cpu") -> np.ndarray:
    """Predict the most probable classes (X, Y, Z) uint8, including background, on the voxels of a scan.

    Raises:
        VolumeError: the scan is too large on the network's grid, or with its probabilities.
        BrokenModelError: the probabilities are not finite.
    """
    image, affine = network_image(volume, model.spec.spacing_mm)
    return label_map_on_scan(predict_on_grid(model, image, device), affine, volume.geometry)


def label_map_on_scan(probability: torch.Tensor, affine: np.ndarray, geometry: ImageGeometry) -> np.ndarray:
    """Compute the most probable classes (X', Y', Z') uint8 on the voxels of a scan, in Fortran order.

    Args:
        probability: (C, X, Y, Z) of the foreground, interpolated linearly.
        affine: (4, 4) of its grid, voxel to RAS mm.
    """
    grids = ParallelGrids.of(geometry.affine_ras, affine)
    result = np.empty(geometry.shape, np.uint8, order="F")
    x, y, z = geometry.shape
    thickness = max(1, _SLAB_BYTES // (4 * len(probability) * x * y))
    for first in range(0, z, thickness):
        slab = Box((0, 0, first), (x, y, min(first + thickness, z)))
        values = probability_on_scan(probability, grids, slab)
        result[slab.slices] = most_probable(values).numpy()
    return result


def probability_on_scan(probability: torch.Tensor, grids: ParallelGrids, box: Box) -> torch.Tensor:
    """Interpolate probabilities (..., X, Y, Z) of a whole grid on a box of the scan: (..., x, y, z) float32.

    Args:
        grids: map from the scan to that grid.
    """
    region = grid_box(grids, box, probability.shape[-3:])
    return grids.interpolated(probability[(..., *region.slices)], region.start, box.start, box.stop)


def most_probable(foreground_probability: torch.Tensor) -> torch.Tensor:
    """Return the most probable class, including background: (C, X, Y, Z) of any precision to (X, Y, Z) uint8."""
    _, x, *plane = foreground_probability.shape
    result = torch.empty((x, *plane), dtype=torch.uint8, device=foreground_probability.device)
    thickness = max(1, _SLAB_BYTES * x // max(1, 4 * foreground_probability.numel()))
    for first in range(0, x, thickness):
        slab = slice(first, first + thickness)
        values = foreground_probability[:, slab].float()
        best, index = values.max(dim=0)
        result[slab] = torch.where(best > 1 - values.sum(dim=0), index + 1, 0)
    return result


def grid_box(grids: ParallelGrids, box: Box, grid_shape: Sequence[int]) -> Box:
    """Return the part of the network's grid from which a box of the scan is interpolated."""
    ranges = {
        grid_axis: grids.source_range(axis, box.start[axis], box.stop[axis], grid_shape)
        for axis, grid_axis in enumerate(grids.source_axes)
    }
    (i, i_stop), (j, j_stop), (k, k_stop) = (ranges[axis] for axis in range(3))
    return Box((i, j, k), (i_stop, j_stop, k_stop))


def require_finite(probability: torch.Tensor, model: TrainedModel) -> None:
    """Raise BrokenModelError if probabilities (C, X, Y, Z) are not finite."""
    if not all(bool(torch.isfinite(channel).all()) for channel in probability):
        raise BrokenModelError(f"Version {model.version} of the model is broken; roll back, or train again.")


def _predict_into(result: torch.Tensor, model: TrainedModel, image: torch.Tensor, box: Box, device: Device) -> None:
    """Write the probabilities (C, x, y, z) of a box to `result`."""
    try:
        _slide(result, model.network, model.spec.roi_size, image, box, torch.device(device))
    except torch.OutOfMemoryError:
        logger.warning("The GPU is out of memory. The CPU predicts instead, which takes longer.")
        torch.cuda.empty_cache()
        _slide(result, _on_processor(model.network), model.spec.roi_size, image, box, torch.device("cpu"))


def _on_processor(network: nn.Module) -> nn.Module:
    """Copy a network to the CPU, without allocating memory of the GPU."""
    content = io.BytesIO()
    torch.save(network, content)
    content.seek(0)
    copy: nn.Module = torch.load(content, map_location="cpu", weights_only=False)
    return copy


@torch.inference_mode()
def _slide(
    result: torch.Tensor,
    network: nn.Module,
    window: tuple[int, int, int],
    image: torch.Tensor,
    box: Box,
    device: torch.device,
) -> None:
    """Predict layer by layer of windows, so that only the logits of one layer are in memory."""
    grid = WindowGrid.over(box, image.shape, window)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    seen = grid.box
    # Layers along this axis need the least memory.
    axis = min(range(3), key=lambda a: window[a] / seen.shape[a])
    totals = [grid.total_weight(a).to(device) for a in range(3)]
    layer: torch.Tensor | None = None
    for number, start in enumerate(grid.starts[axis]):
        for place, logits in _windows(grid, axis, start, network, image, device):
            if layer is None:
                shape = [n if a != axis else window[axis] for a, n in enumerate(seen.shape)]
                layer = logits.new_zeros((logits.shape[0], *shape))
            layer[(slice(None), *place)] += logits
        assert layer is not None
        is_last = number + 1 == len(grid.starts[axis])
        done = window[axis] if is_last else grid.starts[axis][number + 1] - start
        thickness = max(1, _SLAB_BYTES * layer.shape[1 + axis] // (4 * layer.numel()))
        for first in range(0, done, thickness):
            slab = layer.narrow(1 + axis, first, min(thickness, done - first))
            _write(result, slab, start + first, axis, seen, box, totals)
        if not is_last:
            layer = _shifted(layer, 1 + axis, done)


def _windows(
    grid: WindowGrid, axis: int, start: int, network: nn.Module, image: torch.Tensor, device: torch.device
) -> Iterator[tuple[tuple[slice, ...], torch.Tensor]]:
    """Yield the place of each window in a layer, and its weighted logits (1 + C, X, Y, Z) float32."""
    weight_i, weight_j, weight_k = grid.weights
    weight = (weight_i[:, None, None] * weight_j[:, None] * weight_k).to(device)
    precision = mixed_precision(device, network, grid.size)

    @torch.inference_mode()
    def weighted_logits(corner: tuple[int, ...]) -> torch.Tensor:
        patch = _cut(image, corner, grid.size).to(device)[None, None].contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(device.type, precision, enabled=precision is not None):
            logits = network(patch)[0]
        return logits.float() * weight

    corners = list(product(*((start,) if a == axis else grid.starts[a] for a in range(3))))
    found = parallel_map(weighted_logits, corners) if device.type == "cpu" else map(weighted_logits, corners)
    for corner, logits in zip(corners, found, strict=True):
        places = (0 if a == axis else first - grid.starts[a][0] for a, first in enumerate(corner))
        yield tuple(slice(p, p + n) for p, n in zip(places, grid.size, strict=True)), logits


def _cut(image: torch.Tensor, corner: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """Crop a window of an image (X, Y, Z) as float32, with 0 outside the image."""
    inside = tuple(
        slice(max(0, first), min(first + n, length)) for first, n, length in zip(corner, size, image.shape, strict=True)
    )
    missing = [(part.start - first, first + n - part.stop) for part, first, n in zip(inside, corner, size, strict=True)]
    # `pad` takes the last axis first.
    return functional.pad(image[inside].float(), [n for pair in reversed(missing) for n in pair])


def _write(
    result: torch.Tensor,
    layer: torch.Tensor,
    start: int,
    axis: int,
    seen: Box,
    box: Box,
    totals: Sequence[torch.Tensor],
) -> None:
    """Write the part of the box in a finished layer, which begins at `start` along `axis`."""
    begin = np.array([first if a != axis else start for a, first in enumerate(seen.start)])
    first, last = np.maximum(begin, box.start), np.minimum(begin + layer.shape[1:], box.stop)
    if (first >= last).any():
        return
    logits = layer[(slice(None), *_slices(first - begin, last - begin))].clone()
    for a, total in enumerate(totals):
        part = total[first[a] - seen.start[a] : last[a] - seen.start[a]]
        logits /= part.view(-1, *[1] * (2 - a))
    target = (slice(None), *_slices(first - box.start, last - box.start))
    result[target] = torch.softmax(logits, dim=0)[1:].to(result.dtype).to(result.device)


def _slices(start: np.ndarray, stop: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(start.tolist(), stop.tolist(), strict=True))


def _shifted(layer: torch.Tensor, axis: int, steps: int) -> torch.Tensor:
    """Shift a layer by some voxels along an axis, and fill its end with 0."""
    left = layer.shape[axis] - steps
    layer.narrow(axis, 0, left).copy_(layer.narrow(axis, steps, left).clone())
    layer.narrow(axis, left, steps).zero_()
    return layer
