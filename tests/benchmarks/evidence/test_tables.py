"""A table says what its scores say, in the paper's layout."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from scipy.stats import wilcoxon

from benchmarks.evidence.dataset import LABEL
from benchmarks.evidence.scores import CaseScore
from benchmarks.evidence.tables import as_csv, lines, markdown

DICE = {"inextremis": [[0.8, 0.9, 0.7], [0.9, 0.9, 0.5]], "full": [[0.9, 0.95, 0.8]], "gradient": [[0.0, 0.4, 0.5]]}


@pytest.fixture
def scores() -> dict[str, list[CaseScore]]:
    return {
        row: [
            CaseScore(row, seed, "test", f"case_{case}", LABEL, dice, 10 * (1 - dice), dice, 10 if dice else 0, 12)
            for seed, of_seed in enumerate(seeds)
            for case, dice in enumerate(of_seed)
        ]
        for row, seeds in DICE.items()
    }


def test_lines_are_in_the_order_of_the_rows_whatever_was_run_first(scores: dict[str, list[CaseScore]]) -> None:
    assert [line.name for line in lines(scores)] == ["inextremis", "full", "gradient"]


def test_mean_and_deviation_are_over_cases_and_seeds_are_averaged_first(scores: dict[str, list[CaseScore]]) -> None:
    of_cases = 100 * np.mean(DICE["inextremis"], axis=0)

    line = lines(scores)[0]

    assert line.dice == pytest.approx((of_cases.mean(), of_cases.std(ddof=1)))
    assert line.between_seeds == pytest.approx(100 * np.std(np.mean(DICE["inextremis"], axis=1), ddof=1))
    assert line.p_dice is None


def test_empty_masks_are_counted_openly(scores: dict[str, list[CaseScore]]) -> None:
    assert [(line.empty, line.masks) for line in lines(scores)] == [(0, 6), (0, 3), (1, 3)]
    assert "| 1 of 3 |" in markdown(lines(scores))


def test_markdown_and_csv_hold_the_same_figures(scores: dict[str, list[CaseScore]]) -> None:
    table = lines(scores)

    text = markdown(table).splitlines()
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))

    assert len({line.count("|") for line in text}) == 1
    assert text[0].startswith("| Approach | Dice (%) | HD95 (mm) | Precision (%) |")
    for line, row in zip(text[2:], rows, strict=True):
        mean, deviation = float(row["dice_percent_mean"]), float(row["dice_percent_sd"])
        assert line.startswith(f"| {row['approach']} | {mean:.1f} ({deviation:.1f}) |")


def test_each_measure_has_its_p_against_the_reference() -> None:
    rng = np.random.default_rng(0)
    of_rows = {
        row: [CaseScore(row, 0, "test", f"{n}", LABEL, *rng.random(3).round(3), 10, 12) for n in range(8)]
        for row in ("inextremis", "full")
    }

    line = lines(of_rows)[1]
    (row,) = [row for row in csv.DictReader(io.StringIO(as_csv(lines(of_rows)))) if row["row"] == "full"]

    for measure, p, column in (
        ("dice", line.p_dice, "p_dice"),
        ("hd95_mm", line.p_hd95, "p_hd95"),
        ("precision", line.p_precision, "p_precision"),
    ):
        full, reference = ([getattr(score, measure) for score in of_rows[name]] for name in ("full", "inextremis"))
        assert p == pytest.approx(wilcoxon(full, reference).pvalue)
        assert float(row[column]) == pytest.approx(p, rel=0.01)


def test_a_row_without_the_reference_has_no_p(scores: dict[str, list[CaseScore]]) -> None:
    del scores["inextremis"]

    assert [line.p_dice for line in lines(scores)] == [None, None]
