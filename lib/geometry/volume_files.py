"""Read and write NIfTI files, and NRRD files with attached data, with the header separate from the voxels.

Voxels are not read by ITK, which chooses the reader by content: some of its readers end the process on damaged files,
and that of NRRD opens other files that a header names.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import nrrd
import numpy as np

from lib.geometry.gzip_stream import gzipped, pieces_of
from lib.geometry.image_geometry import RAS_TO_LPS, ImageGeometry

EXTENSIONS = (".nii.gz", ".nii", ".nrrd")

_GZIP_MAGIC = b"\x1f\x8b"
# Maximum compression ratio of deflate.
_GZIP_RATIO = 1032
_NRRD_HEADER_BYTES = 2**20
_NRRD_AXES = 16  # maximum of the format
# Maximum size of header and extensions, which precede the voxels.
_NIFTI_HEADER_BYTES = 2**26
NIFTI_BEGIN = 352  # header, and four bytes that declare no extension
_CHUNK_VOXELS = 2**20
_MM_BY_UNIT = {1: 1000.0, 3: 0.001}  # metre and micrometre in xyzt_units; everything else counts as mm, as in ITK
_SCANNER_ANATOMICAL = 1
_NRRD_TYPES = {
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "int16": "short",
    "int32": "int",
    "float32": "float",
}
_DOMAIN_KINDS = {"domain", "space", "none", "???"}
_SPACE_TO_LPS = {
    "right-anterior-superior": RAS_TO_LPS[:3, :3],
    "ras": RAS_TO_LPS[:3, :3],
    "left-anterior-superior": np.diag([1.0, -1.0, 1.0]),
    "las": np.diag([1.0, -1.0, 1.0]),
}


@dataclass(frozen=True, eq=False)
class StoredVolume:
    """Header of a file.

    Attributes:
        shape: voxels along each axis, without the axes of length 1 around three others.
        dtype: of the numbers in the file.
        slope, intercept: intensity = slope * number + intercept.
        affines_ras: (4, 4) each, voxel index to RAS mm: none, one, or the two that readers of the format may use. The
            first one is valid.
        begin: byte of the file at which the voxels, or their gzip stream, begin.
        skipped: bytes of the gzip stream before the first voxel.
        gzipped: True if the voxels are compressed.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    affines_ras: list[np.ndarray]
    begin: int
    gzipped: bool
    skipped: int = 0
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def voxels(self) -> int:
        return math.prod(self.shape)

    def fits_into(self, file_bytes: int) -> bool:
        """Tell whether a file of this size can contain all voxels."""
        capacity = (file_bytes - self.begin) * (_GZIP_RATIO if self.gzipped else 1)
        return self.skipped + self.voxels * self.dtype.itemsize <= capacity


def read_header(path: Path) -> StoredVolume:
    """Read the header of a file; the extension determines the format, for a link that of its own name.

    Raises:
        ValueError: another format, or not a grid of single numbers; the text is the rest of a sentence. Damaged
            headers may raise other exceptions.
    """
    extension = next((extension for extension in EXTENSIONS if path.name.lower().endswith(extension)), None)
    if extension is None:
        raise ValueError(f"its name has none of the extensions {', '.join(EXTENSIONS)}")
    with path.open("rb") as file:
        if extension == ".nrrd":
            stored = _nrrd_header(file)
        elif extension == ".nii":
            stored = _nifti_header(file, gzipped=False)
        else:
            _check_magic(file.read(2) == _GZIP_MAGIC, "a gzip file")
            file.seek(0)
            stored = _nifti_header(gzip.GzipFile(fileobj=file), gzipped=True)
    if stored.dtype.kind not in "iuf":
        raise ValueError("its voxels are colours, vectors or complex numbers; expected one number each")
    return stored


def read_intensities(path: Path, stored: StoredVolume) -> Iterator[np.ndarray]:
    """Yield the intensities (N,) of consecutive pieces of the file, in Fortran order.

    Raises:
        EOFError: the file is cut short.
    """
    with path.open("rb") as file:
        file.seek(stored.begin)
        stream = gzip.GzipFile(fileobj=file) if stored.gzipped else file
        stream.read(stored.skipped)
        for first in range(0, stored.voxels, _CHUNK_VOXELS):
            expected = min(_CHUNK_VOXELS, stored.voxels - first) * stored.dtype.itemsize
            numbers = stream.read(expected)
            if len(numbers) < expected:
                raise EOFError("its end is missing")
            values = np.frombuffer(numbers, stored.dtype)
            if (stored.slope, stored.intercept) != (1.0, 0.0):
                values = values.astype(np.float64) * stored.slope + stored.intercept
            yield values


def write_nrrd(path: Path, array: np.ndarray, geometry: ImageGeometry, *, compress: bool) -> None:
    """Write voxels (X, Y, Z) of a dtype in `_NRRD_TYPES`.

    Without compression, empty slices at both ends become holes of a sparse file.
    """
    affine_lps = RAS_TO_LPS @ geometry.affine_ras
    vectors = [f"({','.join(map(repr, column.tolist()))})" for column in affine_lps[:3].T]
    header = [
        "NRRD0004",
        f"type: {_NRRD_TYPES[array.dtype.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"space directions: {' '.join(vectors[:3])}",
        "kinds: domain domain domain",
        "endian: little",
        f"encoding: {'gzip' if compress else 'raw'}",
        f"space origin: {vectors[3]}",
    ]
    slices = np.ascontiguousarray(array.T, array.dtype.newbyteorder("<"))
    with path.open("wb") as file:
        file.write("\n".join([*header, "", ""]).encode())
        if compress:
            file.writelines(gzipped(pieces_of(slices.data)))
            return
        begin = file.tell()
        file.truncate(begin + slices.nbytes)
        filled = np.flatnonzero(slices.reshape(len(slices), -1).any(axis=1))
        if len(filled):
            file.seek(begin + int(filled[0]) * slices[0].nbytes)
            file.write(slices[filled[0] : filled[-1] + 1].data)


def write_nifti(path: Path, array: np.ndarray, geometry: ImageGeometry, *, compress: bool) -> None:
    """Write voxels (X, Y, Z)."""
    header = nib.Nifti1Image(array, geometry.affine_ras).header
    header.set_slope_inter(1, 0)
    header["magic"], header["vox_offset"] = b"n+1", NIFTI_BEGIN
    pieces = chain([header.binaryblock.ljust(NIFTI_BEGIN, b"\0")], pieces_of(np.ascontiguousarray(array.T).data))
    with path.open("wb") as file:
        file.writelines(gzipped(pieces) if compress else pieces)


def _check_magic(fits: bool, expected: str) -> None:
    if not fits:
        raise ValueError(f"its content is not that of {expected}, as its name says")


def _nifti_header(stream: BinaryIO | gzip.GzipFile, gzipped: bool) -> StoredVolume:
    head = stream.read(540)
    size = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    first = 348 in size and head[344:348] == b"n+1\0"
    _check_magic(first or (540 in size and head[4:8] == b"n+2\0"), "a NIfTI file with its voxels")
    header = nib.Nifti1Header(head[:348]) if first else nib.Nifti2Header(head[:540])
    shape = [int(length) for length in header.get_data_shape()]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    offset = header.get_data_offset()
    if not len(header.binaryblock) <= offset <= _NIFTI_HEADER_BYTES:
        raise ValueError(f"its header says that the voxels begin at byte {offset}")
    slope, intercept = header.get_slope_inter()
    return StoredVolume(
        tuple(shape),
        header.get_data_dtype(),
        _nifti_affines_ras(header),
        begin=0 if gzipped else offset,
        gzipped=gzipped,
        skipped=offset if gzipped else 0,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _nifti_affines_ras(header: nib.Nifti1Header) -> list[np.ndarray]:
    to_mm = np.diag([_MM_BY_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)] * 3 + [1.0])
    forms = [header.get_sform(coded=True)[0]]
    # nibabel and ITK both use an sform of this code; with another code, ITK prefers the qform.
    if int(header["sform_code"]) != _SCANNER_ANATOMICAL:
        forms.append(header.get_qform(coded=True)[0])
    return [to_mm @ form for form in forms if form is not None]


def _nrrd_header(file: BinaryIO) -> StoredVolume:
    head = BytesIO(file.read(_NRRD_HEADER_BYTES))
    _check_magic(head.getvalue().startswith(b"NRRD000"), "an NRRD file")
    header = nrrd.read_header(head)
    names = {"".join(name.lower().split()) for name in header}
    if "datafile" in names:
        raise ValueError("its voxels are in another file; save it as one NRRD file with attached data")
    if names & {"lineskip", "byteskip", "axismins", "axismaxs"}:
        raise ValueError(
            "its header has a byte skip, a line skip, or axis mins; save it again, for example with 3D Slicer"
        )
    if missing := {"type", "sizes", "encoding"} - header.keys():
        raise ValueError(f"its header lacks {', '.join(sorted(missing))}")
    encoding = header["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise ValueError(f"its encoding is {encoding}; expected raw or gzip")
    sizes = [int(length) for length in header["sizes"]]
    if len(sizes) > _NRRD_AXES:
        raise ValueError(f"it has {len(sizes)} axes; expected three")
    axes = _nrrd_axes(sizes)
    return StoredVolume(
        tuple(sizes[axis] for axis in axes),
        nrrd.reader._determine_datatype(header),
        [_nrrd_affine_ras(header, axes)] if len(axes) == 3 else [],
        begin=head.tell(),
        gzipped=encoding != "raw",
    )


def _nrrd_axes(sizes: list[int]) -> list[int]:
    """Return the axes of the volume, without those of length 1 around three others."""
    axes = list(range(len(sizes)))
    while len(axes) > 3 and sizes[axes[0]] == 1:
        axes.pop(0)
    while len(axes) > 3 and sizes[axes[-1]] == 1:
        axes.pop()
    return axes


def _nrrd_affine_ras(header: nrrd.types.NRRDHeader, axes: list[int]) -> np.ndarray:
    """Return the affine, voxel index to RAS mm, with the defaults of ITK: LPS, and 1 mm."""
    kinds = header.get("kinds") or ["domain"] * (1 + max(axes))
    if not {kinds[axis].lower() for axis in axes} <= _DOMAIN_KINDS:
        raise ValueError("one of its axes counts colours, vectors or times; expected three axes in space")
    steps = np.diag(np.nan_to_num(np.asarray(header.get("spacings", np.ones(1 + max(axes))), float)[axes], nan=1.0))
    if "space directions" in header:
        steps = np.asarray(header["space directions"], float)[axes]
    if steps.shape != (3, 3) or not np.isfinite(steps).all():
        raise ValueError("its header does not tell a direction in space for each axis")
    space_to_lps = _SPACE_TO_LPS.get(header.get("space", "").lower(), np.eye(3))
    affine_lps = np.eye(4)
    affine_lps[:3, :3] = space_to_lps @ steps.T
    affine_lps[:3, 3] = space_to_lps @ np.asarray(header.get("space origin", np.zeros(3)), float)
    return RAS_TO_LPS @ affine_lps
