"""The annotation page on a DICOMweb archive: six clicks on an oblique series, and its mask accepted."""

from __future__ import annotations

import pytest
import requests

from lib.demo.dicom import dicom_series, upload
from lib.demo.orthanc import Orthanc
from lib.metrics import dice
from tests.installed import need_chromium, need_orthanc
from tests.physical import extreme_voxels
from tests.server.archive.archive_server import Archive
from tests.viewer.annotation_page import AnnotationPage
from tests.viewer.ohif import browser_page
from tests.viewer.phantom import SHAPE, phantom

ACQUISITIONS = {"Anna": "oblique, downwards", "Bert": "sagittal"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    need_orthanc()
    root = tmp_path_factory.mktemp("archive")
    with Orthanc(root / "orthanc") as orthanc:
        yield Archive(orthanc, root)


def test_series_of_an_archive_is_clicked_and_accepted(archive):
    need_chromium()
    series = {}
    for seed, (patient, acquisition) in enumerate(ACQUISITIONS.items()):
        image, masks, affine = phantom(seed, acquisition)
        instances = dicom_series(image, affine, patient)
        upload(archive.orthanc.dicomweb_url, instances)
        series[patient] = (instances[0].SeriesInstanceUID, masks["lesion"])
    uid, lesion = series["Anna"]
    with archive.server() as server, browser_page() as tab:
        tab.set_default_timeout(20_000)
        page = AnnotationPage(tab, server.url)
        page.open(series["Bert"][0])
        page.page.locator("#studies").get_by_text("Anna").first.click()
        page.wait_until_ready(uid)
        for number, voxel in enumerate(extreme_voxels(lesion)):
            page.click(voxel, ("axial", "coronal", "sagittal")[number % 3])
        page.wait_for_mask()
        assert dice(page.mask(SHAPE), lesion) > 0.8
        page.press("a")
        page.wait_for_mask(source="final")

        stored = archive.annotation(uid).points.foreground_voxel
        assert sorted(map(tuple, stored.tolist())) == sorted(map(tuple, extreme_voxels(lesion)))
        final = requests.get(f"{server.url}/studies/{uid}", timeout=30).json()["final"]
        assert final["origin"] == {"lesion": "accepted"} and final["annotator"] == "anna"
        assert page.asked_hosts == {server.url.split("/")[2]}
        # Of a series that was not fetched yet there is no thumbnail.
        assert [said for said in page.refused if "404" not in said] == []
