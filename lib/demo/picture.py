"""Draw image, clicks, geodesics, masks and truth of demo studies side by side."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from lib.annotations.extreme_points import ExtremePoints
from lib.demo.walkthrough import Outcome
from lib.geometry.volume import Volume, load_volume
from lib.metrics import dice
from lib.supervision.geodesics import extreme_point_geodesics

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402 (after the choice of a backend)

CLICK, GEODESIC, MASK, TRUTH = "#ff5a5f", "#ffd166", "#4cc9f0", "#7ae582"


def draw_outcomes(path: Path, outcomes: list[Outcome], studies_dir: Path) -> None:
    """Draw one row per study, through the slice in which its lesion is largest."""
    columns = ["six clicks, geodesics", "mask from the clicks", "automatic, after training", "truth"]
    figure, axes = plt.subplots(
        len(outcomes), len(columns), figsize=(3 * len(columns), 3 * len(outcomes)), squeeze=False, facecolor="black"
    )
    for row, outcome in zip(axes, outcomes, strict=True):
        volume = load_volume(studies_dir / f"{outcome.study}.nii.gz")
        image = volume.array
        k = int(outcome.truth.sum(axis=(0, 1)).argmax())
        for ax in row:
            ax.imshow(image[..., k].T, cmap="gray", origin="lower", vmin=0, vmax=np.percentile(image, 99.7))
            ax.set_axis_off()
        _draw_clicks(row[0], outcome, volume)
        _outline(row[1], outcome.click_mask, outcome, k, MASK)
        _outline(row[2], outcome.automatic_after, outcome, k, MASK)
        _outline(row[3], outcome.truth, outcome, k, TRUTH, score=False)
        row[0].set_title(outcome.study, color="white", fontsize=10, loc="left")
    for ax, column in zip(axes[-1], columns, strict=True):
        ax.text(0.5, -0.06, column, color="white", ha="center", va="top", transform=ax.transAxes, fontsize=10)
    figure.savefig(path, dpi=80, bbox_inches="tight", facecolor="black")
    plt.close(figure)


def _draw_clicks(ax: Axes, outcome: Outcome, volume: Volume) -> None:
    """Draw the clicks and paths of all slices."""
    if outcome.clicks_voxel is None:
        ax.text(0.5, 0.04, "never clicked", color="white", ha="center", transform=ax.transAxes, fontsize=10)
        return
    points = ExtremePoints.from_clicks("lesion", outcome.clicks_voxel)
    for voxels in extreme_point_geodesics(volume.array, points.extremes_voxel, volume.geometry.spacing_mm):
        ax.plot(voxels[:, 0], voxels[:, 1], color=GEODESIC, linewidth=1.2)
    ax.scatter(outcome.clicks_voxel[:, 0], outcome.clicks_voxel[:, 1], s=22, color=CLICK, edgecolor="black", zorder=3)


def _outline(ax: Axes, mask: np.ndarray | None, outcome: Outcome, k: int, color: str, score: bool = True) -> None:
    if mask is None:
        return
    if mask[..., k].any():
        ax.contour(mask[..., k].T, levels=[0.5], colors=color, linewidths=1.4)
    if score:
        text = f"Dice {dice(mask, outcome.truth):.2f}"
        ax.text(0.04, 0.04, text, color=color, transform=ax.transAxes, fontsize=10, weight="bold")
