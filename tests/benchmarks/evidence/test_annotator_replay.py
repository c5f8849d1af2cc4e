"""What a replayed annotator asks of the server, in which order and at which second."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.evidence import annotator_clock
from benchmarks.evidence.annotator_plan import ARMS, Arm, Plan, training_cases
from benchmarks.evidence.annotator_replay import Replay
from benchmarks.evidence.dataset import DatasetError
from benchmarks.evidence.served_app import ServedApp
from benchmarks.evidence.structures import StructureFolder
from lib.annotations.extreme_points import ExtremePoints
from lib.geometry.volume import Volume, load_volume
from tests.benchmarks.evidence.folders import box_mask, write_case, write_dataset

TRAINING_S = 210.0


class ToldApp(ServedApp):
    """Notes what it is asked, and answers with the truth without its first `short` layers; a correction adds one.

    Real seconds pass only while a training is waited for.
    """

    def __init__(self, folder: StructureFolder, monkeypatch: pytest.MonkeyPatch, short: int = 0) -> None:
        self.folder, self.short = folder, short
        self.asked: list[str] = []
        self.real_s, self.training_began_s, self.version = 0.0, None, 0
        passing = SimpleNamespace(monotonic=lambda: self.real_s, sleep=self.pass_by)
        monkeypatch.setattr(annotator_clock, "time", passing)

    def pass_by(self, seconds: float) -> None:
        self.real_s += seconds

    def truth(self, case: str) -> np.ndarray:
        return np.asarray(load_volume(self.folder.paths[case][1], sentinels=False).array > 0)

    def click_mask(self, image: str, points: ExtremePoints) -> np.ndarray:
        clicks = len(points.foreground_voxel) + len(points.background_voxel)
        self.asked.append(f"{clicks} clicks")
        mask = self.truth(image)
        missing = max(0, self.short - (clicks - 6))
        first = int(np.argwhere(mask)[:, 0].min())
        mask[first : first + missing] = False
        return mask

    def accept(self, image: str) -> None:
        self.asked.append("accept")

    def submit(self, image: str, mask: Volume) -> None:
        assert np.array_equal(mask.array, self.truth(image))
        self.asked.append("submit")

    def automatic_mask(self, image: str) -> np.ndarray:
        return self.truth(image)

    def model_version(self, image: str) -> int | None:
        return self.version or None

    def start_training(self) -> None:
        self.asked.append("train")
        self.training_began_s = self.real_s

    def is_training(self) -> bool:
        assert self.training_began_s is not None
        if self.real_s - self.training_began_s < TRAINING_S:
            return True
        self.version += 1
        return False


def replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: Arm, plan: Plan | None = None, *, short: int = 0
) -> tuple[Replay, list[str]]:
    folder = StructureFolder.open(write_dataset(tmp_path, training=10), ("lesion",))
    app = ToldApp(folder, monkeypatch, short)
    replay = Replay(app, folder, arm, 0, plan or Plan("boxes", scans=5), lambda line: None)
    replay.run()
    return replay, app.asked


def test_a_good_mask_is_accepted_after_six_clicks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, asked = replayed(tmp_path, monkeypatch, ARMS["accepting"], Plan("boxes", scans=1))

    assert asked == ["6 clicks", "accept", "train"]
    (scan,) = replay.scans
    assert scan.accepted and list(scan.dices) == [1]
    assert scan.ended_s == pytest.approx(37 + 3, abs=0.1)


def test_a_mask_is_corrected_until_it_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, asked = replayed(tmp_path, monkeypatch, ARMS["accepting"], Plan("boxes", scans=1), short=4)

    # Of seven layers three, four and five are too few: 2 * 5 / (5 + 7) = 0.83.
    assert asked == ["6 clicks", "7 clicks", "8 clicks", "9 clicks", "accept", "train"]
    assert list(replay.scans[0].dices) == pytest.approx([0.6, 8 / 11, 10 / 12, 12 / 13])
    assert replay.scans[0].ended_s == pytest.approx(37 + 3 * 4 + 4 * 3, abs=0.1)


def test_the_clicks_are_kept_where_four_corrections_do_not_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay, asked = replayed(tmp_path, monkeypatch, ARMS["accepting"], Plan("boxes", scans=1), short=6)

    assert asked == ["6 clicks", "7 clicks", "8 clicks", "9 clicks", "10 clicks", "train"]
    assert not replay.scans[0].accepted and len(replay.scans[0].dices) == 5


def test_clicks_alone_are_neither_looked_at_nor_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, asked = replayed(tmp_path, monkeypatch, ARMS["clicks"], Plan("boxes", scans=2), short=6)

    assert asked == ["6 clicks", "6 clicks", "train"]
    assert [scan.ended_s for scan in replay.scans] == pytest.approx([37, 74], abs=0.1)


def test_every_fifth_scan_is_drawn_in_its_own_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, asked = replayed(tmp_path, monkeypatch, ARMS["fifth_drawn"], Plan("boxes"))

    assert [not scan.dices for scan in replay.scans] == [False, False, False, False, True] * 2
    assert replay.scans[4].ended_s - replay.scans[3].ended_s == pytest.approx(477, abs=0.1)
    assert asked.count("submit") == 2 and asked.count("accept") == 8


def test_a_training_begins_between_scans_where_none_runs_and_four_scans_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay, _ = replayed(tmp_path, monkeypatch, ARMS["accepting"], Plan("boxes"))

    # At 160 s four scans are done; the training ends at 370 s, during the tenth scan of 360 to 400 s.
    first, last = replay.trainings
    assert (first.scans, last.scans) == (4, 10)
    assert first.began_s == pytest.approx(160, abs=0.1) and first.ended_s == pytest.approx(370, abs=1)
    assert last.began_s == pytest.approx(replay.scans[-1].ended_s, abs=0.1)


def test_a_training_follows_each_full_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, asked = replayed(tmp_path, monkeypatch, ARMS["masks"], Plan("boxes", scans=2))

    assert asked == ["submit", "train"] * 2
    assert [training.ended_s for training in replay.trainings] == pytest.approx([477 + 210, 954 + 210], abs=2)
    assert [training.version for training in replay.trainings] == [1, 2]
    assert [list(training.dices) for training in replay.trainings] == [[1.0], [1.0]]


def test_no_scan_is_begun_after_the_minutes_are_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, _ = replayed(tmp_path, monkeypatch, ARMS["accepting"], Plan("boxes", minutes=1.5))

    assert [scan.ended_s for scan in replay.scans] == pytest.approx([40, 80, 120], abs=0.2)


def test_seeds_draw_the_order_of_scans_and_structures_that_are_too_small_are_left_out(tmp_path: Path) -> None:
    folder = StructureFolder.open(write_dataset(tmp_path, training=10), ("lesion",))
    write_case(tmp_path, "train_3", box_mask((4, 4, 4), (6, 6, 6)))

    orders = {training_cases(folder, seed, Plan("boxes")) for seed in range(3)}

    assert len(orders) == 3
    assert all(set(order) == {f"train_{n}" for n in range(10) if n != 3} for order in orders)
    assert training_cases(folder, 1, Plan("boxes", scans=4)) == training_cases(folder, 1, Plan("boxes"))[:4]


def test_a_dataset_without_a_structure_to_click_is_refused(tmp_path: Path) -> None:
    folder = StructureFolder.open(write_dataset(tmp_path, training=1), ("lesion",))
    write_case(tmp_path, "train_0", box_mask((4, 4, 4), (6, 6, 6)))

    with pytest.raises(DatasetError, match="no training case with a structure that is large enough"):
        training_cases(folder, 0, Plan("boxes"))
