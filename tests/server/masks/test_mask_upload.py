"""A mask that is submitted: what its values mean, and what is refused before anything is stored."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lib.annotations.mask_file import MaskError
from lib.annotations.mask_origin import MaskOrigin, acceptances, origins
from lib.geometry.volume import load_volume
from lib.server.masks.mask_upload import store_mask, values_of_labels
from lib.server.studies.open_studies import open_studies
from tests.full_disk import no_space
from tests.server.refusals import refusal
from tests.server.studies.images import AFFINE, LABELS, SHAPE, write_image

APP = {"tumour": 1, "cyst": 2}


def segment(name, index):
    return {"name": name, "idx": index}


@pytest.mark.parametrize("params", [{}, {"label_info": None}, {"label_info": []}, {"label_info": ""}, {"user": "a"}])
def test_without_names_the_values_are_those_of_the_app(params):
    assert values_of_labels(params, LABELS) == APP


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ([segment("tumour", 1), segment("cyst", 2)], {"tumour": 1, "cyst": 2}),
        ([segment("cyst", 1), segment("tumour", 2)], {"cyst": 1, "tumour": 2}),
        ([segment("cyst", 1)], {"cyst": 1}),
        ([segment("cyst", 7)], {"cyst": 7}),
        ([segment(" cyst ", 1)], {"cyst": 1}),
        ([segment("vessel", 1), segment("cyst", 2)], {"vessel": 1, "cyst": 2}),
        ([segment("cyst", 1), segment("cyst", 1)], {"cyst": 1}),
        ([segment("background", 0), segment("cyst", 1)], {"background": 0, "cyst": 1}),
        ([segment("cyst", 1) | {"color": [1, 2, 3]}], {"cyst": 1}),
        ([segment("läsion", 1)], {"läsion": 1}),
        ([{"name": "cyst"}], {"cyst": 1}),
        ([{"name": "cyst"}, {"name": "tumour"}], {"cyst": 1, "tumour": 2}),
    ],
)
def test_names_tell_the_values(info, expected):
    assert values_of_labels({"label_info": info}, LABELS) == expected


@pytest.mark.parametrize(
    "info",
    [
        {"name": "cyst", "idx": 1},
        "cyst",
        7,
        True,
        ["cyst"],
        [None],
        [["cyst", 1]],
        [{"idx": 1}],
        [segment("cyst", "1")],
        [segment("cyst", 1.0)],
        [segment("cyst", True)],
        [segment("cyst", None)],
        [segment(7, 1)],
        [segment(None, 1)],
        [segment("cyst", 1), segment("tumour", 1)],
        [segment("cyst", 1), segment("cyst", 2)],
        [segment("cyst", 1), segment(" cyst", 2)],
        [segment("x" * 10_000, 1), segment("x" * 10_000, 2)],
        [segment("x" * 10_000, 1), segment("y" * 10_000, 1)],
        [segment(f"label {n}", n) for n in range(1000)],
    ],
)
def test_names_that_say_nothing_are_refused_in_a_short_sentence(info):
    with pytest.raises(MaskError, match="^The label_info ") as error:
        values_of_labels({"label_info": info}, LABELS)

    assert len(str(error.value)) < 400


# Masks


@pytest.fixture
def studies(tmp_path):
    write_image(tmp_path / "studies" / "scan.nii.gz")
    return open_studies(str(tmp_path / "studies"), LABELS, None)


def mask_array(value=1, dtype=np.uint8):
    array = np.zeros(SHAPE, dtype)
    array[2:5, 3:6, 2:4] = value
    return array


@pytest.fixture
def submit(studies, tmp_path):
    """Return a function that submits an array on a grid, or a file, and returns the stored mask."""

    def submitted(array=None, affine=AFFINE, name="upload.nii.gz", content=None, info=None, tag="final", **params):
        upload = tmp_path / name
        if content is not None:
            upload.write_bytes(content)
        else:
            nifti = tmp_path / ("upload.nii" if name.endswith(".nii") else "other.nii.gz")
            image = nib.Nifti1Image(array, affine)
            image.set_sform(affine, code=1)
            nib.save(image, nifti)
            if name.endswith(".nrrd"):
                sitk.WriteImage(sitk.ReadImage(str(nifti)), str(upload), useCompression=True)
            else:
                nifti.rename(upload)
        path = studies.image_path("scan")
        params |= {} if info is None else {"label_info": info}
        store_mask(studies, "scan", path, upload, tag, params, "reader 1")
        return studies.masks(tag).load("scan").array

    return submitted


@pytest.mark.parametrize("name", ["upload.nii.gz", "upload.nii", "upload.nrrd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_mask_of_any_format_and_type_is_stored_as_it_was_drawn(submit, name, dtype):
    array = mask_array(2, dtype)

    np.testing.assert_array_equal(submit(array, name=name), array)


@pytest.mark.parametrize("trailing", [(1,), (1, 1)])
def test_trailing_axes_of_length_1_are_dropped(submit, trailing):
    np.testing.assert_array_equal(submit(mask_array(2).reshape(*SHAPE, *trailing)), mask_array(2))


def test_record_says_who_when_which_labels_and_which_voxels(submit, studies):
    submit(mask_array())

    record = studies.masks().record("scan")

    assert record.labels == APP
    assert record.annotator == "reader 1"
    assert record.created
    assert record.image_checksum == studies.identities.checksum(studies.image_path("scan"))


@pytest.mark.parametrize(
    ("values", "info", "expected"),
    [
        ((1, 0), [segment("cyst", 1)], (2, 0)),  # as Slicer numbers the segments that it shows
        ((1, 2), [segment("cyst", 1), segment("tumour", 2)], (2, 1)),
        ((2, 0), [segment("vessel", 1), segment("tumour", 2)], (1, 0)),  # the segment of no label is empty
    ],
)
def test_values_are_those_of_the_named_segments(submit, values, info, expected):
    def drawn(first, second):
        array = mask_array(first)
        array[7:9, 7:9, 6] = second
        return array

    np.testing.assert_array_equal(submit(drawn(*values), info=info), drawn(*expected))


def test_empty_mask_says_that_nothing_is_there(submit, studies):
    assert not submit(mask_array(0)).any()
    assert studies.get_labeled_images() == ["scan"]


# Some of the labels


def test_upload_of_one_label_answers_no_other(submit, studies):
    stored = submit(mask_array(1), labels=["tumour"])

    np.testing.assert_array_equal(stored, mask_array(1))
    assert studies.masks().record("scan").labels == {"tumour": 1}
    assert studies.get_labeled_images() == []


def test_upload_of_one_label_keeps_what_is_stored_of_another(submit, studies):
    """But for a voxel that both claim; what the upload holds of the other is not looked at."""
    both, tumour = mask_array(2), np.zeros(SHAPE, np.uint8)
    both[7, 7, 5] = APP["tumour"]
    tumour[4, 5, 3], tumour[0, 0, 0], tumour[1, 1, 1] = APP["tumour"], APP["tumour"], APP["cyst"]
    submit(both)

    stored = submit(tumour, labels=["tumour"])

    expected = mask_array(2)
    expected[4, 5, 3], expected[0, 0, 0] = APP["tumour"], APP["tumour"]
    np.testing.assert_array_equal(stored, expected)
    assert studies.masks().record("scan").labels == APP


def test_mask_of_the_network_that_is_submitted_unchanged_is_not_drawn(submit, studies):
    submit(mask_array(2), labels=["cyst"], proposal={"model_version": 3, "model_sha256": "ab"})
    before = acceptances(studies.masks().record("scan"))["cyst"]
    submit(mask_array(1), labels=["tumour"])
    record = studies.masks().record("scan")

    assert {key: before[key] for key in ("annotator", "model_version", "model_sha256", "clicks")} == {
        "annotator": "reader 1",
        "model_version": 3,
        "model_sha256": "ab",
        "clicks": 0,
    }
    assert origins(record) == {"tumour": MaskOrigin.DRAWN, "cyst": MaskOrigin.ACCEPTED}
    assert acceptances(record) == {"cyst": before}


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"labels": []}, "is empty"),
        ({"labels": "cyst"}, "expected a list"),
        ({"labels": ["bone"]}, "does not exist in this app"),
        ({"proposal": 3}, "expected an object"),
        ({"proposal": {}}, "model_version"),
        ({"proposal": {"model_version": True}}, "model_version"),
        ({"proposal": {"model_version": 3, "model_sha256": 7}}, "model_sha256"),
    ],
)
def test_labels_and_proposals_that_say_nothing_are_refused(submit, studies, params, reason):
    status, sentence = refusal(submit, mask_array(), **params)

    assert status == 422 and reason in sentence
    assert studies.masks().path("scan") is None


def flipped(affine=AFFINE):
    return affine * [-1, 1, 1, 1]


REFUSED = {
    "segment that the app does not have": (dict(array=mask_array(), info=[segment("vessel", 1)]), "the label 'vessel'"),
    "segment without a name": (
        dict(array=mask_array(2), info=[segment("cyst", 1)]),
        "the value 2; expected 0, 1 for cyst",
    ),
    "value of no label": (dict(array=mask_array(3)), "the value 3; expected 0, 1 for tumour, 2 for cyst"),
    "value below 0": (dict(array=mask_array(-1, np.int16)), "the value -1"),
    "value in between": (dict(array=mask_array(0.5, np.float32)), "the value 0.5"),
    "value beyond a byte": (dict(array=mask_array(257, np.int16)), "the value 257"),
    "NaN": (dict(array=mask_array(np.nan, np.float32)), "not finite"),
    "infinite": (dict(array=mask_array(np.inf, np.float32)), "not finite"),
    "larger": (dict(array=np.zeros((10, 9, 9), np.uint8)), "not on the grid of its image"),
    "smaller": (dict(array=np.zeros((10, 9, 7), np.uint8)), "not on the grid of its image"),
    "other order of axes": (dict(array=np.zeros((9, 10, 8), np.uint8)), "not on the grid of its image"),
    "shifted": (dict(array=mask_array(), affine=AFFINE + np.eye(4)[:, [3, 1, 2, 0]] * [0, 0, 0, 1]), "not on the grid"),
    "flipped": (dict(array=mask_array(), affine=flipped()), "not on the grid of its image"),
    "other spacing": (dict(array=mask_array(), affine=AFFINE * [2, 1, 1, 1]), "not on the grid of its image"),
    "film": (dict(array=np.zeros((*SHAPE, 2), np.uint8)), "expected a 3D volume"),
    "slice": (dict(array=np.zeros(SHAPE[:2], np.uint8)), "expected a 3D volume"),
    "no volume": (dict(content=b"not a volume"), "cannot be read"),
    "empty file": (dict(content=b""), "cannot be read"),
    "no NRRD": (dict(content=b"not a volume", name="upload.nrrd"), "cannot be read"),
    "names that say nothing": (dict(array=mask_array(), info="cyst"), "The label_info is cyst; expected a list"),
}


@pytest.mark.parametrize(("sent", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_mask_of_the_image_is_refused_and_nothing_is_stored(submit, studies, tmp_path, sent, reason):
    before = submit(mask_array(2)).copy()
    status, sentence = refusal(submit, **sent)

    assert status == 422
    assert reason in sentence and len(sentence) < 500
    assert "upload." not in sentence and str(tmp_path) not in sentence
    np.testing.assert_array_equal(studies.masks().load("scan").array, before)
    assert not studies.masks().history_folder("scan").exists()


def test_full_disk_is_said_and_leaves_the_mask_before(submit, studies, monkeypatch):
    before = submit(mask_array(2)).copy()

    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", no_space)
        status, sentence = refusal(submit, mask_array(1))

    assert status == 507
    assert "could not be stored (No space left on device). Make room" in sentence
    np.testing.assert_array_equal(studies.masks().load("scan").array, before)


def test_masks_of_other_tags_do_not_touch_the_final_one(submit, studies):
    submit(mask_array(1))
    submit(mask_array(2), tag="original")

    np.testing.assert_array_equal(studies.masks().load("scan").array, mask_array(1))
    assert load_volume(studies.get_label_uri("scan", "original")).array.max() == 2


@pytest.mark.parametrize(
    "tag", ["../../escaped", "a/b", "..", ".", "", "final\0", "a b", "x" * 65, "extreme_points", "ä"]
)
def test_tag_that_could_leave_its_folder_or_hide_clicks_is_refused(studies, tag):
    assert refusal(studies.masks, tag)[0] == 422
