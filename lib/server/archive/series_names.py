"""Name a series by its patient and description in place of its UID."""

from __future__ import annotations

from collections.abc import Mapping

from lib.server.archive.series_images import series_and_volume


def name_and_detail(image_id: str, facts: Mapping[str, str], unnamed: str) -> tuple[str, str]:
    """Return the name of an image (patient, description, volume) and its detail (date, modality, study).

    Args:
        facts: attributes of its series, by DICOM keyword.
        unnamed: description of a series that has none.
    """
    patient = " ".join(facts.get("PatientName", "").replace("^", " ").split()) or facts.get("PatientID", "")
    series, study = facts.get("SeriesDescription", ""), facts.get("StudyDescription", "")
    name = [patient, series or study or unnamed, series_and_volume(image_id)[1]]
    detail = [_iso_date(facts.get("StudyDate", "")), facts.get("Modality", ""), study if series else ""]
    return " · ".join(filter(None, name)), " · ".join(filter(None, detail))


def _iso_date(dicom: str) -> str:
    return f"{dicom[:4]}-{dicom[4:6]}-{dicom[6:]}" if len(dicom) == 8 and dicom.isdecimal() else dicom
