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
# Not the deflated one, of which a few bytes become as many as its sender likes.
_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless)
_PREAMBLE_BYTES, _HEAD_BYTES = 128, 65536
_SOP_CLASS = Tag("SOPClassUID")


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart/related of DICOM instances.

    Raises:
        RefusedError: 415, it is something else.
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
    """The instances of a STOW-RS body, each a DICOM segmentation, as files.

    Raises:
        RefusedError: 400, it is no multipart; 422, a part is something else than a DICOM segmentation.
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
    """What lies between the boundaries (RFC 2046), or None where the last one is missing."""
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
    """The instance in a part, which begins with a line break before its headers."""
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
    except Exception as error:  # pydicom raises whatever a damaged file leads to
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
    """The SOP classes that a file names, which should be one, and its transfer syntax.

    Only the beginning is read: an instance may hold more elements than can be looked at while somebody waits.
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
    """The content type and the body of a STOW-RS request of just these instances.

    The archive reads what was checked here: a boundary that both understand differently cannot hide an instance.
    """
    boundary = secrets.token_hex(24)
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(head + instance + b"\r\n" for instance in instances) + f"--{boundary}--\r\n".encode()
    return f'multipart/related; type="application/dicom"; boundary={boundary}', body
