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
from lib.preannotation.job import Job
from lib.preannotation.pending import is_settled, needs_proposal, stored_proposal
from lib.server.archive.series_images import series_and_volume
from lib.server.jobs.proposal_progress import Outcome
from lib.server.process.modes import set_umask
from lib.server.project import Project, project_id
from lib.server.studies.archive_studies import ArchiveStudies
from lib.server.studies.datastore import Studies
from lib.server.studies.folder_studies import FolderStudies
from lib.server.studies.open_studies import open_studies

LIST_TIMEOUT_S = 600.0
"""Time-out for the list of all series of an archive."""


class WorkerError(RuntimeError):
    """Error of the worker, not of the study, with a message for the user; another worker may succeed."""


@dataclass(frozen=True, eq=False)
class _Opened:
    """Studies and model that a worker keeps open."""

    studies: Studies
    model: TrainedModel
    device: torch.device


def check(job: Job) -> None:
    """Open the studies and load the model.

    Raises:
        WorkerError: they cannot be opened on this machine.
    """
    _opened(job)


def propose(image_id: str, job: Job) -> Outcome:
    """Segment a study and store the mask as its proposal, in one step.

    Raises:
        WorkerError: the worker failed; the scheduler tries again, perhaps on another worker.
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
                path.unlink(missing_ok=True)  # the images of an archive may not fit on the disk
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
    """Segment a volume and store the mask.

    Returns:
        Whether the mask was stored, as the study may be done meanwhile, and its estimated quality.

    Raises:
        VolumeError: the volume cannot be segmented.
        BrokenModelError: the output of the network is not finite.
        OSError: the mask cannot be written.
    """
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
    """Tell whether the study was skipped, annotated or proposed meanwhile."""
    if is_settled(opened.studies, image_id):
        return True
    image = _file_in(opened.studies.folder, image_id) if isinstance(opened.studies, FolderStudies) else None
    return not needs_proposal(stored_proposal(opened.studies, image_id), opened.model, image)


def _image(studies: Studies, image_id: str) -> tuple[Path, Stamp | None]:
    """Return the file of an image, and its stamp if it is a file of the user.

    Raises:
        HTTPException: the file is missing, or the archive does not send it.
    """
    if not isinstance(studies, FolderStudies):
        return Path(studies.get_image_uri(image_id)), None
    path = _file_in(studies.folder, image_id)
    if path is None:
        raise HTTPException(404, "Its file is missing.")
    return path, file_stamp(path)


def _file_in(folder: Path, image_id: str) -> Path | None:
    """Return the file of an image, as `FolderStudies` does, without listing the folder."""
    check_image_id(image_id)
    candidates = (folder / f"{image_id}{extension}" for extension in EXTENSIONS)
    return next((path for path in candidates if path.is_file()), None)


def _images_of_series(studies: Studies, image_id: str) -> tuple[str, ...]:
    """Return the images of a series that has several; empty if the id is that of an image."""
    if isinstance(studies, FolderStudies):
        return ()
    uid = series_and_volume(image_id)[0]
    images = [image for image in studies.list_images() if series_and_volume(image)[0] == uid]
    return () if image_id in images else tuple(images)


@lru_cache(maxsize=1)
def _opened(job: Job) -> _Opened:
    """Open the studies and load the model, once per job.

    Raises:
        WorkerError: the studies, the project or the model are not available on this machine.
    """
    set_umask(job.group)
    os.environ[MAX_VOLUME_VARIABLE] = str(job.max_volume_gb)
    torch.set_num_threads(1)
    project = Project(Path(job.project_dir))
    if project_id(project) != job.project_id:  # checked first, so that no folder is made in an unmounted share
        raise WorkerError(f"The folder {project.folder} does not contain the project; mount it on this machine.")
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
    """Make a temporary folder for the images of an archive, once per worker."""
    folder = tempfile.TemporaryDirectory(prefix="inextremis-worker-")
    _KEPT.append(folder)
    return folder.name


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def _model(job: Job, device: torch.device) -> TrainedModel:
    """Load the model that the run began with, even if another one has been published since.

    Raises:
        WorkerError: the model does not exist any more.
    """
    versions = job.models.versions
    for path in (versions.path(job.model_version), job.models.published):
        try:
            model = load_checkpoint(path, device)
        except (FileNotFoundError, CheckpointError):
            continue
        if model.sha256 == job.model_sha256:
            return model
    raise WorkerError(f"Version {job.model_version} of the model is not in {job.model_dir} here; start again.")


def _device(memory_share: float) -> torch.device:
    """Choose the GPU by the number of the worker; the CPU without GPUs."""
    count = torch.cuda.device_count()
    if not count:
        return torch.device("cpu")
    try:
        number = int(get_worker().name)
    except (ValueError, TypeError):  # no worker, or one with a custom name
        number = 0
    device = torch.device("cuda", number % count)
    torch.cuda.set_per_process_memory_fraction(memory_share, device)
    return device
