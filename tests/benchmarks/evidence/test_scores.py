"""Scores are those of the literature, told by SciPy and by counting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import wilcoxon

from benchmarks.evidence.dataset import LABEL
from benchmarks.evidence.scores import CaseScore, mask_scores, read_scores, wilcoxon_p, write_scores
from lib.geometry.image_geometry import ImageGeometry

GEOMETRY = ImageGeometry((20, 18, 10), np.diag([0.5, 0.5, 2.0, 1.0]))


def ball(centre: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    grid_mm = np.moveaxis(np.indices(GEOMETRY.shape), 0, -1) * GEOMETRY.spacing_mm
    return np.linalg.norm(grid_mm - np.multiply(centre, GEOMETRY.spacing_mm), axis=-1) <= radius_mm


def hd95_mm(one: np.ndarray, other: np.ndarray) -> float:
    """By distance maps from the border voxels, the larger of both directions."""
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (one, other)]
    distances = [ndimage.distance_transform_edt(~edge, GEOMETRY.spacing_mm) for edge in edges]
    return max(np.percentile(distances[1][edges[0]], 95), np.percentile(distances[0][edges[1]], 95))


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, 1, 0), (0, 3, 1)])
def test_scores_are_those_of_counting_and_distance_maps(shift: tuple[int, int, int]) -> None:
    truth = ball((9, 9, 5), 3.5)
    predicted = np.roll(ball((9, 9, 5), 3.0), shift, axis=(0, 1, 2))

    dice, distance_mm, precision = mask_scores(predicted, truth, GEOMETRY)

    both = (predicted & truth).sum()
    assert dice == pytest.approx(2 * both / (predicted.sum() + truth.sum()))
    assert precision == pytest.approx(both / predicted.sum())
    assert distance_mm == pytest.approx(hd95_mm(predicted, truth), abs=1e-4)


def test_an_empty_mask_is_worse_than_any_other() -> None:
    truth = ball((9, 9, 5), 3.5)
    corner = np.zeros_like(truth)
    corner[0, 0, 0] = True

    empty, far = mask_scores(truth & False, truth, GEOMETRY), mask_scores(corner, truth, GEOMETRY)

    assert empty[0] == empty[2] == 0
    assert empty[1] == pytest.approx(np.sqrt(10**2 + 9**2 + 20**2))
    assert empty[1] > far[1]


def test_a_truth_without_a_voxel_is_refused() -> None:
    with pytest.raises(ValueError, match="true mask is empty"):
        mask_scores(ball((9, 9, 5), 3), ball((9, 9, 5), 3) & False, GEOMETRY)


def score(row: str, seed: int, case: int, dice: float) -> CaseScore:
    return CaseScore(row, seed, "test", f"case_{case}", LABEL, dice, 1.0, 0.5, 10, 12)


def test_a_test_of_significance_counts_cases_and_not_seeds() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.uniform(size=(2, 12)).round(3), rng.uniform(0.1, 0.9, size=(2, 12)).round(3)

    p = wilcoxon_p(
        [score("a", seed, case, ours[seed, case]) for seed in range(2) for case in range(12)],
        [score("b", seed, case, theirs[seed, case]) for seed in range(2) for case in range(12)],
        "dice",
    )

    assert p == pytest.approx(wilcoxon(ours.mean(axis=0), theirs.mean(axis=0)).pvalue)


def test_a_row_of_fewer_seeds_is_compared_within_them() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.uniform(size=12).round(3), rng.uniform(0.1, 0.9, size=(2, 12)).round(3)
    one_seed = [score("a", 1, case, ours[case]) for case in range(12)]
    both = [score("b", seed, case, theirs[seed, case]) for seed in range(2) for case in range(12)]

    assert wilcoxon_p(one_seed, both, "dice") == pytest.approx(wilcoxon(ours, theirs[1]).pvalue)
    assert wilcoxon_p(both[:12], one_seed, "dice") is None


def test_rows_that_differ_in_no_case_have_no_p() -> None:
    same = [score("a", 0, case, 0.1 * case) for case in range(6)]

    assert wilcoxon_p(same, same, "dice") is None


def test_scores_come_back_from_their_file(tmp_path: Path) -> None:
    scores = [score("a", 0, case, 0.125 * case) for case in range(3)]
    write_scores(tmp_path / "scores.csv", scores)

    assert read_scores(tmp_path / "scores.csv") == scores


def test_a_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("row,dice\na,0.5\n")

    with pytest.raises(ValueError, match="has the columns row, dice; delete it"):
        read_scores(tmp_path / "scores.csv")
