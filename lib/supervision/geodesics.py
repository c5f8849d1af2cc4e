"""Compute geodesics between opposite extreme points: voxels that are foreground by six clicks.

InExtremIS: Dorent et al., MICCAI 2021, Section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from lib.geometry.boxes import Box
from lib.geometry.image_geometry import Spacing
from lib.supervision.shortest_paths import shortest_path


def extreme_point_geodesics(
    image: np.ndarray,
    extremes_voxel: np.ndarray,
    spacing_mm: Spacing,
    *,
    background_probability: np.ndarray | None = None,
    euclidean: bool = True,
) -> list[np.ndarray]:
    """Compute the three paths between opposite extreme points (paper, Section 3.2 and Table 1).

    The rows of Table 1: image gradient alone is `euclidean=False`; gradient and Euclidean distance is the
    default; deep geodesics (Eq. 2) add `background_probability`.

    The domain is the part of the tight box of all six extreme points that lies in the image. A path in a patch that
    cuts the structure may therefore cross any voxel of this part, not only voxels between the ends in the patch.
    Every term is scaled to at most 1 a voxel: gamma_g by the largest gradient inside that domain, gamma_e by the
    largest distance from the first end inside the whole tight box, so that the border of a patch does not change
    the weight of distances.

    Args:
        image: (X, Y, Z), a whole image or a patch.
        extremes_voxel: (3, 2, 3) int, [axis, low / high end, ijk] in voxels of `image`; ends may lie
            outside it.
        spacing_mm: voxel size along each axis.
        background_probability: (X, Y, Z) in [0, 1], the network's 1 - f; read inside the domain only.
        euclidean: add the length of each step in mm, times gamma_e, to its cost.

    Returns:
        For each axis the (n, 3) int64 voxels from its low to its high end. If the image holds only one of
        the two ends, that one voxel; if it holds none, an empty (0, 3) array.

    Raises:
        ValueError: an argument has a wrong shape, type or range, or the image is not finite inside the domain.
    """
    problem = _Problem.of(image, extremes_voxel, spacing_mm, background_probability, euclidean)
    return [problem.path(axis) for axis in range(3)]


def batch_extreme_point_geodesics(
    images: Sequence[np.ndarray],
    extremes_voxel: Sequence[np.ndarray],
    spacing_mm: Sequence[Spacing],
    *,
    background_probabilities: Sequence[np.ndarray | None] | None = None,
    euclidean: bool = True,
    threads: int = 2,
) -> list[list[np.ndarray]]:
    """Compute `extreme_point_geodesics` of several patches in parallel threads.

    Args:
        images, extremes_voxel, spacing_mm, background_probabilities: one item for each patch, as in
            `extreme_point_geodesics`; the patches may differ in shape.
        threads: number of searches that run at once.

    Returns:
        For each patch its three paths.

    Raises:
        ValueError: the sequences differ in length, `threads` is below 1, or `extreme_point_geodesics` refuses an item.
    """
    if background_probabilities is None:
        background_probabilities = [None] * len(images)
    counts = [len(items) for items in (images, extremes_voxel, spacing_mm, background_probabilities)]
    if len(set(counts)) > 1:
        raise ValueError(f"{counts} images, extremes, spacings, probabilities; expected one of each for every patch")
    if threads < 1:
        raise ValueError(f"threads is {threads}; expected at least 1")
    with ThreadPoolExecutor(threads) as pool:
        build = partial(_Problem.of, euclidean=euclidean)
        problems = list(pool.map(build, images, extremes_voxel, spacing_mm, background_probabilities))
        searches = [[pool.submit(problem.path, axis) for axis in range(3)] for problem in problems]
        return [[search.result() for search in patch] for patch in searches]


@dataclass(frozen=True, eq=False)
class _Problem:
    """Costs of one patch inside its path domain, and the ends to join."""

    domain: Box
    cost: np.ndarray
    ends: list[np.ndarray]
    tight_box: Box
    spacing_mm: np.ndarray
    euclidean: bool

    @classmethod
    def of(
        cls,
        image: np.ndarray,
        extremes_voxel: np.ndarray,
        spacing_mm: Spacing,
        background_probability: np.ndarray | None,
        euclidean: bool,
    ) -> _Problem:
        image, extremes, spacing = np.asarray(image), np.asarray(extremes_voxel), np.asarray(spacing_mm, np.float64)
        _check(image, extremes, spacing, background_probability)
        tight_box = Box.around(extremes.reshape(-1, 3))
        domain = tight_box.relaxed(0, image.shape)
        ends = [pair[np.all((pair >= 0) & (pair < image.shape), axis=1)] for pair in extremes]
        cost = np.zeros(domain.shape)
        if any(len(pair) == 2 for pair in ends):
            cost = _scaled_gradient(image, domain, spacing)
            if background_probability is not None:
                cost += _probability_inside(background_probability, domain)
        return cls(domain, cost, ends, tight_box, spacing, euclidean)

    def path(self, axis: int) -> np.ndarray:
        ends = self.ends[axis]
        if len(ends) < 2 or np.array_equal(ends[0], ends[1]):
            return ends[:1].astype(np.int64)
        source, target = ends - self.domain.start
        step_weight = self.spacing_mm / self._largest_distance_mm(ends[0]) if self.euclidean else np.zeros(3)
        return shortest_path(self.cost, source, target, step_weight) + self.domain.start

    def _largest_distance_mm(self, start_voxel: np.ndarray) -> float:
        """Return 1 / gamma_e (paper, Section 3.2): the distance to the farthest corner of the tight box."""
        to_low = start_voxel - self.tight_box.start
        to_high = np.array(self.tight_box.stop) - 1 - start_voxel
        return float(np.linalg.norm(np.maximum(to_low, to_high) * self.spacing_mm))


def _check(
    image: np.ndarray,
    extremes_voxel: np.ndarray,
    spacing_mm: np.ndarray,
    background_probability: np.ndarray | None,
) -> None:
    if image.ndim != 3 or image.size == 0:
        raise ValueError(f"image has shape {image.shape}; expected (X, Y, Z) with no empty axis")
    if extremes_voxel.shape != (3, 2, 3) or not np.issubdtype(extremes_voxel.dtype, np.integer):
        found = f"shape {extremes_voxel.shape} and type {extremes_voxel.dtype}"
        raise ValueError(f"extremes_voxel has {found}; expected (3, 2, 3) whole numbers; round them to voxels")
    if spacing_mm.shape != (3,) or not (np.isfinite(spacing_mm) & (spacing_mm > 0)).all():
        raise ValueError(f"spacing_mm is {spacing_mm.tolist()}; expected three finite lengths above 0")
    if background_probability is not None and np.shape(background_probability) != image.shape:
        found = f"shape {np.shape(background_probability)}"
        raise ValueError(f"background_probability has {found}; expected that of the image, {image.shape}")


def _probability_inside(background_probability: np.ndarray, domain: Box) -> np.ndarray:
    inside = np.asarray(background_probability)[domain.slices]
    lowest, highest = inside.min(), inside.max()
    if not 0 <= lowest <= highest <= 1:
        raise ValueError(
            f"background_probability ranges over [{lowest}, {highest}] between the clicks; expected [0, 1]; "
            "apply a softmax to logits and replace what is not finite"
        )
    return inside


def _scaled_gradient(image: np.ndarray, domain: Box, spacing_mm: np.ndarray) -> np.ndarray:
    """Compute gamma_g times the gradient's magnitude inside the domain (paper, Section 3.2), in [0, 1]."""
    # Central differences at the border of the domain need the neighbours outside it.
    region = domain.relaxed(1, image.shape)
    values = np.asarray(image[region.slices], np.float64)
    if not np.isfinite(values).all():
        raise ValueError("image has values that are not finite between the clicks; replace NaN and infinity first")
    magnitude = _gradient_magnitude(values, spacing_mm)[domain.shifted(-np.array(region.start)).slices]
    largest = magnitude.max()
    return magnitude / largest if largest > 0 else magnitude


def _gradient_magnitude(values: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Compute central differences in intensity per mm, one-sided at the border; 0 along an axis of one voxel."""
    squares = np.zeros(values.shape)
    for axis in range(3):
        if values.shape[axis] > 1:
            squares += np.gradient(values, spacing_mm[axis], axis=axis) ** 2
    return np.sqrt(squares)
