"""Map each series of an archive to the ids of its images, one for each volume."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lib.annotations.json_file import JsonFile
from lib.geometry.dicom_series import UPRIGHT
from lib.geometry.series_volumes import NAME

_MAX_NAMED = 8
_ID = re.compile(rf"(?P<series>[0-9.]+)(_(?P<volume>{NAME.pattern}))?")


def image_id(series: str, volume: str) -> str:
    """Return the image id of a volume: the UID of its series, and the name of the volume if it has one."""
    return f"{series}_{volume}" if volume else series


def series_and_volume(image: str) -> tuple[str, str]:
    """Split an image id into the UID of its series and the name of its volume; both empty if it is invalid."""
    match = _ID.fullmatch(image)
    return (match["series"], match["volume"] or "") if match else ("", "")


class SeriesImages:
    """Names of the volumes of each opened series that has several volumes or tilted slices.

    Args:
        path: JSON file in the project, not in the cache, as annotations are stored by image id.
    """

    def __init__(self, path: Path) -> None:
        self._kept = JsonFile(path)

    def of_all(self, series: Iterable[str]) -> list[str]:
        """Return the ids of the images of all series, in order."""
        kept = self._kept.items()
        return [image for uid in series for image in _ids(uid, kept.get(uid, {}).get("volumes", []))]

    def of(self, series: str) -> list[str]:
        """Return the ids of the images of a series."""
        return _ids(series, self._kept.get(series).get("volumes", []))

    def keep(self, series: str, volumes: Sequence[str]) -> None:
        """Store the names of the volumes of a series.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        names = [name for name in volumes if name]
        self._kept.change(series, lambda kept: {"volumes": names} if names else None)


def _ids(series: str, volumes: Sequence[str]) -> list[str]:
    return [image_id(series, str(volume)) for volume in volumes] or [series]


def series_refusal(series: str, images: Sequence[str]) -> str:
    """Return the message for a request, as of OHIF, that names a series where it must name one of its images."""
    if list(images) == [image_id(series, UPRIGHT)]:
        return (
            f"The slices of the series are tilted, and OHIF shows and clicks them as if they were not. Take the image "
            f"{images[0]}, in which they are straightened, in 3D Slicer or a request."
        )
    named = ", ".join(images[:_MAX_NAMED]) + (", ..." if len(images) > _MAX_NAMED else "")
    return (
        f"The series holds {len(images)} volumes, and its UID, which is all that OHIF sends, does not say which one is "
        f"meant. Take one of these images in 3D Slicer or a request: {named}."
    )
