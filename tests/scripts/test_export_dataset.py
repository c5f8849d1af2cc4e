"""scripts/export_dataset.sh: scans and what is known of them, by nnU-Net's rules."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lib.annotations.json_file import JsonFile
from lib.annotations.store import AnnotationStore
from lib.exchange.seg_provenance import VERSION
from lib.geometry.volume import load_volume
from lib.server.audit import last_records
from lib.server.project import Project, images_of, open_project, project_of
from scripts.export_dataset import main
from scripts.import_annotations import main as import_annotations
from tests.exchange.nnunet import broken_rules
from tests.exchange.studies import CLICKS, clicks_lps_mm, write_studies, write_volume
from tests.full_disk import no_space
from tests.scripts.annotated_studies import (
    BACKGROUND,
    CYST,
    IGNORE,
    LABELS,
    LESION,
    click,
    labelled_studies,
    lesion_of,
    say_absent,
    submit,
)


@pytest.fixture
def studies(tmp_path):
    return labelled_studies(tmp_path / "studies")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "raw" / "Dataset501_Lesion"


def label_map(out, image):
    return np.asarray(nib.load(out / "labelsTr" / f"{image}.nii.gz").dataobj)


def test_dataset_of_masks_and_clicks_keeps_nnunets_rules(studies, out):
    click(studies, "straight", "oblique")
    say_absent(studies, "straight")
    submit(studies, "flipped", lesion_of(studies, "flipped") * LESION)

    assert main([str(studies), str(out), "--format", "nnunet", "--channel", "CT"]) == 0

    assert broken_rules(out) == []
    content = json.loads((out / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "lesion": 1, "cyst": 2, "ignore": 3}
    assert (content["channel_names"], content["numTraining"], content["file_ending"]) == ({"0": "CT"}, 3, ".nii.gz")
    image = sitk.ReadImage(str(out / "imagesTr" / "oblique_0000.nii.gz"))
    original = sitk.ReadImage(str(studies / "oblique.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(original))
    np.testing.assert_allclose(image.GetOrigin(), original.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(image.GetDirection(), original.GetDirection(), atol=1e-5)


@pytest.mark.parametrize("image", ["straight", "sagittal", "oblique_flipped"])
def test_clicked_scan_is_known_on_paths_and_outside_of_the_box_and_ignored_between(studies, out, image):
    click(studies, image)
    say_absent(studies, image)

    assert main([str(studies), str(out), "--margin", "2"]) == 0

    found, lesion = label_map(out, image), lesion_of(studies, image)
    i, j, k = np.nonzero(lesion)
    inside = np.zeros(found.shape, bool)
    inside[tuple(slice(max(0, axis.min() - 2), axis.max() + 3) for axis in (i, j, k))] = True
    assert (found[~inside] == BACKGROUND).all()
    assert set(np.unique(found[inside])) == {LESION, IGNORE}
    known = found == LESION
    # Between the ends of a bright shape on dark ground, paths stay within it.
    assert known.sum() > 10 and lesion[known].all()
    assert known[tuple(_clicks_voxel(studies, image).T)].all()


def _clicks_voxel(studies, image):
    annotation = AnnotationStore(Project(studies).clicks).load(image, "lesion")
    assert len(annotation.points.foreground_voxel) == len(CLICKS)
    return annotation.points.foreground_voxel


def test_label_that_nobody_answered_may_be_anywhere(studies, out):
    click(studies, "straight")

    assert main([str(studies), str(out)]) == 0

    assert set(np.unique(label_map(out, "straight"))) == {LESION, IGNORE}


def test_final_mask_is_known_everywhere_and_clicks_where_it_does_not_say(studies, out):
    lesion = lesion_of(studies, "straight")
    submit(studies, "straight", lesion * LESION)
    submit(studies, "flipped", lesion_of(studies, "flipped") * 1, labels={"cyst": 1})
    click(studies, "flipped", label="lesion")

    assert main([str(studies), str(out)]) == 0

    np.testing.assert_array_equal(label_map(out, "straight"), lesion * LESION)
    both = label_map(out, "flipped")
    assert (both[lesion_of(studies, "flipped")] == CYST).all()
    assert {BACKGROUND, IGNORE} < set(np.unique(both))


def test_dataset_of_full_masks_has_no_label_ignore(studies, out):
    submit(studies, "straight", lesion_of(studies, "straight") * CYST)

    assert main([str(studies), str(out)]) == 0

    content = json.loads((out / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "lesion": 1, "cyst": 2}
    assert broken_rules(out) == []


def test_dataset_says_what_it_is_made_from(studies, out):
    click(studies, "straight")
    say_absent(studies, "straight")
    accepted = {"lesion": {"annotator": "dora", "model_version": 3, "model_sha256": "ab12"}}
    submit(studies, "flipped", lesion_of(studies, "flipped") * 1, info={"accepted": accepted})

    assert main([str(studies), str(out)]) == 0

    said = json.loads((out / "dataset.json").read_text())["inextremis"]
    assert said == {
        "software": {"name": "InExtremIS", "version": VERSION},
        "annotators": ["anna", "bert", "carl", "dora"],
        "models": [{"version": 3, "sha256": "ab12"}],
        "box_margin_voxels": 4,
        "cases_with_unknown_voxels": 1,
    }
    cases = json.loads((out / "cases.json").read_text())
    of_lesion = cases["straight"]["labels"]["lesion"]
    assert (of_lesion["from"], of_lesion["annotator"]) == ("clicks", "anna")
    assert cases["straight"]["labels"]["cyst"]["from"] == "absence"
    assert cases["flipped"]["labels"]["lesion"]["model"] == {"version": 3, "sha256": "ab12"}
    assert cases["flipped"]["labels"]["cyst"]["algorithm_type"] == "MANUAL"
    assert cases["flipped"]["known_share"] == 1 > cases["straight"]["known_share"]
    (record, *_) = last_records(Project(studies).audit, 5)
    assert (record.action, record.of) == ("export of a dataset", "scans: 2; format: nnunet")


def test_voxels_that_were_not_measured_are_no_nan_in_the_dataset(studies, out):
    image = nib.load(studies / "straight.nii.gz")
    array = image.get_fdata(dtype=np.float32)
    array[0, 0, 0] = np.nan
    write_volume(studies / "straight.nii.gz", array, image.affine)
    click(studies, "straight")

    assert main([str(studies), str(out)]) == 0

    assert broken_rules(out) == []


def test_scan_that_is_another_than_was_clicked_on_is_left_out(studies, out, caplog):
    click(studies, "straight", "flipped")
    shutil.copy(studies / "oblique.nii.gz", studies / "straight.nii.gz")

    assert main([str(studies), str(out)]) == 0

    assert [path.name for path in (out / "labelsTr").iterdir()] == ["flipped.nii.gz"]
    assert "The image straight is not the one that was clicked on" in caplog.text


def test_skipped_study_is_left_out(studies, out):
    click(studies, "straight", "oblique")
    JsonFile(Project(studies).skips).change("oblique", lambda kept: {"reason": "motion", "annotator": "anna"})

    assert main([str(studies), str(out)]) == 0
    assert [path.name for path in (out / "labelsTr").iterdir()] == ["straight.nii.gz"]


def test_mask_that_vanished_does_not_hold_up_the_others(studies, out, capsys, monkeypatch):
    click(studies, "flipped")
    submit(studies, "straight", lesion_of(studies, "straight"))
    monkeypatch.setattr(
        "lib.exchange.nnunet_dataset.load_volume",
        lambda path: _broken(path) if "straight" in path.name else load_volume(path),
    )

    assert main([str(studies), str(out)]) == 1

    assert [path.name for path in (out / "labelsTr").iterdir()] == ["flipped.nii.gz"]
    told = capsys.readouterr()
    assert "straight: The image" in told.err and "1 failed." in told.out


def _broken(path):
    path.write_bytes(path.read_bytes()[:100])
    return load_volume(path)


@pytest.mark.parametrize(
    ("name", "labels", "sentence"),
    [
        ("lesions", "lesion,cyst", "The folder is named 'lesions'; nnU-Net expects a name such as Dataset501_Lesion"),
        ("Dataset5_L", "lesion,cyst", "with three digits"),
        ("Dataset501_L", "lesion,ignore", "The label 'ignore' has a meaning of its own in nnU-Net"),
    ],
)
def test_what_nnunet_would_not_take_is_refused(studies, tmp_path, capsys, name, labels, sentence):
    click(studies, "straight")

    assert main([str(studies), str(tmp_path / name), "--labels", labels]) == 2

    assert sentence in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_project_without_annotations_is_refused_and_leaves_nothing(studies, out, capsys):
    assert main([str(studies), str(out)]) == 2

    assert "no study has extreme points or a final mask yet" in capsys.readouterr().err
    assert list(out.parent.iterdir()) == []


def test_folder_that_is_there_is_left(studies, out, capsys):
    click(studies, "straight")
    out.mkdir(parents=True)

    assert main([str(studies), str(out)]) == 2

    assert list(out.iterdir()) == []
    assert "delete it, or give another place" in capsys.readouterr().err


def test_full_disk_leaves_nothing(studies, out, capsys, monkeypatch):
    click(studies, "straight")
    fsync = os.fsync

    def full(descriptor):
        if ".part" in os.readlink(f"/proc/self/fd/{descriptor}").partition("raw/")[2]:
            no_space()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)

    assert main([str(studies), str(out)]) == 2

    assert "No space left on device" in capsys.readouterr().err
    assert list(out.parent.iterdir()) == []


def test_archive_is_exported_from_what_was_opened(tmp_path, out, monkeypatch):
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path / "archives"))
    address = "http://127.0.0.1:8042/dicom-web"
    volumes, project = images_of(address), project_of(address)
    write_studies(volumes)
    open_project(project, LABELS)
    points = tmp_path / "points.csv"
    rows = [f"straight,lesion,{x},{y},{z},lps" for x, y, z in clicks_lps_mm(volumes / "straight.nii.gz").tolist()]
    points.write_text("\n".join(["image,label,x,y,z,coordinates", *rows]))
    assert import_annotations([address, "--points", str(points), "--labels", "lesion,cyst"]) == 0

    assert main([address, str(out)]) == 0

    assert broken_rules(out) == []
    assert (out / "imagesTr" / "straight_0000.nii.gz").is_file()


def test_says_how_many_scans_were_written(studies, out, capsys):
    click(studies, "straight")

    assert main([str(studies), str(out), "--format", "nnunet"]) == 0

    told = " ".join(capsys.readouterr().out.split())
    assert f"{out}: 1 scans written, 1 of them with voxels to be ignored." in told
    assert (out / "dataset.json").is_file()


def test_the_check_itself_finds_what_is_wrong(studies, out):
    click(studies, "straight", "flipped")
    main([str(studies), str(out)])
    path = out / "labelsTr" / "straight.nii.gz"
    wrong = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(wrong.dataobj) + 7, wrong.affine + np.eye(4)), path)
    content = json.loads((out / "dataset.json").read_text())
    labels = {"background": 0, "ignore": 1, "lesion": 2}
    (out / "dataset.json").write_text(json.dumps({**content, "labels": labels, "numTraining": 3}))
    renamed = out.rename(out.with_name("Dataset1_Lesion"))

    assert {sentence[0] for sentence in broken_rules(renamed)} == {"1", "3", "4", "5", "7"}
