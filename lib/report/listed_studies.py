"""List the studies of a project with the names that the annotation page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lib.exchange.study_images import visible_files, without_extension
from lib.geometry.volume_files import EXTENSIONS
from lib.server.archive.archive_listing import known_series
from lib.server.archive.series_images import SeriesImages, series_and_volume
from lib.server.archive.series_names import name_and_detail
from lib.server.project import Project, archive_cache, is_archive


@dataclass(frozen=True)
class ListedStudy:
    """Row of a study in a list.

    Attributes:
        name: file name, or patient and description of the series.
        detail: further attributes, such as the date; may be empty.
        path: file of the image; None if it was never fetched from the archive.
    """

    name: str
    detail: str
    path: Path | None


def project_name(studies: str) -> str:
    """Return the name of a folder, or the URL of an archive without scheme and login."""
    if not is_archive(studies):
        return Path(studies).absolute().name
    parts = urlsplit(studies)
    return parts.netloc.rpartition("@")[2] + parts.path.rstrip("/")


def listed_studies(studies: str, project: Project) -> dict[str, ListedStudy]:
    """Return all studies by image id: the files of a folder, or the saved list of an archive.

    Raises:
        OSError: the folder cannot be read.
    """
    if not is_archive(studies):
        paths = visible_files(Path(studies).absolute(), EXTENSIONS)
        return {without_extension(path.name): ListedStudy(path.name, "", path) for path in paths}
    cache = archive_cache(studies)
    volumes = visible_files(cache / "volumes", EXTENSIONS) if (cache / "volumes").is_dir() else []
    paths_by_id = {without_extension(path.name): path for path in volumes}
    series = known_series(cache / "listing.json") or {}
    images = SeriesImages(project.series_images).of_all(series) if series else sorted(paths_by_id)
    facts = {uid: one.facts for uid, one in series.items()}
    return {image_id: _of_series(image_id, facts, paths_by_id.get(image_id)) for image_id in images}


def _of_series(image_id: str, facts_by_series: Mapping[str, Mapping[str, str]], path: Path | None) -> ListedStudy:
    uid, _ = series_and_volume(image_id)
    return ListedStudy(*name_and_detail(image_id, facts_by_series.get(uid, {}), uid), path)
