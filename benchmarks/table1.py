"""Make the paper's Table 1 with more rows: every method trained and scored by the same code on one dataset.

`python -m benchmarks.table1 --out FOLDER --small` makes the demo dataset and runs all rows; `--dataset FOLDER` takes
images and masks of your own (see docs/results/accuracy.md). A run that was cut short goes on, and the same command
started a second time shares the work. Tables and pictures are made anew after each run.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks.evidence.dataset import LABEL, SPLITS, Dataset, Split, write_demo_dataset
from benchmarks.evidence.figures import annotation_curve, box_plots, overlays
from benchmarks.evidence.rows import APP, CRF, CURVE, ROWS, TABLE_1
from benchmarks.evidence.scores import CaseScore, read_scores, write_scores
from benchmarks.evidence.tables import as_csv, lines, markdown
from benchmarks.evidence.training import Run
from lib.annotations.atomic_write import write_atomically
from lib.trainers.background import run_at_low_priority
from lib.training.hyperparameters import Hyperparameters, Preset
from lib.training.run import REPORTS

GROUPS = {
    "app": tuple(APP),
    "table": ("inextremis", *TABLE_1, "full"),
    "crf": tuple(CRF),
    "curve": tuple(CURVE),
    "all": tuple(ROWS),
}
WAIT_S = 5.0


def main() -> None:
    options = _parser().parse_args()
    console = Console()
    # What a training says of itself is not for this table; MONAI Label speaks by the root logger.
    logging.disable(logging.WARNING)
    run_at_low_priority()
    try:
        runs = _runs(options, console)
        for run in runs:
            run.check_record()
    except ValueError as error:  # a DatasetError is one
        sys.exit(f"{error}")
    out = options.out.resolve()
    if not options.tables_only:
        _do(runs, options.split, out, console)
    _report(runs, options.split, out)
    console.print(Markdown((out / f"table1_{options.split}.md").read_text()))
    for line in lines(_scores(runs, options.split)):
        print(f"{line.name}: mean Dice {line.dice[0] / 100:.3f} ({options.split})")
    console.print(f"Tables and pictures: {out}")


def _runs(options: argparse.Namespace, console: Console) -> list[Run]:
    """Return the runs seed by seed, so that all rows can be compared early."""
    out = options.out.resolve()
    dataset = _dataset(options, out, console)
    names = _row_names(options.rows)
    preset = Hyperparameters.of_preset(options.preset)
    if options.iterations:
        preset = preset.changed({"iterations": options.iterations})
    return [Run(name, ROWS[name], seed, dataset, preset, out) for seed in range(options.seeds) for name in names]


def _do(runs: Sequence[Run], split: Split, out: Path, console: Console) -> None:
    """All runs that are missing; one that another process works on is left to it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left:"), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("Trainings", total=sum(_parts(run) for run in runs))
        while missing := [run for run in runs if not run.is_done]:
            worked = False
            for run in missing:
                progress.update(task, completed=sum(_parts(run) for run in runs if run.is_done))
                if _do_unless_busy(run, progress, task, split):
                    worked = True
                    _report(runs, split, out)
            if not worked:
                time.sleep(WAIT_S)
        progress.update(task, completed=sum(_parts(run) for run in runs))


def _do_unless_busy(run: Run, progress: Progress, task: TaskID, split: Split) -> bool:
    if not run.is_ready:
        return False
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run.folder / ".lock", timeout=0):
            if run.is_done:
                return False
            progress.update(task, description=f"{run.name}, seed {run.seed}")
            run.run(lambda report: progress.advance(task))
            of_split = [score.dice for score in read_scores(run.scores_path) if score.split == split]
            mean = sum(of_split) / len(of_split)
            progress.console.print(f"{run.name}, seed {run.seed}: mean Dice {mean:.3f} ({split})")
    except Timeout:
        return False
    return True


def _parts(run: Run) -> int:
    """Return the number of progress reports of a run."""
    return 0 if run.base is not None else REPORTS


def _report(runs: Sequence[Run], split: Split, out: Path) -> None:
    """Write tables and pictures of the finished runs."""
    done, scores = [run for run in runs if run.is_done], _scores(runs, split)
    table = lines(scores)
    texts = {f"table1_{split}.md": f"{markdown(table)}\n{_provenance(done)}\n", f"table1_{split}.csv": as_csv(table)}
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    write_scores(out / f"cases_{split}.csv", [score for of_row in scores.values() for score in of_row])
    if done:
        box_plots(scores, out / f"box_plots_{split}.png")
        first = [run for run in done if run.seed == min(r.seed for r in done)]
        overlays(first[0].dataset, first, out / "overlays.png")
        annotation_curve(scores, {run.name: run.annotation_s for run in done}, out / f"annotation_time_{split}.png")


def _scores(runs: Sequence[Run], split: Split) -> dict[str, list[CaseScore]]:
    """Return the scores of the finished runs of each row."""
    scores: dict[str, list[CaseScore]] = {}
    for run in runs:
        if run.is_done:
            of_split = [score for score in read_scores(run.scores_path) if score.split == split]
            scores.setdefault(run.name, []).extend(of_split)
    return scores


def _provenance(runs: Sequence[Run]) -> str:
    """Describe date, versions and hardware of the runs in a sentence."""
    records = [run.record for run in runs]
    if not records:
        return "No run is done yet."
    dates = sorted(record["date"][:10] for record in records)
    days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    versions = ", ".join(f"{name} {number}" for name, number in records[-1]["versions"].items())
    machines = {record["hardware"]["gpu"] or record["hardware"]["processor"] for record in records}
    minutes = [record["training_s"] / 60 for record in records if record["training_s"] > 1]
    longest = f"; a training took up to {max(minutes):.0f} minutes" if minutes else ""
    return f"{days}, {' and '.join(sorted(machines))}{longest}. {versions}."


def _dataset(options: argparse.Namespace, out: Path, console: Console) -> Dataset:
    folder = options.dataset
    if folder is None:
        folder = out / "dataset"
        with console.status("Demo studies") as status:
            write_demo_dataset(folder, small=options.small, progress=lambda n: status.update(f"Demo studies: {n}"))
    return Dataset.open(folder.resolve(), options.labels.split(",") if options.labels else (LABEL,))


def _row_names(wanted: Sequence[str]) -> list[str]:
    names = [name for word in wanted for name in GROUPS.get(word, (word,))]
    if unknown := [name for name in names if name not in ROWS]:
        raise ValueError(f"There is no row {unknown[0]!r}; expected some of {', '.join([*GROUPS, *ROWS])}.")
    bases = [base for name in names if (base := ROWS[name].network_of)]
    return list(dict.fromkeys([*bases, *names]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table1", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, tables and pictures")
    parser.add_argument("--dataset", type=Path, help="folder with images/ and masks/ (default: demo studies)")
    parser.add_argument("--small", action="store_true", help="demo studies and trainings small enough for two cores")
    parser.add_argument(
        "--labels", help="of the values 1, 2, ... of the masks, comma-separated (default: one, all values)"
    )
    parser.add_argument("--rows", nargs="+", default=["app"], metavar="ROW", help=f"of {', '.join([*GROUPS, *ROWS])}")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each row (default: %(default)s)")
    parser.add_argument("--preset", choices=get_args(Preset), default="auto", help="hyper-parameters")
    parser.add_argument("--iterations", type=int, help="of each training, instead of the preset's")
    parser.add_argument("--split", choices=SPLITS[1:], default="test", help="cases that the tables are of")
    parser.add_argument("--tables-only", action="store_true", help="train nothing; tables of what is done")
    return parser


if __name__ == "__main__":
    main()
