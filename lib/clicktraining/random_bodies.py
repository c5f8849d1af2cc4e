"""Draw random bodies of many kinds, as functions from points to inside or outside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lib.clicktraining.examples import random_rotation

Body = Callable[[np.ndarray], np.ndarray]
"""Function from points (N, 3), within about 1 of the origin, to (N,) bool."""


def random_body(rng: np.random.Generator) -> Body:
    """Draw a round or boxlike body, lump, rod, vessel, plate, shell, ring or crescent."""
    kinds = list(KINDS)
    shares = np.array([KINDS[kind] for kind in kinds])
    return kinds[rng.choice(len(kinds), p=shares / shares.sum())](rng)


def _ellipsoid(rng: np.random.Generator) -> Body:
    axes = 0.5 * _log_uniform(rng, 0.27, 1, 3)
    return lambda points: _squared(points / axes) <= 1


def _superellipsoid(rng: np.random.Generator) -> Body:
    axes, exponent = 0.5 * _log_uniform(rng, 0.27, 1, 3), rng.choice([1.2, 3, 6, 20])
    return lambda points: (np.abs(points / axes) ** exponent).sum(axis=-1) <= 1


def _lump(rng: np.random.Generator) -> Body:
    count = rng.integers(2, 7)
    centres = np.cumsum(rng.normal(0, 0.22, (count, 3)), axis=0)
    axes = rng.uniform(0.12, 0.35, (count, 1)) * _log_uniform(rng, 0.6, 1.65, (count, 3))

    def inside(points: np.ndarray) -> np.ndarray:
        return sum(np.exp(-_squared((points - c) / a)) for c, a in zip(centres, axes, strict=True)) > 0.45

    return inside


def _rod(rng: np.random.Generator, radius: tuple[float, float]) -> Body:
    line = _curve(rng, rng.choice([0, 0.5, 1.5, 3, 5], p=[0.15, 0.25, 0.25, 0.2, 0.15]))
    waves = np.sin(np.linspace(0, rng.uniform(1, 6), len(line)) + rng.uniform(0, 6))
    radii = _log_uniform(rng, *radius) * (1 + rng.uniform(0, 0.5) * waves)
    flattened = _log_uniform(rng, 0.55, 1.8, 3)
    return lambda points: _near(points / flattened, line / flattened, radii)


def _thick_rod(rng: np.random.Generator) -> Body:
    return _rod(rng, (0.07, 0.25))


def _thin_rod(rng: np.random.Generator) -> Body:
    return _rod(rng, (0.03, 0.07))


def _tree(rng: np.random.Generator) -> Body:
    """Join two or three rods at one end."""
    return _union([_branch(rng, rng.uniform(0, 5), (0.5, 1.0), (0.03, 0.12)) for _ in range(rng.integers(2, 4))])


def _body_with_processes(rng: np.random.Generator) -> Body:
    axes = 0.35 * _log_uniform(rng, 0.37, 1, 3)
    processes = [_branch(rng, rng.uniform(0, 2), (0.4, 0.9), (0.04, 0.12)) for _ in range(rng.integers(1, 5))]
    return _union([lambda points: _squared(points / axes) <= 1, *processes])


def _plate(rng: np.random.Generator) -> Body:
    radius, half_thickness = _log_uniform(rng, 0.4, 2), rng.uniform(0.03, 0.1)
    width, length = rng.uniform(0.2, 0.5), rng.uniform(0.3, 0.5)

    def inside(points: np.ndarray) -> np.ndarray:
        on_sphere = np.abs(np.sqrt(_squared(points - [0, 0, radius])) - radius) <= half_thickness
        outline = (points[:, 0] / length) ** 2 + (points[:, 1] / width) ** 2 <= 1
        return on_sphere & outline & (points[:, 2] < radius)

    return inside


def _shell(rng: np.random.Generator) -> Body:
    axes, hollow = 0.5 * _log_uniform(rng, 0.5, 1, 3), rng.uniform(0.4, 0.85)
    offset = rng.normal(0, 0.05, 3)
    return lambda points: (_squared(points / axes) <= 1) & (_squared((points - offset) / axes / hollow) > 1)


def _ring(rng: np.random.Generator) -> Body:
    """Draw a torus or a part of one."""
    thickness, squeeze, height = rng.uniform(0.06, 0.16), rng.uniform(0.5, 1), rng.uniform(0.5, 3)
    half_angle = rng.uniform(1.5, 3.2)

    def inside(points: np.ndarray) -> np.ndarray:
        x, y, z = points[:, 0], points[:, 1], points[:, 2]
        across = (np.hypot(x, y / squeeze) - 0.4) ** 2 + (z / height) ** 2
        return (across <= thickness**2) & (np.abs(np.arctan2(y, x)) < half_angle)

    return inside


def _crescent(rng: np.random.Generator) -> Body:
    axes, offset = 0.5 * _log_uniform(rng, 0.45, 1, 3), rng.normal(size=3)
    offset *= rng.uniform(0.2, 0.5) / np.linalg.norm(offset)
    other = axes * rng.uniform(0.6, 1.1)
    return lambda points: (_squared(points / axes) <= 1) & (_squared((points - offset) / other) > 1)


KINDS: dict[Callable[[np.random.Generator], Body], float] = {
    _ellipsoid: 0.10,
    _superellipsoid: 0.12,
    _lump: 0.18,
    _thick_rod: 0.13,
    _thin_rod: 0.12,
    _tree: 0.08,
    _body_with_processes: 0.10,
    _plate: 0.07,
    _shell: 0.03,
    _ring: 0.05,
    _crescent: 0.05,
}
"""Probability of each kind."""


def _branch(rng: np.random.Generator, bend: float, length: tuple[float, float], radius: tuple[float, float]) -> Body:
    line = _curve(rng, bend) @ random_rotation(rng) * rng.uniform(*length)
    radii = np.full(len(line), _log_uniform(rng, *radius))
    return lambda points: _near(points, line, radii)


def _curve(rng: np.random.Generator, bend: float, count: int = 30) -> np.ndarray:
    """Draw points (count, 3) of a smooth curve of length 1 from the origin, which turns by about `bend` radians."""
    main, other = rng.normal(size=(2, 3))
    main /= np.linalg.norm(main)
    mix, waves = rng.uniform(0, 0.5), 4 * np.pi * rng.uniform(0.3, 1.2)
    direction, points = np.array([1.0, 0.0, 0.0]), [np.zeros(3)]
    for along in np.linspace(0, 1, count)[1:]:
        axis = (main * (1 - mix) + other * mix * np.sin(waves * along)) * bend / count
        direction = direction + np.cross(axis, direction)
        direction /= np.linalg.norm(direction)
        points.append(points[-1] + direction / count)
    return np.array(points)


def _near(points: np.ndarray, line: np.ndarray, radii: np.ndarray) -> np.ndarray:
    inside = np.zeros(len(points), dtype=bool)
    for centre, radius in zip(line, radii, strict=True):
        inside |= _squared(points - centre) <= radius**2
    return inside


def _union(bodies: list[Body]) -> Body:
    return lambda points: np.any([body(points) for body in bodies], axis=0)


def _squared(vectors: np.ndarray) -> np.ndarray:
    squares: np.ndarray = np.einsum("...i,...i", vectors, vectors)
    return squares


def _log_uniform(
    rng: np.random.Generator, low: float, high: float, size: int | tuple[int, ...] | None = None
) -> np.ndarray:
    """Draw an array of a size; a scalar array () without one."""
    return np.asarray(np.exp(rng.uniform(np.log(low), np.log(high), size)))
