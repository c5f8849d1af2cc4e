"""Every request of MONAI Label's client, which Slicer's plugin uses, against a running server."""

import nibabel as nib
import numpy as np
import pytest
import requests
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from lib.geometry.volume import load_volume
from tests.server.waiting import wait_for, wait_for_training


@pytest.fixture
def client(site, tmp_path):
    return MONAILabelClient(site.url, tmpdir=str(tmp_path), client_id="reader 2")


def test_no_login_is_asked_for(client):
    assert client.auth_enabled() is False
    assert client.auth_valid_token() is False


def test_info_and_next_sample(client):
    assert client.info()["labels"] == ["lesion", "cyst"]
    sample = client.next_sample("random", {})
    if sample:  # other tests may have annotated all
        assert sample["id"] in client.datastore()["objects"]
        assert sample["checksum"].startswith("SHA256:")


def test_uploaded_image_is_clicked_and_its_mask_submitted_and_downloaded(client, site, tmp_path):
    source = site.studies / "study_05.nii.gz"
    assert client.upload_image(str(source), "uploaded 1") == {"image": "uploaded 1"}
    mask_path, answer = client.infer("extreme_points", "uploaded 1", {"lesion": site.clicks("study_05")})
    assert answer["stored"] is True

    client.save_label("uploaded 1", mask_path, "final", {"label_info": [{"name": "lesion", "idx": 1}]})

    downloaded = client.download_label("uploaded 1", "final")
    assert load_volume(downloaded).array.sum() == load_volume(mask_path).array.sum() > 0
    assert sorted(client.datastore()["objects"]["uploaded 1"]["labels"]) == ["extreme_points", "final"]
    with pytest.raises(MONAILabelClientException, match="409"):
        client.upload_image(str(source), "uploaded 1")
    requests.delete(f"{site.url}/datastore/", params={"id": "uploaded 1"}, timeout=30).raise_for_status()


def test_image_of_a_session_is_segmented_and_nothing_is_stored(client, site):
    path = site.studies / "study_06.nii.gz"
    session = client.create_session(str(path))["session_id"]
    assert client.get_session(session)["image"].endswith(".nii.gz")
    before = client.datastore()

    mask_path, answer = client.infer("extreme_points", "", {"lesion": site.clicks("study_06")}, session_id=session)

    assert answer["stored"] is False
    assert load_volume(mask_path).geometry.is_close(load_volume(path).geometry)
    assert client.datastore() == before
    client.remove_session(session)
    with pytest.raises(MONAILabelClientException, match="404"):
        client.get_session(session)


def test_image_that_is_sent_along_is_segmented(client, site):
    path = site.studies / "study_07.nii.gz"
    mask_path, answer = client.infer("extreme_points", "", {"lesion": site.clicks("study_07")}, file=str(path))

    assert answer["stored"] is False
    assert np.asarray(nib.load(mask_path).dataobj if mask_path.endswith("gz") else load_volume(mask_path).array).any()


def test_training_is_started_followed_and_stopped(client, site):
    client.infer("extreme_points", "study_07", {"lesion": site.clicks("study_07")})
    assert client.train_start("inextremis", {"iterations": 100_000})["status"] in ("SUBMITTED", "RUNNING")
    wait_for(lambda: client.train_status()["status"] != "SUBMITTED")
    client.train_stop()
    assert wait_for_training(site.url)["status"] in ("STOPPED", "ERROR")
