"""Annotations in and masks out, on a folder of studies: a real server process."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from monailabel.client import MONAILabelClient

from lib.demo.local_server import LocalServer
from scripts.export import main as export
from scripts.import_annotations import main as import_annotations
from tests.exchange.studies import CLICKS, GEOMETRIES, all_files, clicks_lps_mm, stored, write_studies, write_volume
from tests.physical import l_shape, mask_lps_mm
from tests.server.asking import datastore, infer
from tests.server.waiting import wait_for_training


@dataclass
class Site:
    url: str
    studies: Path
    root: Path

    def datastore(self, **query):
        return datastore(self, **query)

    def infer(self, image, output="image", **params):
        return infer(self, image, {"result_extension": ".nii.gz", **params}, output=output)

    def click_mask(self, image, **params):
        return self.infer(image, use_stored_clicks=True, **params)

    def say_absent(self, image, *labels):
        return self.infer(image, absent=labels, client_id="reader 1")


def import_clicks(studies, *images, label="lesion"):
    table = studies.parent / "points.csv"
    rows = [
        f"{image},{label},{x},{y},{z},lps"
        for image in images
        for x, y, z in clicks_lps_mm(studies / f"{image}.nii.gz").tolist()
    ]
    table.write_text("\n".join(["image,label,x,y,z,coordinates", *rows]))
    assert import_annotations([str(studies), "--points", str(table), "--labels", "lesion,cyst"]) == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("exchange")
    studies = write_studies(root / "studies")
    import_clicks(studies, "straight", "oblique")
    conf = {"labels": "lesion,cyst", "model_dir": str(root / "model")}
    with LocalServer(studies, conf, root / "server.log") as server:
        site = Site(server.url, studies, root)
        for image in ("straight", "oblique"):
            assert site.say_absent(image, "cyst").status_code == 200
        yield site


def test_server_counts_what_was_imported_before_and_while_it_runs(site):
    before = site.datastore()
    import_clicks(site.studies, "flipped")
    imported, listed = site.datastore(), site.datastore(output="all")["objects"]
    site.say_absent("flipped", "cyst")
    after = site.datastore()

    assert (before["total"], before["completed"], before["label_tags"]) == (5, 2, {"extreme_points": 2})
    assert (imported["completed"], imported["label_tags"]) == (2, {"extreme_points": 3})
    assert listed["flipped"]["unanswered"] == ["cyst"]
    assert (after["completed"], after["label_tags"]) == (3, {"extreme_points": 3})
    clicked = {image for image in listed if "extreme_points" in listed[image]["labels"]}
    assert clicked == {"straight", "oblique", "flipped"}


def test_next_sample_is_one_that_was_not_imported(site):
    sample = requests.post(f"{site.url}/activelearning/random", json={}, timeout=30).json()

    assert sample["id"] in ("sagittal", "oblique_flipped")


def test_label_that_is_not_in_a_study_has_no_voxel_and_is_stored_with_who_and_when(site, tmp_path):
    answer = site.say_absent("oblique", "cyst")

    (tmp_path / "mask.nii.gz").write_bytes(answer.content)
    mask, image = nib.load(tmp_path / "mask.nii.gz"), nib.load(site.studies / "oblique.nii.gz")
    assert answer.status_code == 200
    assert not np.asarray(mask.dataobj).any()
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
    assert {key: stored(site.studies, "oblique", "cyst")["current"][key] for key in ("annotator", "absent")} == {
        "annotator": "reader 1",
        "absent": True,
    }
    query = {"label": "oblique", "tag": "extreme_points"}
    info = requests.get(f"{site.url}/datastore/label/info", params=query, timeout=30).json()
    assert {label: said["absent"] for label, said in info.items()} == {"lesion": False, "cyst": True}


def test_clicks_and_absence_undo_one_another(site):
    def completed():
        return site.datastore()["completed"]

    before = completed()
    params = {"lesion": CLICKS, "absent": ["cyst"], "client_id": "reader 2"}
    for lesion_is_absent in (False, True, False):
        said = {"absent": ["lesion"]} if lesion_is_absent else params
        answer = site.infer("sagittal", "json", **said).json()
        assert answer["absent"] == said["absent"]
        assert list(answer["extreme_points"]) == ([] if lesion_is_absent else ["lesion"])
        assert ("absent" in stored(site.studies, "sagittal")["current"]) is lesion_is_absent
        assert completed() == before + 1
    assert ["absent" in old for old in stored(site.studies, "sagittal")["history"]] == [False, True]

    query = {"id": "sagittal", "tag": "extreme_points"}
    assert requests.delete(f"{site.url}/datastore/label", params=query, timeout=30).ok
    assert completed() == before


def test_absence_that_contradicts_itself_is_refused_and_stores_nothing(site):
    before = all_files(site.studies / "labels")

    answer = site.infer("sagittal", lesion=CLICKS, absent=["lesion"])

    assert answer.status_code == 422
    assert "Label 'lesion' is clicked and under 'absent'" in answer.json()["detail"]
    assert all_files(site.studies / "labels") == before


@pytest.mark.parametrize("image", ["straight", "oblique"])
def test_mask_of_stored_clicks_lies_on_the_object_and_nothing_is_stored_anew(site, tmp_path, image):
    before = all_files(site.studies / "labels")

    answer = site.click_mask(image)

    assert answer.status_code == 200
    (tmp_path / "mask.nii.gz").write_bytes(answer.content)
    dice = overlap_mm(tmp_path / "mask.nii.gz", site.studies / f"{image}.nii.gz")
    assert dice > 0.95
    assert all_files(site.studies / "labels") == before


def overlap_mm(mask, study):
    """Dice of a mask and the object in a study, by where SimpleITK says that their voxels lie."""
    a, b = (
        {tuple(point) for point in np.round(points, 1) + 0.0}
        for points in (mask_lps_mm(mask), mask_lps_mm(study, threshold=500))
    )
    return 2 * len(a & b) / (len(a) + len(b))


@pytest.mark.parametrize(
    ("image", "params", "status", "sentence"),
    [
        ("sagittal", {}, 404, "There are no stored clicks of this image for lesion, cyst"),
        ("straight", {"lesion": CLICKS}, 422, "The request has clicks and asks for the stored ones"),
        ("study_99", {}, 404, "There is no image 'study_99'"),
    ],
)
def test_stored_clicks_that_cannot_be_used_are_a_sentence(site, image, params, status, sentence):
    answer = site.click_mask(image, **params)

    assert answer.status_code == status
    assert sentence in answer.json()["detail"]


def test_two_structures_of_an_image_are_two_labels_of_its_mask(site, tmp_path):
    shifted = [[i + 2, j, k] for i, j, k in CLICKS]
    (tmp_path / "points.csv").write_text(
        "\n".join(["image,label,x,y,z", *(f"flipped,cyst,{i},{j},{k}" for i, j, k in shifted)])
    )
    options = ["--points", str(tmp_path / "points.csv"), "--labels", "lesion,cyst", "--overwrite"]
    import_annotations([str(site.studies), *options])
    (tmp_path / "mask.nii.gz").write_bytes(site.click_mask("flipped").content)

    assert set(np.unique(nib.load(tmp_path / "mask.nii.gz").dataobj)) == {0, 1, 2}


def test_export_writes_the_mask_of_every_study_whose_labels_are_all_answered(site, tmp_path):
    import_clicks(site.studies, "sagittal", label="cyst")

    assert export([str(tmp_path), "--server", site.url]) == 0

    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"labels.json", *(f"{name}.nii.gz" for name in ("flipped", "oblique", "straight"))}
    for image in ("straight", "oblique"):
        assert overlap_mm(tmp_path / f"{image}.nii.gz", site.studies / f"{image}.nii.gz") > 0.95
        assert set(np.unique(nib.load(tmp_path / f"{image}.nii.gz").dataobj)) == {0, 1}


def test_exported_masks_can_be_imported_as_clicks(site, tmp_path):
    export([str(tmp_path / "masks"), "--server", site.url, "--image", "oblique"])
    studies = write_studies(tmp_path / "studies")

    assert import_annotations([str(studies), "--masks", str(tmp_path / "masks"), "--labels", "lesion,cyst"]) == 0

    clicks = [click["voxel"] for click in stored(studies, "oblique")["current"]["foreground"]]
    voxels = np.argwhere(nib.load(tmp_path / "masks" / "oblique.nii.gz").get_fdata() == 1)
    np.testing.assert_array_equal(np.min(clicks, axis=0), voxels.min(axis=0))
    np.testing.assert_array_equal(np.max(clicks, axis=0), voxels.max(axis=0))


NAMED = (("lesion", 1), ("cyst", 2))


def test_mask_submitted_as_slicer_does_is_exported_and_supervises_the_training(site, tmp_path):
    corrected = (l_shape() > 500).astype(np.uint8)
    corrected[20:22, 2:4, 9:11] = 2
    client = MONAILabelClient(site.url, tmpdir=str(tmp_path))
    for image in ("sagittal", "oblique"):
        path = write_volume(tmp_path / f"{image}.nii.gz", corrected, GEOMETRIES[image])
        client.save_label(image, str(path), "final", {"label_info": [{"name": n, "idx": i} for n, i in NAMED]})

    assert site.datastore()["completed"] == 4
    assert export([str(tmp_path / "masks"), "--server", site.url]) == 0
    for image in ("sagittal", "oblique"):
        exported = nib.load(tmp_path / "masks" / f"{image}.nii.gz")
        np.testing.assert_array_equal(exported.dataobj, corrected)
        np.testing.assert_allclose(exported.affine, GEOMETRIES[image], atol=1e-4)
    client.train_start("inextremis", {"iterations": 1, "roi_size": "16x16x16"})
    task = wait_for_training(site.url)
    assert task["status"] == "DONE", "\n".join(task["details"])
    assert client.info()["train_stats"]["inextremis"]["scans"] == 4
