"""Annotated scans, and the patches of them that a network is trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchio as tio
from torch.utils.data import DataLoader, RandomSampler

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Annotation
from lib.data.augmentation import Augmentation, augment
from lib.data.clicks import CLICKS, IMAGE, MASK, POSSIBLE, WorldClicks
from lib.data.grid import check_grid_size, network_grid, to_scalar_image
from lib.data.sampling import AnnotatedPatchSampler
from lib.geometry.volume import Volume, VolumeError, load_volume
from lib.supervision.boxes import relaxed_boxes

logger = logging.getLogger(__name__)

# Of each scan that is read: more would be cheaper, fewer more varied.
PATCHES_PER_SCAN = 4
# Memory that a scan and its mask take at most while they are brought onto the network's grid: 23 bytes were measured
# for the image alone.
_BYTES_PER_VOXEL = 32


@dataclass(frozen=True)
class AnnotatedScan:
    """An image file with the clicks on its structures, or with a mask of all of them.

    Attributes:
        image_id: its name in the datastore.
        image_path: the file; the clicks and the mask lie on its grid.
        annotations: one for each structure that was clicked.
        mask_path: a mask (0 background, c = label index) that supervises every voxel; the clicks are then
            used only to place patches.
    """

    image_id: str
    image_path: Path
    annotations: tuple[Annotation, ...] = ()
    mask_path: Path | None = None


@dataclass(frozen=True)
class PatchBatch:
    """Patches with what is known about them.

    Attributes:
        image: (B, 1, X, Y, Z) float32, of mean 0 and deviation 1 over each whole scan.
        points: for each patch, the clicks of each structure in voxels of the patch; they may lie outside it.
        possible: (B, X, Y, Z) bool, inside the relaxed box of a clicked structure (paper, Section 3.1).
        masks: for each patch, (X, Y, Z) int64 label indices, or None where there are only clicks.
    """

    image: torch.Tensor
    points: list[list[ExtremePoints]]
    possible: torch.Tensor
    masks: list[torch.Tensor | None]


class ScanDataset(torch.utils.data.Dataset):
    """Reads one scan at a time, on the network's grid, so that memory does not grow with the number of scans.

    Args:
        margin_voxels: of the network's grid, by which the tight boxes are relaxed (paper: r = 4).
    """

    def __init__(
        self,
        scans: Sequence[AnnotatedScan],
        spacing_mm: tuple[float, float, float],
        roi_size: tuple[int, int, int],
        margin_voxels: int,
    ) -> None:
        self.scans = scans
        self.spacing_mm = spacing_mm
        self.margin_voxels = margin_voxels
        self._left_out: set[int] = set()
        self.transform = tio.Compose([network_grid(spacing_mm), PadToAtLeast(roi_size)])

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> tio.Subject:
        """A scan; one that cannot be read or prepared is named in the log, left out, and the next one taken.

        Raises:
            VolumeError: none is left.
        """
        for offset in range(len(self.scans)):
            position = (index + offset) % len(self.scans)
            if position in self._left_out:
                continue
            scan = self.scans[position]
            try:
                return self._subject(scan)
            except VolumeError as error:
                self._left_out.add(position)
                logger.warning("The scan %s is left out of the training. %s", scan.image_id, error)
        raise VolumeError("There is nothing to learn from: none of the scans can be used; the log says why, for each.")

    def _subject(self, scan: AnnotatedScan) -> tio.Subject:
        volume = load_volume(scan.image_path)
        check_grid_size(volume.geometry, self.spacing_mm, _BYTES_PER_VOXEL)
        subject = _subject(scan, volume)
        try:
            return self._prepared(subject)
        except Exception as error:  # TorchIO and ITK raise what they like; a training goes on with the other scans
            raise VolumeError(f"It cannot be brought onto the network's grid ({error!r}).") from error

    def _prepared(self, stored: tio.Subject) -> tio.Subject:
        subject: Any = self.transform(stored)
        image = subject[IMAGE]
        structures = [clicks.on_grid(image.affine).foreground_voxel for clicks in subject[CLICKS]]
        possible = relaxed_boxes(image.spatial_shape, structures, self.margin_voxels)
        # A volume, and no longer a box: a warped box is none.
        subject.add_image(tio.LabelMap(tensor=torch.from_numpy(possible)[None].byte(), affine=image.affine), POSSIBLE)
        return subject

    def dry_iter(self) -> Sequence[AnnotatedScan]:
        """What `torchio.Queue` counts, without reading a file."""
        return self.scans


class PadToAtLeast(tio.Transform):
    """Pads scans smaller than a patch with their mean intensity, which is 0 on the network's grid."""

    def __init__(self, roi_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.roi_size = roi_size

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        size = tuple(max(a, b) for a, b in zip(subject.spatial_shape, self.roi_size, strict=True))
        return tio.CropOrPad(size, padding_mode=0)(subject) if size != subject.spatial_shape else subject


def _subject(scan: AnnotatedScan, volume: Volume) -> tio.Subject:
    images: dict[str, tio.Image] = {IMAGE: to_scalar_image(volume.array, volume.geometry)}
    if scan.mask_path is not None:
        mask = load_volume(scan.mask_path)
        images[MASK] = tio.LabelMap(tensor=torch.from_numpy(mask.array)[None], affine=volume.geometry.affine_ras)
    return tio.Subject(**images, **{CLICKS: [WorldClicks.of(annotation) for annotation in scan.annotations]})


def patch_loader(
    scans: Sequence[AnnotatedScan],
    *,
    spacing_mm: tuple[float, float, float],
    roi_size: tuple[int, int, int],
    batch_size: int,
    patches_per_epoch: int,
    annotated_fraction: float,
    margin_voxels: int,
    augmentation: Augmentation = "flip",
) -> DataLoader:
    """Batches of randomly placed and augmented patches; an epoch has about `patches_per_epoch` of them.

    Args:
        annotated_fraction: share (0 to 1) of patches that are placed to hold clicked voxels.
        margin_voxels: by which the tight boxes are relaxed.
    """
    per_scan = min(PATCHES_PER_SCAN, patches_per_epoch)
    dataset = ScanDataset(scans, spacing_mm, roi_size, margin_voxels)
    queue = tio.Queue(
        dataset,  # type: ignore[arg-type]
        max_length=max(per_scan, 4 * batch_size),
        samples_per_volume=per_scan,
        sampler=AnnotatedPatchSampler(roi_size, annotated_fraction),
        subject_sampler=RandomSampler(dataset, num_samples=-(-patches_per_epoch // per_scan)),
        shuffle_subjects=False,
        num_workers=0,
    )
    return DataLoader(
        queue,
        batch_size=batch_size,
        collate_fn=lambda patches: collate([augment(patch, augmentation) for patch in patches]),
    )


def collate(patches: Sequence[Any]) -> PatchBatch:
    """Subjects of one spatial shape to a batch."""
    return PatchBatch(
        image=torch.stack([patch[IMAGE].data for patch in patches]).float(),
        points=[[clicks.on_grid(patch[IMAGE].affine) for clicks in patch[CLICKS]] for patch in patches],
        possible=torch.stack([patch[POSSIBLE].data[0].bool() for patch in patches]),
        masks=[patch[MASK].data[0].long() if MASK in patch else None for patch in patches],
    )
