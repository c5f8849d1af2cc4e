"""Series of several volumes and of a tilted gantry over HTTP: a real Orthanc, a real server process."""

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from monailabel.client import MONAILabelClient

from lib.demo.dicom import upload
from scripts.export import main as export
from tests.exchange.dicom_segs import assert_valid, segment_lps_mm
from tests.geometry.dicom_files import copies, set_echo, tilted
from tests.installed import need_dciodvfy, need_real_data
from tests.physical import SHAPE, assert_same_place, header_lps_mm, mask_lps_mm, object_lps_mm, read_mask, share_in
from tests.server.archive.archive_server import CLICKS
from tests.server.archive.test_geometry_dicom import clicks_on, stacked_by_position
from tests.server.asking import datastore, infer

REAL = {
    "mr_ge_4d_dti_signed": ["b0", "b1000"],
    "mr_enhanced_philips_4d_fmri": ["time1", "time2", "time3", "time4"],
    "ct_tilt_siemens_4slices": ["upright"],
}


@pytest.fixture(scope="module")
def echoes(archive):
    instances = copies(2, set_echo)
    upload(archive.orthanc.dicomweb_url, instances)
    return instances


@pytest.fixture(scope="module")
def slanted(archive):
    instances = tilted(14)
    upload(archive.orthanc.dicomweb_url, instances)
    return instances


@pytest.fixture(scope="module")
def real(archive):
    """Return the UID of each series of real scanners, by its name."""
    uids = {}
    for name in REAL:
        instances = [pydicom.dcmread(path) for path in sorted((need_real_data("dicom") / name).iterdir())]
        for instance in instances:
            instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        uids[name] = upload(archive.orthanc.dicomweb_url, instances)
    return uids


@pytest.fixture(scope="module")
def server(archive, echoes, slanted):
    with archive.server() as server:
        yield server


def submit_bright_voxels(server, image, folder):
    """As Slicer does: downloads the image, draws on it, and submits the mask."""
    content = requests.get(f"{server.url}/datastore/image", params={"image": image}, timeout=60).content
    (folder / "image.nii.gz").write_bytes(content)
    volume = nib.load(folder / "image.nii.gz")
    mask = nib.Nifti1Image((np.asarray(volume.dataobj) > 500).astype(np.uint8), volume.affine)
    nib.save(mask, folder / "drawn.nii.gz")
    client = MONAILabelClient(server.url, tmpdir=str(folder))
    names = [{"name": "lesion", "idx": 1}, {"name": "cyst", "idx": 2}]
    client.save_label(image, str(folder / "drawn.nii.gz"), "final", {"label_info": names})


def listed(server):
    return set(datastore(server, output="all")["objects"])


def test_series_of_two_volumes_names_its_images_to_those_who_ask_for_the_series(archive, server, echoes):
    """As OHIF does, which knows the series alone."""
    uid = echoes[0].SeriesInstanceUID
    assert uid in listed(server)

    answer = infer(server, uid, {"lesion": CLICKS})

    assert answer.status_code == 422
    assert "holds 2 volumes, and its UID, which is all that OHIF sends, does not say" in answer.json()["detail"]
    assert f"{uid}_te4.6, {uid}_te9.2" in answer.json()["detail"]
    assert {f"{uid}_te4.6", f"{uid}_te9.2"} <= listed(server)
    assert uid not in listed(server)
    assert not list(archive.project.clicks.glob(f"{uid}*"))


def test_each_volume_is_clicked_and_segmented_by_itself(archive, server, echoes, tmp_path):
    uid = echoes[0].SeriesInstanceUID
    infer(server, uid, {})
    for volume, own in (("te4.6", echoes[: SHAPE[2]]), ("te9.2", echoes[SHAPE[2] :])):
        image, clicks = f"{uid}_{volume}", clicks_on(stacked_by_position(own))[0]

        answer = infer(server, image, {"lesion": clicks, "absent": ["cyst"]})

        assert archive.annotation(image).points.foreground_voxel.tolist() == clicks
        assert_same_place(mask_lps_mm(read_mask(answer, tmp_path)), object_lps_mm(own))
        assert export([str(tmp_path), "--server", server.url, "--image", image, "--push"]) == 0
        segmentation = pydicom.dcmread(tmp_path / f"{image}.seg.dcm")
        (referred,) = segmentation.ReferencedSeriesSequence
        assert referred.SeriesInstanceUID == uid
        assert {i.ReferencedSOPInstanceUID for i in referred.ReferencedInstanceSequence} == {
            instance.SOPInstanceUID for instance in own
        }
        assert share_in(object_lps_mm(own), segment_lps_mm(segmentation, 1)) > 0.95


def test_final_mask_of_a_volume_is_stored_in_the_archive_with_its_instances(archive, server, echoes, tmp_path):
    uid = echoes[0].SeriesInstanceUID
    infer(server, uid, {})

    submit_bright_voxels(server, f"{uid}_te9.2", tmp_path)

    found = requests.get(f"{archive.orthanc.dicomweb_url}/instances", params={"Modality": "SEG"}, timeout=30).json()
    stored = [pydicom.Dataset.from_json(one).SOPInstanceUID for one in found]
    exact = []
    for instance in stored:
        (identity,) = requests.post(f"{archive.orthanc.url}/tools/lookup", data=instance, timeout=10).json()
        file = requests.get(f"{archive.orthanc.url}/instances/{identity['ID']}/file", timeout=10).content
        (tmp_path / "seg.dcm").write_bytes(file)
        segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
        if {segment.SegmentAlgorithmType for segment in segmentation.SegmentSequence} == {"MANUAL"}:
            exact.append(segmentation)
    (segmentation,) = exact
    told_mm, object_mm = segment_lps_mm(segmentation, 1), object_lps_mm(echoes[SHAPE[2] :])
    assert share_in(told_mm, object_mm) == share_in(object_mm, told_mm) == 1


def test_images_are_offered_once_a_series_has_turned_out_to_hold_them(archive, server, echoes, slanted):
    offered = set()
    for _ in range(4):
        sample = requests.post(f"{server.url}/activelearning/first", json={}, timeout=60).json()
        offered.add(sample.get("id"))

    assert None not in offered
    assert f"{slanted[0].SeriesInstanceUID}_upright" in offered
    assert echoes[0].SeriesInstanceUID not in offered


def test_tilted_series_is_clicked_upright_and_its_mask_goes_back_to_the_tilted_slices(
    archive, server, slanted, tmp_path
):
    uid = slanted[0].SeriesInstanceUID
    answer = infer(server, uid, {"lesion": CLICKS})
    assert answer.status_code == 422
    assert f"Take the image {uid}_upright, in which they are straightened" in answer.json()["detail"]
    clicks_mm = clicks_on(stacked_by_position(slanted))[1]

    answer = infer(
        server, f"{uid}_upright", {"lesion": clicks_mm, "coordinates": "lps", "absent": ["cyst"], "client_id": "anna"}
    )

    stored = archive.annotation(f"{uid}_upright")
    stored_mm = stored.geometry.voxel_to_lps(stored.points.foreground_voxel)
    half_a_voxel_mm = np.array([0.7, 0.9, 2.5]) / 2
    assert (np.abs(stored_mm - clicks_mm) <= half_a_voxel_mm + 1e-3).all()
    told_mm = mask_lps_mm(read_mask(answer, tmp_path))
    np.testing.assert_allclose(told_mm.mean(axis=0), object_lps_mm(slanted).mean(axis=0), atol=0.4)
    assert export([str(tmp_path), "--server", server.url, "--image", f"{uid}_upright", "--push"]) == 0
    segmentation = pydicom.dcmread(tmp_path / f"{uid}_upright.seg.dcm")
    object_mm = object_lps_mm(slanted)
    pixels_mm = segment_lps_mm(segmentation, 1)
    every_pixel_mm = [header_lps_mm(one, row, column) for one in slanted for row, column in np.ndindex(20, 24)]
    assert share_in(pixels_mm, np.array(every_pixel_mm)) == 1
    assert share_in(object_mm, pixels_mm) > 0.85
    assert share_in(pixels_mm, object_mm) > 0.75


def test_final_mask_of_straightened_slices_goes_back_to_exactly_the_pixels_of_the_tilted_ones(
    server, slanted, tmp_path
):
    uid = slanted[0].SeriesInstanceUID
    infer(server, uid, {})
    submit_bright_voxels(server, f"{uid}_upright", tmp_path)

    assert export([str(tmp_path), "--server", server.url, "--image", f"{uid}_upright"]) == 0

    pixels_mm = segment_lps_mm(pydicom.dcmread(tmp_path / f"{uid}_upright.seg.dcm"), 1)
    object_mm = object_lps_mm(slanted)
    assert share_in(pixels_mm, object_mm) == share_in(object_mm, pixels_mm) == 1


@pytest.mark.parametrize("name", REAL)
def test_series_of_scanners_are_clicked_and_exported(archive, server, real, name, tmp_path):
    need_dciodvfy()
    with archive.server(f"real {name}") as opened:
        assert infer(opened, real[name], {"lesion": CLICKS}).status_code == 422
        images = [f"{real[name]}_{volume}" for volume in REAL[name]]
        assert set(images) <= listed(opened)
        clicks = [[24, 32, 1], [40, 32, 1], [32, 24, 1], [32, 40, 2], [32, 32, 0], [33, 33, 3]]

        for image in images:
            assert infer(opened, image, {"lesion": clicks, "absent": ["cyst"]}).status_code == 200
        assert export([str(tmp_path), "--server", opened.url, "--image", *images, "--push"]) == 0

    for image in images:
        path = tmp_path / f"{image}.seg.dcm"
        assert_valid(path)
        assert hd.seg.segread(path).number_of_segments == 1
        mask = np.asarray(nib.load(tmp_path / f"{image}.nii.gz").dataobj)
        assert len(segment_lps_mm(pydicom.dcmread(path), 1)) == np.count_nonzero(mask)
