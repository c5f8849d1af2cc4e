"""Measure Dice by annotation time: clicks, acceptances and drawn masks, replayed against a running server.

Run with `python -m benchmarks.annotation_minutes --dataset DIR --out F`, where DIR holds images/, masks/ and split.csv.
Each arm and seed has a server of its own and a file of results in F; a second start does what is missing. Table and
plot are made anew after each. docs/results/accuracy.md says how the annotator's clock runs.
"""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import requests
import torch
from filelock import FileLock, Timeout

from benchmarks.evidence.annotator_plan import ARMS, Plan, training_cases
from benchmarks.evidence.annotator_replay import replay
from benchmarks.evidence.annotator_report import markdown, plot
from benchmarks.evidence.annotator_results import Result
from benchmarks.evidence.dataset import LABEL, DatasetError
from benchmarks.evidence.served_app import ServedAppError
from benchmarks.evidence.structures import StructureFolder
from lib.annotations.atomic_write import write_atomically
from lib.configs.settings import read_conf
from lib.demo.local_server import ServerError
from lib.geometry.volume import VolumeError
from scripts.terminal import number, whole_number


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    out = options.out.resolve()
    try:
        folder = StructureFolder.open(options.dataset.resolve(), (LABEL,))
        conf = {"preset": "gpu" if torch.cuda.is_available() else "cpu", **dict(options.conf)}
        for arm in options.arms:
            read_conf({**conf, **ARMS[arm].conf})
        plan = Plan(folder.folder.name, options.scans, options.minutes, options.test_scans, conf)
        training_cases(folder, 0, plan)
        results(out, plan)
    except ValueError as error:  # of the dataset, a volume, the settings, or the results that are there
        parser.error(str(error))
    # A SIGTERM would leave the server behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        for seed in range(options.seeds):
            for arm in options.arms:
                work(folder, arm, seed, plan, out)
    except (ServedAppError, ServerError, VolumeError, DatasetError, requests.RequestException) as error:
        sys.exit(str(error))
    if results(out, plan):  # else other processes are at all of it
        print((out / "minutes.md").read_text())


def work(folder: StructureFolder, arm: str, seed: int, plan: Plan, out: Path) -> None:
    """Replay an arm, unless it is done or another process runs it; then make table and plot of all finished arms."""
    path = out / "runs" / f"{arm},seed={seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            if not path.exists():
                done = replay(
                    folder, ARMS[arm], seed, plan, path.with_suffix(".log"), partial(_say, f"{arm}, seed {seed}")
                )
                Result.of(arm, seed, done).save(path)
    except Timeout:
        print(f"{arm}, seed {seed}: another process is at it")
    report(results(out, plan), out)


def _say(name: str, line: str) -> None:
    print(f"{name}, {line}", flush=True)


def results(out: Path, plan: Plan) -> dict[str, list[Result]]:
    """All that are done, by arm.

    Raises:
        ValueError: one cannot be read, or was made by another plan.
    """
    found: dict[str, list[Result]] = {}
    for arm in ARMS:
        for path in sorted((out / "runs").glob(f"{arm},seed=*.json")):
            result = Result.load(path)
            made, asked = asdict(result.plan), asdict(plan)
            if different := [name for name in made if made[name] != asked[name]]:
                name = different[0]
                raise ValueError(
                    f"{path} was made with {name} {made[name]}, and {asked[name]} is asked for now; choose another "
                    "--out, or delete the file."
                )
            found.setdefault(arm, []).append(result)
    return found


def report(found: dict[str, list[Result]], out: Path) -> None:
    if found:
        write_atomically(out / "minutes.md", markdown(found).encode())
        plot(found, out / "minutes.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.annotation_minutes", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="F", help="folder of results, table and plot")
    parser.add_argument(
        "--seeds", type=whole_number(1), default=1, metavar="N", help="of each arm (default: %(default)s)"
    )
    arms = "; ".join(f"{name}: {arm.title}" for name, arm in ARMS.items())
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM", help=arms)
    parser.add_argument(
        "--scans", type=whole_number(1), metavar="N", help="to annotate at most (default: all training cases)"
    )
    parser.add_argument(
        "--minutes", type=number(0, above=True), metavar="M", help="after which no further scan is begun"
    )
    parser.add_argument(
        "--test-scans", type=whole_number(1), metavar="N", help="that score networks (default: all test cases)"
    )
    parser.add_argument(
        "--conf", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a setting of the server"
    )
    return parser


if __name__ == "__main__":
    main()
