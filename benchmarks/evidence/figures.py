"""Draw scores and masks: box plots, overlays (the paper's Fig. 3), Dice against annotation time (Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: a server has no display
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.evidence.dataset import Dataset
from benchmarks.evidence.rows import ROWS
from benchmarks.evidence.scores import CaseScore, by_case
from benchmarks.evidence.training import Run
from lib.geometry.volume import Volume, load_volume

MEASURES = {"dice": "Dice", "hd95_mm": "HD95 (mm)", "precision": "precision"}
OVERLAY_CASES, OVERLAY_COLUMNS = 3, 8
SECONDS_AN_HOUR = 3600


def box_plots(scores: Mapping[str, Sequence[CaseScore]], path: Path) -> None:
    """Plot a box for each row and measure over the cases, each the mean of its seeds; a dot for each case."""
    names = [name for name in ROWS if scores.get(name)]
    figure, axes = plt.subplots(1, 3, figsize=(15, 1 + 0.4 * len(names)), sharey=True, layout="constrained")
    for panel, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        values = [list(by_case(scores[name], measure).values()) for name in names]
        panel.boxplot(values, orientation="horizontal", showfliers=False)
        for position, of_row in enumerate(values, start=1):
            panel.plot(of_row, [position] * len(of_row), ".", color="C0", alpha=0.4)
        panel.set_title(title)
        panel.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(1, len(names) + 1), [ROWS[name].title for name in names])
    axes[0].invert_yaxis()
    _save(figure, path)


def overlays(dataset: Dataset, runs: Sequence[Run], path: Path) -> None:
    """Draw the same slices for all rows, those with most of the truth: masks green, truth blue."""
    cases = dataset.cases["test"][:OVERLAY_CASES]
    ordered = sorted(runs, key=lambda run: list(ROWS).index(run.name))
    blocks = [ordered[start : start + OVERLAY_COLUMNS] for start in range(0, len(ordered), OVERLAY_COLUMNS)]
    shape = len(blocks) * len(cases), min(len(runs), OVERLAY_COLUMNS)
    size = (1.8 * shape[1], 1.8 * shape[0] + 0.3 * len(blocks))
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    for panel in axes.flat:
        panel.set_axis_off()
    panels = axes.reshape(len(blocks), len(cases), -1)
    for block, lines in zip(blocks, panels, strict=True):
        for run, panel in zip(block, lines[0], strict=False):
            panel.set_title(run.name, fontsize=8)
    for n, case in enumerate(cases):
        image, truth = load_volume(dataset.image_path(case)), dataset.truth(case).array > 0
        for block, lines in zip(blocks, panels, strict=True):
            for run, panel in zip(block, lines[n], strict=False):
                _overlay(panel, image, truth, load_volume(run.mask_path(case)).array > 0)
    _save(figure, path)


def _overlay(panel: Axes, image: Volume, truth: np.ndarray, mask: np.ndarray) -> None:
    k = int(truth.sum(axis=(0, 1)).argmax())
    panel.imshow(image.array[:, :, k].T, cmap="gray", aspect=_aspect(image.geometry.spacing_mm))
    for outlined, colour in ((truth, "tab:blue"), (mask, "lime")):
        if outlined[:, :, k].any():
            panel.contour(outlined[:, :, k].T, [0.5], colors=colour, linewidths=0.8)


def annotation_curve(scores: Mapping[str, Sequence[CaseScore]], seconds: Mapping[str, int], path: Path) -> bool:
    """Mean Dice against annotation time, by clicks and by full masks; returns whether there is anything to draw.

    Args:
        seconds: annotation time of each row.
    """
    lines = {
        "clicks (37 s a scan)": [name for name in scores if name.startswith("app_clicks") and _is_plain(name)],
        "full masks (477 s a scan)": [name for name in scores if name.startswith("full") and _is_plain(name)],
    }
    lines = {title: names for title, names in lines.items() if names}
    if len(lines) < 2:
        return False
    figure, panel = plt.subplots(figsize=(6, 4), layout="constrained")
    for title, names in lines.items():
        points = sorted((seconds[name] / SECONDS_AN_HOUR, name) for name in names)
        dice = [list(by_case(scores[name], "dice").values()) for _, name in points]
        # The standard error of the mean over the cases.
        error = [np.std(of_row, ddof=1) / np.sqrt(len(of_row)) if len(of_row) > 1 else 0 for of_row in dice]
        panel.errorbar([x for x, _ in points], [np.mean(d) for d in dice], error, marker="o", capsize=3, label=title)
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("annotation time (hours)")
    panel.set_ylabel("mean Dice of the test cases")
    panel.grid(alpha=0.3)
    panel.legend()
    _save(figure, path)
    return True


def _is_plain(name: str) -> bool:
    return ROWS[name].network_of is None and ROWS[name].masked == 0


def _aspect(spacing_mm: tuple[float, float, float]) -> float:
    return spacing_mm[1] / spacing_mm[0]


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)
