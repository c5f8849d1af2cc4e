"""The rows are those of the paper, at the paper's annotation times."""

from __future__ import annotations

import pytest

from benchmarks.evidence.rows import REFERENCE, ROWS, TABLE_1
from lib.trainers.hyperparameters import Hyperparameters


def test_full_masks_at_equal_time_are_as_many_as_fit_into_the_time_of_clicks() -> None:
    row = TABLE_1["full_equal_time"]

    # The paper: 26 hours for everything, 2 hours for clicks, a thirteenth.
    assert row.training_scans(172) == 13
    assert row.training_scans(48) == 4
    assert row.training_scans(3) == 1
    assert row.training_scans(48) * row.seconds_a_scan == pytest.approx(48 * TABLE_1[REFERENCE].seconds_a_scan, rel=0.1)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("preset", ["paper", "cpu"])
def test_every_row_fits_every_preset(name: str, preset: str) -> None:
    Hyperparameters.of_preset(preset).changed(ROWS[name].changes)  # type: ignore[arg-type]


def test_rows_of_the_ablation_add_one_part_at_a_time() -> None:
    """Gradient, Euclidean, deep, CRF: each row has what the one before has, and one thing more."""
    rows = [Hyperparameters.of_preset("cpu").changed(TABLE_1[name].changes) for name in list(TABLE_1)[:4]]

    assert [h.geodesic for h in rows] == ["gradient", "gradient_euclidean", "deep", "deep"]
    assert [h.crf_weight > 0 for h in rows] == [False, False, False, True]
    changed = [{n for n, v in dict(a).items() if v != dict(b)[n]} for a, b in zip(rows, rows[1:], strict=False)]
    assert changed == [{"geodesic"}, {"geodesic"}, {"crf_weight"}]
