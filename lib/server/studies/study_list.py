"""List the studies with their states, as one annotator may see them."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import HTTPException

from lib.annotations.proposal import PROPOSAL_TAG, Proposal
from lib.server.masks.annotation_set import Said
from lib.server.project import CLICK_TAG, FINAL_TAG
from lib.server.studies.datastore import Studies

logger = logging.getLogger(__name__)

BUDGET_S = 0.05
"""Time that one list spends on files that were not read yet, their headers and then their voxels; the next goes on."""

STATES = ("untouched", "clicked", "proposed", "final", "skipped", "unreadable")
"""Of a study. Untouched: nothing is stored of it. Final: each label is in a final mask, or said not to be in the image.
Clicked: something is stored. Proposed: nothing but a mask that the network made in advance."""


_SHOW_QUALITY = ("proposed", "clicked")


def label_states(labels: Sequence[str], said: Mapping[str, Sequence[Said]]) -> dict[str, str]:
    """What is stored of each label: `none`, `clicked`, `absent` or `final`.

    Args:
        said: of one image, by tag (`AnnotationSet.said_of_images`).
    """
    final = {label for one in said.get(FINAL_TAG, ()) for label in one.labels}
    clicked = {label for one in said.get(CLICK_TAG, ()) for label in one.labels}
    absent = {label for one in said.get(CLICK_TAG, ()) for label in one.absent}
    return {
        label: "final" if label in final else "absent" if label in absent else "clicked" if label in clicked else "none"
        for label in labels
    }


def study_state(labels: Mapping[str, str], *, is_skipped: bool, is_readable: bool, is_proposed: bool = False) -> str:
    """One of `STATES`.

    Args:
        labels: their states (`label_states`).
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
    """The studies of a server. Nothing is fetched for it."""

    def __init__(self, studies: Studies) -> None:
        self._studies = studies

    def entries(self, asker: str | None, budget_s: float = BUDGET_S) -> list[dict[str, Any]]:
        """Every study, by name.

        Args:
            asker: who sees it. Where several people read each study, it is their own reading and what is decided;
                None sees what is decided.
            budget_s: see `BUDGET_S`.

        Raises:
            HTTPException: 502, 503: the studies cannot be listed.
        """
        studies = self._studies
        images = studies.shown(time.monotonic() + budget_s)
        # Where several people read each study, none sees what another does.
        skips, lent = studies.skips.all(), studies.leases.lent() if studies.readings.people == 1 else {}
        said = self.said(asker, list(images), budget_s)
        entries = []
        for image_id, shown in images.items():
            labels = label_states(studies.labels, said.get(image_id, {}))
            skip = skips.get(image_id)
            proposal = proposal_in(said.get(image_id, {}))
            state = study_state(
                labels,
                is_skipped=skip is not None,
                is_readable=shown.problem is None,
                is_proposed=proposal is not None,
            )
            newest = _newest(said.get(image_id, {}))
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
        """Reads the headers and the annotations that lists are made of, so that the first list is quick."""
        try:
            self.said(None, list(self._studies.shown(until=math.inf)), budget_s=0)
        except HTTPException as error:  # a folder or an archive that is away
            logger.warning("The list of studies is not prepared. %s", error.detail)

    def said(
        self, asker: str | None, images: Sequence[str], budget_s: float = BUDGET_S
    ) -> dict[str, dict[str, list[Said]]]:
        """What somebody may see of what is stored of images (`Readings.seen_by`)."""
        studies, readings = self._studies, self._studies.readings
        shared = studies.said_of_images(images, budget_s)
        if readings.people == 1 or asker is None:
            return shared
        decided = studies.decided(images)
        undecided = [image_id for image_id in images if image_id not in decided]
        own = readings.of(asker).said_of_images(undecided, budget_s)
        seen = own | {image_id: shared[image_id] for image_id in decided if image_id in shared}
        for image_id in undecided:  # what the network proposes is nobody's reading
            if proposals := shared.get(image_id, {}).get(PROPOSAL_TAG):
                seen[image_id] = {**seen.get(image_id, {}), PROPOSAL_TAG: proposals}
        return seen


def counts(entries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many studies there are, and how many in each state."""
    found = Counter(entry["state"] for entry in entries)
    return {"total": len(entries), **{state: found[state] for state in STATES}}


def proposal_in(said: Mapping[str, Sequence[Said]]) -> Proposal | None:
    """That among what is said of an image, if there is one."""
    return next((one.proposal for one in said.get(PROPOSAL_TAG, ()) if one.proposal is not None), None)


def _newest(said: Mapping[str, Sequence[Said]]) -> Said | None:
    """What was stored last of a study."""
    of_all = [one for tag in (CLICK_TAG, FINAL_TAG) for one in said.get(tag, ())]
    return max(of_all, key=lambda one: one.created, default=None)
