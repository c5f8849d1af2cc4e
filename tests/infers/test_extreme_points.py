"""The click task: what it stores of a request, whom it tells, and what it answers."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monailabel.interfaces.tasks.infer_v2 import InferType
from torch import nn

from lib.annotations.image_identity import ImageIdentities
from lib.annotations.store import Absence, AnnotationStore
from lib.data.prepared_scans import PreparedScans
from lib.inference.opened_images import OpenedImages
from lib.inference.region_predictor import RegionPredictor
from lib.infers.extreme_points import ExtremePointsInferTask
from lib.networks.checkpoint import TrainedModel
from lib.networks.spec import NetworkSpec

CLICKS = [[3, 8, 8], [13, 8, 8], [8, 3, 8], [8, 13, 8], [8, 8, 3], [8, 8, 13]]


class NoModel:
    """Counts how often it is asked for."""

    labels = ("lesion", "cyst", "vessel")
    asked = 0

    def current(self):
        self.asked += 1


@pytest.fixture
def image(tmp_path):
    ball = sum((axis - 8) ** 2 for axis in np.ogrid[:17, :17, :17]) <= 25
    nib.save(nib.Nifti1Image(ball.astype(np.float32), np.diag([1, 1, 2, 1])), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


@pytest.fixture
def task(tmp_path):
    images = OpenedImages(PreparedScans(tmp_path / "prepared"), ImageIdentities(tmp_path / "checksums.json"))
    task = ExtremePointsInferTask(
        InferType.DEEPEDIT,
        NoModel(),
        RegionPredictor(images, "cpu"),
        AnnotationStore(tmp_path / "clicks"),
        lambda name: task.told.append(name),
    )
    task.told = []
    return task


def ask(task, image, **request):
    path, answer = task({"image": str(image), "image_id": "scan", "client_id": "reader", **request})
    return np.asarray(nib.load(path).dataobj), answer


def test_labels_that_are_not_in_the_image_are_stored_like_clicks_and_have_no_voxel(task, image):
    mask, answer = ask(task, image, cyst=CLICKS, absent=["lesion", "vessel"])

    assert set(np.unique(mask)) == {0, 2}
    assert (list(answer["extreme_points"]), answer["absent"]) == (["cyst"], ("lesion", "vessel"))
    assert sorted(task.told) == ["scan.cyst.json", "scan.lesion.json", "scan.vessel.json"]
    kept = {label: task.store.load("scan", label) for label in task.model.labels}
    assert {label for label in kept if isinstance(kept[label], Absence)} == {"lesion", "vessel"}
    assert {answer.annotator for answer in kept.values()} == {"reader"}
    assert len({answer.image_checksum for answer in kept.values()} - {None}) == 1


def test_nothing_but_absent_labels_is_an_empty_mask_for_which_no_network_is_asked(task, image):
    mask, answer = ask(task, image, absent=["cyst"])

    assert mask.shape == (17, 17, 17) and not mask.any()
    assert task.model.asked == 0
    assert (answer["stage"], answer["model_version"], answer["stored"]) == ("cold_start", None, True)


def test_stored_answers_give_their_mask_again_and_are_not_stored_anew(task, image):
    ask(task, image, cyst=CLICKS, absent=["lesion"])
    before = task.store.path("scan", "lesion").read_bytes()

    mask, answer = ask(task, image, use_stored_clicks=True)

    assert set(np.unique(mask)) == {0, 2}
    assert answer["absent"] == ("lesion",)
    assert task.store.path("scan", "lesion").read_bytes() == before
    assert len(task.told) == 2


# With a network


class Asked(nn.Module):
    """Counts what it is asked, and says `value` of every voxel."""

    def __init__(self, value):
        super().__init__()
        self.value, self.asked = value, 0

    def forward(self, image):
        self.asked += 1
        return torch.cat([0 * image] + 3 * [0 * image + self.value], dim=1)


def with_network(task, score, value=0.0):
    spec = NetworkSpec.plan(task.model.labels, (1.0, 1.0, 2.0), (16, 16, 16), levels=2, base_channels=2)
    model = TrainedModel(spec, Asked(value), 7, score)
    task.model.current = lambda: model
    return model.network


@pytest.mark.parametrize(("score", "asked"), [(None, False), (0.5, False), (0.9, True)])
def test_a_network_is_asked_where_it_has_trust(task, image, score, asked):
    network = with_network(task, score)

    _, answer = ask(task, image, cyst=CLICKS)

    assert (network.asked > 0) == asked
    assert (answer["stage"], answer["model_version"]) == ("network", 7)
    assert answer["network_trust"] == max(0, 2 * (score or 0) - 1)


def test_a_corrective_click_in_the_same_region_asks_no_network(task, image):
    network = with_network(task, 0.9)
    ask(task, image, cyst=CLICKS)
    asked = network.asked

    ask(task, image, cyst=[*CLICKS, [8, 8, 9]], background=[[4, 4, 4]])

    assert network.asked == asked


def test_a_network_that_is_broken_leaves_the_mask_to_the_clicks(task, image, caplog):
    alone, _ = ask(task, image, cyst=CLICKS)
    with_network(task, 0.9, value=np.nan)

    mask, answer = ask(task, image, cyst=CLICKS)

    np.testing.assert_array_equal(mask, alone)
    assert (answer["stage"], answer["model_version"], answer["network_trust"]) == ("cold_start", None, None)
    assert "Version 7 of the model is broken" in caplog.text
    assert "The mask is made of the clicks alone." in caplog.text


def test_nothing_is_kept_of_an_image_that_was_sent_along(task, image, tmp_path):
    with_network(task, 0.9)
    before = set(tmp_path.rglob("*"))

    ask(task, image, cyst=CLICKS, image_id=None)

    assert set(tmp_path.rglob("*")) == before
