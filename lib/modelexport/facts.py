"""Describe an exported model: version, labels, preprocessing, training and annotators."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lib.annotations.mask_file import MaskError, MaskRecord, named_record
from lib.annotations.mask_origin import acceptances
from lib.annotations.mask_store import MaskStore
from lib.annotations.moments import moment_of
from lib.annotations.names import label_values
from lib.annotations.store import AnnotationFileError, AnnotationStore
from lib.data.grid import CLIPPED_PERCENTILES
from lib.exchange.seg_provenance import MANUFACTURER, VERSION
from lib.exchange.segment_origin import NOBODY
from lib.networks.checkpoint import TrainedModel
from lib.training.record import TrainingRecord, TrainingRun

logger = logging.getLogger(__name__)

NORMALISATION = (
    "axes towards right, anterior, superior; smoothed along axes whose voxels become larger, and resampled linearly "
    f"to spacing_mm; clipped to the percentiles {CLIPPED_PERCENTILES[0]} and {CLIPPED_PERCENTILES[1]}; mean 0 and "
    "standard deviation 1 of the whole image; rounded to 16-bit floats"
)
"""Description of `lib.data.grid.network_image`."""

_DECISION = "decision"
"""Key in `MaskRecord.info` of the reading that a reviewer chose (`lib.server.review.readings.DECISION_KEY`)."""


@dataclass(frozen=True)
class ModelFacts:
    """Version of a model, and the record of its training.

    Attributes:
        run: the training that published it; None if it is not in the record, such as for a model of another project.
        annotators: annotators of its training studies before that training began; None if unknown.
    """

    model: TrainedModel
    run: TrainingRun | None
    annotators: tuple[str, ...] | None

    @classmethod
    def of(cls, model: TrainedModel, record: TrainingRecord, clicks: AnnotationStore, masks: MaskStore) -> ModelFacts:
        """Create from the records of a project."""
        run = next((run for run in record.runs if run.version == model.version), None)
        if run is None:
            return cls(model, None, None)
        names = annotators(record.trained_on, moment_of(run.started), clicks, masks)
        return cls(model, run, tuple(sorted(names)))

    @property
    def _training(self) -> dict[str, Any]:
        """The training, in values of JSON, without names of studies."""
        run = self.run
        return {
            "ended": run and run.ended,
            "iterations": run and run.iterations,
            "studies": run and run.scans,
            "annotators": None if self.annotators is None else list(self.annotators),
            "score": self.model.score,
            "score_is": "in [0, 1]: the mean Dice with accepted masks, or without one how well the clicks fit",
            "score_of": run and {"studies": run.judged_on[0], "kind": run.judged_on[1]},
        }

    def as_json(self) -> dict[str, Any]:
        """Return all facts, in values of JSON."""
        model, spec = self.model, self.model.spec
        return {
            "software": {"name": MANUFACTURER, "version": VERSION},
            "model": {"version": model.version, "sha256": model.sha256, "predecessors": list(model.predecessors)},
            "network": {"architecture": spec.architecture, "arguments": spec.arguments},
            "labels": label_values(spec.labels),
            "spacing_mm": list(spec.spacing_mm),
            "window_voxels": list(spec.roi_size),
            "normalisation": NORMALISATION,
            "crf": model.crf,
            "training": self._training,
        }


def annotators(images: Iterable[str], until: datetime, clicks: AnnotationStore, masks: MaskStore) -> set[str]:
    """Return who annotated images before a moment, by the stored annotations and their history."""
    files = clicks.paths_by_image()
    annotated = [
        (name, created)
        for image in images
        for name, created in (*_click_annotators(clicks, files.get(image, [])), *_mask_annotators(masks, image))
    ]
    return {name for name, created in annotated if name not in ("", NOBODY) and moment_of(created) <= until}


def _click_annotators(clicks: AnnotationStore, paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for path in paths:
        try:
            answer = clicks.load_file(path)
            yield answer.annotator, answer.created
            for earlier in clicks.history(answer.image_id, answer.label):
                if isinstance(earlier, dict):
                    yield str(earlier.get("annotator", "")), str(earlier.get("created", ""))
        except (AnnotationFileError, OSError, ValueError) as error:
            logger.warning("The annotators of %s are unknown (%s).", path.name, error)


def _mask_annotators(masks: MaskStore, image: str) -> Iterator[tuple[str, str]]:
    earlier = masks.history_folder(image)
    for path in [*masks.files(image), *(earlier.iterdir() if earlier.is_dir() else [])]:
        try:
            record = named_record(path)
        except MaskError as error:
            logger.warning("The annotators of %s are unknown (%s).", path.name, error)
            continue
        if record is not None:
            yield from ((name, record.created) for name in _names_in(record))


def _names_in(record: MaskRecord) -> set[str]:
    """Return the names in the record of a mask: who submitted it, annotators of accepted labels, the chosen reader."""
    decision = (record.info or {}).get(_DECISION)
    decided = [decision.get("reader")] if isinstance(decision, dict) else []
    accepted = [acceptance.get("annotator") for acceptance in acceptances(record).values()]
    return {str(name) for name in (record.annotator, *accepted, *decided) if name}
