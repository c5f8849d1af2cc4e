"""Segment every study without a final mask with the published model, and store the masks as proposals.

The same command continues a run that was interrupted. Exit status: 0, all studies are done; 1, the named studies
failed; 2, the run could not start or continue; 130, Ctrl-C ended it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lib.annotations.proposal import PROPOSAL_TAG
from lib.configs.settings import AppSettings, ConfigurationError, read_conf
from lib.geometry.volume_size import MAX_VOLUME_VARIABLE
from lib.networks.checkpoint import CheckpointError, TrainedModel, load_checkpoint
from lib.preannotation.cluster import ClusterError, is_open_to_others, workers
from lib.preannotation.job import Job
from lib.preannotation.outcomes import check_workers, outcomes
from lib.preannotation.pending import pending_studies
from lib.preannotation.task import LIST_TIMEOUT_S
from lib.server.archive.archive_errors import ArchiveError
from lib.server.audit import AuditLog
from lib.server.jobs.proposal_progress import Progress as ProgressFile
from lib.server.launch import StartError, require_studies
from lib.server.process.modes import set_umask
from lib.server.project import Project, ProjectError, project_of
from lib.server.studies.archive_studies import ArchiveStudies
from lib.server.studies.datastore import Studies
from lib.server.studies.open_studies import open_studies
from lib.trainers.background import end_with_server, is_child_of_server
from lib.training.model_folder import ModelFolder
from scripts.terminal import add_conf, add_studies, complain, console, errors, refuse, script_parser, whole_number

EXAMPLE = """%(prog)s studies --limit 20
%(prog)s http://localhost:8042/dicom-web --conf project_dir /absolute/folder"""
STRATEGIES = ("first", "random")
CRF = {"auto": None, "true": True, "false": False}

_ended = threading.Event()


class RefusedError(RuntimeError):
    """The run cannot begin; the text is for the user."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if is_child_of_server():
        end_with_server()
        os.nice(10)  # people wait for the server
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, _interrupt)
    try:
        return _run(options)
    except (RefusedError, ConfigurationError, StartError, ProjectError, ArchiveError, ClusterError) as error:
        return refuse(str(error))
    except KeyboardInterrupt:
        complain("Interrupted. Stored proposals stay; the same command continues.")
        return 130


def _run(options: argparse.Namespace) -> int:
    conf = dict(options.conf)
    studies_name = require_studies(options.studies, conf.get("project_dir"))
    settings, _ = read_conf(conf)
    set_umask(group=settings.file_access == "group")
    os.environ[MAX_VOLUME_VARIABLE] = str(settings.max_volume_gb)
    project = project_of(studies_name, settings.project_dir)
    model_dir = settings.model_dir or project.model
    model = _model(model_dir)
    labels = settings.labels if "labels" in conf else model.spec.labels
    if labels != model.spec.labels:
        raise RefusedError(
            f"The model was trained for the labels {', '.join(model.spec.labels)}, and --conf labels is "
            f"{', '.join(labels)}; give the same, or leave them out."
        )
    studies = open_studies(
        studies_name, labels, project.folder, modalities=settings.modalities, readers=settings.n_readers
    )
    if isinstance(studies, ArchiveStudies):
        studies.listing.wait(LIST_TIMEOUT_S)
    job = _job(studies_name, studies, model, model_dir, settings)
    try:
        with FileLock(project.pre_annotation_lock, timeout=2):
            return _pre_annotate(options, studies, model, job)
    except Timeout as error:
        raise RefusedError("The studies of this project are being pre-annotated already; wait, or end that.") from error


def _model(model_dir: Path) -> TrainedModel:
    try:
        return load_checkpoint(ModelFolder(model_dir).published)
    except FileNotFoundError as error:
        raise RefusedError(
            f"There is no trained model in {model_dir} yet: click extreme points in a few studies and start the "
            "training, or name the folder with --conf model_dir /absolute/folder."
        ) from error
    except CheckpointError as error:
        raise RefusedError(f"{error} Train again, or roll back (scripts/models.sh).") from error


def _job(name: str, studies: Studies, model: TrainedModel, model_dir: Path, settings: AppSettings) -> Job:
    return Job(
        studies=name,
        project_dir=str(studies.project.folder),
        project_id=studies.identity.id,
        model_dir=str(model_dir),
        labels=studies.labels,
        model_version=model.version,
        model_sha256=str(model.sha256),
        crf=CRF[settings.test_time_crf],
        modalities=settings.modalities,
        readers=settings.n_readers,
        max_volume_gb=settings.max_volume_gb,
        group=settings.file_access == "group",
        gpu_memory_share=settings.gpu_memory_share if is_child_of_server() else 1.0,
    )


def _pre_annotate(options: argparse.Namespace, studies: Studies, model: TrainedModel, job: Job) -> int:
    studies.masks(PROPOSAL_TAG).clear_unfinished()
    images = _chosen(pending_studies(studies, model), options)
    progress = ProgressFile(studies.project.pre_annotation, model.version, len(images))
    if not images:
        return _end(studies.project, progress, 0.0)
    if options.scheduler and is_open_to_others(options.scheduler):
        errors.print(
            "Anyone who reaches a scheduler without TLS can run code on its workers; see docs/pre_annotation.md."
        )
    start = time.monotonic()
    try:
        with workers(options.scheduler, options.workers) as client:
            if find_spec("bokeh"):  # which dask draws it with
                errors.print(f"Dask's dashboard: {client.dashboard_link}", highlight=False, soft_wrap=True)
            check_workers(client, job)
            with _bar() as bar:
                shown = bar.add_task("Segmenting", total=len(images))
                for outcome in outcomes(client, images, job):
                    if _ended.is_set():  # the interrupt was raised where Python swallows it, such as in a callback
                        raise KeyboardInterrupt
                    progress.add(outcome)
                    bar.update(shown, completed=progress.done, total=progress.total)
    except ClusterError as error:
        progress.end(str(error))
        raise
    except KeyboardInterrupt:
        progress.end("It was interrupted. Stored proposals stay.")
        raise
    except BaseException as error:
        progress.end(f"It ended early ({type(error).__name__}).")
        raise
    return _end(studies.project, progress, time.monotonic() - start)


def _chosen(images: list[str], options: argparse.Namespace) -> list[str]:
    if options.strategy == "random":
        random.shuffle(images)
    return images if options.limit is None else images[: options.limit]


def _end(project: Project, progress: ProgressFile, seconds: float) -> int:
    for image_id, reason in progress.failed:
        complain(f"{image_id}: {reason}")
    stored, failed = progress.counts["stored"], len(progress.failed)
    sentence = f"{stored} proposals stored in {seconds:.0f} s" if progress.total else "No study is left to segment"
    if kept := progress.counts["kept"]:
        sentence += f"; {kept} existed already"
    sentence += f"; {failed} studies failed." if failed else "."
    progress.end(sentence)
    console.print(sentence, highlight=False)
    if progress.total:
        AuditLog(project.audit).write_script("proposals", "scripts/pre_annotate.sh", stored=stored, failed=failed)
    return 1 if failed else 0


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, signal.SIG_IGN)  # the workers are ending
    _ended.set()
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__file__, __doc__, EXAMPLE)
    add_studies(parser)
    add_conf(parser)
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="address of a running dask scheduler, tcp://... or tls://..."
    )
    parser.add_argument(
        "--workers", type=whole_number(1), metavar="N", help="workers on this machine (default: one a GPU, or a core)"
    )
    parser.add_argument("--strategy", choices=STRATEGIES, default="first", help="order (default: %(default)s)")
    parser.add_argument("--limit", type=whole_number(1), metavar="N", help="segment at most N studies")
    return parser


if __name__ == "__main__":
    sys.exit(main())
