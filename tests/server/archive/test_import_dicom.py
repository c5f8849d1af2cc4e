"""Masks and clicks out of a real archive into the project of a running server."""

import numpy as np
import pytest
import requests

from lib.demo.dicom import upload
from scripts.export import main as export
from scripts.import_annotations import main as import_annotations
from tests.exchange.dicom_objects import outlines, report, segmentation, structure_set
from tests.physical import header_lps_mm, mask_lps_mm, object_lps_mm, series, share_in
from tests.server.archive.archive_server import CLICKS
from tests.server.asking import datastore, infer

PLANES = {"axial": "shuffled", "sagittal, slices to the right": "descending", "oblique": "ascending"}


@pytest.fixture(scope="module")
def sent(archive):
    """Return the instances of each series by its UID."""
    found = [series(plane, order) for plane, order in PLANES.items()]
    return {upload(archive.orthanc.dicomweb_url, instances): instances for instances in found}


@pytest.fixture(scope="module")
def server(archive, sent):
    """Start a server, open all series, and store its mask of the last in the archive."""
    with archive.server() as server:
        for uid in sent:
            assert requests.get(f"{server.url}/datastore/image", params={"image": uid}, timeout=60).ok
        last = list(sent)[-1]
        assert infer(server, last, {"lesion": CLICKS, "absent": ["cyst"]}).ok
        assert export([str(archive.root / "masks"), "--server", server.url, "--push"]) == 0
        yield server


def in_order(instances):
    """By position along the normal of the slices."""
    normal = np.cross(*np.array(instances[0].ImageOrientationPatient, float).reshape(2, 3))
    return sorted(instances, key=lambda one: np.array(one.ImagePositionPatient, float) @ normal)


@pytest.fixture(scope="module")
def imported(archive, sent, server):
    """Import a SEG, an RTSTRUCT and an SR from the archive, one for each series."""
    by_seg, by_contours, by_points = sent.values()
    masks = np.stack([one.pixel_array > 500 for one in by_seg])
    slices = in_order(by_points)
    points = [(slices[k], row, column) for column, row, k in CLICKS]
    objects = [
        segmentation(by_seg, {"lesion": masks}),
        structure_set(by_contours, {"cyst": outlines(by_contours)}),
        report(by_points, [("lesion", points)], on_images=True),
    ]
    for one in objects:
        upload(archive.orthanc.dicomweb_url, [one])
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(archive.root / "cache"))
        options = ["--archive", "--labels", "lesion,cyst", "--overwrite"]
        assert import_annotations([archive.orthanc.dicomweb_url, *options]) == 0
    return objects


@pytest.mark.parametrize(("number", "label"), [(0, "lesion"), (1, "cyst")])
def test_server_gives_the_imported_mask_where_the_object_lies(server, sent, imported, tmp_path, number, label):
    uid = list(sent)[number]

    answer = requests.get(f"{server.url}/datastore/label", params={"label": uid, "tag": "final"}, timeout=60)
    info = requests.get(f"{server.url}/datastore/label/info", params={"label": uid, "tag": "final"}, timeout=60).json()

    (tmp_path / "mask.nii.gz").write_bytes(answer.content)
    mask_mm, object_mm = mask_lps_mm(tmp_path / "mask.nii.gz"), object_lps_mm(sent[uid])
    assert len(mask_mm) == len(object_mm) and share_in(mask_mm, object_mm) == 1
    assert list(info["labels"]) == [label]
    assert info["imported"][label]["sop_instance_uid"] == imported[number].SOPInstanceUID
    assert datastore(server, output="all")["objects"][uid]["labels"]["final"]["info"]["labels"] == [label]


def test_points_on_images_are_clicks_where_they_lie(archive, sent, imported):
    uid = list(sent)[2]
    slices = in_order(sent[uid])
    annotation = archive.annotation(uid)

    found = annotation.geometry.voxel_to_lps(annotation.points.foreground_voxel)
    expected = np.array([header_lps_mm(slices[k], row, column) for column, row, k in CLICKS])
    assert annotation.annotator == "Poe Anna"
    assert len(found) == len(expected) and share_in(found, expected) == 1


def test_mask_that_this_app_stored_in_the_archive_does_not_come_back_as_final(server, sent, imported):
    objects = datastore(server, output="all")["objects"]

    assert "final" not in objects[list(sent)[2]]["labels"]
