"""Studies of two labels, and answers of annotators, for the tests of datasets."""

import numpy as np

from lib.annotations.image_identity import voxel_checksum
from lib.annotations.mask_file import MaskRecord
from lib.annotations.mask_store import MaskStore
from lib.annotations.store import Absence, AnnotationStore
from lib.geometry.volume import Volume, load_volume
from lib.server.project import FINAL_TAG, Project, open_project
from scripts.import_annotations import main as import_annotations
from tests.exchange.studies import clicks_lps_mm, write_studies

LABELS = ("lesion", "cyst")
BACKGROUND, LESION, CYST, IGNORE = range(4)


def labelled_studies(folder):
    """Make a folder of studies with a project of these labels."""
    open_project(Project(write_studies(folder)), LABELS)
    return folder


def click(studies, *images, label="lesion"):
    rows = [
        f"{image},{label},{x},{y},{z},lps"
        for image in images
        for x, y, z in clicks_lps_mm(studies / f"{image}.nii.gz").tolist()
    ]
    table = studies.parent / "points.csv"
    table.write_text("\n".join(["image,label,x,y,z,coordinates", *rows]))
    options = ["--points", str(table), "--labels", ",".join(LABELS), "--annotator", "anna"]
    assert import_annotations([str(studies), *options]) == 0


def say_absent(studies, image, label="cyst"):
    volume = load_volume(studies / f"{image}.nii.gz")
    absence = Absence.now(image, label, volume.geometry, "bert", voxel_checksum(volume.array))
    AnnotationStore(Project(studies).clicks).save(absence)


def submit(studies, image, array, labels=None, annotator="carl", info=None):
    project = Project(studies)
    volume = load_volume(studies / f"{image}.nii.gz")
    store = MaskStore(project.masks(), LABELS, project.mapped_masks / FINAL_TAG)
    labels = labels or {"lesion": 1, "cyst": 2}
    record = MaskRecord(labels, annotator, image_checksum=voxel_checksum(volume.array), info=info)
    store.save(image, Volume(array.astype(np.float32), volume.geometry), record)


def lesion_of(studies, image):
    return load_volume(studies / f"{image}.nii.gz").array > 500
