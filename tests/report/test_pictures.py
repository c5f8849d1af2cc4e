"""Pictures of a report."""

import io

import numpy as np
import pytest
from PIL import Image

from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from lib.report import pictures as pictures_of_report
from lib.report.pictures import overlay


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_picture_shows_the_patient_as_radiologists_look_at_one(monkeypatch, flips, order):
    """A structure at the patient's left, front and top, however the voxels are stored."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * flips)[:, list(order)]
    affine[:3, 3] = -affine[:3, :3] @ [15, 16, 17]
    geometry = ImageGeometry((30, 32, 34), affine)
    mask = np.zeros(geometry.shape, bool)
    mask[5:-5, 5:-5, 5:-5] = True
    from_left_front_top_mm = geometry.voxel_to_ras(np.moveaxis(np.indices(mask.shape), 0, -1)) - [-9, 9, 9]
    bright = np.abs(from_left_front_top_mm).max(axis=-1) < 4.5
    monkeypatch.setattr(pictures_of_report, "MASK", "#000000")
    # The cut is where the mask is largest: through what is bright.
    mask &= (np.abs(from_left_front_top_mm) < 4.5).any(axis=-1)
    volume = Volume(1000.0 * bright, geometry)

    picture = np.asarray(Image.open(io.BytesIO(overlay(volume, mask, None))).convert("RGB")).astype(int)

    rows, columns = np.nonzero(picture.min(axis=-1) > 250)
    views = [picture.shape[1] * n / 3 for n in range(4)]
    for n, is_right_of_middle in enumerate((True, True, False)):  # left of the patient; sagittal: front
        letters_off = 0.1 * (views[n + 1] - views[n])
        inside = (columns > views[n] + letters_off) & (columns < views[n + 1] - letters_off)
        inside &= (rows > 0.1 * picture.shape[0]) & (rows < 0.9 * picture.shape[0])
        middle = (views[n] + views[n + 1]) / 2
        assert (np.median(columns[inside]) > middle) == is_right_of_middle
        assert np.median(rows[inside]) < picture.shape[0] / 2  # front, or top
