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


def annotations_of_archive(address: str, wanted: Sequence[str], images: StudyImages) -> DicomFiles:
    """The objects of an archive that refer to images that were opened, and the slices that reports point into.

    What this app stored there itself is left out: a mask that nobody has looked at would come back as a final one.

    Args:
        wanted: UIDs of series of which all objects are taken, whoever made them and whatever they are of; none: all.

    Raises:
        ArchiveError: it does not answer, or refuses.
        ImportRefusedError: it has no such series.
    """
    archive = Archive(address, archive_login(), {"Modality": ",".join(MODALITIES)}, prefixes=archive_prefixes())
    found = archive.list_series()
    if unknown := [uid for uid in wanted if uid not in found]:
        raise ImportRefusedError([f"The archive has no SEG, RTSTRUCT or SR series {unknown[0]}."])
    objects: list[AnnotationObject] = []
    slices: dict[str, Dataset] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, uid in enumerate(wanted or sorted(found)):
            place = Path(folder, str(number))
            archive.fetch(found[uid], place)
            for path in sorted(place.iterdir()):
                one = AnnotationObject(f"series {uid}", "", dcmread(path))
                if one.dataset.SOPClassUID in KINDS and (wanted or _is_of_opened(one, images)):
                    objects.append(one)
                    slices |= _slices_of(one, archive, images)
    return DicomFiles(objects, slices)


def _is_of_opened(one: AnnotationObject, images: StudyImages) -> bool:
    return not one.is_own and not _opened(images).isdisjoint(referenced_series(one.dataset))


def _slices_of(one: AnnotationObject, archive: Archive, images: StudyImages) -> dict[str, Dataset]:
    """Headers of the series that a report points into, by the UID of their instance."""
    if one.kind != "SR":
        return {}
    study = {"StudyInstanceUID": str(one.dataset.StudyInstanceUID)}
    series = [Series(uid, study, None) for uid in referenced_series(one.dataset) & _opened(images)]
    return {str(header.SOPInstanceUID): header for found in series for header in archive.headers(found)}


def _opened(images: StudyImages) -> set[str]:
    """The UIDs of the series that were opened."""
    return {series_and_volume(image)[0] for image in images.paths} - {""}
