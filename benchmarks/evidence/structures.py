"""Read structures with their true masks from a folder of images and masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import ndimage

from benchmarks.evidence.dataset import LABEL, SUFFIX, DatasetError, Split, read_split
from lib.annotations.simulated_clicks import largest_component
from lib.clickmask.label_map import BoxedMask
from lib.geometry.boxes import Box
from lib.geometry.volume import Volume, load_volume

SUFFIXES = (".nii.gz", ".nii", ".nrrd")
MIN_VOXELS = 100
MIN_EXTENT = 3
"""Voxels along each axis."""

SplitOrAll = Literal[Split, "all"]


@dataclass(frozen=True, eq=False)
class Structure:
    """The largest component of one label in one case.

    Attributes:
        value: of the label in the file of the mask; 1 where all values are one label.
        truth: its tight box in the image, and the mask in that box.
        image_shape: (X, Y, Z) of the image.
    """

    case: str
    label: str
    value: int
    truth: BoxedMask
    image_shape: tuple[int, ...]

    @property
    def too_small(self) -> bool:
        box, mask = self.truth
        return np.count_nonzero(mask) < MIN_VOXELS or min(box.shape) < MIN_EXTENT


@dataclass(frozen=True)
class StructureFolder:
    """Cases with the truth, in one of three forms.

    - `images/CASE.nii.gz` and `masks/CASE.nii.gz`, with or without `split.csv`, as in `Dataset`;
    - `CASE/image.*` and `CASE/label.*`, where * is nii.gz, nii or nrrd;
    - one such CASE.

    Attributes:
        paths: of the image and the mask of each case.
        splits: empty where there is no `split.csv`.
        labels: names of the values 1, 2, ... of the masks; of one label all values are. None: each value is a label of
            its own, such as `label 12`.
    """

    folder: Path
    paths: Mapping[str, tuple[Path, Path]]
    splits: Mapping[Split, tuple[str, ...]]
    labels: tuple[str, ...] | None

    @classmethod
    def open(cls, folder: Path, labels: Sequence[str] | None = None) -> StructureFolder:
        """Find the cases. Without `labels`, masks in `masks/` have one label, other masks one for each value.

        Raises:
            DatasetError: no images, an image without a mask, or a split that names other cases.
        """
        named = None if labels is None else tuple(labels)
        if (folder / "images").is_dir():
            paths = {
                path.name.removesuffix(SUFFIX): (path, folder / "masks" / path.name)
                for path in sorted((folder / "images").glob(f"*{SUFFIX}"))
            }
            named = named or (LABEL,)
        else:
            candidates = [folder, *sorted(folder.glob("*/"))]
            paths = {case.name: (image, _file(case, "label")) for case in candidates if (image := _find(case, "image"))}
        if not paths:
            raise DatasetError(
                f"{folder} is no dataset; expected images/CASE.nii.gz and masks/CASE.nii.gz, or CASE/image.* and "
                f"CASE/label.* ({', '.join(SUFFIXES)})."
            )
        if missing := [mask for _, mask in paths.values() if not mask.is_file()]:
            raise DatasetError(f"The mask {missing[0]} is not there; add it, or remove the image of that case.")
        split = folder / "split.csv"
        return cls(folder, paths, read_split(split, list(paths)) if split.exists() else {}, named)

    def cases(self, split: SplitOrAll) -> tuple[str, ...]:
        """Return the cases of a split. Raises: DatasetError: there is no split."""
        if split == "all":
            return tuple(self.paths)
        if not self.splits:
            raise DatasetError(f"{self.folder} has no split.csv, so no {split} cases; add it (columns case and split).")
        return self.splits[split]

    def load(self, case: str) -> tuple[Volume, tuple[Structure, ...]]:
        """Return the image, and its structures by value.

        Raises:
            VolumeError: a file that cannot be read.
            DatasetError: a mask of another grid, or with values that no label has.
        """
        image_path, mask_path = self.paths[case]
        image, mask = load_volume(image_path), load_volume(mask_path, sentinels=False)
        if not mask.geometry.is_close(image.geometry):
            raise DatasetError(f"The mask of {case} is not on the grid of its image; resample it.")
        return image, tuple(self._structures(case, self._values(case, mask.array)))

    def _values(self, case: str, mask: np.ndarray) -> np.ndarray:
        if self.labels is not None and len(self.labels) == 1:
            return (mask > 0).astype(np.int32)
        values = mask.astype(np.int32)
        most = np.iinfo(np.uint16).max if self.labels is None else len(self.labels)
        wrong = mask[(values != mask) | (values < 0) | (values > most)]
        if wrong.size:
            names = "" if self.labels is None else f", for {', '.join(self.labels)}"
            raise DatasetError(
                f"The mask of {case} holds the value {wrong[0]:g}; expected whole numbers from 0 to {most}{names}."
            )
        return values

    def _structures(self, case: str, values: np.ndarray) -> Iterator[Structure]:
        for value, slices in enumerate(ndimage.find_objects(values), start=1):
            if slices is not None:
                component = largest_component(values[slices] == value)
                tight = Box.around(np.argwhere(component))
                box = tight.shifted(np.array([s.start for s in slices]))
                label = f"label {value}" if self.labels is None else self.labels[value - 1]
                yield Structure(case, label, value, (box, component[tight.slices]), values.shape)


def _find(folder: Path, stem: str) -> Path | None:
    return next((path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()), None)


def _file(folder: Path, stem: str) -> Path:
    return _find(folder, stem) or folder / f"{stem}{SUFFIX}"
