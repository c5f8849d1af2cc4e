"""Describe a run of the pre-annotation to its workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """Names and numbers only: a worker opens the studies and loads the model itself, from the common store.

    Attributes:
        studies: folder of images, or address of a DICOMweb archive without a login in it.
        project_dir: absolute folder of the annotations.
        project_id: of that project; a worker whose folder holds another one does nothing.
        model_dir: absolute folder of the models.
        labels: of the app, which are the model's.
        model_version, model_sha256: of the model that the masks are made with.
        crf: as `lib.inference.automatic_mask.automatic_mask` takes it.
        modalities: of the series of an archive.
        readers: how many people read each study.
        max_volume_gb: the largest image that is read.
        group: may the owner's group read what is written?
        gpu_memory_share: of a GPU's memory, that all workers on it may take together.
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
    def model_path(self) -> Path:
        """File of the published model."""
        return Path(self.model_dir) / "inextremis.pt"
