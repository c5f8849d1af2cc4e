"""Fixtures of tests of inference."""

import pytest

from lib.annotations.image_identity import ImageIdentities
from lib.data.prepared_scans import PreparedScans
from lib.inference.opened_images import OpenedImages


@pytest.fixture
def images(tmp_path):
    return OpenedImages(PreparedScans(tmp_path / "prepared"), ImageIdentities(tmp_path / "checksums.json"))
