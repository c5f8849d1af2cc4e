"""A project of an earlier version: its masks mean what the index says, whatever order the labels have."""

import json

import numpy as np
import pytest

from lib.server.studies.open_studies import open_studies
from tests.server.studies.images import SHAPE, write_image


def old_project(folder, label_info, value=1):
    write_image(folder / "scan.nii.gz")
    path = write_image(folder / "labels" / "final" / "scan.nii.gz")
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5, 2:5, 2:5] = value
    import nibabel as nib

    nib.save(nib.Nifti1Image(mask, nib.load(path).affine), path)
    final = {"final": {"ext": ".nii.gz", "info": {"label_info": label_info, "name": "scan.nii.gz"}}}
    index = {"objects": {"scan": {"image": {"ext": ".nii.gz", "info": {}}, "labels": final}}}
    (folder / "datastore_v2.json").write_text(json.dumps(index))
    return path


def values(folder, labels):
    return set(np.unique(open_studies(str(folder), labels, None).masks().load("scan").array).tolist()) - {0}


def test_mask_of_one_segment_is_of_the_label_that_the_index_names(tmp_path):
    path = old_project(tmp_path, [{"name": "cyst", "idx": 1}])
    before = path.read_bytes()

    assert values(tmp_path, ("tumour", "cyst")) == {2}
    assert values(tmp_path, ("cyst", "tumour")) == {1}
    (kept,) = (tmp_path / "labels" / "final" / "history" / "scan").iterdir()
    assert kept.read_bytes() == before


@pytest.mark.parametrize("label_info", [None, [], "x", [{"name": 3, "idx": 1}], [{"name": "cyst", "idx": "1"}]])
def test_mask_without_names_has_the_labels_that_the_project_began_with(tmp_path, label_info):
    old_project(tmp_path, label_info, value=2)

    assert values(tmp_path, ("tumour", "cyst")) == {2}
    assert values(tmp_path, ("cyst", "tumour")) == {1}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"objects": 3}', b'{"objects": {"scan": []}}'])
def test_index_that_cannot_be_read_costs_nothing_else(tmp_path, content):
    old_project(tmp_path, [])
    (tmp_path / "datastore_v2.json").write_bytes(content)

    assert values(tmp_path, ("tumour", "cyst")) == {1}
