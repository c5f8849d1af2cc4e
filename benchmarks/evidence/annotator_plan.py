"""Define the simulated annotators: their times, and what they annotate in which way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from benchmarks.evidence.dataset import DatasetError
from benchmarks.evidence.structures import StructureFolder

CORRECTION_S = 4.0
"""Time of a corrective click, with the search for its place."""
LOOK_S = 3.0
"""Time to check a click mask, and to accept or refuse it."""
GOOD_DICE = 0.85
"""Lowest Dice of masks that the annotator accepts."""
MAX_CORRECTIONS = 4
ERROR_VOXELS = 0.5
"""Standard deviation of each click along each axis."""
NEW_SCANS = 4
"""Number of new scans before the annotator starts the next training, if scans are clicked."""


@dataclass(frozen=True)
class Arm:
    """A way to annotate.

    Attributes:
        accepts: masks that are right are accepted, others corrected.
        drawn: every n-th scan is drawn by hand and not clicked; 0: none.
        new_scans: annotated scans that no training has seen, from which on one is started where none runs.
        conf: settings of the server.
    """

    title: str
    accepts: bool = True
    drawn: int = 0
    new_scans: int = NEW_SCANS
    conf: Mapping[str, str] = field(default_factory=dict)


ARMS: dict[str, Arm] = {
    "accepting": Arm("clicks with accepting"),
    "fifth_drawn": Arm("clicks with accepting, every fifth scan drawn", drawn=5),
    "clicks": Arm("clicks alone (method paper)", accepts=False, conf={"method": "paper"}),
    "masks": Arm("full masks alone", drawn=1, new_scans=1),
}


@dataclass(frozen=True)
class Plan:
    """Shared parts of all arms.

    Attributes:
        scans: at most so many are annotated; None: all training cases.
        minutes: the annotator begins no scan after so many; None: no limit.
        test_scans: how many unseen scans score a network; None: all test cases.
        conf: settings of the server.
    """

    dataset: str
    scans: int | None = None
    minutes: float | None = None
    test_scans: int | None = None
    conf: Mapping[str, str] = field(default_factory=dict)


def training_cases(folder: StructureFolder, seed: int, plan: Plan) -> tuple[str, ...]:
    """Those with a structure to click, in the order that the seed draws. Raises: DatasetError: there is none."""
    order = np.random.default_rng(seed).permutation(sorted(folder.cases("training"))).tolist()
    can_be_clicked = (case for case in order if any(not of.too_small for of in folder.load(case)[1]))
    cases = tuple(islice(can_be_clicked, plan.scans))
    if not cases:
        raise DatasetError(f"{folder.folder} has no training case with a structure that is large enough to click.")
    return cases


def unseen_cases(folder: StructureFolder, plan: Plan) -> tuple[str, ...]:
    return folder.cases("test")[: plan.test_scans]
