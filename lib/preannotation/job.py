"""Describe a run of the pre-annotation to its workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib.training.model_folder import ModelFolder


@dataclass(frozen=True)
class Job:
    """Parameters of a run. Each worker opens the studies and loads the model itself, from shared folders.

    Attributes:
        studies: folder of images, or URL of a DICOMweb archive without a login.
        project_dir: absolute path of the folder of annotations.
        project_id: id of that project; a worker whose folder has another id refuses to work.
        model_dir: absolute path of the folder of models.
        labels: labels of the app and the model.
        model_version, model_sha256: model that makes the masks.
        crf: see `lib.inference.automatic_mask.automatic_mask`.
        modalities: modalities of the series to list in an archive.
        readers: number of readers of each study.
        max_volume_gb: size of the largest image that is read.
        group: let the owner's group read the files.
        gpu_memory_share: share of a GPU's memory for all workers on it together.
    """

    studies: str
    project_dir: str
    project_id: str
    model_dir: str
    labels: tuple[str, ...]
    model_version: int
    model_sha256: str
    crf: bool | None = None
    modalities: tuple[str, ...] = ("MR", "CT")
    readers: int = 1
    max_volume_gb: float = 4.0
    group: bool = False
    gpu_memory_share: float = 1.0

    @property
    def models(self) -> ModelFolder:
        return ModelFolder(Path(self.model_dir))
