"""Describe one study for the annotation page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from lib.annotations.mask_origin import origins
from lib.annotations.proposal import PROPOSAL_TAG, Proposal
from lib.annotations.store import Absence, AnnotationFileError, Answer
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import read_geometry
from lib.server.masks.annotation_set import AnnotationSet, AnnotationSummary
from lib.server.project import CLICK_TAG, FINAL_TAG
from lib.server.studies.datastore import Studies
from lib.server.studies.study_list import label_states, proposal_in, study_state


def study_details(studies: Studies, image_id: str, image_path: Path, asker: str | None) -> dict[str, Any]:
    """Return geometry, clicks and masks of a study that a user may see.

    Args:
        image_path: file of the image `image_id`.
        asker: name of the user.

    Raises:
        HTTPException: 404, no such image.
        VolumeError: the image cannot be read.
    """
    studies.require_image(image_id)
    geometry = read_geometry(image_path)
    seen = studies.readings.seen_by(asker, image_id)
    summaries = seen.summaries_by_image([image_id]).get(image_id, {})
    states = label_states(studies.labels, summaries)
    proposal = proposal_in(studies.summaries_by_image([image_id]).get(image_id, {}))
    skip = studies.skips.of(image_id)
    version = studies.views.version(image_path)
    state = study_state(states, is_skipped=skip is not None, is_readable=True, is_proposed=proposal is not None)
    return {
        "id": image_id,
        "name": studies.shown()[image_id].name,
        "state": state,
        "geometry": {
            "shape": list(geometry.shape),
            "spacing_mm": list(geometry.spacing_mm),
            "affine": geometry.affine_ras.tolist(),
        },
        "volume": {
            "url": f"/studies/{quote(image_id, safe='')}/volume?v={version}",
            "bytes": studies.views.known_bytes(image_id, image_path),
        },
        "labels": {
            label: {"state": state, **_answer(seen, image_id, label, geometry, summaries.get(CLICK_TAG, ()))}
            for label, state in states.items()
        },
        "final": _final(seen, image_id) if FINAL_TAG in summaries else None,
        "proposal": None if proposal is None or state == "final" else _proposal(studies, image_id, proposal),
        "skip": skip,
    }


def _answer(
    annotations: AnnotationSet,
    image_id: str,
    label: str,
    geometry: ImageGeometry,
    summaries: Sequence[AnnotationSummary],
) -> dict[str, Any]:
    """Return who answered a label, when, and with which clicks."""
    nothing = {"annotator": None, "created": None, "clicks": None, "extremes": None}
    if not any(label in one.labels for one in summaries):  # no answer, or one for another image of this name
        return nothing
    try:
        answer: Answer = annotations.clicks.load(image_id, label)
    except (FileNotFoundError, AnnotationFileError):
        return nothing
    who = {"annotator": answer.annotator, "created": answer.created}
    if isinstance(answer, Absence) or not answer.geometry.is_close(geometry):
        return {**nothing, **who}
    points = answer.points
    clicks = {
        "foreground_voxel": points.foreground_voxel.tolist(),
        "background_voxel": points.background_voxel.tolist(),
    }
    ends: Mapping[str, list[int]] = {
        geometry.end_names[axis][end]: points.extremes_voxel[axis, end].tolist() for axis in range(3) for end in (0, 1)
    }
    return {**who, "clicks": clicks, "extremes": ends}


def _final(annotations: AnnotationSet, image_id: str) -> dict[str, Any] | None:
    record = annotations.mask_record(image_id)
    if record is None:
        return None
    return {
        "annotator": record.annotator,
        "created": record.created,
        "labels": [label for label in annotations.labels if label in record.labels],
        "origin": {label: str(origin) for label, origin in origins(record).items()},
        "url": f"/datastore/label?{urlencode({'label': image_id, 'tag': FINAL_TAG})}",
    }


def _proposal(studies: Studies, image_id: str, proposal: Proposal) -> dict[str, Any] | None:
    """Return the proposal of a study, an automatic mask that nobody has reviewed."""
    record = studies.mask_record(image_id, PROPOSAL_TAG)
    if record is None:
        return None
    return {
        "model_version": proposal.model_version,
        "model_sha256": proposal.model_sha256,
        "created": record.created,
        "labels": [label for label in studies.labels if label in record.labels],
        "quality": proposal.quality,
        "unreviewed": True,
        "url": f"/datastore/label?{urlencode({'label': image_id, 'tag': PROPOSAL_TAG})}",
    }
