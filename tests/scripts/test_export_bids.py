"""scripts/export_dataset.sh --format bids: scans and their final masks, by the rules of BIDS' own validator."""

import json
import subprocess

import nibabel as nib
import numpy as np
import pytest

from lib.exchange.bids_dataset import SUFFIXES
from lib.exchange.seg_provenance import VERSION
from lib.server.audit import last_records
from lib.server.project import Project
from scripts.export_dataset import main
from tests.installed import BIDS_VALIDATOR, need_bids_validator
from tests.scripts.annotated_studies import LESION, click, labelled_studies, lesion_of, say_absent, submit


@pytest.fixture
def studies(tmp_path):
    return labelled_studies(tmp_path / "studies")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "bids"


def errors_of(folder):
    """Return the errors of BIDS' validator in the images and in the masks."""
    need_bids_validator()
    found = []
    for dataset in (folder, folder / "derivatives" / "inextremis"):
        told = subprocess.run([BIDS_VALIDATOR, dataset, "--json"], capture_output=True, text=True, timeout=300)
        report = json.loads(told.stdout)
        assert report["summary"]["totalFiles"] > 0
        found += [issue for issue in report["issues"]["issues"] if issue["severity"] == "error"]
    return found


def derived(out, number, ending):
    return out / "derivatives" / "inextremis" / f"sub-{number:04d}" / "anat" / f"sub-{number:04d}_dseg.{ending}"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_images_and_final_masks_keep_the_rules_of_bids(studies, out, suffix):
    submit(studies, "straight", lesion_of(studies, "straight") * LESION)
    submit(studies, "oblique", lesion_of(studies, "oblique") * LESION, labels={"lesion": 1})

    assert main([str(studies), str(out), "--format", "bids", "--suffix", suffix]) == 0

    assert errors_of(out) == []
    subjects = (out / "participants.tsv").read_text().splitlines()
    assert sorted(subjects[1:]) == ["sub-0001\toblique", "sub-0002\tstraight"]
    for line in subjects[1:]:
        subject, image_id = line.split("\t")
        number = int(subject.removeprefix("sub-"))
        image = nib.load(out / subject / "anat" / f"{subject}_{suffix}.nii.gz")
        mask = nib.load(derived(out, number, "nii.gz"))
        original = nib.load(studies / f"{image_id}.nii.gz")
        np.testing.assert_allclose(image.affine, original.affine, atol=1e-4)
        np.testing.assert_allclose(mask.affine, original.affine, atol=1e-4)
        np.testing.assert_array_equal(image.get_fdata(), original.get_fdata())
        np.testing.assert_array_equal(np.asarray(mask.dataobj) == LESION, lesion_of(studies, image_id))


def test_mask_says_what_its_values_are_and_who_made_it_with_which_model(studies, out):
    model = {"lesion": {"model_version": 3, "model_sha256": "ab" * 32}}
    submit(studies, "straight", lesion_of(studies, "straight") * LESION, labels={"lesion": 1}, info={"labels": model})

    assert main([str(studies), str(out), "--format", "bids"]) == 0

    assert derived(out, 1, "tsv").read_text().splitlines() == ["index\tname", "1\tlesion", "2\tcyst"]
    said = json.loads(derived(out, 1, "json").read_text())
    assert said["Sources"] == ["bids:raw:sub-0001/anat/sub-0001_T1w.nii.gz"]
    assert list(said["Labels"]) == ["lesion"]  # nobody answered the other one
    described = json.loads((out / "derivatives" / "inextremis" / "dataset_description.json").read_text())
    assert described["GeneratedBy"] == [{"Name": "InExtremIS", "Version": VERSION}]
    assert described["DatasetType"] == "derivative"


def test_scans_with_clicks_only_are_left_out_and_counted(studies, out, capsys):
    click(studies, "flipped")
    say_absent(studies, "flipped")
    submit(studies, "straight", lesion_of(studies, "straight") * LESION)

    assert main([str(studies), str(out), "--format", "bids"]) == 0

    assert "1 scans written, 1 without a final mask left out." in capsys.readouterr().out.replace("\n", " ")
    assert errors_of(out) == []
    (record,) = [record for record in last_records(Project(studies).audit, 9) if "export" in record.action]
    assert "format: bids" in record.of


def test_project_without_a_final_mask_is_refused_and_nothing_is_left(studies, out, capsys):
    click(studies, "flipped")

    assert main([str(studies), str(out), "--format", "bids"]) == 2

    assert "There is no scan with a final mask to export" in capsys.readouterr().err.replace("\n", " ")
    assert not out.exists()


def test_check_finds_what_is_wrong(studies, out):
    submit(studies, "straight", lesion_of(studies, "straight") * LESION)
    main([str(studies), str(out), "--format", "bids"])
    (out / "dataset_description.json").write_text("{}")

    assert errors_of(out) != []
