"""After a fault, a running server has a defined state, logs a sentence, and continues."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import psutil
import pytest
import requests

from tests.full_disk import small_disk
from tests.server.asking import infer, submit
from tests.server.conftest import running_site
from tests.server.waiting import wait_for, wait_for_training

SHORT = {"labels": "lesion", "iterations": "2", "roi_size": "32x32x16", "levels": "2"}

# A training takes seconds to save its first state, from which it can continue.
LONG = {"iterations": 100_000, "max_minutes": 3}


NAMES = [f"study_{number:02}" for number in range(6)]


def model(site):
    return site.studies.parent / "model" / "inextremis.pt"


def click(site, study, seed=0):
    return infer(site, study, {"lesion": site.clicks(study, seed)}, output="json")


def submit_final(site, study, value=1):
    """Submit a final mask, as Slicer does."""
    image = nib.load(site.studies / f"{study}.nii.gz")
    mask = np.random.default_rng(0).integers(0, 1 + value, image.shape, np.uint8)
    return submit(site, study, mask, image.affine)


def start_training(site, **parameters):
    requests.post(f"{site.url}/train/inextremis", json=parameters, timeout=60).raise_for_status()


def train(site):
    """Train and return the state at the end."""
    start_training(site)
    return wait_for_training(site.url)["status"]


def log(site):
    return site.server.log.read_text(errors="replace")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_site(tmp_path_factory.mktemp("faults"), len(NAMES), **SHORT) as site:
        for study in NAMES[:3]:
            assert click(site, study).status_code == 200
        assert train(site) == "DONE"
        yield site


def training_process(site):
    children = psutil.Process(site.server.process.pid).children(recursive=True)
    return next(child for child in children if "monailabel.interfaces.utils.app" in child.cmdline())


def test_killed_training_leaves_the_published_model(site):
    published = model(site).read_bytes()
    start_training(site, **LONG)
    wait_for((model(site).parent / "inextremis" / "unfinished.pt").exists)

    os.kill(training_process(site).pid, signal.SIGKILL)

    assert wait_for_training(site.url)["status"] == "ERROR"
    wait_for(lambda: "its process was killed by signal 9 (SIGKILL), perhaps for lack of memory" in log(site))
    assert model(site).read_bytes() == published
    assert click(site, NAMES[0]).status_code == 200
    assert train(site) == "DONE"
    assert "A training that was interrupted continues." in log(site)


def test_clicks_of_twenty_annotators_during_a_training_are_all_stored(site):
    """Several click the same studies, so that one answers while another writes."""
    before = {study: sets_on_disk(site, study) for study in NAMES[3:]}
    start_training(site, **LONG)
    wait_for((model(site).parent / "inextremis" / "unfinished.pt").exists)

    def annotate(number):
        return NAMES[3 + number % 3], click(site, NAMES[3 + number % 3], seed=number)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(annotate, range(40)))

    assert [answer.status_code for _, answer in answers] == [200] * 40
    assert requests.get(f"{site.url}/train/", timeout=60).json()["status"] == "RUNNING"
    for study in NAMES[3:]:
        sent = [
            [extreme["voxel"] for extreme in answer.json()["extreme_points"]["lesion"]]
            for of, answer in answers
            if of == study
        ]
        added = sets_on_disk(site, study)[len(before[study]) :]
        assert sorted(added) == sorted(sent)
    requests.delete(f"{site.url}/train/", timeout=60).raise_for_status()


def sets_on_disk(site, study):
    path = site.studies / "labels" / "extreme_points" / f"{study}.lesion.json"
    if not path.exists():
        return []
    content = json.loads(path.read_text())
    return [[click["voxel"] for click in one["foreground"]] for one in [*content["history"], content["current"]]]


def test_broken_model_is_ignored_until_the_next_training(site):
    model(site).write_bytes(b"half a mod")

    answer = click(site, NAMES[0])
    assert (answer.status_code, answer.json()["stage"]) == (200, "cold_start")
    assert "The model inextremis.pt cannot be used" in log(site)
    assert infer(site, NAMES[0], {}, "inextremis").status_code == 409
    assert train(site) == "DONE"
    assert infer(site, NAMES[0], {}, "inextremis").status_code == 200


def test_broken_annotation_is_left_out_of_trainings_and_replaced_by_new_clicks(site):
    path = site.studies / "labels" / "extreme_points" / f"{NAMES[1]}.lesion.json"
    path.write_text('{"schema_version": 1, "image_')

    assert train(site) == "DONE"
    assert f"{path.name} is not JSON" in log(site)
    assert click(site, NAMES[1]).status_code == 200
    assert json.loads(path.read_text())["image_id"] == NAMES[1]
    assert [kept.read_text() for kept in path.parent.glob("*.corrupt")] == ['{"schema_version": 1, "image_']


def test_deleted_study_is_unknown(site):
    study = NAMES[2]
    content = (site.studies / f"{study}.nii.gz").read_bytes()
    (site.studies / f"{study}.nii.gz").unlink()

    wait_for(lambda: click(site, study).status_code == 404)
    assert train(site) == "DONE"
    (site.studies / f"{study}.nii.gz").write_bytes(content)
    wait_for(lambda: click(site, study).status_code == 200)


def test_image_that_changes_its_size_loses_its_clicks_until_it_is_clicked_again(site):
    study = NAMES[0]
    path = site.studies / f"{study}.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-3], image.affine), path)

    assert train(site) == "DONE"
    assert f"The image {study} is not the one that was clicked on" in log(site)
    assert click(site, study).status_code == 200


def fill(path):
    with pytest.raises(OSError, match="No space"), path.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def test_full_disk_refuses_clicks_and_keeps_stored_ones(tmp_path):
    with small_disk(tmp_path / "disk", "24m") as disk, running_site(disk, len(NAMES), **SHORT) as site:
        assert click(site, NAMES[0]).status_code == 200
        kept = disk / "studies" / "labels" / "extreme_points" / f"{NAMES[0]}.lesion.json"
        assert submit_final(site, NAMES[0]).status_code == 200
        mask = disk / "studies" / "labels" / "final" / f"{NAMES[0]}.nii.gz"
        before, mask_before = kept.read_bytes(), mask.read_bytes()
        fill(disk / "filler")

        for study in NAMES[:2]:
            answer = click(site, study)
            assert answer.status_code == 507, answer.text
            assert "could not be stored (No space left on device). Make room" in answer.json()["detail"]
        refused = submit_final(site, NAMES[0], value=0)
        assert refused.status_code == 507, refused.text
        assert "could not be stored (No space left on device). Make room" in refused.json()["detail"]
        assert (kept.read_bytes(), mask.read_bytes()) == (before, mask_before)
        assert [path.name for path in kept.parent.iterdir() if path.suffix == ".json"] == [kept.name]
        assert train(site) == "ERROR"

        (disk / "filler").unlink()
        assert click(site, NAMES[1]).status_code == 200
        assert train(site) == "DONE"
