"""The click task: stored annotations and masks, callbacks and answers."""

import nibabel as nib
import numpy as np
import pytest
import torch
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferType
from torch import nn

from lib.annotations.given_masks import GivenMaskStore
from lib.annotations.image_identity import ImageIdentities
from lib.annotations.mask_store import MaskStore
from lib.annotations.store import Absence, AnnotationStore
from lib.data.prepared_scans import PreparedScans
from lib.inference.opened_images import OpenedImages
from lib.inference.region_predictor import RegionPredictor
from lib.inference.shape_atlases import ShapeAtlases
from lib.infers.extreme_points_task import ExtremePointsInferTask
from lib.networks.checkpoint import TrainedModel
from lib.networks.spec import NetworkSpec
from tests.full_disk import no_space

CLICKS = [[3, 8, 8], [13, 8, 8], [8, 3, 8], [8, 13, 8], [8, 8, 3], [8, 8, 13]]


class NoModel:
    """Counts its calls, and returns no model."""

    labels = ("lesion", "cyst", "vessel")
    calls = 0

    def current(self):
        self.calls += 1


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
        GivenMaskStore(tmp_path / "given"),
        ShapeAtlases(
            MaskStore(tmp_path / "masks", NoModel.labels, tmp_path / "mapped"),
            AnnotationStore(tmp_path / "clicks"),
            tmp_path / "atlases.npz",
            tmp_path / "networks.pt",
        ),
        lambda name: task.annotated.append(name),
    )
    task.annotated = []
    return task


def ask(task, image, **request):
    path, answer = task({"image": str(image), "image_id": "scan", "client_id": "reader", **request})
    return np.asarray(nib.load(path).dataobj), answer


def test_absent_labels_are_stored_like_clicks_and_have_no_voxels(task, image):
    mask, answer = ask(task, image, cyst=CLICKS, absent=["lesion", "vessel"])

    assert set(np.unique(mask)) == {0, 2}
    assert (list(answer["extreme_points"]), answer["absent"]) == (["cyst"], ("lesion", "vessel"))
    assert sorted(task.annotated) == ["scan.cyst.json", "scan.lesion.json", "scan.vessel.json"]
    kept = {label: task.store.load("scan", label) for label in task.model.labels}
    assert {label for label in kept if isinstance(kept[label], Absence)} == {"lesion", "vessel"}
    assert {answer.annotator for answer in kept.values()} == {"reader"}
    assert len({answer.image_checksum for answer in kept.values()} - {None}) == 1


def test_request_with_absent_labels_only_returns_an_empty_mask_without_a_network(task, image):
    mask, answer = ask(task, image, absent=["cyst"])

    assert mask.shape == (17, 17, 17) and not mask.any()
    assert task.model.calls == 0
    assert (answer["stage"], answer["model_version"], answer["stored"]) == ("cold_start", None, True)


def test_mask_of_stored_clicks_is_made_again_without_storing_them(task, image):
    ask(task, image, cyst=CLICKS, absent=["lesion"])
    before = task.store.path("scan", "lesion").read_bytes()

    mask, answer = ask(task, image, use_stored_clicks=True)

    assert set(np.unique(mask)) == {0, 2}
    assert answer["absent"] == ("lesion",)
    assert task.store.path("scan", "lesion").read_bytes() == before
    assert len(task.annotated) == 2


# Stored masks


OVERLAPPING = [[3, 8, 8], [16, 8, 8], [8, 4, 8], [9, 12, 8], [8, 8, 4], [9, 8, 12]]


def kept(task, label, annotator="reader"):
    """Return the stored mask of a label, (X, Y, Z) bool on the grid of the image."""
    drawn = np.zeros((17, 17, 17), np.uint8)
    task.given_masks.load("scan", label, annotator).draw(drawn, 1)
    return drawn > 0


def test_mask_of_each_label_is_stored_as_in_the_answer(task, image):
    alone, _ = ask(task, image, lesion=CLICKS)
    mask, _ = ask(task, image, lesion=CLICKS, cyst=OVERLAPPING)

    assert ((alone == 1) & (mask == 2)).any(), "the labels do not overlap"
    for label, index in (("lesion", 1), ("cyst", 2)):
        np.testing.assert_array_equal(kept(task, label), mask == index)
    assert task.given_masks.files("scan", "vessel") == []


def test_last_mask_is_stored(task, image):
    ask(task, image, cyst=CLICKS)
    mask, _ = ask(task, image, cyst=[*CLICKS, [8, 8, 9]], background=[[8, 12, 8]])

    np.testing.assert_array_equal(kept(task, "cyst"), mask == 2)


def test_mask_of_stored_clicks_is_stored_for_the_annotator_of_the_request(task, image):
    ask(task, image, cyst=CLICKS)
    with_network(task, 0.9, value=1.0)

    mask, _ = ask(task, image, use_stored_clicks=True, client_id="other")

    np.testing.assert_array_equal(kept(task, "cyst", "other"), mask == 2)
    versions = [task.given_masks.load("scan", "cyst", who).model_version for who in ("reader", "other")]
    assert versions == [None, 7]


def test_mask_of_outdated_clicks_is_not_stored(task, image):
    # Of two parallel requests, the first is answered last.
    make, masks = task._mask, []

    def slow(*arguments):
        if not masks:
            masks.append(None)
            masks[0], _ = ask(task, image, cyst=OVERLAPPING)
        return make(*arguments)

    task._mask = slow
    late, _ = ask(task, image, cyst=CLICKS)

    assert (late != masks[0]).any()
    np.testing.assert_array_equal(kept(task, "cyst"), masks[0] == 2)


def test_full_disk_is_status_507(task, image, monkeypatch):
    monkeypatch.setattr(task.given_masks, "keep", no_space)

    with pytest.raises(HTTPException) as error:
        ask(task, image, cyst=CLICKS)

    assert error.value.status_code == 507
    assert error.value.detail == (
        "The mask could not be stored (No space left on device). Make room on the server's disk, then retry."
    )


# With a network


class Constant(nn.Module):
    """Returns the logit `value` for every voxel, and counts its calls."""

    def __init__(self, value):
        super().__init__()
        self.value, self.calls = value, 0

    def forward(self, image):
        self.calls += 1
        return torch.cat([0 * image] + 3 * [0 * image + self.value], dim=1)


def with_network(task, score, value=0.0):
    spec = NetworkSpec.plan(task.model.labels, (1.0, 1.0, 2.0), (16, 16, 16), levels=2, base_channels=2)
    model = TrainedModel(spec, Constant(value), 7, score)
    task.model.current = lambda: model
    return model.network


@pytest.mark.parametrize(("score", "is_run"), [(None, False), (0.5, False), (0.9, True)])
def test_network_is_run_if_its_weight_is_not_0(task, image, score, is_run):
    network = with_network(task, score)

    _, answer = ask(task, image, cyst=CLICKS)

    assert (network.calls > 0) == is_run
    assert (answer["stage"], answer["model_version"]) == ("network", 7)
    assert answer["network_prior_weight"] == max(0, 2 * (score or 0) - 1)


def test_corrective_click_in_the_same_region_does_not_run_the_network(task, image):
    network = with_network(task, 0.9)
    ask(task, image, cyst=CLICKS)
    calls = network.calls

    ask(task, image, cyst=[*CLICKS, [8, 8, 9]], background=[[4, 4, 4]])

    assert network.calls == calls


def test_broken_network_is_not_used(task, image, caplog):
    alone, _ = ask(task, image, cyst=CLICKS)
    with_network(task, 0.9, value=np.nan)

    mask, answer = ask(task, image, cyst=CLICKS)

    np.testing.assert_array_equal(mask, alone)
    assert (answer["stage"], answer["model_version"], answer["network_prior_weight"]) == ("cold_start", None, None)
    assert "Version 7 of the model is broken" in caplog.text
    assert "The mask is made from the clicks alone." in caplog.text


def test_uploaded_image_leaves_no_files(task, image, tmp_path):
    with_network(task, 0.9)
    before = set(tmp_path.rglob("*"))

    ask(task, image, cyst=CLICKS, image_id=None)

    assert set(tmp_path.rglob("*")) == before
