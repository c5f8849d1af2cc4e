"""Random patches of annotated scans."""

import hashlib
import itertools
from dataclasses import replace

import nibabel as nib
import numpy as np
import psutil
import pytest
import torch
from nibabel.affines import apply_affine

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Annotation
from lib.data import patch_map, patches, prepared_scans
from lib.data.annotated_scan import AnnotatedScan
from lib.data.grid import points_on_grid
from lib.data.patches import PatchBatch, PatchPlan, PatchSource, PatchStream, patch_batches, spare_workers
from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import VolumeError, load_volume

# Turned axes, anisotropic; the network's grid is (right, anterior, superior).
AFFINE = np.array([[0, 0, 1.5, 10], [-0.5, 0, 0, 20], [0, 0.5, 0, -5], [0, 0, 0, 1.0]])
SHAPE = (80, 70, 24)
CLICKS = np.array([[20, 40, 12], [50, 41, 12], [35, 20, 12], [36, 60, 12], [35, 40, 6], [35, 40, 18]])
OWN_MM = (1.5, 0.5, 0.5)
MARGIN = 2
AUGMENTATIONS = ["none", "flip", "full"]


def save(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def annotated(path, image_id="scan", **known):
    points = ExtremePoints.from_clicks("lesion", CLICKS)
    annotation = Annotation.now(image_id, points, ImageGeometry(SHAPE, AFFINE), "reader")
    checksum = hashlib.sha256(str(path).encode()).hexdigest()
    return replace(AnnotatedScan(image_id, path, checksum, (annotation,)), **known)


def in_box():
    """Voxels of the tight box of the clicks, as stored."""
    array = np.zeros(SHAPE, np.uint8)
    array[20:51, 20:61, 6:19] = 1
    return array


@pytest.fixture
def scan(tmp_path):
    """Every clicked voxel holds a bright value of its own."""
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


def drawn(source, count):
    torch.manual_seed(0)
    return [source.draw() for _ in range(count)]


def in_patch(points_voxel, patch):
    return np.all((points_voxel >= 0) & (points_voxel < np.array(patch.image.shape)), axis=-1)


# Voxels and clicks stay together


@pytest.mark.parametrize("augmentation", ["none", "flip"])
def test_clicks_stay_on_their_voxels_through_turning_cutting_and_flipping(scan, source, augmentation):
    met = set()
    for patch in drawn(source(scan, augmentation=augmentation), 40):
        (points,) = patch.points
        bright = patch.image > 1
        inside = in_patch(points.foreground_voxel, patch)
        values = patch.image[tuple(points.foreground_voxel[inside].T)]
        assert bright.sum() == inside.sum()
        assert (values > 1).all() and values.tolist() == sorted(values)
        met.update(np.flatnonzero(inside))
    assert met == set(range(6))


@pytest.mark.parametrize("augmentation", ["full"])
def test_clicks_stay_on_their_structure_through_turning_and_scaling(tmp_path, source, augmentation):
    """Bright blobs of two voxels in radius about the clicks."""
    voxels = np.stack(np.indices(SHAPE), axis=-1)
    image = sum(np.exp(-((((voxels - click) * (0.5, 0.5, 1.5)) ** 2).sum(axis=-1))) for click in CLICKS)
    scan = annotated(save(tmp_path / "scan.nii.gz", image.astype(np.float32)))

    checked = 0
    for patch in drawn(source(scan, spacing_mm=(0.5, 0.5, 0.5), roi_size=(40, 40, 40), augmentation=augmentation), 30):
        (points,) = patch.points
        middle = in_patch(points.foreground_voxel - 4, patch) & in_patch(points.foreground_voxel + 4, patch)
        for point in points.foreground_voxel[middle]:
            around = tuple(slice(v - 4, v + 5) for v in point)
            weights = (patch.image[around] - patch.image[around].min()).double().numpy() ** 3
            centre = (np.indices(weights.shape) * weights).sum(axis=(1, 2, 3)) / weights.sum() - 4
            assert np.abs(centre).max() < 1
            checked += 1
    assert checked > 50


def test_scan_on_another_grid_keeps_clicks_within_half_a_voxel(scan, source):
    spacing_mm = (1.2, 0.7, 0.9)
    whole = source(scan, spacing_mm=spacing_mm, roi_size=(30, 57, 38))
    affine = whole.volumes.image(scan).affine
    assert whole.volumes.image(scan).voxels.shape == (30, 57, 38)

    (points,) = whole.draw().points

    found_mm, expected_mm = apply_affine(affine, points.foreground_voxel), apply_affine(AFFINE, CLICKS)
    assert (np.abs(found_mm - expected_mm) <= np.array(spacing_mm) / 2 + 1e-6).all()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_mask_and_click_mask_go_with_their_image(tmp_path, source, augmentation, monkeypatch):
    monkeypatch.setattr(patches, "random_intensities", lambda image, _: image)
    bright = in_box().astype(np.float32)
    bright[::2] *= 1.001  # not the labels themselves
    scan = annotated(save(tmp_path / "scan.nii.gz", bright), mask_path=save(tmp_path / "mask.nii.gz", in_box()))
    with_both = source(scan, click_masks=lambda scan: load_volume(scan.mask_path), augmentation=augmentation)

    for patch in drawn(with_both, 12):
        assert patch.mask.dtype == patch.click_mask.dtype == torch.uint8
        assert torch.equal(patch.mask, patch.click_mask)
        # Interpolated intensities are half of the structure's where it ends, and so are those where the scan ends.
        agree = (patch.image > 0.5 * patch.image.max()) == (patch.mask == 1)
        assert agree.float().mean() > 0.97
        assert patch.mask.unique().tolist() == [0, 1]


@pytest.mark.parametrize("augmentation", ["none", "flip"])
def test_relaxed_box_of_a_patch_is_about_its_clicks(scan, source, augmentation):
    for patch in drawn(source(scan, roi_size=(16, 64, 64), augmentation=augmentation), 8):
        (points,), (box,) = patch.points, patch.boxes
        voxel = np.stack(np.indices(box.shape), axis=-1)
        low, high = points.foreground_voxel.min(axis=0), points.foreground_voxel.max(axis=0)
        expected = ((voxel >= low - MARGIN) & (voxel <= high + MARGIN)).all(axis=-1)
        np.testing.assert_array_equal(box, expected)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_structure_lies_in_its_relaxed_box_however_the_patch_is_turned(tmp_path, source, augmentation):
    scan = annotated(
        save(tmp_path / "scan.nii.gz", in_box().astype(np.float32)), mask_path=save(tmp_path / "mask.nii.gz", in_box())
    )

    for patch in drawn(source(scan, augmentation=augmentation), 20):
        assert patch.boxes[0][patch.mask == 1].all()


def test_relaxed_box_ends_with_the_scan(scan, source):
    """Beside the scan there is nothing, so not the structure either."""
    whole = source(scan, margin_voxels=100, roi_size=(32, 96, 96)).draw()

    assert whole.boxes[0].sum() == np.prod(SHAPE)


def test_each_structure_has_clicks_and_a_box_of_its_own(scan, source):
    other = ExtremePoints.from_clicks("cyst", CLICKS + [20, 5, 2])
    both = replace(scan, annotations=(*scan.annotations, replace(scan.annotations[0], points=other)))

    for patch in drawn(source(both, roi_size=(24, 96, 96), augmentation="full"), 8):
        assert [points.label for points in patch.points] == ["lesion", "cyst"]
        for points, box in zip(patch.points, patch.boxes, strict=True):
            inside = points.foreground_voxel[in_patch(points.foreground_voxel, patch)]
            assert box[tuple(inside.T)].all()
        assert not torch.equal(*patch.boxes)


def test_what_was_said_of_the_scan_is_said_of_its_patches(scan, source):
    patch = source(replace(scan, absent=("cyst",), mask_labels=("node",))).draw()

    assert (patch.absent, patch.mask_labels, patch.mask, patch.click_mask) == (("cyst",), ("node",), None, None)


# Interpolation


@pytest.mark.parametrize(("augmentation", "times"), [("none", 0), ("flip", 0), ("full", 3)])
def test_image_and_masks_are_interpolated_once_each(scan, source, monkeypatch, augmentation, times):
    calls = []
    sample = patch_map.functional.grid_sample
    monkeypatch.setattr(
        patch_map.functional, "grid_sample", lambda *args, **kwargs: (calls.append(1), sample(*args, **kwargs))[1]
    )
    mask = save(scan.image_path.parent / "mask.nii.gz", in_box())
    with_both = source(
        replace(scan, mask_path=mask), click_masks=lambda scan: load_volume(mask), augmentation=augmentation
    )
    found = set()
    torch.manual_seed(0)
    for _ in range(20):
        calls.clear()
        with_both.draw()
        found.add(len(calls))

    assert found == {times}


# Where patches lie


def holds_structure(patch):
    (points,) = patch.points
    low, high = points.foreground_voxel.min(axis=0), points.foreground_voxel.max(axis=0)
    return bool(np.all((high >= 0) & (low < np.array(patch.image.shape))))


@pytest.mark.parametrize(("fraction", "lowest", "highest"), [(1.0, 1.0, 1.0), (0.5, 0.45, 0.75), (0.0, 0.0, 0.35)])
def test_share_of_patches_on_the_structure_is_set(tmp_path, source, fraction, lowest, highest):
    """A structure of 9 x 9 x 3 voxels; by chance a patch holds it in less than a third of the scan."""
    small = ExtremePoints.from_clicks("lesion", (CLICKS - CLICKS.mean(axis=0).astype(int)) // 5 + [12, 56, 19])
    scan = annotated(save(tmp_path / "scan.nii.gz", np.zeros(SHAPE, np.float32)))
    scan = replace(scan, annotations=(replace(scan.annotations[0], points=small),))

    on_structure = [
        holds_structure(p) for p in drawn(source(scan, annotated_fraction=fraction, roi_size=(8, 16, 16)), 120)
    ]

    assert lowest <= np.mean(on_structure) <= highest


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("voxel", [(0, 0, 0), (71, 61, 20), (79, 69, 23), (40, 0, 12)])
def test_patch_on_the_structure_holds_it_however_it_is_turned(tmp_path, source, augmentation, voxel):
    """A structure of a single voxel."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[voxel] = 1
    scan = annotated(
        save(tmp_path / "scan.nii.gz", np.zeros(SHAPE, np.float32)),
        annotations=(),
        mask_path=save(tmp_path / "mask.nii.gz", mask),
    )
    alone = source(scan, spacing_mm=(1.5, 0.5, 0.5), roi_size=(12, 24, 24), augmentation=augmentation)
    (right_anterior_superior,) = alone.volumes.mask(scan).label_voxels[1].numpy()

    maps = []
    place = alone._place
    alone._place = lambda *args: (maps.append(place(*args)), maps[-1])[1]
    drawn(alone, 40)

    assert all(found.holds(right_anterior_superior) for found in maps)


def test_patches_lie_all_over_the_structure(scan, source):
    """The middle of the structure is seen at the low end of a patch, at its high end and in between."""
    middles = [
        patch.points[0].foreground_voxel.mean(axis=0) / patch.image.shape
        for patch in drawn(source(scan, roi_size=(8, 16, 16)), 80)
    ]

    assert (np.min(middles, axis=0) < 0.2).all() and (np.max(middles, axis=0) > 0.8).all()


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_patch_does_not_reach_over_the_end_of_a_scan_that_is_larger(tmp_path, source, fraction):
    scan = annotated(
        save(tmp_path / "scan.nii.gz", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)),
        mask_path=save(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8)),
    )

    for patch in drawn(source(scan, augmentation="flip", annotated_fraction=fraction), 40):
        assert (patch.mask == 1).all()


@pytest.mark.parametrize("roi_size", [(25, 81, 71), (30, 99, 90), (48, 32, 96)])
def test_scan_smaller_than_a_patch_lies_in_its_middle(tmp_path, source, roi_size):
    ones = save(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8))
    scan = annotated(save(tmp_path / "scan.nii.gz", np.ones(SHAPE, np.float32)), mask_path=ones)

    for patch in drawn(source(scan, roi_size=roi_size), 5):
        for axis, (length, size) in enumerate(zip((24, 80, 70), roi_size, strict=True)):
            others = tuple(other for other in range(3) if other != axis)
            filled = np.flatnonzero(patch.mask.sum(dim=others).numpy())
            before, after = filled[0], size - 1 - filled[-1]
            assert len(filled) == min(length, size)
            assert abs(before - after) <= 1


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_scan_smaller_than_a_patch_gives_patches_with_every_augmentation(scan, source, augmentation):
    for patch in drawn(source(scan, roi_size=(40, 96, 96), augmentation=augmentation), 12):
        assert patch.image.shape == patch.boxes[0].shape == (40, 96, 96)
        assert torch.isfinite(patch.image).all()


@pytest.mark.parametrize(("masked_share", "expected"), [(0.0, 0.25), (0.1, 0.25), (0.5, 0.5), (1.0, 1.0)])
def test_scans_with_a_mask_have_at_least_their_share(scan, source, masked_share, expected):
    mask = save(scan.image_path.parent / "mask.nii.gz", in_box())
    scans = [replace(scan, mask_path=mask), scan, scan, scan]

    found = drawn(source(*scans, masked_share=masked_share, roi_size=(8, 8, 8)), 160)

    assert np.mean([patch.mask is not None for patch in found]) == pytest.approx(expected, abs=0.1)


def test_share_of_masks_is_of_no_account_where_there_are_none(scan, source):
    assert all(patch.mask is None for patch in drawn(source(scan, masked_share=1.0), 4))


def test_clicked_structure_and_masked_one_are_both_visited(scan, source):
    mask = np.zeros(SHAPE, np.uint8)
    mask[70:73, 60:63, 20:22] = 2
    both = replace(scan, mask_path=save(scan.image_path.parent / "mask.nii.gz", mask))

    found = drawn(source(both, roi_size=(8, 8, 8)), 60)

    assert np.mean([bool((patch.mask == 2).any()) for patch in found]) == pytest.approx(0.5, abs=0.2)


def test_scan_of_which_nothing_can_be_placed_gives_patches_of_anywhere(scan, source):
    absent = replace(scan, annotations=(), absent=("lesion",))

    assert all(patch.image.shape == (16, 32, 32) for patch in drawn(source(absent), 4))


def test_click_that_the_coarser_grid_cuts_off_is_no_trouble(tmp_path, source):
    """79.6 / 3 voxels are 26, and the last click lies beyond the last of them."""
    clicks = np.array([[0, 40, 12], [79, 41, 12], [35, 0, 12], [36, 69, 12], [35, 40, 0], [35, 40, 23]])
    scan = annotated(save(tmp_path / "scan.nii.gz", in_box().astype(np.float32)))
    points = ExtremePoints.from_clicks("lesion", clicks)
    scan = replace(scan, annotations=(replace(scan.annotations[0], points=points),))
    coarse = source(scan, spacing_mm=(7.0, 3.0, 3.0), roi_size=(2, 4, 4))
    image = coarse.volumes.image(scan)
    on_grid = points_on_grid(apply_affine(AFFINE, clicks), image.affine)
    assert (on_grid >= np.array(image.voxels.shape)).any() or (on_grid < 0).any()

    assert len(drawn(coarse, 60)) == 60


# Scans that cannot be used


def unreadable(path):
    path.write_bytes(b"no image")


def without_measurements(path):
    save(path, np.full(SHAPE, -3.4e38, np.float32))


def not_finite(path):
    save(path, np.full(SHAPE, np.nan, np.float32))


def in_wrong_units(path):
    save(path, np.ones(SHAPE, np.float32), np.diag([1000.0, 1000, 1000, 1]) @ AFFINE)


def removed(path):
    path.unlink(missing_ok=True)


SPOILT = [unreadable, without_measurements, not_finite, in_wrong_units, removed]


@pytest.mark.parametrize("spoil", SPOILT)
def test_scan_that_cannot_be_used_is_named_once_and_the_others_go_on(scan, source, tmp_path, caplog, spoil):
    spoil(tmp_path / "other.nii.gz")
    other = annotated(tmp_path / "other.nii.gz", "other")

    assert len(drawn(source(other, scan), 20)) == 20
    assert [record.message.split(".")[0] for record in caplog.records] == ["The scan other is left out of the training"]
    assert str(tmp_path) not in caplog.text


def test_scan_whose_mask_is_gone_is_left_out(scan, source, tmp_path, caplog):
    other = replace(scan, image_id="other", mask_path=tmp_path / "gone.nii.gz")

    assert len(drawn(source(other, scan), 20)) == 20
    assert "The scan other is left out of the training" in caplog.text


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("workers", [0, 2])
def test_training_without_a_scan_that_can_be_used_says_so(scan, source, spoil, workers):
    spoil(scan.image_path)

    with pytest.raises(VolumeError) as error:
        next(patch_batches(source(scan), PatchStream(2), workers=workers, pin_memory=False))
    assert str(error.value).startswith("There is nothing to learn from: none of the scans can be used")
    assert "Traceback" not in str(error.value)


# Batches


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_have_no_end_and_the_size_that_was_asked_for(scan, source, workers):
    for batch in itertools.islice(patch_batches(source(scan), PatchStream(3), workers=workers, pin_memory=False), 5):
        assert batch.image.shape == (3, 1, 16, 32, 32)
        assert len(batch.patches) == 3
        assert all(torch.equal(image[0], patch.image) for image, patch in zip(batch.image, batch.patches, strict=True))


def stream(source, workers, count=6):
    batches = patch_batches(source, PatchStream(1, seed=7), workers=workers, pin_memory=False)
    return [batch.image for batch in itertools.islice(batches, count)]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("workers", [0, 2])
def test_seed_decides_the_stream_whether_or_not_the_scans_were_prepared(scan, source, augmentation, workers):
    there, back = (stream(source(scan, augmentation=augmentation), workers) for _ in range(2))

    assert all(torch.equal(one, other) for one, other in zip(there, back, strict=True))


def test_each_worker_draws_patches_of_its_own(tmp_path, source):
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    scan = annotated(save(tmp_path / "scan.nii.gz", image))

    found = stream(source(scan, annotated_fraction=0.0), workers=2, count=8)

    assert not any(torch.equal(one, other) for one, other in itertools.combinations(found, 2))


def test_batch_brings_its_image_into_pinned_memory(monkeypatch):
    pinned = torch.zeros(1, 1, 2, 2, 2)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned)
    batch = PatchBatch(torch.zeros(1, 1, 2, 2, 2), ())

    assert torch.utils.data._utils.pin_memory.pin_memory(batch).image is pinned


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 0), (4, 2), (10, 8), (64, 8), (None, 0)])
def test_workers_leave_cores_to_the_network(monkeypatch, cores, workers):
    monkeypatch.setattr(patches.os, "cpu_count", lambda: cores)

    assert spare_workers() == workers


def test_drawing_from_many_scans_takes_the_memory_of_one(tmp_path, source, monkeypatch):
    """Scans that are large on the network's grid, of one intensity each."""

    def enlarged(volume, _):
        return torch.full((160, 160, 160), float(volume.array[0, 0, 0])).half(), np.eye(4)

    monkeypatch.setattr(prepared_scans, "network_image", enlarged)
    paths = [save(tmp_path / f"{number}.nii", np.full((4, 4, 4), number, np.float32)) for number in range(12)]
    many = source(
        *(annotated(path, path.stem, annotations=()) for path in paths),
        roi_size=(48, 48, 48),
    )
    for scan in many.scans:
        many.volumes.image(scan)
    drawn(many, 5)
    before = psutil.Process().memory_info().rss

    seen = {many.draw().image.mean().item() for _ in range(100)}

    assert seen == set(range(12))
    assert psutil.Process().memory_info().rss - before < 1.5 * 2 * 160**3
