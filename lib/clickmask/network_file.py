"""Save and load click networks."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from lib.annotations.atomic_write import write_atomically
from lib.clickmask.click_network import ClickNetwork

logger = logging.getLogger(__name__)


class StoredNetwork(NamedTuple):
    """Click network, and the ids of the images whose accepted masks it was trained on."""

    network: ClickNetwork
    images: tuple[str, ...]


def save_networks(path: Path, networks: Mapping[str, StoredNetwork]) -> None:
    """Write the network of each label.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is then intact.
    """
    content = {
        label: {"weights": stored.network.state_dict(), "images": list(stored.images)}
        for label, stored in networks.items()
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_networks(path: Path) -> dict[str, StoredNetwork]:
    """Return the network of each label; empty without a usable file."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return {str(label): _stored(of) for label, of in content.items()}
    except FileNotFoundError:
        return {}
    except Exception as error:  # a damaged file raises errors of any kind
        logger.warning("The click networks cannot be read (%s); the next training makes them again.", error)
        return {}


def _stored(content: Mapping) -> StoredNetwork:
    network = ClickNetwork()
    network.load_state_dict(content["weights"])
    if not all(bool(torch.isfinite(weights).all()) for weights in network.parameters()):
        raise ValueError("weights that are not finite")
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return StoredNetwork(network.eval(), tuple(str(image_id) for image_id in content["images"]))
