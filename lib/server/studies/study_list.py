"""List the studies with their states, as an annotator may see them."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import HTTPException

from lib.annotations.proposal import PROPOSAL_TAG, Proposal
from lib.server.masks.annotation_set import AnnotationSummary
from lib.server.project import CLICK_TAG, FINAL_TAG
from lib.server.studies.datastore import Studies

logger = logging.getLogger(__name__)

BUDGET_S = 0.05
"""Time that one list spends on reading headers and voxels of new files; the next list reads the rest."""

STATES = ("untouched", "clicked", "proposed", "final", "skipped", "unreadable")
"""States of a study. Untouched: it has no annotation. Final: each label is in a final mask or marked as absent.
Clicked: it has some annotations. Proposed: it only has a proposal."""

_SHOW_QUALITY = ("proposed", "clicked")


def label_states(labels: Sequence[str], summaries: Mapping[str, Sequence[AnnotationSummary]]) -> dict[str, str]:
    """Return the state of each label: `none`, `clicked`, `absent` or `final`.

    Args:
        summaries: annotations of an image, by tag (`AnnotationSet.summaries_by_image`).
    """
    final = {label for one in summaries.get(FINAL_TAG, ()) for label in one.labels}
    clicked = {label for one in summaries.get(CLICK_TAG, ()) for label in one.labels}
    absent = {label for one in summaries.get(CLICK_TAG, ()) for label in one.absent}
    return {
        label: "final" if label in final else "absent" if label in absent else "clicked" if label in clicked else "none"
        for label in labels
    }


def study_state(labels: Mapping[str, str], *, is_skipped: bool, is_readable: bool, is_proposed: bool = False) -> str:
    """Return the state of a study, one of `STATES`.

    Args:
        labels: state of each label (`label_states`).
    """
    if is_skipped:
        return "skipped"
    if set(labels.values()) <= {"final", "absent"}:
        return "final"
    if not is_readable:
        return "unreadable"
    if set(labels.values()) != {"none"}:
        return "clicked"
    return "proposed" if is_proposed else "untouched"


class StudyList:
    """List of a server's studies. No image is fetched for it."""

    def __init__(self, studies: Studies) -> None:
        self._studies = studies

    def entries(self, asker: str | None, budget_s: float = BUDGET_S) -> list[dict[str, Any]]:
        """Return a row for each study, sorted by name.

        Args:
            asker: name of the user. With several readers per study, the list shows the user's own readings and the
                decided studies; with None, only the decided ones.
            budget_s: see `BUDGET_S`.

        Raises:
            HTTPException: 502 or 503, the studies cannot be listed.
        """
        studies = self._studies
        images = studies.shown(time.monotonic() + budget_s)
        # Several readers of a study do not see each other's work.
        skips, lent = studies.skips.all(), studies.leases.lent() if studies.readings.people == 1 else {}
        summaries = self.summaries(asker, list(images), budget_s)
        entries = []
        for image_id, shown in images.items():
            labels = label_states(studies.labels, summaries.get(image_id, {}))
            skip = skips.get(image_id)
            proposal = proposal_in(summaries.get(image_id, {}))
            state = study_state(
                labels,
                is_skipped=skip is not None,
                is_readable=shown.problem is None,
                is_proposed=proposal is not None,
            )
            newest = _newest(summaries.get(image_id, {}))
            others = {who: age for who, age in lent.get(image_id, {}).items() if who != asker}
            entries.append(
                {
                    "id": image_id,
                    "name": shown.name,
                    "detail": shown.detail,
                    "state": state,
                    "labels": labels,
                    "annotator": (newest.annotator or None) if newest is not None else None,
                    "created": (newest.created or None) if newest is not None else None,
                    "working": min(others, key=others.__getitem__) if others and state != "final" else None,
                    "skip": skip,
                    "quality": proposal.quality if proposal is not None and state in _SHOW_QUALITY else None,
                    "problem": shown.problem,
                }
            )
        return sorted(entries, key=lambda entry: (entry["name"], entry["id"]))

    def read_ahead(self) -> None:
        """Read all headers and annotations, so that the first list is quick."""
        try:
            self.summaries(None, list(self._studies.shown(until=math.inf)), budget_s=0)
        except HTTPException as error:  # the folder or archive cannot be read
            logger.warning("The list of studies is not prepared. %s", error.detail)

    def summaries(
        self, asker: str | None, images: Sequence[str], budget_s: float = BUDGET_S
    ) -> dict[str, dict[str, list[AnnotationSummary]]]:
        """Return summaries of the annotations that a user may see (`Readings.seen_by`), by image and tag."""
        studies, readings = self._studies, self._studies.readings
        shared = studies.summaries_by_image(images, budget_s)
        if readings.people == 1 or asker is None:
            return shared
        decided = studies.decided(images)
        undecided = [image_id for image_id in images if image_id not in decided]
        own = readings.of(asker).summaries_by_image(undecided, budget_s)
        seen = own | {image_id: shared[image_id] for image_id in decided if image_id in shared}
        for image_id in undecided:  # proposals belong to no reader
            if proposals := shared.get(image_id, {}).get(PROPOSAL_TAG):
                seen[image_id] = {**seen.get(image_id, {}), PROPOSAL_TAG: proposals}
        return seen


def counts(entries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count all studies, and those in each state."""
    found = Counter(entry["state"] for entry in entries)
    return {"total": len(entries), **{state: found[state] for state in STATES}}


def proposal_in(summaries: Mapping[str, Sequence[AnnotationSummary]]) -> Proposal | None:
    """Return the proposal of an image; None if it has none."""
    return next((one.proposal for one in summaries.get(PROPOSAL_TAG, ()) if one.proposal is not None), None)


def _newest(summaries: Mapping[str, Sequence[AnnotationSummary]]) -> AnnotationSummary | None:

    of_all = [one for tag in (CLICK_TAG, FINAL_TAG) for one in summaries.get(tag, ())]
    return max(of_all, key=lambda one: one.created, default=None)
