"""Read the DICOM segmentations in the body of a STOW-RS request, and write such a body."""

from __future__ import annotations

import io
import re
import secrets
from email.message import Message

from pydicom.filereader import read_dataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from lib.server.http.refusals import RefusedError, shown

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # SEG, label map SEG
MAX_INSTANCES = 100
# Not the deflated syntax: a small file may decompress to any size.
_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless)
_PREAMBLE_BYTES, _HEAD_BYTES = 128, 65536
_SOP_CLASS = Tag("SOPClassUID")


def boundary_of(content_type: str) -> bytes:
    """Return the boundary of a multipart/related body of DICOM instances.

    Raises:
        RefusedError: 415, the content type is another one.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary("")
    is_dicom = str(header.get_param("type", "")).lower() == "application/dicom"
    if header.get_content_type() != "multipart/related" or not is_dicom or not 1 <= len(boundary) <= 70:
        raise RefusedError(
            415,
            f'The content type is {shown(content_type)}; expected multipart/related; type="application/dicom"; '
            "boundary=...",
        )
    return boundary.encode("latin-1", "replace")


def segmentations(body: bytes, boundary: bytes) -> list[bytes]:
    """Return the instances of a STOW-RS body, each a DICOM segmentation, as the bytes of files.

    Raises:
        RefusedError: 400, the body is no multipart; 415 or 422, a part is no DICOM segmentation.
    """
    texts = _parts(body, boundary)
    if texts is None or not 1 <= len(texts) <= MAX_INSTANCES:
        raise RefusedError(
            400, f"The body is no multipart of 1 to {MAX_INSTANCES} instances that ends with its boundary."
        )
    instances = [_content(text) for text in texts]
    for instance in instances:
        _require_segmentation(instance)
    return instances


_LINE_END = re.compile(rb"[ \t]*\r\n")


def _parts(body: bytes, boundary: bytes) -> list[bytes] | None:
    """Return the parts between the boundaries (RFC 2046), or None if the closing boundary is missing."""
    delimiter = b"--" + boundary
    begin = len(delimiter)
    if not body.startswith(delimiter):
        first = body.find(b"\r\n" + delimiter, 0, _HEAD_BYTES)
        if first < 0:
            return None
        begin += first + 2
    parts: list[bytes] = []
    while len(parts) <= MAX_INSTANCES:
        line = _LINE_END.match(body, begin)
        if line is None:
            return None
        end = body.find(b"\r\n" + delimiter, line.end() - 2)
        if end < 0:
            return None
        parts.append(body[line.end() - 2 : end])
        begin = end + 2 + len(delimiter)
        if body.startswith(b"--", begin):
            return parts
    return parts


def _content(part: bytes) -> bytes:
    """Return the instance in a part, which begins with a line break before its headers."""
    blank = part.find(b"\r\n\r\n", 0, _HEAD_BYTES)
    if blank < 0:
        raise RefusedError(400, "A part of the body has no blank line after its headers.")
    head, content = part[:blank], part[blank + 4 :]
    types = re.findall(rb"(?i)\r\ncontent-type:[ \t]*([^\r\n;]*)", head)
    if types != [b"application/dicom"]:
        raise RefusedError(415, f"A part has the type {shown(b', '.join(types))}; expected application/dicom.")
    return content


def _require_segmentation(instance: bytes) -> None:
    try:
        classes, syntax = _classes(instance)
    except Exception as error:  # pydicom raises many types of errors for damaged files
        raise RefusedError(422, "An instance cannot be read as a DICOM file; expected a DICOM segmentation.") from error
    if syntax not in _SYNTAXES:
        raise RefusedError(
            422, f"An instance has the transfer syntax {shown(syntax)}; expected it uncompressed or as RLE."
        )
    if len(classes) != 1 or classes.isdisjoint(SEGMENTATIONS):
        raise RefusedError(
            422,
            f"An instance is of the SOP class {shown(' and '.join(sorted(classes)))}; the server stores DICOM "
            "segmentations only, so send others to the archive itself.",
        )


def _classes(instance: bytes) -> tuple[set[str], UID]:
    """Return the SOP classes in a file's meta header and dataset, and its transfer syntax.

    Only the beginning is read: parsing an instance of very many elements would block the request.
    """
    file = io.BytesIO(instance[:_HEAD_BYTES])
    file.seek(_PREAMBLE_BYTES)
    if file.read(4) != b"DICM":
        raise ValueError("no DICOM file")
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2)
    syntax = UID(meta.TransferSyntaxUID)
    if syntax not in _SYNTAXES:
        return set(), syntax
    dataset = read_dataset(
        file,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
        stop_when=lambda tag, *_: tag > _SOP_CLASS,
    )
    return {str(meta.MediaStorageSOPClassUID), str(dataset.SOPClassUID)}, syntax


def multipart(instances: list[bytes]) -> tuple[str, bytes]:
    """Return the content type and the body of a STOW-RS request with exactly these instances.

    A new boundary is drawn, so that the archive cannot parse parts that were not checked here.
    """
    boundary = secrets.token_hex(24)
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(head + instance + b"\r\n" for instance in instances) + f"--{boundary}--\r\n".encode()
    return f'multipart/related; type="application/dicom"; boundary={boundary}', body
