"""Import masks from other programs into the store of final masks: all of them, or none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lib.annotations.image_identity import voxel_checksum
from lib.annotations.mask_file import MaskRecord
from lib.annotations.mask_store import MaskStore
from lib.annotations.names import label_values
from lib.exchange.click_records import ImportRefusedError
from lib.exchange.study_images import StudyImages
from lib.geometry.volume import Volume, load_volume

IMPORTED_KEY = "imported"
"""Key in `MaskRecord.info` for the object that each label was imported from."""


@dataclass(frozen=True, eq=False)
class StructureVoxels:
    """Structure of an image, from a DICOM object.

    Attributes:
        source: the object, for messages.
        image: the image's id.
        label: of the app.
        voxels: (N, 3) int, of the image.
        annotator: who made it.
        facts: of the object, for the record.
    """

    source: str
    image: str
    label: str
    voxels: np.ndarray
    annotator: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class MaskPlan:
    """Plan of an import of masks.

    Attributes:
        new: the structures of each image.
        kept: images that are skipped, because they have a final mask.
    """

    new: Mapping[str, tuple[StructureVoxels, ...]]
    kept: tuple[str, ...]

    def carry_out(self, images: StudyImages, store: MaskStore) -> Iterator[str]:
        """Store the new masks and yield the image of each one when it is on disk.

        A mask covers the labels of its structures, and no others.

        Raises:
            VolumeError: an image cannot be read.
            OSError: the disk is full or the folder cannot be written; the same import can then be continued.
        """
        values = label_values(store.labels)
        for image, structures in self.new.items():
            volume = load_volume(images.paths[image])
            mask = np.zeros(volume.geometry.shape, np.uint8)
            for structure in structures:
                mask[tuple(structure.voxels.T)] = values[structure.label]
            record = MaskRecord(
                {structure.label: values[structure.label] for structure in structures},
                ", ".join(dict.fromkeys(structure.annotator for structure in structures)),
                image_checksum=voxel_checksum(volume.array),
                info={IMPORTED_KEY: {structure.label: dict(structure.facts) for structure in structures}},
            )
            store.save(image, Volume(mask, volume.geometry), record)
            yield image


def plan_masks(structures: Iterable[StructureVoxels], store: MaskStore, *, overwrite: bool = False) -> MaskPlan:
    """Check that structures can be combined to one mask per image.

    Args:
        overwrite: replace existing final masks, which are kept as history.

    Raises:
        ImportRefusedError: two structures of one label of an image, or structures that overlap.
    """
    of_image: dict[str, list[StructureVoxels]] = defaultdict(list)
    refused = []
    for structure in structures:
        for other in of_image[structure.image]:
            if problem := _conflict(structure, other):
                refused.append(f"{structure.source}: image {structure.image!r}, label {structure.label!r}: {problem}")
        of_image[structure.image].append(structure)
    if refused:
        raise ImportRefusedError(refused)
    kept = () if overwrite else tuple(image for image in of_image if store.path(image) is not None)
    return MaskPlan({image: tuple(found) for image, found in of_image.items() if image not in kept}, kept)


def _conflict(structure: StructureVoxels, other: StructureVoxels) -> str | None:
    if structure.label == other.label:
        return f"{other.source} holds it too; expected one. Name the files to read, or the series with --archive UID."
    shared = _keys(structure.voxels)[np.isin(_keys(structure.voxels), _keys(other.voxels))]
    return f"it shares {len(shared)} voxels with {other.label!r}; expected none." if len(shared) else None


def _keys(voxels: np.ndarray) -> np.ndarray:
    """Return a unique number (N,) int64 for each voxel (N, 3)."""
    i, j, k = voxels.T
    return (i << 40) + (j << 20) + k
