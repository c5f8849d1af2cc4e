"""Read datasets in a folder: images, masks, optional clicks, and the split."""

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
from lib.annotations.image_identity import voxel_checksum
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Annotation, AnnotationStore
from lib.data.annotated_scan import AnnotatedScan
from lib.demo.demo_studies import DemoStudySettings, write_demo_studies
from lib.geometry.volume import Volume, VolumeError, load_volume, read_geometry

LABEL = "lesion"
Split = Literal["training", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SUFFIX = ".nii.gz"

HAND_ERROR_MM = 0.5
"""Standard deviation of simulated clicks along each axis: the paper's voxel is 0.5 mm wide."""
UNSTEADY_HAND_ERROR_MM = 1.0
"""Click error of the row with disturbed points."""

DRAWN_SHARES = {"validation": 0.1, "test": 0.2}
"""Used without a given split."""

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
    """Cases with the truth.

    Attributes:
        folder: `images/CASE.nii.gz`, `masks/CASE.nii.gz` (0 background, on the grid of the image), and, where people
            clicked, `clicks/CASE.LABEL.json`. `split.csv` (columns `case` and `split`) is drawn where
            there is none: a tenth to validate, a fifth to test.
        cases: names of the cases of each split.
        labels: of the values 1, 2, ... of the masks; of one label all values are.
    """

    folder: Path
    cases: Mapping[Split, tuple[str, ...]]
    labels: tuple[str, ...] = (LABEL,)

    @classmethod
    def open(cls, folder: Path, labels: Sequence[str] = (LABEL,)) -> Dataset:
        """Read and check a dataset.

        Raises:
            DatasetError: no images, a mask that is missing, empty, of another grid or with values that no label has,
                or a split that names other cases.
        """
        names = sorted(path.name.removesuffix(SUFFIX) for path in (folder / "images").glob(f"*{SUFFIX}"))
        if not names:
            raise DatasetError(f"{folder / 'images'} holds no {SUFFIX} images; expected images/ and masks/.")
        if not (folder / "split.csv").exists():
            write_split(folder / "split.csv", draw_split(names))
        dataset = cls(folder, read_split(folder / "split.csv", names), tuple(labels))
        for case in names:
            dataset._check(case)
        return dataset

    def image_path(self, case: str) -> Path:
        return self.folder / "images" / f"{case}{SUFFIX}"

    def mask_path(self, case: str) -> Path:
        return self.folder / "masks" / f"{case}{SUFFIX}"

    def truth(self, case: str) -> Volume:
        """(X, Y, Z) uint8 label indices 1, 2, ... Raises: VolumeError."""
        mask = load_volume(self.mask_path(case), sentinels=False)
        values = mask.array > 0 if len(self.labels) == 1 else mask.array
        return Volume(values.astype(np.uint8), mask.geometry)

    def annotations(self, case: str, hand: Hand) -> tuple[Annotation, ...]:
        """Return the six clicks on each structure of a case, the same at each call.

        Raises:
            DatasetError: a file of clicks that is of another image.
            AnnotationFileError: a file of clicks that cannot be read.
        """
        truth = self.truth(case)
        # The same errors in whichever row, and whichever other cases there are.
        rng = np.random.default_rng(list(case.encode()))
        return tuple(
            self._annotation(case, label, Volume(truth.array == index, truth.geometry), hand, rng)
            for index, label in enumerate(self.labels, start=1)
            if (truth.array == index).any()
        )

    def annotated_scan(
        self, case: str, annotations: tuple[Annotation, ...] = (), mask_path: Path | None = None
    ) -> AnnotatedScan:
        """Return a training case, annotated by clicks or by a mask of all labels. Raises: VolumeError."""
        image_path = self.image_path(case)
        covered = () if mask_path is None else self.labels
        checksum = voxel_checksum(load_volume(image_path).array)
        return AnnotatedScan(case, image_path, checksum, annotations, mask_path=mask_path, mask_labels=covered)

    def _annotation(self, case: str, label: str, truth: Volume, hand: Hand, rng: np.random.Generator) -> Annotation:
        store = AnnotationStore(self.folder / "clicks")
        geometry = read_geometry(self.image_path(case))
        if hand == "annotator" and store.path(case, label).exists():
            answer = store.load(case, label)
            if not isinstance(answer, Annotation) or not answer.geometry.is_close(geometry):
                raise DatasetError(f"The clicks of {case} are on another grid than its image; convert them anew.")
            return answer
        error_mm = {"annotator": HAND_ERROR_MM, "exact": 0.0, "unsteady": UNSTEADY_HAND_ERROR_MM}[hand]
        clicks_voxel = simulated_extreme_points(truth.array, rng, error_mm / np.array(geometry.spacing_mm))
        return Annotation.now(case, ExtremePoints.from_clicks(label, clicks_voxel), geometry, "scripted annotator")

    def _check(self, case: str) -> None:
        try:
            mask = load_volume(self.mask_path(case), sentinels=False)
            same_grid = mask.geometry.is_close(read_geometry(self.image_path(case)))
        except VolumeError as error:
            raise DatasetError(f"Case {case}: {error}") from error
        if not same_grid:
            raise DatasetError(f"The mask of {case} is not on the grid of its image; resample it.")
        values = np.unique(mask.array)
        if not values.any():
            raise DatasetError(f"The mask of {case} is empty; expected a structure of at least one voxel.")
        if len(self.labels) > 1 and not np.isin(values, np.arange(1 + len(self.labels))).all():
            found = ", ".join(f"{value:g}" for value in values[:5])
            raise DatasetError(
                f"The mask of {case} holds the values {found}; expected 0 to {len(self.labels)}, for "
                f"{', '.join(self.labels)}."
            )


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
    """Draw a random split, the same for the same names.

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
    """Write `split.csv` atomically."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("case", "split"), *split_of.items()])
    write_atomically(path, table.getvalue().encode())


def read_split(path: Path, names: list[str]) -> dict[Split, tuple[str, ...]]:
    """Read the cases of each split from `split.csv`.

    Raises:
        DatasetError: it names cases other than `names`, or no training or no test case.
    """
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
