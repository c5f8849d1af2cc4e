"""Define the rows of the table: annotations and settings of each method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.evidence.dataset import Hand

REFERENCE = "inextremis"
"""Reference row of the comparisons."""

CLICKS_S, MASK_S = 37, 477
"""Annotation time of a scan (paper, Section 4)."""


@dataclass(frozen=True)
class Row:
    """A method of the table.

    Attributes:
        title: as in the paper, where it is there.
        changes: hyper-parameters that differ from the preset's.
        hand: whose clicks are learnt from; None for full masks.
        scans: how many training scans are annotated; None for all.
        masked: how many of these have a full mask beside the clicks.
        equal_time: as many scans as full masks can be drawn of in the time of clicks on all.
        network_of: name of the row whose network is used; nothing is trained then.
        crf: is the network's output to go through the dense CRF? None: as the app decides.
    """

    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    hand: Hand | None = "annotator"
    scans: int | None = None
    masked: int = 0
    equal_time: bool = False
    network_of: str | None = None
    crf: bool | None = False

    def annotation_s(self, scans: int) -> int:
        """Annotation time of so many scans."""
        return scans * MASK_S if self.hand is None else scans * CLICKS_S + min(scans, self.masked) * MASK_S

    def training_scans(self, available: int) -> int:
        """How many of the available scans the row is trained on, at least 1."""
        if self.equal_time:
            return max(1, round(available * CLICKS_S / MASK_S))
        return available if self.scans is None else min(self.scans, available)


_PAPER = {"method": "paper"}
_NO_CRF = {"method": "paper", "crf_weight": 0}

APP: dict[str, Row] = {
    "inextremis": Row("InExtremIS (deep geodesics + CRF)", _PAPER),
    "app_clicks": Row("The app, clicks in all scans", crf=None),
    "app_clicks_4": Row("The app, clicks in all scans, full masks in four", masked=4, crf=None),
    "full_4": Row("Full masks of four scans", hand=None, scans=4, crf=None),
    "full_equal_time": Row("Full masks, equal annotation time", hand=None, equal_time=True, crf=None),
    "full": Row("Full masks of all scans", hand=None, crf=None),
}
"""The app with clicks, and the same trainer with full masks."""

TABLE_1: dict[str, Row] = {
    "gradient": Row("Gradient geodesic", {**_NO_CRF, "geodesic": "gradient"}),
    "gradient_euclidean": Row("Gradient + Euclidean geodesic", {**_NO_CRF, "geodesic": "gradient_euclidean"}),
    "deep": Row("Deep geodesic", _NO_CRF),
    "simulated": Row("Simulated extreme points, r = 0 (InExtremIS)", {**_PAPER, "box_margin": 0}, hand="exact"),
    "disturbed": Row("Disturbed extreme points (InExtremIS)", _PAPER, hand="unsteady"),
    "scribble_crf": Row("Extreme points + CRF, no geodesics", {**_PAPER, "geodesic": "none"}),
}
"""Other rows of the paper's table."""

CRF: dict[str, Row] = {
    f"{name}_{end}": Row(f"{APP[name].title}, {word} dense CRF at test time", network_of=name, crf=word == "with")
    for name in ("app_clicks", "app_clicks_4", "full_4", "full")
    for end, word in (("crf", "with"), ("no_crf", "without"))
}

CURVE: dict[str, Row] = {
    **{f"full_{n}": Row(f"Full masks of {n} scans", hand=None, scans=n, crf=None) for n in (2, 8, 16)},
    **{f"app_clicks_in_{n}": Row(f"The app, clicks in {n} scans", scans=n, crf=None) for n in (12, 24)},
}
"""More annotation times for the curve."""

ROWS: dict[str, Row] = APP | TABLE_1 | CRF | CURVE
