"""Draw the pictures of a report as PNG."""

from __future__ import annotations

import io

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from lib.annotations.extreme_points import ExtremePoints
from lib.geometry.volume import Volume
from lib.training.record import TrainingRecord

CLICK, MASK, BACKGROUND_CLICK = "#ff5a5f", "#4cc9f0", "#b388eb"
MIN_MARGIN_MM = 20.0
NEAR_VOXELS = 1
_GREY, _BLUE = "#7f8b99", "#3d8fd1"  # readable on white and on black

# Radiological views: (normal axis, horizontal axis, vertical axis, names of the ends left, right, below, above), for
# voxel axes towards left, anterior and superior. Sagittal slices show the front on the left.
_VIEWS = ((2, 0, 1, "RLPA"), (1, 0, 2, "RLIS"), (0, 1, 2, "APIS"))


def overlay(volume: Volume, mask: np.ndarray, points: ExtremePoints | None) -> bytes:
    """Draw the outline of a mask and the clicks in the axial, coronal and sagittal slice where the mask is largest.

    Clicks near the slice are filled, others are rings. The patient's right is on the left of the picture.

    Args:
        mask: (X, Y, Z) bool; may be empty if there are clicks.
    """
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(volume.geometry.affine_ras), nib.orientations.axcodes2ornt("LAS")
    )
    image, mask = (nib.apply_orientation(array, turn) for array in (volume.array, mask))
    spacing_mm = np.empty(3)
    spacing_mm[turn[:, 0].astype(int)] = volume.geometry.spacing_mm
    clicks = {}
    if points is not None:
        shape = volume.geometry.shape
        clicks = {
            CLICK: _turned(points.foreground_voxel, turn, shape),
            BACKGROUND_CLICK: _turned(points.background_voxel, turn, shape),
        }
    low, high = _shown(np.concatenate([np.argwhere(mask), *clicks.values()]), image.shape, spacing_mm)
    dark, bright = np.percentile(image[tuple(map(slice, low, high))], (1, 99.5))
    figure = Figure(figsize=(12, 4), facecolor="black", layout="constrained")
    for (cut, across, up, ends), ax in zip(_VIEWS, figure.subplots(1, 3), strict=True):
        number = int(mask.sum(axis=(across, up)).argmax()) if mask.any() else int((low[cut] + high[cut]) // 2)
        aspect = spacing_mm[up] / spacing_mm[across]
        ax.imshow(image.take(number, axis=cut).T, cmap="gray", origin="lower", vmin=dark, vmax=bright, aspect=aspect)
        if (outline := mask.take(number, axis=cut)).any():
            grid = [np.arange(-1, n + 1) for n in outline.shape]
            ax.contour(*grid, np.pad(outline, 1).T.astype(float), levels=[0.5], colors=MASK, linewidths=1.5)
        for color, voxels in clicks.items():
            near = np.abs(voxels[:, cut] - number) <= NEAR_VOXELS
            ax.scatter(*voxels[near][:, [across, up]].T, s=28, color=color, edgecolor="black", zorder=3)
            ax.scatter(*voxels[~near][:, [across, up]].T, s=24, facecolor="none", edgecolor=color, zorder=3)
        limits = (low[across] - 0.5, high[across] - 0.5)
        ax.set_xlim(*(limits if ends[0] == "R" else limits[::-1]))
        ax.set_ylim(low[up] - 0.5, high[up] - 0.5)
        ax.set_axis_off()
        for place, end in zip(((0.03, 0.5), (0.97, 0.5), (0.5, 0.04), (0.5, 0.96)), ends, strict=True):
            text = ax.text(*place, end, color="white", fontsize=13, ha="center", va="center", transform=ax.transAxes)
            text.set_path_effects([withStroke(linewidth=3, foreground="black")])
    return _png(figure)


def _turned(points_voxel: np.ndarray, turn: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Reorient voxel indices (N, 3) as `apply_orientation` does the array."""
    turned = np.empty_like(points_voxel)
    for axis, (to, direction) in enumerate(turn):
        along = points_voxel[:, axis]
        turned[:, int(to)] = along if direction > 0 else shape[axis] - 1 - along
    return turned


def _shown(voxels: np.ndarray, shape: tuple[int, ...], spacing_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return first voxel and end of a cube around these voxels with a margin of half of their size."""
    first, last = voxels.min(axis=0), voxels.max(axis=0)
    size_mm = ((last - first + 1) * spacing_mm).max()
    half = (size_mm / 2 + max(MIN_MARGIN_MM, size_mm / 2)) / spacing_mm
    middle = (first + last) / 2
    low, high = np.floor(middle - half).astype(int), np.ceil(middle + half).astype(int) + 1
    return np.maximum(low, 0), np.minimum(high, shape)


def learning_curve(record: TrainingRecord) -> bytes:
    """Plot the score after each training, in [0, 1], with hollow markers if the candidate was not published."""
    runs = [(number, run, run.score) for number, run in enumerate(record.runs, start=1) if run.score is not None]
    figure = Figure(figsize=(9, 3), facecolor="none", layout="constrained")
    ax = figure.subplots()
    ax.set_facecolor("none")
    published = [(number, score) for number, run, score in runs if run.version is not None]
    ax.plot(*np.array(published).reshape(-1, 2).T, color=_BLUE, marker="o")
    stayed = [(number, score) for number, run, score in runs if run.version is None]
    ax.scatter(*np.array(stayed).reshape(-1, 2).T, facecolor="none", edgecolor="#d1603d")
    for number, run, score in runs:
        if run.version is not None:
            ax.annotate(
                f"v{run.version}", (number, score), xytext=(0, 7), textcoords="offset points", ha="center", color=_GREY
            )
    ax.set(ylim=(0, 1.12), xlim=(0.5, len(record.runs) + 0.5))
    ax.set_xlabel("training", color=_GREY)
    ax.set_ylabel("score", color=_GREY)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(colors=_GREY)
    for side, line in ax.spines.items():
        line.set(color=_GREY, visible=side in ("left", "bottom"))
    ax.grid(axis="y", alpha=0.3, color=_GREY)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
