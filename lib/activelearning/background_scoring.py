"""Scores of the studies that are not annotated yet, computed anew after each publication."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fastapi import HTTPException
from monailabel.utils.async_tasks.utils import processes

from lib.activelearning.scores import UncertaintyScores
from lib.activelearning.scoring_process import InterruptedScoringError, ScoringError, ScoringProcess
from lib.infers.published_model import PublishedModel
from lib.networks.checkpoint import TrainedModel

logger = logging.getLogger(__name__)

MOST_SCANS = 200
"""Scans with a score at a time, by chance."""

POLL_S = 1.0
LOOK_AGAIN_S = 60.0


def training_runs() -> bool:
    """Does the server train at the moment?"""
    return bool(processes("train"))


class ScoredStudies(Protocol):
    """What scoring asks of the studies (`lib.server.studies.Studies`)."""

    def get_unlabeled_images(self) -> list[str]: ...

    def image_path(self, image_id: str) -> Path | None: ...


class BackgroundScoring:
    """Keeps the scores those of the published model.

    A publication is noticed within a second. Scans are taken by chance, so that scores of a part of them are fair. Of
    an archive only those are scored that were fetched for another reason. While a training runs nothing is scored,
    because its processor time is worth more: it makes the scores obsolete.

    Args:
        busy: whether to wait.
    """

    def __init__(
        self,
        model: PublishedModel,
        studies: ScoredStudies,
        scores: UncertaintyScores,
        busy: Callable[[], bool] = training_runs,
    ) -> None:
        self.model = model
        self.studies = studies
        self.scores = scores
        self.busy = busy
        self._unusable: set[tuple[int, str]] = set()

    def start(self) -> None:
        """Scores from now on, until the process ends."""
        threading.Thread(target=self._watch, name="scoring", daemon=True).start()

    def _watch(self) -> None:
        seen: TrainedModel | None = None
        look_again = 0.0
        while True:
            model = self.model.current()
            due = model is not seen or time.monotonic() >= look_again
            if model is not None and due and not self.busy():
                try:
                    seen = model if self.score(model) else None
                except Exception:  # the scores before stay usable, and a later look may succeed
                    logger.exception("Scans could not be scored.")
                    seen = model
                look_again = time.monotonic() + LOOK_AGAIN_S
            time.sleep(POLL_S)

    def score(self, model: TrainedModel) -> bool:
        """Scores what has no score of this model yet. False where it was interrupted and is to go on soon."""
        self.scores.begin(model.version)
        try:
            todo = self._todo(model.version)
        except HTTPException as error:  # an archive that has never answered; the next look asks again
            logger.warning("Nothing is scored. %s", error.detail)
            return True
        if not todo:
            return True
        logger.info("%d scans are scored with version %d of the model.", len(todo), model.version)
        with ScoringProcess(self.model.path, self.model.device) as process:
            for image_id in todo:
                try:
                    if not self._score_one(process, model, image_id):
                        return False
                except InterruptedScoringError:
                    return False
                except ScoringError as error:
                    logger.warning("%s is left without a score. %s", image_id, error)
                    self._unusable.add((model.version, image_id))
        logger.info("The scans have scores of version %d of the model.", model.version)
        return True

    def _todo(self, version: int) -> list[str]:
        # Of an archive only what is at hand: fetching the others would load it unasked and fill the disk.
        unannotated = [i for i in self.studies.get_unlabeled_images() if self.studies.image_path(i) is not None]
        scored = self.scores.scored(version).intersection(unannotated)
        todo = [i for i in unannotated if i not in scored and (version, i) not in self._unusable]
        random.shuffle(todo)
        return todo[: max(0, MOST_SCANS - len(scored))]

    def _score_one(self, process: ScoringProcess, model: TrainedModel, image_id: str) -> bool:
        """False where another model is published by now."""
        if self._interrupted(model):
            return False
        image_path = self.studies.image_path(image_id)
        if image_path is None:
            return True
        version, scores = process.score(image_path, lambda: self._interrupted(model))
        if version != model.version:
            return False
        self.scores.add(version, image_id, dict(zip(model.spec.labels, scores, strict=True)))
        return True

    def _interrupted(self, model: TrainedModel) -> bool:
        return self.busy() or self.model.current() is not model
