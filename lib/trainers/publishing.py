"""Whether what a training has come to replaces the published model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lib.data.scans import AnnotatedScan
from lib.networks.checkpoint import TrainedModel
from lib.trainers.validation import agreement

MAX_TRAINING_SCANS = 5
"""To judge on where no scan is held out; more would cost time and tell little, for the network knows them."""


@dataclass(frozen=True)
class Verdict:
    """Whether to publish, and why; the figures are those of `TrainingRun`."""

    publish: bool
    judged_on: tuple[int, str]
    score: float | None
    published_score: float | None

    @property
    def reason(self) -> str:
        """A sentence for people."""
        if self.score is None:
            return "There was no scan to judge it on."
        count, kind = self.judged_on
        scans = f"{count} {kind} scan{'s' if count > 1 else ''}"
        if self.published_score is None:
            return f"Its agreement with the annotations of {scans} is {self.score:.2f}; there was no model before it."
        word = "not less" if self.publish else "less"
        figures = f"{self.score:.2f}, which is {word} than the published model's {self.published_score:.2f}"
        return f"Its agreement with the annotations of {scans} is {figures}."


def judge(
    candidate: TrainedModel,
    published: TrainedModel | None,
    held_out: Sequence[AnnotatedScan],
    trained_on: Sequence[AnnotatedScan],
    tolerance: float,
    device: torch.device | str = "cpu",
) -> Verdict:
    """Compares two networks on the held-out scans.

    Where none is held out yet, on some that were trained on: this shows a network that has collapsed, and no more.
    The first network is published whatever its score.

    Args:
        published: None where nothing usable is.
        tolerance: in [0, 1], by which the score may fall: what a handful of scans cannot tell apart.
    """
    scans, kind = (held_out, "held-out") if held_out else (trained_on[:MAX_TRAINING_SCANS], "training")
    score = agreement(candidate, scans, device)
    published_score = None if published is None else agreement(published, scans, device)
    # Written so that a score that is no number is worse.
    worse = score is not None and published_score is not None and not score >= published_score - tolerance
    return Verdict(not worse, (len(scans), kind), score, published_score)
