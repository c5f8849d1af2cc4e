"""Write table and plot of replayed annotators by annotation time."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: a server has no display
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.evidence.annotator_plan import (
    ARMS,
    CORRECTION_S,
    ERROR_VOXELS,
    GOOD_DICE,
    LOOK_S,
    MAX_CORRECTIONS,
    NEW_SCANS,
)
from benchmarks.evidence.annotator_results import Result
from benchmarks.evidence.rows import CLICKS_S, MASK_S

SHOWN_MIN = (5, 10, 15, 20, 30, 40, 60, 90, 120, 180)
GOALS = (0.6, 0.7, 0.8, 0.85)
SMOOTHED_SCANS = 8
Results = Mapping[str, Sequence[Result]]
"""Results of each arm, one for each seed."""


def assumptions(results: Results) -> str:
    """Return the conditions of the figures, as sentences."""
    every = [result for of_arm in results.values() for result in of_arm]
    trainings = [training for result in every for training in result.trainings]
    minutes = [(training.ended_s - training.began_s) / 60 for training in trainings]
    conf = ", ".join(f"{name} {value}" for name, value in every[0].plan.conf.items())
    return (
        f"Six clicks {CLICKS_S} s, a mask drawn by hand {MASK_S} s (Dorent et al. 2021, Section 4). Assumed: "
        f"a corrective click {CORRECTION_S:g} s, at most {MAX_CORRECTIONS} of them; {LOOK_S:g} s to look at each "
        f"click mask, after which the annotator knows whether its Dice is {GOOD_DICE} or more and accepts it, else "
        f"corrects it or keeps the clicks; clicks miss by {ERROR_VOXELS} voxels (SD); *Update Model* between scans, "
        f"where no training runs and {NEW_SCANS} scans (full masks alone: 1) are new. Measured: the server's answers, "
        f"and trainings of {min(minutes):.1f} to {max(minutes):.1f} min while the annotator goes on. Settings: {conf}. "
        f"Automatic masks are of {max(len(training.dices) for training in trainings)} unseen scans, scored at each "
        f"training's end. {' and '.join(sorted({result.machine for result in every}))}, "
        f"{max(result.date for result in every)}."
    )


def markdown(results: Results) -> str:
    """Make a table with a column for each arm, means over its seeds; "–" if a seed has no such figure."""
    end_min = max(of.end_min for of_arm in results.values() for of in of_arm)
    shown_min = [minutes for minutes in SHOWN_MIN if minutes <= end_min]
    rows: list[tuple[str, str, Callable[[Result], float]]] = [
        ("annotated scans", ".0f", lambda of: len(of.scans)),
        ("minutes of annotating", ".1f", lambda of: of.annotated_min),
        ("first click masks, Dice in the first quarter of the scans", ".3f", partial(Result.first_masks, quarter=0)),
        ("first click masks, Dice in the last quarter of the scans", ".3f", partial(Result.first_masks, quarter=3)),
        ("share of clicked scans accepted", ".2f", lambda of: of.accepted_share),
        *((f"automatic masks, Dice at {at} min", ".3f", partial(Result.dice_at, minutes=at)) for at in shown_min),
        ("automatic masks, Dice at the end", ".3f", partial(Result.dice_at, minutes=np.inf)),
        *(
            (f"minutes to automatic masks of Dice {dice}", ".1f", partial(Result.minutes_to, dice=dice))
            for dice in GOALS
        ),
    ]
    lines = [["", *(ARMS[arm].title for arm in results)], ["---"] * (1 + len(results))]
    for title, form, figure in rows:
        means = [np.mean([figure(of) for of in of_arm]) for of_arm in results.values()]
        lines.append([title, *(f"{mean:{form}}" if np.isfinite(mean) else "–" for mean in means)])
    lines.append(["seeds", *(f"{len(of_arm)}" for of_arm in results.values())])
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", assumptions(results), ""])


def plot(results: Results, path: Path) -> None:
    """Automatic masks of unseen scans on the left, the first click mask of each scan on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.5), sharex=True, sharey=True, layout="constrained")
    for arm, of_arm in results.items():
        colour = f"C{list(ARMS).index(arm)}"
        _automatic(left, of_arm, colour, ARMS[arm].title)
        _first_masks(right, of_arm, colour, ARMS[arm].title)
    right.axhline(GOOD_DICE, color="grey", linewidth=0.8, linestyle="--")
    left.set_title("automatic masks of unseen scans, mean Dice")
    right.set_title(f"first click mask of each scan, Dice; line: mean of up to {SMOOTHED_SCANS} scans")
    for panel, place in ((left, "upper left"), (right, "lower right")):
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel("minutes since the annotator began")
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(loc=place)
    figure.suptitle(next(iter(results.values()))[0].plan.dataset)
    figure.supxlabel(textwrap.fill(assumptions(results).replace("*", ""), 215), x=0.01, ha="left", fontsize=7.5)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _automatic(panel: Axes, of_arm: Sequence[Result], colour: str, title: str) -> None:
    """Plot steps: a network is used until the next; seeds thin, their mean from where all have a network."""
    if len(of_arm) > 1:
        for of in of_arm:
            panel.step(*np.reshape(of.networks, (-1, 2)).T, where="post", color=colour, alpha=0.3, linewidth=0.8)
    minutes = sorted({minute for of in of_arm for minute, _ in of.networks})
    if minutes:
        minutes.append(max(of.end_min for of in of_arm))
        mean = [np.mean([of.dice_at(minute) for of in of_arm]) for minute in minutes]
        panel.step(minutes, mean, where="post", color=colour, label=title, marker=".")


def _first_masks(panel: Axes, of_arm: Sequence[Result], colour: str, title: str) -> None:
    points = sorted((scan.ended_s / 60, scan.dices[0]) for of in of_arm for scan in of.clicked)
    if not points:
        return
    minutes, dices = np.array(points).T
    panel.plot(minutes, dices, ".", color=colour, alpha=0.35)
    width = min((1 + len(points)) // 2, SMOOTHED_SCANS * len(of_arm))
    window = np.ones(width) / width
    panel.plot(*(np.convolve(values, window, "valid") for values in (minutes, dices)), color=colour, label=title)
