"""Read the published annotations of the paper: extreme points as label maps (Zenodo record 5081986)."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

import numpy as np

from lib.exchange.click_records import ClickRecord, ImportRefusedError
from lib.geometry.volume import VolumeError, load_volume


class PaperCode(IntEnum):
    """Code of a voxel in such a label map; which end of an axis is the low one is not specified."""

    BACKGROUND = 0
    X_ONE_END = 1
    X_OTHER_END = 2
    Y_ONE_END = 3
    Y_OTHER_END = 4
    Z_ONE_END = 5
    Z_OTHER_END = 6
    INSIDE_BOX = 12


EXTREME_POINTS = tuple(PaperCode(code) for code in range(PaperCode.X_ONE_END, PaperCode.Z_OTHER_END + 1))


def read_paper_label_map(path: Path, image: str, label: str) -> list[ClickRecord]:
    """Return the voxels with the codes of extreme points, as clicks on one structure.

    Raises:
        ImportRefusedError: not a volume, a value that is not a code, or a missing extreme point.
    """
    try:
        volume = load_volume(path, sentinels=False)
    except VolumeError as error:
        raise ImportRefusedError([str(error)]) from error
    unknown = np.setdiff1d(volume.array[volume.array != PaperCode.BACKGROUND], list(PaperCode))
    if len(unknown):
        raise ImportRefusedError(
            [
                f"{path.name}: holds the value {unknown[0]:g}; expected 0 (background), 1 to 6 (extreme points) and "
                "12 (inside of the box)."
            ]
        )
    missing = [code for code in EXTREME_POINTS if not (volume.array == code).any()]
    if missing:
        axis = missing[0].name[0].lower()
        raise ImportRefusedError(
            [f"{path.name}: no voxel has the value {missing[0].value}, an extreme point along {axis}; expected 1 to 6."]
        )
    clicks = np.argwhere(np.isin(volume.array, EXTREME_POINTS))
    points = tuple((float(i), float(j), float(k)) for i, j, k in clicks)
    return [ClickRecord(path.name, image, label, points, grid=volume.geometry)]
