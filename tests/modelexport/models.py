"""A project with a published model, to export it from."""

import numpy as np
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.mask_file import MaskRecord
from lib.annotations.mask_store import MaskStore
from lib.annotations.store import Annotation, AnnotationStore
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from lib.geometry.volume_files import write_nifti, write_nrrd
from lib.networks.checkpoint import TrainedModel, TrainingState
from lib.networks.spec import NetworkSpec
from lib.networks.versions import ModelVersions
from lib.server.project import Project
from lib.training.record import TrainingRecord, TrainingRun

LABELS = ("lesion", "cyst")
PAPERS = NetworkSpec.plan(LABELS, (1.0, 1.0, 2.0), (24, 24, 16), levels=3, base_channels=4)
GRID = ImageGeometry((20, 20, 20), np.eye(4))
BEFORE, STARTED, ENDED, AFTER = (f"2026-11-01T{hour}:00:00+00:00" for hour in ("09", "10", "11", "12"))


def published(folder, spec=PAPERS, *, crf=True, seed=6):
    """Publish a network of random weights, whose masks contain every label, as the next version of a project."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = spec.build()
    versions = ModelVersions(folder / "model" / "inextremis.pt")
    base = versions.published_number()
    model = TrainedModel(spec, network, base + 1, score=0.81, crf=crf)
    number, _ = versions.publish(model, TrainingState({}, 240), base=base)
    return versions.path(number)


def recorded(folder, *, trained_on=("one",), version=1):
    run = TrainingRun(STARTED, ENDED, version, 240, len(trained_on), (2, "held-out"), 0.81, None, 0.5)
    record = TrainingRecord(trained_on=trained_on, held_out=("two", "three"), runs=(run,))
    record.save(folder / "model" / "inextremis" / "record.json")


def clicked(folder, image, annotator, created=BEFORE):
    points = ExtremePoints.from_clicks(
        "lesion", np.array([[5, 9, 9], [15, 9, 9], [9, 5, 9], [9, 15, 9], [9, 9, 5], [9, 9, 15]]), np.zeros((0, 3), int)
    )
    AnnotationStore(Project(folder).clicks).save(Annotation(image, points, GRID, annotator, created))


def masked(folder, image, annotator, created=BEFORE, info=None):
    project = Project(folder)
    mask = Volume(np.zeros(GRID.shape, np.float32), GRID)
    record = MaskRecord({"lesion": 1}, annotator, created, info=info)
    MaskStore(project.masks(), LABELS, project.mapped_masks).save(image, mask, record)


def write_scans(folder):
    """Two scans off the network's grid: slices first and mirrored as NIfTI, turned by 10 degrees as NRRD."""
    folder.mkdir(parents=True, exist_ok=True)
    slices_first = np.array([[0.0, -0.8, 0, 10], [0, 0, -0.9, 30], [2.5, 0, 0, 3], [0, 0, 0, 1]])
    c, s = np.cos(np.radians(10)), np.sin(np.radians(10))
    turned = np.array([[1.3 * c, -1.3 * s, 0, -20], [1.3 * s, 1.3 * c, 0, 5], [0, 0, 1.6, 0], [0, 0, 0, 1]])
    places = {"mirrored.nii.gz": ((20, 50, 40), slices_first), "turned.nrrd": ((36, 44, 28), turned)}
    paths = []
    for seed, (name, (shape, affine)) in enumerate(places.items()):
        i, j, k = np.indices(shape)
        blobs = 300 * np.sin(i / 4) * np.sin(j / 5) * np.sin(k / 3)
        array = (blobs + np.random.default_rng(seed).normal(500, 60, shape)).astype(np.float32)
        write = write_nrrd if name.endswith(".nrrd") else write_nifti
        write(folder / name, array, ImageGeometry(shape, affine), compress=True)
        paths.append(folder / name)
    return paths
