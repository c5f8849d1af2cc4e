"""Build the shape atlases for the click masks that a training learns from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lib.clickmask.atlas_file import save_atlases
from lib.clickmask.click_network import ClickNetwork
from lib.clickmask.learnt import Learnt
from lib.clickmask.shape_atlas import MAX_SHAPES, Shape, ShapeAtlas
from lib.data.annotated_scan import AnnotatedScan
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.volume import VolumeError, load_volume
from lib.inference.group_atlas import (
    MAX_STRUCTURES,
    ClickedStructure,
    frame_extremes,
    group_atlas,
    have_shape_in_common,
)
from lib.inference.shape_atlases import shapes_of_mask

logger = logging.getLogger(__name__)

FILE_NAME = "atlases_of_clicks.npz"
"""Name of the file, in the folder of the published network."""


@dataclass(frozen=True, eq=False)
class TrainingAtlases:
    """Shape atlases and click networks of each label.

    Attributes:
        accepted: shapes of accepted masks, by label and image id.
        of_clicks: atlases made from clicks, by label, for labels without an accepted mask.
        clicked: ids of the images of these atlases, by label.
        networks: click networks trained on accepted masks, by label.
    """

    accepted: Mapping[str, Mapping[str, Shape]] = field(default_factory=dict)
    of_clicks: Mapping[str, ShapeAtlas] = field(default_factory=dict)
    clicked: Mapping[str, list[str]] = field(default_factory=dict)
    networks: Mapping[str, ClickNetwork] = field(default_factory=dict)

    @classmethod
    def of(cls, scans: Sequence[AnnotatedScan], volumes: ScanVolumes, labels: tuple[str, ...]) -> TrainingAtlases:
        """Build the atlases from accepted masks, and from clicks on labels without an accepted mask.

        Args:
            labels: names in order of their index 1, 2, ...
        """
        accepted = _accepted(scans, volumes, labels)
        of_clicks, clicked = {}, {}
        for label, structures in _clicked(scans, [label for label in labels if not accepted[label]]).items():
            atlas = group_atlas(list(structures.values()))
            if atlas is not None:
                of_clicks[label], clicked[label] = atlas, list(structures)
                logger.info("The clicks on %s in %d scans show a common shape.", label, len(structures))
        return cls(accepted, of_clicks, clicked)

    def for_scan(self, scan: AnnotatedScan) -> dict[str, Learnt]:
        """Return the atlases and networks for a scan, without its own accepted mask, which would predict itself."""
        found = {
            label: Learnt(atlas, self.networks.get(label))
            for label, atlas in {**self.of_clicks, **self._of_accepted}.items()
        }
        for label, shapes in self.accepted.items():
            if scan.image_id in shapes:
                others = [shape for image_id, shape in shapes.items() if image_id != scan.image_id]
                found.pop(label)
                found |= {label: Learnt(ShapeAtlas.of(others))} if others else {}
        return found

    @cached_property
    def _of_accepted(self) -> dict[str, ShapeAtlas]:
        return {label: ShapeAtlas.of(list(shapes.values())) for label, shapes in self.accepted.items() if shapes}

    @property
    def digest(self) -> str:
        """Key of everything that a click mask depends on."""
        atlases = {**self.of_clicks, **self._of_accepted}
        images = {label: sorted(shapes) for label, shapes in self.accepted.items()}
        weights = {label: network.digest for label, network in self.networks.items()}
        return f"{images} {[(label, atlas.digest) for label, atlas in atlases.items()]} {weights}"

    def save(self, folder: Path) -> None:
        """Write the atlases of clicks, for click requests. Errors of the disk are logged."""
        try:
            save_atlases(folder / FILE_NAME, self.of_clicks, self.clicked)
        except OSError as error:
            logger.warning("The shapes that clicks have in common are not kept (%s).", error.strerror)


def _accepted(
    scans: Sequence[AnnotatedScan], volumes: ScanVolumes, labels: tuple[str, ...]
) -> dict[str, dict[str, Shape]]:
    found: dict[str, dict[str, Shape]] = {label: {} for label in labels}
    for scan in (scan for scan in scans if scan.mask_path is not None):
        missing = [label for label in scan.mask_labels if label in found and len(found[label]) < MAX_SHAPES]
        try:
            mask = volumes.mask(scan) if missing else None
        except VolumeError:
            continue  # it is logged when a patch of the scan is drawn
        if mask is not None:
            shapes = shapes_of_mask(mask.voxels.numpy(), mask.affine, labels)
            for label in missing:
                if label in shapes:
                    found[label][scan.image_id] = shapes[label]
    return found


def _clicked(scans: Sequence[AnnotatedScan], labels: Sequence[str]) -> dict[str, dict[str, ClickedStructure]]:
    """Return structures of labels whose clicks show a common shape, by label and image id. Read each image once."""
    clicks = {
        label: {scan.image_id: a for scan in scans for a in scan.annotations if a.label == label} for label in labels
    }
    found: dict[str, dict[str, ClickedStructure]] = {}
    for label, of in clicks.items():
        some = list(of.values())[:MAX_STRUCTURES]
        if have_shape_in_common([frame_extremes(a.points, a.geometry.affine_ras) for a in some]):
            found[label] = {}
    for scan in scans:
        missing = [label for label in found if scan.image_id in clicks[label] and len(found[label]) < MAX_STRUCTURES]
        try:
            volume = load_volume(scan.image_path) if missing else None
        except VolumeError:
            continue  # it is logged when a patch of the scan is drawn
        if volume is not None:
            for label in missing:
                found[label][scan.image_id] = ClickedStructure.of(volume, clicks[label][scan.image_id].points)
    return found
