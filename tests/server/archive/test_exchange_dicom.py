"""Masks of DICOM series out of a real server, as DICOM SEG, and into a real archive."""

import io
import json

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client import DICOMwebClient
from monailabel.client import MONAILabelClient
from scipy.spatial import KDTree

from lib.demo.dicom import upload
from scripts.export import main as export
from scripts.import_annotations import main as import_annotations
from tests.exchange.dicom_segs import assert_valid, put, segment_lps_mm
from tests.installed import need_dciodvfy
from tests.physical import header_lps_mm, mask_lps_mm, object_lps_mm, series
from tests.server.archive.archive_server import CLICKS
from tests.server.asking import datastore, infer

SERIES = {
    "axial": "shuffled",
    "sagittal, slices to the right": "descending",
    "coronal": "descending",
    "oblique": "shuffled",
    "axial, slices downwards": "ascending",
}
MODALITIES = {"coronal": "CT", "axial, slices downwards": "PT"}
DE_IDENTIFIED = "coronal"
REMOVED = [
    *("PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "AccessionNumber", "ReferringPhysicianName"),
    *("SliceThickness", "SpacingBetweenSlices", "FrameOfReferenceUID", "PositionReferenceIndicator"),
]


@pytest.fixture(scope="module")
def instances(archive):
    """Return the instances of each series by its UID."""
    sent = {plane: series(plane, order, modality=MODALITIES.get(plane, "MR")) for plane, order in SERIES.items()}
    for instance in sent[DE_IDENTIFIED]:
        for keyword in REMOVED:
            del instance[keyword]
        instance.StudyTime, instance.NumberOfFrames = "12:30:00", 1
    put(sent[DE_IDENTIFIED], "PatientWeight", b"heavy ")
    return {upload(archive.orthanc.dicomweb_url, slices): slices for slices in sent.values()}


@pytest.fixture(scope="module")
def server(archive, instances):
    with archive.server(conf={"codes": "lesion=SCT:52988006", "modalities": "MR,CT,PT"}) as server:
        for uid in instances:
            answer = infer(server, uid, {"lesion": CLICKS, "absent": ["cyst"], "client_id": "anna"})
            assert answer.status_code == 200
        yield server


@pytest.fixture(scope="module")
def masks(archive, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    assert export([str(folder), "--server", server.url, "--push"]) == 0
    return folder


def in_archive(archive):
    """Every segmentation that the archive has, as it gives it to others, by the series it refers to."""
    client = DICOMwebClient(archive.orthanc.dicomweb_url)
    found = {}
    for entry in client.search_for_series(search_filters={"Modality": "SEG"}):
        header = pydicom.Dataset.from_json(entry)
        for instance in client.retrieve_series(header.StudyInstanceUID, header.SeriesInstanceUID):
            uid = instance.ReferencedSeriesSequence[0].SeriesInstanceUID
            found.setdefault(uid, []).append(instance)
    return found


def share_near(points_mm, others_mm):
    """Share of points (N, 3) that lie within a hundredth of a millimetre of one of the others."""
    return np.mean(KDTree(others_mm).query(points_mm)[0] < 0.01)


def test_every_series_has_a_nifti_and_a_segmentation(instances, masks):
    expected = {f"{uid}{end}" for uid in instances for end in (".nii.gz", ".seg.dcm")}

    assert {path.name for path in masks.iterdir()} == expected | {"labels.json"}


def test_segmentations_in_the_archive_lie_where_the_objects_lie(archive, instances, masks):
    found = in_archive(archive)

    assert set(found) == set(instances)
    for uid, (segmentation,) in found.items():
        told_mm, object_mm = segment_lps_mm(segmentation, 1), object_lps_mm(instances[uid])
        nifti_mm = mask_lps_mm(masks / f"{uid}.nii.gz")
        assert min(share_near(told_mm, object_mm), share_near(object_mm, told_mm)) > 0.95
        assert len(nifti_mm) == len(told_mm)
        assert share_near(nifti_mm, told_mm) == 1


def test_segmentations_belong_to_study_and_slices(archive, instances, masks):
    for uid, (segmentation,) in in_archive(archive).items():
        image = instances[uid][0]
        read = hd.seg.Segmentation.from_dataset(segmentation)
        assert (segmentation.StudyInstanceUID, segmentation.PatientID) == (image.StudyInstanceUID, image.PatientID)
        assert [read.get_segment_description(n).segment_label for n in read.segment_numbers] == ["lesion"]
        planes = read.get_pixels_by_source_instance(
            [slice_.SOPInstanceUID for slice_ in instances[uid]],
            combine_segments=True,
            assert_missing_frames_are_empty=True,
        )
        inside = np.array([slice_.pixel_array > 500 for slice_ in instances[uid]])
        assert np.mean(planes[inside] == 1) > 0.95


def test_server_gives_segmentations_of_all_series_itself(server, instances):
    for uid, slices in instances.items():
        answer = requests.post(
            f"{server.url}/infer/extreme_points",
            params={"image": uid, "output": "dicom_seg"},
            data={"params": json.dumps({"use_stored_clicks": True})},
            timeout=120,
        )

        assert answer.status_code == 200, answer.text
        segmentation = pydicom.dcmread(io.BytesIO(answer.content))
        assert share_near(object_lps_mm(slices), segment_lps_mm(segmentation, 1)) > 0.95


def test_segmentations_say_what_they_show_and_who_made_them_with_what(archive, masks):
    for (segmentation,) in in_archive(archive).values():
        (segment,) = segmentation.SegmentSequence
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lesion"
        assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "no model"
        assert segmentation.ContentCreatorName == "anna^"
        assert segmentation.ContributingEquipmentSequence[-1].OperatorsName == "anna^"


def test_validator_finds_no_error_in_what_is_exported(masks):
    need_dciodvfy()
    for path in masks.glob("*.seg.dcm"):
        assert_valid(path)


def test_segmentations_are_no_images_to_annotate(server, instances, masks):
    assert datastore(server)["total"] == len(instances)


def test_pushing_again_adds_nothing(archive, server, masks):
    before = {uid: [i.SOPInstanceUID for i in found] for uid, found in in_archive(archive).items()}

    assert export([str(masks), "--server", server.url, "--push"]) == 0
    assert export([str(masks), "--server", server.url, "--push", "--overwrite"]) == 0

    assert {uid: [i.SOPInstanceUID for i in found] for uid, found in in_archive(archive).items()} == before


def test_mask_submitted_as_slicer_does_is_exported(server, instances, masks, tmp_path):
    uid = next(iter(instances))
    image = nib.load(masks / f"{uid}.nii.gz")
    corrected = np.zeros(image.shape, np.uint8)
    corrected[5:8, 6:9, 4:6], corrected[20, 15, 9] = 1, 2
    nib.save(nib.Nifti1Image(corrected, image.affine), tmp_path / "corrected.nii.gz")
    client = MONAILabelClient(server.url, tmpdir=str(tmp_path))
    names = [{"name": "lesion", "idx": 1}, {"name": "cyst", "idx": 2}]
    client.save_label(uid, str(tmp_path / "corrected.nii.gz"), "final", {"label_info": names})

    assert export([str(tmp_path / "out"), "--server", server.url, "--image", uid]) == 0

    segmentation = pydicom.dcmread(tmp_path / "out" / f"{uid}.seg.dcm")
    np.testing.assert_array_equal(nib.load(tmp_path / "out" / f"{uid}.nii.gz").dataobj, corrected)
    assert {s.SegmentAlgorithmType for s in segmentation.SegmentSequence} == {"MANUAL"}
    assert [len(segment_lps_mm(segmentation, number)) for number in (1, 2)] == [18, 1]


def test_clicks_are_imported_for_a_series_that_the_server_has_fetched(
    archive, server, instances, tmp_path, monkeypatch
):
    uid = list(instances)[-1]
    normal = np.cross(*np.array(instances[uid][0].ImageOrientationPatient, float).reshape(2, 3))
    slices = sorted(instances[uid], key=lambda slice_: np.array(slice_.ImagePositionPatient, float) @ normal)
    clicks_mm = [header_lps_mm(slices[k], row, column) for column, row, k in CLICKS]
    rows = [f"{uid},cyst,{x},{y},{z},lps" for x, y, z in clicks_mm]
    (tmp_path / "points.csv").write_text("\n".join(["image,label,x,y,z,coordinates", *rows]))

    options = ["--points", str(tmp_path / "points.csv"), "--labels", "lesion,cyst", "--overwrite"]
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(archive.root / "cache"))
    assert import_annotations([archive.orthanc.dicomweb_url, *options]) == 0

    assert archive.annotation(uid, "cyst").points.foreground_voxel.tolist() == CLICKS
    assert datastore(server)["label_tags"]["extreme_points"] == len(instances)


def test_archive_that_is_gone_costs_the_segmentations_only(archive, server, instances, masks, tmp_path, capsys):
    archive.orthanc.stop()

    assert export([str(tmp_path), "--server", server.url]) == 1
    assert capsys.readouterr().err.count("The archive does not give the headers of the series; check that") == len(
        instances
    )
    assert sorted(path.name for path in tmp_path.glob("*.nii.gz")) == sorted(f"{uid}.nii.gz" for uid in instances)
    assert not list(tmp_path.glob("*.dcm"))
