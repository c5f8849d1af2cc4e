"""scripts/export.py: what it writes, what it leaves, and what it says when it cannot; real servers in tests/server."""

import gzip
import json
import os

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest

from lib.demo.local_server import free_port
from scripts.export import main
from tests.exchange.answering import INFO, answering, datastore, listed
from tests.exchange.studies import GEOMETRIES, all_files
from tests.full_disk import full_after
from tests.physical import PLANES, l_shape, series


def nifti(array, affine_ras=GEOMETRIES["oblique"], name="mask.nii.gz"):
    """As a server answers with a volume."""
    image = nib.Nifti1Image(array, affine_ras)
    image.set_sform(affine_ras, code=1)
    return 200, gzip.compress(image.to_bytes()), name


MASK = (l_shape() > 500).astype(np.uint8)
CLICKED = {
    "/info/": INFO,
    "/datastore/": datastore(scan=["extreme_points"], other=[]),
    "/datastore/image/info": {},
    "/infer/extreme_points": nifti(MASK),
    "/datastore/label/info": {},
}
FINAL = {
    **CLICKED,
    "/datastore/": datastore(scan=["extreme_points", "final"]),
    "/datastore/image": nifti(l_shape()),
    "/datastore/label": nifti(2 * MASK),
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "masks"


def run(answers, folder, *options):
    with answering(answers) as url:
        return main([str(folder), "--server", url, *options])


def test_mask_of_clicks_and_labels_are_written(folder):
    assert run(CLICKED, folder) == 0

    assert sorted(path.name for path in folder.iterdir()) == ["labels.json", "scan.nii.gz"]
    assert json.loads((folder / "labels.json").read_text()) == {"lesion": 1, "cyst": 2}
    written = nib.load(folder / "scan.nii.gz")
    np.testing.assert_array_equal(written.dataobj, MASK)
    np.testing.assert_allclose(written.affine, GEOMETRIES["oblique"], atol=1e-4)
    assert written.get_data_dtype() == np.uint8
    assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == (1, 1)


def test_final_mask_goes_before_clicks(folder):
    assert run(FINAL, folder) == 0

    np.testing.assert_array_equal(nib.load(folder / "scan.nii.gz").dataobj, 2 * MASK)


def test_labels_that_the_final_mask_does_not_cover_are_those_of_the_clicks(folder):
    drawn, clicked = 2 * MASK, np.roll(MASK, 3, axis=0)
    answers = {
        **FINAL,
        "/datastore/": {"objects": {"scan": listed(final=["cyst"], extreme_points=["lesion", "cyst"])}},
        "/datastore/label": nifti(drawn),
        "/infer/extreme_points": nifti(np.where(clicked, clicked, 2 * MASK[::-1])),
    }

    assert run(answers, folder) == 0

    written = np.asarray(nib.load(folder / "scan.nii.gz").dataobj)
    np.testing.assert_array_equal(written == 2, drawn == 2)
    np.testing.assert_array_equal(written == 1, (clicked == 1) & (drawn == 0))
    assert (written == 1).any()


def test_final_mask_of_labels_that_the_app_no_longer_has_counts_for_nothing(folder):
    images = {"scan": listed(final=["vessel"], extreme_points=["lesion", "cyst"])}

    assert run({**FINAL, "/datastore/": {"objects": images}}, folder) == 0

    np.testing.assert_array_equal(nib.load(folder / "scan.nii.gz").dataobj, MASK)


def test_final_mask_that_cannot_be_read_is_not_replaced_by_clicks(folder, capsys):
    answers = {
        **FINAL,
        "/datastore/": {"objects": {"scan": listed(final=[], extreme_points=["lesion", "cyst"])}},
        "/datastore/label": (422, b'{"detail": "The mask scan.nii.gz cannot be read."}', ""),
    }

    assert run(answers, folder) == 1
    assert "The mask scan.nii.gz cannot be read." in capsys.readouterr().err


def test_studies_with_labels_that_nobody_answered_are_left_out_unless_they_are_named(folder, capsys):
    images = {
        "all": listed(extreme_points=["lesion", "cyst"]),
        "part": listed(extreme_points=["cyst"]),
        "other": listed(final=["cyst"]),
    }
    answers = {**FINAL, "/datastore/": {"objects": images}}

    assert run(answers, folder) == 0
    assert names(folder) == ["all.nii.gz"]
    told = " ".join(capsys.readouterr().out.split())
    assert "1 masks written" in told
    assert "2 studies are left out, because labels are missing in them (lesion); --image writes them anyway" in told

    assert run(answers, folder, "--image", "part") == 0
    assert names(folder) == ["all.nii.gz", "part.nii.gz"]
    assert "left out" not in capsys.readouterr().out


def test_mask_that_is_there_is_left_until_told(folder, capsys):
    run(CLICKED, folder)
    before = all_files(folder)

    assert run(FINAL, folder) == 0
    assert all_files(folder) == before
    assert "1 exist already (--overwrite replaces them)" in capsys.readouterr().out.replace("\n", " ")

    assert run(FINAL, folder, "--overwrite") == 0
    assert nib.load(folder / "scan.nii.gz").dataobj[5, 6, 4] == 2


def test_same_mask_is_the_same_file(folder):
    run(CLICKED, folder)
    before = all_files(folder)
    run(CLICKED, folder, "--overwrite")

    assert all_files(folder) == before


def test_one_image_that_fails_does_not_hold_up_the_others(folder, capsys):
    answers = {**CLICKED, "/datastore/": datastore(a=["extreme_points"], b=["final"], c=["extreme_points"])}

    assert run(answers, folder) == 1

    assert sorted(path.name for path in folder.glob("*.nii.gz")) == ["a.nii.gz", "c.nii.gz"]
    told = capsys.readouterr()
    assert "b: The server answered 404" in told.err
    assert "2 masks written to" in told.out and "1 failed." in told.out


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        (
            {"/datastore/label": nifti(MASK, GEOMETRIES["flipped"])},
            "scan: The final mask is not on the grid of its image",
        ),
        (
            {"/datastore/label": nifti(3 * MASK)},
            "scan: The final mask holds the value 3; expected 0, 1 for lesion, 2 for",
        ),
        ({"/datastore/label": (200, b"x", "mask.nii.gz")}, "scan: The image volume.nii.gz cannot be read"),
        ({"/datastore/label": nifti(MASK[..., None].repeat(2, 3))}, "has the size 24 x 20 x 12 x 2"),
    ],
)
def test_final_mask_that_is_wrong_is_a_sentence(folder, capsys, answers, sentence):
    assert run({**FINAL, **answers}, folder) == 1

    assert sentence in capsys.readouterr().err
    assert not (folder / "scan.nii.gz").exists()


def test_mask_of_clicks_with_a_value_of_no_label_is_a_sentence(folder, capsys):
    assert run({**CLICKED, "/infer/extreme_points": nifti(3 * MASK)}, folder) == 1

    assert "scan: The mask of the clicks holds the value 3; expected 0, 1 for lesion, 2 for" in capsys.readouterr().err


HEADERS = [
    {tag: entry for tag, entry in instance.to_json_dict().items() if tag != "7FE00010"}
    for instance in series("oblique")
]


def archive(metadata):
    """Return the answers of a server with a DICOM series, whose headers are `metadata`, between two files."""
    dicom = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
    return {
        **CLICKED,
        "/datastore/": datastore(a=["extreme_points"], series=["extreme_points"], z=["extreme_points"]),
        "/datastore/image/info?image=series": dicom,
        "/infer/extreme_points?image=series&output=image": nifti(MASK, PLANES["oblique"]),
        "/proxy/dicom/wado/studies/1.2/series/1.2.3/metadata": metadata,
    }


def without(tag):
    return [{key: entry for key, entry in header.items() if key != tag} for header in HEADERS]


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "labels.json")


NIFTIS = ["a.nii.gz", "series.nii.gz", "z.nii.gz"]
FAULTS = {
    "archive away": ((502, b'{"detail": "The archive is away."}', ""), "The archive is away"),
    "archive that asks for a login": ((401, b"", ""), "The server asks for a login"),
    "series that is gone": ([], "The archive holds no image of the series any more"),
    "no JSON": ((200, b"<html>", ""), "its answer is not JSON"),
    "no headers": (["one", "two"], "its answer is not one of DICOMweb"),
    "no position": (without("00200032"), "do not say where its slices lie"),
    "position of words": (
        [{**header, "00200032": {"vr": "DS", "Value": ["here"]}} for header in HEADERS],
        "do not say where its slices lie",
    ),
    "no UID": (without("00080018"), "do not make a DICOM segmentation"),
    "slices that are gone": (HEADERS[:5], "lies in none of the slices"),
    "class of a vendor": (
        [{**header, "00080016": {"vr": "UI", "Value": ["1.2.3.4"]}} for header in HEADERS],
        "do not make a DICOM segmentation",
    ),
}


@pytest.mark.parametrize(("metadata", "sentence"), FAULTS.values(), ids=FAULTS)
def test_segmentation_that_cannot_be_made_is_named_and_tried_again(folder, capsys, metadata, sentence):
    assert run(archive(metadata), folder) == 1

    told = capsys.readouterr().err
    assert "series: " in told and sentence in told and "Traceback" not in told
    assert names(folder) == NIFTIS
    np.testing.assert_array_equal(nib.load(folder / "series.nii.gz").dataobj, MASK)

    assert run(archive(metadata), folder) == 1
    assert sentence in capsys.readouterr().err

    assert run(archive(HEADERS), folder) == 0
    assert names(folder) == sorted([*NIFTIS, "series.seg.dcm"])
    assert hd.seg.segread(folder / "series.seg.dcm").number_of_segments == 1

    before = all_files(folder)
    assert run(archive(metadata), folder) == 0
    assert all_files(folder) == before


def test_no_segmentation_of_an_earlier_mask_stays(folder):
    run(archive(HEADERS), folder)

    assert run(archive(without("00200032")), folder, "--overwrite") == 1
    assert names(folder) == NIFTIS


def test_empty_mask_of_a_series_is_complete_without_a_segmentation(folder, capsys):
    answers = {**archive(HEADERS), "/infer/extreme_points?image=series&output=image": nifti(0 * MASK)}

    assert run(answers, folder) == 0
    assert run(answers, folder) == 0

    assert names(folder) == NIFTIS
    assert "0 masks written" in capsys.readouterr().out


def test_name_that_no_file_can_have_does_not_hold_up_the_others(folder, capsys):
    answers = {
        **CLICKED,
        "/datastore/": datastore(a=["extreme_points"], z=["extreme_points"], **{"x" * 300: ["final"]}),
    }

    assert run({**FINAL, **answers}, folder) == 1

    assert (
        f"{'x' * 300}: The folder of the masks cannot be read or written: File name too long" in capsys.readouterr().err
    )
    assert names(folder) == ["a.nii.gz", "z.nii.gz"]


@pytest.mark.parametrize("image", ["../outside", "/etc/scan", "a/b", ".."])
def test_no_image_id_of_a_server_leaves_the_folder(folder, capsys, image):
    assert run({**CLICKED, "/datastore/": datastore(**{image: ["extreme_points"]})}, folder) == 1

    assert f"The image id {image!r} of the server is not a plain name" in capsys.readouterr().err
    assert [path.name for path in folder.parent.rglob("*") if path.is_file()] == ["labels.json"]


def test_masks_of_other_labels_are_not_mixed(folder, capsys):
    run(CLICKED, folder)
    info = {"models": {"extreme_points": {"labels": {"cyst": 1, "lesion": 2}}}}

    assert run({**CLICKED, "/info/": info}, folder) == 2
    assert "holds masks of other labels than the server's, cyst, lesion" in capsys.readouterr().err


def test_only_the_images_that_are_named(folder, capsys):
    answers = {**CLICKED, "/datastore/": datastore(a=["extreme_points"], b=["extreme_points"], c=[])}

    assert run(answers, folder, "--image", "b") == 0
    assert [path.name for path in folder.glob("*.nii.gz")] == ["b.nii.gz"]
    assert run(answers, folder, "--image", "c") == 2
    assert "The image 'c' has neither clicks nor a final mask" in capsys.readouterr().err


@pytest.mark.parametrize(
    "answers",
    [{}, {"/info/": {"models": {}}}, {"/info/": (200, b"<html>", "")}, {"/info/": []}, {"/info/": {"models": [1]}}],
)
def test_wrong_server_leaves_no_folder(folder, answers):
    assert run(answers, folder) == 2
    assert not folder.exists()


def test_no_server_is_a_sentence(folder, capsys):
    assert main([str(folder), "--server", f"http://127.0.0.1:{free_port()}"]) == 2
    assert "start the server, or give its address" in capsys.readouterr().err


def test_list_of_images_that_is_none_is_a_sentence(folder, capsys):
    assert run({**CLICKED, "/datastore/": {"objects": {"scan": {}}}}, folder) == 2
    assert "is not a MONAI Label server" in capsys.readouterr().err


def test_folder_that_is_a_file_is_a_sentence(tmp_path, capsys):
    (tmp_path / "masks").write_text("a file")

    assert run(CLICKED, tmp_path / "masks") == 2
    assert "exists" in capsys.readouterr().err


def test_full_disk_is_a_sentence_and_leaves_no_half_file(folder, monkeypatch, capsys):
    monkeypatch.setattr(os, "fsync", full_after(2))

    assert run(CLICKED, folder) == 1
    assert "No space left on device. The same command continues from here." in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["labels.json"]
