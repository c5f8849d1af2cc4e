"""Read volumes from files, with the grid they are stored on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.geometry.image_geometry import DIRECTION_TOLERANCE, ImageGeometry
from lib.geometry.volume_files import StoredVolume, read_header, read_intensities
from lib.geometry.volume_size import too_large

logger = logging.getLogger(__name__)

# Larger values mark missing data (-3.4e38, 9.97e36, 1e20); no scanner produces them.
LARGEST_INTENSITY = 1e9

# Large images are read one after the other, so that the check of free memory includes the previous image.
_LARGE_VOXELS = 50_000_000
_LARGE_READS = threading.Lock()
# float32, and a mask of the voxels without a measured value.
_READING_BYTES_PER_VOXEL = 5


class VolumeError(ValueError):
    """Error of an image that is not a readable 3D volume; its text names the file and is for the user."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities (X, Y, Z) float32 in stored voxel order, and their grid."""

    array: np.ndarray
    geometry: ImageGeometry


def load_volume(path: Path | str, *, sentinels: bool = True) -> Volume:
    """Read a 3D image: NIfTI (.nii, .nii.gz), or NRRD (.nrrd) with attached data.

    The extension determines the format; for a link, that of the link's own name. NaN, infinity and values beyond ±1e9
    are missing data and are replaced by the lowest of the other values. The log names the file and counts them.

    Args:
        sentinels: False for masks, whose values must be finite and are not replaced.

    Raises:
        VolumeError: the file is missing, cannot be read, is not 3D, is larger than the limit or the free memory, or
            has no measured value.
    """
    path = Path(path)
    stored, geometry = open_header(path)
    name = shown_name(path)
    with _LARGE_READS if stored.voxels > _LARGE_VOXELS else nullcontext():
        check_size(geometry.shape, f"The image {name}", _READING_BYTES_PER_VOXEL)
        try:
            voxels = _measured(path, stored) if sentinels else _finite(path, stored)
        except Exception as error:  # a damaged file raises errors of any kind
            raise unreadable(path, error) from error
        if sentinels:
            _fill_unmeasured(voxels, path)
    return Volume(voxels.reshape(geometry.shape, order="F"), geometry)


def read_geometry(path: Path | str) -> ImageGeometry:
    """Read the grid of an image from its header.

    Raises:
        VolumeError: the file is missing, unreadable, too large or not 3D.
    """
    return open_header(Path(path))[1]


def as_int16_if_exact(array: np.ndarray) -> np.ndarray:
    """Convert an array to int16 if that is exact, else return the array itself."""
    with np.errstate(invalid="ignore"):
        short = array.astype(np.int16)
    return short if np.array_equal(short, array) else array


def check_size(shape: Sequence[int], subject: str, bytes_per_voxel: float = 0) -> None:
    """Raise a VolumeError if a volume of this shape is larger than the limit or the free memory.

    Args:
        subject: of the message, such as "The image case01.nii.gz".
        bytes_per_voxel: see `too_large`.
    """
    if problem := too_large(shape, bytes_per_voxel):
        raise VolumeError(f"{subject} {problem}")


def shown_name(path: Path) -> str:
    """Return the name of a file, without its folder and non-printable characters."""
    return "".join(character if character.isprintable() else "?" for character in path.name)


def open_header(path: Path) -> tuple[StoredVolume, ImageGeometry]:
    """Read the header of an image, and its grid.

    Raises:
        VolumeError: the file is missing, unreadable, too large or not 3D.
    """
    name = shown_name(path)
    try:
        if not path.exists():
            raise VolumeError(f"The image {name} is not there; restore it or choose another.")
        if not path.is_file():
            raise VolumeError(f"The image {name} is not a file; choose a NIfTI or NRRD file.")
        stored = read_header(path)
        file_bytes = path.stat().st_size
    except VolumeError:
        raise
    except Exception as error:  # the readers raise errors of any kind
        raise unreadable(path, error) from error
    if len(stored.shape) != 3 or min(stored.shape) < 2:
        size = " x ".join(map(str, stored.shape))
        raise VolumeError(f"The image {name} has the size {size}; expected a 3D volume of one channel.")
    check_size(stored.shape, f"The image {name}")
    if not stored.fits_into(file_bytes):
        size = " x ".join(map(str, stored.shape))
        raise VolumeError(
            f"The image {name} is cut short: {file_bytes} bytes cannot hold {size} voxels. Copy it again."
        )
    i, j, k = stored.shape
    _check_one_place((i, j, k), stored.affines_ras, name)
    geometry = ImageGeometry((i, j, k), stored.affines_ras[0])
    _check_right_angles(geometry, name)
    return stored, geometry


def unreadable(path: Path, error: Exception) -> VolumeError:
    """Return the error for an image that cannot be read."""
    return VolumeError(f"The image {shown_name(path)} cannot be read ({_first_sentence(error)}).")


def nothing_measured(path: Path) -> VolumeError:
    """Return the error for an image without a value within `LARGEST_INTENSITY`."""
    return VolumeError(
        f"The image {shown_name(path)} holds no value within ±{LARGEST_INTENSITY:g}, only NaN or larger ones; expected "
        "intensities. Choose another."
    )


def _measured(path: Path, stored: StoredVolume) -> np.ndarray:
    """Read the values (N,) float32 in stored order; NaN for missing data."""

    def marked(values: np.ndarray) -> np.ndarray:
        if values.min() >= -LARGEST_INTENSITY and values.max() <= LARGEST_INTENSITY:  # neither holds with a NaN
            return values
        return np.where((values >= -LARGEST_INTENSITY) & (values <= LARGEST_INTENSITY), values, np.nan)

    return _joined(stored, (marked(values) for values in read_intensities(path, stored)))


def _finite(path: Path, stored: StoredVolume) -> np.ndarray:
    """Read the values (N,) float32 in stored order.

    Raises:
        ValueError: a value is not finite.
    """

    def checked(values: np.ndarray) -> np.ndarray:
        if not np.isfinite((float(values.min()), float(values.max()))).all():
            raise ValueError("it holds values that are not finite; expected 0 and the values of labels")
        return values

    return _joined(stored, (checked(values) for values in read_intensities(path, stored)))


def _joined(stored: StoredVolume, pieces: Iterable[np.ndarray]) -> np.ndarray:
    voxels = np.empty(stored.voxels, np.float32)
    first = 0
    for values in pieces:
        voxels[first : first + len(values)] = values
        first += len(values)
    return voxels


def _fill_unmeasured(voxels: np.ndarray, path: Path) -> None:
    """Replace NaN in voxels (N,) by the lowest of the other values.

    Raises:
        VolumeError: there are no others.
    """
    lowest = np.fmin.reduce(voxels)
    if np.isnan(lowest):
        raise nothing_measured(path)
    unmeasured = np.isnan(voxels)
    if count := np.count_nonzero(unmeasured):
        np.copyto(voxels, lowest, where=unmeasured)
        logger.info(
            "The image %s has no measured value in %d voxels (NaN, inf, or beyond ±%g); they count as its lowest, %g.",
            shown_name(path),
            count,
            LARGEST_INTENSITY,
            lowest,
        )


def _check_one_place(shape: tuple[int, int, int], places_ras: list[np.ndarray], name: str) -> None:
    if not places_ras:
        raise VolumeError(
            f"The image {name} does not tell where it lies in the patient (its qform and sform codes are 0), so left "
            "and right cannot be known; convert it again from its source."
        )
    if not np.isfinite(places_ras).all() or not np.linalg.norm(places_ras[0][:3, :3], axis=0).all():
        raise VolumeError(f"The header of the image {name} places its voxels at no distance; convert it again.")
    first, last = ImageGeometry(shape, places_ras[0]), ImageGeometry(shape, places_ras[-1])
    if not first.is_close(last):
        raise VolumeError(
            f"The qform and the sform of the image {name} place it {first.mm_apart(last):.1f} mm apart, and viewers "
            "use either of them; set both to the correct one."
        )


def _check_right_angles(geometry: ImageGeometry, name: str) -> None:
    directions = geometry.affine_ras[:3, :3] / geometry.spacing_mm
    if not np.allclose(directions.T @ directions, np.eye(3), rtol=0, atol=DIRECTION_TOLERANCE):
        raise VolumeError(f"The axes of the image {name} are not at right angles; resample it to a grid that is.")


def _first_sentence(error: Exception) -> str:
    """Return the text of an error, without the path at the end of an OSError."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
