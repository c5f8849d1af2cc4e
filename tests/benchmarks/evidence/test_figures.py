"""Pictures are drawn where there is something to draw."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from benchmarks.evidence import figures
from benchmarks.evidence.dataset import LABEL, Dataset
from benchmarks.evidence.rows import ROWS
from benchmarks.evidence.scores import CaseScore
from benchmarks.evidence.training import Run, write_mask
from lib.geometry.volume import load_volume
from lib.training.hyperparameters import Hyperparameters
from tests.benchmarks.evidence.folders import write_dataset

SECONDS = {"app_clicks": 37 * 48, "app_clicks_in_12": 37 * 12, "full": 477 * 48, "full_equal_time": 477 * 4}


def scores(*rows: str) -> dict[str, list[CaseScore]]:
    rng = np.random.default_rng(0)
    return {
        row: [
            CaseScore(row, 0, "test", f"case_{n}", LABEL, dice, 3.0, 0.5, 10, 12)
            for n, dice in enumerate(rng.random(6))
        ]
        for row in rows
    }


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[plt.Figure]:
    """Figures, kept from being written."""
    kept: list[plt.Figure] = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))
    return kept


def test_box_plots_have_a_box_for_each_row_and_measure(drawn: list[plt.Figure], tmp_path: Path) -> None:
    figures.box_plots(scores("full", "gradient"), tmp_path / "boxes.png")

    titles = [panel.get_title() for panel in drawn[0].axes]
    assert titles == ["Dice", "HD95 (mm)", "precision"]
    labels = [text.get_text() for text in drawn[0].axes[0].get_yticklabels()]
    assert labels == ["Full masks of all scans", "Gradient geodesic"]


def test_the_curve_shows_mean_dice_at_each_annotation_time(drawn: list[plt.Figure], tmp_path: Path) -> None:
    of_rows = scores(*SECONDS)

    assert figures.annotation_curve(of_rows, SECONDS, tmp_path / "curve.png")

    lines = [container.lines[0] for container in drawn[0].axes[0].containers]
    clicks, masks = ([(x, y) for x, y in line.get_xydata()] for line in lines)
    for points, names in ((clicks, ("app_clicks_in_12", "app_clicks")), (masks, ("full_equal_time", "full"))):
        expected = [(SECONDS[name] / 3600, np.mean([score.dice for score in of_rows[name]])) for name in names]
        np.testing.assert_allclose(points, expected)


def test_overlays_have_a_panel_for_each_row_and_case(drawn: list[plt.Figure], tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset")
    dataset = Dataset.open(tmp_path / "dataset")
    names = list(ROWS)[: figures.OVERLAY_COLUMNS + 2]
    runs = [Run(name, ROWS[name], 0, dataset, Hyperparameters(), tmp_path) for name in reversed(names)]
    for run in runs:
        for case in dataset.cases["test"]:
            image = load_volume(dataset.image_path(case))
            write_mask(run.mask_path(case), dataset.truth(case).array, image.geometry)

    figures.overlays(dataset, runs, tmp_path / "overlays.png")

    panels = drawn[0].axes
    assert [panel.get_title() for panel in panels if panel.get_title()] == names, "in the order of the table"
    assert sum(bool(panel.images) for panel in panels) == len(names) * len(dataset.cases["test"])


def test_one_kind_of_annotation_makes_no_curve(drawn: list[plt.Figure], tmp_path: Path) -> None:
    assert not figures.annotation_curve(scores("full", "full_equal_time"), SECONDS, tmp_path / "curve.png")
    assert not drawn
