"""The pictures of a report, as PNG."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

from lib.annotations.store import Annotation
from lib.geometry.volume import Volume
from lib.supervision.geodesics import extreme_point_geodesics
from lib.training.record import TrainingRecord

CLICK, GEODESIC, MASK, BACKGROUND_CLICK = "#ff5a5f", "#ffd166", "#4cc9f0", "#9b5de5"


def overlay(volume: Volume, annotation: Annotation, mask: np.ndarray) -> bytes:
    """The mask's outline, the clicks and the geodesics, in the slice where the mask is largest and across it.

    Clicks and geodesics of all slices are drawn in each.

    Args:
        mask: (X, Y, Z) bool.
    """
    points = annotation.points
    low, high = points.foreground_voxel.min(axis=0), points.foreground_voxel.max(axis=0)
    margin = np.maximum(10, (high - low) // 2)
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin + 1, volume.array.shape)
    paths = extreme_point_geodesics(volume.array, points.extremes_voxel, volume.geometry.spacing_mm)
    spacing_mm = volume.geometry.spacing_mm
    figure = Figure(figsize=(9, 3), facecolor="black", layout="constrained")
    dark, bright = np.percentile(volume.array[tuple(map(slice, low, high))], (1, 99.5))
    for axis, ax in zip((2, 1, 0), figure.subplots(1, 3), strict=True):
        across, up = (other for other in range(3) if other != axis)
        others = tuple(other for other in range(3) if other != axis)
        number = int(mask.sum(axis=others).argmax())
        image = volume.array.take(number, axis=axis).T
        ax.imshow(
            image, cmap="gray", origin="lower", vmin=dark, vmax=bright, aspect=spacing_mm[up] / spacing_mm[across]
        )
        if (outline := mask.take(number, axis=axis)).any():
            ax.contour(outline.T, levels=[0.5], colors=MASK, linewidths=1.3)
        for path in paths:
            ax.plot(path[:, across], path[:, up], color=GEODESIC, linewidth=1)
        for clicks, color in ((points.foreground_voxel, CLICK), (points.background_voxel, BACKGROUND_CLICK)):
            ax.scatter(clicks[:, across], clicks[:, up], s=16, color=color, edgecolor="black", zorder=3)
        ax.set_xlim(low[across] - 0.5, high[across] - 0.5)
        ax.set_ylim(low[up] - 0.5, high[up] - 0.5)
        ax.set_axis_off()
    return _png(figure)


def learning_curve(record: TrainingRecord) -> bytes:
    """The score after each training, in [0, 1]; hollow where the published model stayed."""
    runs = [(number, run, run.score) for number, run in enumerate(record.runs, start=1) if run.score is not None]
    figure = Figure(figsize=(7, 3), layout="constrained")
    ax = figure.subplots()
    published = [(number, score) for number, run, score in runs if run.version is not None]
    ax.plot(*np.array(published).reshape(-1, 2).T, color="#1d7cb8", marker="o")
    stayed = [(number, score) for number, run, score in runs if run.version is None]
    ax.scatter(*np.array(stayed).reshape(-1, 2).T, facecolor="none", edgecolor="#b83a1d")
    for number, run, score in runs:
        if run.version is not None:
            ax.annotate(f"v{run.version}", (number, score), xytext=(0, 6), textcoords="offset points", ha="center")
    ax.set(xlabel="training", ylabel="score", ylim=(0, 1.08))
    ax.grid(alpha=0.3)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
