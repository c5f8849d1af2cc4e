"""Describe the provenance of a DICOM segmentation: algorithms, readers and equipment."""

from __future__ import annotations

import re
from collections.abc import Iterable

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from matplotlib import colormaps
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid
from skimage.color import rgb2lab

from lib import __version__
from lib.exchange.property_codes import category
from lib.exchange.segment_origin import SegmentOrigin

MANUFACTURER, MODEL_NAME, VERSION, SERIAL_NUMBER = "InExtremIS", "InExtremIS for MONAI Label", __version__, "1"
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
ACQUISITION = Code("109101", "DCM", "Acquisition Equipment")
PROCESSING = Code("109102", "DCM", "Processing Equipment")
PALETTE = colormaps["tab10"].colors  # type: ignore[attr-defined]
EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")


def segment(
    number: int, label: str, index: int, code: Code, origin: SegmentOrigin, series_uid: str
) -> hd.seg.SegmentDescription:
    """Describe a segment with its provenance.

    The tracking UID is the same for all segments of this label in this series, in any file.

    Args:
        number: of the segment, from 1.
        index: of the label in the app, which determines the colour in all studies.
    """
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=category(code),
        segmented_property_type=code,
        algorithm_type=origin.algorithm_type,
        algorithm_identification=None if origin.algorithm_type == "MANUAL" else _algorithm(origin),
        tracking_id=label,
        tracking_uid=generate_uid(entropy_srcs=["tracking", series_uid, label]),
    )
    if origin.reader:
        description.SegmentDescription = f"Reader: {_one_line(origin.reader)}"
    red_green_blue = np.array(PALETTE[(index - 1) % len(PALETTE)])
    description.RecommendedDisplayCIELabValue = list(CIELabColor(*rgb2lab(red_green_blue)).value)
    return description


def _algorithm(origin: SegmentOrigin) -> hd.AlgorithmIdentificationSequence:
    model = origin.model
    parameters = {} if model is None else {"model_version": str(model.version), "model_sha256": model.sha256 or ""}
    return hd.AlgorithmIdentificationSequence(
        name=MANUFACTURER,
        family=ARTIFICIAL_INTELLIGENCE,
        version="no model" if model is None else f"model {model.version}",
        source=MANUFACTURER,
        parameters={name: value for name, value in parameters.items() if value} or None,
    )


def readers(origins: Iterable[SegmentOrigin]) -> list[str]:
    """Return the distinct readers as person names (DICOM PS3.5 6.2)."""
    return list(dict.fromkeys(_person_name(origin.reader) for origin in origins if origin.reader))


def _person_name(name: str) -> str:
    """Return a name of one part with a caret, which distinguishes it from the retired form."""
    return _one_line(name)[:63] + "^"


def _one_line(name: str) -> str:
    return re.sub(r"[\\=^\x00-\x1f\x7f]", " ", name)


def equipment(source: Dataset, operators: list[str]) -> list[Dataset]:
    """Return the contributing equipment (DICOM PS3.3 C.12.1.5): this app, and the scanner if the series names it.

    Args:
        source: the clean header of an image of the series.
        operators: see `readers`.
    """
    app = Dataset()
    app.Manufacturer, app.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    app.DeviceSerialNumber, app.SoftwareVersions = SERIAL_NUMBER, VERSION
    app.ContributionDescription = "Segmentation by extreme points"
    if operators:
        app.OperatorsName = operators
    scanner = Dataset()
    for keyword in EQUIPMENT:
        if source.get(keyword):
            setattr(scanner, keyword, source.get(keyword))
    purposes = {ACQUISITION: scanner, PROCESSING: app}
    for purpose, item in purposes.items():
        item.PurposeOfReferenceCodeSequence = [
            hd.sr.CodedConcept(purpose.value, purpose.scheme_designator, purpose.meaning)
        ]
    return [item for item in purposes.values() if "Manufacturer" in item]
