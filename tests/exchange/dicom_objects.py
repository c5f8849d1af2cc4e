"""DICOM SEG, RTSTRUCT and SR of a series, as other programs write them; nothing here is of the code under test."""

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from skimage.measure import find_contours

from tests.physical import header_lps_mm

DEVICE = {
    "manufacturer": "Other",
    "manufacturer_model_name": "Other Viewer",
    "software_versions": "7",
    "device_serial_number": "1",
}


def segmentation(instances, masks, *, fractional=False, creator="Doe^Jane"):
    """Make a SEG of masks (slices, rows, columns) in the order of the instances, by the labels of their segments."""
    kind = "FRACTIONAL" if fractional else "BINARY"
    pixels = np.stack(list(masks.values()), axis=-1)
    return hd.seg.Segmentation(
        source_images=instances,
        pixel_array=pixels.astype(np.float32) if fractional else pixels.astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=label,
                segmented_property_category=codes.SCT.Tissue,
                segmented_property_type=codes.SCT.Tissue,
                algorithm_type="MANUAL",
            )
            for number, label in enumerate(masks, start=1)
        ],
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        content_creator_name=creator,
        **DEVICE,
    )


def structure_set(instances, contours):
    """Make an RTSTRUCT of closed contours, `{name: [(instance, (N, 2) rows and columns)]}`."""
    first = instances[0]
    dataset = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = RTStructureSetStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"):
        setattr(dataset, keyword, first.get(keyword, ""))
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"):
        setattr(dataset, keyword, "")
    dataset.Modality, dataset.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    dataset.StructureSetLabel, dataset.OperatorsName = "RT", "Roe^Richard"
    of_series, of_study, of_frame = Dataset(), Dataset(), Dataset()
    of_series.SeriesInstanceUID = first.SeriesInstanceUID
    of_study.RTReferencedSeriesSequence = [of_series]
    of_frame.FrameOfReferenceUID = first.FrameOfReferenceUID
    of_frame.RTReferencedStudySequence = [of_study]
    dataset.ReferencedFrameOfReferenceSequence = [of_frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, drawn) in enumerate(contours.items(), start=1):
        roi, of_roi = Dataset(), Dataset()
        roi.ROINumber = of_roi.ReferencedROINumber = number
        roi.ROIName, roi.ReferencedFrameOfReferenceUID = name, first.FrameOfReferenceUID
        of_roi.ContourSequence = [_contour(instance, points) for instance, points in drawn]
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(of_roi)
    return dataset


def _contour(instance, points):
    contour = Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
    lps_mm = [header_lps_mm(instance, row, column) for row, column in points]
    contour.ContourData = [f"{number:.6f}" for number in np.concatenate(lps_mm)]
    return contour


def outlines(instances, threshold=500):
    """Return contours half a pixel outside of the voxels above the threshold in each slice, as 3D Slicer does."""
    return [
        (instance, contour - 1)
        for instance in instances
        for contour in find_contours(np.pad(instance.pixel_array > threshold, 1).astype(float), 0.5)
    ]


def report(instances, groups, *, lines=False, on_images=False, kind="POINT"):
    """Make a TID 1500 report with a measurement group for each `(name, points)`.

    Args:
        groups: names with points (N, 3) in LPS mm; or, `on_images`, with `(instance, row, column)` each.
        lines: a length for each two points, instead of an item for each.
    """
    observer = hd.sr.PersonObserverIdentifyingAttributes(name="Poe^Anna")
    context = hd.sr.ObservationContext(
        observer_person_context=hd.sr.ObserverContext(codes.DCM.Person, observer),
    )
    measured = []
    for name, points in groups:
        length = hd.sr.Measurement(name=codes.SCT.Length, value=10.0, unit=codes.UCUM.Millimeter)
        group = hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(generate_uid(), name), measurements=[length]
        )
        number = next(item for item in group[0].ContentSequence if item.ValueType == "NUM")
        number.ContentSequence = hd.sr.ContentSequence(list(_coordinates(instances, points, lines, on_images, kind)))
        measured.append(group)
    content = hd.sr.MeasurementReport(
        observation_context=context,
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[item for item in measured],
        title=codes.DCM.ImagingMeasurementReport,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=instances,
        content=content,
        series_number=200,
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Other",
    )


def _coordinates(instances, points, lines, on_images, kind):
    purpose = Code("121055", "DCM", "Path")
    if on_images:
        for instance, row, column in points:
            item = hd.sr.ScoordContentItem(
                purpose, "POINT", np.array([[column + 0.5, row + 0.5]]), relationship_type="INFERRED FROM"
            )
            image = hd.sr.ImageContentItem(
                Code("121112", "DCM", "Source of Measurement"),
                instance.SOPClassUID,
                instance.SOPInstanceUID,
                relationship_type="SELECTED FROM",
            )
            item.ContentSequence = hd.sr.ContentSequence([image])
            yield item
        return
    pairs = np.reshape(points, (-1, 2, 3)) if lines else np.reshape(points, (-1, 1, 3))
    for pair in pairs:
        yield hd.sr.Scoord3DContentItem(
            purpose,
            "POLYLINE" if lines else kind,
            np.asarray(pair, dtype=float),
            instances[0].FrameOfReferenceUID,
            relationship_type="INFERRED FROM",
        )
