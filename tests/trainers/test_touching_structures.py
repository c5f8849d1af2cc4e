"""Two structures that touch, each with six clicks of its own, and scans in which only one of them was clicked."""

import nibabel as nib
import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Annotation, AnnotationStore
from lib.demo.walkthrough import dice
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import load_volume
from lib.infers.prediction import predict_probability
from lib.networks.checkpoint import load_checkpoint
from lib.networks.versions import ModelVersions
from lib.refinement.automatic_mask import label_map
from lib.server.open_studies import open_studies
from lib.trainers.hyperparameters import Hyperparameters
from lib.trainers.train_task import InExtremISTrainTask

LABELS = ("lesion", "cyst")
LEVELS = {"lesion": 2.0, "cyst": 1.0}
SHAPE, AFFINE = (32, 28, 24), np.eye(4)
RADIUS = 5


def truth(seed):
    """Two balls side by side, cut by the plane between them; where they lie is drawn."""
    x, y, z = np.array([11, 14, 12]) + np.random.default_rng(seed).integers(-2, 3, 3)
    grid = np.ogrid[tuple(map(slice, SHAPE))]

    def ball(*centre):
        return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= RADIUS**2

    return {"lesion": ball(x, y, z) & (grid[0] < x + 4), "cyst": ball(x + 8, y, z) & (grid[0] >= x + 4)}


def add_scan(folder, store, seed, clicked):
    masks = truth(seed)
    image = np.random.default_rng(seed).normal(0, 0.1, SHAPE)
    for label, mask in masks.items():
        image[mask] += LEVELS[label]
    nib.save(nib.Nifti1Image(image.astype(np.float32), AFFINE), folder / f"scan_{seed}.nii.gz")
    for label in clicked:
        points = ExtremePoints.from_clicks(label, simulated_extreme_points(masks[label]))
        store.save(Annotation.now(f"scan_{seed}", points, ImageGeometry(SHAPE, AFFINE), "reader"))


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """Label map and truth of a scan that was never clicked."""
    root = tmp_path_factory.mktemp("touching")
    studies = root / "studies"
    studies.mkdir()
    store = AnnotationStore(studies / "labels" / "extreme_points")
    for seed in range(6):
        add_scan(studies, store, seed, LABELS if seed % 2 else LABELS[:1])
    add_scan(studies, store, 99, ())
    changes = {"max_epochs": 10, "iterations_per_epoch": 20, "roi_size": "24x24x24", "levels": 2, "held_out_share": 0}
    versions = ModelVersions(root / "model" / "inextremis.pt")
    h = Hyperparameters.of_preset("cpu").changed(changes)
    trainer = InExtremISTrainTask(versions, LABELS, store, h, tracking="None")
    trainer({"model": "inextremis"}, open_studies(str(studies), LABELS, None))
    volume = load_volume(studies / "scan_99.nii.gz")
    return label_map(predict_probability(load_checkpoint(versions.published_path), volume)), truth(99)


def test_the_two_do_touch():
    masks = truth(99)

    assert (masks["lesion"][:-1] & masks["cyst"][1:]).any()
    assert not (masks["lesion"] & masks["cyst"]).any()


@pytest.mark.parametrize("label", LABELS)
def test_each_is_learnt_although_one_was_not_clicked_in_half_of_the_scans(predicted, label):
    """Where it was not clicked it is unknown; taken for background there, it would be lost."""
    mask, masks = predicted

    assert dice(mask == 1 + LABELS.index(label), masks[label]) > 0.8
