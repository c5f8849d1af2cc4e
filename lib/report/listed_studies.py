"""The studies of a project by the names that people know them by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lib.exchange.study_images import visible_files, without_extension
from lib.geometry.volume_files import EXTENSIONS
from lib.server.archive_listing import known_series
from lib.server.project import Project, archive_cache, is_archive
from lib.server.series_images import SeriesImages, series_and_volume


@dataclass(frozen=True)
class ListedStudy:
    """A study as a list shows it.

    Attributes:
        name: of its file; of an archive the patient and the description of the series.
        detail: what else tells it apart, such as the date; may be empty.
        path: None where it was never fetched from its archive.
    """

    name: str
    detail: str
    path: Path | None


def project_name(studies: str) -> str:
    """The name of a folder, or the address of an archive without a login in it."""
    if not is_archive(studies):
        return Path(studies).absolute().name
    parts = urlsplit(studies)
    return parts.netloc.rpartition("@")[2] + parts.path.rstrip("/")


def listed_studies(studies: str, place: Project) -> dict[str, ListedStudy]:
    """All studies by image id: the files of a folder, or what the archive told last.

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
    images = SeriesImages(place.series_images).of_all(series) if series else sorted(paths_by_id)
    facts = {uid: one.facts for uid, one in series.items()}
    return {image_id: _of_series(image_id, facts, paths_by_id.get(image_id)) for image_id in images}


def _of_series(image_id: str, facts_by_series: Mapping[str, Mapping[str, str]], path: Path | None) -> ListedStudy:
    uid, volume = series_and_volume(image_id)
    facts = facts_by_series.get(uid, {})
    patient = " ".join(facts.get("PatientName", "").replace("^", " ").split()) or facts.get("PatientID", "")
    series, study = facts.get("SeriesDescription", ""), facts.get("StudyDescription", "")
    name = [patient, series or study or uid, volume]
    detail = [_date(facts.get("StudyDate", "")), facts.get("Modality", ""), study if series else ""]
    return ListedStudy(" · ".join(filter(None, name)), " · ".join(filter(None, detail)), path)


def _date(dicom: str) -> str:
    return f"{dicom[:4]}-{dicom[4:6]}-{dicom[6:]}" if len(dicom) == 8 and dicom.isdecimal() else dicom
