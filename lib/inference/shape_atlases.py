"""Keep the shape atlas of each label up to date as masks are accepted, replaced and deleted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from scipy import ndimage

from lib.annotations.image_identity import Stamp, file_stamp
from lib.annotations.mask_file import MaskError
from lib.annotations.mask_store import MaskStore
from lib.annotations.store import AnnotationStore
from lib.clickmask.atlas_file import load_atlases
from lib.clickmask.click_network import ClickNetwork
from lib.clickmask.learnt import Learnt
from lib.clickmask.network_file import load_networks
from lib.clickmask.shape_atlas import MAX_SHAPES, Shape, ShapeAtlas
from lib.geometry.volume import VolumeError, load_volume

logger = logging.getLogger(__name__)

T = TypeVar("T")


def shapes_of_mask(label_map: np.ndarray, affine_ras: np.ndarray, labels: Sequence[str]) -> dict[str, Shape]:
    """Return the shape of each label in a label map (X, Y, Z) uint8 with the values 1, 2, ..."""
    found = {}
    for index, box in enumerate(ndimage.find_objects(label_map, max_label=len(labels)), start=1):
        if box is not None:
            found[labels[index - 1]] = Shape.of_mask(label_map[box] == index, affine_ras)
    return found


@dataclass(frozen=True, eq=False)
class _AcceptedShapes:
    """Shapes of one accepted mask; `stamp` is that of its file."""

    path: Path
    stamp: Stamp | None
    shapes: Mapping[str, Shape]


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """Shapes of accepted masks by image id, the oldest first, and their atlases by label."""

    accepted: Mapping[str, _AcceptedShapes] = field(default_factory=dict)
    atlases: Mapping[str, ShapeAtlas] = field(default_factory=dict)


class ShapeAtlases:
    """Atlases of accepted masks; for a label without any, the atlas that a training made from clicks.

    Masks are read in the background, once each, the newest first, until the atlas has `MAX_SHAPES`. A mask that was
    replaced or deleted is not used from the next click on. A click network is not used once any of its training masks
    is deleted.

    Args:
        masks: accepted masks.
        clicks: annotations, of which a training has made atlases.
        made_of_clicks: file of these atlases.
        networks: file of click networks.
        left_out: returns the images whose masks are not used.
    """

    def __init__(
        self,
        masks: MaskStore,
        clicks: AnnotationStore,
        made_of_clicks: Path,
        networks: Path,
        left_out: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self.masks = masks
        self.clicks = clicks
        self._left_out = left_out
        self._of_clicks = _WatchedFile(made_of_clicks, load_atlases)
        self._networks = _WatchedFile(networks, load_networks)
        self._snapshot = _Snapshot()
        self._lock = threading.Lock()
        self._changed = threading.Event()

    def start(self) -> None:
        """Start to read masks in the background, until the process ends."""
        threading.Thread(target=self._run, name="shapes", daemon=True).start()
        self.refresh_soon()

    def refresh_soon(self) -> None:
        """Read masks again in the background."""
        self._changed.set()

    def current(self) -> Mapping[str, Learnt]:
        """Return the atlas and the network of each label that has an atlas, without reading masks."""
        snapshot = self._snapshot
        if any(file_stamp(of.path) != of.stamp for of in snapshot.accepted.values()):
            with self._lock:
                snapshot = self._update(self._still_there())
        networks = self._usable_networks()
        accepted = {label: Learnt(atlas, networks.get(label)) for label, atlas in snapshot.atlases.items()}
        return {**self._atlases_of_clicks(), **accepted}

    def refresh(self) -> None:
        """Read new masks, and drop deleted ones."""
        with self._lock:
            kept = self._still_there()
            left_out = self._left_out()
            paths = {image_id: path for image_id, path in self.masks.paths().items() if image_id not in left_out}
            newest_first = sorted(paths, key=lambda image_id: _modified(paths[image_id]), reverse=True)
            accepted: dict[str, _AcceptedShapes] = {}
            counts = dict.fromkeys(self.masks.labels, 0)
            for image_id in newest_first:
                if min(counts.values()) >= MAX_SHAPES:
                    break
                found = kept.get(image_id) or self._read(image_id, paths[image_id])
                if found is not None:
                    accepted[image_id] = found
                    for label in found.shapes:
                        counts[label] += 1
            self._update(dict(reversed(accepted.items())))

    def _run(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            try:
                self.refresh()
            except Exception:  # the next change tries again
                logger.exception("The shapes of accepted masks could not be read.")

    def _still_there(self) -> dict[str, _AcceptedShapes]:
        accepted = self._snapshot.accepted
        return {image_id: of for image_id, of in accepted.items() if file_stamp(of.path) == of.stamp}

    def _update(self, accepted: Mapping[str, _AcceptedShapes]) -> _Snapshot:
        if accepted.items() != self._snapshot.accepted.items():
            shapes = {
                label: [of.shapes[label] for of in accepted.values() if label in of.shapes]
                for label in self.masks.labels
            }
            self._snapshot = _Snapshot(accepted, {label: ShapeAtlas.of(of) for label, of in shapes.items() if of})
        return self._snapshot

    def _read(self, image_id: str, path: Path) -> _AcceptedShapes | None:
        """Read the shapes of a mask; None if it cannot be used."""
        stamp = file_stamp(path)
        try:
            mask = load_volume(self.masks.checked(image_id).path, sentinels=False)
        except (FileNotFoundError, MaskError, VolumeError, OSError) as error:
            logger.warning("The final mask of %s is not used for the shape atlas. %s", image_id, error)
            return None
        shapes = shapes_of_mask(mask.array.astype(np.uint8), mask.geometry.affine_ras, self.masks.labels)
        return _AcceptedShapes(path, stamp, shapes)

    def _atlases_of_clicks(self) -> dict[str, Learnt]:
        """Return atlases made from clicks, for labels whose images are all still annotated."""
        return {
            label: Learnt(atlas)
            for label, (atlas, images) in self._of_clicks.content().items()
            if label in self.masks.labels and all(self.clicks.path(image_id, label).exists() for image_id in images)
        }

    def _usable_networks(self) -> dict[str, ClickNetwork]:
        return {
            label: stored.network
            for label, stored in self._networks.content().items()
            if all(self.masks.path(image_id) is not None for image_id in stored.images)
        }


class _WatchedFile(Generic[T]):
    """File that is read again after each change."""

    def __init__(self, path: Path, load: Callable[[Path], T]) -> None:
        self.path = path
        self._load = load
        self._seen: tuple[Stamp | None, T] | None = None

    def content(self) -> T:
        stamp, seen = file_stamp(self.path), self._seen
        if seen is None or seen[0] != stamp:
            seen = self._seen = (stamp, self._load(self.path))
        return seen[1]


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
