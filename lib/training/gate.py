"""Decide whether to publish a candidate."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from lib.annotations.atomic_write import write_atomically
from lib.annotations.mask_origin import MaskOrigin
from lib.data.annotated_scan import AnnotatedScan
from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.volume import VolumeError
from lib.inference.prediction import BrokenModelError
from lib.networks.checkpoint import CheckpointError, TrainedModel, load_checkpoint
from lib.networks.versions import ModelVersions
from lib.training.crf_choice import crf_helps
from lib.training.scan_score import NAME, scan_score

logger = logging.getLogger(__name__)

TOLERANCE = 0.01
"""Amount by which a candidate's score may be below that of the best kept version: differences on a few scans are larger
by chance."""

COLLAPSED = 0.5
"""A candidate has collapsed if its score on its training scans is below this share of that of the published model."""

MAX_SCANS = 16
"""Maximum number of held-out scans to score on, which limits the time."""

TRAINING_SCANS = 5
"""Number of training scans to score on if no scan is held out: a collapse shows on a few."""

HELD_OUT, TRAINING = "held-out", "training"

Scores = Mapping[str, float]
"""Scores in [0, 1] by a key of the scan and its annotations."""


@dataclass(frozen=True)
class Verdict:
    """Decision to publish a candidate or not, with its reason.

    Attributes:
        judged_on, score, published_score: as in `TrainingRun`.
        best_version: the kept version with the highest score, or None if none was scored.
        scores: scores of the candidate.
        rolled_back: the base was rolled back during the training: the candidate is kept as a version, not published.
    """

    publish: bool
    judged_on: tuple[int, str]
    score: float | None
    published_score: float | None
    best_version: int | None = None
    scores: Scores = field(default_factory=dict)
    rolled_back: bool = False

    @property
    def is_best(self) -> bool:
        """True if no kept version has a higher score."""
        return self.score is None or self.published_score is None or self.score >= self.published_score

    @property
    def reason(self) -> str:
        """Sentence for users that explains the decision."""
        if self.rolled_back:
            return "Another version was published while it was trained, so that it is kept as a version only."
        count, kind = self.judged_on
        if self.score is None:
            return "None of the scans to judge it on can be read; the log says why."
        scans = f"{count} {kind} scan{'s' if count != 1 else ''}"
        if self.published_score is None:
            return f"Its score on {scans} is {self.score:.2f}; there is no earlier model to compare with."
        before = "the best kept version's" if kind == HELD_OUT else "the published model's"
        if self.publish:
            return f"Its score on {scans} is {self.score:.2f}; {before} is {self.published_score:.2f}."
        return f"Its score on {scans} is {self.score:.2f}, too far below {before}, which is {self.published_score:.2f}."


class PublishGate:
    """Score networks on held-out scans, and compare a candidate with the best kept version.

    A held-out scan with an accepted mask is scored by Dice, one with clicks by its click score
    (`lib.training.scan_score`). If no scan is held out, some training scans are scored. This only detects a network
    that has collapsed; such a score is not stored with the model.

    Scans with a drawn or corrected mask are used first, then scans with a mask that was accepted unchanged, then scans
    with clicks: a model must not be confirmed by masks of its own.

    Args:
        held_out: scans that no kept version was trained on.
        trained_on: scans of this training.
        labels: labels of the app; versions with other labels are not compared.
        margin: voxels by which tight boxes are relaxed.
    """

    def __init__(
        self,
        held_out: Sequence[AnnotatedScan],
        trained_on: Sequence[AnnotatedScan],
        labels: tuple[str, ...],
        versions: ModelVersions,
        prepared: PreparedScans,
        margin: int,
        device: torch.device,
    ) -> None:
        self.is_held_out = bool(held_out)
        self.labels = labels
        self.versions = versions
        self.prepared = prepared
        self.margin = margin
        self.device = device
        scans = sorted(held_out or trained_on, key=lambda scan: (_rank(scan), self._key(scan)))
        self.scans = scans[: MAX_SCANS if held_out else TRAINING_SCANS]
        self._cache = ScoreCache(versions.folder / "scores.json")

    def kept_scores(self) -> dict[int, Scores]:
        """Return the scores of the versions to compare with.

        These are the published version and, with held-out scans, the kept versions that led to it; not a version
        that was rolled back. Each version is scored once on each scan; the scores are stored in a file.
        """
        published = self.versions.published_number()
        kept = self.versions.led_to_published() if self.is_held_out else []
        scores = {number: self._scores_of_version(number) for number in sorted({*kept, published} - {0})}
        return {number: of for number, of in scores.items() if of is not None}

    def judge(self, candidate: TrainedModel, kept: Mapping[int, Scores]) -> Verdict:
        """Compare a candidate with kept versions.

        Without a published network, any candidate is published. With one, a candidate without a score is not.
        """
        scores = self._of_scans(candidate, self.scans)
        common = set(scores).intersection(*kept.values())
        judged_on = (len(common), HELD_OUT if self.is_held_out else TRAINING)
        score = _mean(scores, common)
        if not kept or not self.versions.published_number():
            return Verdict(True, judged_on, score, None, scores=scores)
        if score is None:
            return Verdict(False, judged_on, None, None, scores=scores)
        means = {number: float(np.mean([of[key] for key in common])) for number, of in kept.items()}
        best = max(means, key=lambda number: (means[number], number))
        least = means[best] - TOLERANCE if self.is_held_out else COLLAPSED * means[best]
        return Verdict(score >= least, judged_on, score, means[best], best, scores)

    def crf_helps(self, candidate: TrainedModel) -> bool:
        """Tell whether the dense CRF improves the candidate's automatic masks, on held-out scans only."""
        volumes = ScanVolumes(self.prepared, candidate.spec.spacing_mm)
        return crf_helps(candidate, self.scans if self.is_held_out else [], volumes, self.device)

    def store_scores(self, version: int, scores: Scores) -> None:
        """Store the scores of a version for the next comparison."""
        self._cache.put(version, scores, self.versions.numbers())

    def _scores_of_version(self, number: int) -> Scores | None:
        """Return the scores of a version, or None if it cannot be compared."""
        keys = {self._key(scan) for scan in self.scans}
        known = self._cache.get(number)
        missing = [scan for scan in self.scans if self._key(scan) not in known]
        if missing:
            model = self._version(number)
            if model is None:
                return None
            known = known | self._of_scans(model, missing)
            self.store_scores(number, known)
        return {key: score for key, score in known.items() if key in keys}

    def _version(self, number: int) -> TrainedModel | None:
        kept = self.versions.path(number)
        try:
            model = load_checkpoint(kept if kept.exists() else self.versions.published_path, self.device)
        except (CheckpointError, FileNotFoundError) as error:
            logger.warning("%s It is not compared with.", error)
            return None
        return model if (model.version, model.spec.labels) == (number, self.labels) else None

    def _of_scans(self, model: TrainedModel, scans: Sequence[AnnotatedScan]) -> dict[str, float]:
        volumes = ScanVolumes(self.prepared, model.spec.spacing_mm)
        scores = {}
        for scan in scans:
            try:
                scores[self._key(scan)] = scan_score(model, scan, volumes, self.margin, self.device)
            except VolumeError as error:
                logger.warning("The scan %s is left out of the comparison. %s", scan.image_id, error)
            except BrokenModelError as error:
                logger.warning("%s", error)
                scores[self._key(scan)] = 0.0
        return scores

    def _key(self, scan: AnnotatedScan) -> str:
        """Identify a scan with its annotations: a changed annotation changes the score."""
        parts = [NAME, str(self.margin), str(self.labels), scan.digest]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class ScoreCache:
    """Scores of kept versions by scan, in a file; a damaged file is replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, version: int) -> dict[str, float]:
        return self._read().get(str(version), {})

    def put(self, version: int, scores: Scores, kept: Sequence[int]) -> None:
        """Store the scores of a version; drop those of versions that are not kept."""
        stay = {str(number) for number in kept}
        content = {number: of for number, of in self._read().items() if number in stay} | {str(version): dict(scores)}
        write_atomically(self.path, json.dumps(content, indent=1).encode())

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            content = json.loads(self.path.read_bytes())
            return {str(v): {str(k): float(s) for k, s in scores.items()} for v, scores in content.items()}
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            return {}


def _rank(scan: AnnotatedScan) -> int:
    """Rank a scan: 0 with a drawn or corrected label, 1 with another mask, 2 without a mask."""
    if scan.labels_with_origin(MaskOrigin.DRAWN, MaskOrigin.CORRECTED):
        return 0
    return 1 if scan.mask_path is not None else 2


def _mean(scores: Scores, keys: Collection[str]) -> float | None:
    return float(np.mean([scores[key] for key in keys])) if keys else None
