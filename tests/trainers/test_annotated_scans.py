"""Scans of a training, from a folder of files; unusable files are logged and left out."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.image_identity import voxel_checksum
from lib.annotations.mask_file import MaskRecord
from lib.annotations.mask_origin import MaskOrigin
from lib.annotations.store import Absence, Annotation, AnnotationStore
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, load_volume
from lib.server.studies.open_studies import open_studies
from lib.trainers.annotated_scans import annotated_scans
from lib.training.loop import TrainingError

SHAPE = (24, 20, 12)
AFFINE = np.array([[0, -0.5, 0, 40], [0.6, 0, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
CLICKS = np.array([[2, 9, 6], [20, 9, 6], [10, 3, 6], [10, 16, 6], [10, 9, 2], [10, 9, 9]])
LABELS = ("lesion", "cyst")


class Site:
    """A studies folder and its annotations."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "labels" / "final").mkdir(parents=True)
        self.store = AnnotationStore(folder / "labels" / "extreme_points")

    def image(self, name, shape=SHAPE, affine=AFFINE, folder=".", patient=0):
        array = np.random.default_rng(patient).random(shape, dtype=np.float32)
        nib.save(nib.Nifti1Image(array, affine), self.folder / folder / f"{name}.nii.gz")

    def mask(self, name, shape=SHAPE, affine=AFFINE, value=1):
        array = np.full(shape, value, np.uint8)
        nib.save(nib.Nifti1Image(array, affine), self.folder / "labels" / "final" / f"{name}.nii.gz")

    def clicks(self, name, label="lesion", shape=SHAPE, affine=AFFINE, checksum=None):
        points = ExtremePoints.from_clicks(label, CLICKS)
        return self.store.save(Annotation.now(name, points, ImageGeometry(shape, affine), "reader", checksum))

    def absence(self, name, label="lesion", shape=SHAPE, affine=AFFINE, checksum=None):
        return self.store.save(Absence.now(name, label, ImageGeometry(shape, affine), "reader", checksum))

    def submitted(self, name, labels, value=1, checksum=None, info=None):
        """Store a mask like the server."""
        mask = Volume(np.full(SHAPE, value, np.uint8), ImageGeometry(SHAPE, AFFINE))
        self.opened().masks().save(name, mask, MaskRecord(labels, image_checksum=checksum, info=info))

    def checksum(self, name):
        return voxel_checksum(load_volume(self.folder / f"{name}.nii.gz").array)

    def opened(self, labels=LABELS):
        return open_studies(str(self.folder), labels, None)

    def scans(self, labels=LABELS):
        return {scan.image_id: scan for scan in annotated_scans(self.opened(labels), labels)}


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    for name in ("one", "two", "three"):
        site.image(name)
    return site


def clicked_labels(scan):
    return sorted(annotation.points.label for annotation in scan.annotations)


def test_scans_with_clicks_or_a_final_mask_are_used(site):
    site.clicks("one")
    site.mask("two")

    scans = site.scans()

    assert set(scans) == {"one", "two"}
    assert (clicked_labels(scans["one"]), scans["one"].mask_path, scans["one"].mask_labels) == (["lesion"], None, ())
    assert (clicked_labels(scans["two"]), scans["two"].mask_path.parent.name) == ([], "final")
    assert scans["two"].mask_labels == LABELS
    assert scans["one"].image_path == site.folder / "one.nii.gz"
    assert scans["one"].image_checksum == site.checksum("one")


def test_mask_and_clicks_on_all_labels_are_used_together(site):
    site.clicks("one", "lesion")
    site.clicks("one", "cyst")
    site.mask("one")

    scan = site.scans()["one"]

    assert scan.mask_path is not None
    assert clicked_labels(scan) == ["cyst", "lesion"]


def test_absent_labels_are_used(site):
    site.absence("one", "lesion")
    site.clicks("two", "lesion")
    site.absence("two", "cyst")

    scans = site.scans()

    assert (clicked_labels(scans["one"]), scans["one"].absent) == ([], ("lesion",))
    assert (clicked_labels(scans["two"]), scans["two"].absent) == (["lesion"], ("cyst",))


def test_last_answer_is_used(site):
    site.clicks("one")
    site.absence("one")
    site.absence("two")
    site.clicks("two")

    scans = site.scans()

    assert (clicked_labels(scans["one"]), scans["one"].absent) == ([], ("lesion",))
    assert (clicked_labels(scans["two"]), scans["two"].absent) == (["lesion"], ())


def test_mask_that_is_not_final_is_ignored(site):
    (site.folder / "labels" / "original").mkdir()
    site.clicks("one")
    site.image("two", folder="labels/original")

    assert set(site.scans()) == {"one"}


def test_answers_for_labels_that_the_app_does_not_have_are_ignored(site):
    site.clicks("one")
    site.clicks("one", "kidney")
    site.absence("one", "liver")
    site.clicks("two", "kidney")
    site.absence("three", "kidney")

    scans = site.scans()

    assert set(scans) == {"one"}
    assert (clicked_labels(scans["one"]), scans["one"].absent) == (["lesion"], ())


@pytest.mark.parametrize("prepare", [lambda site: None, lambda site: site.clicks("one", "kidney")])
def test_studies_without_usable_annotations_are_refused(site, prepare):
    prepare(site)
    with pytest.raises(TrainingError, match="^There is nothing to learn from: no study has"):
        site.scans()


OTHER_GRIDS = {
    "other size": {"shape": (24, 20, 13)},
    "shifted": {"affine": AFFINE + np.array([[0, 0, 0, 1.0], [0] * 4, [0] * 4, [0] * 4])},
    "flipped": {"affine": AFFINE * np.array([-1.0, 1, 1, 1])},
}


@pytest.mark.parametrize("grid", OTHER_GRIDS.values(), ids=OTHER_GRIDS)
def test_final_mask_on_another_grid_is_logged_and_the_clicks_are_used(site, caplog, grid):
    site.clicks("one")
    site.mask("one", **grid)

    scan = site.scans()["one"]

    assert scan.mask_path is None
    assert clicked_labels(scan) == ["lesion"]
    assert "The final mask of one is not learnt from; its clicks are used." in caplog.text
    assert "is not on the grid of its image" in caplog.text


@pytest.mark.parametrize("grid", OTHER_GRIDS.values(), ids=OTHER_GRIDS)
@pytest.mark.parametrize("answer", [Site.clicks, Site.absence])
def test_answers_for_another_image_of_the_same_name_are_ignored(site, caplog, grid, answer):
    answer(site, "one", "lesion", **grid)
    site.clicks("one", "cyst")

    scan = site.scans()["one"]
    assert (clicked_labels(scan), scan.absent) == (["cyst"], ())
    assert "The image one is not the one that was clicked on" in caplog.text


def test_scan_without_fitting_clicks_and_mask_is_left_out(site):
    site.clicks("one", shape=(24, 20, 13))
    site.mask("one", shape=(24, 20, 13))
    site.clicks("two")

    assert set(site.scans()) == {"two"}


def test_mask_on_the_grid_up_to_rounding_is_used(site):
    # NIfTI stores the affine in single precision, and viewers round it again.
    site.mask("one", affine=AFFINE + 1e-5)

    assert site.scans()["one"].mask_path is not None


@pytest.mark.parametrize(
    "content", [None, "{}", '{"schema_version": 1}', '{"schema_version": 1, "current": 7}', "[]", "null"]
)
def test_corrupt_annotation_is_logged_and_left_out(site, caplog, content):
    site.clicks("one")
    path = site.clicks("two")
    path.write_text(path.read_text()[:200] if content is None else content)

    assert set(site.scans()) == {"one"}
    assert ("two.lesion.json is not JSON" if content is None else "two.lesion.json") in caplog.text
    assert path.exists()


UNUSABLE = {
    "deleted": (lambda path: path.unlink(), ""),
    "no image": (lambda path: path.write_bytes(b"no image"), "The image two.nii.gz cannot be read"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "The image two.nii.gz cannot be read"),
    "four dimensions": (
        lambda path: nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 3), np.float32), AFFINE), path),
        "two.nii.gz has the size 24 x 20 x 12 x 3",
    ),
}


@pytest.mark.parametrize(("replace_image", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_image_is_logged_and_left_out(site, caplog, replace_image, message):
    site.clicks("one")
    site.clicks("two")
    replace_image(site.folder / "two.nii.gz")

    assert set(site.scans()) == {"one"}
    assert message in caplog.text
    assert ("left out of the training" in caplog.text) == bool(message)


@pytest.mark.parametrize(
    ("content", "message"), [(b"no image", "one.nii.gz cannot be read"), (None, "The final mask of one")]
)
def test_unusable_mask_is_logged_and_the_clicks_are_used(site, caplog, content, message):
    site.clicks("one")
    site.mask("one", value=len(LABELS) + 1)  # a value that the app does not have
    if content is not None:
        (site.folder / "labels" / "final" / "one.nii.gz").write_bytes(content)

    scan = site.scans()["one"]

    assert scan.mask_path is None
    assert clicked_labels(scan) == ["lesion"]
    assert message in caplog.text


def test_image_that_is_deleted_during_the_listing_is_left_out(site):
    site.clicks("one")
    site.clicks("two")
    studies = site.opened()
    studies.list_images = lambda: ["one", "two"]
    (site.folder / "two.nii.gz").unlink()

    assert [scan.image_id for scan in annotated_scans(studies, LABELS)] == ["one"]


def test_labels_of_a_mask_have_their_origin(site):
    info = {"accepted": {"lesion": {"origin": "accepted"}}}
    site.submitted("one", {"lesion": 1, "cyst": 2}, info=info)
    site.submitted("two", {"cyst": 1, "lesion": 2}, info={"accepted": {"cyst": {"origin": "corrected"}}})
    site.mask("three")

    scans = site.scans()

    found = {name: [scan.labels_with_origin(origin) for origin in MaskOrigin] for name, scan in scans.items()}
    assert found == {
        "one": [("lesion",), (), ("cyst",)],
        "two": [(), ("cyst",), ("lesion",)],
        "three": [(), (), ("lesion", "cyst")],
    }


# Another image with the same name


def test_clicks_on_other_voxels_of_the_same_grid_are_ignored(site):
    site.clicks("one", checksum=site.checksum("one"))
    site.clicks("two", checksum=site.checksum("two"))
    site.image("two", patient=1)

    assert set(site.scans()) == {"one"}
    assert site.store.path("two", "lesion").exists()


def test_clicks_on_the_current_voxels_are_used(site, caplog):
    site.clicks("one", checksum=site.checksum("one"))
    site.image("one", patient=1)
    site.clicks("one", "cyst", checksum=site.checksum("one"))

    assert clicked_labels(site.scans()["one"]) == ["cyst"]
    assert "The image one is not the one that was clicked on" in caplog.text


def test_mask_of_other_voxels_of_the_same_grid_is_ignored(site, caplog):
    site.clicks("one")
    site.submitted("one", {"lesion": 1}, checksum=site.checksum("one"))
    site.image("one", patient=1)

    assert site.scans()["one"].mask_path is None
    assert "The final mask of one is not learnt from" in caplog.text


def test_compression_and_format_of_an_image_do_not_matter(site):
    site.clicks("one", checksum=site.checksum("one"))
    site.submitted("two", {"lesion": 1, "cyst": 2}, checksum=site.checksum("two"))
    for name in ("one", "two"):
        path = site.folder / f"{name}.nii.gz"
        sitk.WriteImage(sitk.ReadImage(str(path)), str(site.folder / f"{name}.nrrd"), useCompression=False)
        path.unlink()

    assert {scan.image_id for scan in annotated_scans(site.opened(), LABELS)} == {"one", "two"}


# Labels of masks


def test_mask_covers_the_labels_that_the_app_had_when_it_was_submitted(site):
    site.clicks("one", "kidney")  # this label was added later: the background of the mask may contain the structure
    site.submitted("one", {"lesion": 1, "cyst": 2})

    scan = site.scans(("lesion", "cyst", "kidney"))["one"]

    assert (scan.mask_labels, clicked_labels(scan)) == (("lesion", "cyst"), ["kidney"])
    assert scan.answered == {"lesion", "cyst", "kidney"}


def test_mask_covers_the_remaining_labels_if_no_other_is_drawn_in_it(site):
    site.submitted("one", {"cyst": 1, "lesion": 2}, value=2)

    scan = site.scans(("kidney", "lesion"))["one"]

    assert scan.mask_labels == ("lesion",)
    assert set(np.unique(load_volume(scan.mask_path).array)) == {2}
