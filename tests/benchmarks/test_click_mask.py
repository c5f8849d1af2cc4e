"""The command that scores click masks: the folders it reads, what it prints, how it counts clicks."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import click_mask
from benchmarks.click_mask import Measured, clicks_to_reach, correction_lines, examples, last_line
from benchmarks.evidence.clicking import Hand, Score, scores
from benchmarks.evidence.dataset import DatasetError
from benchmarks.evidence.structures import StructureFolder
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.clickmask.label_map import BoxedMask
from lib.geometry.boxes import Box
from lib.geometry.volume import Volume
from tests.benchmarks.evidence.folders import AFFINE, box_mask, write_case, write_dataset

LAST_LINE = re.compile(r"mean Dice \d\.\d{3}, median \d\.\d{3}, below 0\.5: (\d+) of (\d+), volume ratio \d+\.\d\d")


def two_labels() -> np.ndarray:
    return box_mask((3, 4, 2), (9, 11, 8)) + 2 * box_mask((12, 12, 3), (20, 18, 9))


def write_case_folder(folder: Path, mask: np.ndarray, suffix: str = ".nii.gz") -> Path:
    folder.mkdir(parents=True)
    image = 300 + 200 * (mask > 0) + np.random.default_rng(0).normal(0, 20, mask.shape)
    for stem, array in (("image", image), ("label", mask)):
        sitk.WriteImage(sitk.GetImageFromArray(array.T.astype(np.int16)), folder / f"{stem}{suffix}")
    return folder


Command = Callable[..., list[str]]
Refused = Callable[..., str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command, and return its lines."""

    def run(*arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["click_mask", *map(str, arguments)])
        click_mask.main()
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def refusal(printed: Command, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command, which must fail, and return what it prints."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            printed(*arguments)
        assert stopped.value.code == 2
        return capsys.readouterr().err

    return run


# --- Folders and labels


def test_scores_the_test_split_of_images_and_masks(tmp_path: Path, printed: Command) -> None:
    lines = printed("--dataset", write_dataset(tmp_path))

    assert [line.split(":")[0] for line in lines[:-1]] == ["test_0 lesion"]
    found = LAST_LINE.fullmatch(lines[-1])
    assert found and found.groups() == ("0", "1")


def test_scores_all_cases_where_there_is_no_split(tmp_path: Path, printed: Command) -> None:
    (write_dataset(tmp_path) / "split.csv").unlink()

    lines = printed("--dataset", tmp_path)

    assert [line.split(":")[0] for line in lines[:-1]] == [
        f"{case} lesion" for case in ("test_0", "train_0", "train_1", "val_0")
    ]
    assert not (tmp_path / "split.csv").exists()


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd"])
def test_values_of_a_case_folder_are_labels_of_their_own(tmp_path: Path, printed: Command, suffix: str) -> None:
    write_case_folder(tmp_path / "a", box_mask(), suffix)
    one = write_case_folder(tmp_path / "b", 4 * two_labels(), suffix)

    lines = printed("--dataset", tmp_path)
    of_one = printed("--dataset", one)

    assert [line.split(":")[0] for line in lines[:-1]] == ["a label 1", "b label 4", "b label 8"]
    assert [line.split(", ")[:2] for line in of_one[:-1]] == [line.split(", ")[:2] for line in lines[1:-1]]


@pytest.mark.parametrize(
    ("labels", "voxels"), [(None, {"lesion": 288}), (["organ"], {"organ": 288}), (["a", "b"], {"a": 252, "b": 288})]
)
def test_values_of_masks_are_one_label_unless_they_are_named(
    tmp_path: Path, labels: list[str] | None, voxels: dict[str, int]
) -> None:
    write_case(tmp_path, "one", two_labels())

    _, structures = StructureFolder.open(tmp_path, labels).load("one")

    assert {s.label: np.count_nonzero(s.truth[1]) for s in structures} == voxels


def test_a_structure_is_the_largest_component_by_faces(tmp_path: Path) -> None:
    mask = box_mask((3, 4, 2), (9, 11, 8))
    mask[9, 11, 8] = mask[20, 20, 10] = 1
    write_case(tmp_path, "one", mask)

    _, (structure,) = StructureFolder.open(tmp_path).load("one")

    assert structure.truth[0] == Box((3, 4, 2), (9, 11, 8)) and structure.truth[1].all()


def test_small_structures_are_skipped_and_counted(tmp_path: Path, printed: Command) -> None:
    few = box_mask((2, 2, 2), (6, 6, 8))
    thin = box_mask((2, 10, 8), (22, 20, 10))
    write_case_folder(tmp_path / "case", few + 2 * thin + 3 * box_mask((12, 2, 1), (20, 8, 6)))

    lines = printed("--dataset", tmp_path)

    assert lines[0].startswith("case label 3: ")
    assert lines[1] == "skipped 2 structures of fewer than 100 voxels, or than 3 along an axis"
    assert len(lines) == 3


def test_a_folder_of_small_structures_is_refused(tmp_path: Path, refusal: Refused) -> None:
    write_case_folder(tmp_path / "case", box_mask((2, 2, 2), (5, 5, 5)))

    assert "has no structure to measure; each of 1 has" in refusal("--dataset", tmp_path)


# --- Refusals


def test_a_folder_that_is_no_dataset_is_refused_with_a_sentence(tmp_path: Path, refusal: Refused) -> None:
    said = refusal("--dataset", tmp_path)
    assert f"{tmp_path} is no dataset; expected images/CASE.nii.gz and masks/CASE.nii.gz, or CASE/image.*" in said


def test_an_image_without_a_mask_is_refused(tmp_path: Path, refusal: Refused) -> None:
    (write_case_folder(tmp_path / "case", box_mask()) / "label.nii.gz").unlink()

    said = refusal("--dataset", tmp_path)

    assert f"The mask {tmp_path / 'case' / 'label.nii.gz'} is not there" in said


def test_a_mask_of_another_grid_is_refused(tmp_path: Path) -> None:
    write_case(tmp_path, "one", box_mask(), 2 * AFFINE)

    with pytest.raises(DatasetError, match="mask of one is not on the grid of its image"):
        StructureFolder.open(tmp_path).load("one")


def test_a_value_without_a_label_is_refused(tmp_path: Path) -> None:
    write_case(tmp_path, "one", 3 * box_mask())

    with pytest.raises(DatasetError, match="holds the value 3; expected whole numbers from 0 to 2, for a, b"):
        StructureFolder.open(tmp_path, ["a", "b"]).load("one")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "validation"], "has no split.csv, so no validation cases"),
        (["--draws", "0"], "'0' cannot be used; expected a whole number from 1"),
        (["--error", "-1"], "'-1' cannot be used; expected a number from 0"),
        (["--clicked", "some"], "'some' cannot be used; expected a whole number from 0"),
        (["--corrections", "15"], "invalid choice: 15"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, refusal: Refused, arguments: list[str], message: str) -> None:
    write_case(tmp_path, "one", box_mask())
    assert message in refusal("--dataset", tmp_path, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--accepted", "3"], "has 2 training cases; expected at least 3"),
        (["--accepted", "1", "--split", "all"], "--split all holds the cases that --accepted is drawn from"),
    ],
)
def test_other_cases_that_are_not_there_or_are_scored_are_refused(
    tmp_path: Path, refusal: Refused, arguments: list[str], message: str
) -> None:
    assert message in refusal("--dataset", write_dataset(tmp_path), *arguments)


def arch() -> np.ndarray:
    x, y, z = np.ogrid[:24, :24, :12]
    return ((np.abs(np.hypot(x - 11, y - 3) - 8) < 2.5) & (y >= 3) & (abs(z - 5) < 4)).astype(np.uint8)


@pytest.mark.slow
def test_accepted_masks_improve_those_of_the_scored_cases(
    tmp_path: Path, printed: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.evidence.clicking.SECONDS", 2.0)
    write_dataset(tmp_path, training=4)
    for case in ("test_0", *(f"train_{n}" for n in range(4))):
        noise = np.random.default_rng(list(case.encode())).normal(0, 30, arch().shape)
        write_case(tmp_path, case, arch(), image=300 + 20 * arch() + noise)

    before, after = (
        float(printed("--dataset", tmp_path, "--accepted", n)[-1].removeprefix("mean Dice ")[:5]) for n in (0, 4)
    )

    assert after > before + 0.1


def test_clicked_cases_are_averaged_where_no_mask_was_accepted(
    tmp_path: Path, printed: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("benchmarks.evidence.clicking.group_atlas", lambda structures: asked.append(len(structures)))
    write_dataset(tmp_path, training=6)

    printed("--dataset", tmp_path, "--draws", 1, "--clicked", "all")
    printed("--dataset", tmp_path, "--draws", 1, "--accepted", 2, "--clicked", "all")

    assert asked == [6]


def test_more_accepted_cases_hold_the_fewer(tmp_path: Path) -> None:
    folder = StructureFolder.open(write_dataset(tmp_path, training=6))
    training = set(folder.cases("training"))

    few, others = examples(folder, 1, 2, None)
    more, two = examples(folder, 1, 4, 2)

    assert few == more[:2] and set(few) | set(others) == set(more) | set(two) == training
    assert len(others) == 4 and len(two) == 2
    assert len({examples(folder, draw, 2, 0) for draw in range(10)}) > 1


# --- Clicks


def test_clicks_do_not_depend_on_other_cases_and_labels(tmp_path: Path) -> None:
    write_case_folder(tmp_path / "a", two_labels())
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def clicks(folder: Path, case: str, draw: int = 0) -> np.ndarray:
        _, structures = StructureFolder.open(folder).load(case)
        return Hand(draw, 0.5).six_clicks(structures[-1]).foreground_voxel

    of_b = clicks(tmp_path, "b")
    assert np.array_equal(of_b, clicks(tmp_path / "b", "b"))
    assert not np.array_equal(of_b, clicks(tmp_path, "a")) and not np.array_equal(of_b, clicks(tmp_path, "b", 1))
    write_case_folder(tmp_path / "one label" / "b", np.where(two_labels() == 2, 2, 0))
    assert np.array_equal(of_b, clicks(tmp_path / "one label", "b"))


def test_clicks_are_those_on_the_whole_mask(tmp_path: Path) -> None:
    write_case(tmp_path, "one", box_mask())
    _, (structure,) = StructureFolder.open(tmp_path).load("one")

    clicks = Hand(2, 0.7).six_clicks(structure).foreground_voxel

    rng = np.random.default_rng([2, 1, *b"one"])
    assert np.array_equal(clicks, simulated_extreme_points(box_mask() > 0, rng, 0.7))


def test_clicks_that_a_request_would_refuse_are_drawn_again(tmp_path: Path) -> None:
    write_case(tmp_path, "one", box_mask((4, 4, 4), (7, 20, 10)))
    _, (structure,) = StructureFolder.open(tmp_path).load("one")

    extents = [np.ptp(Hand(draw, 100).six_clicks(structure).foreground_voxel, axis=0) for draw in range(200)]

    assert np.all(extents)


# --- Corrections


class Improving:
    """A segmenter whose masks are the first layers of the truth, one more with each call."""

    def __init__(self, truth: BoxedMask, layers: int) -> None:
        self.truth, self.layers = truth, layers
        self.asked: list[ExtremePoints] = []

    def __call__(self, volume: Volume, points: ExtremePoints) -> BoxedMask:
        box, mask = self.truth
        found = mask.copy()
        found[self.layers + len(self.asked) :] = False
        self.asked.append(points)
        return box, found


def test_each_correction_lies_in_the_middle_of_what_is_missing(tmp_path: Path) -> None:
    write_case(tmp_path, "one", box_mask((4, 5, 3), (11, 10, 8)))
    volume, (structure,) = StructureFolder.open(tmp_path).load("one")
    segment = Improving(structure.truth, 2)

    run = list(scores(segment, volume, Hand(0, 0).six_clicks(structure), structure.truth, 8))

    shares = [min(layers, 7) / 7 for layers in range(2, 11)]
    assert [score.volume_ratio for score in run] == pytest.approx(shares)
    assert [score.dice for score in run] == pytest.approx([2 * share / (1 + share) for share in shares])
    assert len(segment.asked) == 6  # then nothing is left to correct
    corrections = segment.asked[-1].foreground_voxel[6:]
    assert corrections[0, :2].tolist() == [8, 7] and corrections[:, 0].tolist() == [8, 8, 9, 9, 10]
    assert [len(points.background_voxel) for points in segment.asked] == [0] * 6


def test_what_is_too_much_is_clicked_as_background(tmp_path: Path) -> None:
    write_case(tmp_path, "one", box_mask((4, 5, 3), (11, 10, 8)))
    volume, (structure,) = StructureFolder.open(tmp_path).load("one")
    asked = []

    def everything(volume: Volume, points: ExtremePoints) -> BoxedMask:
        asked.append(points)
        return Box((0, 0, 0), volume.geometry.shape), np.ones(volume.geometry.shape, bool)

    run = list(scores(everything, volume, Hand(0, 0).six_clicks(structure), structure.truth, 1))

    assert run[1].volume_ratio == volume.array.size / 175
    (click,) = asked[1].background_voxel
    assert box_mask((4, 5, 3), (11, 10, 8))[tuple(click)] == 0


def brute_force_noc(dices: Sequence[float], goal: float, cap: int) -> tuple[float, bool]:
    for clicks in range(6, cap + 1):
        if dices[clicks - 6] >= goal:
            return clicks, False
    return cap, True


@given(st.lists(st.lists(st.floats(0, 1), min_size=15, max_size=15), min_size=1, max_size=5))
def test_noc_is_the_first_count_that_reaches_the_goal(runs: list[list[float]]) -> None:
    measured = [Measured("case", "label", [[Score(value, 1, 0) for value in run]]) for run in runs]

    lines = list(correction_lines(measured))

    for line, goal in zip(lines[1:3], (0.85, 0.9), strict=True):
        counts, never = zip(*(brute_force_noc(run, goal, 20) for run in runs), strict=True)
        assert line == (
            f"NoC@{100 * goal:.0f} {np.mean(counts):.1f}, never reached by {sum(never)} of {len(runs)} (counted as 20)"
        )


def test_a_goal_that_is_reached_and_lost_again_counts() -> None:
    assert clicks_to_reach([0.7, 0.9, 0.8], 0.85) == 7
    assert clicks_to_reach([0.7, 0.8], 0.85) is None


@pytest.mark.parametrize(
    ("dices", "line"),
    [
        ([0.5, 0.6, 0.6], "the mean never falls with a further click"),
        ([0.5, 0.4, 0.6, 0.55], "the mean falls with click 7 (-0.100), 9 (-0.050)"),
    ],
)
def test_a_mean_that_falls_is_named(dices: list[float], line: str) -> None:
    measured = [Measured("case", "label", [[Score(value, 1, 0) for value in dices]])]
    assert list(correction_lines(measured))[-1] == line


def test_corrections_are_printed_before_the_last_line(tmp_path: Path, printed: Command) -> None:
    dataset = write_dataset(tmp_path)

    lines = printed("--dataset", dataset, "--corrections", "2", "--draws", "1")

    assert re.fullmatch(r"mean Dice after 6 clicks \d\.\d{3}, 7 clicks \d\.\d{3}, 8 clicks \d\.\d{3}", lines[1])
    assert lines[2].startswith("NoC@85 ") and lines[3].endswith("(counted as 8)") and "the mean" in lines[4]
    assert LAST_LINE.fullmatch(lines[5]) and len(lines) == 6


def test_the_last_line_is_over_the_means_of_draws() -> None:
    def measured(*draws: tuple[float, float]) -> Measured:
        return Measured("case", "label", [[Score(dice, ratio, 0)] for dice, ratio in draws])

    found = [measured((0.2, 1), (0.6, 3)), measured((0.6, 1), (0.8, 1)), measured((0.9, 1.5), (0.9, 1.5))]

    assert last_line(found) == "mean Dice 0.667, median 0.700, below 0.5: 1 of 3, volume ratio 1.50"
