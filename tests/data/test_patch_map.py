"""Maps of patches, compared with scipy and with the definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from lib.annotations.extreme_points import ExtremePoints
from lib.data.patch_map import PatchMap
from lib.geometry.boxes import Box

SCAN = (30, 26, 22)
SIZE = (14, 12, 10)
EIGHT_MIRRORS = [np.diag(signs) for signs in np.indices((2, 2, 2)).reshape(3, -1).T * 2.0 - 1]


def scan(seed=0):
    return np.random.default_rng(seed).normal(size=SCAN).astype(np.float32)


def coordinates(patch):
    """Compute voxels (3, X, Y, Z) of the scan by the definition of a patch map."""
    voxels = np.indices(patch.size).reshape(3, -1)
    return (patch.matrix @ voxels + patch.offset[:, None]).reshape(3, *patch.size)


@st.composite
def patch_maps(draw):
    """Draw maps with rotations up to 90 degrees, scaling and mirroring, anywhere around the scan."""
    angles = draw(st.tuples(*[st.floats(-90, 90)] * 3))
    scale = draw(st.floats(0.6, 1.6))
    mirror = draw(st.sampled_from(EIGHT_MIRRORS))
    corner = [draw(st.integers(-8, n)) for n in SCAN]
    matrix = scale * Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ mirror
    return PatchMap.about_centre(SIZE, corner, matrix)


cuts = st.builds(
    PatchMap.about_centre,
    st.tuples(*[st.integers(1, 15)] * 3),
    st.tuples(*[st.integers(-20, n + 5) for n in SCAN]),
    st.sampled_from(EIGHT_MIRRORS),
)


def test_rotation_does_not_move_the_centre():
    turned = PatchMap.about_centre(SIZE, (3, 4, 5), Rotation.from_euler("z", 30, degrees=True).as_matrix())

    centre = (np.array(SIZE) - 1) / 2
    np.testing.assert_allclose(turned.matrix @ centre + turned.offset, centre + (3, 4, 5))


# Voxels


@settings(deadline=None)
@given(patch_maps())
def test_sampled_is_the_linear_interpolation_of_the_scan_padded_with_0(patch):
    voxels = np.pad(scan(), 20)

    expected = ndimage.affine_transform(voxels, patch.matrix, patch.offset + 20, output_shape=SIZE, order=1)
    np.testing.assert_allclose(patch.sampled(torch.from_numpy(scan())), expected, atol=1e-4)


@settings(deadline=None)
@given(patch_maps())
def test_sampled_nearest_is_the_nearest_voxel(patch):
    where = coordinates(patch)
    labels = np.random.default_rng(0).integers(0, 7, SCAN)

    found = patch.sampled(torch.from_numpy(labels.astype(np.uint8)), nearest=True).numpy()

    nearest = np.rint(where).astype(int)
    inside = ((nearest >= 0) & (nearest < np.array(SCAN).reshape(3, 1, 1, 1))).all(axis=0)
    expected = np.zeros(SIZE)
    expected[inside] = labels[tuple(nearest[:, inside])]
    half_way = (np.abs(where % 1 - 0.5) < 1e-3).any(axis=0)
    np.testing.assert_array_equal(found[~half_way], expected[~half_way])


@settings(deadline=None)
@given(cuts)
def test_cropped_or_mirrored_patch_has_the_voxels_of_the_scan(patch):
    assert patch.is_cut
    voxels = np.pad(scan(), 40)

    expected = voxels[tuple(coordinates(patch).astype(int) + 40)]
    np.testing.assert_array_equal(patch.sampled(torch.from_numpy(scan())), expected)
    np.testing.assert_array_equal(patch.sampled(torch.from_numpy(scan()), nearest=True), expected)


@settings(deadline=None)
@given(st.sampled_from(EIGHT_MIRRORS), st.tuples(*[st.integers(-8, n) for n in SCAN]))
def test_cropping_and_interpolating_agree(mirror, corner):
    cut = PatchMap.about_centre(SIZE, corner, mirror)
    nearly = PatchMap(SIZE, cut.matrix, cut.offset + 1e-6)
    assert cut.is_cut and not nearly.is_cut
    box = Box((5, 6, 7), (20, 18, 12))

    torch.testing.assert_close(
        cut.sampled(torch.from_numpy(scan())), nearly.sampled(torch.from_numpy(scan())), rtol=0, atol=1e-4
    )
    assert torch.equal(cut.inside(box), nearly.inside(box))


@pytest.mark.parametrize("offset", [(0, 0, 0.5), (0.1, 0, 0)])
def test_patch_between_voxels_is_interpolated(offset):
    patch = PatchMap(SIZE, np.eye(3), np.array(offset))

    assert not patch.is_cut
    expected = ndimage.shift(scan(), np.negative(offset), order=1)[:14, :12, :10]
    np.testing.assert_allclose(patch.sampled(torch.from_numpy(scan())), expected, atol=1e-5)


def test_scan_of_half_precision_is_interpolated_in_single_precision():
    patch = PatchMap.about_centre(SIZE, (6, 6, 6), Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix())
    voxels = torch.from_numpy(scan()).half()

    expected = ndimage.map_coordinates(voxels.double().numpy(), coordinates(patch), order=1)
    found = patch.sampled(voxels)

    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


# Clicks and boxes


@settings(deadline=None)
@given(patch_maps(), st.tuples(*[st.integers(0, n - 1) for n in SCAN]))
def test_click_is_mapped_to_the_nearest_voxel(patch, click):
    point = patch.points(np.array(click))

    # All neighbours are farther away.
    back = patch.matrix @ (point + np.vstack([np.zeros(3), np.eye(3), -np.eye(3)])).T + patch.offset[:, None]
    distances = np.linalg.norm(back.T - click, axis=1)
    assert distances[0] <= distances.min() + 1e-9
    inside = all(0 <= v < n for v, n in zip(point, SIZE, strict=True))
    assert patch.holds(np.array(click)) == inside


@settings(deadline=None)
@given(patch_maps(), st.tuples(*[st.integers(3, n - 4) for n in SCAN]))
def test_bright_spot_at_a_click_is_at_the_mapped_click(patch, click):
    image = np.zeros(SCAN, dtype=np.float32)
    image[click] = 1
    image = ndimage.gaussian_filter(image, 2.5)

    found = patch.sampled(torch.from_numpy(image)).numpy()
    point = patch.points(np.array(click))

    if all(0 <= v < n for v, n in zip(point, SIZE, strict=True)):
        brightest = np.unravel_index(found.argmax(), SIZE)
        assert np.abs(np.subtract(brightest, point)).max() <= 1
        assert found[tuple(point)] > 0.75 * image[click]


@settings(deadline=None)
@given(cuts, st.tuples(*[st.integers(0, n - 1) for n in SCAN]))
def test_cropped_patch_has_the_clicked_voxel_at_the_mapped_click(patch, click):
    image = np.zeros(SCAN, dtype=np.float32)
    image[click] = 1

    found = np.argwhere(patch.sampled(torch.from_numpy(image)).numpy()).tolist()

    point = patch.points(np.array(click))
    assert found == ([point.tolist()] if patch.holds(np.array(click)) else [])


def test_mirroring_does_not_swap_low_and_high_ends():
    clicks = np.array([[5, 12, 9], [20, 12, 9], [12, 6, 9], [12, 18, 9], [12, 12, 4], [12, 12, 15]])
    points = ExtremePoints.from_clicks("lesion", clicks, np.array([[1, 2, 3]]))
    mirrored = PatchMap.about_centre(SIZE, (3, 4, 5), np.diag([-1.0, 1, 1]))

    moved = mirrored.clicks(points)

    assert moved.label == "lesion"
    low, high = moved.extremes_voxel[0]
    np.testing.assert_array_equal(low, mirrored.points(clicks[0]))
    np.testing.assert_array_equal(high, mirrored.points(clicks[1]))
    np.testing.assert_array_equal(moved.foreground_voxel, mirrored.points(clicks))
    np.testing.assert_array_equal(moved.background_voxel, mirrored.points(np.array([[1, 2, 3]])))


boxes = st.tuples(*[st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted) for n in SCAN]).map(
    lambda ranges: Box(tuple(a for a, _ in ranges), tuple(b for _, b in ranges))
)


@settings(deadline=None)
@given(patch_maps() | cuts, boxes)
def test_inside_agrees_with_the_coordinates(patch, box):
    where = coordinates(patch)
    start, stop = (np.array(corner).reshape(3, 1, 1, 1) for corner in (box.start, box.stop))
    in_box = ((where >= start - 0.5) & (where < stop - 0.5)).all(axis=0)
    on_its_face = (np.isclose(where, start - 0.5, atol=1e-3) | np.isclose(where, stop - 0.5, atol=1e-3)).any(axis=0)

    found = patch.inside(box).numpy()

    assert found.dtype == bool
    np.testing.assert_array_equal(found[~on_its_face], in_box[~on_its_face])


@settings(deadline=None)
@given(patch_maps() | cuts, boxes)
def test_inside_agrees_with_a_sampled_mask_of_the_box(patch, box):
    mask = np.zeros(SCAN, dtype=np.uint8)
    mask[box.slices] = 1
    half_way = (np.abs(coordinates(patch) % 1 - 0.5) < 1e-3).any(axis=0)

    found = patch.sampled(torch.from_numpy(mask), nearest=True).numpy() > 0

    np.testing.assert_array_equal(found[~half_way], patch.inside(box).numpy()[~half_way])
