"""scripts/import_annotations.sh --dicom: SEG, RTSTRUCT and SR of other programs, by physical position."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from lib.annotations.mask_store import MaskStore
from lib.annotations.store import AnnotationStore
from lib.server.audit import last_records
from lib.server.project import Project
from scripts.import_annotations import main
from tests.exchange.dicom_objects import outlines, report, segmentation, structure_set
from tests.exchange.studies import write_volume
from tests.physical import PLANES, header_lps_mm, l_shape, mask_lps_mm, object_lps_mm, series, share_in

LABELS = ["--labels", "lesion,cyst"]
ENDS = [[4, 6, 4], [16, 6, 4], [5, 5, 6], [5, 16, 8], [10, 6, 3], [5, 14, 9]]
"""Extreme points of the L, in columns, rows and slices of `tests.physical.series`, an axis after the other."""


@pytest.fixture(params=["axial", "sagittal, slices to the right", "oblique, slices downwards"])
def plane(request):
    return request.param


@pytest.fixture
def studies(tmp_path):
    return tmp_path / "studies"


def write_image(studies, name, plane, axes=None):
    """The image of `series`, as its own grid or with other axes: RAS codes, of the same voxels in other order."""
    affine = PLANES[plane]
    image = nib.Nifti1Image(l_shape(), affine)
    if axes:
        image = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(axes)))
    return write_volume(studies / f"{name}.nii.gz", np.asarray(image.dataobj), image.affine)


def save(dataset, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, write_like_original=False)
    return path


def objects_of(instances):
    return np.stack([instance.pixel_array > 500 for instance in instances])


def run(studies, *arguments):
    return main([str(studies), *LABELS, *map(str, arguments)])


def final(studies, image):
    project = Project(studies)
    store = MaskStore(project.masks(), ("lesion", "cyst"), project.mapped_masks)
    return store.load(image), store.record(image)


def lies_on_object(studies, image, instances):
    """Is what the final mask holds the object in the slices, by SimpleITK and by the slices' headers?"""
    mask_mm, object_mm = mask_lps_mm(studies / "labels" / "final" / f"{image}.nii.gz"), object_lps_mm(instances)
    return len(mask_mm) == len(object_mm) and share_in(mask_mm, object_mm) == 1


@pytest.mark.parametrize("order", ["shuffled", "descending"])
@pytest.mark.parametrize("axes", [None, "RAS", "PIR"])
def test_segmentation_becomes_the_final_mask_where_it_lies(studies, tmp_path, plane, order, axes):
    instances = series(plane, order)
    write_image(studies, "scan", plane, axes)
    save(segmentation(instances, {"lesion": objects_of(instances)}), tmp_path / "scan.seg.dcm")

    assert run(studies, "--dicom", tmp_path / "scan.seg.dcm") == 0

    assert lies_on_object(studies, "scan", instances)
    _, record = final(studies, "scan")
    assert (record.labels, record.annotator) == ({"lesion": 1}, "Doe Jane")
    said = record.info["imported"]["lesion"]
    assert said["kind"] == "SEG" and said["made_by"] == "Other Other Viewer 7" and said["sop_instance_uid"]


def test_each_segment_is_its_label_and_a_mask_covers_those_that_are_there(studies, tmp_path):
    instances = series("oblique")
    write_image(studies, instances[0].SeriesInstanceUID, "oblique")
    lesion = objects_of(instances)
    cyst = np.zeros_like(lesion)
    cyst[1, 2:5, 3] = True
    save(segmentation(instances, {"CYST": cyst, "GTV": lesion}), tmp_path / "any name.dcm")

    assert run(studies, "--dicom", tmp_path, "--rename", "GTV=lesion", "--annotator", "anna") == 0

    mask, record = final(studies, instances[0].SeriesInstanceUID)
    assert (record.labels, record.annotator) == ({"lesion": 1, "cyst": 2}, "anna")
    np.testing.assert_array_equal(mask.array == 1, l_shape() > 500)
    np.testing.assert_array_equal(np.argwhere(mask.array == 2), [[3, 2, 1], [3, 3, 1], [3, 4, 1]])
    (audit,) = last_records(Project(studies).audit, 5)
    assert (audit.action, audit.of) == ("import of masks", "annotations: 1; status: 0")


def test_fractional_segments_count_from_one_half(studies, tmp_path):
    instances = series()
    write_image(studies, "scan", "axial")
    shares = np.where(objects_of(instances), 0.6, 0.4)
    save(segmentation(instances, {"lesion": shares}, fractional=True), tmp_path / "scan.dcm")

    assert run(studies, "--dicom", tmp_path / "scan.dcm") == 0

    np.testing.assert_array_equal(final(studies, "scan")[0].array == 1, l_shape() > 500)


@pytest.mark.parametrize("axes", [None, "PIR"])
def test_structure_set_becomes_the_final_mask_where_it_lies(studies, tmp_path, plane, axes):
    instances = series(plane, "shuffled")
    write_image(studies, instances[0].SeriesInstanceUID, plane, axes)
    save(structure_set(instances, {"Lesion": outlines(instances)}), tmp_path / "structures" / "rt")

    assert run(studies, "--dicom", tmp_path / "structures") == 0

    assert lies_on_object(studies, instances[0].SeriesInstanceUID, instances)
    _, record = final(studies, instances[0].SeriesInstanceUID)
    assert record.annotator == "Roe Richard" and record.info["imported"]["lesion"]["name"] == "Lesion"


def test_contours_through_the_middles_of_pixels_hold_them_and_inner_ones_are_holes(studies, tmp_path):
    instances = series("oblique")
    write_image(studies, "scan", "oblique")
    outer, inner = (
        [(r0, c0), (r0, c1), (r1, c1), (r1, c0)] for r0, c0, r1, c1 in ((3, 4, 12, 15), (5.5, 6.5, 8.5, 9.5))
    )
    drawn = structure_set(instances, {"lesion": [(instances[2], outer), (instances[2], inner)]})
    save(drawn, tmp_path / "scan.dcm")

    assert run(studies, "--dicom", tmp_path / "scan.dcm") == 0

    expected = np.zeros(l_shape().shape, bool)
    expected[4:16, 3:13, 2] = True
    expected[7:10, 6:9, 2] = False
    np.testing.assert_array_equal(final(studies, "scan")[0].array > 0, expected)


def ends_lps_mm(instances):
    by_slice = sorted(instances, key=lambda one: int(one.InstanceNumber))
    return np.array([header_lps_mm(by_slice[k], row, column) for column, row, k in ENDS])


def clicks(studies, image, label="lesion"):
    return AnnotationStore(Project(studies).clicks).load(image, label)


@pytest.mark.parametrize("form", ["points", "lines", "on images", "a group for each"])
def test_points_and_lines_of_a_report_become_clicks_where_they_lie(studies, tmp_path, plane, form):
    instances = series(plane)
    uid = instances[0].SeriesInstanceUID
    write_image(studies, uid, plane, "PIR")
    ends = ends_lps_mm(instances)
    sr = {
        "points": lambda: report(instances, [("lesion", ends)]),
        "lines": lambda: report(instances, [("lesion", ends)], lines=True),
        "on images": lambda: report(
            instances, [("lesion", [(instances[k], j, i) for i, j, k in ENDS])], on_images=True
        ),
        "a group for each": lambda: report(instances, [("lesion", [end]) for end in ends]),
    }[form]()
    save(sr, tmp_path / "dicom" / "sr.dcm")
    for number, instance in enumerate(instances):
        save(instance, tmp_path / "dicom" / f"{number}.dcm")

    assert run(studies, "--dicom", tmp_path / "dicom") == 0

    annotation = clicks(studies, uid)
    found = annotation.geometry.voxel_to_lps(annotation.points.foreground_voxel)
    np.testing.assert_allclose(_in_order(found), _in_order(ends), atol=1e-3)
    assert annotation.annotator == "Poe Anna"


def _in_order(points_mm):
    return points_mm[np.lexsort(np.round(points_mm, 2).T)]


def test_all_kinds_in_one_folder_and_the_second_time_all_is_kept(studies, tmp_path, capsys):
    instances = series()
    uid = instances[0].SeriesInstanceUID
    write_image(studies, uid, "axial")
    save(segmentation(instances, {"cyst": objects_of(instances)}), tmp_path / "in" / "seg.dcm")
    save(report(instances, [("lesion", ends_lps_mm(instances))]), tmp_path / "in" / "sr.dcm")
    (tmp_path / "in" / "notes.txt").write_text("not DICOM")

    assert run(studies, "--dicom", tmp_path / "in") == 0
    told = capsys.readouterr().out
    assert "1 annotations imported into" in told and "1 masks imported into" in told
    first = (studies / "labels" / "final" / f"{uid}.nii.gz").read_bytes()

    assert run(studies, "--dicom", tmp_path / "in") == 0
    assert capsys.readouterr().out.count("1 that exist were kept") == 2
    assert (studies / "labels" / "final" / f"{uid}.nii.gz").read_bytes() == first

    assert run(studies, "--dicom", tmp_path / "in", "--overwrite") == 0
    assert list((studies / "labels" / "final" / "history" / uid).iterdir())


def test_dry_run_writes_nothing(studies, tmp_path, capsys):
    instances = series()
    write_image(studies, "scan", "axial")
    save(segmentation(instances, {"lesion": objects_of(instances)}), tmp_path / "scan.dcm")

    assert run(studies, "--dicom", tmp_path / "scan.dcm", "--dry-run") == 0

    assert "scan: mask of lesion" in capsys.readouterr().out
    assert not (studies / "labels").exists()


def refused(studies, capsys, *arguments):
    assert run(studies, *arguments) == 2
    told = capsys.readouterr().err
    assert "Nothing was imported." in told and "Traceback" not in told
    assert not (studies / "labels" / "final").exists() and not (studies / "labels" / "extreme_points").exists()
    return " ".join(told.split())


def test_structure_of_no_label_is_refused_or_left_out(studies, tmp_path, capsys):
    instances = series()
    write_image(studies, "scan", "axial")
    masks = {"lesion": objects_of(instances), "vessel": ~objects_of(instances)}
    path = save(segmentation(instances, masks), tmp_path / "scan.dcm")

    told = refused(studies, capsys, "--dicom", path)
    assert "scan.dcm: the structure 'vessel' is none of the app's labels, lesion, cyst" in told

    assert run(studies, "--dicom", path, "--skip-other-labels") == 0
    assert final(studies, "scan")[1].labels == {"lesion": 1}


def test_objects_of_images_that_are_not_there_are_refused_or_left_out(studies, tmp_path, capsys):
    instances = series()
    write_image(studies, "other", "axial")
    path = save(segmentation(instances, {"lesion": objects_of(instances)}), tmp_path / "scan.dcm")

    assert "scan.dcm: it is of no image in" in refused(studies, capsys, "--dicom", path)
    assert "There is nothing to import" in refused(studies, capsys, "--dicom", path, "--skip-missing-images")

    assert run(studies, "--dicom", path, "--image", "other") == 0
    assert lies_on_object(studies, "other", instances)


def test_image_that_lies_elsewhere_is_refused(studies, tmp_path, capsys):
    instances = series("axial")
    uid = instances[0].SeriesInstanceUID
    moved = PLANES["axial"].copy()
    moved[:3, 3] += (100.0, 0, 0)
    half = PLANES["axial"].copy()
    half[:3, 3] += PLANES["axial"][:3, 0] / 2
    path = save(segmentation(instances, {"lesion": objects_of(instances)}), tmp_path / "s.dcm")
    drawn = save(structure_set(instances, {"lesion": outlines(instances)}), tmp_path / "r.dcm")

    write_volume(studies / f"{uid}.nii.gz", l_shape(), half)
    assert "up to 0.50 voxels off those of the image; resample" in refused(studies, capsys, "--dicom", path)
    write_volume(studies / f"{uid}.nii.gz", l_shape(), moved)
    assert "part of it lies outside of the image" in refused(studies, capsys, "--dicom", path)
    assert "lies outside of the image" in refused(studies, capsys, "--dicom", drawn)
    moved[:3, 3] = PLANES["axial"][:3, 3] + PLANES["axial"][:3, 2] / 2
    write_volume(studies / f"{uid}.nii.gz", l_shape(), moved)
    assert "a contour of 'lesion' lies in no slice of the image" in refused(studies, capsys, "--dicom", drawn)


def test_masks_that_contradict_each_other_are_refused(studies, tmp_path, capsys):
    instances = series()
    write_image(studies, instances[0].SeriesInstanceUID, "axial")
    lesion = save(segmentation(instances, {"lesion": objects_of(instances)}), tmp_path / "a.dcm")
    again = save(structure_set(instances, {"lesion": outlines(instances)}), tmp_path / "b.dcm")
    cyst = save(segmentation(instances, {"cyst": objects_of(instances)}), tmp_path / "c.dcm")

    assert "label 'lesion': a.dcm holds it too; expected one." in refused(studies, capsys, "--dicom", lesion, again)
    n = int(objects_of(instances).sum())
    assert f"label 'cyst': it shares {n} voxels with 'lesion'" in refused(studies, capsys, "--dicom", lesion, cyst)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda i: report(i, [("lesion", ends_lps_mm(i)[:5])]),
            "expected at least six",
        ),
        (lambda i: report(i, [("lesion", ends_lps_mm(i) + 500)]), "outside the image"),
        (lambda i: report(i, [("vessel", ends_lps_mm(i))]), "the structure 'vessel' is none of the app's labels"),
        (
            lambda i: report(i, [("lesion", [(i[k], row, column) for column, row, k in ENDS])], on_images=True),
            "coordinates on an image whose file is not there",
        ),
    ],
    ids=["five points", "outside", "other label", "image that is not there"],
)
def test_report_that_cannot_be_used_is_a_sentence(studies, tmp_path, capsys, make, sentence):
    instances = series()
    write_image(studies, instances[0].SeriesInstanceUID, "axial")
    path = save(make(instances), tmp_path / "sr.dcm")

    assert sentence in refused(studies, capsys, "--dicom", path)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: path.write_bytes(b"half a fi"), "cannot be read as DICOM"),
        (
            lambda path: save(_without(series()[0], "ImagePositionPatient"), path),
            "expected a SEG, an RTSTRUCT or an SR",
        ),
        (lambda path: path.mkdir(), "holds no DICOM SEG, RTSTRUCT or SR"),
        (lambda path: None, "does not exist; expected a file or a folder of DICOM"),
        (lambda path: save(_without(_seg(), "PerFrameFunctionalGroupsSequence"), path), "is not valid DICOM"),
        (lambda path: save(_cut(_seg()), path), "in.dcm"),
    ],
    ids=["no DICOM", "another object", "empty folder", "missing", "no frames", "pixels cut short"],
)
def test_file_that_cannot_be_used_is_a_sentence(studies, tmp_path, capsys, write, sentence):
    write_image(studies, series()[0].SeriesInstanceUID, "axial")
    write(tmp_path / "in.dcm")

    assert sentence in refused(studies, capsys, "--dicom", tmp_path / "in.dcm")


def _seg():
    return segmentation(series(), {"lesion": objects_of(series())})


def _without(dataset, keyword):
    del dataset[keyword]
    return dataset


def _cut(dataset):
    dataset.PixelData = dataset.PixelData[:10]
    return dataset


def test_series_of_several_images_needs_the_name_of_one(studies, tmp_path, capsys):
    instances = series()
    uid = instances[0].SeriesInstanceUID
    write_image(studies, f"{uid}_te4.6", "axial")
    write_image(studies, f"{uid}_te9.2", "axial")
    path = save(segmentation(instances, {"lesion": objects_of(instances)}), tmp_path / "s.dcm")

    assert f"it may be of {uid}_te4.6, {uid}_te9.2; name the image" in refused(studies, capsys, "--dicom", path)

    assert run(studies, "--dicom", path, "--image", f"{uid}_te9.2") == 0
    assert lies_on_object(studies, f"{uid}_te9.2", instances)


def test_archive_option_is_for_archives(studies, capsys):
    write_image(studies, "scan", "axial")

    assert "is no archive; --archive reads from one" in refused(studies, capsys, "--archive")
