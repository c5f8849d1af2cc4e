"""Retrain the click networks of labels with new accepted masks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lib.clickmask.click_network import ClickNetwork
from lib.clickmask.network_file import StoredNetwork, load_networks, save_networks
from lib.clickmask.shape_atlas import Shape
from lib.data.annotated_scan import AnnotatedScan
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.volume import VolumeError
from lib.training.click_network_training import MIN_MASKS, ClickExample, seconds_by_label, train_click_network

logger = logging.getLogger(__name__)

FILE_NAME = "click_networks.pt"
"""Name of the file, in the folder of the published network."""


def updated_click_networks(
    folder: Path,
    scans: Sequence[AnnotatedScan],
    volumes: ScanVolumes,
    accepted: Mapping[str, Mapping[str, Shape]],
    labels: tuple[str, ...],
    minutes: float,
) -> dict[str, ClickNetwork]:
    """Train the networks of labels with new accepted masks, and store them for click requests.

    Labels without clicks get no network. A network that was trained on a mask which was deleted is deleted.

    Args:
        folder: folder of the file of networks.
        accepted: shapes of accepted masks, by label and image id.
        labels: names in order of their index 1, 2, ...
        minutes: of the training that includes this, 0 for no limit.

    Returns:
        Networks by label.
    """
    kept = {
        label: stored
        for label, stored in load_networks(folder / FILE_NAME).items()
        if stored.images and set(stored.images) <= accepted.get(label, {}).keys()
    }
    clicked = {annotation.label for scan in scans for annotation in scan.annotations}
    enough = {label: of for label, of in accepted.items() if label in clicked and len(of) >= MIN_MASKS}
    new = {
        label: len(shapes.keys() - set(kept[label].images if label in kept else ())) for label, shapes in enough.items()
    }
    networks = dict(kept)
    for label, seconds in seconds_by_label(new, minutes).items():
        examples = _examples(scans, volumes, enough[label], 1 + labels.index(label))
        network = train_click_network(list(examples.values()), seconds)
        networks.pop(label, None)
        if network is not None:
            networks[label] = StoredNetwork(network, tuple(examples))
            logger.info("A click network of %s was trained on %d accepted masks.", label, len(examples))
    try:
        save_networks(folder / FILE_NAME, networks)
    except OSError as error:
        logger.warning("The click networks cannot be stored (%s).", error.strerror)
    return {label: stored.network for label, stored in networks.items()}


def kept_click_networks(folder: Path) -> dict[str, ClickNetwork]:
    """Load the networks in a folder, by label."""
    return {label: stored.network for label, stored in load_networks(folder / FILE_NAME).items()}


def _examples(
    scans: Sequence[AnnotatedScan], volumes: ScanVolumes, shapes: Mapping[str, Shape], index: int
) -> dict[str, ClickExample]:
    """Read the training examples by image id; images that cannot be read are left out."""
    found = {}
    for scan in (scan for scan in scans if scan.image_id in shapes):
        try:
            image, mask = volumes.image(scan).voxels.numpy(), volumes.mask(scan)
        except VolumeError:
            continue  # it is logged when a patch of the scan is drawn
        assert mask is not None
        is_label = np.asarray(mask.voxels.numpy() == index)
        found[scan.image_id] = ClickExample.of(image, is_label, volumes.spacing_mm, shapes[scan.image_id])
    return found
