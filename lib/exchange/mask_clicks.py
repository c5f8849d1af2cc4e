"""Simulate clicks, with a random error, from existing masks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from lib.exchange.click_records import ClickRecord, ImportRefusedError
from lib.geometry.volume import Volume, VolumeError, load_volume

# Simulates six clicks (6, 3) int in voxels on a structure (X, Y, Z) bool.
Clicker = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def read_mask_clicks(
    path: Path, image: str, indices: Mapping[str, int] | str, click: Clicker, seed: int
) -> Iterator[ClickRecord]:
    """Yield simulated extreme points of each structure in a mask that has a voxel.

    The same seed gives the same clicks for an image and a label, whatever else is imported.

    Args:
        path: mask (X, Y, Z).
        image: id of the image.
        indices: index of each label; or the one label of all voxels other than 0.
        click: computes the clicks.
        seed: of the random generator, at least 0.

    Raises:
        ImportRefusedError: not a volume, or a value without a label.
    """
    try:
        volume = load_volume(path, sentinels=False)
    except VolumeError as error:
        raise ImportRefusedError([str(error)]) from error
    if isinstance(indices, str):
        structures = {indices: volume.array != 0}
    else:
        _check_values(path.name, volume, indices)
        structures = {label: volume.array == index for label, index in indices.items()}
    for label, mask in structures.items():
        if mask.any():
            rng = np.random.default_rng([seed, zlib.crc32(f"{image}/{label}".encode())])
            points = tuple((float(i), float(j), float(k)) for i, j, k in click(mask, rng))
            yield ClickRecord(path.name, image, label, points, grid=volume.geometry)


def _check_values(name: str, volume: Volume, indices: Mapping[str, int]) -> None:
    unknown = np.setdiff1d(volume.array[volume.array != 0], list(indices.values()))
    if len(unknown):
        known = ", ".join(f"{index} for {label}" for label, index in indices.items())
        raise ImportRefusedError(
            [
                f"{name}: holds the value {unknown[0]:g}; expected 0, {known}. If every value other than 0 is one "
                "structure, name it with --label."
            ]
        )
