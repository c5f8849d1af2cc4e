"""Score the network of a run at intervals, and publish it if the gate allows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from lib.networks.checkpoint import TrainedModel, TrainingState
from lib.networks.versions import ModelVersions
from lib.training.budget import TrainingBudget
from lib.training.gate import PublishGate, Verdict
from lib.training.starting_point import StartingPoint

logger = logging.getLogger(__name__)

PUBLISH_EVERY_S = 120.0
PUBLISH_EVERY_SHARE = 0.25
"""Share of `max_minutes`, if that is shorter: the time for scoring must be measured before the budget is used up."""

SCORING_SHARE = 0.1
"""Maximum share of the time of a run that is used to score intermediate networks."""


class Publisher:
    """Publisher of the network of a run, which scores it at intervals and asks the gate.

    Attributes:
        base: number of the version that the run started from, or of the last one that it published.
        published: number of the last version that the run published, None before the first. The next version of the run
            replaces it; otherwise, versions of one run would displace those of earlier runs.
        verdict: last verdict, None before the first.
    """

    def __init__(
        self,
        gate: PublishGate,
        versions: ModelVersions,
        start: StartingPoint,
        budget: TrainingBudget,
        judged: Callable[[Verdict, int], None],
    ) -> None:
        self.gate = gate
        self.versions = versions
        self.spec = start.spec
        self.budget = budget
        self._judged = judged
        self.base = start.base
        self.published: int | None = None
        self.verdict: Verdict | None = None
        self._is_rolled_back = False
        share_s = 60 * PUBLISH_EVERY_SHARE * budget.max_minutes
        self._next_s = time.monotonic() + (min(PUBLISH_EVERY_S, share_s) if share_s > 0 else PUBLISH_EVERY_S)

    def is_due(self) -> bool:
        """Tell whether to score now. After a roll-back of the base, a run is scored at its end only."""
        return not self._is_rolled_back and time.monotonic() >= self._next_s

    def consider(self, network: nn.Module, state: TrainingState) -> None:
        """Score the network, and publish it if the gate allows.

        Raises:
            OSError: the disk is full; the published model stays.
        """
        # Not timed: kept versions are scored only once.
        kept = self.gate.kept_scores()
        began_s = time.monotonic()
        network.eval()
        candidate = TrainedModel(self.spec, network, self.base)
        verdict = self.gate.judge(candidate, kept)
        if verdict.publish:
            verdict = self._publish(candidate, state, verdict)
        network.train()
        took_s = time.monotonic() - began_s
        self.budget.reserve(took_s)
        self._next_s = time.monotonic() + max(PUBLISH_EVERY_S, took_s / SCORING_SHARE)
        if verdict.publish:
            logger.info("Version %d is published. %s", self.base, verdict.reason)
        else:
            logger.warning("The published model stays. %s", verdict.reason)
        self._judged(verdict, state.iterations)
        self.verdict = verdict

    def _publish(self, candidate: TrainedModel, state: TrainingState, verdict: Verdict) -> Verdict:
        score = verdict.score if self.gate.is_held_out else None
        spared = () if verdict.is_best or verdict.best_version is None else (verdict.best_version,)
        judged = replace(candidate, score=score, crf=self.gate.crf_helps(candidate))
        number, is_published = self.versions.publish(
            judged, state, base=self.base, spared=spared, replaced=self.published
        )
        self.gate.store_scores(number, verdict.scores)
        if not is_published:
            self._is_rolled_back = True
            return replace(verdict, publish=False, rolled_back=True)
        self.base = self.published = number
        return verdict
