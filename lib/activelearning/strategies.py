"""Choose among the studies that are not annotated."""

from __future__ import annotations

import logging
import math
import random
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from fastapi import HTTPException
from monailabel.interfaces.tasks.strategy import Strategy

from lib.activelearning.leases import Leases
from lib.infers.requests import annotator_of

REVIEW = "review"

logger = logging.getLogger(__name__)


class OfferedStudies(Protocol):
    """The part of the studies that strategies use (`lib.server.studies.datastore.Studies`)."""

    def get_unlabeled_images(self) -> list[str]: ...

    def refusal(self, image_id: str) -> str | None: ...

    def get_image_uri(self, image_id: str) -> str: ...

    def read_by(self) -> Mapping[str, Collection[str]]: ...


class UnannotatedStrategy(Strategy):
    """Strategy that offers a study that is not annotated and can be opened.

    A study on lease is offered again only if no other is left. With several readers per study, see `Leases.take`.

    Args:
        leases: shared by all strategies.
    """

    def __init__(self, description: str, leases: Leases) -> None:
        super().__init__(description)
        self.leases = leases
        self._refused: dict[str, str] = {}

    def __call__(self, request: Mapping[str, Any], datastore: OfferedStudies) -> dict[str, Any] | None:
        """Return a study as {"id": ...}, or None if none is left for the annotator of the request."""
        left = datastore.get_unlabeled_images()
        tried: set[str] = set()
        done = datastore.read_by()
        while left:
            image_id = self.leases.take(left, annotator_of(request), self.order, done)
            if image_id is None:
                return None
            # Images that are not volumes would be refused at the first click.
            known = datastore.refusal(image_id)
            refusal = known or _opening_error(image_id, datastore)
            if refusal is None:
                return {"id": image_id}
            if self._refused.get(image_id) != refusal:
                self._refused[image_id] = refusal
                logger.warning("%s is not offered. %s", image_id, refusal)
            tried.add(image_id)
            left.remove(image_id)
            if known is None:  # opening may have shown that a series contains several images
                left = [image for image in datastore.get_unlabeled_images() if image not in tried]
        return None

    @abstractmethod
    def order(self, image_ids: list[str], seconds_ago: Mapping[str, float]) -> list[str]:
        """Sort studies in the order in which they are offered.

        Args:
            seconds_ago: positive seconds since each was offered; since 1970 if it never was.
        """


def _opening_error(image_id: str, datastore: OfferedStudies) -> str | None:
    try:
        datastore.get_image_uri(image_id)
    except HTTPException as error:
        return str(error.detail)
    return None


class First(UnannotatedStrategy):
    """Strategy that offers studies in the order of their names."""

    def __init__(self, leases: Leases) -> None:
        super().__init__("The first study by name that is not annotated", leases)

    def order(self, image_ids: list[str], seconds_ago: Mapping[str, float]) -> list[str]:
        return sorted(image_ids)


class Random(UnannotatedStrategy):
    """Strategy that offers studies at random; recently offered studies are less likely."""

    def __init__(self, leases: Leases) -> None:
        super().__init__("A random study that is not annotated", leases)

    def order(self, image_ids: list[str], seconds_ago: Mapping[str, float]) -> list[str]:
        # A weighted draw without replacement (Efraimidis and Spirakis, 2006).
        keys = {image_id: random.random() ** (1 / seconds_ago[image_id]) for image_id in image_ids}
        return sorted(image_ids, key=keys.__getitem__, reverse=True)


class WorstProposal(UnannotatedStrategy):
    """Strategy that offers the study with the worst estimated proposal, then those without one, by name.

    Args:
        qualities: returns the estimated quality of each proposal, by image id.
    """

    def __init__(self, leases: Leases, qualities: Callable[[], Mapping[str, float]]) -> None:
        super().__init__("The study whose proposed mask is probably the worst", leases)
        self.qualities = qualities

    def order(self, image_ids: list[str], seconds_ago: Mapping[str, float]) -> list[str]:
        quality = self.qualities()
        return sorted(image_ids, key=lambda image_id: (quality.get(image_id, math.inf), image_id))


class Reviews(Protocol):
    """The part of the reviews that the strategy for reviewers uses (`lib.server.review.decisions.Review`)."""

    def to_decide(self, reviewer: str) -> list[str]: ...


class MostDisagreement(Strategy):
    """Strategy for reviewers that offers the study whose readings disagree most, without a lease of another reviewer.

    Args:
        leases: of reviewers.
    """

    def __init__(self, review: Reviews, leases: Leases) -> None:
        super().__init__("For reviewers: the study whose readers disagree most")
        self.review = review
        self.leases = leases

    def __call__(self, request: Mapping[str, Any], datastore: object) -> dict[str, Any] | None:
        """Return a study as {"id": ...}, or None if none is left for the reviewer of the request."""
        who = annotator_of(request)
        left = self.review.to_decide(who)
        image_id = self.leases.take(left, who, lambda ids, ages: ids) if left else None
        return None if image_id is None else {"id": image_id}


def strategies(leases: Leases, qualities: Callable[[], Mapping[str, float]] = dict) -> dict[str, Strategy]:
    """Make the strategies, by the names that viewers show; OHIF selects "random" first.

    Args:
        qualities: see `WorstProposal`.
    """
    return {"random": Random(leases), "first": First(leases), "worst proposal": WorstProposal(leases, qualities)}


def require_strategy(name: Any, known: Mapping[str, object]) -> None:
    """Raise HTTPException 404 if there is no such strategy."""
    if not isinstance(name, str) or name not in known:
        raise HTTPException(404, f"There is no strategy {name!r}; this app has {', '.join(known)}.")
