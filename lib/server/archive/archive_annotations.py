"""Find the SEG, RTSTRUCT and SR objects of an archive that refer to images opened before."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from lib.exchange.click_records import ImportRefusedError
from lib.exchange.dicom_objects import KINDS, MODALITIES, AnnotationObject, DicomFiles, referenced_series
from lib.exchange.study_images import StudyImages
from lib.server.archive.archive import Archive, Series
from lib.server.archive.series_images import series_and_volume
from lib.server.studies.open_studies import archive_login, archive_prefixes


def annotations_of_archive(address: str, series_uids: Sequence[str], images: StudyImages) -> DicomFiles:
    """Fetch the objects of an archive that refer to opened images, and the headers of slices that reports refer to.

    Objects that this app stored are skipped: an unreviewed mask would be imported as a final one.

    Args:
        series_uids: series of which all objects are returned, whatever made them and whatever they refer to; if
            empty, all series are searched.

    Raises:
        ArchiveError: the archive does not answer or refuses the request.
        ImportRefusedError: the archive has no such series.
    """
    archive = Archive(address, archive_login(), {"Modality": ",".join(MODALITIES)}, prefixes=archive_prefixes())
    found = archive.list_series()
    if unknown := [uid for uid in series_uids if uid not in found]:
        raise ImportRefusedError([f"The archive has no SEG, RTSTRUCT or SR series {unknown[0]}."])
    objects: list[AnnotationObject] = []
    slices: dict[str, Dataset] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, uid in enumerate(series_uids or sorted(found)):
            series_folder = Path(folder, str(number))
            archive.fetch(found[uid], series_folder)
            for path in sorted(series_folder.iterdir()):
                one = AnnotationObject(f"series {uid}", "", dcmread(path))
                if one.dataset.SOPClassUID in KINDS and (series_uids or _refers_to_opened(one, images)):
                    objects.append(one)
                    slices |= _slices_of(one, archive, images)
    return DicomFiles(objects, slices)


def _refers_to_opened(one: AnnotationObject, images: StudyImages) -> bool:
    return not one.is_own and not _opened_uids(images).isdisjoint(referenced_series(one.dataset))


def _slices_of(one: AnnotationObject, archive: Archive, images: StudyImages) -> dict[str, Dataset]:
    """Return the headers of the series that a report refers to, by SOP instance UID."""
    if one.kind != "SR":
        return {}
    study = {"StudyInstanceUID": str(one.dataset.StudyInstanceUID)}
    series = [Series(uid, study, None) for uid in referenced_series(one.dataset) & _opened_uids(images)]
    return {str(header.SOPInstanceUID): header for found in series for header in archive.headers(found)}


def _opened_uids(images: StudyImages) -> set[str]:

    return {series_and_volume(image)[0] for image in images.paths} - {""}
