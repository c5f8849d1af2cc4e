import nibabel as nib
import numpy as np
import pytest
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Annotation
from lib.data.scans import AnnotatedScan, ScanDataset, collate, patch_loader
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import VolumeError

# Turned axes, anisotropic; the network's grid is (right, anterior, superior) at other spacings.
AFFINE = np.array([[0, 0, 1.5, 10], [-0.5, 0, 0, 20], [0, 0.5, 0, -5], [0, 0, 0, 1.0]])
SHAPE = (80, 70, 24)
CLICKS = np.array([[20, 40, 12], [50, 41, 12], [35, 20, 12], [36, 60, 12], [35, 40, 6], [35, 40, 18]])
SPACING_MM = (1.5, 0.5, 0.5)


@pytest.fixture
def scan(tmp_path):
    """Every clicked voxel holds a bright value of its own."""
    image = np.zeros(SHAPE, dtype=np.float32)
    for value, click in enumerate(CLICKS, start=1):
        image[tuple(click)] = value
    nib.save(nib.Nifti1Image(image, AFFINE), tmp_path / "scan.nii.gz")
    points = ExtremePoints.from_clicks("lesion", CLICKS)
    annotation = Annotation.now("scan", points, ImageGeometry(SHAPE, AFFINE), "reader")
    return AnnotatedScan("scan", tmp_path / "scan.nii.gz", (annotation,))


def patches(scan, **changes):
    settings = {
        "spacing_mm": SPACING_MM,
        "roi_size": (16, 32, 32),
        "batch_size": 4,
        "patches_per_epoch": 40,
        "annotated_fraction": 1.0,
        "margin_voxels": 2,
    }
    return list(patch_loader([scan], **(settings | changes)))


def test_clicks_stay_on_their_voxels_through_turning_cropping_and_flipping(scan):
    torch.manual_seed(0)
    met = set()
    for batch in patches(scan):
        for image, (points,) in zip(batch.image[:, 0], batch.points, strict=True):
            order = [tuple(voxel) for voxel in points.foreground_voxel]
            inside = [all(0 <= v < n for v, n in zip(voxel, image.shape, strict=True)) for voxel in order]
            values = [image[voxel].item() for voxel, is_in in zip(order, inside, strict=True) if is_in]
            numbers = [n for n, is_in in enumerate(inside) if is_in]
            assert all(value > 1 for value in values)
            assert values == sorted(values)
            met.update(numbers)
    assert met == set(range(6))


@pytest.mark.parametrize("augmentation", ["none", "flip", "full"])
def test_scan_smaller_than_a_patch_gives_patches_with_every_augmentation(scan, augmentation):
    batches = patches(scan, roi_size=(48, 48, 48), augmentation=augmentation, patches_per_epoch=24)

    assert sum(len(batch.image) for batch in batches) == 24
    assert all(batch.image.shape[1:] == (1, 48, 48, 48) for batch in batches)
    assert all(len(structures) == 1 for batch in batches for structures in batch.points)


def test_resampled_scan_keeps_clicks_within_half_a_voxel(scan):
    spacing_mm = (1.2, 0.7, 0.9)
    subject = ScanDataset([scan], spacing_mm, (8, 8, 8), margin_voxels=2)[0]
    (points,) = collate([subject]).points[0]

    expected_mm = CLICKS @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    affine = subject["image"].affine
    found_mm = points.foreground_voxel @ affine[:3, :3].T + affine[:3, 3]
    assert (np.abs(found_mm - expected_mm) <= np.array(spacing_mm) / 2 + 1e-6).all()


@pytest.mark.parametrize(("fraction", "lowest", "highest"), [(1.0, 1.0, 1.0), (0.0, 0.3, 0.9)])
def test_share_of_patches_on_the_structure_is_set(scan, fraction, lowest, highest):
    torch.manual_seed(0)
    on_structure = []
    for batch in patches(scan, annotated_fraction=fraction, roi_size=(8, 16, 16), patches_per_epoch=80):
        for image, (points,) in zip(batch.image[:, 0], batch.points, strict=True):
            low, high = points.foreground_voxel.min(axis=0), points.foreground_voxel.max(axis=0)
            on_structure.append(bool(np.all((high >= 0) & (low < np.array(image.shape)))))

    assert lowest <= np.mean(on_structure) <= highest


def test_scan_smaller_than_a_patch_is_padded(scan):
    (batch, *_) = patches(scan, roi_size=(32, 96, 96), batch_size=2, patches_per_epoch=2)

    assert batch.image.shape == (2, 1, 32, 96, 96)
    assert all((p.foreground_voxel >= 0).all() for (p,) in batch.points)


def test_mask_goes_with_its_image(scan, tmp_path):
    mask = nib.load(scan.image_path).get_fdata() > 0
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), tmp_path / "mask.nii.gz")
    with_mask = AnnotatedScan(scan.image_id, scan.image_path, scan.annotations, tmp_path / "mask.nii.gz")

    for batch in patches(with_mask, patches_per_epoch=12):
        for image, mask_patch in zip(batch.image[:, 0], batch.masks, strict=True):
            assert torch.equal(mask_patch > 0, image > 1)


def test_epoch_has_as_many_patches_as_asked(scan):
    assert sum(len(batch.image) for batch in patches(scan, patches_per_epoch=24)) == 24
    several = patch_loader(
        [scan] * 50,
        spacing_mm=SPACING_MM,
        roi_size=(8, 8, 8),
        batch_size=2,
        patches_per_epoch=8,
        annotated_fraction=0.5,
        margin_voxels=2,
    )
    assert sum(len(batch.image) for batch in several) == 8


def test_patches_of_a_scan_with_a_mask_alone_lie_on_the_mask(scan, tmp_path):
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[70:73, 60:63, 20:22] = 1
    nib.save(nib.Nifti1Image(mask, AFFINE), tmp_path / "mask.nii.gz")
    batches = patches(AnnotatedScan(scan.image_id, scan.image_path, (), tmp_path / "mask.nii.gz"), roi_size=(8, 8, 8))

    assert all((mask == 1).any() for batch in batches for mask in batch.masks)


def test_voxels_near_the_clicks_are_possible_and_the_others_are_not(scan):
    for batch in patches(scan, roi_size=(16, 64, 64), patches_per_epoch=8):
        for possible, (points,) in zip(batch.possible, batch.points, strict=True):
            voxel = np.indices(possible.shape).reshape(3, -1).T
            low, high = points.foreground_voxel.min(axis=0), points.foreground_voxel.max(axis=0)
            expected = ((voxel >= low - 2) & (voxel <= high + 2)).all(axis=1).reshape(possible.shape)
            np.testing.assert_array_equal(possible.numpy(), expected)


def unreadable(path):
    path.write_bytes(b"no image")


def without_measurements(path):
    nib.save(nib.Nifti1Image(np.full(SHAPE, -3.4e38, np.float32), AFFINE), path)


def not_finite(path):
    nib.save(nib.Nifti1Image(np.full(SHAPE, np.nan, np.float32), AFFINE), path)


def in_wrong_units(path):
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.float32), np.diag([1000.0, 1000, 1000, 1]) @ AFFINE), path)


def removed(path):
    path.unlink(missing_ok=True)


SPOILT = [unreadable, without_measurements, not_finite, in_wrong_units, removed]


@pytest.mark.parametrize("spoil", SPOILT)
def test_scan_that_cannot_be_used_is_named_once_and_left_out(scan, tmp_path, caplog, spoil):
    spoil(tmp_path / "other.nii.gz")
    other = AnnotatedScan("other", tmp_path / "other.nii.gz", scan.annotations)

    dataset = ScanDataset([other, scan], SPACING_MM, (8, 8, 8), margin_voxels=2)

    for index in (0, 1, 0, 1):
        assert dataset[index]["image"].spatial_shape == (24, 80, 70)
    assert [record.message.split(".")[0] for record in caplog.records] == ["The scan other is left out of the training"]
    assert str(tmp_path) not in caplog.text


def test_scan_whose_mask_does_not_fit_is_left_out(scan, tmp_path, caplog):
    nib.save(nib.Nifti1Image(np.ones((5, 6, 7), np.uint8), AFFINE), tmp_path / "mask.nii.gz")
    other = AnnotatedScan("other", scan.image_path, (), tmp_path / "mask.nii.gz")

    assert ScanDataset([other, scan], SPACING_MM, (8, 8, 8), margin_voxels=2)[0]["clicks"]
    assert "The scan other is left out of the training" in caplog.text


@pytest.mark.parametrize("spoil", SPOILT)
def test_training_without_a_scan_that_can_be_used_says_so(scan, spoil):
    spoil(scan.image_path)

    for _ in range(2):
        with pytest.raises(VolumeError, match="There is nothing to learn from: none of the scans can be used"):
            patches(scan)
