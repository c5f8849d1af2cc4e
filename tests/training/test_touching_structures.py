"""A training on two touching structures, of which some scans have clicks on one only."""

import nibabel as nib
import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Annotation
from lib.data.annotated_scan import AnnotatedScan
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import load_volume
from lib.inference.automatic_mask import label_map
from lib.inference.prediction import predict_probability
from lib.metrics import dice
from lib.networks.checkpoint import load_checkpoint
from lib.training.objective import InExtremISObjective
from tests.training.phantoms import LABELS, training, versions_in

LEVELS = {"lesion": 2.0, "cyst": 1.0}
SHAPE, AFFINE = (32, 28, 24), np.eye(4)
RADIUS = 5


def truth(seed):
    """Draw two balls at a random place, cut by the plane between them."""
    x, y, z = np.array([11, 14, 12]) + np.random.default_rng(seed).integers(-2, 3, 3)
    grid = np.ogrid[tuple(map(slice, SHAPE))]

    def ball(*centre):
        return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= RADIUS**2

    return {"lesion": ball(x, y, z) & (grid[0] < x + 4), "cyst": ball(x + 8, y, z) & (grid[0] >= x + 4)}


def scan(folder, seed, clicked):
    masks = truth(seed)
    image = np.random.default_rng(seed).normal(0, 0.1, SHAPE)
    for label, mask in masks.items():
        image[mask] += LEVELS[label]
    path = folder / f"scan_{seed}.nii"
    nib.save(nib.Nifti1Image(image.astype(np.float32), AFFINE), path)
    annotations = tuple(
        Annotation.now(
            path.stem,
            ExtremePoints.from_clicks(label, simulated_extreme_points(masks[label])),
            ImageGeometry(SHAPE, AFFINE),
            "reader",
        )
        for label in clicked
    )
    return AnnotatedScan(path.stem, path, path.stem, annotations)


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """Label map and truth of a scan without clicks."""
    root = tmp_path_factory.mktemp("touching")
    annotated = [scan(root, seed, LABELS if seed % 2 else LABELS[:1]) for seed in range(6)]
    unseen = scan(root, 99, ())
    training(
        root,
        annotated,
        LABELS,
        objective=InExtremISObjective,
        click_mask_weight=1,
        iterations=200,
        roi_size="24x24x24",
        base_channels=8,
        held_out_share=0,
    ).run()
    model = load_checkpoint(versions_in(root).published_path)
    return label_map(predict_probability(model, load_volume(unseen.image_path))), truth(99)


def test_structures_touch_and_do_not_overlap():
    masks = truth(99)

    assert (masks["lesion"][:-1] & masks["cyst"][1:]).any()
    assert not (masks["lesion"] & masks["cyst"]).any()


@pytest.mark.slow
@pytest.mark.parametrize("label", LABELS)
def test_both_labels_are_learnt_although_one_has_no_clicks_in_half_of_the_scans(predicted, label):
    # Without clicks a label is unknown; treated as background, it would not be learnt.
    mask, masks = predicted

    assert dice(mask == 1 + LABELS.index(label), masks[label]) > 0.8
