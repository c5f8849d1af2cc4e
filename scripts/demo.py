"""Show the main steps on demo studies: six clicks to a mask, training in the background, masks without clicks.

With --dicom, the demo starts a DICOMweb archive with the studies, and you click in the browser.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from monailabel.client.client import MONAILabelClientException
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lib.demo.demo_studies import MANIFEST, write_demo_studies
from lib.demo.dicom import upload_studies
from lib.demo.local_server import LocalServer, ServerError, is_free
from lib.demo.orthanc import Orthanc, OrthancError, install_where_allowed
from lib.demo.picture import draw_outcomes
from lib.demo.walkthrough import (
    Outcome,
    ScriptedAnnotator,
    TrainingFailedError,
    read_truth,
    walk_through,
    write_scores,
)
from lib.server.project import Project
from scripts.terminal import complain, console, refuse, script_parser

EXAMPLE = """%(prog)s --quick
%(prog)s --dicom --port 8001"""
OHIF_PORT = 8000


@dataclass(frozen=True)
class Scope:
    """Numbers of studies that are clicked and that are not, and the settings of the training."""

    clicked: int
    unseen: int
    training: Mapping[str, Any]


FULL = Scope(clicked=10, unseen=4, training={"max_minutes": 4})
QUICK = Scope(clicked=5, unseen=3, training={"iterations": 200})


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    parser.add_argument("--quick", action="store_true", help="fewer studies, a shorter training: under 3 minutes")
    parser.add_argument(
        "--dicom", action="store_true", help="put the studies into an Orthanc and open them in OHIF, to click yourself"
    )
    parser.add_argument("--no-serve", action="store_true", help="stop the server at the end")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default: %(default)s)")
    parser.add_argument("--port", type=int, help="port of the server (default: a free one)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the demo (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    out: Path = options.out.absolute()
    scope = QUICK if options.quick else FULL
    studies_dir, truth_dir = out / "studies", out / "truth"
    try:
        _remove_earlier_run(out)
        studies = _make_studies(studies_dir, truth_dir, scope.clicked + scope.unseen)
    except (ValueError, OSError) as error:
        return refuse(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # A shell that starts the demo in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if options.dicom:
        return _demo_dicom(out, studies_dir, studies, options)
    console.print("Starting the server ...")
    server = LocalServer(studies_dir, {"model_dir": str(out / "model")}, out / "server.log", options.port)
    try:
        server.wait_until_ready()
        outcomes = [read_truth(truth_dir, study) for study in studies]
        walk_through(
            ScriptedAnnotator(server.url, out),
            outcomes,
            scope.clicked,
            {**scope.training, "seed": options.seed},
            say=console.print,
            show_training=_show_training,
        )
        _report(out, studies_dir, outcomes, scope.clicked)
        if not options.no_serve:
            _serve(server, studies_dir, studies[scope.clicked])
    except (ServerError, TrainingFailedError, MONAILabelClientException) as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
    finally:
        server.stop()
    return 0


def _remove_earlier_run(out: Path) -> None:
    """Remove the model and the clicks of an earlier demo; keep its studies.

    Raises:
        ValueError: the folder holds files that are not of a demo.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()) and not (out / "truth" / MANIFEST).exists():
        raise ValueError(f"The folder {out} holds other files than a demo's; choose another with --out.")
    project = Project(out / "studies")
    for leftover in (out / "model", project.labels, project.removed, project.logs, project.own, out / "dicom"):
        shutil.rmtree(leftover, ignore_errors=True)
    project.old_index.unlink(missing_ok=True)


def _make_studies(studies_dir: Path, truth_dir: Path, count: int) -> list[str]:
    with Progress(TextColumn("Making demo studies"), BarColumn(), TextColumn("{task.completed}/{task.total}")) as bar:
        task = bar.add_task("", total=count)
        return write_demo_studies(studies_dir, truth_dir, count, progress=lambda done: bar.update(task, completed=done))


def _show_training(figures: Iterator[dict[str, Any]]) -> None:
    columns = (TextColumn("Training in the background"), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("starting", total=None)
        for stats in figures:
            if "loss" in stats:  # from the first report on
                reached = f"iteration {stats['iteration']}, loss {stats['loss']:.2f}"
                bar.update(task, completed=stats["epoch"], total=stats["total_epochs"], description=reached)


def _report(out: Path, studies_dir: Path, outcomes: list[Outcome], clicked: int) -> None:
    table = Table(title="Dice against the truth")
    for column in ("study", "mask from six clicks", "automatic before training", "automatic after training"):
        table.add_column(column, justify="left" if column == "study" else "right")
    for group, name in ((outcomes[:clicked], "mean, clicked"), (outcomes[clicked:], "mean, never clicked")):
        rows = [[o.dice(mask) for mask in (o.click_mask, o.automatic_before, o.automatic_after)] for o in group]
        for outcome, row in zip(group, rows, strict=True):
            table.add_row(outcome.study, *map(_cell, row))
        table.add_row(name, *map(_cell, map(_mean, zip(*rows, strict=True))), style="bold", end_section=True)
    console.print(table)
    write_scores(out / "scores.json", outcomes)
    picture = out / "demo.png"
    draw_outcomes(picture, outcomes[:2] + outcomes[clicked : clicked + 2], studies_dir)
    console.print(f"Picture: {picture}   Figures: {out / 'scores.json'}   Server's log: {out / 'server.log'}")


def _mean(scores: tuple[float | None, ...]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def _cell(score: float | None) -> str:
    return "none" if score is None else f"{score:.2f}"


def _serve(server: LocalServer, studies_dir: Path, study: str) -> None:
    console.print(f"\nAnnotate in a browser: {_page_of(server, study)}", soft_wrap=True)
    console.print(f"In 3D Slicer, enter {server.url} in the MONAI Label module; the studies are in", studies_dir)
    console.print("Press Ctrl-C to stop it.")
    server.process.wait()


def _page_of(server: LocalServer, image: str) -> str:
    """Return the address of the annotation page with an image open."""
    return f"{server.url}/annotate#{quote(image)}"


def _demo_dicom(out: Path, studies_dir: Path, studies: list[str], options: argparse.Namespace) -> int:
    """Serve the studies from an Orthanc until Ctrl-C, and return the exit status."""
    folder = out / "dicom"
    # OHIF's panel connects to this port by default.
    port = options.port or (OHIF_PORT if is_free(OHIF_PORT) else None)
    try:
        install_where_allowed()
        with Orthanc(folder / "orthanc") as orthanc:
            console.print("Sending the studies to Orthanc ...")
            uploaded = list(upload_studies(studies_dir, studies, orthanc.dicomweb_url))
            console.print("Starting the server ...")
            conf = {"model_dir": str(out / "model")}
            environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache")}
            log = out / "server.log"
            with LocalServer(orthanc.dicomweb_url, conf, log, port, environment) as server:
                _tell_how_to_click(server, orthanc, *uploaded[0])
                if not options.no_serve:
                    server.process.wait()
    except (OrthancError, ServerError, OSError) as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped, and Orthanc with it.")
    return 0


def _tell_how_to_click(server: LocalServer, orthanc: Orthanc, study_uid: str, series_uid: str) -> None:
    console.print(f"\nAnnotate in a browser: {_page_of(server, series_uid)}", soft_wrap=True)
    console.print(
        f"The same study in OHIF: {server.url}/ohif/monai-label?StudyInstanceUIDs={study_uid}", soft_wrap=True
    )
    console.print(f"All studies in OHIF: {server.url}/ohif/   Orthanc: {orthanc.url}", soft_wrap=True)
    console.print(f"In the panel MONAI Label, check that the server is {server.url}, and press the button beside it.")
    console.print("Under Point Prompts choose the lesion, click its six extreme points in any of the views, press Run.")
    console.print(
        "After a few studies, Update Model under Active Learning trains; Auto-Segmentation then needs no click."
    )
    console.print("Press Ctrl-C to stop the server and Orthanc.")


if __name__ == "__main__":
    sys.exit(main())
