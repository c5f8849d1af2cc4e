"""List the studies to segment in advance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lib.annotations.image_identity import file_stamp
from lib.annotations.mask_file import MaskError
from lib.annotations.proposal import PROPOSAL_TAG, Proposal
from lib.networks.checkpoint import TrainedModel
from lib.server.masks.annotation_set import AnnotationSummary
from lib.server.studies.datastore import Studies
from lib.server.studies.study_list import StudyList, label_states, proposal_in


def pending_studies(studies: Studies, model: TrainedModel) -> list[str]:
    """Return the ids of images without a skip, a final mask of all labels, or a proposal to keep, sorted.

    A proposal is replaced if the model scored better on held-out scans than the model of the proposal, or if the file
    of the image has changed.
    """
    images, files = studies.list_images(), studies.local_images()
    summaries = StudyList(studies).summaries(None, images, budget_s=0)
    skipped = studies.skipped()
    return sorted(
        image_id
        for image_id in images
        if image_id not in skipped
        and not _is_final(studies.labels, summaries.get(image_id, {}))
        and needs_proposal(proposal_in(summaries.get(image_id, {})), model, files.get(image_id))
    )


def needs_proposal(stored: Proposal | None, model: TrainedModel, image: Path | None) -> bool:
    """Tell whether to make a proposal with the model, which replaces the stored one.

    Args:
        image: file of the image; None if it is not local.
    """
    if stored is None:
        return True
    is_of_other_file = None not in (stored.image_stamp, image) and stored.image_stamp != file_stamp(Path(str(image)))
    return is_of_other_file or stored.gives_way_to(str(model.sha256), model.score)


def is_settled(studies: Studies, image_id: str) -> bool:
    """Tell whether a study is skipped or has a final mask of all labels, without reading other studies."""
    if studies.skips.of(image_id) is not None:
        return True
    try:
        return set(studies.labels) <= set(studies.masks().record(image_id).labels)
    except FileNotFoundError:
        return False
    except MaskError:  # a damaged mask is not replaced
        return True


def stored_proposal(studies: Studies, image_id: str) -> Proposal | None:
    """Return the stored proposal of an image; None if it is missing or damaged."""
    record = studies.mask_record(image_id, PROPOSAL_TAG)
    return None if record is None else Proposal.of(record.info)


def _is_final(labels: Sequence[str], summaries: Mapping[str, Sequence[AnnotationSummary]]) -> bool:
    return set(label_states(labels, summaries).values()) <= {"final", "absent"}
