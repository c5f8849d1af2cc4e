"""Score masks against the truth, and compare rows."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from monai.metrics import (
    compute_confusion_matrix_metric,
    compute_dice,
    compute_hausdorff_distance,
    get_confusion_matrix,
)
from scipy.stats import wilcoxon

from lib.annotations.atomic_write import write_atomically
from lib.geometry.image_geometry import ImageGeometry


@dataclass(frozen=True)
class CaseScore:
    """A structure of a case of a run.

    An empty mask has a Dice and a precision of 0, and as its distance the diagonal of the image: no answer is never
    better than a bad one. `predicted_voxels` tells which these are.

    Attributes:
        dice, precision: in [0, 1].
        hd95_mm: 95th percentile of the Hausdorff distance, the larger of both directions.
    """

    row: str
    seed: int
    split: str
    case: str
    label: str
    dice: float
    hd95_mm: float
    precision: float
    predicted_voxels: int
    true_voxels: int

    @property
    def is_empty(self) -> bool:
        return self.predicted_voxels == 0


def mask_scores(predicted: np.ndarray, truth: np.ndarray, geometry: ImageGeometry) -> tuple[float, float, float]:
    """Dice, HD95 in mm, and precision of a mask.

    Args:
        predicted, truth: (X, Y, Z) bool; the truth holds a voxel.

    Raises:
        ValueError: the truth is empty.
    """
    if not truth.any():
        raise ValueError("the true mask is empty; expected a structure of at least one voxel")
    if not predicted.any():
        return 0.0, float(np.linalg.norm(np.multiply(geometry.shape, geometry.spacing_mm))), 0.0
    one, other = (torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth))
    dice = compute_dice(one, other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI warns of an argument that it passes to itself
        hd95_mm = compute_hausdorff_distance(
            one, other, include_background=True, percentile=95, spacing=list(geometry.spacing_mm)
        )
    precision = compute_confusion_matrix_metric("precision", get_confusion_matrix(one, other))
    return float(dice), float(hd95_mm), float(precision)


def write_scores(path: Path, scores: Iterable[CaseScore]) -> None:
    """Write a CSV file atomically, a line for each case."""
    table = io.StringIO()
    writer = csv.DictWriter(table, [field.name for field in fields(CaseScore)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{v:.4f}" if isinstance(v, float) else v for key, v in asdict(s).items()} for s in scores)
    write_atomically(path, table.getvalue().encode())


def read_scores(path: Path) -> list[CaseScore]:
    """Read a CSV file. Raises: ValueError: it has another form."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    if lines and set(lines[0]) != {field.name for field in fields(CaseScore)}:
        raise ValueError(f"{path} has the columns {', '.join(lines[0])}; delete it, and its run is done anew")
    columns: dict[str, Callable[[str], Any]] = get_type_hints(CaseScore)
    return [CaseScore(**{name: columns[name](value) for name, value in line.items()}) for line in lines]


def by_case(scores: Sequence[CaseScore], measure: str) -> dict[str, float]:
    """Return the mean over the seeds and structures for each case."""
    values: dict[str, list[float]] = {}
    for score in scores:
        values.setdefault(score.case, []).append(getattr(score, measure))
    return {case: float(np.mean(of_case)) for case, of_case in sorted(values.items())}


def wilcoxon_p(scores: Sequence[CaseScore], reference: Sequence[CaseScore], measure: str) -> float | None:
    """Two-sided p of the Wilcoxon signed-rank test on the cases and seeds that both have.

    Seeds are averaged first: they are no further patients.

    Returns:
        None where no case differs, or no seed is common.
    """
    common = {score.seed for score in scores} & {score.seed for score in reference}
    one, other = (by_case([s for s in of_row if s.seed in common], measure) for of_row in (scores, reference))
    differences = np.array([one[case] - other[case] for case in one if case in other])
    return float(wilcoxon(differences).pvalue) if np.any(differences) else None
