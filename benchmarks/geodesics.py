"""Measure geodesics between extreme points against dijkstra3d, on the same boxes in the same run.

Run with `python -m benchmarks.geodesics`. dijkstra3d charges the voxels of a path alone, so it solves what ours
solves without the Euclidean term; "equal" is ours on that very problem, "+ Euclidean" is ours with the term. Both
search a path on one thread. Its bidirectional search is quicker than its default, but not exact: "excess" is by how
much its worst path is dearer.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import dijkstra3d
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from lib.geometry.image_geometry import Spacing
from lib.supervision.geodesics import batch_extreme_point_geodesics
from lib.supervision.shortest_paths import shortest_path

SPACING_MM = (0.5, 0.5, 1.5)
BOXES = [(40, 40, 20), (80, 80, 40), (160, 160, 80)]
N_PATCHES = 6
CONSOLE = Console(width=120)


@dataclass(frozen=True, eq=False)
class Lump:
    """An uneven lump in noise that fills its tight box: image, background probability (X, Y, Z), extreme points."""

    image: np.ndarray
    background: np.ndarray
    extremes: np.ndarray

    @classmethod
    def of(cls, shape: tuple[int, int, int], seed: int) -> Lump:
        rng = np.random.default_rng(seed)
        axes = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
        uneven = ndimage.gaussian_filter(rng.standard_normal(shape), [size / 8 for size in shape])
        level = np.sqrt(sum(axis**2 for axis in axes)) + 0.12 * uneven / uneven.std()
        blurred = ndimage.gaussian_filter((level < 0.95).astype(float), 0.7)
        image = (blurred + 0.1 * rng.standard_normal(shape)).astype(np.float32)
        logits = 12 * (level - 0.95) + 0.5 * rng.standard_normal(shape)
        ends = [_middle_of_face(level, axis, end) for axis in range(3) for end in (0, -1)]
        return cls(image, (1 / (1 + np.exp(-logits))).astype(np.float32), np.array(ends).reshape(3, 2, 3))

    def gradient(self) -> np.ndarray:
        magnitude = np.linalg.norm(np.gradient(self.image.astype(float), *SPACING_MM), axis=0)
        return magnitude / magnitude.max()

    def fields(self) -> dict[str, np.ndarray]:
        """Vertex costs of Table 1, and noise without any structure."""
        noise = np.random.default_rng(0).random(self.image.shape)
        return {"gradient": self.gradient(), "deep": self.gradient() + self.background, "noise": noise}

    def step_weight(self) -> np.ndarray:
        return np.array(SPACING_MM) / np.linalg.norm(np.array(self.image.shape) * SPACING_MM)


def _middle_of_face(level: np.ndarray, axis: int, end: int) -> np.ndarray:
    face = np.full(level.shape, np.inf)
    at = tuple(end if a == axis else slice(None) for a in range(3))
    face[at] = level[at]
    return np.array(np.unravel_index(face.argmin(), face.shape))


def least_times(runs: Mapping[str, Callable[..., object]], repeats: int) -> dict[str, float]:
    """Wall time in ms of each, run in turn, after one turn that is not counted: the least, when others ran least."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: min(column[1:]) for name, column in times.items()}


def peer_paths(fields: Sequence[np.ndarray], lumps: Sequence[Lump], pool: ThreadPoolExecutor) -> list[np.ndarray]:
    jobs = [(field, *map(tuple, ends)) for field, lump in zip(fields, lumps, strict=True) for ends in lump.extremes]
    return list(pool.map(lambda job: dijkstra3d.dijkstra(*job), jobs))


def our_paths(lumps: Sequence[Lump], deep: bool, euclidean: bool, threads: int) -> list[list[np.ndarray]]:
    spacings: list[Spacing] = [SPACING_MM] * len(lumps)
    return batch_extreme_point_geodesics(
        [lump.image for lump in lumps],
        [lump.extremes for lump in lumps],
        spacings,
        background_probabilities=[lump.background for lump in lumps] if deep else None,
        euclidean=euclidean,
        threads=threads,
    )


def batch_table(repeats: int) -> Table:
    threads = os.cpu_count() or 1
    box = "x".join(map(str, BOXES[0]))
    title = f"{3 * N_PATCHES} paths in {N_PATCHES} boxes of {box}, ours with the building of costs"
    table = Table(title=f"{title}, {threads} threads, wall time, best of {repeats}")
    for column in ("costs", "dijkstra3d ms", "equal ms", "+ Euclidean ms", "dijkstra3d / equal"):
        table.add_column(column, justify="right")
    lumps = [Lump.of(BOXES[0], seed) for seed in range(N_PATCHES)]
    with ThreadPoolExecutor(threads) as pool:
        for name in ("gradient", "deep"):
            fields = [np.asfortranarray(lump.fields()[name]) for lump in lumps]
            runs: dict[str, Callable[..., object]] = {
                "peer": partial(peer_paths, fields, lumps, pool),
                "equal": partial(our_paths, lumps, name == "deep", False, threads),
                "euclidean": partial(our_paths, lumps, name == "deep", True, threads),
            }
            ms = least_times(runs, repeats)
            times = [f"{ms[run]:.1f}" for run in ("peer", "equal", "euclidean")]
            table.add_row(name, *times, f"{ms['peer'] / ms['equal']:.1f}")
    return table


def single_table(repeats: int) -> Table:
    table = Table(title=f"one path, mean of the three axes, wall time, best of {repeats}")
    peer, ours = ("dijkstra3d ms", "bidirectional ms", "excess %"), ("equal ms", "+ Euclidean ms", "dijkstra3d / equal")
    for column in ("box", "costs", *peer, *ours):
        table.add_column(column, justify="right")
    for shape in BOXES:
        lump = Lump.of(shape, 0)
        for name, field in lump.fields().items():
            table.add_row("x".join(map(str, shape)), name, *_single_row(lump, field, repeats))
    return table


def _single_row(lump: Lump, field: np.ndarray, repeats: int) -> list[str]:
    ends = [tuple(map(tuple, pair)) for pair in lump.extremes]
    weight, theirs = lump.step_weight(), np.asfortranarray(field)
    searches: dict[str, Callable[..., np.ndarray]] = {
        "peer": lambda a, b: dijkstra3d.dijkstra(theirs, a, b),
        "equal": lambda a, b: shortest_path(field, a, b, (0, 0, 0)),
        "euclidean": lambda a, b: shortest_path(field, a, b, weight),
        "bidirectional": lambda a, b: dijkstra3d.dijkstra(theirs, a, b, bidirectional=True),
    }
    cost = {name: [field[tuple(search(*pair).T)].sum() for pair in ends] for name, search in searches.items()}
    np.testing.assert_allclose(cost["equal"], cost["peer"], rtol=1e-9)
    excess = max(np.divide(cost["bidirectional"], cost["equal"])) - 1
    totals = dict.fromkeys(searches, 0.0)
    for pair in ends:
        for name, least in least_times({name: partial(s, *pair) for name, s in searches.items()}, repeats).items():
            totals[name] += least / len(ends)
    order = ("peer", "bidirectional", "equal", "euclidean")
    peer, bidirectional, *ours = (f"{totals[name]:.2f}" for name in order)
    return [peer, bidirectional, f"{100 * excess:.2f}", *ours, f"{totals['peer'] / totals['equal']:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each method")
    repeats = parser.parse_args().repeats
    CONSOLE.print(batch_table(repeats))
    CONSOLE.print(single_table(repeats))


if __name__ == "__main__":
    main()
