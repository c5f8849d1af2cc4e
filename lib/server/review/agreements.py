"""Measure how far the readings of a study agree, once for each version of them."""

from __future__ import annotations

import logging
from collections.abc import Collection
from itertools import combinations
from typing import Any

import numpy as np

from lib.annotations.agreement import Agreement, label_agreements
from lib.annotations.json_file import JsonFile
from lib.annotations.mask_file import MaskError, require_grid
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from lib.server.review.readings import Readings

logger = logging.getLogger(__name__)


class Agreements:
    """Agreements of the readings of a project, cached in a file that may be deleted at any time."""

    def __init__(self, readings: Readings) -> None:
        self.readings = readings
        self._file = JsonFile(readings.studies.project.agreements)

    def of(self, image_id: str, readers: Collection[str]) -> dict[str, Any]:
        """Return the agreement of each pair of readers by label, and the lowest agreement of all.

        It is computed once for each version of the readings.
        """
        version = self.readings.version(image_id, readers)
        kept = self._file.get(image_id)
        if kept.get("version") == version:
            return kept
        found = {"version": version, **self._measured(image_id, sorted(readers))}
        try:
            self._file.change(image_id, lambda _: found)
        except OSError as error:
            logger.warning("The agreement of %s could not be saved (%s).", image_id, error.strerror)
        return found

    def measure(self, image_id: str) -> None:
        """Measure the agreement in advance, if an image has two readings, so that no request waits for it."""
        try:
            readers = self.readings.finished([image_id]).get(image_id, set())
            if len(readers) > 1:
                self.of(image_id, readers)
        except Exception:  # runs in the background; the next request raises it again
            logger.exception("The agreement of the readings of %s could not be measured.", image_id)

    def _measured(self, image_id: str, readers: list[str]) -> dict[str, Any]:
        pairs: list[dict[str, Any]] = []
        found: list[Agreement] = []
        try:
            maps = self._maps(image_id, readers)
        except (MaskError, OSError) as error:
            return {"pairs": [], "dice": None, "largest_mm": None, "problem": str(error)}
        for one, other in combinations(readers, 2):
            geometry = maps[one].geometry
            of_labels = label_agreements(maps[one].array, maps[other].array, self.readings.studies.labels, geometry)
            pairs.append({"readers": [one, other], "labels": {label: _record(a) for label, a in of_labels.items()}})
            found += of_labels.values()
        worst = max(found, key=lambda agreement: agreement.disagreement)
        return {"pairs": pairs, "dice": worst.dice, "largest_mm": worst.largest_mm}

    def _maps(self, image_id: str, readers: list[str]) -> dict[str, Volume]:
        """Return the label map (X, Y, Z) of each reader, all on the same grid."""
        found = {reader: self.readings.of(reader).label_map(image_id) for reader in readers}
        some = next((mask for mask in found.values() if mask is not None), None)
        geometry = some.geometry if some is not None else ImageGeometry((1, 1, 1), np.eye(4))
        for reader, mask in found.items():
            if mask is not None:
                require_grid(mask.geometry, geometry, f"of {reader!r}")
        empty = Volume(np.zeros(geometry.shape, np.uint8), geometry)
        return {reader: mask if mask is not None else empty for reader, mask in found.items()}


def _record(agreement: Agreement) -> dict[str, Any]:
    return {"dice": agreement.dice, "largest_mm": agreement.largest_mm, "ends_mm": agreement.ends_mm}
