"""The rows are those of the paper, at the paper's annotation times."""

from __future__ import annotations

import pytest

from benchmarks.evidence.rows import CLICKS_S, MASK_S, REFERENCE, ROWS
from lib.training.hyperparameters import Hyperparameters


def test_full_masks_at_equal_time_are_as_many_as_fit_into_the_time_of_clicks() -> None:
    row = ROWS["full_equal_time"]

    # The paper: 26 hours for everything, 2 hours for clicks, a thirteenth.
    assert row.training_scans(172) == 13
    assert row.training_scans(48) == 4
    assert row.training_scans(3) == 1
    assert row.annotation_s(row.training_scans(48)) == pytest.approx(ROWS[REFERENCE].annotation_s(48), rel=0.1)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("preset", ["paper", "cpu"])
def test_every_row_fits_every_preset(name: str, preset: str) -> None:
    Hyperparameters.of_preset(preset).changed(ROWS[name].changes)  # type: ignore[arg-type]


def test_rows_of_the_ablation_add_one_part_at_a_time() -> None:
    """Gradient, Euclidean, deep, CRF: each row has what the one before has, and one thing more."""
    names = ("gradient", "gradient_euclidean", "deep", "inextremis")
    rows = [Hyperparameters.of_preset("cpu").changed(ROWS[name].changes) for name in names]

    assert [h.geodesic for h in rows] == ["gradient", "gradient_euclidean", "deep", "deep"]
    assert [h.crf_weight > 0 for h in rows] == [False, False, False, True]
    changed = [{n for n, v in dict(a).items() if v != dict(b)[n]} for a, b in zip(rows, rows[1:], strict=False)]
    assert changed == [{"geodesic"}, {"geodesic"}, {"crf_weight"}]


def test_rows_of_the_paper_have_its_objective_and_rows_of_the_app_that_of_the_app() -> None:
    methods = {name: Hyperparameters.of_preset("cpu").changed(row.changes).method for name, row in ROWS.items()}

    assert {name for name, method in methods.items() if method == "paper"} >= {"inextremis", "gradient", "disturbed"}
    assert methods["app_clicks"] == methods["full"] == "app"


def test_annotation_takes_the_time_of_the_clicks_and_of_the_masks_beside_them() -> None:
    assert ROWS["app_clicks"].annotation_s(48) == 48 * CLICKS_S
    assert ROWS["app_clicks_4"].annotation_s(48) == 48 * CLICKS_S + 4 * MASK_S
    assert ROWS["full"].annotation_s(48) == 48 * MASK_S
