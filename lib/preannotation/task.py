"""Segment one study in a worker, from its image to its proposal on disk."""

from __future__ import annotations

import math
import os
import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from distributed import get_worker
from fastapi import HTTPException

from lib.annotations.image_identity import Stamp, file_stamp, voxel_checksum
from lib.annotations.mask_file import MaskRecord
from lib.annotations.names import check_image_id, label_values
from lib.annotations.proposal import MAKER, PROPOSAL_TAG, Proposal
from lib.data.grid import network_image
from lib.geometry.volume import Volume, VolumeError, load_volume
from lib.geometry.volume_files import EXTENSIONS
from lib.geometry.volume_size import MAX_VOLUME_VARIABLE
from lib.inference.automatic_mask import refined_on_scan
from lib.inference.prediction import label_map_on_scan, predict_on_grid
from lib.inference.quality import mask_quality
from lib.networks.checkpoint import CheckpointError, TrainedModel, load_checkpoint
from lib.networks.versions import ModelVersions
from lib.preannotation.job import Job
from lib.preannotation.wanted import is_settled, is_to_be_proposed, stored_proposal
from lib.server.archive.series_images import series_and_volume
from lib.server.jobs.proposal_progress import Outcome
from lib.server.process.modes import set_umask
from lib.server.project import Project, project_id
from lib.server.studies.archive_studies import ArchiveStudies
from lib.server.studies.datastore import Studies
from lib.server.studies.folder_studies import FolderStudies
from lib.server.studies.open_studies import open_studies

LIST_TIMEOUT_S = 600.0
"""For the list of all series of an archive."""


class WorkerError(RuntimeError):
    """An error of the worker, not of the study, which may be tried elsewhere or later; its text says why."""


@dataclass(frozen=True, eq=False)
class _Opened:
    """What a worker keeps open between studies."""

    studies: Studies
    model: TrainedModel
    device: torch.device


def check(job: Job) -> None:
    """Opens what the job needs. Raises: WorkerError."""
    _opened(job)


def propose(image_id: str, job: Job) -> Outcome:
    """Segments a study and stores the mask as its proposal, whole or not at all.

    Raises:
        WorkerError: it could not be done here and now; the scheduler tries again, perhaps elsewhere.
    """
    opened, start = _opened(job), time.perf_counter()
    if _is_done(opened, image_id, None):
        return Outcome(image_id, "kept")
    try:
        path, stamp = _image(opened.studies, image_id)
        try:
            volume = load_volume(path)
        finally:
            if not isinstance(opened.studies, FolderStudies):
                path.unlink(missing_ok=True)  # the archive keeps it; the disk may not hold all images
        stored, quality = _segment_and_store(opened, job, image_id, volume, stamp)
    except HTTPException as error:
        if error.status_code >= 500:
            raise WorkerError(str(error.detail)) from error
        images = _images_of_series(opened.studies, image_id)
        if images:
            return Outcome(image_id, "divided", images=images)
        return Outcome(image_id, "failed", str(error.detail))
    except (VolumeError, ValueError) as error:
        return Outcome(image_id, "failed", str(error))
    except OSError as error:
        raise WorkerError(f"A file cannot be read or written ({error.strerror}).") from error
    return Outcome(image_id, "stored" if stored else "kept", "", (), quality, time.perf_counter() - start)


def _segment_and_store(
    opened: _Opened, job: Job, image_id: str, volume: Volume, stamp: Stamp | None
) -> tuple[bool, float]:
    """Returns: whether the mask was still wanted, and its quality. Raises: VolumeError; BrokenModelError; OSError."""
    model = opened.model
    voxels, affine = network_image(volume, model.spec.spacing_mm)
    probability = predict_on_grid(model, voxels, opened.device)
    mask = drawn = label_map_on_scan(probability, affine, volume.geometry)
    if model.crf if job.crf is None else job.crf:
        mask = refined_on_scan(drawn, probability, affine, volume)
    quality = round(mask_quality(model, voxels, probability, drawn, mask, opened.device), 4)
    proposal = Proposal(model.version, str(model.sha256), model.score, quality, stamp)
    record = MaskRecord(
        label_values(job.labels), MAKER, image_checksum=voxel_checksum(volume.array), info=proposal.info()
    )
    stored = opened.studies.masks(PROPOSAL_TAG).save_if(
        image_id, Volume(mask, volume.geometry), record, lambda: not _is_done(opened, image_id, stamp)
    )
    return stored, quality


def _is_done(opened: _Opened, image_id: str, stamp: Stamp | None) -> bool:
    """Has the study been skipped, annotated or proposed meanwhile?"""
    if is_settled(opened.studies, image_id):
        return True
    image = _file_in(opened.studies.folder, image_id) if isinstance(opened.studies, FolderStudies) else None
    return not is_to_be_proposed(stored_proposal(opened.studies, image_id), opened.model, image)


def _image(studies: Studies, image_id: str) -> tuple[Path, Stamp | None]:
    """The file of an image, and its stamp where it stays.

    Raises: HTTPException: there is none, or the archive does not give it.
    """
    if not isinstance(studies, FolderStudies):
        return Path(studies.get_image_uri(image_id)), None
    path = _file_in(studies.folder, image_id)
    if path is None:
        raise HTTPException(404, "Its file is gone.")
    return path, file_stamp(path)


def _file_in(folder: Path, image_id: str) -> Path | None:
    """The file of an image, as `FolderStudies` chooses it, without listing the others."""
    check_image_id(image_id)
    candidates = (folder / f"{image_id}{extension}" for extension in EXTENSIONS)
    return next((path for path in candidates if path.is_file()), None)


def _images_of_series(studies: Studies, image_id: str) -> tuple[str, ...]:
    """The images of a series that is none itself, as it was found to hold several; empty of any other image."""
    if isinstance(studies, FolderStudies):
        return ()
    uid = series_and_volume(image_id)[0]
    images = [image for image in studies.list_images() if series_and_volume(image)[0] == uid]
    return () if image_id in images else tuple(images)


@lru_cache(maxsize=1)
def _opened(job: Job) -> _Opened:
    """Raises: WorkerError: the studies, the project or the model are not here."""
    set_umask(job.group)
    os.environ[MAX_VOLUME_VARIABLE] = str(job.max_volume_gb)
    torch.set_num_threads(1)
    project = Project(Path(job.project_dir))
    if project_id(project) != job.project_id:  # before a folder is made in a share that is not mounted
        raise WorkerError(f"The folder {project.folder} does not hold the project here; mount it on this machine.")
    try:
        studies = open_studies(
            job.studies,
            job.labels,
            project.folder,
            modalities=job.modalities,
            readers=job.readers,
            cache=Path(_own_folder()),
        )
        if isinstance(studies, ArchiveStudies):
            studies.listing.wait(LIST_TIMEOUT_S)
            studies.listing.expires_s = math.inf
    except (RuntimeError, ValueError) as error:
        raise WorkerError(str(error)) from error
    device = _device(job.gpu_memory_share)
    return _Opened(studies, _model(job, device), device)


@lru_cache(maxsize=1)
def _own_folder() -> str:
    """For the images of an archive, while they are worked on."""
    folder = tempfile.TemporaryDirectory(prefix="inextremis-worker-")
    _KEPT.append(folder)
    return folder.name


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def _model(job: Job, device: torch.device) -> TrainedModel:
    """The one that the run began with, though another may be published by now."""
    versions = ModelVersions(job.model_path)
    for path in (versions.path(job.model_version), job.model_path):
        try:
            model = load_checkpoint(path, device)
        except (FileNotFoundError, CheckpointError):
            continue
        if model.sha256 == job.model_sha256:
            return model
    raise WorkerError(f"Version {job.model_version} of the model is not in {job.model_dir} here; start again.")


def _device(memory_share: float) -> torch.device:
    """A GPU of its own where there is one a worker: by the worker's number, unless CUDA_VISIBLE_DEVICES chose it."""
    count = torch.cuda.device_count()
    if not count:
        return torch.device("cpu")
    try:
        number = int(get_worker().name)
    except (ValueError, TypeError):  # no worker, or one that somebody named
        number = 0
    device = torch.device("cuda", number % count)
    torch.cuda.set_per_process_memory_fraction(memory_share, device)
    return device
