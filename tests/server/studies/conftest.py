import pytest

from tests.server.studies.images import open_folder, write_image


@pytest.fixture
def folder(tmp_path):
    """Folder with one image; its name holds a blank and brackets, as users' folders do."""
    folder = tmp_path / "[MR] 2024"
    write_image(folder / "scan.nii.gz")
    return folder


@pytest.fixture
def studies(folder):
    return open_folder(folder)
