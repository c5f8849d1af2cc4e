"""Bodies of STOW-RS requests."""

from __future__ import annotations

import io

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

SEG, LABEL_MAP_SEG, CT = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.2"
STOW = 'multipart/related; type="application/dicom"; boundary=x'
END = b"--x--\r\n"


def instance(sop_class=SEG, meta_class=None, syntax=ExplicitVRLittleEndian, **attributes):
    """Make a DICOM file; with a `meta_class` its head names another SOP class than its dataset."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID = dataset.SeriesInstanceUID = "1.2.3"
    dataset.BitsAllocated = 8
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.is_little_endian, dataset.is_implicit_VR = True, syntax == ImplicitVRLittleEndian
    file = io.BytesIO()
    dataset.save_as(file, write_like_original=False)
    content = file.getvalue()
    return content if meta_class is None else b"".join([*halves(instance(meta_class))[:1], halves(content)[1]])


def halves(content):
    """Split a DICOM file into head and dataset."""
    length = 132 + 12 + int.from_bytes(content[140:144], "little")
    return content[:length], content[length:]


def part(content, content_type="application/dicom", boundary="x"):
    return f"--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode() + content + b"\r\n"


def instances_in(content_type, body):
    """Return the instances of a body, parsed by its boundary."""
    boundary = content_type.partition("boundary=")[2].encode()
    return [piece.partition(b"\r\n\r\n")[2][:-2] for piece in body.split(b"--" + boundary)[1:-1]]
