"""Images, clicks and masks for tests of the studies."""

import nibabel as nib
import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.image_identity import file_stamp
from lib.annotations.mask_file import MaskRecord
from lib.annotations.names import label_values
from lib.annotations.store import Absence, Annotation
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, load_volume

SHAPE = (10, 9, 8)
AFFINE = np.diag([0.7, 0.9, 2.5, 1.0])
CLICKS = np.array([[1, 4, 4], [8, 4, 4], [4, 1, 4], [4, 7, 4], [4, 4, 1], [4, 4, 6]])
LABELS = ("tumour", "cyst")


def write_image(path, patient=0, shape=SHAPE, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(patient).integers(0, 1000, shape).astype(np.int16)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    nib.save(image, path)
    return path


def write_nrrd(path, patient=0):
    import SimpleITK as sitk

    other = write_image(path.with_name(f"{path.name}.nii.gz"), patient)
    sitk.WriteImage(sitk.ReadImage(str(other)), str(path))
    other.unlink()
    return path


def click(studies, image_id, *labels):
    """What a click request for these labels does, or for all labels of the app. Returns the last file."""
    geometry, checksum = _grid_and_checksum(studies, image_id)
    for label in labels or studies.labels:
        points = ExtremePoints.from_clicks(label, CLICKS)
        path = studies.clicks.save(Annotation.now(image_id, points, geometry, "reader", checksum))
    return path


def say_absent(studies, image_id, *labels):
    """What a request that names these labels as absent does. Returns the last file."""
    geometry, checksum = _grid_and_checksum(studies, image_id)
    for label in labels:
        path = studies.clicks.save(Absence.now(image_id, label, geometry, "reader", checksum))
    return path


def _grid_and_checksum(studies, image_id):
    path = studies.image_path(image_id)
    stamp, volume = file_stamp(path), load_volume(path)
    return volume.geometry, studies.identities.checksum(path, volume.array, stamp)


def submit(studies, image_id, tag="final", value=1, labels=LABELS):
    """What "Submit Label" does in an app with these labels. Returns the file."""
    geometry, checksum = _grid_and_checksum(studies, image_id)
    mask = Volume(np.full(geometry.shape, value, np.uint8), geometry)
    record = MaskRecord(label_values(labels), "reader", image_checksum=checksum)
    return studies.masks(tag).save(image_id, mask, record)


def tags_of(studies, image_id):
    """Of the annotations of an image, in order."""
    return sorted(studies.summaries_by_image([image_id]).get(image_id, {}))


def geometry(shape=SHAPE, affine=AFFINE):
    return ImageGeometry(shape, affine)


def contents(folder):
    """Every file below a folder, links as where they lead."""
    return {
        path.relative_to(folder): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or (path.is_file() and path.name != ".lock")
    }
