"""Geodesics between opposite extreme points: which voxels of a structure are known from six clicks.

InExtremIS: Dorent et al., MICCAI 2021, Section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from lib.supervision.boxes import Box
from lib.supervision.shortest_paths import shortest_path

__all__ = ["Formulation", "batch_extreme_point_geodesics", "extreme_point_geodesics", "shortest_path"]

Formulation = Literal["paper", "public_code"]
Spacing = tuple[float, float, float]


def extreme_point_geodesics(
    image: np.ndarray,
    extremes_voxel: np.ndarray,
    spacing_mm: Spacing,
    *,
    background_probability: np.ndarray | None = None,
    euclidean: bool = True,
    formulation: Formulation = "paper",
) -> list[np.ndarray]:
    """The three paths between opposite extreme points (paper, Section 3.2 and Table 1).

    The rows of Table 1: image gradient alone is `euclidean=False`; gradient and Euclidean distance is the
    default; deep geodesics (Eq. 2) add `background_probability`.

    The domain is the tight box of all six extreme points, as far as it lies in the image. In a patch that
    cuts the structure a path may thus pass wherever the structure may be, not only between the ends that
    the patch holds. Every term is scaled to at most 1 a voxel: gamma_g by the largest gradient inside that
    domain, gamma_e by the largest distance from the first end inside the whole tight box, so that a patch's
    border does not change the weight of distances.

    Args:
        image: (X, Y, Z), a whole image or a patch.
        extremes_voxel: (3, 2, 3) int, [axis, low / high end, ijk] in voxels of `image`; ends may lie
            outside it.
        spacing_mm: voxel size along each axis.
        background_probability: (X, Y, Z) in [0, 1], the network's 1 - f.
        euclidean: whether distances count.
        formulation: `paper`: the length of the path in mm weighs each step, and the gradient is a central
            difference in intensity per mm. `public_code` (the authors' repository): each voxel costs its
            distance to the path's last end in voxels, scaled to [0, 1] over the domain, and the gradient is
            a Sobel magnitude in voxels.

    Returns:
        For each axis the (n, 3) int64 voxels from its low to its high end. When the image holds only one of
        the two ends, that one voxel; when it holds none, an empty (0, 3) array.

    Raises:
        ValueError: an argument of another shape or range; it says which.
    """
    problem = _Problem.of(image, extremes_voxel, spacing_mm, background_probability, euclidean, formulation)
    return [problem.path(axis) for axis in range(3)]


def batch_extreme_point_geodesics(
    images: Sequence[np.ndarray],
    extremes_voxel: Sequence[np.ndarray],
    spacing_mm: Sequence[Spacing],
    *,
    background_probabilities: Sequence[np.ndarray | None] | None = None,
    euclidean: bool = True,
    formulation: Formulation = "paper",
    threads: int = 2,
) -> list[list[np.ndarray]]:
    """`extreme_point_geodesics` of several patches, searched side by side.

    Args:
        images, extremes_voxel, spacing_mm, background_probabilities: one item a patch, each as in
            `extreme_point_geodesics`; the patches may differ in shape.
        threads: searches that run at once; more than there are cores gains nothing.

    Returns:
        For each patch its three paths.

    Raises:
        ValueError: sequences of different lengths, or an item that `extreme_point_geodesics` refuses.
    """
    if background_probabilities is None:
        background_probabilities = [None] * len(images)
    counts = [len(items) for items in (images, extremes_voxel, spacing_mm, background_probabilities)]
    if len(set(counts)) > 1:
        raise ValueError(f"{counts} images, extremes, spacings, probabilities; expected one of each a patch")
    with ThreadPoolExecutor(threads) as pool:
        problems = list(
            pool.map(
                lambda patch: _Problem.of(*patch, euclidean, formulation),
                zip(images, extremes_voxel, spacing_mm, background_probabilities, strict=True),
            )
        )
        paths = list(pool.map(lambda job: job[0].path(job[1]), [(p, axis) for p in problems for axis in range(3)]))
    return [paths[3 * n : 3 * n + 3] for n in range(len(problems))]


@dataclass(frozen=True, eq=False)
class _Problem:
    """The costs of one patch inside its path domain, and the ends to join."""

    domain: Box
    cost: np.ndarray
    ends: list[np.ndarray]
    tight_box: Box
    spacing_mm: np.ndarray
    euclidean: bool
    formulation: Formulation

    @classmethod
    def of(cls, image, extremes_voxel, spacing_mm, background_probability, euclidean, formulation):  # type: ignore
        image = np.asarray(image)
        extremes = np.asarray(extremes_voxel)
        if image.ndim != 3:
            raise ValueError(f"image has shape {image.shape}; expected (X, Y, Z)")
        if extremes.shape != (3, 2, 3):
            raise ValueError(f"extremes_voxel has shape {extremes.shape}; expected (3, 2, 3)")
        tight_box = Box.around(extremes.reshape(-1, 3))
        start = np.maximum(tight_box.start, 0)
        stop = np.maximum(np.minimum(tight_box.stop, image.shape), start)
        domain = Box(tuple(int(n) for n in start), tuple(int(n) for n in stop))
        ends = [pair[np.all((pair >= 0) & (pair < image.shape), axis=1)] for pair in extremes]
        cost = np.zeros(domain.shape)
        if cost.size and any(len(pair) == 2 for pair in ends):
            cost = _scaled_gradient(image, domain, spacing_mm, formulation)
            if background_probability is not None:
                cost = cost + np.asarray(background_probability)[domain.slices]
        return cls(domain, cost, ends, tight_box, np.asarray(spacing_mm, float), euclidean, formulation)

    def path(self, axis: int) -> np.ndarray:
        ends = self.ends[axis]
        if len(ends) < 2 or np.array_equal(ends[0], ends[1]):
            return ends[:1].astype(np.int64)
        source, target = ends - self.domain.start
        cost, step_weight = self.cost, np.zeros(3)
        if self.euclidean and self.formulation == "paper":
            step_weight = self.spacing_mm / self._largest_distance_mm(ends[0])
        elif self.euclidean:
            cost = cost + _scaled_distance_to(target, self.domain.shape)
        return shortest_path(cost, source, target, step_weight) + self.domain.start

    def _largest_distance_mm(self, start_voxel: np.ndarray) -> float:
        to_low = start_voxel - np.array(self.tight_box.start)
        to_high = np.array(self.tight_box.stop) - 1 - start_voxel
        return float(np.linalg.norm(np.maximum(to_low, to_high) * self.spacing_mm))


def _scaled_gradient(image, domain, spacing_mm, formulation):  # type: ignore
    region = domain.relaxed(1, image.shape)
    inner = tuple(slice(a - b, c - b) for a, b, c in zip(domain.start, region.start, domain.stop, strict=True))
    values = np.asarray(image[region.slices], np.float64)
    if formulation == "public_code":
        magnitude = ndimage.generic_gradient_magnitude(values, ndimage.sobel)
    else:
        axes = [axis for axis in range(3) if values.shape[axis] > 1]
        magnitude = np.sqrt(sum(np.gradient(values, spacing_mm[a], axis=a) ** 2 for a in axes))
    magnitude = magnitude[inner]
    largest = magnitude.max()
    return magnitude / largest if largest > 0 else magnitude


def _scaled_distance_to(target: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    distance = np.sqrt(sum((axis - t) ** 2 for axis, t in zip(np.ogrid[tuple(map(slice, shape))], target, strict=True)))
    return distance / distance.max()
