"""Save and load shape atlases."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lib.annotations.atomic_write import write_atomically
from lib.clickmask.box_frame import SIDE
from lib.clickmask.shape_atlas import ShapeAtlas

logger = logging.getLogger(__name__)

_FIGURES = "figures"


def save_atlases(path: Path, atlases: Mapping[str, ShapeAtlas], images: Mapping[str, list[str]]) -> None:
    """Write the atlas of each label, and the ids of the images that it was made from.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is then intact.
    """
    figures = [
        {
            "label": label,
            "weight": atlas.weight,
            "count": atlas.count,
            "mirrors": atlas.mirrors,
            "images": images[label],
        }
        for label, atlas in atlases.items()
    ]
    arrays: dict[str, np.ndarray] = {_FIGURES: np.frombuffer(json.dumps(figures).encode(), np.uint8)}
    for n, atlas in enumerate(atlases.values()):
        arrays |= {f"mean_{n}": atlas.mean.astype(np.float32), f"extremes_{n}": atlas.extremes}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def load_atlases(path: Path) -> dict[str, tuple[ShapeAtlas, list[str]]]:
    """Return the atlas of each label and the ids of its images; empty without a readable file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            figures = json.loads(file[_FIGURES].tobytes())
            return {
                str(of["label"]): (_atlas(file, n, of), [str(i) for i in of["images"]]) for n, of in enumerate(figures)
            }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, RecursionError) as error:
        logger.warning(
            "The atlases of the last training cannot be read (%s); the next training makes them again.", error
        )
        return {}


def _atlas(file: Mapping[str, np.ndarray], n: int, figures: Mapping[str, float]) -> ShapeAtlas:
    mean, extremes = file[f"mean_{n}"], file[f"extremes_{n}"]
    if mean.shape != (SIDE, SIDE, SIDE) or extremes.shape != (3, 2, 3):
        raise ValueError(f"an atlas of shape {mean.shape} with extremes {extremes.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(extremes).all()):
        raise ValueError("an atlas that is not finite")
    return ShapeAtlas(mean, extremes, float(figures["weight"]), int(figures["count"]), bool(figures["mirrors"]))
