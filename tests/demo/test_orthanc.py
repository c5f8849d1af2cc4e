import json

import pytest
import requests

from lib.demo import orthanc
from lib.demo.dicom import upload
from lib.demo.orthanc import Orthanc, OrthancError, install_where_allowed
from tests.installed import need_orthanc
from tests.physical import series


@pytest.fixture
def not_installed(monkeypatch):
    monkeypatch.setattr(orthanc, "_PLUGINS", ())


def test_command_that_installs_it_is_told_where_it_may_not_be_installed(not_installed, monkeypatch):
    monkeypatch.setattr(orthanc.os, "geteuid", lambda: 1000)

    with pytest.raises(OrthancError, match="Orthanc is not installed.* sudo apt-get install orthanc orthanc-dicomweb"):
        install_where_allowed()


def test_missing_program_is_told(not_installed, tmp_path):
    with pytest.raises(OrthancError, match="sudo apt-get install"):
        Orthanc(tmp_path)


def test_studies_are_kept_for_the_next_start_and_nothing_runs_after_the_end(tmp_path):
    need_orthanc()
    with Orthanc(tmp_path / "an archive") as first:
        uid = upload(first.dicomweb_url, series())
        assert upload(first.dicomweb_url, series()) == uid
    assert first.process.poll() is not None

    with Orthanc(tmp_path / "an archive") as second:
        (found,) = requests.get(f"{second.dicomweb_url}/series", timeout=10).json()
    assert found["0020000E"]["Value"] == [uid]


def test_end_of_the_log_is_shown_where_it_does_not_start(tmp_path):
    need_orthanc()
    with Orthanc(tmp_path / "one") as one, pytest.raises(OrthancError, match="did not start") as error:
        Orthanc(tmp_path / "other", port=one.port).wait_until_ready(timeout_s=30)
    assert "orthanc.log" in str(error.value)


def test_configuration_is_for_this_machine_only(tmp_path):
    need_orthanc()
    with Orthanc(tmp_path):
        configuration = json.loads((tmp_path / "orthanc.json").read_text())
    assert configuration["RemoteAccessAllowed"] is False
    assert configuration["DicomServerEnabled"] is False
