"""Fixtures of tests that draw patches."""

import numpy as np
import pytest

from lib.data.patches import PatchPlan, PatchSource
from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from tests.data.clicked_scan import CLICKS, MARGIN, OWN_MM, SHAPE, annotated, save


@pytest.fixture
def scan(tmp_path):
    """Scan in which every clicked voxel has a bright value of its own."""
    image = np.zeros(SHAPE, dtype=np.float32)
    for value, click in enumerate(CLICKS, start=1):
        image[tuple(click)] = value
    return annotated(save(tmp_path / "scan.nii.gz", image))


@pytest.fixture
def source(tmp_path):
    def of(*scans, spacing_mm=OWN_MM, click_masks=None, **changes):
        plan = {"roi_size": (16, 32, 32), "annotated_fraction": 1.0, "margin_voxels": MARGIN, "augmentation": "none"}
        volumes = ScanVolumes(PreparedScans(tmp_path / "prepared"), spacing_mm, click_masks)
        return PatchSource(scans, volumes, PatchPlan(**(plan | changes)))

    return of
