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
from lib.server.studies.open_studies import open_studies

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


def in_another_format(folder, patient=0):
    """Replace the image `scan` by one in another format."""
    (folder / "scan.nii.gz").unlink()
    write_nrrd(folder / "scan.nrrd", patient)


def open_folder(folder, labels=LABELS, project_dir=None):
    return open_studies(str(folder), labels, project_dir)


def click(studies, image_id, *labels):
    """Store clicks on these labels, or on all labels of the app; return the last file."""
    geometry, checksum = _grid_and_checksum(studies, image_id)
    for label in labels or studies.labels:
        points = ExtremePoints.from_clicks(label, CLICKS)
        path = studies.clicks.save(Annotation.now(image_id, points, geometry, "reader", checksum))
    return path


def say_absent(studies, image_id, *labels):
    """Mark these labels as absent; return the last file."""
    geometry, checksum = _grid_and_checksum(studies, image_id)
    for label in labels:
        path = studies.clicks.save(Absence.now(image_id, label, geometry, "reader", checksum))
    return path


def _grid_and_checksum(studies, image_id):
    path = studies.image_path(image_id)
    stamp, volume = file_stamp(path), load_volume(path)
    return volume.geometry, studies.identities.checksum(path, volume.array, stamp)


def submit(studies, image_id, tag="final", value=1, labels=LABELS):
    """Store a mask of these labels; return its file."""
    geometry, checksum = _grid_and_checksum(studies, image_id)
    mask = Volume(np.full(geometry.shape, value, np.uint8), geometry)
    record = MaskRecord(label_values(labels), "reader", image_checksum=checksum)
    return studies.masks(tag).save(image_id, mask, record)


def tags_of(studies, image_id):
    """Return the tags of the annotations of an image, sorted."""
    return sorted(studies.summaries_by_image([image_id]).get(image_id, {}))


def geometry(shape=SHAPE, affine=AFFINE):
    return ImageGeometry(shape, affine)


def contents(folder):
    """Return the content of each file below a folder; of links, where they lead."""
    return {
        path.relative_to(folder): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or (path.is_file() and path.name != ".lock")
    }
