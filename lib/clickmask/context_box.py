"""Find the part of an image that the mask of clicks depends on."""

from __future__ import annotations

import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.clickmask.click_mask_options import DEFAULT_OPTIONS, ClickMaskOptions
from lib.geometry.boxes import Box


def context_box(
    points: ExtremePoints, image_shape: tuple[int, ...], options: ClickMaskOptions = DEFAULT_OPTIONS
) -> Box:
    """Return the part of an image that `segment_from_clicks` depends on."""
    tight = Box.around(points.foreground_voxel)
    i, j, k = (max(int(np.ceil(options.context * size)), options.margin_voxels) for size in tight.shape)
    return tight.relaxed((i, j, k), image_shape)
