"""A DICOMweb archive as the studies: a real Orthanc, a real server process."""

import hashlib
import io
import shutil
import socket

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from monailabel.client import MONAILabelClient

from lib.demo.dicom import upload
from tests.physical import SHAPE, series
from tests.server.archive.archive_server import CLICKS
from tests.server.asking import datastore, infer
from tests.server.waiting import wait_for_training


@pytest.fixture(scope="module")
def uids(archive):
    """UIDs of the series by what they are."""
    sent = {
        "mr": series("axial", "ascending"),
        "ct": series("coronal", "descending", modality="CT"),
        "second mr": series("sagittal", "shuffled"),
        "photo": series("oblique", "ascending"),
    }
    for instance in sent["photo"]:
        instance.Modality = "OT"
    return {name: upload(archive.orthanc.dicomweb_url, instances) for name, instances in sent.items()}


@pytest.fixture(scope="module")
def server(archive, uids):
    with archive.server() as server:
        yield server


def test_mr_and_ct_series_are_listed_and_no_others(server, uids):
    assert datastore(server)["total"] == 3
    assert infer(server, uids["photo"], {"lesion": CLICKS}).status_code == 404


def test_archive_answers_this_machine_only(archive):
    own_addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in own_addresses - {"127.0.0.1"}:
        assert requests.get(f"http://{address}:{archive.orthanc.port}/studies", timeout=10).status_code in (401, 403)


def test_viewer_reaches_the_archive_through_the_server(server):
    assert len(requests.get(f"{server.url}/proxy/dicom/qido/studies", timeout=30).json()) == 4


def test_first_click_fetches_the_series_and_is_stored_under_its_uid(archive, server, uids):
    uid = uids["mr"]
    assert not archive.volume(uid).exists()

    answer = infer(server, uid, {"lesion": CLICKS, "background": [[20, 2, 2]]})

    assert answer.status_code == 200
    assert archive.annotation(uid).points.foreground_voxel.tolist() == CLICKS
    assert archive.annotation(uid).points.background_voxel.tolist() == [[20, 2, 2]]
    assert nib.load(archive.volume(uid)).shape == SHAPE
    assert "extreme_points" in datastore(server, output="all")["objects"][uid]["labels"]
    info = requests.get(f"{server.url}/datastore/image/info", params={"image": uid}, timeout=30).json()
    assert (info["Modality"], info["SeriesInstanceUID"]) == ("MR", uid)


def test_completed_counts_series_with_an_answer_to_each_label(server, uids):
    infer(server, uids["mr"], {"lesion": CLICKS})
    assert datastore(server)["completed"] == 0
    infer(server, uids["mr"], {"cyst": CLICKS})

    assert datastore(server) == {"total": 3, "completed": 1, "label_tags": {"extreme_points": 1}}


def test_refused_clicks_store_nothing(archive, server, uids):
    answer = infer(server, uids["ct"], {"lesion": CLICKS[:5]})

    assert answer.status_code == 422
    assert datastore(server)["completed"] == 1
    with pytest.raises(FileNotFoundError):
        archive.annotation(uids["ct"])


def test_unknown_series_is_404(server):
    answer = infer(server, "1.2.3.4", {"lesion": CLICKS})

    assert answer.status_code == 404
    assert "There is no series '1.2.3.4'" in answer.json()["detail"]


def test_final_mask_is_stored_as_dicom_seg_too(archive, server, uids, tmp_path):
    uid = uids["ct"]
    client = MONAILabelClient(server.url, tmpdir=str(tmp_path))
    infer(server, uid, {"lesion": CLICKS[:1]})
    image = nib.load(archive.volume(uid))
    mask = nib.Nifti1Image((np.asarray(image.dataobj) > 500).astype(np.uint8), image.affine)
    nib.save(mask, tmp_path / "mask.nii.gz")

    client.save_label(uid, str(tmp_path / "mask.nii.gz"), params={"label_info": [{"name": "lesion"}]})

    assert datastore(server)["completed"] == 2
    segmentations = requests.get(
        f"{archive.orthanc.dicomweb_url}/series", params={"Modality": "SEG"}, timeout=30
    ).json()
    assert len(segmentations) == 1


def test_accepted_mask_is_stored_in_the_archive_as_what_it_is(archive, server, uids):
    def segmentations():
        address = f"{archive.orthanc.dicomweb_url}/series"
        return len(requests.get(address, params={"Modality": "SEG"}, timeout=30).json())

    before = segmentations()
    infer(server, uids["ct"], {"lesion": CLICKS})
    address = f"{server.url}/annotations/{uids['ct']}/accept"

    answer = requests.post(address, json={}, timeout=60)

    assert answer.status_code == 200
    assert "warning" not in answer.json()
    assert segmentations() == before + 1
    taken_back = requests.delete(address, timeout=60).json()
    assert taken_back["warning"] == "The archive keeps the segmentation that was accepted; delete it there."
    requests.delete(f"{server.url}/datastore/label", params={"id": uids["ct"], "tag": "extreme_points"}, timeout=60)


def test_training_learns_from_clicks_and_final_mask(server, uids):
    """In a process of its own, which has to list the same series."""
    client = MONAILabelClient(server.url)
    client.train_start("inextremis", {"iterations": 2})
    task = wait_for_training(server.url)

    assert task["status"] == "DONE", "\n".join(task["details"])
    assert client.info()["train_stats"]["inextremis"]["scans"] == 2
    assert infer(server, uids["second mr"], {}, model="inextremis").status_code == 200


def test_segmentation_of_the_network_names_it(archive, server, uids):
    file = (archive.root / "model" / "inextremis.pt").read_bytes()
    query = {"image": uids["mr"], "output": "image"}
    answer = requests.post(f"{server.url}/infer/inextremis", params=query, timeout=120)
    assert answer.headers["x-model-version"] == "1"
    assert answer.headers["x-model-sha256"] == hashlib.sha256(file).hexdigest()

    answer = requests.post(f"{server.url}/infer/inextremis", params={**query, "output": "dicom_seg"}, timeout=120)

    if answer.status_code == 422:  # of so short a training
        assert "The mask is empty" in answer.json()["detail"]
        return
    for segment in pydicom.dcmread(io.BytesIO(answer.content)).SegmentSequence:
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (segment.SegmentAlgorithmType, algorithm.AlgorithmVersion) == ("AUTOMATIC", "model 1")
        assert hashlib.sha256(file).hexdigest() in algorithm.AlgorithmParameters


def test_annotations_are_found_again_if_only_their_files_are_left(archive, server, uids):
    server.stop()
    shutil.rmtree(archive.project.own)
    shutil.rmtree(archive.project.folder / "cache")

    with archive.server("forgetful") as forgetful:
        assert datastore(forgetful)["completed"] == 2
        assert infer(forgetful, uids["mr"], {"lesion": CLICKS[::-1]}).status_code == 200
        assert archive.annotation(uids["mr"]).points.foreground_voxel.tolist() == CLICKS[::-1]
