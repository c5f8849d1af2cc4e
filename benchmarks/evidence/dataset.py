"""Datasets in a folder: images, masks, perhaps clicks, and which case is for what."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from lib.annotations.atomic_write import write_atomically
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Annotation, AnnotationStore
from lib.demo.studies import DemoStudySettings, write_demo_studies
from lib.geometry.volume import VolumeError, load_volume, read_geometry

LABEL = "lesion"
Split = Literal["training", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SUFFIX = ".nii.gz"

HAND_ERROR_MM = 0.5
"""Of scripted clicks that stand for an annotator's, along each axis: the paper's voxel is 0.5 mm wide."""
UNSTEADY_HAND_ERROR_MM = 1.0
"""Of the row whose points are disturbed."""

DRAWN_SHARES = {"validation": 0.1, "test": 0.2}
"""Where no split is given."""

DEMO_COUNTS: dict[Split, int] = {"training": 48, "validation": 8, "test": 16}
DEMO = DemoStudySettings(lesion_radius_mm=(4.5, 8.0), contrast="varied", seed=6)
DEMO_SMALL = DemoStudySettings((48, 48, 24), (1.25, 1.25, 1.5), (4.5, 8.0), contrast="varied", seed=6)

Hand = Literal["annotator", "exact", "unsteady"]
"""Whose clicks: those of the dataset, else scripted ones with a hand's error; extreme points of the mask; the same
with twice a hand's error."""


class DatasetError(ValueError):
    """A folder that is no dataset; its text names what is missing or wrong and is for the user."""


@dataclass(frozen=True)
class Dataset:
    """Cases of one structure.

    Attributes:
        folder: `images/CASE.nii.gz`, `masks/CASE.nii.gz` (0 background, 1 structure, on the grid of the image), and,
            where people clicked, `clicks/CASE.lesion.json`. `split.csv` (columns `case` and `split`) is drawn where
            there is none: a tenth to validate, a fifth to test.
        cases: names of the cases of each split.
    """

    folder: Path
    cases: Mapping[Split, tuple[str, ...]]

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Reads and checks a dataset.

        Raises:
            DatasetError: no images, a mask that is missing, empty, of another grid or with other values than 0 and 1,
                or a split that names other cases.
        """
        names = sorted(path.name.removesuffix(SUFFIX) for path in (folder / "images").glob(f"*{SUFFIX}"))
        if not names:
            raise DatasetError(f"{folder / 'images'} holds no {SUFFIX} images; expected images/ and masks/.")
        if not (folder / "split.csv").exists():
            write_split(folder / "split.csv", draw_split(names))
        dataset = cls(folder, _read_split(folder / "split.csv", names))
        for case in names:
            dataset._check(case)
        return dataset

    def image_path(self, case: str) -> Path:
        return self.folder / "images" / f"{case}{SUFFIX}"

    def mask_path(self, case: str) -> Path:
        return self.folder / "masks" / f"{case}{SUFFIX}"

    def truth(self, case: str) -> np.ndarray:
        """(X, Y, Z) bool. Raises: VolumeError."""
        return load_volume(self.mask_path(case)).array > 0

    def annotation(self, case: str, hand: Hand) -> Annotation:
        """The six clicks on the structure, the same at each call.

        Raises:
            DatasetError: a file of clicks that is of another image.
            AnnotationFileError: a file of clicks that cannot be read.
        """
        store = AnnotationStore(self.folder / "clicks")
        geometry = read_geometry(self.image_path(case))
        if hand == "annotator" and store.path(case, LABEL).exists():
            annotation = store.load(case, LABEL)
            if not annotation.geometry.is_close(geometry):
                raise DatasetError(f"The clicks of {case} are on another grid than its image; convert them anew.")
            return annotation
        error_mm = {"annotator": HAND_ERROR_MM, "exact": 0.0, "unsteady": UNSTEADY_HAND_ERROR_MM}[hand]
        # The same errors in whichever row, and whichever other cases there are.
        rng = np.random.default_rng(list(case.encode()))
        clicks_voxel = simulated_extreme_points(self.truth(case), rng, error_mm / np.array(geometry.spacing_mm))
        return Annotation.now(case, ExtremePoints.from_clicks(LABEL, clicks_voxel), geometry, "scripted annotator")

    def _check(self, case: str) -> None:
        try:
            mask = load_volume(self.mask_path(case))
            same_grid = mask.geometry.is_close(read_geometry(self.image_path(case)))
        except VolumeError as error:
            raise DatasetError(f"Case {case}: {error}") from error
        if not same_grid:
            raise DatasetError(f"The mask of {case} is not on the grid of its image; resample it.")
        values = np.unique(mask.array).tolist()
        if values != [0, 1]:
            found = ", ".join(f"{value:g}" for value in values[:5])
            raise DatasetError(f"The mask of {case} holds the values {found}; expected 0 and 1 (structure).")


def write_demo_dataset(folder: Path, *, small: bool, progress: Callable[[int], None] = lambda done: None) -> None:
    """Small lesions of varied contrast among structures that look alike; keeps what is there.

    Args:
        small: 48 x 48 x 24 voxels of 1.25 x 1.25 x 1.5 mm, for two cores, instead of 112 x 112 x 36 of 0.5 mm.
        progress: called with the number of studies that are done.

    Raises:
        ValueError: the folder holds files of other settings.
    """
    settings = DEMO_SMALL if small else DEMO
    studies = write_demo_studies(
        folder / "images", folder / "masks", sum(DEMO_COUNTS.values()), settings, progress=progress
    )
    splits = [split for split in SPLITS for _ in range(DEMO_COUNTS[split])]
    write_split(folder / "split.csv", dict(zip(studies, splits, strict=True)))


def draw_split(names: Sequence[str]) -> dict[str, Split]:
    """A split by chance, the same for the same names.

    Raises:
        DatasetError: fewer than three cases.
    """
    if len(names) < len(SPLITS):
        raise DatasetError(f"There are {len(names)} cases; expected at least {len(SPLITS)}, one for each split.")
    validation, test = (max(1, round(share * len(names))) for share in DRAWN_SHARES.values())
    order = np.random.default_rng(0).permutation(sorted(names)).tolist()
    counts: dict[Split, int] = {"test": test, "validation": validation, "training": len(names) - test - validation}
    splits = [split for split, count in counts.items() for _ in range(count)]
    return dict(sorted(zip(order, splits, strict=True)))


def write_split(path: Path, split_of: Mapping[str, Split]) -> None:
    """Writes `split.csv`, atomically."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("case", "split"), *split_of.items()])
    write_atomically(path, table.getvalue().encode())


def _read_split(path: Path, names: list[str]) -> dict[Split, tuple[str, ...]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    cases: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for number, row in enumerate(rows, start=2):
        case, split = row.get("case"), row.get("split")
        if case not in names or split not in SPLITS:
            raise DatasetError(
                f"{path.name}, line {number}: case {case!r}, split {split!r}; expected a case in images/ and one of "
                f"{', '.join(SPLITS)}."
            )
        cases[split].append(case)
    listed = [case for of_split in cases.values() for case in of_split]
    if repeated := {case for case in listed if listed.count(case) > 1}:
        raise DatasetError(f"{path.name} names {', '.join(sorted(repeated))} more than once; expected each case once.")
    if missing := set(names) - set(listed):
        raise DatasetError(f"{path.name} says nothing of {', '.join(sorted(missing)[:5])}; expected every case.")
    if not cases["training"] or not cases["test"]:
        raise DatasetError(f"{path.name} has no training or no test case; expected at least one of each.")
    return {split: tuple(of_split) for split, of_split in cases.items()}
