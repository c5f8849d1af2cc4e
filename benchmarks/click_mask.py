"""Measure the Dice of click masks on real scans, after six clicks and after corrective ones.

Run with `python -m benchmarks.click_mask --dataset DIR`, where DIR holds images/ and masks/, or folders CASE with
image.* and label.*, or is one such folder. A structure is the largest component of its label.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from benchmarks.evidence.clicking import Hand, Score, Segmenter, scores, segmenter
from benchmarks.evidence.dataset import DatasetError
from benchmarks.evidence.structures import MIN_EXTENT, MIN_VOXELS, SplitOrAll, StructureFolder
from lib.compile_kernels import compile_kernels
from lib.geometry.volume import VolumeError
from scripts.terminal import number, whole_number

SIX = 6
MAX_CLICKS = 20
SHOWN_CLICKS = (6, 7, 8, 10, 15, 20)
GOALS = (0.85, 0.90)
LOW_DICE = 0.5
SMALLEST_FALL = 0.0005
"""Smallest difference of the mean Dice that is shown."""


class Measured(NamedTuple):
    """One label of one case: for each draw, the scores after six clicks and after each corrective one."""

    case: str
    label: str
    draws: list[list[Score]]

    def mean(self, field: str) -> float:
        """Over the draws, after six clicks."""
        return float(np.mean([getattr(run[0], field) for run in self.draws]))


# --- Measuring


def measure(folder: StructureFolder, cases: Sequence[str], options: argparse.Namespace) -> Iterator[Measured | None]:
    """Yield each structure of each case; None for one that is too small.

    Raises:
        DatasetError, VolumeError: a case cannot be read, or there are too few training cases.
    """

    @cache
    def segmenter_of(label: str, hand: Hand) -> Segmenter:
        accepted, clicked = examples(folder, hand.draw, options.accepted, options.clicked)
        return segmenter(folder, label, accepted, clicked, hand)

    for case in cases:
        volume, structures = folder.load(case)
        for structure in structures:
            if structure.too_small:
                yield None
                continue
            draws = []
            for hand in (Hand(draw, options.error) for draw in range(options.draws)):
                segment, points = segmenter_of(structure.label, hand), hand.six_clicks(structure)
                draws.append(list(scores(segment, volume, points, structure.truth, options.corrections)))
            yield Measured(case, structure.label, draws)


def examples(
    folder: StructureFolder, draw: int, accepted: int, clicked: int | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training cases whose masks are accepted, and others that are clicked (None: all others), drawn by chance.

    Raises:
        DatasetError: there are not so many.
    """
    if accepted == 0 and clicked == 0:
        return (), ()
    training = folder.cases("training")
    if accepted + (clicked or 0) > len(training):
        raise DatasetError(
            f"{folder.folder} has {len(training)} training cases; expected at least {accepted + (clicked or 0)}, the "
            "sum of --accepted and --clicked."
        )
    order = tuple(np.random.default_rng(draw).permutation(sorted(training)).tolist())
    return order[:accepted], order[accepted:][:clicked]


# --- Reporting


def case_line(measured: Measured) -> str:
    values = [measured.mean(field) for field in Score._fields]
    return "{} {}: Dice {:.3f}, volume ratio {:.2f}, {:.2f} s".format(measured.case, measured.label, *values)


def correction_lines(measured: Sequence[Measured]) -> Iterator[str]:
    """Mean Dice by the number of clicks, and the number of clicks to reach a Dice (NoC)."""
    runs = np.array([[score.dice for score in run] for one in measured for run in one.draws])
    curve = dict(enumerate(runs.mean(axis=0).tolist(), start=SIX))
    shown = (f"{clicks} clicks {curve[clicks]:.3f}" for clicks in SHOWN_CLICKS if clicks in curve)
    yield f"mean Dice after {', '.join(shown)}"
    for goal in GOALS:
        needed = [clicks_to_reach(run, goal) for run in runs.tolist()]
        mean = np.mean([max(curve) if clicks is None else clicks for clicks in needed])
        never = needed.count(None)
        yield f"NoC@{100 * goal:.0f} {mean:.1f}, never reached by {never} of {len(needed)} (counted as {max(curve)})"
    steps = {clicks: curve[clicks] - curve[clicks - 1] for clicks in curve if clicks > SIX}
    falls = [f"{clicks} ({step:+.3f})" for clicks, step in steps.items() if step < -SMALLEST_FALL]
    yield f"the mean falls with click {', '.join(falls)}" if falls else "the mean never falls with a further click"


def clicks_to_reach(dices: Sequence[float], goal: float) -> int | None:
    """Clicks, six included, after which Dice first reaches a goal; `dices` start after six. None: they never do."""
    return next((clicks for clicks, value in enumerate(dices, start=SIX) if value >= goal), None)


def last_line(measured: Sequence[Measured]) -> str:
    values = np.array([one.mean("dice") for one in measured])
    ratio = np.median([one.mean("volume_ratio") for one in measured])
    return (
        f"mean Dice {values.mean():.3f}, median {np.median(values):.3f}, below {LOW_DICE}: "
        f"{np.count_nonzero(values < LOW_DICE)} of {len(values)}, volume ratio {ratio:.2f}"
    )


# --- Command line


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    try:
        folder = StructureFolder.open(options.dataset.resolve(), options.labels)
        split: SplitOrAll = options.split or ("test" if folder.splits else "all")
        if options.accepted and split in ("training", "all"):
            parser.error(f"--split {split} holds the cases that --accepted is drawn from; choose test or validation")
        report(folder, split, options)
    except (DatasetError, VolumeError) as error:
        parser.error(str(error))


def report(folder: StructureFolder, split: SplitOrAll, options: argparse.Namespace) -> None:
    """Print a line for each case and label, then the figures of all.

    Raises:
        DatasetError: no structure is large enough, or see `measure`.
    """
    compile_kernels()  # counts in nobody's seconds
    found, too_small = [], 0
    for one in measure(folder, folder.cases(split), options):
        if one is None:
            too_small += 1
        else:
            print(case_line(one), flush=True)
            found.append(one)
    limits = f"fewer than {MIN_VOXELS} voxels, or than {MIN_EXTENT} along an axis"
    if not found:
        raise DatasetError(f"{folder.folder} has no structure to measure; each of {too_small} has {limits}.")
    if too_small:
        print(f"skipped {too_small} structures of {limits}")
    if options.corrections:
        print(*correction_lines(found), sep="\n")
    print(last_line(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.click_mask", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, metavar="DIR")
    parser.add_argument("--labels", type=lambda text: text.split(","), help="of the values 1, 2, ... of the masks")
    parser.add_argument("--split", choices=get_args(SplitOrAll), help="default: test, or all where there is no split")
    parser.add_argument(
        "--accepted", type=whole_number(0), default=0, metavar="N", help="training cases accepted before"
    )
    parser.add_argument(
        "--clicked", type=_count_or_all, default=0, metavar="N", help="other training cases clicked before, or 'all'"
    )
    parser.add_argument(
        "--draws", type=whole_number(1), default=3, metavar="N", help="of the clicks (default: %(default)s)"
    )
    parser.add_argument(
        "--error", type=number(0), default=0.5, metavar="VOXELS", help="of each click, an SD (default: %(default)s)"
    )
    parser.add_argument(
        "--corrections",
        type=int,
        choices=range(MAX_CLICKS - SIX + 1),
        default=0,
        metavar="N",
        help="further clicks, each in the middle of the largest error, at most 14 (default: %(default)s)",
    )
    return parser


def _count_or_all(text: str) -> int | None:
    return None if text == "all" else whole_number(0)(text)


if __name__ == "__main__":
    main()
