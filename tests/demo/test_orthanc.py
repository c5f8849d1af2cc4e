import json
from pathlib import Path

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


@pytest.mark.parametrize("use", [install_where_allowed, lambda: Orthanc(Path("none"))], ids=["install", "start"])
def test_command_that_installs_it_is_told_where_it_may_not_be_installed(not_installed, monkeypatch, use):
    monkeypatch.setattr(orthanc.os, "geteuid", lambda: 1000)

    with pytest.raises(OrthancError, match="Orthanc is not installed.* sudo apt-get install orthanc orthanc-dicomweb"):
        use()


def test_studies_are_kept_for_the_next_start_and_nothing_runs_after_the_end(tmp_path):
    need_orthanc()
    with Orthanc(tmp_path / "an archive") as first:
        uid = upload(first.dicomweb_url, series())
        assert upload(first.dicomweb_url, series()) == uid
    assert first.process.poll() is not None

    with Orthanc(tmp_path / "an archive") as second:
        (found,) = requests.get(f"{second.dicomweb_url}/series", timeout=10).json()
        configuration = json.loads((tmp_path / "an archive" / "orthanc.json").read_text())
    assert found["0020000E"]["Value"] == [uid]
    assert not configuration["RemoteAccessAllowed"] and not configuration["DicomServerEnabled"]


def test_end_of_the_log_is_shown_where_it_does_not_start(tmp_path):
    need_orthanc()
    with Orthanc(tmp_path / "one") as one, pytest.raises(OrthancError, match="did not start") as error:
        Orthanc(tmp_path / "other", port=one.port).wait_until_ready(timeout_s=30)
    assert "orthanc.log" in str(error.value)
