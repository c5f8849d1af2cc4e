"""Make the label map of a scan from its annotations: the class of each voxel, or unknown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lib.annotations.names import label_values
from lib.annotations.store import Annotation
from lib.data.annotated_scan import AnnotatedScan
from lib.geometry.boxes import Box
from lib.geometry.volume import Volume, VolumeError, check_size, load_volume
from lib.supervision.geodesics import extreme_point_geodesics
from lib.supervision.label_sets import StructureSupervision, intersection, label_sets_of_clicks, label_sets_of_mask


def known_label_map(scan: AnnotatedScan, volume: Volume, labels: Sequence[str], margin: int) -> np.ndarray:
    """Return the class of each voxel that follows from the annotations.

    Labels that the final mask covers are known everywhere. For a clicked label, the geodesics between opposite extreme
    points and the clicks are foreground, and voxels outside the relaxed box are not (paper, Section 3). An absent label
    is in no voxel; a label without annotation may be in any.

    Args:
        volume: the scan.
        labels: of the app, with the values 1, 2, ...
        margin: voxels of the scan by which tight boxes are relaxed.

    Returns:
        (X, Y, Z) int16: 0 for the background, 1 ... C for the labels, C + 1 for unknown.

    Raises:
        VolumeError: the mask cannot be read, or there is not enough free memory.
    """
    n_labels = len(labels)
    check_size(volume.geometry.shape, f"The scan {scan.image_id} with {n_labels} labels", 2 * (1 + n_labels) + 12)
    index = label_values(labels)
    clicked = [a for a in scan.annotations if a.label in index and a.label not in scan.mask_labels]
    structures = [_structure(a, index[a.label], volume, margin) for a in clicked]
    absent = [index[label] for label in scan.absent if label in index]
    label_sets = label_sets_of_clicks(volume.geometry.shape, n_labels, structures, absent)
    if scan.mask_path is not None:
        mask = load_volume(scan.mask_path, sentinels=False)
        if mask.array.shape != volume.array.shape:
            raise VolumeError(f"The mask of {scan.image_id} is not on the grid of its image; submit it again.")
        drawn = torch.from_numpy(mask.array.astype(np.uint8))
        covered = [index[label] for label in scan.mask_labels if label in index]
        label_sets = intersection(label_sets, label_sets_of_mask(drawn, n_labels, covered))
    is_known = label_sets.sum(dim=0) == 1
    classes = label_sets.to(torch.uint8).argmax(dim=0)
    return torch.where(is_known, classes, 1 + n_labels).to(torch.int16).numpy()


def _structure(annotation: Annotation, index: int, volume: Volume, margin: int) -> StructureSupervision:
    points = annotation.points
    inside = torch.zeros(volume.geometry.shape, dtype=torch.bool)
    inside[Box.around(points.foreground_voxel).relaxed(margin, volume.geometry.shape).slices] = True
    # The paths depend on this region only.
    region = Box.around(points.foreground_voxel).relaxed(1, volume.geometry.shape)
    start = np.array(region.start)
    paths = extreme_point_geodesics(
        volume.array[region.slices], points.extremes_voxel - start, volume.geometry.spacing_mm
    )
    return StructureSupervision(index, points, inside, [path + start for path in paths])
