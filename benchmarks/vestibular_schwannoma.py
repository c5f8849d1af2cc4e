"""Convert the vestibular schwannoma set of the paper into a dataset of `benchmarks.table1`.

What there is to download, and under which names its files come, is as the authors' public repository describes it
(ReubenDo/InExtremIS, `data/README.md` and `train.py`); the real files were not at hand here, and the tests make small
ones of the same form:

- the T2 series, from TCIA (doi 10.7937/TCIA.9YTJ-5Q73): DICOM, one folder a series, of patients `VS-SEG-001` and so on,
  whose description begins with "t2_"; or what the authors' own conversion makes of them, `vs_gk_1_T2.nii.gz`;
- `full_annotations.zip` of Zenodo record 5081986: `vs_gk_1_Label.nii.gz`;
- `extreme_points.zip` of the same record: `manual/vs_gk_1_Extremes_man.nii.gz`, `simulated/vs_gk_1_Extremes.nii.gz`;
- the split, `vs_gk_1,training` a line without a heading, or `validation`, or `inference`, which is the test. The
  authors' splits have 176, 20 and 46 cases; the text of the paper says 172.
"""

from __future__ import annotations

import argparse
import csv
import logging
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from nibabel.processing import resample_from_to
from pydicom.errors import InvalidDicomError
from rich.progress import track

from benchmarks.evidence.dataset import LABEL, SUFFIX, Dataset, DatasetError, Split, write_split
from benchmarks.evidence.training import write_mask
from lib.annotations.atomic_write import write_atomically
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Annotation, AnnotationStore
from lib.exchange.click_records import ImportRefusedError
from lib.exchange.paper_label_maps import read_paper_label_map
from lib.geometry.dicom_series import read_series
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import VolumeError, load_volume, read_geometry

SPLIT_NAMES: dict[str, Split] = {
    "training": "training",
    "validation": "validation",
    "inference": "test",
    "test": "test",
}
CLICKS_SUFFIX = {"manual": "_Extremes_man", "simulated": "_Extremes"}
PATIENT = re.compile(r"VS-SEG-(\d+)")
HEADER_TAGS = ["PatientID", "Modality", "SeriesDescription"]
LARGEST_VOLUME_CHANGE = 0.05
"""Tolerance of a mask resampled to the grid of its image; rotated or mirrored grids are exact."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """Places of the parts of each case.

    Attributes:
        images: a NIfTI file, or a folder with one DICOM series.
        masks, clicks: NIfTI files.
    """

    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    clicks: Mapping[str, Path]

    @classmethod
    def find(cls, images: Path, masks: Path, clicks: Path, hand: str) -> Sources:
        """Search the folders and their subfolders.

        Raises:
            DatasetError: a part of a case is there twice.
        """
        return cls(
            _unique(_nifti(images, "_T2") + _t2_series(images), "images"),
            _unique(_nifti(masks, "_Label"), "masks"),
            _unique(_nifti(clicks, CLICKS_SUFFIX[hand]), "clicks"),
        )

    def missing(self, case: str) -> list[str]:
        """Names of the parts of a case that were not found."""
        parts = {"image": self.images, "mask": self.masks, "clicks": self.clicks}
        return [name for name, found in parts.items() if case not in found]


def read_authors_split(path: Path) -> dict[str, Split]:
    """Split of each case, from the authors' file.

    Raises:
        DatasetError: no such file, a line of another form, or a case that is there twice.
    """
    if not path.exists():
        raise DatasetError(f"{path} is not there; expected a split such as the authors' split_inextremis_budget1.csv.")
    split_of: dict[str, Split] = {}
    with path.open(newline="") as file:
        for number, line in enumerate(csv.reader(file), start=1):
            if not line or line == ["case", "split"]:
                continue
            if len(line) != 2 or line[1] not in SPLIT_NAMES or line[0] in split_of:
                raise DatasetError(
                    f"{path.name}, line {number}: {','.join(line)!r}; expected a case that was not named before and "
                    f"one of {', '.join(SPLIT_NAMES)}, such as vs_gk_1,training."
                )
            split_of[line[0]] = SPLIT_NAMES[line[1]]
    return split_of


def convert(
    sources: Sources,
    split_of: Mapping[str, Split],
    out: Path,
    *,
    skip_missing: bool = False,
    skipped: Callable[[str, str], None] = lambda case, reason: None,
) -> Dataset:
    """Write the dataset; existing cases are kept.

    Args:
        skip_missing: leave out cases that are not whole, instead of refusing all.
        skipped: called with each case that is left out, and a sentence.

    Raises:
        DatasetError: a case of the split is not whole or cannot be read; all that are incomplete are named.
    """
    incomplete = {case: parts for case in split_of if (parts := sources.missing(case))}
    if incomplete and not skip_missing:
        named = "; ".join(f"{case}: no {' and no '.join(parts)}" for case, parts in list(incomplete.items())[:10])
        raise DatasetError(
            f"{len(incomplete)} of {len(split_of)} cases of the split are not whole ({named}). Give the folders that "
            "hold them, or leave them out with --skip-missing."
        )
    for case, parts in incomplete.items():
        skipped(case, f"There is no {' and no '.join(parts)}.")
    whole = [case for case in split_of if case not in incomplete]
    for case in track(whole, "Cases"):
        if not (out / "clicks" / f"{case}.{LABEL}.json").exists():
            _convert_case(case, sources, out)
    write_split(out / "split.csv", {case: split_of[case] for case in whole})
    return Dataset.open(out)


def _convert_case(case: str, sources: Sources, out: Path) -> None:
    try:
        image_path = out / "images" / f"{case}{SUFFIX}"
        _write_image(sources.images[case], image_path)
        geometry = read_geometry(image_path)
        write_mask(out / "masks" / f"{case}{SUFFIX}", _mask_on(geometry, sources.masks[case]), geometry)
        (record,) = [read_paper_label_map(sources.clicks[case], case, LABEL)][0]
        assert record.grid is not None  # of a label map
        clicks_voxel = _clicks_on(geometry, np.array(record.points), record.grid)
    except (VolumeError, ImportRefusedError) as error:
        raise DatasetError(f"Case {case}: {error}") from error
    except DatasetError as error:
        raise DatasetError(f"Case {case}: {error}") from error
    points = ExtremePoints.from_clicks(LABEL, clicks_voxel)
    # Last, as it is what tells that a case is done.
    AnnotationStore(out / "clicks").save(Annotation.now(case, points, geometry, "Zenodo 5081986"))


def _write_image(source: Path, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / f"image{SUFFIX}"
        if source.is_dir():
            volume, *others = read_series(source)
            if others or volume.name:
                raise DatasetError(f"The series {source.name} is not a single volume without gantry tilt.")
            volume.write(written)
        else:
            load_volume(source)  # refuses what is no volume
            nib.save(nib.load(source), written)
        write_atomically(path, written.read_bytes())


def _mask_on(geometry: ImageGeometry, path: Path) -> np.ndarray:
    """(X, Y, Z) bool on the grid of the image."""
    mask = load_volume(path, sentinels=False)
    inside = mask.array > 0
    if not inside.any():
        raise DatasetError(f"The mask {path.name} is empty; expected a tumour.")
    if mask.geometry.is_close(geometry):
        return inside
    moved = resample_from_to(
        nib.Nifti1Image(inside.astype(np.uint8), mask.geometry.affine_ras),
        (geometry.shape, geometry.affine_ras),
        order=0,
    )
    on_grid = np.asarray(moved.dataobj) > 0
    before_mm3, after_mm3 = (
        count * np.prod(grid.spacing_mm) for count, grid in ((inside.sum(), mask.geometry), (on_grid.sum(), geometry))
    )
    if abs(after_mm3 - before_mm3) > LARGEST_VOLUME_CHANGE * before_mm3:
        raise DatasetError(
            f"The mask {path.name} has {before_mm3:.0f} mm3, and {after_mm3:.0f} mm3 of it lie in the image; expected "
            "the mask of this image."
        )
    return on_grid


def _clicks_on(geometry: ImageGeometry, points_voxel: np.ndarray, grid: ImageGeometry) -> np.ndarray:
    """Map clicks (N, 3) in voxels of another grid to the nearest voxels of the image."""
    clicks_voxel = np.rint(geometry.ras_to_voxel(grid.voxel_to_ras(points_voxel))).astype(np.int64)
    if not geometry.contains(clicks_voxel).all():
        outside = clicks_voxel[~geometry.contains(clicks_voxel)][0].tolist()
        raise DatasetError(f"A click lies at the voxel {outside}, outside of the image of {geometry.shape} voxels.")
    return clicks_voxel


def _nifti(folder: Path, suffix: str) -> list[tuple[str, Path]]:
    pattern = re.compile(rf"(vs_gk_\d+){suffix}\.nii(\.gz)?")
    return [(match[1], path) for path in sorted(folder.rglob("*.nii*")) if (match := pattern.fullmatch(path.name))]


def _t2_series(folder: Path) -> list[tuple[str, Path]]:
    """Return case and folder of each T2 series, from the header of one of its files."""
    found = []
    for directory in sorted({path.parent for path in folder.rglob("*.dcm")}):
        try:
            header = pydicom.dcmread(next(directory.glob("*.dcm")), stop_before_pixels=True, specific_tags=HEADER_TAGS)
        except (InvalidDicomError, OSError):
            continue
        patient = PATIENT.fullmatch(str(header.get("PatientID", "")))
        is_t2 = header.get("Modality") == "MR" and str(header.get("SeriesDescription", "")).lower().startswith("t2_")
        if patient and is_t2:
            found.append((f"vs_gk_{int(patient[1])}", directory))
    return found


def _unique(found: list[tuple[str, Path]], kind: str) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for case, path in found:
        if case in paths:
            raise DatasetError(
                f"{case} has two {kind}, {paths[case]} and {path}; expected one. Give a narrower folder."
            )
        paths[case] = path
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vestibular_schwannoma",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of the T2 series, DICOM or NIfTI")
    parser.add_argument("--masks", type=Path, required=True, help="folder of the unpacked full_annotations.zip")
    parser.add_argument("--clicks", type=Path, required=True, help="folder of the unpacked extreme_points.zip")
    parser.add_argument("--split", type=Path, required=True, help="CSV file of the split")
    parser.add_argument("--out", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--hand", choices=CLICKS_SUFFIX, default="manual", help="whose clicks (default: %(default)s)")
    parser.add_argument("--skip-missing", action="store_true", help="leave out cases that are not whole")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    try:
        sources = Sources.find(options.images, options.masks, options.clicks, options.hand)
        dataset = convert(
            sources,
            read_authors_split(options.split),
            options.out.resolve(),
            skip_missing=options.skip_missing,
            skipped=lambda case, reason: logger.warning("%s is left out. %s", case, reason),
        )
    except (DatasetError, OSError) as error:
        sys.exit(f"{error}")
    print(", ".join(f"{len(cases)} {split}" for split, cases in dataset.cases.items()), "cases in", dataset.folder)


if __name__ == "__main__":
    main()
