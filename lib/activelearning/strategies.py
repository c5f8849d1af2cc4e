"""Strategies over the studies that are not annotated yet."""

from __future__ import annotations

import logging
import random
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

logger = logging.getLogger(__name__)


class UnannotatedStrategy(Strategy):
    """Offers a study without clicks and without a final mask, one that can be opened."""

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """A study as {"id": ...}, or None where there is none left."""
        for image_id in self.order(datastore.get_unlabeled_images(), request, datastore):
            try:
                datastore.get_image_uri(image_id)
            except HTTPException as error:
                # A series that is no volume would be refused at the first click.
                logger.warning("%s is not offered. %s", image_id, error.detail)
            else:
                return {"id": image_id}
        return None

    @abstractmethod
    def order(self, image_ids: list[str], request: Mapping[str, Any], datastore: Datastore) -> list[str]:
        """The studies in the order in which they are offered."""


class First(UnannotatedStrategy):
    """By name."""

    def __init__(self) -> None:
        super().__init__("The first study, by name, that is not annotated")

    def order(self, image_ids: list[str], request: Mapping[str, Any], datastore: Datastore) -> list[str]:
        return sorted(image_ids)


class Random(UnannotatedStrategy):
    """By chance, so that several annotators seldom get the same study."""

    def __init__(self) -> None:
        super().__init__("A study by chance that is not annotated, seldom one that was offered a short while ago")

    def order(self, image_ids: list[str], request: Mapping[str, Any], datastore: Datastore) -> list[str]:
        # A weighted draw without replacement (Efraimidis and Spirakis, 2006).
        keys = {
            image_id: random.random() ** (1 / self._seconds_ago(image_id, request, datastore)) for image_id in image_ids
        }
        return sorted(image_ids, key=keys.__getitem__, reverse=True)

    @staticmethod
    def _seconds_ago(image_id: str, request: Mapping[str, Any], datastore: Datastore) -> float:
        """Since MONAI Label noted that this strategy offered the study; since 1970 where it never did."""
        offered = datastore.get_image_info(image_id).get("strategy", {}).get(request.get("strategy"), {})
        return max(1.0, time.time() - offered.get("ts", 0))


def strategies() -> dict[str, Strategy]:
    """By the names that viewers show; OHIF begins with "random"."""
    return {"random": Random(), "first": First()}
