"""A run trains once, whatever interrupts it, and leaves masks, scores and a record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.evidence import training
from benchmarks.evidence.dataset import LABEL, Dataset
from benchmarks.evidence.rows import ROWS
from benchmarks.evidence.scores import mask_scores, read_scores
from benchmarks.evidence.training import Run
from lib.geometry.volume import load_volume
from lib.training.hyperparameters import Hyperparameters
from lib.training.run import Report
from tests.benchmarks.evidence.folders import write_dataset

pytestmark = pytest.mark.slow

TINY = Hyperparameters.of_preset("cpu").changed(
    {"roi_size": "16x16x8", "levels": 2, "base_channels": 2, "iterations": 4, "max_minutes": 0}
)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.open(write_dataset(tmp_path / "dataset"))


def run(dataset: Dataset, name: str, tmp_path: Path) -> Run:
    return Run(name, ROWS[name], 0, dataset, TINY, tmp_path / "out")


@pytest.mark.parametrize("name", ROWS)
def test_every_row_trains_and_is_scored(dataset: Dataset, name: str, tmp_path: Path) -> None:
    one = run(dataset, name, tmp_path)
    reports: list[Report] = []
    if one.base is not None:
        assert not one.is_ready
        one.base.run()
    assert one.is_ready

    one.run(reports.append)

    scores = read_scores(one.scores_path)
    found = [(score.split, score.case, score.label) for score in scores]
    assert found == [("validation", "val_0", LABEL), ("test", "test_0", LABEL)]
    assert [report.iterations for report in reports] == list(range(1, 1 + (0 if one.base else TINY.iterations)))
    record = json.loads((one.folder / "run.json").read_text())
    assert not (one.folder / "model").exists() or one.base is None
    assert record["row"] == name and record["seed"] == 0 and record["versions"]["torch"]


def test_scores_are_those_of_the_masks_on_disk(dataset: Dataset, tmp_path: Path) -> None:
    one = run(dataset, "full", tmp_path)
    one.run()

    mask = load_volume(one.mask_path("test_0"))
    assert mask.geometry.is_close(load_volume(dataset.image_path("test_0")).geometry)
    expected = mask_scores(mask.array > 0, dataset.truth("test_0").array > 0, mask.geometry)
    score = read_scores(one.scores_path)[1]
    assert (score.dice, score.hd95_mm, score.precision) == pytest.approx(expected, abs=1e-4)


def test_a_run_that_was_cut_short_goes_on_and_ends_after_as_many_iterations(dataset: Dataset, tmp_path: Path) -> None:
    one = run(dataset, "full", tmp_path)

    def power_cut(report: Report) -> None:
        if report.iterations == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.run(power_cut)
    assert not one.is_done
    reports: list[Report] = []
    one.run(reports.append)

    # What comes after a report is lost with it; the state after the one before is on disk.
    assert [report.iterations for report in reports] == [3, 4]
    assert one.is_done


def test_what_is_trained_is_not_trained_again(dataset: Dataset, tmp_path: Path) -> None:
    one = run(dataset, "full", tmp_path)
    one.run()
    one.scores_path.unlink()

    one.run(lambda report: pytest.fail("trained again"))

    assert one.is_done


def test_a_run_made_with_other_hyperparameters_is_not_taken_for_the_one_asked_for(
    dataset: Dataset, tmp_path: Path
) -> None:
    one = run(dataset, "full", tmp_path)
    one.check_record()
    one.run()
    one.check_record()

    with pytest.raises(ValueError, match="was made with iterations 4, and 3 is asked for now; choose another --out"):
        replace(one, preset=TINY.changed({"iterations": 3})).check_record()


def test_test_cases_are_never_trained_on(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path, training=20))
    one = replace(run(dataset, "full_equal_time", tmp_path), seed=3)

    assert len(one.training_cases) == 2
    assert set(one.training_cases) < set(dataset.cases["training"])
    assert one.annotation_s == 2 * 477


def test_a_smaller_budget_is_part_of_a_larger_one(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path, training=20))
    few, more = (run(dataset, name, tmp_path).training_cases for name in ("full_2", "full_8"))

    assert set(few) < set(more)


def test_a_row_that_uses_a_network_has_the_annotation_time_of_that_network(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path, training=20))

    one = run(dataset, "app_clicks_4_crf", tmp_path)

    assert one.annotation_s == run(dataset, "app_clicks_4", tmp_path).annotation_s == 20 * 37 + 4 * 477


@pytest.mark.parametrize(("name", "held_out"), [("app_clicks", []), ("app_clicks_4", []), ("full", ["val_0"])])
def test_whether_the_crf_helps_is_seen_on_validation_cases_where_a_row_learns_from_masks(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, held_out: list[str]
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(training, "crf_helps", lambda model, scans, *_: seen.extend(s.image_id for s in scans) or True)

    run(dataset, name, tmp_path).run()

    assert seen == held_out
