"""A dataset is a folder that was checked, with the same clicks for every method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.evidence.dataset import (
    DEMO_COUNTS,
    LABEL,
    Dataset,
    DatasetError,
    Hand,
    write_demo_dataset,
    write_split,
)
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Annotation, AnnotationStore
from lib.geometry.volume import read_geometry
from tests.benchmarks.evidence.folders import AFFINE, box_mask, write_case, write_dataset


def the_annotation(dataset: Dataset, case: str, hand: Hand) -> Annotation:
    (annotation,) = dataset.annotations(case, hand)
    return annotation


def test_each_case_has_its_split(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path))

    assert dataset.cases == {"training": ("train_0", "train_1"), "validation": ("val_0",), "test": ("test_0",)}


def test_exact_clicks_are_the_ends_of_the_mask(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path))
    voxels = np.argwhere(dataset.truth("train_1").array)

    extremes = the_annotation(dataset, "train_1", "exact").points.extremes_voxel

    np.testing.assert_array_equal([extremes[a, 0, a] for a in range(3)], voxels.min(axis=0))
    np.testing.assert_array_equal([extremes[a, 1, a] for a in range(3)], voxels.max(axis=0))


def test_a_scripted_hand_errs_in_millimetres_and_always_alike(tmp_path: Path) -> None:
    """Voxels of 2 mm are missed by fewer of them than voxels of 1 mm."""
    for n in range(40):
        write_case(tmp_path, f"case_{n:02d}", box_mask())
    write_split(tmp_path / "split.csv", {f"case_{n:02d}": "training" if n else "test" for n in range(40)})
    dataset = Dataset.open(tmp_path)
    names = dataset.cases["training"]

    def errors_voxel(hand: Hand) -> np.ndarray:
        clicks = [the_annotation(dataset, case, hand).points.extremes_voxel for case in names]
        exact = [the_annotation(dataset, case, "exact").points.extremes_voxel for case in names]
        # The end of an axis is known; where on the face a click lies is free.
        return np.array([[c[a, :, a] - e[a, :, a] for a in range(3)] for c, e in zip(clicks, exact, strict=True)])

    unsteady, steady = errors_voxel("unsteady"), errors_voxel("annotator")
    np.testing.assert_array_equal(unsteady, errors_voxel("unsteady"))
    assert unsteady[:, :2].std() == pytest.approx(1.0, abs=0.25)
    assert unsteady[:, 2].std() == pytest.approx(0.5, abs=0.25)
    assert steady.std() < unsteady.std()


def test_clicks_of_a_person_come_before_scripted_ones(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path))
    clicks = np.array([[6, 10, 5], [12, 10, 5], [9, 9, 5], [9, 15, 5], [9, 12, 3], [9, 12, 8]])
    annotation = Annotation.now(
        "train_0", ExtremePoints.from_clicks(LABEL, clicks), read_geometry(dataset.image_path("train_0")), "somebody"
    )
    AnnotationStore(tmp_path / "clicks").save(annotation)

    np.testing.assert_array_equal(the_annotation(dataset, "train_0", "annotator").points.foreground_voxel, clicks)
    assert the_annotation(dataset, "train_0", "exact").annotator == "scripted annotator"


def test_clicks_of_another_image_are_refused(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path))
    annotation = the_annotation(dataset, "train_0", "exact")
    shifted = type(annotation.geometry)(annotation.geometry.shape, annotation.geometry.affine_ras + 1.0)
    AnnotationStore(tmp_path / "clicks").save(Annotation.now("train_0", annotation.points, shifted, "somebody"))

    with pytest.raises(DatasetError, match="train_0 are on another grid"):
        the_annotation(dataset, "train_0", "annotator")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("train_0,training\ntrain_1,training\nval_0,validation\ntest_0,exam", "line 5.*'exam'.*validation, test"),
        ("train_0,training\nother,training\nval_0,validation\ntest_0,test", "line 3: case 'other'"),
        ("train_0,training\nval_0,validation\ntest_0,test", "nothing of train_1"),
        ("train_0,training\ntrain_0,test\ntrain_1,training\nval_0,validation\ntest_0,test", "train_0 more than once"),
        ("train_0,training\ntrain_1,training\nval_0,validation\ntest_0,training", "no training or no test case"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(tmp_path: Path, lines: str, message: str) -> None:
    write_dataset(tmp_path)
    (tmp_path / "split.csv").write_text(f"case,split\n{lines}\n")

    with pytest.raises(DatasetError, match=message):
        Dataset.open(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no .nii.gz images"):
        Dataset.open(tmp_path)


def test_where_there_is_no_split_one_is_drawn_and_stays(tmp_path: Path) -> None:
    (write_dataset(tmp_path, training=18) / "split.csv").unlink()

    drawn = Dataset.open(tmp_path).cases

    assert {split: len(cases) for split, cases in drawn.items()} == {"training": 14, "validation": 2, "test": 4}
    written = (tmp_path / "split.csv").read_text()
    (tmp_path / "split.csv").unlink()
    assert Dataset.open(tmp_path).cases == drawn
    assert (tmp_path / "split.csv").read_text() == written


def test_too_few_cases_to_draw_a_split_are_refused(tmp_path: Path) -> None:
    for case in ("a", "b"):
        write_case(tmp_path, case, box_mask())

    with pytest.raises(DatasetError, match="There are 2 cases; expected at least 3"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize(
    ("mask", "affine", "labels", "message"),
    [
        (box_mask() * 3, AFFINE, ["lesion", "cyst"], "holds the values 0, 3; expected 0 to 2, for lesion, cyst"),
        (box_mask() * 0, AFFINE, ["lesion"], "is empty; expected a structure"),
        (box_mask(), np.diag([1.0, 1.0, 3.0, 1.0]), ["lesion"], "not on the grid of its image"),
    ],
)
def test_a_mask_that_cannot_be_learnt_from_is_refused(
    tmp_path: Path, mask: np.ndarray, affine: np.ndarray, labels: list[str], message: str
) -> None:
    write_case(write_dataset(tmp_path), "train_1", mask, affine)

    with pytest.raises(DatasetError, match=f"train_1.*{message}"):
        Dataset.open(tmp_path, labels)


def test_of_one_label_all_values_of_a_mask_are(tmp_path: Path) -> None:
    write_case(write_dataset(tmp_path), "train_1", box_mask() * 3)

    assert np.unique(Dataset.open(tmp_path).truth("train_1").array).tolist() == [0, 1]


def test_each_structure_of_a_case_is_clicked(tmp_path: Path) -> None:
    both = box_mask()
    both[17:21, 3:6, 2:9] = 2
    write_case(write_dataset(tmp_path), "train_1", both)
    dataset = Dataset.open(tmp_path, ["lesion", "cyst"])

    lesion, cyst = dataset.annotations("train_1", "exact")

    assert (lesion.points.label, cyst.points.label) == ("lesion", "cyst")
    assert cyst.points.foreground_voxel.min(axis=0).tolist() == [17, 3, 2]
    assert [annotation.points.label for annotation in dataset.annotations("train_0", "exact")] == ["lesion"]


def test_a_scan_to_learn_from_has_clicks_or_a_mask_of_all_labels(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path))
    clicks = dataset.annotations("train_0", "exact")

    clicked = dataset.annotated_scan("train_0", clicks)
    masked = dataset.annotated_scan("train_0", mask_path=dataset.mask_path("train_0"))

    assert clicked.annotations == clicks and clicked.mask_labels == ()
    assert masked.mask_labels == (LABEL,) and masked.annotations == ()
    assert clicked.image_checksum == masked.image_checksum != dataset.annotated_scan("train_1").image_checksum


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    (write_dataset(tmp_path) / "masks" / "val_0.nii.gz").unlink()

    with pytest.raises(DatasetError, match="Case val_0: .*val_0.nii.gz is not there"):
        Dataset.open(tmp_path)


@pytest.mark.slow
def test_demo_studies_make_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, count in (("training", 2), ("validation", 1), ("test", 1)):
        monkeypatch.setitem(DEMO_COUNTS, split, count)

    write_demo_dataset(tmp_path, small=True)

    dataset = Dataset.open(tmp_path)
    assert {split: len(cases) for split, cases in dataset.cases.items()} == DEMO_COUNTS
    assert read_geometry(dataset.image_path("study_00")).shape == (48, 48, 24)


def test_the_demo_dataset_is_large_enough_for_a_table() -> None:
    assert DEMO_COUNTS == {"training": 48, "validation": 8, "test": 16}
