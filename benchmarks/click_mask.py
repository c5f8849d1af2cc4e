"""The mask from six extreme points: Dice of several methods and options on several scans, and time.

Run with `python -m benchmarks.click_mask`; `--brain1 FOLDER` adds a real scan (image.nrrd and label.nrrd), `--sweep`
tables of other values of each option. The clicks are those of the scripted annotator, on the largest component.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
import torchio as tio
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import ndimage
from scipy.special import expit
from skimage.segmentation import random_walker
from sklearn.mixture import GaussianMixture

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import largest_component, simulated_extreme_points
from lib.demo.studies import DemoStudySettings, make_demo_study
from lib.demo.walkthrough import dice
from lib.refinement.cold_start import ColdStartOptions, segment_from_clicks
from lib.refinement.graph_cut import graph_cut
from lib.refinement.intensity_model import normalised
from lib.refinement.shape_prior import extreme_point_gauge
from lib.supervision.boxes import Box
from lib.supervision.geodesics import extreme_point_geodesics

CONSOLE = Console(width=140)
DEMO = {
    "1 mm": DemoStudySettings((64, 64, 64), (1.0, 1.0, 1.0)),
    "0.5 mm": DemoStudySettings(),
    "6.5 mm": DemoStudySettings((80, 80, 10), (0.9, 0.9, 6.5), (10.0, 20.0)),
}
SWEEP: dict[str, Sequence[float]] = {
    "margin_voxels": (0, 1, 4),
    "context": (0.1, 0.25, 0.5),
    "prior_strength": (3.0, 4.0, 6.0, 8.0),
    "shrinkage": (0.0, 0.15, 0.45),
    "intensity_weight": (0.5, 1.0, 1.6),
    "iterations": (0, 1, 2, 6),
    "geodesic_log_odds": (0.0, 3.0),
    "smoothness": (0.5, 2.0, 3.0, 5.0, 8.0),
    "smallest_share": (0.0, 0.7, 0.8),
    "contrast": (0.5, 0.7, 1.4),
}
CORRECTIVE_SWEEP: dict[str, Sequence[float]] = {
    "click_log_odds": (4.0, 16.0),
    "click_reach": (0.5, 1.0),
    "click_tolerance": (0.05, 0.2),
}


class Scan(NamedTuple):
    image: np.ndarray
    truth: np.ndarray
    spacing_mm: tuple[float, float, float]


Method = Callable[[np.ndarray, ExtremePoints, tuple[float, float, float]], np.ndarray]


# --- Scans


def demo_scans(settings: DemoStudySettings, count: int) -> list[Scan]:
    scans = []
    for index in range(count):
        image, truth = make_demo_study(index, settings)
        x, y, z = (float(s) for s in image.header.get_zooms())
        scans.append(Scan(np.asarray(image.dataobj, np.float32), np.asarray(truth.dataobj) > 0, (x, y, z)))
    return scans


def hollow(scan: Scan) -> Scan:
    """With a core that is 40 % darker than the rim, which is about 3.5 mm wide in each slice."""
    depth_mm = ndimage.distance_transform_edt(scan.truth, sampling=(*scan.spacing_mm[:2], 1e3))
    return scan._replace(image=scan.image * (1 - 0.4 * expit(2 * (depth_mm - 3.5))))


def noisy(scan: Scan) -> Scan:
    """With noise of a tenth of white matter's intensity."""
    return scan._replace(image=scan.image + np.random.default_rng(0).normal(0, 80, scan.image.shape))


def brain1_scans(folder: Path) -> dict[str, list[Scan]]:
    """The larger component, on the voxels as stored and on such of 1 mm."""
    image, label = tio.ScalarImage(folder / "image.nrrd"), tio.LabelMap(folder / "label.nrrd")
    truth = largest_component(label.data[0].numpy() > 0)
    as_float = tio.ScalarImage(tensor=torch.from_numpy(truth[None].astype(np.float32)), affine=label.affine)
    fine = tio.Resample(1.0)(tio.Subject(image=image, truth=as_float))
    x, y, z = (float(s) for s in image.spacing)
    stored = Scan(image.data[0].float().numpy(), truth, (x, y, z))
    resampled = Scan(fine.image.data[0].numpy(), largest_component(fine.truth.data[0].numpy() > 0.5), (1.0, 1.0, 1.0))
    dark = stored._replace(image=stored.image.max() - stored.image)
    return {"brain1": [stored], "brain1 inverted": [dark], "brain1 1 mm": [resampled]}


# --- Methods


def bounding_box(image: np.ndarray, points: ExtremePoints, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    mask = np.zeros(image.shape, dtype=bool)
    mask[Box.around(points.foreground_voxel).slices] = True
    return mask


def inscribed_ellipsoid(image: np.ndarray, points: ExtremePoints, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    box = Box.around(points.foreground_voxel)
    grid = np.ogrid[tuple(slice(n) for n in image.shape)]
    middle = (np.array(box.start) + box.stop - 1) / 2
    return sum(((g - c) / (n / 2)) ** 2 for g, c, n in zip(grid, middle, box.shape, strict=True)) <= 1


def shape_prior(image: np.ndarray, points: ExtremePoints, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    return extreme_point_gauge(points.extremes_voxel, image.shape, shrinkage=ColdStartOptions().shrinkage) <= 1


def seeds_and_values(
    image: np.ndarray, points: ExtremePoints, spacing_mm: tuple[float, float, float]
) -> tuple[Box, np.ndarray, np.ndarray]:
    """A crop, its normalised intensities, and its seeds: 1 the geodesics, 2 outside the relaxed box, else 0."""
    tight = Box.around(points.foreground_voxel)
    crop, relaxed = tight.relaxed(6, image.shape), tight.relaxed(2, image.shape)
    values = normalised(image[crop.slices])
    seeds = np.full(crop.shape, 2)
    seeds[relaxed.shifted(-np.array(crop.start)).slices] = 0
    for path in extreme_point_geodesics(values, points.extremes_voxel - np.array(crop.start), spacing_mm):
        seeds[tuple(path.T)] = 1
    return crop, values, seeds


def walk_from_geodesics(image: np.ndarray, points: ExtremePoints, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    crop, values, seeds = seeds_and_values(image, points, spacing_mm)
    mask = np.zeros(image.shape, dtype=bool)
    mask[crop.slices] = random_walker(values, seeds, beta=130, mode="cg_j", tol=1e-4, spacing=spacing_mm) == 1
    return mask


def cut_from_geodesics(image: np.ndarray, points: ExtremePoints, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The likelihoods of the seeds' intensities, as in Boykov and Jolly (2001), and a graph cut."""
    crop, values, seeds = seeds_and_values(image, points, spacing_mm)
    (a, s), (b, t) = ((values[seeds == k].mean(), values[seeds == k].std() + 1e-3) for k in (1, 2))
    log_odds = np.log(t / s) - (values - a) ** 2 / (2 * s**2) + (values - b) ** 2 / (2 * t**2)
    log_odds[seeds == 1], log_odds[seeds == 2] = np.inf, -np.inf
    mask = np.zeros(image.shape, dtype=bool)
    mask[crop.slices] = graph_cut(log_odds, values, spacing_mm, smoothness=2.0, contrast=0.1)
    return mask


def click_mask(**options: Any) -> Method:
    chosen = replace(ColdStartOptions(), **options)
    return lambda image, points, spacing_mm: segment_from_clicks(image, points, spacing_mm, options=chosen)


def gaussian_mixture_fit(
    values: np.ndarray, prior_log_odds: np.ndarray, *, weight: float, iterations: int
) -> np.ndarray:
    """`fit` with three Gaussians a side instead of histograms, from voxels drawn by their probability."""
    rng, flat, log_odds = np.random.default_rng(0), values.reshape(-1, 1), prior_log_odds
    for _ in range(iterations):
        inside = expit(log_odds).ravel().astype(np.float64)
        scores = []
        for side in (inside, 1 - inside):
            drawn = flat[rng.choice(len(flat), 2000, p=side / side.sum())]
            mixture = GaussianMixture(3, random_state=0, reg_covar=1e-4).fit(drawn)
            scores.append(mixture.score_samples(flat).reshape(values.shape))
        log_odds = prior_log_odds + weight * np.clip(scores[0] - scores[1], -5, 5)
    return np.array(log_odds, dtype=np.float32)


def with_gaussian_mixtures(
    image: np.ndarray, points: ExtremePoints, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    with patch("lib.refinement.cold_start.fit", gaussian_mixture_fit):
        return segment_from_clicks(image, points, spacing_mm)


METHODS: dict[str, Method] = {
    "bounding box": bounding_box,
    "inscribed ellipsoid": inscribed_ellipsoid,
    "shape prior alone": shape_prior,
    "random walker from geodesics": walk_from_geodesics,
    "graph cut from geodesics": cut_from_geodesics,
    "click mask": click_mask(),
    "- without shape prior": click_mask(prior_strength=0.0),
    "- without intensity model": click_mask(intensity_weight=0.0),
    "- with Gaussian mixtures": with_gaussian_mixtures,
    "- without smoothness": click_mask(smoothness=0.0),
}


# --- Scores


def cases(scans: Sequence[Scan], seeds: int, error_voxels: float) -> Iterator[tuple[Scan, ExtremePoints]]:
    for index, scan in enumerate(scans):
        for seed in range(seeds):
            clicks = simulated_extreme_points(scan.truth, np.random.default_rng([seed, index]), error_voxels)
            if np.ptp(clicks, axis=0).all():  # as requests are checked
                yield scan, ExtremePoints.from_clicks("lesion", clicks)


def scores(method: Method, scans: Sequence[Scan], seeds: int, error_voxels: float = 0.0) -> list[float]:
    return [
        dice(method(scan.image, points, scan.spacing_mm), scan.truth)
        for scan, points in cases(scans, seeds, error_voxels)
    ]


def cell(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} / {min(values):.3f}"


def seconds(method: Method, scan: Scan, points: ExtremePoints, repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        method(scan.image, points, scan.spacing_mm)
        times.append(time.perf_counter() - start)
    return min(times)


def seeds_of(name: str, brain_seeds: int) -> int:
    return brain_seeds if name.startswith("brain1") else 1


def method_table(data: dict[str, list[Scan]], brain_seeds: int) -> Table:
    table = Table("Dice, mean / min", *data, "s", title="exact clicks")
    first = next(iter(data.values()))[0]
    points = next(cases([first], 1, 0.0))[1]
    for name, method in track(METHODS.items(), "methods", console=CONSOLE, transient=True):
        seeds = {
            n: min(seeds_of(n, brain_seeds), 10 if method is not METHODS["click mask"] else brain_seeds) for n in data
        }
        cells = [cell(scores(method, scans, seeds[n])) for n, scans in data.items()]
        table.add_row(name, *cells, f"{seconds(method, first, points):.3f}")
    return table


def hand_table(data: dict[str, list[Scan]], brain_seeds: int) -> Table:
    table = Table("deviation of the hand, voxels", *data, title="click mask, clicks with a hand's error")
    for error in (0.5, 1.0, 2.0):
        cells = [cell(scores(click_mask(), scans, seeds_of(n, brain_seeds), error)) for n, scans in data.items()]
        table.add_row(f"{error}", *cells)
    return table


def sweep_table(data: dict[str, list[Scan]]) -> Table:
    demo = [scans for name, scans in data.items() if not name.startswith("brain1")]
    brain = data.get("brain1", [])
    table = Table(
        "option", "value", "demo", "demo, 1 voxel off", "demo, 2 voxels off", "brain1", title="one option changed"
    )
    variants = [(name, value) for name, values in SWEEP.items() for value in values]
    for name, value in track([("as they are", None), *variants], "options", console=CONSOLE, transient=True):
        method = click_mask() if value is None else click_mask(**{name: value})
        cells = [cell([s for scans in demo for s in scores(method, scans, 1, error)]) for error in (0.0, 1.0, 2.0)]
        table.add_row(
            name, "" if value is None else f"{value:g}", *cells, cell(scores(method, brain, 5)) if brain else ""
        )
    return table


# --- Corrective clicks


def deepest(wrong: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray | None:
    """The voxel in the middle of the largest part of what is wrong; None if that has fewer than 8 voxels."""
    if not wrong.any():
        return None
    part = largest_component(wrong)
    depth_mm = ndimage.distance_transform_edt(np.pad(part, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    return np.array(np.unravel_index(depth_mm.argmax(), depth_mm.shape)) if part.sum() >= 8 else None


def gains(method: Method, scans: Sequence[Scan], error_voxels: float) -> dict[str, list[float]]:
    """By how much one click in the middle of the largest error changes Dice."""
    changes: dict[str, list[float]] = {"foreground": [], "background": []}
    for scan, points in cases(scans, 1, error_voxels):
        before = method(scan.image, points, scan.spacing_mm)
        for kind, wrong in (("foreground", scan.truth & ~before), ("background", before & ~scan.truth)):
            click = deepest(wrong, scan.spacing_mm)
            if click is None or click.tolist() in points.foreground_voxel.tolist():
                continue
            more = {"foreground": points.foreground_voxel, "background": points.background_voxel}
            more[kind] = np.concatenate([more[kind], click[None]])
            corrected = ExtremePoints.from_clicks("lesion", more["foreground"], more["background"])
            after = method(scan.image, corrected, scan.spacing_mm)
            changes[kind].append(dice(after, scan.truth) - dice(before, scan.truth))
    return changes


def correction_table(data: dict[str, list[Scan]], sweep: bool) -> Table:
    table = Table(
        "option",
        "value",
        "kind",
        "clicks",
        "mean",
        "worst",
        "worse than -0.001",
        title="one corrective click: change of Dice",
    )
    variants = [(name, value) for name, values in CORRECTIVE_SWEEP.items() for value in values] if sweep else []
    for name, value in track([("as they are", None), *variants], "corrections", console=CONSOLE, transient=True):
        method = click_mask() if value is None else click_mask(**{name: value})
        found: dict[str, list[float]] = {"foreground": [], "background": []}
        for scans in data.values():
            for error in (0.0, 1.0):
                for kind, values in gains(method, scans, error).items():
                    found[kind] += values
        for kind, values in found.items():
            worse = sum(v < -0.001 for v in values) / len(values)
            row = (kind, str(len(values)), f"{statistics.mean(values):+.3f}", f"{min(values):+.3f}", f"{worse:.0%}")
            table.add_row(name, "" if value is None else f"{value:g}", *row)
    return table


# --- A trained network


def simulated_networks(scan: Scan) -> dict[str, np.ndarray]:
    """Probabilities of a network that is right, that sees nothing, half of the structure, or 3 voxels too much."""
    sigma = 1.5 * min(scan.spacing_mm) / np.asarray(scan.spacing_mm)
    middle = np.argwhere(scan.truth)[:, 0].mean()
    half = scan.truth & (np.arange(scan.truth.shape[0]) < middle)[:, None, None]
    masks = {"right": scan.truth, "blank": np.zeros_like(scan.truth), "half": half}
    masks["too large"] = ndimage.binary_dilation(scan.truth, iterations=3)
    return {name: ndimage.gaussian_filter(mask.astype(np.float32), sigma) for name, mask in masks.items()}


def network_table(data: dict[str, list[Scan]]) -> Table:
    table = Table("network", title="clicks and a simulated network, clicks 1 voxel off: mean Dice, demo and brain1")
    found: dict[str, dict[str, list[float]]] = {}
    for scan, points in [case for scans in data.values() for case in cases(scans[:3], 1, 1.0)]:
        for name, probability in simulated_networks(scan).items():
            row = found.setdefault(name, {})
            row.setdefault("network alone", []).append(dice(probability > 0.5, scan.truth))
            row.setdefault("clicks alone", []).append(
                dice(click_mask()(scan.image, points, scan.spacing_mm), scan.truth)
            )
            for confidence in (0.8, 0.9, 0.95, 0.98):
                mask = segment_from_clicks(
                    scan.image,
                    points,
                    scan.spacing_mm,
                    foreground_probability=probability,
                    options=ColdStartOptions(network_confidence=confidence),
                )
                row.setdefault(f"confidence {confidence}", []).append(dice(mask, scan.truth))
    for column in next(iter(found.values())):
        table.add_column(column)
    for name, row in found.items():
        table.add_row(name, *(f"{statistics.mean(values):.3f}" for values in row.values()))
    return table


# --- Speed


def phantom(extent: tuple[int, int, int], shape: tuple[int, int, int] = (256, 256, 100)) -> Scan:
    """A bumpy ellipsoid in texture and noise."""
    rng = np.random.default_rng(0)
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    radius = np.sqrt(sum(((g - n // 2) / (e / 2)) ** 2 for g, n, e in zip(grid, shape, extent, strict=True)))
    bumps, texture = (ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma) for sigma in (4, 1))
    truth = largest_component(radius + 0.05 * bumps / bumps.std() < 1)
    image = 300 * truth + 400 * texture + rng.normal(500, 50, shape)
    return Scan(image.astype(np.float32), truth, (0.9, 0.9, 1.5))


def speed_table() -> Table:
    table = Table("structure", "max_voxels", "s, best of 5", "Dice", title="256 x 256 x 100 voxels")
    for extent in ((60, 60, 30), (150, 150, 70)):
        scan = phantom(extent)
        points = next(cases([scan], 1, 0.0))[1]
        for max_voxels in (100_000, ColdStartOptions().max_voxels, 1_000_000, 10_000_000):
            method = click_mask(max_voxels=max_voxels)
            took = seconds(method, scan, points, repeats=5)
            score = dice(method(scan.image, points, scan.spacing_mm), scan.truth)
            table.add_row("x".join(map(str, extent)), f"{max_voxels:,}", f"{took:.2f}", f"{score:.3f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--brain1", type=Path, help="folder of image.nrrd and label.nrrd")
    parser.add_argument("--sweep", action="store_true", help="also vary each option")
    parser.add_argument("--studies", type=int, default=6, help="demo studies of each kind")
    parser.add_argument("--seeds", type=int, default=50, help="choices of extreme points on brain1")
    arguments = parser.parse_args()
    plain = {f"demo {name}": demo_scans(settings, arguments.studies) for name, settings in DEMO.items()}
    data = dict(plain)
    data["demo hollow"] = [hollow(scan) for scans in plain.values() for scan in scans[:3]]
    data["demo noisy"] = [noisy(scan) for scans in plain.values() for scan in scans[:3]]
    if arguments.brain1:
        data |= brain1_scans(arguments.brain1)
    CONSOLE.print(method_table(data, arguments.seeds))
    CONSOLE.print(hand_table(data, min(arguments.seeds, 20)))
    CONSOLE.print(correction_table(data, arguments.sweep))
    CONSOLE.print(speed_table())
    if arguments.sweep:
        CONSOLE.print(network_table(data))
        CONSOLE.print(sweep_table(data))


if __name__ == "__main__":
    main()
