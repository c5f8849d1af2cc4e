"""Geodesics between extreme points against Equation 2 written out, voxel by voxel, and SciPy's Dijkstra."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from lib.supervision.geodesics import batch_extreme_point_geodesics, extreme_point_geodesics

SPACINGS = [(1.0, 1.0, 1.0), (0.5, 0.5, 1.5), (0.8, 0.8, 6.5), (3.0, 0.4, 1.0)]
VARIANTS = {  # the rows of Table 1, and the one combination that is not in it
    "gradient": {"euclidean": False},
    "gradient + Euclidean": {},
    "deep": {"guided": True},
    "deep without Euclidean": {"euclidean": False, "guided": True},
}


def extremes_of(mask):
    """Return the low and high end along each axis, (3, 2, 3): the middle one of the outermost voxels."""
    voxels = np.argwhere(mask)
    ends = []
    for axis, face in itertools.product(range(3), (np.min, np.max)):
        outermost = voxels[voxels[:, axis] == face(voxels[:, axis])]
        ends.append(outermost[len(outermost) // 2])
    return np.array(ends).reshape(3, 2, 3)


def blob(shape=(14, 13, 10), seed=0, radius=0.36):
    """Return image, background probability and extreme points of an irregular blob."""
    rng = np.random.default_rng(seed)
    scaled = [(x - (n - 1) / 2) / (radius * n) for x, n in zip(np.indices(shape), shape, strict=True)]
    level = np.linalg.norm(scaled, axis=0) + 0.1 * rng.standard_normal(shape)
    image = ndimage.gaussian_filter((level < 1).astype(float), 0.7) + 0.1 * rng.standard_normal(shape)
    return image, 1 / (1 + np.exp(-8 * (level - 1))), extremes_of(level < 1)


def box_voxels(extremes, shape):
    """Return the voxels of the tight box that lie in the image."""
    points = extremes.reshape(-1, 3)
    low, high = np.maximum(points.min(axis=0), 0), np.minimum(points.max(axis=0), np.array(shape) - 1)
    return list(itertools.product(*(range(a, b + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True))))


def distance(one, other, spacing):
    return math.hypot(*((a - b) * s for a, b, s in zip(one, other, spacing, strict=True)))


def gradient(image, voxel, spacing):
    """Return the magnitude of the gradient per mm: central differences, one-sided at the border of the image."""
    slopes = []
    for axis in range(3):
        before, after = list(voxel), list(voxel)
        before[axis] = max(voxel[axis] - 1, 0)
        after[axis] = min(voxel[axis] + 1, image.shape[axis] - 1)
        rise, run = image[tuple(after)] - image[tuple(before)], (after[axis] - before[axis]) * spacing[axis]
        slopes.append(rise / run if run else 0.0)
    return math.hypot(*slopes)


def equation_2(image, extremes, spacing, axis, probability, euclidean):
    """Return the cost to leave each voxel of the tight box, and gamma_e (paper, Section 3.2)."""
    box, gamma_e = box_voxels(extremes, image.shape), 0.0
    steepness = {voxel: gradient(image, voxel, spacing) for voxel in box}
    gamma_g = 1 / (max(steepness.values()) or 1)
    cost = {voxel: gamma_g * steepness[voxel] for voxel in box}
    if probability is not None:
        cost = {voxel: cost[voxel] + probability[voxel] for voxel in box}
    if euclidean:
        whole_box = box_voxels(extremes - extremes.min(axis=(0, 1)), (10**6,) * 3)
        start = extremes[axis, 0] - extremes.min(axis=(0, 1))
        gamma_e = 1 / max(distance(start, voxel, spacing) for voxel in whole_box)
    return cost, gamma_e


def price(path, cost, gamma_e, spacing):
    voxels = [tuple(voxel) for voxel in path.tolist()]
    return math.fsum(cost[a] + gamma_e * distance(a, b, spacing) for a, b in itertools.pairwise(voxels))


def cheapest(source, target, cost, gamma_e, spacing):
    number = {voxel: n for n, voxel in enumerate(cost)}
    edges = []
    for di, dj, dk in itertools.product((-1, 0, 1), repeat=3):
        length = gamma_e * distance((di, dj, dk), (0, 0, 0), spacing)
        for (i, j, k), tail in number.items():
            head = number.get((i + di, j + dj, k + dk))
            if head is not None and head != tail:
                edges.append((cost[i, j, k] + length, tail, head))
    prices, tails, heads = zip(*edges, strict=True)
    graph = coo_array((prices, (tails, heads)), shape=(len(number),) * 2).tocsr()
    return dijkstra(graph, indices=number[tuple(source)])[number[tuple(target)]]


def assert_geodesics(image, extremes, spacing, probability=None, *, euclidean=True, guided=False):
    """Check for the cheapest path if both ends are in the image, one voxel if one is, and no voxel if none is."""
    probability = probability if guided else None
    paths = extreme_point_geodesics(image, extremes, spacing, background_probability=probability, euclidean=euclidean)
    for axis, (path, ends) in enumerate(zip(paths, extremes, strict=True)):
        held = [end.tolist() for end in ends if np.all((end >= 0) & (end < image.shape))]
        assert path.dtype == np.int64 and path.shape[1] == 3
        if len(held) < 2 or held[0] == held[1]:
            assert path.tolist() == held[:1]
            continue
        assert [path[0].tolist(), path[-1].tolist()] == held
        assert (np.abs(np.diff(path, axis=0)).max(axis=1) == 1).all()
        cost, gamma_e = equation_2(image, extremes, spacing, axis, probability, euclidean)
        expected = cheapest(*ends.tolist(), cost, gamma_e, spacing)
        assert price(path, cost, gamma_e, spacing) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    return paths


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_geodesics_minimise_equation_2(variant, spacing):
    image, probability, extremes = blob()

    assert_geodesics(image, extremes, spacing, probability, **VARIANTS[variant])


@pytest.mark.parametrize("variant", VARIANTS)
def test_object_at_every_border_of_the_image(variant):
    image, probability, _ = blob((7, 8, 6), seed=1)
    extremes = extremes_of(np.ones(image.shape, bool))

    assert_geodesics(image, extremes, (1, 1, 3), probability, **VARIANTS[variant])


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_clicks_in_or_around_any_small_patch(data):
    shape = data.draw(st.tuples(*[st.integers(1, 5)] * 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    image, probability = rng.integers(0, 4, shape).astype(float), rng.random(shape)
    extremes = np.sort(rng.integers(-2, np.array(shape) + 2, (3, 2, 3)), axis=1)
    variant = VARIANTS[data.draw(st.sampled_from(sorted(VARIANTS)))]

    assert_geodesics(image, extremes, (1, 0.5, 2), probability, **variant)


def horseshoe(texture):
    """Return image and mask of a textured horseshoe on a dark, even background; its open side faces high y."""
    x, y, z = np.indices((40, 36, 14))
    ring = (np.abs(np.hypot(x - 20, y - 16) - 10.5) < 3.6) & (np.abs(z - 7) < 4)
    mask = ring & ~((y > 18) & (np.abs(x - 20) < 7))
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(mask.shape), 1)
    image = ndimage.gaussian_filter(np.where(mask, 1 + texture * noise / noise.std(), 0), 0.7)
    return image, mask


@pytest.mark.parametrize("texture", [0.1, 0.2, 0.3])
def test_deep_geodesics_stay_in_the_object_where_the_gradient_leads_out_of_it(texture):
    # Paper, Fig. 2: the clicks lie on edges, so that a path around the object crosses no other edge.
    image, mask = horseshoe(texture)
    extremes, probability = extremes_of(mask), 1 - ndimage.gaussian_filter(mask.astype(float), 0.5)
    outside = {
        name: [
            float((~mask[tuple(path.T)]).mean())
            for path in extreme_point_geodesics(image, extremes, (1, 1, 1), euclidean=name != "gradient", **guide)
        ]
        for name, guide in {"gradient": {}, "deep": {"background_probability": probability}}.items()
    }

    assert max(outside["gradient"]) > 0.5
    assert outside["deep"] == [0, 0, 0]


def test_only_ratios_of_intensities_and_of_lengths_count():
    image, probability, extremes = blob(seed=2)
    expected = extreme_point_geodesics(image, extremes, (0.8, 0.8, 6.5), background_probability=probability)
    # Powers of two, so that rounding is the same.
    scaled = extreme_point_geodesics(4 * image - 8, extremes, (1.6, 1.6, 13), background_probability=probability)

    for path, same in zip(expected, scaled, strict=True):
        np.testing.assert_array_equal(path, same)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))), ids=str)
def test_axes_are_treated_alike(axes):
    image, probability, extremes = blob(seed=3)
    spacing = np.array([0.8, 1.0, 6.5])
    turned = [image.transpose(axes), extremes[list(axes)][..., list(axes)], tuple(spacing[list(axes)])]
    paths = assert_geodesics(*turned, probability.transpose(axes), guided=True)
    original = extreme_point_geodesics(image, extremes, tuple(spacing), background_probability=probability)

    for axis, path in zip(axes, paths, strict=True):
        assert len(path) == len(original[axis])


@pytest.mark.parametrize(("thickness_mm", "slices"), [(1.0, 2), (6.5, 1)])
def test_thick_slices_are_left_only_where_that_is_shorter_in_mm(thickness_mm, slices):
    # A bright bar blocks the straight path in the first slice only; the path around it in the slice is 16 mm long.
    image = np.zeros((17, 17, 2))
    image[8, 1:16, 0] = 1e-3
    extremes = np.array([[[0, 8, 0], [16, 8, 0]], [[8, 0, 0], [8, 16, 0]], [[0, 8, 0], [0, 8, 1]]])
    probability = np.where(image > 0, 1.0, 0.0)
    path = extreme_point_geodesics(
        np.zeros_like(image), extremes, (1, 1, thickness_mm), background_probability=probability
    )[0]

    assert not probability[tuple(path.T)].any()
    assert len(set(path[:, 2])) == slices


@pytest.mark.parametrize(("spacing", "takes_the_ramp_across_slices"), [((1, 1, 6.5), True), ((6.5, 1, 1), False)])
def test_the_same_rise_over_more_mm_is_the_slighter_gradient(spacing, takes_the_ramp_across_slices):
    # Two paths around a bar: where y > 8 intensity rises by 1 a slice, where y < 8 by 1 a voxel along x.
    i, j, k = np.indices((17, 17, 9))
    image = np.where(j >= 8, k, i).astype(float)
    bar = ((abs(j - 8) < 2) & (abs(i - 8) < 5)).astype(float)
    extremes = np.array([[[0, 8, 4], [16, 8, 4]], [[8, 0, 4], [8, 16, 4]], [[8, 8, 0], [8, 8, 8]]])
    path, _, _ = extreme_point_geodesics(image, extremes, spacing, euclidean=False, background_probability=bar)

    assert (path[len(path) // 2, 1] > 8) == takes_the_ramp_across_slices


def test_finer_sampling_of_the_same_image_finds_the_same_way_in_mm():
    def valley(spacing):
        x, y, z = np.meshgrid(*(np.arange(0, 24.1, s) for s in spacing), indexing="ij")
        return (y - 12 - 7 * np.sin(x / 24 * math.pi)) ** 2 + 2 * (z - 12) ** 2

    ways = []
    for spacing in ((1, 1, 1), (1, 1, 2), (0.5, 1, 1), (1, 1, 6)):
        depth = np.minimum(valley(spacing) / 40, 1)
        size = np.array(depth.shape) - 1
        middle = np.round(12 / np.array(spacing)).astype(int)
        extremes = np.tile(middle, (3, 2, 1))
        extremes[range(3), 0, range(3)], extremes[range(3), 1, range(3)] = 0, size
        path = extreme_point_geodesics(np.zeros(depth.shape), extremes, spacing, background_probability=depth)[0]
        ways.append(path * spacing)

    for way in ways[1:]:
        assert max(np.linalg.norm(ways[0] - point, axis=1).min() for point in way) < 2.0


def test_paths_in_a_uniform_image_are_straight():
    extremes = np.array([[[1, 4, 3], [9, 4, 3]], [[5, 0, 3], [5, 8, 3]], [[5, 4, 1], [5, 4, 6]]])

    for axis, path in enumerate(extreme_point_geodesics(np.full((12, 10, 8), 7), extremes, (1, 1, 2))):
        assert (np.delete(path, axis, axis=1) == np.delete(extremes[axis, 0], axis)).all()


def test_clicks_shared_between_axes():
    image, probability, _ = blob(seed=4)
    one, other = [2, 3, 4], [10, 9, 7]

    assert_geodesics(image, np.array([[one, other]] * 3), (1, 1, 2), probability, guided=True)


@pytest.mark.parametrize("axis", range(3))
def test_object_of_one_voxel_across(axis):
    image, probability, extremes = blob(seed=5)
    extremes[..., axis] = image.shape[axis] // 2

    assert_geodesics(image, extremes, (1, 1, 6.5), probability, guided=True)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("size", [1, 2])
def test_image_of_one_or_two_voxels_across(size, axis):
    image, probability, extremes = blob(seed=6)
    image, probability = (volume.take(range(5, 5 + size), axis=axis) for volume in (image, probability))
    extremes[..., axis] = (0, size - 1)

    assert_geodesics(image, extremes, (1, 1, 6.5), probability, guided=True)


@pytest.mark.parametrize(
    ("size", "clicked", "path"),
    [(5, 2, [[2, 2, 2]]), (1, 0, [[0, 0, 0]]), (4, 50, [])],
    ids=["middle of the image", "image of one voxel", "outside the patch"],
)
def test_clicks_that_all_repeat_one_voxel(size, clicked, path):
    paths = extreme_point_geodesics(np.ones((size,) * 3), np.full((3, 2, 3), clicked), (1, 1, 1))

    assert [found.tolist() for found in paths] == [path] * 3
    assert all(found.shape == (len(path), 3) for found in paths)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cut", [np.s_[5:], np.s_[:, :7], np.s_[:, :, 4:], np.s_[5:, 5:, 4:], np.s_[:3], np.s_[:1, :1]])
def test_patch_joins_the_ends_it_holds_inside_its_part_of_the_box(cut, variant):
    image, probability, extremes = blob(seed=7)
    cut = cut if isinstance(cut, tuple) else (cut,)
    offset = np.array([part.start or 0 for part in cut] + [0] * (3 - len(cut)))

    assert_geodesics(image[cut], extremes - offset, (1, 1, 2), probability[cut], **VARIANTS[variant])


@pytest.mark.parametrize("beyond", [-60, 60])
def test_cutting_a_patch_does_not_change_the_weight_of_distances(beyond):
    for seed in range(5):
        image, _, extremes = blob(seed=seed)
        extremes[2, 0 if beyond < 0 else 1, 2] = beyond
        assert_geodesics(image, extremes, (1, 1, 2))


def test_what_lies_outside_the_box_does_not_count():
    image, probability, extremes = blob(seed=8)
    expected = extreme_point_geodesics(image, extremes, (1, 1, 2), background_probability=probability)
    points = extremes.reshape(-1, 3)
    around = np.ones(image.shape, bool)  # except the neighbours, which central differences read
    around[tuple(slice(a - 1, b + 2) for a, b in zip(points.min(axis=0), points.max(axis=0), strict=True))] = False
    image[around], probability[around] = np.nan, np.nan
    paths = extreme_point_geodesics(image, extremes, (1, 1, 2), background_probability=probability)

    assert around.any()
    for path, same in zip(paths, expected, strict=True):
        np.testing.assert_array_equal(path, same)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_any_type_of_image(kind):
    image, _, extremes = blob(seed=9)
    image = np.round(20 * (image - image.min())).astype(kind)
    expected = extreme_point_geodesics(image.astype(float), extremes, (1, 1, 2))

    for path, same in zip(extreme_point_geodesics(image, extremes, (1, 1, 2)), expected, strict=True):
        np.testing.assert_array_equal(path, same)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_batch_is_each_patch_on_its_own(variant, threads):
    patches = [blob((10 + n, 12, 9), seed=n) for n in range(4)]
    spacings = [SPACINGS[n] for n in range(4)]
    options = {"euclidean": VARIANTS[variant].get("euclidean", True)}
    guides = [p if "guided" in VARIANTS[variant] and n != 2 else None for n, (_, p, _) in enumerate(patches)]
    images, _, extremes = zip(*patches, strict=True)
    together = batch_extreme_point_geodesics(
        images, extremes, spacings, background_probabilities=guides, threads=threads, **options
    )

    for image, points, spacing, guide, paths in zip(images, extremes, spacings, guides, together, strict=True):
        alone = extreme_point_geodesics(image, points, spacing, background_probability=guide, **options)
        for path, same in zip(paths, alone, strict=True):
            np.testing.assert_array_equal(path, same)


GOOD = {"image": np.ones((9, 9, 9)), "extremes_voxel": extremes_of(np.ones((9, 9, 9))), "spacing_mm": (1, 1, 1)}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"image": np.ones((1, 9, 9, 9))}, r"image has shape \(1, 9, 9, 9\); expected \(X, Y, Z\)"),
        ({"image": np.ones((9, 9, 0))}, r"image has shape \(9, 9, 0\).*no empty axis"),
        ({"image": np.full((9, 9, 9), np.nan)}, "image has values that are not finite.*replace"),
        ({"extremes_voxel": np.zeros((6, 3), int)}, r"extremes_voxel has shape \(6, 3\).*expected \(3, 2, 3\)"),
        ({"extremes_voxel": np.zeros((3, 2, 3))}, "extremes_voxel has .* type float64.*round"),
        ({"spacing_mm": (1, 1)}, r"spacing_mm is \[1.0, 1.0\]; expected three"),
        ({"spacing_mm": (1, 1, 0)}, r"spacing_mm is \[1.0, 1.0, 0.0\].*above 0"),
        ({"spacing_mm": (1, 1, np.inf)}, r"spacing_mm is \[1.0, 1.0, inf\]"),
        ({"background_probability": np.zeros((9, 9))}, r"background_probability has shape \(9, 9\).*\(9, 9, 9\)"),
        ({"background_probability": np.full((9, 9, 9), 1.5)}, r"background_probability ranges over \[1.5, 1.5\]"),
        ({"background_probability": np.full((9, 9, 9), -3.0)}, "background_probability ranges over .*softmax"),
        ({"background_probability": np.full((9, 9, 9), np.nan)}, r"background_probability ranges over \[nan, nan\]"),
    ],
)
def test_bad_argument_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        extreme_point_geodesics(**(GOOD | bad))


@pytest.mark.parametrize(
    ("arguments", "threads", "message"),
    [
        (
            ([GOOD["image"]], [], []),
            2,
            r"\[1, 0, 0, 1\] images, extremes, spacings, probabilities; expected one of each",
        ),
        (([GOOD["image"]], [np.zeros((6, 3), int)], [(1, 1, 1)]), 2, r"extremes_voxel has shape \(6, 3\)"),
        (([], [], []), 0, "threads is 0; expected at least 1"),
    ],
)
def test_bad_batch_is_named(arguments, threads, message):
    with pytest.raises(ValueError, match=message):
        batch_extreme_point_geodesics(*arguments, threads=threads)
