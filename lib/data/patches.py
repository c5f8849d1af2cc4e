"""Draw random patches of annotated scans."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.data.annotated_scan import AnnotatedScan
from lib.data.augmentation import Augmentation, Axes, random_intensities, random_matrix
from lib.data.clicks import clicks_on_grid
from lib.data.patch_map import PatchMap, Size
from lib.data.prepared_scans import PreparedVolume
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.boxes import Box
from lib.geometry.volume import VolumeError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patch:
    """A patch of a scan with its annotations.

    Attributes:
        image: (X, Y, Z) float32, of mean 0 and deviation 1 over the whole scan.
        points: clicks of each structure in voxels of the patch, inside or outside it.
        boxes: for each structure, (X, Y, Z) bool, True inside its relaxed box (paper, Section 3.1).
        absent: labels that are not in the scan.
        mask: (X, Y, Z) uint8 label indices of an accepted mask, or None.
        mask_labels: labels that the mask covers.
        click_mask: (X, Y, Z) uint8 label indices of the click masks; None without, or if `mask` covers all labels.
    """

    image: torch.Tensor
    points: tuple[ExtremePoints, ...] = ()
    boxes: tuple[torch.Tensor, ...] = ()
    absent: tuple[str, ...] = ()
    mask: torch.Tensor | None = None
    mask_labels: tuple[str, ...] = ()
    click_mask: torch.Tensor | None = None


@dataclass(frozen=True)
class PatchBatch:
    """Patches of one size.

    Attributes:
        image: (B, 1, X, Y, Z) float32.
        patches: the patches with their annotations.
    """

    image: torch.Tensor
    patches: tuple[Patch, ...]

    @classmethod
    def of(cls, patches: Sequence[Patch]) -> PatchBatch:
        return cls(torch.stack([patch.image for patch in patches])[:, None], tuple(patches))

    def pin_memory(self) -> PatchBatch:
        """Pin the memory of the image; called by the data loader."""
        return PatchBatch(self.image.pin_memory(), self.patches)


@dataclass(frozen=True)
class PatchPlan:
    """Parameters of random patches.

    Attributes:
        roi_size: voxels of a patch.
        annotated_fraction: probability, in [0, 1], that a patch is placed on a structure: it contains a voxel of its
            mask, or one between two of its clicks.
        margin_voxels: voxels by which tight boxes are relaxed.
        mirrored: axes along which a patch may be mirrored.
        masked_share: minimum share, in [0, 1], of patches from scans with an accepted mask, if there are any.
    """

    roi_size: Size
    annotated_fraction: float
    margin_voxels: int
    augmentation: Augmentation
    mirrored: Axes = (True, True, True)
    masked_share: float = 0.0


class PatchSource:
    """Source of random patches of scans from the cache of prepared scans."""

    def __init__(self, scans: Sequence[AnnotatedScan], volumes: ScanVolumes, plan: PatchPlan) -> None:
        self.scans = list(scans)
        self.volumes = volumes
        self.plan = plan

    def draw(self) -> Patch:
        """Draw a patch of a random scan; log and remove scans that cannot be read.

        Raises:
            VolumeError: no scan is left.
        """
        while self.scans:
            scan = self._some_scan()
            try:
                return self._patch(scan)
            except VolumeError as error:
                self.scans.remove(scan)
                logger.warning("The scan %s is left out of the training. %s", scan.image_id, error)
        raise VolumeError("There is nothing to learn from: none of the scans can be used; the log says why, for each.")

    def _some_scan(self) -> AnnotatedScan:
        masked = [scan for scan in self.scans if scan.mask_path is not None]
        # Share of masked scans in a uniform draw of scans.
        share = len(masked) / len(self.scans)
        extra = (self.plan.masked_share - share) / (1 - share) if share < self.plan.masked_share else 0.0
        scans = masked if masked and torch.rand(1).item() < extra else self.scans
        return scans[int(torch.randint(len(scans), (1,)))]

    def _patch(self, scan: AnnotatedScan) -> Patch:
        plan, volumes = self.plan, self.volumes
        image, mask = volumes.image(scan), volumes.mask(scan)
        is_covered = all(annotation.label in scan.mask_labels for annotation in scan.annotations)
        click_mask = None if is_covered else volumes.click_mask(scan)
        structures = [clicks_on_grid(annotation, image.affine) for annotation in scan.annotations]
        x, y, z = image.voxels.shape
        patch = self._place((x, y, z), mask, structures)
        boxes = [Box.around(points.foreground_voxel).relaxed(plan.margin_voxels, (x, y, z)) for points in structures]
        return Patch(
            random_intensities(patch.sampled(image.voxels), plan.augmentation),
            tuple(patch.clicks(points) for points in structures),
            tuple(patch.inside(box) for box in boxes),
            scan.absent,
            None if mask is None else patch.sampled(mask.voxels, nearest=True).byte(),
            scan.mask_labels,
            None if click_mask is None else patch.sampled(click_mask.voxels, nearest=True).byte(),
        )

    def _place(self, shape: Size, mask: PreparedVolume | None, structures: Sequence[ExtremePoints]) -> PatchMap:
        """Draw the place of a patch in a scan of this shape."""
        plan = self.plan
        on_structure = torch.rand(1).item() < plan.annotated_fraction
        voxel = _annotated_voxel(mask, structures) if on_structure else None
        if voxel is not None:
            voxel = np.clip(voxel, 0, np.array(shape) - 1)
        while True:
            corner = _corner(shape, plan.roi_size, voxel)
            matrix = random_matrix(plan.augmentation, self.volumes.spacing_mm, plan.mirrored)
            patch = PatchMap.about_centre(plan.roi_size, corner, matrix)
            # A rotation may move the voxel out of the patch.
            if voxel is None or patch.holds(voxel):
                return patch


def _corner(scan_shape: Sequence[int], patch_size: Sequence[int], voxel: np.ndarray | None) -> list[int]:
    """Draw the first voxel of a patch, in voxels of the scan; the patch contains `voxel`, if that is given.

    A scan smaller than the patch is centred in it.
    """
    shape, size = np.array(scan_shape), np.array(patch_size)
    middle = (shape - size) // 2
    low, high = np.where(shape <= size, middle, 0), np.where(shape <= size, middle, shape - size)
    if voxel is not None:
        low, high = np.maximum(low, voxel - size + 1), np.minimum(high, voxel)
    return [int(torch.randint(int(a), int(b) + 1, (1,))) for a, b in zip(low, high, strict=True)]


def _annotated_voxel(mask: PreparedVolume | None, structures: Sequence[ExtremePoints]) -> np.ndarray | None:
    """Draw a voxel of a random structure: in its mask, or between two of its clicks."""
    labels = [] if mask is None else list(mask.label_voxels)
    choice = int(torch.randint(max(1, len(labels) + len(structures)), (1,)))
    if mask is not None and choice < len(labels):
        voxels = mask.label_voxels[labels[choice]]
        return voxels[int(torch.randint(len(voxels), (1,)))].numpy().astype(np.int64)
    if not structures:
        return None
    clicks = structures[choice - len(labels)].foreground_voxel
    # Convex combinations lie inside the structure too, not only on its border.
    first, second = clicks[torch.randint(len(clicks), (2,)).numpy()]
    weight = torch.rand(1).item()
    return np.rint(weight * first + (1 - weight) * second).astype(np.int64)
