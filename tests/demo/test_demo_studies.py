"""Demo studies are reproducible, their truth is what it says, and a threshold does not find the lesion."""

from __future__ import annotations

import socket
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.measure import label

from lib.demo import anatomy
from lib.demo.demo_studies import MANIFEST, DemoStudySettings, make_demo_study, write_demo_studies
from lib.metrics import dice

Study = tuple[nib.Nifti1Image, nib.Nifti1Image]

# As many voxels as a small lesion needs, where a test does not look at the pictures.
SMALL = DemoStudySettings(shape=(24, 24, 20), spacing_mm=(1.0, 1.0, 1.0), lesion_radius_mm=(5.5, 6.5))


@pytest.fixture(scope="module")
def studies() -> list[Study]:
    return [make_demo_study(index) for index in range(6)]


def voxels(image: nib.Nifti1Image) -> np.ndarray:
    return np.asarray(image.dataobj)


def read_nifti(path: Path) -> nib.Nifti1Image:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


def test_the_random_numbers_of_a_study_and_of_the_caller_are_independent() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    first = make_demo_study(3, SMALL)
    torch.manual_seed(1)
    again = make_demo_study(3, SMALL)

    assert torch.equal(torch.rand(3), expected)
    assert [one.to_bytes() for one in first] == [one.to_bytes() for one in again]


def test_other_seeds_and_other_indices_give_other_studies() -> None:
    settings = [SMALL, DemoStudySettings(SMALL.shape, SMALL.spacing_mm, SMALL.lesion_radius_mm, seed=1)]
    images = [make_demo_study(index, each)[0] for each in settings for index in range(2)]

    assert len({image.to_bytes() for image in images}) == len(images)


def test_the_truth_is_one_lesion_of_plausible_size_inside_the_image(studies: list[Study]) -> None:
    for _, truth in studies:
        mask = voxels(truth) > 0
        spacing_mm = np.array(truth.header.get_zooms())
        inside = np.argwhere(mask)
        extent_mm = (np.ptp(inside, axis=0) + 1) * spacing_mm

        assert truth.get_data_dtype() == np.uint8 and set(np.unique(voxels(truth))) == {0, 1}
        assert label(mask, connectivity=1).max() == 1
        assert 0.4 < mask.sum() * spacing_mm.prod() / 1000 < 6
        assert 8 < extent_mm.max() <= 25 + spacing_mm.max()
        assert (inside.min(axis=0) > 0).all() and (inside.max(axis=0) < np.array(mask.shape) - 1).all()


def test_a_lesion_is_whole_in_a_field_of_view_that_barely_holds_it() -> None:
    settings = DemoStudySettings((24, 24, 24), (1.0, 1.0, 1.0), lesion_radius_mm=(7.9, 8.0))

    for index in range(8):
        inside = np.argwhere(voxels(make_demo_study(index, settings)[1]))
        assert inside.min() > 0 and inside.max() < 23


@pytest.mark.slow
def test_image_and_truth_share_one_oblique_grid(studies: list[Study]) -> None:
    for image, truth in studies:
        assert image.shape == truth.shape == DemoStudySettings().shape
        np.testing.assert_array_equal(image.affine, truth.affine)
        for volume in (image, truth):
            np.testing.assert_allclose(volume.get_sform(), volume.affine)
            np.testing.assert_allclose(volume.get_qform(), volume.affine, atol=1e-3)
            assert volume.header["sform_code"] == volume.header["qform_code"] == 1
            assert volume.header.get_xyzt_units()[0] == "mm"
        assert np.rad2deg(nib.affines.obliquity(image.affine)).max() > 0.5
        assert np.linalg.norm(image.affine[:3, 3]) > 5
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


def test_slices_are_as_in_the_paper_unless_asked_otherwise(studies: list[Study]) -> None:
    spacings_mm = np.array([image.header.get_zooms() for image, _ in studies])

    np.testing.assert_allclose(spacings_mm[:, :2], 0.5, rtol=1e-5)
    assert ((spacings_mm[:, 2] >= 1.0) & (spacings_mm[:, 2] <= 1.5)).all()
    assert len(np.unique(spacings_mm[:, 2])) > 1


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [((60, 60, 6), (0.5, 0.5, 6.5)), ((30, 32, 34), (1.0, 1.0, 1.0)), ((30, 20, 50), (0.8, 1.2, 0.7))],
)
def test_shape_and_spacing_asked_for_are_shape_and_spacing_got(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    image, truth = make_demo_study(0, DemoStudySettings(shape, spacing_mm, (5.5, 6.5)))

    assert image.shape == shape
    np.testing.assert_allclose(image.header.get_zooms(), spacing_mm, rtol=1e-5)
    assert label(voxels(truth), connectivity=1).max() == 1


def test_thick_slices_show_the_same_subject() -> None:
    """Two slices of 1 mm, averaged, are one of 2 mm, but for the noise and the bias field."""
    thin, thick = (
        DemoStudySettings((24, 24, slices), (1.0, 1.0, thickness), (5.5, 6.5))
        for slices, thickness in ((24, 1.0), (12, 2.0))
    )
    (_, thin_truth), (_, thick_truth) = make_demo_study(1, thin), make_demo_study(1, thick)

    thin_ml, thick_ml = (
        voxels(truth).sum() * np.prod(truth.header.get_zooms()) / 1000 for truth in (thin_truth, thick_truth)
    )
    assert thick_ml == pytest.approx(thin_ml, rel=0.15)


def test_the_lesion_stands_out_moderately(studies: list[Study]) -> None:
    for image, truth in studies:
        mask = voxels(truth) > 0
        around = ndimage.binary_dilation(mask, iterations=6) & ~ndimage.binary_dilation(mask, iterations=2)
        lesion = voxels(image)[mask]

        assert 1.05 < lesion.mean() / voxels(image)[around].mean() < 3
        assert (voxels(image)[~mask] > np.median(lesion)).sum() > 0.1 * mask.sum()


def test_a_threshold_does_not_find_the_lesion(studies: list[Study]) -> None:
    best, best_component = [], []
    for image, truth in studies:
        mask, intensity = voxels(truth) > 0, voxels(image)
        above = [intensity > threshold for threshold in np.linspace(300, intensity.max() - 1, 30)]
        best.append(max(dice(bright, mask) for bright in above))
        components = [label(bright, connectivity=1) for bright in above]
        largest = [each == np.bincount(each[each > 0]).argmax() for each in components]
        best_component.append(max(dice(component, mask) for component in largest))

    assert np.mean(np.array(best) < 0.6) >= 0.8
    assert np.mean(np.array(best_component) < 0.6) >= 0.7


def test_the_anatomy_needs_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    from nilearn.datasets import load_mni152_template

    def offline(*_: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", offline)
    load_mni152_template.cache_clear()
    anatomy.head_template.cache_clear()

    head = anatomy.head_template()

    assert head.intensity.shape == head.hull_mm.shape
    np.testing.assert_allclose(nib.affines.voxel_sizes(head.affine), 1.0)


def test_study_n_does_not_depend_on_how_many_are_written(tmp_path: Path) -> None:
    for count in (1, 2):
        write_demo_studies(tmp_path / f"studies_{count}", tmp_path / f"truth_{count}", count, SMALL)

    for folder in ("studies", "truth"):
        one, two = (tmp_path / f"{folder}_{count}" / "study_00.nii.gz" for count in (1, 2))
        assert one.read_bytes() == two.read_bytes()


def test_studies_and_truth_lie_apart_under_the_same_names(tmp_path: Path) -> None:
    done: list[int] = []

    names = write_demo_studies(tmp_path / "studies", tmp_path / "truth", 2, SMALL, done.append)

    files = {f"{name}.nii.gz" for name in names}
    assert names == ["study_00", "study_01"] and done == [1, 2]
    assert {path.name for path in (tmp_path / "studies").iterdir()} == files
    assert {path.name for path in (tmp_path / "truth").iterdir()} == files | {MANIFEST}
    for index, name in enumerate(names):
        for folder, made in zip(("studies", "truth"), make_demo_study(index, SMALL), strict=True):
            read = read_nifti(tmp_path / folder / f"{name}.nii.gz")
            np.testing.assert_array_equal(voxels(read), voxels(made))
            np.testing.assert_allclose(read.affine, made.affine, atol=1e-5)


@pytest.mark.parametrize("truth", ["studies", "studies/truth"])
def test_truth_that_the_server_would_see_is_refused(tmp_path: Path, truth: str) -> None:
    with pytest.raises(ValueError, match="lies in studies_dir"):
        write_demo_studies(tmp_path / "studies", tmp_path / truth, 1, SMALL)

    assert not list(tmp_path.iterdir())


def test_what_is_there_is_kept_and_what_is_missing_is_made_also_in_folders_that_were_moved(tmp_path: Path) -> None:
    write_demo_studies(tmp_path / "demo" / "studies", tmp_path / "demo" / "truth", 2, SMALL)
    moved = (tmp_path / "demo").rename(tmp_path / "elsewhere")
    studies_dir, truth_dir = moved / "studies", moved / "truth"
    kept, lost = studies_dir / "study_00.nii.gz", truth_dir / "study_01.nii.gz"
    made_ns, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()

    write_demo_studies(studies_dir, truth_dir, 2, SMALL)

    assert kept.stat().st_mtime_ns == made_ns
    assert lost.read_bytes() == content


def test_studies_of_other_settings_are_refused_and_left_alone(tmp_path: Path) -> None:
    studies_dir, truth_dir = tmp_path / "studies", tmp_path / "truth"
    write_demo_studies(studies_dir, truth_dir, 1, SMALL)
    content = (studies_dir / "study_00.nii.gz").read_bytes()

    with pytest.raises(ValueError, match="was made with other settings"):
        write_demo_studies(studies_dir, truth_dir, 1, DemoStudySettings(seed=5))

    assert (studies_dir / "study_00.nii.gz").read_bytes() == content


def test_a_users_own_file_is_never_overwritten(tmp_path: Path) -> None:
    own = tmp_path / "studies" / "study_00.nii.gz"
    own.parent.mkdir()
    own.write_bytes(b"a scan")

    with pytest.raises(ValueError, match="exists, but .* does not"):
        write_demo_studies(tmp_path / "studies", tmp_path / "truth", 1, SMALL)

    assert own.read_bytes() == b"a scan"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (112, 112, 10)}, "along z is 10 voxels of 1 mm, .* give at least 25 voxels"),
        ({"shape": (40, 112, 36)}, "along x is 40 voxels of 0.5 mm, .* give at least 50 voxels"),
        ({"spacing_mm": (0.5, -0.5, 1.0)}, "not positive"),
        ({"seed": -1}, "not positive"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DemoStudySettings(**settings)  # type: ignore[arg-type]
