"""Segmentations in a STOW-RS body are found; anything else is refused, also if a parser could overlook it."""

from __future__ import annotations

import io
import time
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lib.server.archive.stow import boundary_of, multipart, segmentations
from lib.server.http.refusals import RefusedError
from tests.server.archive.stow_bodies import CT, END, LABEL_MAP_SEG, SEG, STOW, halves, instance, instances_in, part


@pytest.mark.parametrize("sop_class", [SEG, LABEL_MAP_SEG])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_segmentations_of_a_body_are_put_into_another_unchanged(sop_class, syntax):
    files = [instance(sop_class, syntax=syntax, PixelData=b"\r\n--x--\r\n" * 9) for _ in range(2)]
    boundary = "of the client"
    body = b"".join(part(file, boundary=boundary) for file in files) + f"--{boundary}--".encode()

    found = segmentations(body, boundary_of(STOW.replace("boundary=x", f'boundary="{boundary}"')))

    assert found == files
    assert instances_in(*multipart(found)) == files


def deflated(size):
    """Make a small file that becomes a large one when it is decompressed."""
    head, dataset = halves(instance(syntax=DeflatedExplicitVRLittleEndian))[0], halves(instance())[1]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return head + packer.compress(dataset + b"\0" * size) + packer.flush()


REFUSED = {
    "an image": (part(instance(CT)) + END, 422),
    "an image behind a segmentation": (part(instance()) + part(instance(CT)) + END, 422),
    "an image that calls itself a segmentation": (part(instance(CT, meta_class=SEG)) + END, 422),
    "a segmentation that calls itself an image": (part(instance(SEG, meta_class=CT)) + END, 422),
    "an encapsulated PDF": (part(instance("1.2.840.10008.5.1.4.1.1.104.1")) + END, 422),
    "no DICOM": (part(b"<html>") + END, 422),
    "nothing": (part(b"") + END, 422),
    "half a file": (part(instance()[:200]) + END, 422),
    "a deflated file": (part(deflated(10**7)) + END, 422),
    "a web page as such": (part(b"<html>", "text/html") + END, 415),
    "an instance as a web page": (part(instance(), "text/html") + END, 415),
    "metadata": (part(b"[]", "application/dicom+json") + END, 415),
    "no part": (END, 400),
    "no end": (part(instance()), 400),
    "another boundary": (part(instance(), boundary="y") + b"--y--\r\n", 400),
    "no multipart": (instance(), 400),
    "an empty body": (b"", 400),
}


@pytest.mark.parametrize(("body", "status"), REFUSED.values(), ids=REFUSED)
def test_nothing_but_segmentations_is_accepted(body, status):
    with pytest.raises(RefusedError) as error:
        segmentations(body, b"x")

    assert error.value.status == status
    assert error.value.sentence.endswith(".")


def test_deflated_instance_is_refused_before_it_is_unpacked():
    body = part(deflated(10**8)) + END
    tracemalloc.start()
    with pytest.raises(RefusedError, match="transfer syntax"):
        segmentations(body, b"x")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak_bytes < 10**7


@pytest.mark.parametrize("where", ["before the SOP class", "after it"])
def test_instance_of_many_elements_is_looked_at_in_no_time(where):
    head, dataset = halves(instance())
    elements = bytes(8) * 10**6
    start = time.monotonic()

    with suppress(RefusedError):
        segmentations(part(head + (elements + dataset if "before" in where else dataset + elements)) + END, b"x")

    assert time.monotonic() - start < 1


HIDDEN = b"Content-Type: application/dicom\r\n\r\n" + instance(CT)


@pytest.mark.parametrize(
    "body",
    [
        b"--x\n" + HIDDEN + b"\r\n" + part(instance()) + END,
        b"preamble--x\r\n" + HIDDEN + b"\r\n" + part(instance()) + END,
        part(instance()) + END + b"--x\r\n" + HIDDEN + b"\r\n" + END,
        part(instance()) + END + b"epilogue\n--x\n" + HIDDEN,
        part(instance() + b"\n--x\n" + HIDDEN) + END,
    ],
)
def test_instance_that_only_some_parsers_find_is_not_passed_on(body):
    """Archives differ in what they take for a boundary; they get a new one."""
    with suppress(RefusedError):
        content_type, passed_on = multipart(segmentations(body, b"x"))
        assert b"--x" not in content_type.encode()
        assert all(dcmread(io.BytesIO(file)).SOPClassUID == SEG for file in instances_in(content_type, passed_on))


@pytest.mark.parametrize(
    "content_type",
    [
        "application/dicom",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "text/plain",
        "",
        'multipart/related; type="application/dicom"',
        'multipart/related; type="application/dicom+json"; boundary=x',
        "multipart/related; boundary=x",
        'multipart/related; type="application/dicom"; boundary=' + "x" * 71,
    ],
)
def test_other_kinds_of_bodies_are_refused(content_type):
    with pytest.raises(RefusedError) as error:
        boundary_of(content_type)

    assert error.value.status == 415
