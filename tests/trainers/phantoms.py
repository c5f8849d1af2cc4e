"""Scans of bright balls on dark ground, and networks whose answer is known without training."""

import nibabel as nib
import numpy as np
import torch
from torch import nn

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Annotation
from lib.data.scans import AnnotatedScan
from lib.geometry.image_geometry import ImageGeometry
from lib.networks.checkpoint import TrainedModel
from lib.networks.spec import NetworkSpec
from lib.trainers.train_task import InExtremISTrainTask

SHAPE = (40, 36, 32)
AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])
CENTRES = {"lesion": (12, 18, 16), "cyst": (28, 18, 16)}


class OneScan(InExtremISTrainTask):
    """Trains on one scan, which it makes."""

    def scans(self, datastore):
        return [scan(self.folder.parent, "a")]


def ball(centre, radius=6):
    return sum((axis - c) ** 2 for axis, c in zip(np.ogrid[tuple(map(slice, SHAPE))], centre, strict=True)) <= radius**2


def scan(folder, image_id, clicked=("lesion",), mask=False, level=1.0):
    """A scan with the balls of all labels; `level` is how bright they are."""
    image = np.random.default_rng(0).normal(0, 0.02, SHAPE)
    for centre in CENTRES.values():
        image[ball(centre)] += level
    path = folder / f"{image_id}.nii.gz"
    nib.save(nib.Nifti1Image(image.astype(np.float32), AFFINE), path)
    geometry = ImageGeometry(SHAPE, AFFINE)
    annotations = tuple(
        Annotation.now(
            image_id,
            ExtremePoints.from_clicks(label, simulated_extreme_points(ball(CENTRES[label]))),
            geometry,
            "reader",
        )
        for label in clicked
    )
    mask_path = None
    if mask:
        mask_path = folder / f"{image_id}.mask.nii.gz"
        truth = sum(index * ball(centre).astype(np.uint8) for index, centre in enumerate(CENTRES.values(), start=1))
        nib.save(nib.Nifti1Image(truth, AFFINE), mask_path)
    return AnnotatedScan(image_id, path, annotations, mask_path)


class Answer(nn.Module):
    """Finds, of the bright voxels with X in given ranges, each range as the label of its place."""

    def __init__(self, *ranges):
        super().__init__()
        self.ranges = ranges

    def forward(self, image):
        bright = 20 * (image - 1)
        x = torch.arange(image.shape[2], device=image.device).view(1, 1, -1, 1, 1)
        labels = [torch.where((x >= low) & (x < high), bright, -20.0) for low, high in self.ranges]
        return torch.cat([-torch.stack(labels).amax(dim=0), *labels], dim=1)


def model(*ranges, labels=("lesion",), version=1):
    """A network that answers so on these scans, which its window covers in one piece."""
    return TrainedModel(NetworkSpec.plan(labels, (1.0, 1.0, 1.0), SHAPE, 2, 2), Answer(*ranges), version)
