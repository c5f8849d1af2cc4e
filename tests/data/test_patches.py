"""Random patches of annotated scans."""

from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from nibabel.affines import apply_affine

from lib.annotations.extreme_points import ExtremePoints
from lib.data import patch_map, patches, prepared_scans
from lib.data.grid import points_on_grid
from lib.geometry.volume import load_volume
from tests.data.clicked_scan import (
    AFFINE,
    AUGMENTATIONS,
    CLICKS,
    MARGIN,
    SHAPE,
    UNUSABLE,
    annotated,
    in_box,
    save,
)


def drawn(source, count):
    torch.manual_seed(0)
    return [source.draw() for _ in range(count)]


def in_patch(points_voxel, patch):
    return np.all((points_voxel >= 0) & (points_voxel < np.array(patch.image.shape)), axis=-1)


# Voxels and clicks


@pytest.mark.parametrize("augmentation", ["none", "flip"])
def test_clicks_stay_on_their_voxels_through_reorienting_cropping_and_flipping(scan, source, augmentation):
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


def test_clicks_stay_on_their_structure_through_rotating_and_scaling(tmp_path, source):
    # Bright blobs with a radius of two voxels around the clicks.
    voxels = np.stack(np.indices(SHAPE), axis=-1)
    image = sum(np.exp(-((((voxels - click) * (0.5, 0.5, 1.5)) ** 2).sum(axis=-1))) for click in CLICKS)
    scan = annotated(save(tmp_path / "scan.nii.gz", image.astype(np.float32)))

    checked = 0
    for patch in drawn(source(scan, spacing_mm=(0.5, 0.5, 0.5), roi_size=(40, 40, 40), augmentation="full"), 30):
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
def test_mask_and_click_mask_are_transformed_like_the_image(tmp_path, source, augmentation, monkeypatch):
    monkeypatch.setattr(patches, "random_intensities", lambda image, _: image)
    bright = in_box().astype(np.float32)
    bright[::2] *= 1.001  # differs from the labels
    scan = annotated(save(tmp_path / "scan.nii.gz", bright), mask_path=save(tmp_path / "mask.nii.gz", in_box()))
    with_both = source(scan, click_masks=lambda scan: load_volume(scan.mask_path), augmentation=augmentation)

    for patch in drawn(with_both, 12):
        assert patch.mask.dtype == patch.click_mask.dtype == torch.uint8
        assert torch.equal(patch.mask, patch.click_mask)
        # At the boundaries of structure and scan, interpolated intensities are half of those of the structure.
        agree = (patch.image > 0.5 * patch.image.max()) == (patch.mask == 1)
        assert agree.float().mean() > 0.97
        assert patch.mask.unique().tolist() == [0, 1]


@pytest.mark.parametrize("augmentation", ["none", "flip"])
def test_relaxed_box_surrounds_the_clicks(scan, source, augmentation):
    for patch in drawn(source(scan, roi_size=(16, 64, 64), augmentation=augmentation), 8):
        (points,), (box,) = patch.points, patch.boxes
        voxel = np.stack(np.indices(box.shape), axis=-1)
        low, high = points.foreground_voxel.min(axis=0), points.foreground_voxel.max(axis=0)
        expected = ((voxel >= low - MARGIN) & (voxel <= high + MARGIN)).all(axis=-1)
        np.testing.assert_array_equal(box, expected)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_structure_lies_in_its_relaxed_box_with_every_augmentation(tmp_path, source, augmentation):
    scan = annotated(
        save(tmp_path / "scan.nii.gz", in_box().astype(np.float32)), mask_path=save(tmp_path / "mask.nii.gz", in_box())
    )

    for patch in drawn(source(scan, augmentation=augmentation), 20):
        assert patch.boxes[0][patch.mask == 1].all()


def test_relaxed_box_ends_at_the_border_of_the_scan(scan, source):
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


def test_patches_have_the_absent_and_covered_labels_of_the_scan(scan, source):
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


# Places of patches


def holds_structure(patch):
    (points,) = patch.points
    low, high = points.foreground_voxel.min(axis=0), points.foreground_voxel.max(axis=0)
    return bool(np.all((high >= 0) & (low < np.array(patch.image.shape))))


@pytest.mark.parametrize(("fraction", "lowest", "highest"), [(1.0, 1.0, 1.0), (0.5, 0.45, 0.75), (0.0, 0.0, 0.35)])
def test_share_of_patches_on_the_structure(tmp_path, source, fraction, lowest, highest):
    # The structure has 9 x 9 x 3 voxels; less than a third of random patches contain it.
    small = ExtremePoints.from_clicks("lesion", (CLICKS - CLICKS.mean(axis=0).astype(int)) // 5 + [12, 56, 19])
    scan = annotated(save(tmp_path / "scan.nii.gz", np.zeros(SHAPE, np.float32)))
    scan = replace(scan, annotations=(replace(scan.annotations[0], points=small),))

    on_structure = [
        holds_structure(p) for p in drawn(source(scan, annotated_fraction=fraction, roi_size=(8, 16, 16)), 120)
    ]

    assert lowest <= np.mean(on_structure) <= highest


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("voxel", [(0, 0, 0), (71, 61, 20), (79, 69, 23), (40, 0, 12)])
def test_patch_on_a_structure_contains_it_with_every_augmentation(tmp_path, source, augmentation, voxel):
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


def test_patches_are_spread_over_the_structure(scan, source):
    # The middle of the structure appears at the low end of patches, at their high end and in between.
    middles = [
        patch.points[0].foreground_voxel.mean(axis=0) / patch.image.shape
        for patch in drawn(source(scan, roi_size=(8, 16, 16)), 80)
    ]

    assert (np.min(middles, axis=0) < 0.2).all() and (np.max(middles, axis=0) > 0.8).all()


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_patch_stays_inside_a_larger_scan(tmp_path, source, fraction):
    scan = annotated(
        save(tmp_path / "scan.nii.gz", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)),
        mask_path=save(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8)),
    )

    for patch in drawn(source(scan, augmentation="flip", annotated_fraction=fraction), 40):
        assert (patch.mask == 1).all()


@pytest.mark.parametrize("roi_size", [(25, 81, 71), (30, 99, 90), (48, 32, 96)])
def test_scan_smaller_than_a_patch_is_centred_in_it(tmp_path, source, roi_size):
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


def test_share_of_masks_is_ignored_without_masks(scan, source):
    assert all(patch.mask is None for patch in drawn(source(scan, masked_share=1.0), 4))


def test_patches_are_placed_on_clicked_and_on_masked_structures(scan, source):
    mask = np.zeros(SHAPE, np.uint8)
    mask[70:73, 60:63, 20:22] = 2
    both = replace(scan, mask_path=save(scan.image_path.parent / "mask.nii.gz", mask))

    found = drawn(source(both, roi_size=(8, 8, 8)), 60)

    assert np.mean([bool((patch.mask == 2).any()) for patch in found]) == pytest.approx(0.5, abs=0.2)


def test_scan_without_structures_gives_patches_at_random_places(scan, source):
    absent = replace(scan, annotations=(), absent=("lesion",))

    assert all(patch.image.shape == (16, 32, 32) for patch in drawn(source(absent), 4))


def test_click_outside_the_coarser_grid_is_accepted(tmp_path, source):
    # 79.6 / 3 voxels are 26, and the last click lies beyond the last of them.
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


@pytest.mark.parametrize("replace_image", UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_scan_is_logged_once_and_left_out(scan, source, tmp_path, caplog, replace_image):
    replace_image(tmp_path / "other.nii.gz")
    other = annotated(tmp_path / "other.nii.gz", "other")

    assert len(drawn(source(other, scan), 20)) == 20
    assert [record.message.split(".")[0] for record in caplog.records] == ["The scan other is left out of the training"]
    assert str(tmp_path) not in caplog.text


def test_scan_with_a_missing_mask_is_left_out(scan, source, tmp_path, caplog):
    other = replace(scan, image_id="other", mask_path=tmp_path / "gone.nii.gz")

    assert len(drawn(source(other, scan), 20)) == 20
    assert "The scan other is left out of the training" in caplog.text


def test_drawing_from_many_scans_takes_the_memory_of_one(tmp_path, source, monkeypatch):
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
