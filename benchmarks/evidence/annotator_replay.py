"""Replay an annotator's work on a dataset against a server: clicks, acceptances, drawn masks, trainings."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.evidence.annotator_clock import Clock
from benchmarks.evidence.annotator_plan import (
    CORRECTION_S,
    ERROR_VOXELS,
    GOOD_DICE,
    LOOK_S,
    MAX_CORRECTIONS,
    Arm,
    Plan,
    training_cases,
    unseen_cases,
)
from benchmarks.evidence.clicking import Hand, Segmenter, scores
from benchmarks.evidence.rows import CLICKS_S, MASK_S
from benchmarks.evidence.served_app import ServedApp
from benchmarks.evidence.structures import SUFFIXES, Structure, StructureFolder
from lib.annotations.extreme_points import ExtremePoints
from lib.clickmask.label_map import BoxedMask
from lib.demo.local_server import LocalServer
from lib.geometry.boxes import Box
from lib.geometry.volume import Volume, load_volume
from lib.metrics import dice


@dataclass(frozen=True)
class ReplayedScan:
    """Times are the annotator's seconds.

    Attributes:
        dices: of the masks that were shown, the first after six clicks; none where the scan was drawn by hand.
    """

    case: str
    ended_s: float
    dices: Sequence[float] = ()
    accepted: bool = False


@dataclass(frozen=True)
class ReplayedTraining:
    """A training, in the annotator's seconds.

    Attributes:
        scans: that it could see.
        version: of the published network at its end; the one before where none was published.
        dices: of the automatic masks of the unseen scans; none where there is no network yet.
    """

    began_s: float
    ended_s: float
    scans: int
    version: int | None
    dices: Sequence[float]


class Replay:
    """One arm from the first scan to the end of the last training.

    Args:
        seed: of the order of the scans and of the errors of the clicks.
        say: told what happened, a line each.
    """

    def __init__(
        self, app: ServedApp, folder: StructureFolder, arm: Arm, seed: int, plan: Plan, say: Callable[[str], None]
    ) -> None:
        self.app, self.folder, self.arm, self.plan, self.say = app, folder, arm, plan, say
        self.hand = Hand(seed, ERROR_VOXELS)
        self.cases, self.unseen = training_cases(folder, seed, plan), unseen_cases(folder, plan)
        self.clock = Clock(app.is_training, self._training_ended)
        self.scans: list[ReplayedScan] = []
        self.trainings: list[ReplayedTraining] = []
        self._training: tuple[float, int] = 0.0, 0  # of the training that began last: its second, its scans

    def run(self) -> None:
        limit_s = np.inf if self.plan.minutes is None else 60 * self.plan.minutes
        for case in self.cases:
            if self.clock.seconds >= limit_s:
                break
            self._annotate(case)
            if not self.clock.training_runs and self._new_scans >= self.arm.new_scans:
                self._start_training()
        self.clock.wait_for_training()
        if self._new_scans:
            self._start_training()
            self.clock.wait_for_training()

    @property
    def _new_scans(self) -> int:
        return len(self.scans) - self._training[1]

    def _annotate(self, case: str) -> None:
        by_hand = self.arm.drawn and (1 + len(self.scans)) % self.arm.drawn == 0
        scan = self._draw(case) if by_hand else self._click(case)
        self.scans.append(scan)
        found = "drawn" if by_hand else "Dice " + " ".join(f"{value:.3f}" for value in scan.dices)
        self.say(f"{scan.ended_s / 60:.1f} min: {case}, {found}{', accepted' if scan.accepted else ''}")

    def _draw(self, case: str) -> ReplayedScan:
        mask = _whole_truth(self.folder, case)
        self.clock.spend(MASK_S)
        self.app.submit(case, mask)
        return ReplayedScan(case, self.clock.seconds)

    def _click(self, case: str) -> ReplayedScan:
        volume, (structure,) = self.folder.load(case)
        asked: list[ExtremePoints] = []
        found: list[float] = []
        six_clicks, corrections = self.hand.six_clicks(structure), MAX_CORRECTIONS if self.arm.accepts else 0
        for score in scores(self._segmenter(structure, asked), volume, six_clicks, structure.truth, corrections):
            if len(asked) == len(found):  # no error is left that is large enough for a click
                break
            found.append(score.dice)
            if self.arm.accepts:
                self.clock.spend(LOOK_S)
                if score.dice >= GOOD_DICE:
                    self.app.accept(case)
                    return ReplayedScan(case, self.clock.seconds, found, accepted=True)
        return ReplayedScan(case, self.clock.seconds, found)

    def _segmenter(self, structure: Structure, asked: list[ExtremePoints]) -> Segmenter:
        """Add the time of the clicks and of the server's answer, and record the question in `asked`."""

        def segment(volume: Volume, points: ExtremePoints) -> BoxedMask:
            self.clock.spend(CORRECTION_S if asked else CLICKS_S)
            asked.append(points)
            start = time.perf_counter()
            mask = self.app.click_mask(structure.case, points)
            self.clock.spend(time.perf_counter() - start)
            return Box((0, 0, 0), volume.geometry.shape), mask

        return segment

    def _start_training(self) -> None:
        self.app.start_training()
        self._training = self.clock.seconds, len(self.scans)
        self.clock.training_began()

    def _training_ended(self, ended_s: float) -> None:
        """Scores the published network, for which the clock stands still."""
        version = self.app.model_version(self.unseen[0])
        unseen = self.unseen if version is not None else ()
        dices = [dice(self.app.automatic_mask(case), _whole_truth(self.folder, case).array) for case in unseen]
        began_s, scans = self._training
        self.trainings.append(ReplayedTraining(began_s, ended_s, scans, version, dices))
        mean = f"mean Dice {np.mean(dices):.3f}" if dices else "no network"
        self.say(f"{ended_s / 60:.1f} min: a training of {(ended_s - began_s) / 60:.1f} min, {mean} of unseen scans")


def replay(
    folder: StructureFolder, arm: Arm, seed: int, plan: Plan, log: Path, say: Callable[[str], None] = print
) -> Replay:
    """Replay an arm against its own server, on copies of the images.

    Args:
        log: file of what the server prints.

    Raises:
        DatasetError, VolumeError: the dataset has no split, or a case cannot be read.
        ServedAppError: the server refused a request, or a training failed.
        ServerError: the server did not start.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        studies, scratch = root / "studies", root / "scratch"
        studies.mkdir()
        scratch.mkdir()
        for case in (*training_cases(folder, seed, plan), *unseen_cases(folder, plan)):
            image = folder.paths[case][0]
            shutil.copyfile(image, studies / (case + next(end for end in SUFFIXES if image.name.endswith(end))))
        fixed = {"model_dir": str(root / "model"), "seed": str(seed)}
        with LocalServer(studies, {**fixed, **plan.conf, **arm.conf}, log) as server:
            work = Replay(ServedApp(server.url, scratch), folder, arm, seed, plan, say)
            work.run()
    return work


def _whole_truth(folder: StructureFolder, case: str) -> Volume:
    """Return the true mask (X, Y, Z) bool, all components."""
    mask = load_volume(folder.paths[case][1], sentinels=False)
    return Volume(mask.array > 0, mask.geometry)
