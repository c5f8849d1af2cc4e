"""Image, mask and click masks of a scan, from the cache."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Annotation
from lib.data.annotated_scan import AnnotatedScan
from lib.data.grid import network_image, network_label_map
from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, VolumeError, load_volume

SHAPE, AFFINE = (24, 20, 16), np.diag([1.0, -1.0, 2.0, 1.0])
GEOMETRY = ImageGeometry(SHAPE, AFFINE)
SPACING_MM = (1.5, 1.5, 1.5)
CLICKS = np.array([[4, 9, 9], [15, 9, 9], [9, 4, 9], [9, 14, 9], [9, 9, 4], [9, 9, 12]])


def clicked(label="lesion", clicks=CLICKS, background=None):
    return Annotation.now("scan", ExtremePoints.from_clicks(label, clicks, background), GEOMETRY, "reader")


def blocks(value):
    array = np.zeros(SHAPE, np.uint8)
    array[4:16, 4:15, 4:13] = value
    return array


class Maker:
    """Makes a mask that fills the box of the clicks, and counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, scan):
        self.calls += 1
        return Volume(blocks(1).astype(np.float32), GEOMETRY)


@pytest.fixture
def scan(tmp_path):
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    nib.save(nib.Nifti1Image(image, AFFINE), tmp_path / "scan.nii.gz")
    nib.save(nib.Nifti1Image(blocks(2), AFFINE), tmp_path / "mask.nii.gz")
    return AnnotatedScan("scan", tmp_path / "scan.nii.gz", "sum", (clicked(),), (), tmp_path / "mask.nii.gz", ("cyst",))


@pytest.fixture
def volumes(tmp_path):
    return ScanVolumes(PreparedScans(tmp_path / "prepared"), SPACING_MM, Maker(), "1")


def test_image_and_masks_are_those_of_the_files_on_one_grid(scan, volumes):
    image, affine = network_image(load_volume(scan.image_path), SPACING_MM)
    mask, _ = network_label_map(load_volume(scan.mask_path), SPACING_MM)
    click_mask, _ = network_label_map(Maker()(scan), SPACING_MM)

    for found, expected in [(volumes.image, image), (volumes.mask, mask), (volumes.click_mask, click_mask)]:
        assert torch.equal(found(scan).voxels, expected)
        np.testing.assert_allclose(found(scan).affine, affine)


def test_missing_masks_are_none(scan, volumes):
    assert volumes.mask(replace(scan, mask_path=None)) is None
    assert volumes.click_mask(replace(scan, annotations=())) is None
    assert replace(volumes, click_masks=None).click_mask(scan) is None


def test_changed_mask_is_read_again(scan, volumes):
    assert volumes.mask(scan).voxels.unique().tolist() == [0, 2]

    nib.save(nib.Nifti1Image(blocks(3), AFFINE), scan.mask_path)

    assert volumes.mask(scan).voxels.unique().tolist() == [0, 3]


def test_mask_with_non_finite_values_is_refused(scan, volumes):
    # In images they are filled with the lowest value, which may be a label in a mask.
    nib.save(nib.Nifti1Image(np.full(SHAPE, np.nan, np.float32), AFFINE), scan.mask_path)

    with pytest.raises(VolumeError, match="not finite; expected 0 and the values of labels"):
        volumes.mask(scan)


def test_click_mask_is_made_once_for_the_same_clicks(scan, volumes):
    later = replace(scan, annotations=(replace(clicked(), annotator="another", created="2030-01-01T00:00:00+00:00"),))

    for same in (scan, scan, later):
        volumes.click_mask(same)

    assert volumes.click_masks.calls == 1


@pytest.mark.parametrize(
    "other",
    [
        clicked("cyst"),
        clicked(clicks=CLICKS + [0, 0, 1]),
        clicked(clicks=np.vstack([CLICKS, [[9, 9, 9]]])),
        clicked(background=np.array([[1, 1, 1]])),
    ],
)
def test_click_mask_of_other_clicks_is_made_again(scan, volumes, other):
    volumes.click_mask(scan)

    volumes.click_mask(replace(scan, annotations=(other,)))
    volumes.click_mask(replace(scan, annotations=(clicked(), other)))

    assert volumes.click_masks.calls == 3


def test_click_mask_of_another_algorithm_is_made_again(scan, volumes):
    volumes.click_mask(scan)
    other = replace(volumes, click_masks=Maker(), click_masks_name="2")

    other.click_mask(scan)

    assert other.click_masks.calls == 1


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("part", ["image", "mask"])
def test_missing_file_is_a_volume_error(scan, volumes, part, prepared):
    if prepared:
        getattr(volumes, part)(scan)
    getattr(scan, f"{part}_path").unlink()

    with pytest.raises(VolumeError) as error:
        getattr(volumes, part)(scan)
    assert str(scan.image_path.parent) not in str(error.value)


def test_click_mask_of_an_image_with_another_affine_is_made_again(scan, volumes):
    volumes.click_mask(scan)
    voxels = np.asanyarray(nib.load(scan.image_path).dataobj)
    nib.save(nib.Nifti1Image(voxels, AFFINE @ np.diag([2.0, 1, 1, 1])), scan.image_path)

    volumes.click_mask(scan)

    assert volumes.click_masks.calls == 2
