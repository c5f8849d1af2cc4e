"""Clicks over HTTP, against a real server process."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
import requests
from monailabel.client import MONAILabelClient
from requests_toolbelt import MultipartDecoder

from lib.annotations.store import AnnotationStore
from lib.geometry.volume import load_volume
from lib.metrics import dice
from tests.server import asking

STUDY = "study_00"


def infer(site, params, model="extreme_points", image=STUDY, output="all", **query):
    return asking.infer(site, image, params, model, output=output, **query)


def annotations(site):
    return AnnotationStore(site.studies / "labels" / "extreme_points")


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_models_that_viewers_show(site):
    models = requests.get(f"{site.url}/info/", timeout=30).json()["models"]

    types = {name: model["type"] for name, model in models.items()}
    assert types == {
        "extreme_points": "deepedit",
        "extreme_points_annotation": "annotation",
        "inextremis": "segmentation",
    }
    assert all(model["labels"] == {"lesion": 1, "cyst": 2} for model in models.values())


def test_hyperparameters_show_in_info(site):
    config = requests.get(f"{site.url}/info/", timeout=30).json()["trainers"]["inextremis"]["config"]

    assert config["crf_weight"] == 1e-4
    assert config["roi_size"] == "48x48x48"


@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz"])
def test_six_clicks_to_a_mask_on_the_grid_of_the_image(site, tmp_path, extension):
    answer = infer(
        site, {"lesion": site.clicks(STUDY), "background": [], "result_extension": extension}, output="image"
    )

    path = tmp_path / f"mask{extension}"
    path.write_bytes(answer.content)
    mask, image = load_volume(path), load_volume(site.studies / f"{STUDY}.nii.gz")
    assert answer.status_code == 200
    assert mask.geometry.is_close(image.geometry)
    assert set(np.unique(mask.array)) == {0, 1}
    assert dice(mask.array > 0, site.mask(STUDY)) > 0.8


ELSEWHERE = {"X-Forwarded-For": "192.0.2.1"}  # as a proxy on the server's machine says it


@pytest.mark.parametrize("output", ["image", "all"])
@pytest.mark.parametrize(
    ("extension", "client", "encoding"),
    [(".nrrd", ELSEWHERE, "gzip"), (".nii.gz", ELSEWHERE, None), (".nrrd", {}, None)],
)
def test_mask_is_compressed_on_its_way_to_another_machine(site, output, extension, client, encoding):
    clicks = {"lesion": site.clicks(STUDY), "result_extension": extension}
    address, data = f"{site.url}/infer/extreme_points", {"params": json.dumps(clicks)}
    query = {"image": STUDY, "output": output}

    plain, packed = (
        requests.post(address, params=query, data=data, headers={"Accept-Encoding": accepted, **client}, timeout=120)
        for accepted in ("identity", "gzip")
    )

    assert "Content-Encoding" not in plain.headers
    assert int(plain.headers["Content-Length"]) == len(plain.content)
    assert packed.headers.get("Content-Encoding") == encoding
    assert mask_in(packed, output) == mask_in(plain, output)


def mask_in(answer, output):
    if output == "image":
        return answer.content
    parts = MultipartDecoder.from_response(answer).parts
    return next(part.content for part in parts if b'name="image"' in part.headers[b"Content-Disposition"])


def test_answer_tells_what_was_understood(site):
    clicks = site.clicks(STUDY)
    answer = infer(site, {"foreground": clicks[::-1], "label": "lesion"}, model="extreme_points_annotation")

    part = next(
        p for p in MultipartDecoder.from_response(answer).parts if b'name="params"' in p.headers[b"Content-Disposition"]
    )
    params = json.loads(part.text)
    extremes = params["extreme_points"]["lesion"]
    affine = nib.load(site.studies / f"{STUDY}.nii.gz").affine
    assert [extreme["voxel"] for extreme in extremes] == clicks
    for extreme in extremes:
        ras_mm = affine[:3, :3] @ extreme["voxel"] + affine[:3, 3]
        np.testing.assert_allclose(extreme["lps_mm"], ras_mm * [-1, -1, 1], atol=1e-2)
    ends = {"left", "right", "anterior", "posterior", "inferior", "superior"}
    assert {extreme["end"] for extreme in extremes} == ends
    assert set(params["latencies"]) >= {"load", "store", "segment", "write", "total"}


def test_annotation_is_on_disk_and_listed_when_the_answer_arrives(site):
    clicks = site.clicks("study_01")
    assert infer(site, {"lesion": clicks, "client_id": "reader 1"}, image="study_01").status_code == 200

    stored = annotations(site).load("study_01", "lesion")
    listed = requests.get(f"{site.url}/datastore/?output=all", timeout=30).json()["objects"]["study_01"]["labels"]
    assert stored.points.foreground_voxel.tolist() == clicks
    assert stored.annotator == "reader 1"
    assert "extreme_points" in listed
    assert requests.get(f"{site.url}/datastore/", timeout=30).json()["label_tags"]["extreme_points"] >= 1


def test_world_coordinates_reach_the_same_voxels(site):
    clicks = site.clicks("study_02")
    affine = nib.load(site.studies / "study_02.nii.gz").affine
    lps_mm = (np.array(clicks) @ affine[:3, :3].T + affine[:3, 3]) * [-1, -1, 1]

    infer(site, {"lesion": lps_mm.tolist(), "coordinates": "lps"}, image="study_02")

    assert annotations(site).load("study_02", "lesion").points.foreground_voxel.tolist() == clicks


REFUSALS = {
    "fewer than six": ({"cyst": [[1, 2, 3]] * 5}, "'cyst': 5 clicks; expected at least six"),
    "no extent": ({"cyst": [[i, i, 7] for i in range(6)]}, "'cyst': all clicks have the same k index"),
    "outside": ({"cyst": [[i, i, 10 * i] for i in range(6)]}, "outside the image"),
    "not numbers": ({"cyst": [[i, i, "x"] for i in range(6)]}, "not three finite numbers"),
    "no clicks": ({"cyst": []}, "no clicks for any label"),
    "unknown label": ({"tumour": [[i, i, i] for i in range(6)]}, "Label 'tumour' does not exist in this app"),
}


@pytest.mark.parametrize(("params", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_are_422_with_a_sentence_and_store_nothing(site, params, sentence):
    before = files(site.studies / "labels")

    answer = infer(site, params)

    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]
    assert files(site.studies / "labels") == before


@pytest.mark.parametrize(
    ("request_parts", "status"),
    [
        ({"params": {}, "image": "study_99"}, 404),
        ({"params": {}, "image": "../truth/study_00"}, 404),
        ({"params": {}, "image": "/etc/passwd"}, 404),
        ({"params": {"image": "/etc/passwd"}, "image": "study_99"}, 404),
        ({"params": {}, "model": "deepedit"}, 404),
        ({"params": "{not json"}, 422),
        ({"params": "[1, 2]"}, 422),
        ({"params": {"result_extension": "/../../x.nrrd"}}, 422),
        ({"params": {"result_extension": ".exe"}}, 422),
        ({"params": {"result_dtype": "object"}}, 422),
        ({"params": {}, "image": ""}, 422),
        ({"params": {}, "output": "dicom_seg"}, 422),
        ({"params": {}, "session_id": "../../etc", "image": ""}, 404),
        ({"params": {}, "session_id": "none-of-ours", "image": ""}, 404),
    ],
)
def test_bad_requests_are_the_clients_fault(site, request_parts, status):
    answer = infer(site, **request_parts)

    assert answer.status_code == status
    assert len(answer.json()["detail"]) > 10


def test_masks_of_models_never_enter_the_datastore(site):
    before = files(site.studies / "labels")
    clicks = annotations(site).load("study_02", "lesion").points.foreground_voxel.tolist()

    infer(site, {"lesion": clicks, "save_label": True, "label_tag": "../../escaped"}, image="study_02")

    changed = {path.name for path, content in files(site.studies / "labels").items() if before.get(path) != content}
    assert changed <= {"study_02.lesion.json"}
    assert not (site.studies.parent / "escaped").exists()


def test_image_that_cannot_be_read_is_named(site):
    path = site.studies / "broken.nii.gz"
    path.write_bytes(b"this is no image")
    try:
        answer = infer(site, {"lesion": site.clicks(STUDY)}, image="broken")
    finally:
        path.unlink()

    assert answer.status_code == 422
    assert "broken.nii.gz cannot be read" in answer.json()["detail"]


def test_ten_clients_at_once(site):
    """Each repeats its own clicks in its own study; nothing is lost, mixed or refused."""
    studies = [f"study_{n:02d}" for n in range(8)]
    jobs = [(studies[n % 8], ("lesion", "cyst")[n // 8], n) for n in range(10)]

    def work(job):
        study, label, seed = job
        clicks = site.clicks(study, seed)
        return [infer(site, {label: clicks, "client_id": f"reader {seed}"}, image=study).status_code for _ in range(3)]

    with ThreadPoolExecutor(10) as clients:
        statuses = list(clients.map(work, jobs))

    assert statuses == [[200] * 3] * 10
    for study, label, seed in jobs:
        stored = annotations(site).load(study, label)
        assert stored.points.foreground_voxel.tolist() == site.clicks(study, seed)
        assert stored.annotator == f"reader {seed}"


def test_volume_uploaded_in_a_session_is_segmented_but_not_an_annotation(site, tmp_path):
    upload = tmp_path / "upload.nii.gz"
    shutil.copy(site.studies / "study_03.nii.gz", upload)
    client = MONAILabelClient(site.url, tmpdir=str(tmp_path))
    before = files(site.studies / "labels")

    session = client.create_session(str(upload))["session_id"]
    path, params = client.infer("extreme_points", "", {"lesion": site.clicks("study_03")}, session_id=session)
    client.remove_session(session)

    assert dice(load_volume(path).array > 0, site.mask("study_03")) > 0.8
    assert params["stored"] is False
    assert files(site.studies / "labels") == before
