"""Make the label sets of a batch of patches, from accepted masks and clicks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lib.annotations.extreme_points import ExtremePoints
from lib.data.patches import Patch, PatchBatch
from lib.geometry.boxes import Box
from lib.geometry.image_geometry import Spacing
from lib.supervision.geodesics import batch_extreme_point_geodesics
from lib.supervision.label_sets import StructureSupervision, intersection, label_sets_of_clicks, label_sets_of_mask
from lib.training.hyperparameters import Geodesic


class LabelSetMaker:
    """Maker of the label sets of batches.

    Args:
        index: of each label, 1, 2, ...
        spacing_mm: of the patches.
        geodesic: row of the paper's Table 1.
    """

    def __init__(self, index: Mapping[str, int], spacing_mm: Spacing, geodesic: Geodesic) -> None:
        self.index = index
        self.spacing_mm = spacing_mm
        self.geodesic = geodesic

    def __call__(self, batch: PatchBatch, probability: torch.Tensor) -> torch.Tensor:
        """Make the label sets (B, 1 + C, X, Y, Z) bool of a batch.

        Args:
            batch: patches.
            probability: (B, C, X, Y, Z) of the foreground, without gradient, which guides `deep` geodesics.
        """
        jobs = [
            (n, points)
            for n, patch in enumerate(batch.patches)
            for points in patch.points
            if points.label not in patch.mask_labels
        ]
        geodesics = iter(self._geodesics(batch.image, jobs, probability))
        return torch.stack(
            [
                self._patch_label_sets(patch, [next(geodesics) for m, _ in jobs if m == n])
                for n, patch in enumerate(batch.patches)
            ]
        )

    def _patch_label_sets(self, patch: Patch, geodesics: Sequence[list[np.ndarray]]) -> torch.Tensor:
        clicked = [
            (points, box)
            for points, box in zip(patch.points, patch.boxes, strict=True)
            if points.label not in patch.mask_labels
        ]
        structures = [
            StructureSupervision(self.index[points.label], points, box, paths)
            for (points, box), paths in zip(clicked, geodesics, strict=True)
        ]
        absent = [self.index[label] for label in patch.absent if label in self.index]
        label_sets = label_sets_of_clicks(patch.image.shape, len(self.index), structures, absent)
        if patch.mask is None:
            return label_sets
        covered = [self.index[label] for label in patch.mask_labels]
        return intersection(label_sets, label_sets_of_mask(patch.mask, len(self.index), covered))

    def _geodesics(
        self, image: torch.Tensor, jobs: Sequence[tuple[int, ExtremePoints]], probability: torch.Tensor
    ) -> list[list[np.ndarray]]:
        """Return the paths (n, 3), in voxels of the patch, of each job: a patch and the clicks on one structure."""
        if self.geodesic == "none":
            return [[np.empty((0, 3), dtype=np.int64)]] * len(jobs)
        backgrounds = self._background_probabilities(probability, jobs) if self.geodesic == "deep" else None
        return batch_extreme_point_geodesics(
            [image[n, 0].numpy() for n, _ in jobs],
            [points.extremes_voxel for _, points in jobs],
            [self.spacing_mm] * len(jobs),
            background_probabilities=backgrounds,
            euclidean=self.geodesic != "gradient",
            threads=os.cpu_count() or 1,
        )

    def _background_probabilities(
        self, probability: torch.Tensor, jobs: Sequence[tuple[int, ExtremePoints]]
    ) -> list[np.ndarray]:
        """Return 1 - f of the label of each job (paper, Eq. 2).

        Only the tight boxes, which contain the paths, are copied from the device; elsewhere the value is 1.
        """
        backgrounds = []
        for n, points in jobs:
            of_label = probability[n, self.index[points.label] - 1]
            box = Box.around(points.extremes_voxel.reshape(-1, 3)).relaxed(0, tuple(of_label.shape))
            background = np.ones(tuple(of_label.shape), dtype=np.float32)
            background[box.slices] = (1 - of_label[box.slices]).clamp(0, 1).cpu().numpy()
            backgrounds.append(background)
        return backgrounds
