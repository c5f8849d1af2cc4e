"""Makes docs/method_steps.png: the steps from six clicks to a mask, on one slice of a demo study.

python -m benchmarks.method_picture [--out docs/method_steps.png]: some ten seconds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
from scipy.special import expit

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lib.annotations.extreme_points import ExtremePoints, mask_extremes
from lib.clickmask.click_mask import features_of, segment_from_clicks
from lib.clickmask.click_mask_options import ClickMaskOptions
from lib.clickmask.intensity_model import fit, normalised
from lib.clickmask.shape_prior import extreme_point_gauge
from lib.clickmask.structure_net import shipped
from lib.demo.demo_studies import DemoStudySettings, write_demo_studies
from lib.geometry.boxes import Box
from lib.geometry.volume import load_volume
from lib.supervision.geodesics import extreme_point_geodesics

AROUND_VOXELS = 9
OPTIONS = ClickMaskOptions()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/method_steps.png"))
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as work:
        settings = DemoStudySettings(shape=(128, 128, 64), spacing_mm=(1.0, 1.0, 1.25), seed=3)
        (name,) = write_demo_studies(Path(work) / "studies", Path(work) / "truth", 1, settings)
        volume = load_volume(Path(work) / "studies" / f"{name}.nii.gz")
        truth = load_volume(Path(work) / "truth" / f"{name}.nii.gz").array > 0
    draw(volume.array, truth, volume.geometry.spacing_mm, out)


def draw(image: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float], out: Path) -> None:
    """Draw the axial slice through the middle of a structure.

    Args:
        image: (X, Y, Z).
        truth: (X, Y, Z) bool, of one component.
    """
    extremes = np.rint(mask_extremes(truth)).astype(np.int64)
    clicks = extremes.reshape(6, 3)
    points = ExtremePoints("lesion", extremes, clicks, np.empty((0, 3), dtype=np.int64))
    tight = Box.around(clicks)
    part = tight.relaxed(AROUND_VOXELS, image.shape)
    prior = OPTIONS.prior_strength * (1 - _gauge(extremes, part))
    fitted = fit(normalised(image[part.slices]), prior, weight=OPTIONS.intensity_weight, iterations=OPTIONS.iterations)
    background = np.ones(image.shape)
    background[part.slices] = expit(-fitted)
    paths = np.concatenate(extreme_point_geodesics(image, extremes, spacing_mm, background_probability=background))
    features, _, _ = features_of(image, points, spacing_mm)
    mask = segment_from_clicks(image, points, spacing_mm)

    figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), layout="constrained")
    level = (tight.start[2] + tight.stop[2]) // 2
    extent = (part.start[0] - 0.5, part.stop[0] - 0.5, part.start[1] - 0.5, part.stop[1] - 0.5)
    for axis in axes:
        axis.imshow(image[part.slices][:, :, level - part.start[2]].T, cmap="gray", origin="lower", extent=extent)
        axis.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
    _boxes_clicks_paths(axes[0], tight, clicks, paths)
    _log_odds(axes[1], prior[:, :, level - part.start[2]], extent, "1  shape prior")
    _log_odds(axes[2], fitted[:, :, level - part.start[2]], extent, "2  with the intensity model")
    start = tight.relaxed(OPTIONS.margin_voxels, image.shape).start
    learnt = shipped().log_odds(features)[:, :, level - start[2]]
    stop = (start[0] + learnt.shape[0], start[1] + learnt.shape[1])
    net_extent = (start[0] - 0.5, stop[0] - 0.5, start[1] - 0.5, stop[1] - 0.5)
    _log_odds(axes[3], learnt, net_extent, "4  structure net")
    for found, colour in ((truth, "lime"), (mask, "deepskyblue")):
        axes[4].contour(found[:, :, level].T, [0.5], colors=colour, linewidths=1.8)
    axes[4].set(title="7  mask (blue), truth (green)", xlim=extent[:2], ylim=extent[2:])
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80, bbox_inches="tight")
    print(f"{out}: {out.stat().st_size // 1000} kB")


def _gauge(extremes: np.ndarray, part: Box) -> np.ndarray:
    return extreme_point_gauge(extremes - np.array(part.start), part.shape, shrinkage=OPTIONS.shrinkage)


def _boxes_clicks_paths(axis: Axes, tight: Box, clicks: np.ndarray, paths: np.ndarray) -> None:
    for margin, style in ((0, "-"), (OPTIONS.margin_voxels, "--")):
        low = [edge - margin - 0.5 for edge in tight.start[:2]]
        size = [n + 2 * margin for n in tight.shape[:2]]
        axis.add_patch(Rectangle((low[0], low[1]), *size, fill=False, ls=style, color="white"))
    axis.plot(*paths[:, :2].T, ".", color="gold", ms=5)
    axis.plot(*clicks[:, :2].T, "o", color="red", ms=6)
    axis.set_title("clicks, boxes, 3  geodesics")


def _log_odds(axis: Axes, values: np.ndarray, extent: tuple[float, float, float, float], title: str) -> None:
    axis.imshow(values.T, cmap="RdBu", vmin=-6, vmax=6, alpha=0.55, origin="lower", extent=extent)
    axis.set_title(title)


if __name__ == "__main__":
    main()
