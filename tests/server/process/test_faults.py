"""Something breaks under a running server: a defined outcome, a sentence in the log, and it goes on."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import psutil
import pytest
from monailabel.client import MONAILabelClient

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import LocalServer
from lib.geometry.volume import load_volume
from tests.server.asking import infer, submit
from tests.server.failures import small_disk
from tests.server.waiting import wait_for, wait_for_training

SHORT = {"iterations": "2", "roi_size": "32x32x16", "levels": "2", "tracking": "None"}

# The first twentieth, after which there is something to go on from, takes seconds.
LONG = {"iterations": 100_000, "max_minutes": 3}


class Site:
    """A server with its studies, its models and its log."""

    def __init__(self, root):
        self.root, self.studies, self.model = root, root / "studies", root / "model" / "inextremis.pt"
        self.names = write_demo_studies(self.studies, root / "truth", 6)
        self.server = LocalServer(self.studies, {"model_dir": str(root / "model"), **SHORT}, root / "server.log")
        self.client = MONAILabelClient(self.server.url, tmpdir=str(root))

    def click(self, study, seed=0):
        truth = load_volume(self.root / "truth" / f"{study}.nii.gz").array > 0
        clicks = simulated_extreme_points(truth, np.random.default_rng(seed))
        return infer(self.server, study, {"lesion": clicks.tolist()}, output="json")

    def submit(self, study, value=1):
        """Submit a final mask, as Slicer does."""
        image = nib.load(self.studies / f"{study}.nii.gz")
        mask = np.random.default_rng(0).integers(0, 1 + value, image.shape, np.uint8)
        return submit(self.server, study, mask, image.affine)

    def train(self, **parameters):
        self.client.train_start("inextremis", parameters)

    def automatic(self):
        return infer(self.server, self.names[0], {}, "inextremis")

    def trained(self):
        return wait_for_training(self.server.url)

    def log(self):
        return (self.root / "server.log").read_text(errors="replace")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("faults"))
    with site.server:
        for study in site.names[:3]:
            assert site.click(study).status_code == 200
        site.train()
        assert site.trained()["status"] == "DONE"
        yield site


def training_process(site):
    children = psutil.Process(site.server.process.pid).children(recursive=True)
    return next(child for child in children if "monailabel.interfaces.utils.app" in child.cmdline())


def test_training_process_that_is_killed_costs_nothing_that_was_published(site):
    published = site.model.read_bytes()
    site.train(**LONG)
    wait_for((site.model.parent / "inextremis" / "unfinished.pt").exists)

    os.kill(training_process(site).pid, signal.SIGKILL)

    assert site.trained()["status"] == "ERROR"
    wait_for(lambda: "its process was killed by signal 9 (SIGKILL), perhaps for lack of memory" in site.log())
    assert site.model.read_bytes() == published
    assert site.click(site.names[0]).status_code == 200
    site.train()
    assert site.trained()["status"] == "DONE"
    assert "A training that was interrupted goes on." in site.log()


def test_twenty_annotators_at_once_during_a_training_lose_nothing(site):
    """Several click the same studies, so that one answers while another writes."""
    before = {study: sets_on_disk(site, study) for study in site.names[3:]}
    site.train(**LONG)
    wait_for((site.model.parent / "inextremis" / "unfinished.pt").exists)

    def annotate(number):
        return site.names[3 + number % 3], site.click(site.names[3 + number % 3], seed=number)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(annotate, range(40)))

    assert [answer.status_code for _, answer in answers] == [200] * 40
    assert site.client.train_status(check_if_running=False)["status"] == "RUNNING"
    for study in site.names[3:]:
        sent = [
            [extreme["voxel"] for extreme in answer.json()["extreme_points"]["lesion"]]
            for of, answer in answers
            if of == study
        ]
        added = sets_on_disk(site, study)[len(before[study]) :]
        assert sorted(added) == sorted(sent)
    site.client.train_stop()


def sets_on_disk(site, study):
    path = site.studies / "labels" / "extreme_points" / f"{study}.lesion.json"
    if not path.exists():
        return []
    content = json.loads(path.read_text())
    return [[click["voxel"] for click in one["foreground"]] for one in [*content["history"], content["current"]]]


def test_broken_model_is_done_without_until_the_next_training(site):
    site.model.write_bytes(b"half a mod")

    answer = site.click(site.names[0])
    assert (answer.status_code, answer.json()["stage"]) == (200, "cold_start")
    assert "The model inextremis.pt cannot be used" in site.log()
    assert site.automatic().status_code == 409
    site.train()
    assert site.trained()["status"] == "DONE"
    assert site.automatic().status_code == 200


def test_broken_annotation_is_left_out_of_the_training_and_replaced_by_new_clicks(site):
    path = site.studies / "labels" / "extreme_points" / f"{site.names[1]}.lesion.json"
    path.write_text('{"schema_version": 1, "image_')

    site.train()
    assert site.trained()["status"] == "DONE"
    assert f"{path.name} is not JSON" in site.log()
    assert site.click(site.names[1]).status_code == 200
    assert json.loads(path.read_text())["image_id"] == site.names[1]
    assert [kept.read_text() for kept in path.parent.glob("*.corrupt")] == ['{"schema_version": 1, "image_']


def test_study_that_is_deleted_is_unknown_from_then_on(site):
    study = site.names[2]
    content = (site.studies / f"{study}.nii.gz").read_bytes()
    (site.studies / f"{study}.nii.gz").unlink()

    wait_for(lambda: site.click(study).status_code == 404)
    site.train()
    assert site.trained()["status"] == "DONE"
    (site.studies / f"{study}.nii.gz").write_bytes(content)
    wait_for(lambda: site.click(study).status_code == 200)


def test_image_that_changes_its_size_loses_its_clicks_until_it_is_clicked_again(site):
    study = site.names[0]
    path = site.studies / f"{study}.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-3], image.affine), path)

    site.train()
    assert site.trained()["status"] == "DONE"
    assert f"The image {study} is not the one that was clicked on" in site.log()
    assert site.click(study).status_code == 200


def fill(path):
    with pytest.raises(OSError, match="No space"), path.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def test_full_disk_refuses_clicks_and_keeps_what_was_there(tmp_path):
    with small_disk(tmp_path / "disk", "24m") as disk:
        (disk / "truth").mkdir()
        site = Site(disk)
        with site.server:
            assert site.click(site.names[0]).status_code == 200
            kept = disk / "studies" / "labels" / "extreme_points" / f"{site.names[0]}.lesion.json"
            assert site.submit(site.names[0]).status_code == 200
            mask = disk / "studies" / "labels" / "final" / f"{site.names[0]}.nii.gz"
            before, mask_before = kept.read_bytes(), mask.read_bytes()
            fill(disk / "filler")

            for study in site.names[:2]:
                answer = site.click(study)
                assert answer.status_code == 507, answer.text
                assert "could not be stored (No space left on device). Make room" in answer.json()["detail"]
            refused = site.submit(site.names[0], value=0)
            assert refused.status_code == 507, refused.text
            assert "could not be stored (No space left on device). Make room" in refused.json()["detail"]
            assert (kept.read_bytes(), mask.read_bytes()) == (before, mask_before)
            assert [path.name for path in kept.parent.iterdir() if path.suffix == ".json"] == [kept.name]
            site.train()
            assert site.trained()["status"] == "ERROR"

            (disk / "filler").unlink()
            assert site.click(site.names[1]).status_code == 200
            site.train()
            assert site.trained()["status"] == "DONE"
