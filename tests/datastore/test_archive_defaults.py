"""What is set for a DICOMweb archive without the user, and left as the user set it."""

import json
import shutil
import sysconfig
from types import SimpleNamespace

import pytest
from monailabel.config import Settings

from lib.datastore import dicomweb
from lib.datastore.dicomweb import DICOMWebStudies, set_archive_defaults

FILTER = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER"


@pytest.fixture
def defaults(monkeypatch):
    """Sets the defaults as a server of these variables would; gives its settings and its variables."""

    def set_with(**variables):
        monkeypatch.delenv(FILTER, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(dicomweb, "settings", Settings())
        set_archive_defaults()
        return dicomweb.settings, dicomweb.os.environ

    return set_with


def test_mr_and_ct_are_searched_in_the_server_and_in_the_processes_that_it_starts(defaults):
    settings, environment = defaults()

    assert settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER == {"Modality": "MR,CT"}
    assert json.loads(environment[FILTER]) == {"Modality": "MR,CT"}


@pytest.mark.parametrize("own", [{"Modality": "CT"}, {}, {"PatientID": "7"}])
def test_filter_of_the_user_is_kept(defaults, own):
    settings, environment = defaults(**{FILTER: json.dumps(own)})

    assert own == settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER
    assert json.loads(environment[FILTER]) == own


def test_dicom_seg_program_is_found_where_no_environment_is_activated(defaults, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert shutil.which("itkimage2segimage") is None

    defaults()

    assert shutil.which("itkimage2segimage") == f"{sysconfig.get_path('scripts')}/itkimage2segimage"


@pytest.mark.parametrize(
    ("search_filter", "searches"),
    [
        ({"Modality": "MR,CT"}, [{"Modality": "MR"}, {"Modality": "CT"}]),
        ({"Modality": "CT", "PatientID": "7"}, [{"Modality": "CT", "PatientID": "7"}]),
        ({}, [{}]),
    ],
)
def test_each_modality_is_asked_for_by_itself(tmp_path, search_filter, searches):
    """Orthanc takes "MR,CT" for a list, other archives for a name."""
    asked = []
    client = SimpleNamespace(
        base_url="http://archive.test/dicom-web",
        search_for_series=lambda search_filters: asked.append(search_filters) or [],
    )

    assert DICOMWebStudies(client, search_filter, str(tmp_path)).list_images() == []
    assert asked == searches
