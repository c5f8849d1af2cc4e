"""An archive that asks for a name and a password, as those of hospitals do."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass

from lib.demo.local_server import LocalServer
from scripts.export import main as export
from tests.physical import series
from tests.server.archive.archive_server import CLICKS, Archive
from tests.server.asking import datastore, infer
from tests.server.waiting import wait_for

LOGIN = NAME, PASSWORD = "radiologist", "kept-to-itself"


@pytest.fixture(scope="module")
def client(archive: Archive) -> DICOMwebClient:
    return DICOMwebClient(archive.orthanc.dicomweb_url, session=create_session_from_user_pass(NAME, PASSWORD))


@pytest.fixture(scope="module")
def uid(client: DICOMwebClient) -> str:
    instances = series("axial", "shuffled")
    client.store_instances(instances)
    return str(instances[0].SeriesInstanceUID)


def login(password: str) -> dict[str, str]:
    return {"MONAI_LABEL_DICOMWEB_USERNAME": NAME, "MONAI_LABEL_DICOMWEB_PASSWORD": password}


def test_nobody_reads_the_archive_without_the_login(archive: Archive, uid: str) -> None:
    assert requests.get(f"{archive.orthanc.dicomweb_url}/studies", timeout=10).status_code == 401


def test_clicks_masks_and_segmentations_pass_with_the_servers_login(
    archive: Archive, client: DICOMwebClient, uid: str, tmp_path: Path
) -> None:
    with archive.server(**login(PASSWORD)) as server:
        assert datastore(server)["total"] == 1
        assert infer(server, uid, {"lesion": CLICKS, "absent": ["cyst"]}).status_code == 200
        assert requests.get(f"{server.url}/proxy/dicom/qido/studies", timeout=30).status_code == 200
        assert export([str(tmp_path / "masks"), "--server", server.url, "--push"]) == 0

    assert len(client.search_for_series(search_filters={"Modality": "SEG"})) == 1
    assert PASSWORD not in (archive.root / "server.log").read_text()


@pytest.mark.parametrize("environment", [login("guessed"), {}])
def test_wrong_or_no_login_is_a_sentence(
    archive: Archive, uid: str, environment: dict[str, str], tmp_path: Path
) -> None:
    server = archive.server("refused", MONAI_LABEL_DICOMWEB_CACHE_PATH=str(tmp_path), **environment)
    try:
        for refused in (first_answer(server), infer(server, uid, {"lesion": CLICKS})):
            assert refused.status_code == 502
            assert "refuses the login; start the server with the right MONAI_LABEL" in refused.json()["detail"]
    finally:
        server.stop()


def first_answer(server: LocalServer) -> requests.Response:
    """To a question that needs the archive, as soon as the server answers."""

    def answer() -> list[requests.Response]:
        with suppress(requests.ConnectionError):
            return [requests.get(f"{server.url}/datastore/", timeout=60)]
        return []

    return wait_for(answer, 120)[0]
