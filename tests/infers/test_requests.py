"""What an inference request has to pass: images that exist, files of the server only, formats that can be written."""

import shutil
import tempfile

import nibabel as nib
import numpy as np
import pytest
from fastapi import HTTPException

from lib.datastore.safe_index import SafeIndex
from lib.infers.requests import RESULT_EXTENSIONS, annotator_of, checked_request, require_model


@pytest.fixture
def datastore(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), folder / "scan.nii.gz")
    return SafeIndex(str(folder))


@pytest.fixture
def sessions(tmp_path):
    folder = tmp_path / "sessions"
    (folder / "one").mkdir(parents=True)
    (folder / "one" / "volume.nii.gz").write_bytes(b"volume")
    return folder


@pytest.fixture
def secret(tmp_path):
    """A file of the machine that no client has any business with."""
    path = tmp_path / "secret.nii.gz"
    path.write_bytes(b"secret")
    return path


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """The system's folder of temporary files, where the server puts uploads."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def status(request, datastore, sessions=None):
    with pytest.raises(HTTPException) as error:
        checked_request(request, datastore, sessions)
    return error.value.status_code, error.value.detail


def test_image_of_the_studies_keeps_its_id(datastore):
    # MONAI Label replaces `image` by a path before a task sees it.
    checked = checked_request({"image": "scan", "lesion": [[1, 2, 3]]}, datastore, None)

    assert checked["image_id"] == "scan"
    assert checked["lesion"] == [[1, 2, 3]]


def test_client_cannot_choose_the_id_under_which_clicks_are_stored(datastore, sessions):
    volume = str(sessions / "one" / "volume.nii.gz")

    assert checked_request({"image": "scan", "image_id": "other"}, datastore, None)["image_id"] == "scan"
    assert checked_request({"image": volume, "image_id": "other"}, datastore, sessions)["image_id"] is None


def test_masks_of_models_are_never_saved_as_labels(datastore):
    assert checked_request({"image": "scan", "save_label": True}, datastore, None)["save_label"] is False


def test_request_itself_is_left_as_it_was(datastore):
    request = {"image": "scan", "save_label": True}

    checked_request(request, datastore, None)

    assert request == {"image": "scan", "save_label": True}


@pytest.mark.parametrize("image", ["", None, 7, ["scan"], {"a": 1}])
def test_image_is_a_name(datastore, image):
    code, sentence = status({"image": image}, datastore)

    assert code == 422
    assert repr(image) in sentence


@pytest.mark.parametrize(
    "image",
    [
        "other",
        "scan.nii.gz",
        "../secret.nii.gz",
        "../studies/scan",
        "./scan",
        "scan/",
        "scan\0",
        "/",
        "/etc/passwd",
        "~",
    ],
)
def test_image_that_the_studies_do_not_hold_is_unknown(datastore, sessions, secret, image):
    code, sentence = status({"image": image}, datastore, sessions)

    assert code == 404
    assert repr(image) in sentence


def test_name_too_long_for_the_file_system_is_unknown(datastore, sessions):
    assert status({"image": "/" + 5000 * "a"}, datastore, sessions)[0] == 404


def test_volume_of_a_session_is_a_file_of_the_server(datastore, sessions):
    volume = str(sessions / "one" / "volume.nii.gz")

    assert checked_request({"image": volume}, datastore, sessions)["image"] == volume


@pytest.mark.parametrize("escape", ["one/../../secret.nii.gz", "../secret.nii.gz", "../sessions_2/volume.nii.gz"])
def test_path_that_leaves_the_sessions_is_unknown(datastore, sessions, secret, escape):
    others = sessions.with_name("sessions_2")
    others.mkdir()
    shutil.copy(secret, others / "volume.nii.gz")
    assert (sessions / escape).exists()

    assert status({"image": str(sessions / escape)}, datastore, sessions)[0] == 404


def test_link_out_of_the_sessions_is_unknown(datastore, sessions, secret):
    link = sessions / "one" / "link.nii.gz"
    link.symlink_to(secret)

    assert status({"image": str(link)}, datastore, sessions)[0] == 404


def test_folder_that_is_a_link_out_of_the_sessions_is_unknown(datastore, sessions, secret):
    (sessions / "two").symlink_to(secret.parent)

    assert status({"image": str(sessions / "two" / secret.name)}, datastore, sessions)[0] == 404


def test_sessions_folder_may_itself_be_a_link(datastore, sessions, tmp_path):
    (tmp_path / "link").symlink_to(sessions)
    volume = str(tmp_path / "link" / "one" / "volume.nii.gz")

    assert checked_request({"image": volume}, datastore, tmp_path / "link")["image"] == volume


def test_upload_is_a_file_of_the_server(datastore, uploads):
    with tempfile.NamedTemporaryFile(suffix=".nii.gz") as upload:
        assert checked_request({"image": upload.name}, datastore, None)["image_id"] is None


@pytest.mark.parametrize("name", ["secret.nii.gz", "tmp_folder/tmp_file.nii.gz"])
def test_other_temporary_files_are_unknown(datastore, uploads, name):
    path = uploads / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"secret")

    assert status({"image": str(path)}, datastore)[0] == 404


def test_link_with_the_name_of_an_upload_is_unknown(datastore, uploads, secret):
    link = uploads / "tmp_link.nii.gz"
    link.symlink_to(secret)

    assert status({"image": str(link)}, datastore)[0] == 404


@pytest.mark.parametrize("extension", [*RESULT_EXTENSIONS, "", None])
def test_formats_that_can_be_written(datastore, extension):
    assert checked_request({"image": "scan", "result_extension": extension}, datastore, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("result_extension", ".exe"),
        ("result_extension", "nrrd"),
        ("result_extension", "/../../x.nrrd"),
        ("result_extension", [".nrrd"]),
        ("result_dtype", "object"),
        ("result_dtype", "float64"),
        ("result_dtype", {"a": 1}),
    ],
)
def test_formats_that_cannot_be_written_are_named_with_those_that_can(datastore, key, value):
    code, sentence = status({"image": "scan", key: value}, datastore)

    assert code == 422
    assert f"The {key} is {value!r}; expected one of " in sentence


@pytest.mark.parametrize("model", ["deepedit", "", None, ["inextremis"], "../inextremis"])
def test_unknown_model_is_named_with_those_there_are(model):
    with pytest.raises(HTTPException) as error:
        require_model(model, {"inextremis": object(), "extreme_points": object()})

    assert error.value.status_code == 404
    assert error.value.detail == f"There is no model {model!r}; this app has inextremis, extreme_points."


def test_known_model_is_let_through():
    require_model("inextremis", {"inextremis": object()})


@pytest.mark.parametrize(("request_params", "who"), [({"client_id": "reader 1"}, "reader 1"), ({}, "unknown")])
def test_annotator_is_who_the_client_says(request_params, who):
    assert annotator_of(request_params) == who
