"""Convert volumes to DICOM series, and upload them to an archive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import load_volume

_STORAGE_CLASSES = {"MR": MRImageStorage, "CT": CTImageStorage, "PT": PositronEmissionTomographyImageStorage}


def dicom_series(
    array: np.ndarray,
    affine_ras: np.ndarray,
    patient: str,
    *,
    modality: str = "MR",
    study: str = "InExtremIS demo",
    series: str = "T1 contrast-enhanced",
    instance_order: Sequence[int] | None = None,
) -> list[FileDataset]:
    """Make one single-frame instance per slice along k, in the order of their instance numbers.

    The same patient, series and order give the same UIDs, so that an archive recognises a second copy.

    Args:
        array: (X, Y, Z) integers of 16 bits.
        affine_ras: (4, 4); voxel index to RAS mm. i and j become columns and rows of an instance.
        patient: name and id.
        modality: "MR", "CT" or "PT".
        study, series: descriptions.
        instance_order: the k of instance number 1, 2, ...; None for ascending k.

    Raises:
        ValueError: the values do not fit into 16 bits, or `instance_order` is not an order of the slices.
    """
    slices = range(array.shape[2]) if instance_order is None else instance_order
    if sorted(slices) != list(range(array.shape[2])):
        raise ValueError(f"instance_order is {slices}; expected each of the {array.shape[2]} slices once")
    low, high = int(array.min()), int(array.max())
    if low < -(2**15) or high >= 2**15:
        raise ValueError(f"the values range from {low} to {high}; expected signed 16-bit integers")
    i, j, k = array.shape
    geometry = ImageGeometry((i, j, k), np.asarray(affine_ras, dtype=np.float64))
    identity = [patient, series, str(list(slices))]
    instances = []
    for number, index in enumerate(slices, start=1):
        instance = _instance(identity, number, modality)
        instance.PatientName = instance.PatientID = patient
        instance.StudyDescription, instance.SeriesDescription = study, series
        _set_plane(instance, geometry, index)
        _set_pixels(instance, array[:, :, index])
        instances.append(instance)
    return instances


def upload(dicomweb_url: str, instances: Sequence[Dataset]) -> str:
    """Store instances of one series in an archive (STOW-RS), and return its series UID."""
    DICOMwebClient(url=dicomweb_url).store_instances(list(instances))
    return str(instances[0].SeriesInstanceUID)


def upload_studies(studies_dir: Path, studies: Sequence[str], dicomweb_url: str) -> Iterator[tuple[str, str]]:
    """Send NIfTI studies to an archive; yield the study UID and the series UID of each when it is stored."""
    for study in studies:
        volume = load_volume(studies_dir / f"{study}.nii.gz")
        # Some viewers show only one of the two descriptions.
        instances = dicom_series(
            volume.array.astype(np.int16),
            volume.geometry.affine_ras,
            study,
            study=f"InExtremIS demo {study.removeprefix('study_')}",
            series=f"T1 contrast-enhanced {study.removeprefix('study_')}",
        )
        yield str(instances[0].StudyInstanceUID), upload(dicomweb_url, instances)


def _instance(identity: list[str], number: int, modality: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _STORAGE_CLASSES[modality]
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[*identity, str(number)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    instance.is_little_endian, instance.is_implicit_VR = True, False
    instance.SOPClassUID, instance.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    # The same for all series of a patient.
    instance.StudyInstanceUID = generate_uid(entropy_srcs=["study", identity[0]])
    instance.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference", identity[0]])
    instance.SeriesInstanceUID = generate_uid(entropy_srcs=["series", *identity])
    instance.PositionReferenceIndicator = ""
    instance.StudyID, instance.SeriesNumber, instance.InstanceNumber = "1", 1, number
    instance.StudyDate, instance.StudyTime = "20210701", "120000"
    instance.AccessionNumber = instance.ReferringPhysicianName = ""
    instance.PatientBirthDate = instance.PatientSex = ""
    instance.Modality, instance.Manufacturer = modality, "InExtremIS"
    instance.PatientPosition = "HFS"
    return instance


def _set_plane(instance: Dataset, geometry: ImageGeometry, k: int) -> None:
    """Set position and orientation (DICOM PS3.3 C.7.6.2.1.1)."""
    origin, *steps = geometry.voxel_to_lps(np.array([[0, 0, k], [1, 0, k], [0, 1, k], [0, 0, k + 1]]))
    along_columns, along_rows, along_slices = (step - origin for step in steps)
    column_mm, row_mm, slice_mm = geometry.spacing_mm
    instance.ImagePositionPatient = _decimals(origin)
    instance.ImageOrientationPatient = _decimals([*along_columns / column_mm, *along_rows / row_mm])
    instance.PixelSpacing = _decimals([row_mm, column_mm])
    instance.SliceThickness = instance.SpacingBetweenSlices = _decimals([slice_mm])[0]
    normal = np.cross(along_columns / column_mm, along_rows / row_mm)
    instance.SliceLocation = _decimals([origin @ normal])[0]


def _decimals(numbers: Sequence[float] | np.ndarray) -> list[str]:
    """Format decimal strings of at most 16 characters, the limit of DICOM."""
    return [f"{number:.10f}"[:16] for number in numbers]


def _set_pixels(instance: Dataset, plane: np.ndarray) -> None:
    """Set the pixels of a slice (X, Y), whose i is the column."""
    instance.Columns, instance.Rows = plane.shape
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.BitsAllocated, instance.BitsStored, instance.HighBit, instance.PixelRepresentation = 16, 16, 15, 1
    instance.RescaleIntercept, instance.RescaleSlope = "0", "1"
    low, high = int(plane.min()), int(plane.max())
    instance.WindowCenter, instance.WindowWidth = str((low + high) // 2), str(max(high - low, 1))
    instance.PixelData = np.ascontiguousarray(plane.T, dtype="<i2").tobytes()
