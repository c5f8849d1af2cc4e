"""Folders as people have them, and projects that are started again with other labels: nothing is mixed up."""

import json
import os

import nibabel as nib
import numpy as np
import pytest
import requests
from monailabel.client import MONAILabelClient

from lib.demo.local_server import LocalServer
from scripts.export import main as export
from scripts.restore import main as restore
from tests.server import asking
from tests.server.asking import datastore, infer
from tests.server.waiting import wait_for_training

SHORT = {"held_out_share": "0", "iterations": "2", "roi_size": "16x16x16", "levels": "2"}
SHAPE = (20, 18, 12)
CLICKS = [[5, 9, 6], [15, 9, 6], [10, 5, 6], [10, 13, 6], [10, 9, 3], [10, 9, 9]]


def scan(seed=0):
    """Noise with a bright ellipsoid, whose extreme points are `CLICKS`."""
    i, j, k = np.ogrid[tuple(map(slice, SHAPE))]
    inside = ((i - 10) / 5) ** 2 + ((j - 9) / 4) ** 2 + ((k - 6) / 3) ** 2 <= 1
    return (np.random.default_rng(seed).normal(100, 5, SHAPE) + 300 * inside).astype(np.float32)


def save(path, array=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(scan() if array is None else array, np.eye(4)), path)


def click(server, image, label="tumour"):
    return infer(server, image, {label: CLICKS}, output="json")


def submit(server, image, values, label_info, shape=SHAPE):
    mask = np.zeros(shape, np.uint8)
    for number, value in enumerate(values):
        mask[5:10, 5:10, 3 + number] = value
    return asking.submit(server, image, mask, np.eye(4), label_info=label_info)


def exported(server, folder, image):
    assert export([str(folder), "--server", server.url, "--overwrite", "--image", image]) == 0
    path = folder / f"{image}.nii.gz"
    labels = {index: label for label, index in json.loads((folder / "labels.json").read_text()).items()}
    values = np.unique(np.asarray(nib.load(path).dataobj)).tolist() if path.exists() else []
    return {labels[value] for value in values if value}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a folder, with a blank and brackets in its name, of unusual studies and other files."""
    folder = tmp_path_factory.mktemp("of the clinic") / "[MR] 2024 studies"
    for name in ("case 01", "pat.1", "lib", "Müller"):
        save(folder / f"{name}.nii.gz")
    save(folder / "four axes.nii.gz", scan()[..., None])
    sentinel = scan()
    sentinel[0] = np.finfo(np.float32).min
    save(folder / "sentinel.nii.gz", sentinel)
    save(folder.parent / "store" / "x.nii.gz")
    (folder.parent / "store" / "x.nii.gz").rename(folder.parent / "store" / "ab12cd")
    (folder / "linked.nii.gz").symlink_to(folder.parent / "store" / "ab12cd")
    (folder / "dangling.nii.gz").symlink_to("nowhere.nii.gz")
    (folder / "._case 01.nii.gz").write_bytes(b"\0\5\x16\7")
    (folder / "thumbnail.png").write_bytes(b"\x89PNG")
    (folder / "notes.xml").write_text("<a/>")
    with open(os.fsencode(folder) + b"/M\xfcller.nii.gz", "wb") as latin:
        latin.write((folder / "lib.nii.gz").read_bytes())
    return folder


STUDIES = ["Müller", "case 01", "four axes", "lib", "linked", "pat.1", "sentinel"]


@pytest.fixture(scope="module")
def server(folder):
    conf = {"labels": "tumour,cyst", **SHORT}
    with LocalServer(folder, conf, folder.parent / "server.log") as server:
        yield server


def listed(server):
    return datastore(server, output="all")["objects"]


def test_studies_are_the_images_of_the_folder_and_nothing_else(server):
    assert sorted(listed(server)) == STUDIES


@pytest.mark.parametrize("image", STUDIES)
def test_every_study_can_be_clicked(server, folder, image):
    answer = click(server, image)

    assert answer.status_code == 200, answer.text
    stored = json.loads((folder / "labels" / "extreme_points" / f"{image}.tumour.json").read_text())
    assert stored["geometry"]["affine_ras"] == np.eye(4).tolist()
    assert stored["geometry"]["shape"] == list(SHAPE)


def test_training_learns_from_all_of_them(server):
    client = MONAILabelClient(server.url)
    client.train_start("inextremis", {})

    assert wait_for_training(server.url)["status"] == "DONE"
    assert client.info()["train_stats"]["inextremis"]["scans"] == len(STUDIES)


def test_next_sample_gives_slicer_a_checksum_of_the_file(server, folder):
    save(folder / "A next one.nii.gz")
    sample = requests.post(f"{server.url}/activelearning/first", json={}, timeout=30).json()
    (folder / "A next one.nii.gz").unlink()

    assert sample["id"] == "A next one"
    assert sample["checksum"].startswith("SHA256:")
    assert str(folder) not in json.dumps(sample)


def test_deleted_study_leaves_nothing_to_the_next_of_its_name_and_comes_back(server, folder):
    save(folder / "leaving.nii.gz")
    for label in ("tumour", "cyst"):
        assert click(server, "leaving", label).ok
    assert submit(server, "leaving", [1], []).ok
    before = (folder / "leaving.nii.gz").read_bytes()

    assert requests.delete(f"{server.url}/datastore/", params={"id": "leaving"}, timeout=30).ok
    assert not list((folder / "labels").rglob("leaving*"))
    assert requests.delete(f"{server.url}/datastore/", params={"id": "leaving"}, timeout=30).status_code == 404

    save(folder / "leaving.nii.gz", scan(seed=1))
    assert listed(server)["leaving"]["labels"] == {}
    (folder / "leaving.nii.gz").unlink()
    (removal,) = [path for path in (folder / "removed").iterdir() if path.name.endswith(".leaving")]
    assert restore([str(folder), "bring-back", removal.name]) == 0
    assert (folder / "leaving.nii.gz").read_bytes() == before
    assert sorted(listed(server)["leaving"]["labels"]) == ["extreme_points", "final"]
    requests.delete(f"{server.url}/datastore/", params={"id": "leaving"}, timeout=30)


def test_masks_and_clicks_keep_their_meaning_when_labels_change(folder, tmp_path, server):
    assert submit(server, "pat.1", [1], [{"name": "cyst", "idx": 1}]).ok
    server.stop()

    conf = {"labels": "cyst,vein,tumour", **SHORT}
    with LocalServer(folder, conf, folder.parent / "other_order.log") as other:
        assert exported(other, tmp_path / "other order", "pat.1") == {"cyst"}
        assert click(other, "pat.1", "vein").ok
    with LocalServer(folder, {"labels": "vein", **SHORT}, folder.parent / "without.log") as without:
        assert exported(without, tmp_path / "without", "pat.1") == {"vein"}
        answer = requests.get(f"{without.url}/datastore/label", params={"label": "pat.1", "tag": "final"}, timeout=30)
        assert answer.status_code == 422
        assert "'cyst'" in answer.json()["detail"]


def test_project_with_another_ones_models_is_told_so(folder, tmp_path):
    save(tmp_path / "studies" / "liver.nii.gz")

    with LocalServer(tmp_path / "studies", {"labels": "tumour,cyst", **SHORT}, tmp_path / "own.log") as own:
        assert infer(own, "liver", {}, "inextremis").status_code == 409
    conf = {"labels": "tumour,cyst", "model_dir": str(folder / "model"), **SHORT}
    with LocalServer(tmp_path / "studies", conf, tmp_path / "shared.log"):
        log = (tmp_path / "shared.log").read_text()
        assert "holds the model of other studies, [MR] 2024 studies" in log
