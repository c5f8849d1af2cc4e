"""Place a shape atlas and a click network in the frame of a clicked structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.clickmask.box_frame import BoxFrame
from lib.clickmask.click_network import ClickNetwork, network_input
from lib.clickmask.context_box import context_box
from lib.clickmask.shape_atlas import ShapeAtlas
from lib.clickmask.working_grid import WorkingGrid


@dataclass(frozen=True, eq=False)
class PlacedAtlas:
    """Atlas and network correction in the frame of the clicked structure.

    Attributes:
        extremes: (3, 2, 3) positions of the extreme points.
        correction: (S, S, S) of log-odds; None without a network.
    """

    atlas: ShapeAtlas
    frame: BoxFrame
    extremes: np.ndarray
    correction: np.ndarray | None

    @classmethod
    def of(
        cls,
        atlas: ShapeAtlas,
        network: ClickNetwork | None,
        image: np.ndarray,
        points: ExtremePoints,
        affine_ras: np.ndarray,
    ) -> PlacedAtlas:
        frame = BoxFrame.around(points.extremes_voxel, affine_ras)
        extremes = frame.extremes(points.extremes_voxel)
        if network is None:
            return cls(atlas, frame, extremes, None)
        box = context_box(points, image.shape)
        sampled = frame.sampled(image[box.slices], np.array(box.start))
        on, off = frame.positions(points.foreground_voxel), frame.positions(points.background_voxel)
        inputs, _ = network_input(sampled, extremes, atlas, on, off)
        return cls(atlas, frame, extremes, network.correction(inputs))

    def probability(self, generic: np.ndarray, grid: WorkingGrid) -> np.ndarray:
        """Return the probability (X, Y, Z) on a grid of the atlas and a generic probability (X, Y, Z) combined."""
        return self.atlas.probability(generic, self.frame, self.extremes, grid)

    def correction_on(self, grid: WorkingGrid) -> np.ndarray | None:
        """Return the correction (X, Y, Z) of the log-odds on a grid; None without a network."""
        return None if self.correction is None else self.frame.on_grid(self.correction, grid)
