"""Share readers of DICOM series."""

import pytest
import SimpleITK as sitk

from lib.geometry.dicom_series import read_series
from tests.geometry.dicom_files import stored


@pytest.fixture
def read_folder(tmp_path):
    """Function that reads the volumes of a folder as SimpleITK images, by name."""

    def read(folder):
        images = {}
        for volume in read_series(folder):
            volume.write(tmp_path / f"{volume.name}.nii.gz")
            images[volume.name] = sitk.ReadImage(str(tmp_path / f"{volume.name}.nii.gz"))
        return images

    return read


@pytest.fixture
def read_volumes(tmp_path, read_folder):
    """Function that stores instances and reads their volumes as SimpleITK images, by name."""
    return lambda instances: read_folder(stored(tmp_path / "series", instances))


@pytest.fixture
def read(read_volumes):
    """Function that stores instances and reads their only volume as a SimpleITK image."""

    def read_one(instances):
        (image,) = read_volumes(instances).values()
        return image

    return read_one
