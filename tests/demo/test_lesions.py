"""What is drawn into the anatomy: one lesion, and structures as bright that are smaller than any lesion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label

from lib.demo.lesions import (
    BRIGHT,
    DARK,
    MOTTLE,
    REACH,
    draw_appearance,
    draw_distractors,
    draw_lesion,
    lesion_depth_mm,
)

SHAPE, SPACING_MM = (80, 80, 40), np.array([0.5, 0.5, 1.0])
AFFINE = np.diag([*SPACING_MM, 1.0])
CENTRE_MM = np.array([20.0, 20.0, 20.0])
ANATOMY = np.full(SHAPE, 0.5)


@pytest.fixture(params=range(4))
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def drawn_lesion_depth_mm(rng: np.random.Generator, radius_mm: float = 7.0) -> np.ndarray:
    return lesion_depth_mm(AFFINE, SHAPE, CENTRE_MM, radius_mm, rng)


def test_a_lesion_is_one_component_within_its_reach(rng: np.random.Generator) -> None:
    inside = drawn_lesion_depth_mm(rng) > 0

    assert label(inside, connectivity=1).max() == 1
    from_centre_mm = np.linalg.norm(np.argwhere(inside) * SPACING_MM - CENTRE_MM, axis=1)
    assert from_centre_mm.max() <= REACH * 7.0


def test_a_lesion_is_lobulated(rng: np.random.Generator) -> None:
    """Its surface lies at very different distances from its centre, other than that of a ball."""
    inside = drawn_lesion_depth_mm(rng) > 0
    surface = inside & ~ndimage.binary_erosion(inside)
    centre = np.argwhere(inside).mean(axis=0)

    from_centre_mm = np.linalg.norm((np.argwhere(surface) - centre) * SPACING_MM, axis=1)

    assert from_centre_mm.std() / from_centre_mm.mean() > 0.1


def test_a_lesion_has_texture_and_a_bright_rim_and_leaves_the_rest(rng: np.random.Generator) -> None:
    depth_mm = drawn_lesion_depth_mm(rng)

    drawn = draw_lesion(ANATOMY, AFFINE, depth_mm, rng)

    core, rim = drawn[depth_mm > 2.5], drawn[(depth_mm > 0.4) & (depth_mm < 1.0)]
    assert core.std() > 0.04
    assert rim.mean() > core.mean() + 0.02
    np.testing.assert_allclose(drawn[depth_mm < -2.0], 0.5, atol=1e-4)


def test_the_border_of_a_lesion_is_a_partial_volume(rng: np.random.Generator) -> None:
    depth_mm = drawn_lesion_depth_mm(rng)

    drawn = draw_lesion(ANATOMY, AFFINE, depth_mm, rng)

    at_border = drawn[np.abs(depth_mm) < 0.03]
    assert ((at_border > 0.6) & (at_border < 0.95)).all()


def test_distractors_are_as_bright_as_a_lesion_but_thinner(rng: np.random.Generator) -> None:
    depth_mm = drawn_lesion_depth_mm(rng)

    bright = draw_distractors(ANATOMY, AFFINE, depth_mm, rng) > 0.78  # halfway to a vessel

    assert bright.sum() * SPACING_MM.prod() > 50
    radius_mm = ndimage.distance_transform_edt(bright, sampling=SPACING_MM).max()
    # Two that overlap are thicker than one; a lesion's core ball has a radius of 4 mm or more.
    assert 0.5 < radius_mm < 3.0


def test_no_distractor_is_in_the_lesion(rng: np.random.Generator) -> None:
    depth_mm = drawn_lesion_depth_mm(rng)

    drawn = draw_distractors(ANATOMY, AFFINE, depth_mm, rng)

    np.testing.assert_allclose(drawn[depth_mm > 1.0], 0.5, atol=1e-3)


def test_varied_lesions_are_dark_or_bright_among_distractors_of_both_kinds() -> None:
    appearances = [draw_appearance("varied", np.random.default_rng(seed)) for seed in range(60)]

    darker = [DARK[0] <= a.core <= DARK[1] for a in appearances]
    brighter = [BRIGHT[0] <= a.core <= BRIGHT[1] for a in appearances]
    assert all(one != other for one, other in zip(darker, brighter, strict=True))
    assert 15 < sum(darker) < 45
    # The rim has more contrast to the tissue, about 0.6 to 0.85, than the core.
    assert all((a.rim < a.core) == dark for a, dark in zip(appearances, darker, strict=True))
    for a in appearances:
        dark, bright = a.distractors
        assert DARK[0] <= dark <= DARK[1] and BRIGHT[0] <= bright <= BRIGHT[1]


def test_a_dark_lesion_and_dark_distractors_are_darker_than_the_tissue(rng: np.random.Generator) -> None:
    depth_mm = drawn_lesion_depth_mm(rng)
    dark = draw_appearance("varied", np.random.default_rng(1))._replace(core=0.3, rim=0.2, distractors=(0.25,))

    around = draw_distractors(ANATOMY, AFFINE, depth_mm, rng, dark)
    drawn = draw_lesion(around, AFFINE, depth_mm, rng, dark)

    assert drawn[depth_mm > 2.5].mean() == pytest.approx(0.3, abs=MOTTLE)
    assert drawn[(depth_mm > 0.4) & (depth_mm < 1.0)].mean() < drawn[depth_mm > 2.5].mean()
    outside = drawn[depth_mm < -2.0]
    assert outside.min() == pytest.approx(0.25, abs=0.01) and outside.max() == pytest.approx(0.5, abs=0.01)
