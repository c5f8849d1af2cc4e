"""An archive that asks for a name and a password, as those of hospitals do."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass

from scripts.export import main as export
from tests.physical import series
from tests.server.archive.archive_server import CLICKS, Archive
from tests.server.asking import datastore, infer

LOGIN = NAME, PASSWORD = "radiologist", "kept-to-itself"


@pytest.fixture(scope="module")
def client(archive: Archive) -> DICOMwebClient:
    return DICOMwebClient(archive.orthanc.dicomweb_url, session=create_session_from_user_pass(NAME, PASSWORD))


@pytest.fixture(scope="module")
def uid(client: DICOMwebClient) -> str:
    instances = series("axial", "shuffled")
    client.store_instances(instances)
    return str(instances[0].SeriesInstanceUID)


def test_nobody_reads_the_archive_without_the_login(archive: Archive, uid: str) -> None:
    assert requests.get(f"{archive.orthanc.dicomweb_url}/studies", timeout=10).status_code == 401


def test_clicks_masks_and_segmentations_pass_with_the_servers_login(
    archive: Archive, client: DICOMwebClient, uid: str, tmp_path: Path
) -> None:
    login = {"MONAI_LABEL_DICOMWEB_USERNAME": NAME, "MONAI_LABEL_DICOMWEB_PASSWORD": PASSWORD}
    with archive.server(**login) as server:
        assert datastore(server)["total"] == 1
        assert infer(server, uid, {"lesion": CLICKS, "absent": ["cyst"]}).status_code == 200
        assert requests.get(f"{server.url}/proxy/dicom/qido/studies", timeout=30).status_code == 200
        assert export([str(tmp_path / "masks"), "--server", server.url, "--push"]) == 0

    assert len(client.search_for_series(search_filters={"Modality": "SEG"})) == 1
    assert PASSWORD not in (archive.root / "server.log").read_text()
