"""The converter on small files of the form of the real ones: where things lie is told by physical coordinates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.evidence.dataset import LABEL, Dataset, DatasetError
from benchmarks.vestibular_schwannoma import Sources, convert, read_authors_split
from lib.demo.dicom import dicom_series
from lib.geometry.volume import load_volume

ROOT = Path(__file__).parents[2]
SHAPE, SPACING_MM = (40, 36, 20), np.array([0.5, 0.5, 1.5])
CENTRE_MM, RADII_MM = np.array([4.0, -7.0, 11.0]), np.array([5.0, 4.0, 6.0])


def oblique_affine() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [8, -5, 12], degrees=True).as_matrix() * SPACING_MM
    affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ (np.array(SHAPE) / 2 + [3, -2, 1])
    return affine


AFFINE = oblique_affine()


def tumour(affine: np.ndarray = AFFINE, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return an ellipsoid in the patient, on whatever grid."""
    places_mm = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    return np.linalg.norm((places_mm - CENTRE_MM) / RADII_MM, axis=-1) <= 1


def label_map_of_clicks(mask: np.ndarray) -> np.ndarray:
    """Codes as in the paper's record: 1 to 6 at the ends, 12 inside of the box."""
    voxels = np.argwhere(mask)
    codes = np.zeros(mask.shape, np.uint8)
    codes[tuple(map(slice, voxels.min(axis=0), voxels.max(axis=0) + 1))] = 12
    for axis in range(3):
        for end, face in enumerate((voxels[:, axis].min(), voxels[:, axis].max())):
            codes[tuple(voxels[voxels[:, axis] == face][0])] = 1 + 2 * axis + end
    return codes


def mirrored(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the same voxels at the same places, stored in the opposite order along two axes."""
    flip = np.diag([-1.0, 1.0, -1.0, 1.0])
    flip[[0, 2], 3] = array.shape[0] - 1, array.shape[2] - 1
    return array[::-1, :, ::-1], affine @ flip


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def write_downloads(folder: Path, cases: int = 3, *, dicom: bool) -> None:
    image = (tumour() * 400 + np.arange(SHAPE[0])[:, None, None]).astype(np.int16)
    for number in range(1, cases + 1):
        if dicom:
            for description in ("t2_ci3d_tra_1.5mm_ADE", "t1_mpr_ns_sag_pat2_1mm"):
                series = folder / "images" / f"VS-SEG-{number:03d}" / "study" / description
                series.mkdir(parents=True)
                for instance in dicom_series(image, AFFINE, f"VS-SEG-{number:03d}", series=description):
                    instance.save_as(series / f"{instance.InstanceNumber:03d}.dcm", write_like_original=False)
        else:
            save(folder / "images" / f"vs_gk_{number}_T2.nii.gz", image, AFFINE)
        save(folder / "masks" / f"vs_gk_{number}_Label.nii.gz", *mirrored(tumour().astype(np.uint8), AFFINE))
        clicks = mirrored(label_map_of_clicks(tumour()), AFFINE)
        save(folder / "clicks" / "manual" / f"vs_gk_{number}_Extremes_man.nii.gz", *clicks)
        save(folder / "clicks" / "simulated" / f"vs_gk_{number}_Extremes.nii.gz", *clicks)
    (folder / "split.csv").write_text("vs_gk_1,training\nvs_gk_2,validation\nvs_gk_3,inference\n")


def converted(folder: Path, **options: bool) -> Dataset:
    sources = Sources.find(folder / "images", folder / "masks", folder / "clicks", "manual")
    return convert(sources, read_authors_split(folder / "split.csv"), folder / "out", **options)


@pytest.mark.parametrize("dicom", [True, False], ids=["DICOM", "NIfTI"])
def test_images_masks_and_clicks_lie_where_they_lie_in_the_patient(tmp_path: Path, dicom: bool) -> None:
    write_downloads(tmp_path, dicom=dicom)

    dataset = converted(tmp_path)

    assert dataset.cases == {"training": ("vs_gk_1",), "validation": ("vs_gk_2",), "test": ("vs_gk_3",)}
    image = load_volume(dataset.image_path("vs_gk_1"))
    truth = tumour(image.geometry.affine_ras, image.geometry.shape)
    bright = image.array - image.array[~truth].mean() > 200
    np.testing.assert_array_equal(bright, truth)
    np.testing.assert_array_equal(dataset.truth("vs_gk_1").array, truth)
    (annotation,) = dataset.annotations("vs_gk_1", "annotator")
    clicks = annotation.points
    assert truth[tuple(clicks.foreground_voxel.T)].all()
    voxels = np.argwhere(truth)
    for axis in range(3):
        assert clicks.extremes_voxel[axis, 0, axis] == voxels[:, axis].min()
        assert clicks.extremes_voxel[axis, 1, axis] == voxels[:, axis].max()


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    write_downloads(tmp_path, dicom=False)
    converted(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    converted(tmp_path)

    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_cases_that_are_not_whole_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    write_downloads(tmp_path, dicom=False)
    (tmp_path / "masks" / "vs_gk_2_Label.nii.gz").unlink()

    with pytest.raises(DatasetError, match=r"1 of 3 cases .*vs_gk_2: no mask.*--skip-missing"):
        converted(tmp_path)
    assert converted(tmp_path, skip_missing=True).cases["validation"] == ()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: save(f / "masks/vs_gk_1_Label.nii.gz", tumour().astype(np.uint8) * 0, AFFINE), "mask .* is empty"),
        (
            lambda f: save(f / "masks/vs_gk_1_Label.nii.gz", tumour().astype(np.uint8), AFFINE + np.eye(4)[3] * 9),
            r"mm3 of it lie in the image",
        ),
        (
            lambda f: save(
                f / "clicks/manual/vs_gk_1_Extremes_man.nii.gz",
                label_map_of_clicks(tumour()),
                np.diag([5.0, 5.0, 5.0, 1.0]),
            ),
            "outside of the image",
        ),
        (
            lambda f: save(f / "clicks/manual/vs_gk_1_Extremes_man.nii.gz", tumour().astype(np.uint8), AFFINE),
            "no voxel has the value 2",
        ),
        (lambda f: (f / "images/vs_gk_1_T2.nii.gz").write_bytes(b"none"), "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_case(tmp_path: Path, damage, message: str) -> None:
    write_downloads(tmp_path, dicom=False)
    damage(tmp_path)

    with pytest.raises(DatasetError, match=rf"vs_gk_1: .*{message}"):
        converted(tmp_path)


@pytest.mark.parametrize("line", ["vs_gk_1,exam", "vs_gk_1", "vs_gk_2,training"])
def test_a_split_of_another_form_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "split.csv").write_text(f"vs_gk_2,training\n{line}\n")

    with pytest.raises(DatasetError, match=f"line 2: '{line}'; expected"):
        read_authors_split(tmp_path / "split.csv")


def test_a_case_with_two_images_is_refused(tmp_path: Path) -> None:
    write_downloads(tmp_path, dicom=False)
    save(tmp_path / "images" / "again" / "vs_gk_1_T2.nii.gz", tumour().astype(np.uint8), AFFINE)

    with pytest.raises(DatasetError, match="vs_gk_1 has two images"):
        converted(tmp_path)


@pytest.mark.slow
def test_the_command_writes_a_dataset_and_refuses_with_a_sentence(tmp_path: Path) -> None:
    write_downloads(tmp_path, dicom=True)
    parts = [f"--{name}={tmp_path / name}" for name in ("images", "masks", "clicks", "out")]
    command = [sys.executable, "-m", "benchmarks.vestibular_schwannoma", *parts]

    done = subprocess.run([*command, f"--split={tmp_path / 'split.csv'}"], cwd=ROOT, capture_output=True, text=True)
    refused = subprocess.run([*command, "--split=none.csv"], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "1 training, 1 validation, 1 test cases" in done.stdout
    assert (tmp_path / "out" / "clicks" / f"vs_gk_3.{LABEL}.json").exists()
    assert refused.returncode == 1 and "none.csv is not there" in refused.stderr
    assert "Traceback" not in refused.stderr
