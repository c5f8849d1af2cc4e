"""Small datasets in the form that the benchmarks read."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.evidence.dataset import write_split

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
SHAPE = (24, 24, 12)


def box_mask(start: tuple[int, int, int] = (8, 9, 4), stop: tuple[int, int, int] = (15, 16, 9)) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = 1
    return mask


def write_case(
    folder: Path, case: str, mask: np.ndarray, mask_affine: np.ndarray = AFFINE, image: np.ndarray | None = None
) -> None:
    if image is None:
        image = mask * 400.0 + 300 + np.random.default_rng(list(case.encode())).normal(0, 30, mask.shape)
    for kind, array, affine in (("images", image, AFFINE), ("masks", mask, mask_affine)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array.astype(np.int16), affine), folder / kind / f"{case}.nii.gz")


def write_dataset(folder: Path, training: int = 2) -> Path:
    """Bright boxes at different places."""
    split_of = {f"train_{n}": "training" for n in range(training)} | {"val_0": "validation", "test_0": "test"}
    for n, case in enumerate(split_of):
        write_case(folder, case, box_mask((5 + n % 5, 9, 3), (12 + n % 5, 16, 8)))
    write_split(folder / "split.csv", split_of)
    return folder
