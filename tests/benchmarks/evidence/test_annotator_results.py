"""Figures and files of replayed annotators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evidence.annotator_plan import Plan
from benchmarks.evidence.annotator_replay import ReplayedScan, ReplayedTraining
from benchmarks.evidence.annotator_report import markdown, plot
from benchmarks.evidence.annotator_results import Result

SCANS = [ReplayedScan(f"case_{n}", 60.0 * (n + 1), [0.5 + n / 20, 0.9], accepted=n > 3) for n in range(8)]
TRAININGS = [
    ReplayedTraining(240, 540, 4, None, []),
    ReplayedTraining(540, 840, 6, 1, [0.7, 0.8]),
    ReplayedTraining(840, 1140, 7, 1, [0.7, 0.8]),
    ReplayedTraining(1140, 1440, 8, 3, [0.8, 0.9]),
]


def result(arm: str = "accepting", seed: int = 0) -> Result:
    return Result(
        arm, seed, Plan("boxes", conf={"preset": "cpu"}), SCANS, TRAININGS, "a processor, 1 core", "2026-01-02"
    )


def test_automatic_masks_are_those_of_the_network_that_was_published_last() -> None:
    dices = [result().dice_at(minutes) for minutes in (13, 14, 20, 24, 99)]

    assert np.isnan(dices[0]) and dices[1:] == pytest.approx([0.75, 0.75, 0.85, 0.85])


def test_a_dice_is_reached_when_the_network_is_published() -> None:
    assert [result().minutes_to(dice) for dice in (0.7, 0.8, 0.86)] == [14, 24, np.inf]


def test_first_click_masks_are_compared_by_quarters_of_the_clicked_scans() -> None:
    drawn = replace(result(), scans=[ReplayedScan("drawn", 30), *SCANS])

    assert (drawn.first_masks(0), drawn.first_masks(3)) == (pytest.approx(0.525), pytest.approx(0.825))
    assert np.isnan(replace(result(), scans=[ReplayedScan("drawn", 30)]).first_masks(0))


def test_the_share_of_accepted_scans_is_of_those_that_are_clicked_where_masks_are_accepted() -> None:
    drawn = replace(result(), scans=[ReplayedScan("drawn", 30), *SCANS])

    assert drawn.accepted_share == 0.5
    assert np.isnan(replace(drawn, arm="clicks").accepted_share)


def test_a_file_holds_all_of_a_result(tmp_path: Path) -> None:
    result().save(tmp_path / "one.json")

    assert Result.load(tmp_path / "one.json") == result()


@pytest.mark.parametrize("content", ["", "[]", '{"arm": "accepting"}'])
def test_a_file_of_another_form_is_refused_with_the_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "one.json").write_text(content)

    with pytest.raises(ValueError, match=r"one\.json cannot be read; delete it"):
        Result.load(tmp_path / "one.json")


def test_the_table_has_a_column_an_arm_and_says_what_is_assumed() -> None:
    full = replace(result("masks"), scans=[ReplayedScan("drawn", 477)])

    table = markdown({"accepting": [result(), result(seed=1)], "masks": [full]})

    assert "|  | clicks with accepting | full masks alone |" in table
    assert "| first click masks, Dice in the last quarter of the scans | 0.825 | – |" in table
    assert "| automatic masks, Dice at 10 min | – | – |" in table
    assert "| automatic masks, Dice at 20 min | 0.750 | 0.750 |" in table and "at 30 min" not in table
    assert "| minutes to automatic masks of Dice 0.8 | 24.0 | 24.0 |" in table
    assert "| seeds | 2 | 1 |" in table
    stated = (
        "37 s",
        "477 s",
        "click 4 s, at most 4",
        "3 s to look",
        "0.85 or more",
        "0.5 voxels",
        "preset cpu",
        "1 core",
    )
    assert all(words in table for words in stated)
    assert "trainings of 5.0 to 5.0 min" in table and "2 unseen scans" in table


def test_the_plot_is_made_of_whatever_is_done(tmp_path: Path) -> None:
    nothing = replace(result("clicks"), trainings=TRAININGS[:1])
    full = replace(result("masks"), scans=[ReplayedScan("drawn", 477)])

    plot({"accepting": [result(), result(seed=1)], "clicks": [nothing, nothing], "masks": [full]}, tmp_path / "a.png")

    assert (tmp_path / "a.png").stat().st_size > 10_000
