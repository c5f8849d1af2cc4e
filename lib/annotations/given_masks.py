"""Keep the last mask that each annotator received, until they accept it or click again."""

from __future__ import annotations

import glob
import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.annotations.atomic_write import write_atomically
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.names import check_image_id, check_label

_EXTENSION = ".mask"
_FASTEST = 1  # level of zlib; masks are a few kB at any


class GivenMaskError(ValueError):
    """Error of a stored mask that cannot be read; its text names the label."""


@dataclass(frozen=True, eq=False)
class GivenMask:
    """Mask of one label in an answer.

    Attributes:
        clicks: `clicks_digest` of the clicks that it was made from.
        start_voxel: first voxel (i, j, k) of a box of the image.
        mask: (x, y, z) bool, in that box.
        given: time of the answer, in ISO 8601 with a time zone; the same for all its labels.
        model_version: of the network that was used; None without one.
        model_sha256: of its file, in hexadecimal; None if unknown.
    """

    clicks: str
    start_voxel: tuple[int, int, int]
    mask: np.ndarray
    given: str
    model_version: int | None = None
    model_sha256: str | None = None

    def draw(self, label_map: np.ndarray, index: int) -> None:
        """Write a label index into a label map (X, Y, Z) of the image wherever the mask is True."""
        box = tuple(slice(a, a + n) for a, n in zip(self.start_voxel, self.mask.shape, strict=True))
        label_map[box][self.mask] = index


def clicks_digest(points: ExtremePoints, image_checksum: str | None) -> str:
    """Return a digest of the clicks on a label and of the image they were made on."""
    content = [image_checksum, points.label, points.foreground_voxel.tolist(), points.background_voxel.tolist()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class GivenMaskStore:
    """Store of one file per image, label and annotator, `<image id>.<label>.<digest of the annotator>.mask`.

    A file is a zlib stream, which has a checksum: a line of JSON, then the voxels of the box as bits in Fortran order.
    Files are renamed into place but not flushed, because an annotator waits; a mask that a power cut damages can be
    requested again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, image_id: str, label: str, annotator: str, given: GivenMask, *, new_clicks: bool) -> None:
        """Store a mask and replace the previous one.

        Args:
            new_clicks: the annotator has just clicked; masks of other annotators, from older clicks, are deleted.

        Raises:
            ValueError: an image id or a label that is not a plain file name.
            OSError: the disk is full or the folder cannot be written; the old file is then intact.
        """
        path = self._path(image_id, label, annotator)
        record = {
            "clicks": given.clicks,
            "start_voxel": list(given.start_voxel),
            "shape": list(given.mask.shape),
            "given": given.given,
            "model_version": given.model_version,
            "model_sha256": given.model_sha256,
        }
        content = json.dumps(record).encode() + b"\n" + np.packbits(given.mask.ravel(order="F")).tobytes()
        write_atomically(path, zlib.compress(content, _FASTEST), durable=False)
        if new_clicks:
            for other in self.files(image_id, label):
                if other != path:
                    other.unlink(missing_ok=True)

    def load(self, image_id: str, label: str, annotator: str) -> GivenMask:
        """Return the last mask that an annotator received.

        Raises:
            FileNotFoundError: there is none.
            GivenMaskError: it cannot be read.
        """
        path = self._path(image_id, label, annotator)
        try:
            return _decoded(zlib.decompress(path.read_bytes()))
        except FileNotFoundError:
            raise
        except (OSError, zlib.error, ValueError, KeyError, TypeError, RecursionError) as error:
            raise GivenMaskError(f"The stored mask of label {label!r} cannot be read.") from error

    def files(self, image_id: str, label: str | None = None) -> list[Path]:
        """Return the files of an image, of one label or of all."""
        found = self.folder.glob(f"{glob.escape(image_id)}.*{_EXTENSION}")
        parts = {path: path.name.rsplit(".", 3) for path in found}  # an image id may hold dots, a label does not
        return sorted(path for path, of in parts.items() if of[0] == image_id and label in (None, of[1]))

    def _path(self, image_id: str, label: str, annotator: str) -> Path:
        check_label(label)
        check_image_id(image_id)
        who = hashlib.sha256(annotator.encode(errors="replace")).hexdigest()[:16]
        return self.folder / f"{image_id}.{label}.{who}{_EXTENSION}"


def _decoded(content: bytes) -> GivenMask:
    """Decode a file.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: the content is damaged.
    """
    line, _, bits = content.partition(b"\n")
    record: dict[str, Any] = json.loads(line)
    start_i, start_j, start_k = (int(n) for n in record["start_voxel"])
    x, y, z = (int(n) for n in record["shape"])
    voxels = np.unpackbits(np.frombuffer(bits, np.uint8), count=x * y * z).view(bool)
    version, sha256 = record["model_version"], record.get("model_sha256")
    return GivenMask(
        str(record["clicks"]),
        (start_i, start_j, start_k),
        voxels.reshape((x, y, z), order="F"),
        str(record["given"]),
        None if version is None else int(version),
        None if sha256 is None else str(sha256),
    )
