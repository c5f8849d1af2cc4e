"""Write scores as tables, in the layout of the paper's Table 1."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.evidence.rows import REFERENCE, ROWS
from benchmarks.evidence.scores import CaseScore, by_case, wilcoxon_p

SIGNIFICANT = 0.01
"""The paper's level."""


@dataclass(frozen=True)
class Line:
    """A row of the table; means and standard deviations are over the cases, each the mean of its seeds.

    Attributes:
        dice, precision: mean and deviation in percent.
        hd95_mm: mean and deviation.
        p_dice, p_hd95, p_precision: against the reference row, two-sided; None for the row itself, without a common
            seed or without a difference.
        empty: number of empty masks among all of all seeds.
        between_seeds: standard deviation of the mean Dice of the seeds, in percent; 0 of one seed.
    """

    name: str
    title: str
    dice: tuple[float, float]
    hd95_mm: tuple[float, float]
    precision: tuple[float, float]
    p_dice: float | None
    p_hd95: float | None
    p_precision: float | None
    empty: int
    masks: int
    seeds: int
    between_seeds: float


def lines(scores: Mapping[str, Sequence[CaseScore]]) -> list[Line]:
    """Return one of each row that has scores, in the order of the table."""
    return [_line(name, scores[name], scores.get(REFERENCE, ())) for name in ROWS if scores.get(name)]


def _line(name: str, scores: Sequence[CaseScore], reference: Sequence[CaseScore]) -> Line:
    def figures(measure: str, scale: float) -> tuple[float, float]:
        values = scale * np.array(list(by_case(scores, measure).values()))
        return float(values.mean()), _deviation(values)

    def p(measure: str) -> float | None:
        return wilcoxon_p(scores, reference, measure) if name != REFERENCE else None

    seeds = sorted({score.seed for score in scores})
    means = np.array([np.mean([score.dice for score in scores if score.seed == seed]) for seed in seeds])
    return Line(
        name=name,
        title=ROWS[name].title,
        dice=figures("dice", 100),
        hd95_mm=figures("hd95_mm", 1),
        precision=figures("precision", 100),
        p_dice=p("dice"),
        p_hd95=p("hd95_mm"),
        p_precision=p("precision"),
        empty=sum(score.is_empty for score in scores),
        masks=len(scores),
        seeds=len(seeds),
        between_seeds=100 * _deviation(means),
    )


def _deviation(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def markdown(table: Sequence[Line]) -> str:
    """Mean (standard deviation), as the paper prints them."""
    heading = "| Approach | Dice (%) | HD95 (mm) | Precision (%) | *p* of the Dice | empty masks | seeds |"
    rows = [
        f"| {line.title} | {_figure(line.dice)} | {_figure(line.hd95_mm)} | {_figure(line.precision)} | "
        f"{_p(line.p_dice)} | {line.empty} of {line.masks} | {line.seeds} (± {line.between_seeds:.1f}) |"
        for line in table
    ]
    return "\n".join([heading, "|---|---|---|---|---|---|---|", *rows, ""])


def as_csv(table: Sequence[Line]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measures = ("dice_percent", "hd95_mm", "precision_percent")
    spread = [f"{measure}_{kind}" for measure in measures for kind in ("mean", "sd")]
    p_names = ["p_dice", "p_hd95", "p_precision"]
    writer.writerow(["row", "approach", *spread, *p_names, "empty_masks", "masks", "seeds", "dice_sd_between_seeds"])
    for line in table:
        figures = [f"{value:.2f}" for pair in (line.dice, line.hd95_mm, line.precision) for value in pair]
        p = ["" if p is None else f"{p:.3g}" for p in (line.p_dice, line.p_hd95, line.p_precision)]
        counts = [line.empty, line.masks, line.seeds, f"{line.between_seeds:.2f}"]
        writer.writerow([line.name, line.title, *figures, *p, *counts])
    return text.getvalue()


def _figure(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.1f} ({pair[1]:.1f})"


def _p(p: float | None) -> str:
    if p is None:
        return ""
    text = "< 0.001" if p < 0.001 else f"{p:.3f}"
    return f"**{text}**" if p < SIGNIFICANT else text
